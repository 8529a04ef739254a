"""Flags, secrets, the folder, kinds of errors, PATH, the port: what needs no running plugin."""

import json
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from drivers.errors import (
    AuthError,
    ConflictError,
    DriverError,
    GoneError,
    QuotaError,
    TransientError,
)
from drivers.options import Kind
from drivers.plugins import gob
from drivers.plugins.child import loopback, owns
from drivers.plugins.finding import on_path
from drivers.plugins.flags import Flags, is_secret, name_of, read_flags, values_for, words_of
from drivers.plugins.folder import CREATED, CREATING, Folder, parse_config
from drivers.plugins.kinds import as_driver_error, printable
from drivers.plugins.vault import needed, rebased, seal, unseal

# -- flags


def flag(kind: str, **fields: object) -> gob.Concrete:
    return gob.Concrete(f"*mcnflag.{kind}", {"Name": "x", **fields})


def test_the_four_flag_types() -> None:
    found = read_flags(
        [
            flag("StringFlag", Name="s", Usage="Some\n text", EnvVar="S", Value="v"),
            flag("IntFlag", Name="i", Value=22),
            flag("BoolFlag", Name="b", Usage="Switch"),
            flag("StringSliceFlag", Name="l", Value=["x", "y"]),
            flag("IntFlag", Name="zero"),
        ]
    )
    rows = [(s.name, s.flags, s.kind, s.default, s.env, s.help) for s in found.specs]
    assert rows == [
        ("s", ("--s",), Kind.TEXT, "v", ("S",), "Some text"),
        ("i", ("--i",), Kind.INTEGER, 22, (), "The plugin's i"),
        ("b", ("--b",), Kind.FLAG, False, (), "Switch"),
        ("l", ("--l",), Kind.LIST, ("x", "y"), (), "The plugin's l"),
        ("zero", ("--zero",), Kind.INTEGER, 0, (), "The plugin's zero"),
    ]
    assert found.family == "*mcnflag"


@pytest.mark.parametrize(
    "answer",
    [
        "flags",
        ["x"],
        [None],
        [gob.Concrete("*mcnflag.StringFlag", "text")],
        [gob.Concrete("*mcnflag.FloatFlag", {"Name": "x"})],
        [gob.Concrete("*mcnflag.StringFlag", {})],
        [gob.Concrete("*mcnflag.StringFlag", {"Name": "--x"})],
        [gob.Concrete("*mcnflag.StringFlag", {"Name": "a b"})],
        [gob.Concrete("*mcnflag.StringFlag", {"Name": "x"})] * 201,
    ],
)
def test_what_is_no_list_of_flags(answer: object) -> None:
    with pytest.raises(DriverError):
        read_flags(answer)


def test_a_secret_without_a_variable_gets_one() -> None:
    (spec,) = read_flags([flag("StringFlag", Name="foo-api-token")]).specs
    assert spec.secret
    assert spec.env == ("FOO_API_TOKEN",)
    assert "never stored" in spec.help


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("digitalocean-access-token", True),
        ("hetzner-api-token", True),
        ("amazonec2-secret-key", True),
        ("amazonec2-access-key", True),
        ("vultr-api-key", True),
        ("openstack-password", True),
        ("linode-root-pass", True),
        ("azure-client-secret", True),
        ("RootPassword", True),
        ("SSHPass", True),
        ("APIKey", True),
        ("generic-ssh-key", False),
        ("digitalocean-ssh-key-fingerprint", False),
        ("amazonec2-keypair-name", False),
        ("hetzner-existing-key-id", False),
        ("hetzner-existing-key-path", False),
        ("packet-key-path", False),
        ("SSHKeyPath", False),
        ("SSHKeyID", False),
        ("ovh-ssh-key", False),
        ("foo-public-key", False),
        ("foo-token-file", False),
        ("region", False),
        ("bypass-proxy", False),
        ("monkey", False),
    ],
)
def test_secrets_by_name(name: str, *, secret: bool) -> None:
    assert is_secret(name) is secret


