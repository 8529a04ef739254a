"""The agent's configuration file, /etc/machine/agent.json: read, checked, typed.

Every key is optional.  An unknown key or a wrong type is refused with one line that names it: a
misspelt security setting must not be ignored.

    {
      "root": "/var/lib/machine",            images, volumes, container records
      "run": "/run/machine",                 what doesn't outlive a boot
      "unix_socket": "/run/machine/docker.sock",   null = none
      "group": "docker",                     who may use the socket beside root
      "tcp": {                               null = none; mutual TLS only
        "listen": "0.0.0.0", "port": 2376,
        "ca": "/etc/machine/tls/ca.pem", "cert": ".../server.pem", "key": ".../server-key.pem",
        "names": [],                         allowed Host names; [] = those of the certificate
        "store_id": "",                      "" = the one that the certificate names
        "revoked": ""                        file of revoked client names or fingerprints
      },
      "registry_mirrors": ["http://10.0.0.1:5000"],
      "insecure_registries": ["10.0.0.0/8"],
      "labels": ["site=home"],
      "runtime": "auto",                     auto | crun | runc
      "bridge": {"name": "machine0", "bip": "", "mtu": 1500},
      "nft_table": "machine",
      "init_path": "",                       the init of --init; "" = the first one found
      "dns": [],                             for containers; [] = the host's
      "block_metadata": false,               close 169.254.169.254 to containers
      "cgroup_parent": "/machine",           containers' cgroups are below it
      "log_level": "info"                    debug | info | warning | error
    }
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Final, TypeVar

from agent.values import frozen

DEFAULT_PATH: Final = "/etc/machine/agent.json"
MAX_SIZE: Final = 1024 * 1024

T = TypeVar("T")


class ConfigError(Exception):
    """The configuration can't be used.  One line that names the key and never a secret."""


@frozen(slots=True)
class Tcp:
    """The mutual-TLS listener."""

    ca: str
    cert: str
    key: str
    listen: str = "0.0.0.0"  # noqa: S104 - this is the API of a remote host; TLS guards it
    port: int = 2376
    names: tuple[str, ...] = ()
    store_id: str = ""
    revoked: str = ""


@frozen(slots=True)
class BridgeConfig:
    name: str = "machine0"
    bip: str = ""
    mtu: int = 1500


@frozen(slots=True)
class Config:
    """All settings; see the module's text for their meaning."""

    root: str = "/var/lib/machine"
    run: str = "/run/machine"
    unix_socket: str | None = "/run/machine/docker.sock"
    group: str | None = "docker"
    tcp: Tcp | None = None
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    runtime: str = "auto"
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    nft_table: str = "machine"
    init_path: str = ""
    dns: tuple[str, ...] = ()
    block_metadata: bool = False
    cgroup_parent: str = "/machine"
    log_level: str = "info"


Reader = Callable[[object, str], object]


def _wrong(where: str, wanted: str) -> ConfigError:
    return ConfigError(f'"{where}" must be {wanted}')


def _string(value: object, where: str) -> str:
    if not isinstance(value, str) or "\x00" in value or "\n" in value:
        raise _wrong(where, "a string")
    return value


def _boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, "true or false")
    return value


