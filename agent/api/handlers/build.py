"""POST /build, /build/prune and /commit."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Final

from agent.api.buildlines import BuildLines
from agent.api.call import Api, Call
from agent.api.schema.fields import not_served
from agent.api.schema.images import registry_auth
from agent.engine.building import BuildRequest, CommitRequest
from agent.engine.model import RegistryAuth, Resources, Ulimit
from agent.errors import invalid
from agent.wire.http import Answer, BlockingStream, Hijack, Query, json_reply, printable

_PLATFORM: Final = re.compile(r"[a-z0-9_.-]+(/[a-z0-9_.-]+){0,2}", re.IGNORECASE)
_MAX_AUTHS: Final = 64
_MAX_HEADER: Final = 64 * 1024
_ULIMITS: Final = 64
_TOKEN: Final = re.compile(r"[0-9a-f]{32}")
_AGENT_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_SECRET_ID: Final = re.compile(r"[^\x00-\x1f\x7f]{1,255}")


def build(api: Api, call: Call) -> Answer:
    """The context is the body; the answer is progress, one JSON document a line."""
    headers = call.request.headers
    request = build_request(
        call.query,
        headers.get("x-registry-config"),
        headers.get("x-machine-build-secrets"),
        headers.get("x-machine-build-ssh"),
    )
    return BlockingStream(BuildLines(api.backend.builds, request, call.body))


def build_request(query: Query, auths: str, secrets: str = "", agents: str = "") -> BuildRequest:
    """The query and three headers as a request.  Raises EngineError (INVALID, NOT_IMPLEMENTED)."""
    if query.get("version") == "2":
        raise not_served("BuildKit (version=2 of /build); set DOCKER_BUILDKIT=0")
    for name, what in (("squash", "squashing layers (build --squash)"),):
        if query.flag(name):
            raise not_served(what)
    if query.get("outputs"):
        raise not_served("build outputs (BuildKit)")
    if query.get("securityopt") not in ("", "null", "[]"):
        raise invalid(
            "The daemon on this platform does not support setting security options on build"
        )
    if query.get("isolation") not in ("", "default"):
        raise invalid(f'Unsupported isolation: "{printable(query.get("isolation")[:100])}"')
    platform = query.get("platform")
    if platform and not _PLATFORM.fullmatch(platform):
        raise invalid(f'"{printable(platform)}" is an invalid platform')
    tags = tuple(one for one in query.all("t") if one)
    return BuildRequest(
        dockerfile=query.get("dockerfile") or "Dockerfile",
        remote=query.get("remote"),
        tags=tuple(dict.fromkeys(tags)),
        target=query.get("target"),
        platform=platform,
        build_args=_build_args(query.get("buildargs")),
        labels=_texts(query.get("labels"), "labels"),
        cache_from=_list(query.get("cachefrom"), "cachefrom"),
        quiet=query.flag("q"),
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        network_mode=query.get("networkmode") or "default",
        extra_hosts=_extra_hosts(query),
        shm_size=_size(query, "shmsize"),
        resources=_resources(query),
        auths=registry_auths(auths),
        secrets=build_secrets(secrets),
        agents=build_agents(agents),
    )


def _cgroup_parent(path: str) -> str:
    """As HostConfig's: an absolute path, "x" is "/x"."""
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") or not part.isprintable() for part in parts):
        raise invalid(f"invalid cgroup parent: '{printable(path)}'")
    return f"/{'/'.join(parts)}" if parts else ""


def _resources(query: Query) -> Resources:
    return Resources(
        memory=_size(query, "memory"),
        memory_swap=query.integer("memswap") or 0,
        cpu_shares=_size(query, "cpushares"),
        cpu_period=_size(query, "cpuperiod"),
        cpu_quota=query.integer("cpuquota") or 0,
        cpuset_cpus=query.get("cpusetcpus"),
        cpuset_mems=query.get("cpusetmems"),
        ulimits=_ulimits(query.get("ulimits")),
        cgroup_parent=_cgroup_parent(query.get("cgroupparent")),
    )


def _size(query: Query, name: str) -> int:
    value = query.integer(name) or 0
    if value < 0:
        raise invalid(f"invalid value for {name}: {value}")
    return value


def _decoded(text: str, name: str) -> object:
    try:
        decoded: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(f"error reading {name}: {printable(str(error))}") from error
    return decoded


def _build_args(text: str) -> dict[str, str | None]:
    """name -> value; null = a name without a value."""
    document = _decoded(text, "build args") if text else {}
    if not isinstance(document, dict):
        raise invalid("error reading build args: not an object")
    found: dict[str, str | None] = {}
    for name, value in document.items():
        if value is not None and not isinstance(value, str):
            raise invalid(f"error reading build args: {printable(name)} is not a string")
        found[name] = value
    return found


def _texts(text: str, name: str) -> dict[str, str]:
    document = _decoded(text, name) if text else {}
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(v, str) for v in document.values()):
        raise invalid(f"error reading {name}: not an object of strings")
    return document