def test_words() -> None:
    assert words_of("SSHKeyPath") == ["ssh", "key", "path"]
    assert words_of("API_TOKEN2-x") == ["api", "token2", "x"]
    assert words_of("") == []


@pytest.mark.parametrize(
    ("family", "old", "name"),
    [
        ("*mcnflag", False, "*rpcdriver.RPCFlags"),
        ("*mcnflag", True, "*rpcdriver.RpcFlags"),
        ("", False, "*rpcdriver.RPCFlags"),
        (
            "github.com/docker/machine/libmachine/mcnflag",
            False,
            "github.com/docker/machine/libmachine/drivers/rpc.RPCFlags",
        ),
        (
            "*github.com/rancher/machine/libmachine/mcnflag",
            False,
            "*github.com/rancher/machine/libmachine/drivers/rpc.RPCFlags",
        ),
        (
            "x.org/d/vendor/github.com/docker/machine/libmachine/mcnflag",
            False,
            "x.org/d/vendor/github.com/docker/machine/libmachine/drivers/rpc.RPCFlags",
        ),
    ],
)
def test_the_answer_is_of_the_plugins_family(family: str, *, old: bool, name: str) -> None:
    assert name_of(family, old=old) == name


def test_values_have_their_types() -> None:
    flags = Flags(
        read_flags(
            [
                flag("StringFlag", Name="s"),
                flag("IntFlag", Name="i"),
                flag("BoolFlag", Name="b"),
                flag("StringSliceFlag", Name="l"),
                flag("IntFlag", Name="kept", Value=5),
            ]
        ).specs,
        "*mcnflag",
    )
    sent = values_for(flags, {"s": "t", "i": 3, "b": True, "l": ("x",)}, old=False)
    assert isinstance(sent.value, Mapping)
    held = {name: (one.name, one.value) for name, one in sent.value["Values"].items()}
    assert held == {
        "s": ("string", "t"),
        "i": ("int", 3),
        "b": ("bool", True),
        "l": ("[]string", ["x"]),
        "kept": ("int", 5),
    }


# -- secrets

CONFIG = {
    "Token": "t0ken-value",
    "URL": "https://u:t0ken-value@h/t0ken-value",
    "RootPassword": "made-by-the-driver",
    "Deep": {"List": ["t0ken-value", {"Password": "p"}]},
    "SSHKeyPath": "/s/key",
    "Port": 22,
    "HasPassword": True,
    "Passwords": None,
}


def test_sealed_configurations_hold_no_credential_and_come_back_whole() -> None:
    secrets = {"token": "t0ken-value", "unused": ""}
    sealed = seal(CONFIG, secrets)
    text = json.dumps(sealed.config)
    assert not [s for s in ("t0ken-value", "made-by-the-driver", '"p"') if s in text]
    assert '"SSHKeyPath": "/s/key"' in text
    assert set(sealed.kept) == {".RootPassword", ".Deep.List.1.Password"}
    assert unseal(sealed.config, secrets, sealed.kept) == CONFIG


def test_a_new_credential_takes_the_place_of_the_old() -> None:
    sealed = seal({"Token": "old-token", "URL": "x?t=old-token"}, {"token": "old-token"})
    back = unseal(sealed.config, {"token": "new-token"}, sealed.kept)
    assert back == {"Token": "new-token", "URL": "x?t=new-token"}


def test_a_missing_credential_is_named() -> None:
    sealed = seal({"Token": "old", "L": [{"x": "long-secret!"}]}, {"token": "old", "a": "secret!!"})
    assert needed(sealed.config) == {"token"}
    sealed = seal({"Token": "old", "L": ["<long-secret>"]}, {"token": "old", "a": "long-secret"})
    assert needed(sealed.config) == {"token", "a"}
    with pytest.raises(AuthError, match="--token has no value"):
        unseal(sealed.config, {"token": ""}, sealed.kept)


def test_two_secrets_of_which_one_holds_the_other() -> None:
    secrets = {"a": "12345678", "b": "12345678-90"}
    config = {"x": "12345678-90", "y": "12345678", "z": "<12345678-90>"}
    sealed = seal(config, secrets)
    assert "12345678" not in json.dumps(sealed.config)
    assert unseal(sealed.config, secrets, sealed.kept) == config


