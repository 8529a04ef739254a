"""drivers.digitalocean.options: docker-machine's names, so that old scripts work (reference 2.5)."""

from drivers.digitalocean.options import OPTIONS

DOCKER_MACHINE = {
    "--digitalocean-access-token": ("DIGITALOCEAN_ACCESS_TOKEN", ""),
    "--digitalocean-backups": ("DIGITALOCEAN_BACKUPS", False),
    "--digitalocean-image": ("DIGITALOCEAN_IMAGE", ""),
    "--digitalocean-ipv6": ("DIGITALOCEAN_IPV6", False),
    "--digitalocean-monitoring": ("DIGITALOCEAN_MONITORING", False),
    "--digitalocean-private-networking": ("DIGITALOCEAN_PRIVATE_NETWORKING", False),
    "--digitalocean-region": ("DIGITALOCEAN_REGION", "nyc3"),
    "--digitalocean-size": ("DIGITALOCEAN_SIZE", "s-1vcpu-1gb"),
    "--digitalocean-ssh-key-fingerprint": ("DIGITALOCEAN_SSH_KEY_FINGERPRINT", ""),
    "--digitalocean-ssh-key-path": ("DIGITALOCEAN_SSH_KEY_PATH", ""),
    "--digitalocean-ssh-port": ("DIGITALOCEAN_SSH_PORT", 22),
    "--digitalocean-ssh-user": ("DIGITALOCEAN_SSH_USER", "root"),
    "--digitalocean-tags": ("DIGITALOCEAN_TAGS", ()),
    "--digitalocean-userdata": ("DIGITALOCEAN_USERDATA", ""),
}


def test_docker_machine_s_options_are_there_with_today_s_defaults() -> None:
    ours = {spec.flags[0]: (spec.env[0], spec.default) for spec in OPTIONS}
    assert {flag: ours.get(flag) for flag in DOCKER_MACHINE} == DOCKER_MACHINE


def test_only_the_token_is_secret() -> None:
    assert [spec.name for spec in OPTIONS if spec.secret] == ["access-token"]
