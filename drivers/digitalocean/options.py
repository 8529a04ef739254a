"""The options: docker-machine's fourteen first (reference 2.5), then what they lacked."""

from __future__ import annotations

from typing import Final

from drivers.options import Kind, OptionSpec

PUBLIC_ENDPOINT: Final = "https://api.digitalocean.com/v2/"

OPTIONS: Final = (
    OptionSpec(
        "access-token",
        ("--digitalocean-access-token",),
        "Personal access token of the API",
        env=("DIGITALOCEAN_ACCESS_TOKEN", "DIGITALOCEAN_TOKEN"),
        secret=True,
    ),
    OptionSpec(
        "backups",
        ("--digitalocean-backups",),
        "Let DigitalOcean back the droplet up (costs extra)",
        kind=Kind.FLAG,
        default=False,
        env=("DIGITALOCEAN_BACKUPS",),
    ),
    OptionSpec(
        "image",
        ("--digitalocean-image",),
        "Image, by slug or number; the newest Debian, else Ubuntu LTS, when not given",
        env=("DIGITALOCEAN_IMAGE",),
    ),
    OptionSpec(
        "ipv6",
        ("--digitalocean-ipv6",),
        "Give the droplet an IPv6 address as well",
        kind=Kind.FLAG,
        default=False,
        env=("DIGITALOCEAN_IPV6",),
    ),
    OptionSpec(
        "monitoring",
        ("--digitalocean-monitoring",),
        "Install DigitalOcean's monitoring agent",
        kind=Kind.FLAG,
        default=False,
        env=("DIGITALOCEAN_MONITORING",),
    ),
    OptionSpec(
        "private-networking",
        ("--digitalocean-private-networking",),
        "Put the droplet into the region's default VPC",
        kind=Kind.FLAG,
        default=False,
        env=("DIGITALOCEAN_PRIVATE_NETWORKING",),
    ),
    OptionSpec(
        "region",
        ("--digitalocean-region",),
        "Region",
        default="nyc3",
        env=("DIGITALOCEAN_REGION",),
    ),
    OptionSpec(
        "size",
        ("--digitalocean-size",),
        "Size of the droplet",
        default="s-1vcpu-1gb",
        env=("DIGITALOCEAN_SIZE",),
    ),
    OptionSpec(
        "ssh-key-fingerprint",
        ("--digitalocean-ssh-key-fingerprint",),
        "Fingerprint of an SSH key of the account to use instead of uploading one",
        env=("DIGITALOCEAN_SSH_KEY_FINGERPRINT",),
    ),
    OptionSpec(
        "ssh-key-path",
        ("--digitalocean-ssh-key-path",),
        "SSH private key to log in with; without a fingerprint its .pub is uploaded",
        kind=Kind.PATH,
        env=("DIGITALOCEAN_SSH_KEY_PATH",),
    ),
    OptionSpec(
        "ssh-port",
        ("--digitalocean-ssh-port",),
        "SSH port of the image",
        kind=Kind.PORT,
        default=22,
        env=("DIGITALOCEAN_SSH_PORT",),
    ),
    OptionSpec(
        "ssh-user",
        ("--digitalocean-ssh-user",),
        "SSH user",
        default="root",
        env=("DIGITALOCEAN_SSH_USER",),
    ),
    OptionSpec(
        "tags",
        ("--digitalocean-tags",),
        "Tags of the droplet, separated by commas",
        kind=Kind.LIST,
        default=(),
        env=("DIGITALOCEAN_TAGS",),
    ),
    OptionSpec(
        "userdata",
        ("--digitalocean-userdata",),
        "File with user data for cloud-init",
        kind=Kind.PATH,
        env=("DIGITALOCEAN_USERDATA",),
    ),
    OptionSpec(
        "vpc-uuid",
        ("--digitalocean-vpc-uuid",),
        "VPC for the droplet; the region's default one when not given",
        env=("DIGITALOCEAN_VPC_UUID",),
    ),
    OptionSpec(
        "volume",
        ("--digitalocean-volume",),
        "Existing volume to attach, by id or name; never deleted by us",
        kind=Kind.LIST,
        default=(),
        env=("DIGITALOCEAN_VOLUMES",),
    ),
    OptionSpec(
        "volume-size",
        ("--digitalocean-volume-size",),
        "GiB of a new ext4 volume that lives and dies with the machine; 0 for none",
        kind=Kind.INTEGER,
        default=0,
        env=("DIGITALOCEAN_VOLUME_SIZE",),
    ),
    OptionSpec(
        "open-to",
        ("--digitalocean-open-to",),
        "Network (CIDR) that may reach SSH and the engine; your public address when not given",
        kind=Kind.LIST,
        default=(),
        env=("DIGITALOCEAN_OPEN_TO",),
    ),
    OptionSpec(
        "open-port",
        ("--digitalocean-open-port",),
        'Port (80, 53/udp, 8000-8010) open to everybody; "none"; all but SSH and the engine when '
        "not given",
        kind=Kind.LIST,
        default=(),
        env=("DIGITALOCEAN_OPEN_PORT",),
    ),
    OptionSpec(
        "no-firewall",
        ("--digitalocean-no-firewall",),
        "Make no firewall: you have one of your own for the droplet's tags",
        kind=Kind.FLAG,
        default=False,
        env=("DIGITALOCEAN_NO_FIREWALL",),
    ),
    OptionSpec(
        "endpoint",
        ("--digitalocean-endpoint",),
        "Address of the API",
        default=PUBLIC_ENDPOINT,
        env=("DIGITALOCEAN_END_POINT",),
    ),
)
