"""What the network remembers over restarts: ids, the chosen subnet, what forwarding was before."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Mapping
from ipaddress import IPv4Interface

from agent.host.tree import write_atomic
from agent.values import frozen

_log = logging.getLogger(__name__)
_FILE = "network.json"
_KINDS = ("bridge", "host", "none")


@frozen
class NetworkRecord:
    """One agent's networks.  `ids` are 64 hex digits by network name; `created` is ns.

    `guard_boot` and `guard_links`: the boot in which the agent turned IPv4 forwarding on, and the
    interface indexes that were there then; `guard6_links` for IPv6.
    """

    ids: Mapping[str, str]
    created: int
    gateway: IPv4Interface | None = None
    guard_boot: str = ""
    guard_links: tuple[int, ...] = ()
    guard6_links: tuple[int, ...] = ()


def fresh(created: int) -> NetworkRecord:
    return NetworkRecord({kind: secrets.token_hex(32) for kind in _KINDS}, created)


def load(folder: str, now: int) -> NetworkRecord:
    """The record below `folder`, made when there is none.

    A file that cannot be read is kept aside and made anew: it holds nothing that a running
    container needs, and a bad byte must not keep the agent from starting.
    """
    path = os.path.join(folder, _FILE)
    try:
        with open(path, encoding="utf-8") as file:
            return _decode(json.load(file))
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError) as error:
        _log.error("%s is not readable (%s): kept as %s.bad", path, error, _FILE)
        os.replace(path, f"{path}.bad")
    record = fresh(now)
    save(folder, record)
    return record


def save(folder: str, record: NetworkRecord) -> None:
    """On disk when it returns.  Raises OSError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    document = {
        "version": 1,
        "ids": dict(record.ids),
        "created": record.created,
        "gateway": str(record.gateway or ""),
        "guard": {
            "boot": record.guard_boot,
            "links": list(record.guard_links),
            "links6": list(record.guard6_links),
        },
    }
    text = json.dumps(document, indent=1, sort_keys=True)
    write_atomic(folder, _FILE, text.encode())


def _decode(document: object) -> NetworkRecord:
    if not isinstance(document, dict) or document.get("version") != 1:
        raise ValueError("unknown version")
    guard, gateway = document["guard"], str(document["gateway"])
    return NetworkRecord(
        ids={kind: str(document["ids"][kind]) for kind in _KINDS},
        created=int(document["created"]),
        gateway=IPv4Interface(gateway) if gateway else None,
        guard_boot=str(guard["boot"]),
        guard_links=tuple(int(index) for index in guard["links"]),
        guard6_links=tuple(int(index) for index in guard.get("links6", ())),
    )