def _strings(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong(where, "a list of strings")
    return tuple(_string(one, where) for one in value)


def _path(value: object, where: str) -> str:
    text = _string(value, where)
    if not text.startswith("/") or ".." in text.split("/"):
        raise _wrong(where, "an absolute path")
    return text.rstrip("/") or "/"


def _own_folder(value: object, where: str) -> str:
    path = _path(value, where)
    if path.count("/") < 2:
        # Teardown removes it whole: "/", "/etc", "/var" are never meant.
        raise _wrong(where, "a folder below a top-level one, such as /var/lib/machine")
    return path


def _optional(reader: Callable[[object, str], T]) -> Callable[[object, str], T | None]:
    def read(value: object, where: str) -> T | None:
        return None if value is None else reader(value, where)

    return read


def _empty_or(reader: Callable[[object, str], str]) -> Callable[[object, str], str]:
    def read(value: object, where: str) -> str:
        return "" if value == "" else reader(value, where)

    return read


def _number(low: int, high: int) -> Callable[[object, str], int]:
    def read(value: object, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _wrong(where, f"a number from {low} to {high}")
        return value

    return read


def _word(pattern: str, wanted: str) -> Callable[[object, str], str]:
    compiled = re.compile(pattern)

    def read(value: object, where: str) -> str:
        text = _string(value, where)
        if not compiled.fullmatch(text):
            raise _wrong(where, wanted)
        return text

    return read


def _address(value: object, where: str) -> str:
    text = _string(value, where)
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise _wrong(where, "a numeric IP address") from None
    return text


def _addresses(value: object, where: str) -> tuple[str, ...]:
    return tuple(_address(one, where) for one in _strings(value, where))


def _interface_address(value: object, where: str) -> str:
    text = _string(value, where)
    problem = _wrong(where, 'an address with prefix, such as "172.17.0.1/16"')
    if "/" not in text:
        raise problem
    try:
        ipaddress.IPv4Interface(text)
    except ValueError:
        raise problem from None
    return text


_MIRROR: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(/[A-Za-z0-9._/-]*)?")


def _mirrors(value: object, where: str) -> tuple[str, ...]:
    mirrors = _strings(value, where)
    for one in mirrors:
        if not _MIRROR.fullmatch(one):
            # Not shown: a mistaken URL may hold a password.
            raise _wrong(
                where, "a list of http:// or https:// URLs without user, query or fragment"
            )
    return mirrors


_TCP: Final[Mapping[str, Reader]] = {
    "listen": _address,
    "port": _number(1, 65535),
    "ca": _path,
    "cert": _path,
    "key": _path,
    "names": _strings,
    "store_id": _string,
    "revoked": _empty_or(_path),
}
_BRIDGE: Final[Mapping[str, Reader]] = {
    "name": _word(r"[A-Za-z][A-Za-z0-9_.-]{0,14}", "an interface name of at most 15 characters"),
    "bip": _empty_or(_interface_address),
    "mtu": _number(576, 65535),
}


def _section(table: Mapping[str, Reader], value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _wrong(where or "the file", "an object")
    decoded: dict[str, object] = {}
    for key, one in value.items():
        path = f"{where}.{key}" if where else key
        if key not in table:
            raise ConfigError(f'unknown key "{path}" (known: {", ".join(table)})')
        decoded[key] = table[key](one, path)
    return decoded


def _built(kind: Callable[..., T], values: Mapping[str, object]) -> T:
    """The dataclass of what the table's readers have checked."""
    return kind(**values)


def _tcp(value: object, where: str) -> Tcp:
    decoded = _section(_TCP, value, where)
    for key in ("ca", "cert", "key"):
        if key not in decoded:
            raise ConfigError(f'"{where}.{key}" is missing: there is no API over TCP without TLS')
    return _built(Tcp, decoded)


def _bridge(value: object, where: str) -> BridgeConfig:
    return _built(BridgeConfig, _section(_BRIDGE, value, where))


_TOP: Final[Mapping[str, Reader]] = {
    "root": _own_folder,
    "run": _own_folder,
    "unix_socket": _optional(_path),
    "group": _optional(_string),
    "tcp": _optional(_tcp),
    "registry_mirrors": _mirrors,
    "insecure_registries": _strings,
    "labels": _strings,
    "runtime": _word("auto|crun|runc", '"auto", "crun" or "runc"'),
    "bridge": _bridge,
    "nft_table": _word(r"[A-Za-z][A-Za-z0-9_]{0,30}", "a short word"),
    "init_path": _empty_or(_path),
    "dns": _addresses,
    "block_metadata": _boolean,
    "cgroup_parent": _word(r"(/[A-Za-z0-9_.-]+)+", 'a cgroup path such as "/machine"'),
    "log_level": _word("debug|info|warn|warning|error", '"debug", "info", "warning" or "error"'),
}


def parse(text: str) -> Config:
    """Raises ConfigError."""
    try:
        document = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        raise ConfigError(f"not valid JSON{where}") from error
    config = _built(Config, _section(_TOP, document, ""))
    if config.root == config.run:
        raise ConfigError('"root" and "run" must be different folders')
    if config.unix_socket is None and config.tcp is None:
        raise ConfigError('nothing to listen on: both "unix_socket" and "tcp" are null')
    return config


def load(path: str, *, optional: bool = False) -> Config:
    """Reads the file.  `optional`: a missing file means the defaults.  Raises ConfigError."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        if optional:
            return Config()
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    if len(text) > MAX_SIZE:
        raise ConfigError(f"{path}: too large")
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def check_key(tcp: Tcp) -> None:
    """The private key exists, is a file, and nobody else can read it (security case 98).

    Raises ConfigError.
    """
    for name, path in (("ca", tcp.ca), ("cert", tcp.cert), ("key", tcp.key)):
        try:
            status = os.stat(path)
            with open(path, "rb"):
                pass
        except OSError as error:
            raise ConfigError(f'"tcp.{name}": {path}: {error.strerror}') from error
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f'"tcp.{name}": {path}: not a regular file')
        if name == "key" and status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise ConfigError(
                f'"tcp.key": {path}: others may read it (mode {mode:04o}); run: chmod 600 {path}'
            )
