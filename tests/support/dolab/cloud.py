"""One account at the emulator: its things, and the rules by which they are made and go."""

import base64
import binascii
import datetime as dt
import hashlib
import ipaddress
import itertools
import re
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from tests.support.dolab import catalogue
from tests.support.dolab.catalogue import Doc
from tests.support.dolab.machines import InMemory, Machines
from tests.support.dolab.refusals import ApiError, missing, wrong
from tests.support.dolab.rules import card, check_rule, spans, vpc

K = TypeVar("K", int, str)
USER_DATA_LIMIT = 64 * 1024
_HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?")
_TAG = re.compile(r"[A-Za-z0-9_:-]{1,255}")
_FIREWALL = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.-]*")
_VOLUME = re.compile(r"[a-z][a-z0-9-]{0,63}")


@dataclass
class Lag:
    """How late the catalogue is, counted in requests, so that no test depends on time."""

    listed: int = 0  # lists of droplets that lack a new one
    known: int = 0  # GETs of a new droplet that answer 404
    new: int = 1  # GETs that say "new"
    action: int = 1  # GETs that say "in-progress"
    attached: int = 0  # DELETEs of a volume that are refused after its droplet is gone
    snapshot: int = 0  # lists of snapshots that lack a new one


class Cloud:
    """An account. Its methods are the operations of the API and raise ApiError. Thread-safe."""

    def __init__(self, machines: Machines | None = None, *, droplet_limit: int = 25) -> None:
        self.lock = threading.RLock()
        self.machines: Machines = machines or InMemory()
        self.lag = Lag()
        self.droplet_limit = droplet_limit
        self.status = "active"
        self.remaining = 5000  # requests of this hour
        self.reset = int(time.time()) + 3600
        self.regions = catalogue.regions()
        self.sizes = catalogue.sizes()
        self.images = catalogue.images()
        self.keys: dict[int, Doc] = {}
        self.drops: dict[int, Doc] = {}
        self.walls: dict[str, Doc] = {}
        self.discs: dict[str, Doc] = {}
        self.snaps: dict[str, Doc] = {}
        self.tags: set[str] = set()
        self.acts: dict[int, Doc] = {}
        self.vpcs = {one["id"]: one for one in map(vpc, ("nyc3", "fra1"))}
        self.seeds: dict[int, str] = {}  # user data by droplet
        self._pending: dict[int, str] = {}  # names of snapshots that are being taken, by action
        self._late: dict[tuple[str, object], int] = {}
        self._numbers = itertools.count(3164444)

    # -- account, catalogue

    def count_request(self) -> None:
        with self.lock:
            if self.remaining < 1:
                raise ApiError(429, "too_many_requests", "API Rate limit exceeded.")
            self.remaining -= 1

    def account(self) -> Doc:
        return {
            "droplet_limit": self.droplet_limit,
            "floating_ip_limit": 5,
            "volume_limit": 10,
            "email": "sammy@example.com",
            "uuid": "b6fr89dbf6d9156cace5f3c78dc9851d957381ef",
            "email_verified": True,
            "status": self.status,
            "status_message": "",
        }

    def image(self, wanted: str) -> Doc:
        for one in self.images:
            if wanted in {str(one["id"]), one["slug"]}:
                return one
        raise missing()

    def vpc(self, ident: str) -> Doc:
        return _get(self.vpcs, ident)

    # -- tags, keys

    def make_tag(self, body: Doc) -> Doc:
        name = str(body.get("name") or "")
        if not _TAG.fullmatch(name):
            raise wrong("Tag name is invalid")
        self.tags.add(name)
        return self.tag(name)

    def tag(self, name: str) -> Doc:
        if name not in self.tags:
            raise missing()
        count = sum(name in one["tags"] for one in self.drops.values())
        return {"name": name, "resources": {"count": count, "droplets": {"count": count}}}

    def drop_tag(self, name: str) -> None:
        self.tag(name)
        self.tags.remove(name)
        for one in (*self.drops.values(), *self.discs.values(), *self.walls.values()):
            one["tags"] = [tag for tag in one["tags"] if tag != name]

    def make_key(self, body: Doc) -> Doc:
        public = str(body.get("public_key") or "")
        try:
            raw = base64.b64decode(public.split()[1], validate=True)
        except (IndexError, binascii.Error):
            raise wrong("Key invalid, key should be of the format `ssh-rsa AAAA...`") from None
        fingerprint = hashlib.md5(raw, usedforsecurity=False).digest().hex(":")
        if any(one["fingerprint"] == fingerprint for one in self.keys.values()):
            raise wrong("SSH Key is already in use on your account")
        ident = next(self._numbers)
        self.keys[ident] = {
            "id": ident,
            "fingerprint": fingerprint,
            "public_key": public,
            "name": str(body.get("name") or ""),
        }
        return self.keys[ident]

    def key(self, wanted: str) -> Doc:
        for one in self.keys.values():
            if wanted in {str(one["id"]), one["fingerprint"]}:
                return one
        raise missing()

    def drop_key(self, wanted: str) -> None:
        del self.keys[self.key(wanted)["id"]]

    # -- droplets

    def list_droplets(self, tag: str = "") -> list[Doc]:
        found = [one for one in self.drops.values() if not tag or tag in one["tags"]]
        return [self._seen(one) for one in found if not self._lags("listed", one["id"])]

    def droplet(self, ident: int) -> Doc:
        found = _get(self.drops, ident)
        if self._lags("known", ident):
            raise missing()
        for one in self.acts.values():
            if one["resource_id"] == ident and one["status"] == "in-progress":
                self.action(one["id"])
        return self._seen(found)

    def make_droplet(self, body: Doc) -> tuple[Doc, Doc]:
        """(droplet, action)."""
        region, size, image = self._choice(body)
        keys = [self._named_key(one) for one in body.get("ssh_keys") or []]
        user_data = str(body.get("user_data") or "")
        if len(user_data.encode()) > USER_DATA_LIMIT:
            raise wrong("User data is too long (maximum is 64 KiB)")
        tags = [self.make_tag({"name": name})["name"] for name in body.get("tags") or []]
        discs = [self._free_volume(one, region["slug"]) for one in body.get("volumes") or []]
        vpc = self._vpc_of(body, region["slug"])
        ident = next(self._numbers)
        droplet: Doc = {
            "id": ident,
            "name": body["name"],
            "memory": size["memory"],
            "vcpus": size["vcpus"],
            "disk": size["disk"],
            "locked": True,
            "status": "new",
            "kernel": None,
            "created_at": now(),
            "features": [
                feature
                for feature in ("backups", "ipv6", "monitoring", "private_networking")
                if body.get(feature)
            ],
            "backup_ids": [],
            "snapshot_ids": [],
            "image": image,
            "volume_ids": [one["id"] for one in discs],
            "size": size,
            "size_slug": size["slug"],
            "networks": {"v4": [], "v6": []},
            "region": region,
            "tags": tags,
            "vpc_uuid": vpc,
        }
        address = self.machines.make(droplet, user_data, [one["public_key"] for one in keys])
        droplet["networks"]["v4"] = [
            card("10.108.0.5", "private"),
            card(address, "public"),
        ]
        self.drops[ident] = droplet
        self.seeds[ident] = user_data
        for one in discs:
            one["droplet_ids"] = [ident]
        self._late[("listed", ident)] = self.lag.listed
        self._late[("known", ident)] = self.lag.known
        self._late[("new", ident)] = self.lag.new
        return dict(droplet, networks={"v4": [], "v6": []}), self._action(ident, "create")

    def drop_droplet(self, ident: int) -> None:
        _get(self.drops, ident)
        self.machines.destroy(ident)
        del self.drops[ident]
        for one in self.discs.values():
            if ident in one["droplet_ids"]:
                one["droplet_ids"] = []
                self._late[("attached", one["id"])] = self.lag.attached

    def _choice(self, body: Doc) -> tuple[Doc, Doc, Doc]:
        if not _HOSTNAME.fullmatch(str(body.get("name") or "")):
            raise wrong("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
        if len(self.drops) >= self.droplet_limit:
            raise wrong("creating this/these droplet(s) will exceed your droplet limit")
        region = _first(self.regions, "slug", body.get("region"), "region")
        size = _first(self.sizes, "slug", body.get("size"), "size")
        if not region["available"] or region["slug"] not in size["regions"]:
            raise wrong("Size is not available in this region.")
        try:
            return region, size, self.image(str(body.get("image")))
        except ApiError:
            raise wrong("You specified an invalid image for Droplet creation.") from None

    def _named_key(self, wanted: object) -> Doc:
        try:
            return self.key(str(wanted))
        except ApiError:
            raise wrong(f"{wanted} are invalid key identifiers for Droplet creation.") from None

    def _vpc_of(self, body: Doc, region: str) -> str:
        wanted = body.get("vpc_uuid")
        if wanted:
            if wanted not in self.vpcs or self.vpcs[wanted]["region"] != region:
                raise wrong("invalid VPC UUID")
            return str(wanted)
        return next((one["id"] for one in self.vpcs.values() if one["region"] == region), "")

    def _seen(self, droplet: Doc) -> Doc:
        """The droplet as it is now: machines change by themselves."""
        ident = droplet["id"]
        if droplet["status"] == "new":
            if not self._lags("new", ident) and self.machines.on(ident):
                droplet.update(status="active", locked=False)
            else:
                return dict(droplet, networks={"v4": [], "v6": []})
        elif droplet["status"] == "off" and self.machines.on(ident):
            droplet["status"] = "active"
        elif droplet["status"] == "active" and self.machines.off(ident):
            droplet["status"] = "off"
        return droplet

    # -- actions

    def act(self, ident: int, body: Doc) -> Doc:
        droplet = self.droplet(ident)
        kind = str(body.get("type"))
        if droplet["locked"]:
            raise wrong("Droplet already has a pending event.")
        if kind in {"power_on", "power_off", "shutdown", "reboot", "power_cycle"}:
            self.machines.turn(ident, kind)
        elif kind == "snapshot":
            action = self._action(ident, kind)
            self._pending[action["id"]] = str(body.get("name") or now())
            return action
        elif kind == "restore":
            self._restore(droplet, str(body.get("image")))
        elif kind == "resize":
            self._resize(droplet, body)
        else:
            raise wrong("Invalid type.")
        return self._action(ident, kind)

    def action(self, ident: int) -> Doc:
        found = _get(self.acts, ident)
        droplet = self.drops.get(found["resource_id"])
        if found["status"] == "in-progress" and not self._lags("action", ident):
            if droplet and found["type"] == "create":
                self._seen(droplet)
            if not droplet or droplet["status"] != "new":
                self._complete(found)
        return found

    def _complete(self, action: Doc) -> None:
        action.update(status="completed", completed_at=now())
        droplet = self.drops.get(action["resource_id"])
        if droplet:
            droplet["locked"] = False
            if name := self._pending.pop(action["id"], ""):
                self._snapshot(droplet, name)

    def _action(self, ident: int, kind: str) -> Doc:
        number = next(self._numbers)
        self.acts[number] = {
            "id": number,
            "status": "in-progress",
            "type": kind,
            "started_at": now(),
            "completed_at": None,
            "resource_id": ident,
            "resource_type": "droplet",
            "region_slug": "nyc3",
        }
        self._late[("action", number)] = self.lag.action
        if kind not in {"snapshot", "restore", "resize"}:
            return self.acts[number]
        self.drops[ident]["locked"] = True
        return self.acts[number]

    def _snapshot(self, droplet: Doc, name: str) -> None:
        number = str(next(self._numbers))
        self.snaps[number] = {
            "id": number,
            "name": name,
            "created_at": f"2026-06-01T00:00:00Z#{number}",
            "regions": [droplet["region"]["slug"]],
            "resource_id": str(droplet["id"]),
            "resource_type": "droplet",
            "min_disk_size": droplet["disk"],
            "size_gigabytes": 2.1,
            "tags": [],
        }
        self._late[("snapshot", number)] = self.lag.snapshot
        droplet["snapshot_ids"].append(int(number))

    def _restore(self, droplet: Doc, image: str) -> None:
        if image not in self.snaps or self.snaps[image]["resource_id"] != str(droplet["id"]):
            raise wrong("You specified an invalid image for this Droplet.")
        self.machines.turn(droplet["id"], "power_cycle")

    def _resize(self, droplet: Doc, body: Doc) -> None:
        size = _first(self.sizes, "slug", body.get("size"), "size")
        if droplet["status"] != "off":
            raise wrong("Droplet is currently on. Please power it off to run this event.")
        if size["disk"] < droplet["disk"]:
            raise wrong("This size is not available: its disk is smaller.")
        droplet.update(
            size=size, size_slug=size["slug"], memory=size["memory"], vcpus=size["vcpus"]
        )
        if str(body.get("disk")).lower() == "true":
            droplet["disk"] = size["disk"]

    # -- volumes, snapshots

    def make_volume(self, body: Doc) -> Doc:
        name, region = str(body.get("name") or ""), str(body.get("region"))
        if not _VOLUME.fullmatch(name):
            raise wrong("invalid volume name")
        if not isinstance(body.get("size_gigabytes"), int) or body["size_gigabytes"] < 1:
            raise wrong("invalid size")
        where = _first(self.regions, "slug", region, "region")
        if any(one["name"] == name and one["region"] == where for one in self.discs.values()):
            raise ApiError(409, "conflict", "a volume already exists with the same name")
        ident = str(uuid.uuid4())
        self.discs[ident] = {
            "id": ident,
            "name": name,
            "region": where,
            "droplet_ids": [],
            "size_gigabytes": body["size_gigabytes"],
            "description": str(body.get("description") or ""),
            "created_at": now(),
            "filesystem_type": str(body.get("filesystem_type") or ""),
            "filesystem_label": str(body.get("filesystem_label") or ""),
            "tags": [self.make_tag({"name": tag})["name"] for tag in body.get("tags") or []],
        }
        return self.discs[ident]

    def drop_volume(self, ident: str) -> None:
        if _get(self.discs, ident)["droplet_ids"] or self._lags("attached", ident):
            raise ApiError(409, "conflict", "attached volume cannot be deleted")
        del self.discs[ident]

    def _free_volume(self, ident: object, region: str) -> Doc:
        found = self.discs.get(str(ident))
        if found is None or found["region"]["slug"] != region:
            raise wrong("volume not found in the region of the droplet")
        if found["droplet_ids"]:
            raise wrong("volume is already attached to another droplet")
        return found

    def list_snapshots(self, kind: str = "") -> list[Doc]:
        found = [one for one in self.snaps.values() if kind in {"", one["resource_type"]}]
        return [one for one in found if not self._lags("snapshot", one["id"])]

    def drop_snapshot(self, ident: str) -> None:
        _get(self.snaps, ident)
        del self.snaps[ident]

    # -- firewalls

    def make_firewall(self, body: Doc) -> Doc:
        name = str(body.get("name") or "")
        if not _FIREWALL.fullmatch(name):
            raise wrong("invalid name")
        if any(one["name"] == name for one in self.walls.values()):
            raise ApiError(409, "conflict", "duplicate name")
        for tag in body.get("tags") or []:
            if tag not in self.tags:
                raise wrong(f"tag {tag} does not exist")
        inbound, outbound = body.get("inbound_rules") or [], body.get("outbound_rules") or []
        if not inbound and not outbound:
            raise wrong("must have at least one rule")
        for rule in (*inbound, *outbound):
            check_rule(rule)
        ident = str(uuid.uuid4())
        self.walls[ident] = {
            "id": ident,
            "name": name,
            "status": "succeeded",
            "created_at": now(),
            "pending_changes": [],
            "inbound_rules": inbound,
            "outbound_rules": outbound,
            "droplet_ids": body.get("droplet_ids") or [],
            "tags": body.get("tags") or [],
        }
        return self.walls[ident]

    def drop_firewall(self, ident: str) -> None:
        _get(self.walls, ident)
        del self.walls[ident]

    def lets_in(self, ident: int, protocol: str, port: int, source: str) -> bool:
        """Whether the firewalls of a droplet let a packet from `source` through."""
        droplet, address = self.drops[ident], ipaddress.ip_address(source)
        walls = [
            one
            for one in self.walls.values()
            if ident in one["droplet_ids"] or set(one["tags"]) & set(droplet["tags"])
        ]
        return not walls or any(
            rule["protocol"] == protocol
            and spans(rule["ports"], port)
            and any(address in ipaddress.ip_network(n) for n in rule["sources"]["addresses"])
            for wall in walls
            for rule in wall["inbound_rules"]
        )

    # -- for tests

    def inventory(self) -> list[str]:
        """One line for each thing that the account has."""
        with self.lock:
            return sorted(
                [
                    *(
                        f"host {one['id']} {one['name']} {one['tags']}"
                        for one in self.drops.values()
                    ),
                    *(f"volume {one['name']} {one['tags']}" for one in self.discs.values()),
                    *(f"snapshot {one['name']}" for one in self.snaps.values()),
                    *(f"firewall {one['name']}" for one in self.walls.values()),
                    *(f"key {one['name']}" for one in self.keys.values()),
                    *(f"tag {name}" for name in self.tags),
                ]
            )

    def _lags(self, kind: str, ident: object) -> bool:
        left = self._late.get((kind, ident), 0)
        self._late[(kind, ident)] = max(left - 1, 0)
        return left > 0


def now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _get(things: dict[K, Doc], ident: K) -> Doc:
    if ident not in things:
        raise missing()
    return things[ident]


def _first(things: Iterable[Doc], key: str, wanted: object, what: str) -> Doc:
    for one in things:
        if one[key] == wanted:
            return one
    raise wrong(f"You specified an invalid {what} for Droplet creation.")
