"""Every call of the API that the driver makes, through the context's door, by python-digitalocean.

A call's name is the operation's id in DigitalOcean's OpenAPI description. Reads and deletes are made
again after a bad moment; creates and actions are not (there are no idempotency tokens): whoever
makes them looks first (`creation.ensured`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from drivers.api import DriverContext
from drivers.digitalocean import things
from drivers.digitalocean.refusals import SIGN_IN
from drivers.digitalocean.things import Document
from drivers.digitalocean.wire import Wire, library
from drivers.errors import AuthError, GoneError, TransientError
from drivers.polling import retried

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """A droplet to be made."""

    name: str
    region: str
    size: str
    image: int | str
    keys: tuple[int, ...]  # never public keys: the library would upload those
    user_data: str
    tags: tuple[str, ...]
    volumes: tuple[str, ...] = ()
    vpc: str = ""
    backups: bool = False
    ipv6: bool = False
    monitoring: bool = False
    private_networking: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Opening:
    """A rule of a firewall: what these networks may reach (or what may be reached there)."""

    protocol: str  # tcp, udp, icmp
    ports: str  # "22", "8000-8010"; "" of icmp, for which the API refuses any
    networks: tuple[str, ...]


ANYWHERE: Final = ("0.0.0.0/0", "::/0")
EVERY_PORT: Final = "1-65535"
OUTBOUND: Final = (
    Opening("tcp", EVERY_PORT, ANYWHERE),
    Opening("udp", EVERY_PORT, ANYWHERE),
    Opening("icmp", "", ANYWHERE),
)


class Account:
    """The account that the token of a context opens. For one verb, and its thread.

    Every method raises the kinds of DriverError that `refusals` makes; CannotError when the library
    is missing, AuthError when there is no token.
    """

    def __init__(self, ctx: DriverContext) -> None:
        token = ctx.text("access-token")
        if not token:
            raise AuthError("no access token of DigitalOcean is given", hint=SIGN_IN)
        self._ctx = ctx
        self._make = library(Wire(ctx.text("endpoint"), token, ctx.clock.now))

    # -- what there is to choose from

    def limits(self) -> things.Limits:
        account = self._make("Account")
        try:
            self._read("account_get", account.load)
        except GoneError as err:
            # Everybody has an account: to a token that it does not know, the API may say 404.
            raise AuthError(f"{err.message}: the token is not known", hint=SIGN_IN) from err
        return things.limits(_fields(account))

    def regions(self) -> list[things.Region]:
        return [things.region(one) for one in self._list("regions_list", "regions")]

    def plans(self) -> list[things.Plan]:
        return [things.plan(one) for one in self._list("sizes_list", "sizes")]

    def distributions(self) -> list[things.Image]:
        found = self._list("images_list", "images", type="distribution")
        return [things.image(one) for one in found]

    def image(self, wanted: int | str) -> things.Image:
        """Raises GoneError for an unknown slug or number."""
        number = {"id": wanted} if isinstance(wanted, int) else {"slug": wanted}
        image = self._make("Image", **number)
        self._read("images_get", lambda: image.load(use_slug=isinstance(wanted, str)))
        return things.image(_fields(image))

    def vpc_region(self, uuid: str) -> str:
        """The slug of the region that a VPC is in. Raises GoneError."""
        vpc = self._make("VPC", id=uuid)
        self._read("vpcs_get", vpc.load)
        return things.text(_fields(vpc), "region")

    # -- droplets

    def droplets(self, tag: str = "") -> list[things.Droplet]:
        """All, or those with a tag."""
        params = {"tag_name": tag} if tag else {}
        return [things.droplet(one) for one in self._list("droplets_list", "droplets", **params)]

    def droplet_count(self) -> int:
        found = self._read("droplets_list", lambda: self._get("droplets", per_page=1, page=1))
        return things.number(things.within(found, "meta"), "total")

    def droplet(self, ident: int) -> things.Droplet:
        """Raises GoneError: it does not exist, or not yet."""
        one = self._make("Droplet", id=ident)
        self._read("droplets_get", one.load)
        return things.droplet(_fields(one))

    def make_droplet(self, order: Order) -> int:
        """Ask for a droplet; its number. Not idempotent."""
        one = self._make(
            "Droplet",
            name=order.name,
            region=order.region,
            size_slug=order.size,
            image=order.image,
            ssh_keys=list(order.keys),
            user_data=order.user_data,
            tags=list(order.tags),
            volumes=list(order.volumes),
            vpc_uuid=order.vpc or None,
            backups=order.backups,
            ipv6=order.ipv6,
            monitoring=order.monitoring,
            private_networking=order.private_networking,
        )
        self._call("droplets_create", one.create)
        return int(one.id)

    def drop_droplet(self, ident: int) -> None:
        self._drop("droplets_destroy", self._make("Droplet", id=ident).destroy)

    def act(self, ident: int, kind: str, *given: object) -> int:
        """Ask for an action by the library's name of it; the action's number. Not idempotent."""
        verb = getattr(self._make("Droplet", id=ident), kind)
        found = self._call("dropletActions_post", lambda: verb(*given))
        return things.number(things.within(found, "action"), "id")

    def resize(self, ident: int, plan: str, *, disk: bool) -> int:
        one = self._make("Droplet", id=ident)
        found = self._call("dropletActions_post", lambda: one.resize(plan, disk=disk))
        return things.number(things.within(found, "action"), "id")

    def action(self, ident: int) -> str:
        """How an action fares: in-progress, completed, errored."""
        found = self._read("actions_get", lambda: self._get(f"actions/{ident}"))
        return things.text(things.within(found, "action"), "status")

    # -- what belongs to a machine beside its droplet

    def ssh_keys(self) -> list[things.Key]:
        return [things.key(one) for one in self._list("sshKeys_list", "account/keys", "ssh_keys")]

    def make_key(self, name: str, public_key: str) -> int:
        key = self._make("SSHKey", name=name, public_key=public_key)
        self._call("sshKeys_create", key.create)
        return int(key.id)

    def drop_key(self, ident: int) -> None:
        self._drop("sshKeys_delete", self._make("SSHKey", id=ident).destroy)

    def firewalls(self) -> list[things.Firewall]:
        return [things.firewall(one) for one in self._list("firewalls_list", "firewalls")]

    def make_firewall(self, name: str, tag: str, inbound: Sequence[Opening]) -> str:
        """A firewall for what carries the tag, which must exist. Raises ConflictError: the name."""
        # Not by the library's Firewall.create: it sends the rules through jsonpickle.
        wanted = {
            "name": name,
            "tags": [tag],
            "inbound_rules": [_rule(one, "sources") for one in inbound],
            "outbound_rules": [_rule(one, "destinations") for one in OUTBOUND],
        }
        post = self._make("Manager").get_data
        found = self._call(
            "firewalls_create", lambda: post("firewalls", type="POST", params=wanted)
        )
        return things.text(things.within(found, "firewall"), "id")

    def drop_firewall(self, ident: str) -> None:
        self._drop("firewalls_delete", self._make("Firewall", id=ident).destroy)

    def volumes(self) -> list[things.Volume]:
        return [things.volume(one) for one in self._list("volumes_list", "volumes")]

    def make_volume(self, name: str, region: str, size: int, tag: str) -> str:
        """An ext4 volume of `size` GiB. Raises ConflictError: the name is taken in the region."""
        volume = self._make(
            "Volume",
            name=name,
            region=region,
            size_gigabytes=size,
            description="made by machine",
            filesystem_type="ext4",
            filesystem_label="machine",
            tags=[tag],
        )
        self._call("volumes_create", volume.create)
        return str(volume.id)

    def drop_volume(self, ident: str) -> None:
        """Raises ConflictError while it is attached."""
        self._drop("volumes_delete", self._make("Volume", id=ident).destroy)

    def snapshots(self) -> list[things.Snapshot]:
        """Those of droplets, oldest first."""
        found = self._list("snapshots_list", "snapshots", resource_type="droplet")
        return sorted((things.snapshot(one) for one in found), key=lambda one: one.created)

    def drop_snapshot(self, ident: str) -> None:
        self._drop("snapshots_delete", self._make("Snapshot", id=ident).destroy)

    def tags(self) -> list[str]:
        return [things.text(one, "name") for one in self._list("tags_list", "tags")]

    def make_tag(self, name: str) -> None:
        """Raises ConflictError, or nothing, when there is one."""
        self._call("tags_create", self._make("Tag", name=name).create)

    def drop_tag(self, name: str) -> None:
        self._drop("tags_delete", self._make("Tag", name=name).delete)

    # -- the door

    def _call(self, name: str, action: Callable[[], T]) -> T:
        return self._ctx.door.call(name, lambda: _understood(action))

    def _again(self, name: str, action: Callable[[], T]) -> T:
        return retried(lambda: self._call(name, action), clock=self._ctx.clock)

    def _read(self, name: str, action: Callable[[], Any]) -> Document:
        found = self._again(name, action)
        return found if isinstance(found, Mapping) else {}

    def _drop(self, name: str, action: Callable[[], object]) -> None:
        """What is gone already is no error."""
        with contextlib.suppress(GoneError):
            self._again(name, action)

    def _get(self, path: str, **params: object) -> Document:
        found = self._make("Manager").get_data(path, params=params)
        return found if isinstance(found, Mapping) else {}

    def _list(self, name: str, path: str, key: str = "", **params: object) -> list[Document]:
        """All pages of a list, as one call: it changes nothing."""
        found = self._read(name, lambda: self._get(path, **params))
        return things.each(found, key or path)


def _understood(action: Callable[[], T]) -> T:
    """An answer of another shape than the library knows is worth another try, and no traceback."""
    try:
        return action()
    except (KeyError, IndexError, TypeError, AttributeError) as err:
        raise TransientError(
            f"DigitalOcean: an answer is not understood ({type(err).__name__}: {err})"
        ) from err


def _fields(thing: object) -> Document:
    """The library sets what the API answered as attributes."""
    return vars(thing)


def _rule(one: Opening, side: str) -> Document:
    ports = {"ports": one.ports} if one.ports else {}
    return {"protocol": one.protocol, **ports, side: {"addresses": list(one.networks)}}