def test_paths_follow_the_store() -> None:
    config = {"Key": "/old/m/id_rsa", "Root": "/old", "Other": "/older/x", "L": ["/old/y", 3]}
    moved = {"Key": "/new/m/id_rsa", "Root": "/new", "Other": "/older/x", "L": ["/new/y", 3]}
    assert rebased(config, "/old", "/new") == moved
    assert rebased(config, "", "/new") == config


# -- the folder


def test_nothing_is_written_before_it_is_saved(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "m")
    assert folder.load().stage == ""
    assert folder.fresh() == {"MachineName": "m", "StorePath": str(tmp_path / "plugin")}
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_private_and_gives_back_what_was_saved(tmp_path: Path) -> None:
    config = {**Folder(tmp_path, "m").fresh(), "Token": "tttttttt", "AdminPassword": "ppp"}
    Folder(tmp_path, "m").save(CREATING, config, {"t": "tttttttt"})
    folder = Folder(tmp_path, "m")
    kept = folder.load()
    assert kept.stage == CREATING
    assert folder.config(kept, {"t": "tttttttt"}) == config
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["driver.json", "kept.json"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(folder.store.stat().st_mode) == 0o700
    assert (folder.store / "machines" / "m").is_dir()
    assert "tttttttt" not in (folder.store / "driver.json").read_text()


def test_a_store_that_moved(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    first = Folder(tmp_path / "old", "m")
    key = str(first.store / "machines/m/id_rsa")
    first.save(CREATED, {**first.fresh(), "SSHKeyPath": key}, {})
    (tmp_path / "old").rename(tmp_path / "new")
    second = Folder(tmp_path / "new", "renamed")
    config = second.config(second.load(), {})
    assert config["StorePath"] == str(tmp_path / "new/plugin")
    assert config["SSHKeyPath"] == str(tmp_path / "new/plugin/machines/m/id_rsa")
    assert config["MachineName"] == "renamed"


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"stage": "made"}', '{"stage": "created", "config": 3}']
)
def test_a_broken_state_file_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin/driver.json").write_text(content)
    with pytest.raises(DriverError, match=r"driver\.json"):
        Folder(tmp_path, "m").load()


@pytest.mark.parametrize("data", [b"[]", b"x", "text", b"{" * 100_000, b" " * (1 << 20) + b"{}"])
def test_what_is_no_configuration(data: object) -> None:
    with pytest.raises(DriverError, match="no JSON object"):
        parse_config(data)


# -- errors


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        # texts of real drivers and of the APIs below them
        ("Error: 429 API Rate limit exceeded.", TransientError),
        ("rate limit exceeded (rate_limit_exceeded)", TransientError),
        ("dial tcp 1.2.3.4:443: i/o timeout", TransientError),
        ("dial tcp 1.2.3.4:443: connect: connection refused", TransientError),
        ("POST https://api.x/v2/droplets: 503 (request \"a\") Service Unavailable", TransientError),
        ("GET https://api.x: 401 Unable to authenticate you", AuthError),
        ("could not get type: unauthorized (unauthorized)", AuthError),
        ("AuthFailure: AWS could not validate the credentials; Authentication failed", AuthError),
        ("The security token included in the request is expired: token has expired", AuthError),
        ("422 creating this/these droplet(s) will exceed your droplet limit", QuotaError),
        ("server limit exceeded: limit_exceeded", QuotaError),
        ("InstanceLimitExceeded: quota", QuotaError),
        ("404 The resource you were accessing could not be found.", GoneError),
        ("machine does not exist", GoneError),
        ("server with ID 5 not found (not_found)", GoneError),
        ("Domain not found: no domain with matching name 'm'", GoneError),
        ("VBoxManage: error: Could not find a registered machine named 'm'", GoneError),
        ("VirtualBox machine \"m\" already exists", ConflictError),
        ("SSH key name is already in use", ConflictError),
        ("exit status 1", DriverError),
        # what is missing here is not the host: rm must not believe that it is gone
        ("dial tcp: lookup api.example on 127.0.0.53:53: no such host", TransientError),
        ("open /home/u/.config/x/credentials: no such file or directory", DriverError),
        ('exec: "VBoxManage": executable file not found in $PATH', DriverError),
        ("404 SSH key not found", DriverError),
        ("project not found", DriverError),
        ("digitalocean driver requires the --digitalocean-access-token option", DriverError),
    ],
)  # fmt: skip
def test_kinds_by_text(text: str, kind: type[DriverError]) -> None:
    found = as_driver_error("Create", text)
    assert type(found) is kind
    assert found.message == f"Create: {text}"