def _list(text: str, name: str) -> tuple[str, ...]:
    document = _decoded(text, name) if text else []
    if document is None:
        return ()
    if not isinstance(document, list) or not all(isinstance(one, str) for one in document):
        raise invalid(f"error reading {name}: not an array of strings")
    return tuple(document)


def _extra_hosts(query: Query) -> tuple[str, ...]:
    """The docker CLI repeats the parameter, others send one comma-separated or a JSON array."""
    values = query.all("extrahosts")
    if len(values) == 1 and values[0].startswith("["):
        return _list(values[0], "extrahosts")
    return tuple(one for value in values for one in value.split(",") if one)


def _ulimits(text: str) -> tuple[Ulimit, ...]:
    document = (_decoded(text, "ulimits") if text else None) or []  # Docker 20.10 sends null
    if not isinstance(document, list) or len(document) > _ULIMITS:
        raise invalid("error reading ulimits: not an array")
    found = []
    for one in document:
        if not isinstance(one, dict):
            raise invalid("error reading ulimits: not an object")
        name, soft, hard = one.get("Name"), one.get("Soft", 0), one.get("Hard", 0)
        if not isinstance(name, str) or not isinstance(soft, int) or not isinstance(hard, int):
            raise invalid("error reading ulimits: Name, Soft and Hard are needed")
        found.append(Ulimit(name.lower().removeprefix("rlimit_"), soft, hard))
    return tuple(found)


def registry_auths(header: str) -> dict[str, RegistryAuth]:
    """X-Registry-Config: base64url of {address: credentials}.  What can't be read counts as none
    given, as with X-Registry-Auth; nothing of it is logged."""
    if not header or len(header) > _MAX_HEADER:
        return {}
    padded = header.rstrip("=")
    padded += "=" * (-len(padded) % 4)
    try:
        document = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict) or len(document) > _MAX_AUTHS:
        return {}
    found: dict[str, RegistryAuth] = {}
    for address, one in document.items():
        encoded = base64.urlsafe_b64encode(json.dumps(one).encode()).decode("ascii")
        auth = registry_auth(encoded)
        if auth is not None:
            found[address] = auth
    return found


def build_secrets(header: str) -> dict[str, bytes]:
    """X-Machine-Build-Secrets: base64url of {id: base64 of the secret}.  `machine build --secret`
    sends it: the classic build API has no place for secrets.  No text of it is ever in an error."""
    if not header:
        return {}
    wrong = invalid("X-Machine-Build-Secrets is not base64 of {id: base64}")
    try:
        document = json.loads(base64.b64decode(header, altchars=b"-_", validate=True))
        items = document.items() if isinstance(document, dict) else [("", "")]
        found = {str(name): base64.b64decode(value, validate=True) for name, value in items}
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise wrong from None
    if not all(map(_SECRET_ID.fullmatch, found)):
        raise wrong
    return found


def build_agents(header: str) -> dict[str, str]:
    """X-Machine-Build-Ssh: `ID=TOKEN`, separated by commas; the tokens of POST /session."""
    found: dict[str, str] = {}
    for word in header.split(",") if header else ():
        name, _, token = word.strip().partition("=")
        if not _AGENT_ID.fullmatch(name) or not _TOKEN.fullmatch(token):
            raise invalid("X-Machine-Build-Ssh is not ID=TOKEN,...")
        found[name] = token
    return found


def session(api: Api, call: Call) -> Answer:
    """POST /session: an SSH agent for a build of ours.  BuildKit's sessions are not served."""
    token = call.request.headers.get("x-machine-session")
    if not token:
        raise not_served("interactive sessions (BuildKit)")
    if not _TOKEN.fullmatch(token):
        raise invalid("X-Machine-Session is not a token of 32 hexadecimal digits")
    return Hijack(api.backend.builds.session(token), detach_keys=b"")


def prune(api: Api, call: Call) -> Answer:
    """`all` takes the steps too that could still be used."""
    pruned = api.backend.builds.prune(everything=call.query.flag("all"))
    return json_reply({"CachesDeleted": list(pruned.deleted), "SpaceReclaimed": pruned.space})


_REPOSITORY: Final = re.compile(r"[^\s@]{1,255}")


def commit(api: Api, call: Call) -> Answer:
    """POST /commit."""
    query = call.query
    container = query.get("container")
    if not container:
        raise invalid("container is required")
    repo = query.get("repo")
    if repo and not _REPOSITORY.fullmatch(repo):
        raise invalid("invalid reference format")
    body = call.body.json()
    overrides: Mapping[str, object] = body if isinstance(body, dict) else {}
    request = CommitRequest(
        container=container,
        repo=repo,
        tag=query.get("tag"),
        comment=query.get("comment"),
        author=query.get("author"),
        pause=query.flag("pause", default=True),
        changes=query.all("changes"),
        overrides=overrides,
    )
    return json_reply({"Id": api.backend.builds.commit(request)}, 201)
