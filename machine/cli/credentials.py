"""Registry credentials where the docker command keeps them: `auths` of ~/.docker/config.json."""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from machine.errors import MachineError
from machine.paths import home

HUB = "https://index.docker.io/v1/"
_HUB_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", ""})


def config_path(env: Mapping[str, str]) -> Path:
    """DOCKER_CONFIG's config.json, else ~/.docker/config.json."""
    folder = env.get("DOCKER_CONFIG", "")
    return (Path(folder) if folder else home(env) / ".docker") / "config.json"


def server_of(name: str) -> str:
    """The key that credentials of an image's registry are kept under."""
    first, slash, _ = name.partition("/")
    named = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return key_of(first if named else "")


def key_of(server: str) -> str:
    """docker.io has its old URL as key; others are their host:port."""
    bare = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return HUB if bare in _HUB_NAMES else bare


def registry_header(env: Mapping[str, str], name: str) -> dict[str, str]:
    """X-Registry-Auth for an image's name; without credentials a document that holds none."""
    server = server_of(name)
    user, password = find(env, server)
    document = {"username": user, "password": password, "serveraddress": server} if user else {}
    raw = json.dumps(document).encode()
    return {"X-Registry-Auth": base64.urlsafe_b64encode(raw).decode("ascii")}


def find(env: Mapping[str, str], server: str) -> tuple[str, str]:
    """(user, password), empty when there are none."""
    entry = _auths(_read(config_path(env))).get(server)
    text = entry.get("auth", "") if isinstance(entry, dict) else ""
    try:
        user, _, password = base64.b64decode(str(text), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password


def keep(env: Mapping[str, str], server: str, user: str, password: str) -> Path:
    """Store them, mode 0600.  Raises MachineError when docker's own helper keeps them."""
    path = config_path(env)
    document = _read(path)
    if document.get("credsStore") or document.get("credHelpers"):
        raise MachineError(
            f"{path} has a credential helper, which is not used here",
            hint="Log in with the docker command, or remove credsStore from that file.",
        )
    auths = dict(_auths(document))
    auths[server] = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode("ascii")}
    _write(path, {**document, "auths": auths})
    return path


def forget(env: Mapping[str, str], server: str) -> bool:
    """Remove them; False when there were none."""
    path = config_path(env)
    document = _read(path)
    auths = dict(_auths(document))
    if auths.pop(server, None) is None:
        return False
    _write(path, {**document, "auths": auths})
    return True


def _auths(document: Mapping[str, object]) -> Mapping[str, object]:
    found = document.get("auths")
    return found if isinstance(found, dict) else {}


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise MachineError(f"Can't read {path}", details=str(error)) from error
    return found if isinstance(found, dict) else {}


def _write(path: Path, document: Mapping[str, object]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(document, file, indent="\t")
            file.flush()
            os.fsync(fd)
        temporary.rename(path)
    except OSError as error:
        raise MachineError(f"Can't write {path}: {error.strerror}") from error