def test_foreign_texts_do_not_steer_the_terminal() -> None:
    assert printable("a\x1b[31mb\x00\r\nc") == "a [31mb  \nc"
    assert len(printable("x" * 100_000)) == 2000
    assert printable(" \x1b ") == "(no reason given)"


# -- PATH and the port


def test_binaries_on_path(tmp_path: Path) -> None:
    def put(folder: str, name: str, mode: int = 0o755) -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / name
        path.write_text("")
        path.chmod(mode)
        return path

    first = put("a", "docker-machine-driver-one")
    put("b", "docker-machine-driver-one")
    second = put("b", "docker-machine-driver-kvm2")
    put("b", "docker-machine-driver-data", 0o644)
    put("b", "docker-machine-driver-Bad Name")
    put("b", "docker-machine-driver-")
    (tmp_path / "b" / "docker-machine-driver-folder").mkdir()
    path = f"{tmp_path}/a:{tmp_path}/nothing:.::relative:{tmp_path}/b"
    assert on_path(path) == {"one": first, "kvm2": second}
    assert on_path("") == {}


@pytest.mark.parametrize(
    ("address", "found"),
    [("127.0.0.1:34567", ("127.0.0.1", 34567)), ("[::1]:80", ("::1", 80))],
)
def test_loopback_addresses(address: str, found: tuple[str, int]) -> None:
    assert loopback(address) == found


@pytest.mark.parametrize(
    "address",
    ["", "hello", "0.0.0.0:80", "192.0.2.1:80", "[::]:80", "127.0.0.1", "127.0.0.1:0",
     "127.0.0.1:65536", "127.0.0.1:x", "localhost:80", "evil.example:80", "127.0.0.1:80:80"],
)  # fmt: skip
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(DriverError, match=r"no address|not on the loopback"):
        loopback(address)


TABLE = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 0100007F:8707 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n"
    "   1: 0100007F:8708 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n"
)


def proc(folder: Path, *, holder: int, inode: int, group: int = 50) -> Path:
    """A /proc with the plugin 50, and `holder` in the process group `group` with that socket."""
    (folder / "self").mkdir()
    for pid, of in {50: 50, holder: group}.items():
        place = folder / str(pid)
        (place / "fd").mkdir(parents=True)
        (place / "net").mkdir()
        (place / "net/tcp").write_text(TABLE)
        (place / "stat").write_text(f"{pid} (a ) name) S 1 {of} {of} 0 -1")
    (folder / str(holder) / "fd/3").symlink_to(f"socket:[{inode}]")
    return folder


@pytest.mark.parametrize(
    ("holder", "group", "inode", "port", "own"),
    [
        (50, 50, 4711, 0x8707, True),
        (51, 50, 4711, 0x8707, True),  # started by a script
        (60, 60, 4711, 0x8707, False),  # someone else's listener
        (50, 50, 4712, 0x8708, False),  # a connection is no listener
        (50, 50, 4711, 0x8709, False),
    ],
)
def test_whose_port_it_is(
    tmp_path: Path, holder: int, group: int, inode: int, port: int, *, own: bool
) -> None:
    place = proc(tmp_path, holder=holder, inode=inode, group=group)
    assert owns(50, "127.0.0.1", port, place) is own


def test_where_nobody_says_whose_port_it_is(tmp_path: Path) -> None:
    assert owns(50, "127.0.0.1", 80, tmp_path)
    (tmp_path / "self").mkdir()
    assert not owns(50, "127.0.0.1", 80, tmp_path), "it has ended"
