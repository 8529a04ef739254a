"""The steps of create: each finds by tag before it makes, and is safe to be cut off anywhere."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final

from drivers.api import DriverContext, Made, Seed, SeedRequest
from drivers.aws import checks, finding, plan
from drivers.aws.documents import TAG, Document, Instance, rows, tags, text
from drivers.aws.finding import patiently
from drivers.aws.plan import Choice
from drivers.aws.provider import Cloud
from drivers.caller import caller_cidr
from drivers.errors import ConflictError, GoneError, QuotaError, WaitTimeoutError
from drivers.polling import NotYet, retried, wait_until

RUN_SECONDS: Final = 300.0
_LOOK_AGAIN_SECONDS: Final = 15.0


class Making:
    """One create. The state grows with what its steps yield, as the caller's does."""

    def __init__(self, cloud: Cloud, ctx: DriverContext) -> None:
        self._cloud = cloud
        self._ctx = ctx
        self._state = dict(ctx.state)

    def steps(self) -> Iterator[Made]:
        """All of them, in order; nothing is yielded that the state has already."""
        yield from self._learn("region", self._cloud.connect())
        known = self._launched()
        if known is None:
            yield from self._prepare_and_launch()
        else:
            yield from self._learn("instance", known.id)
        wait_running(self._cloud, self._ctx, str(self._state["instance"]))

    def _learn(self, key: str, value: object, note: str = "") -> Iterator[Made]:
        if self._state.get(key) != value:
            self._state[key] = value
            yield Made(key, value, note)

    def _launched(self) -> Instance | None:
        """The instance, when it is there already.

        A launch that was cut off is looked for with patience: a listing by tag may not show yet
        what was made seconds ago, and another one would be a second instance.
        """
        cloud, ctx = self._cloud, self._ctx
        found = patiently(ctx, lambda: finding.own_instance(cloud, ctx))
        if found or not self._state.get("launching") or self._state.get("instance"):
            return found

        def attempt() -> Instance | NotYet:
            try:
                return finding.own_instance(cloud, ctx) or NotYet("not listed")
            except GoneError as err:
                return NotYet(err.message)

        try:
            return wait_until(
                attempt, what="the instance", seconds=_LOOK_AGAIN_SECONDS, clock=ctx.clock
            )
        except WaitTimeoutError:
            return None

    def _prepare_and_launch(self) -> Iterator[Made]:
        choice = yield from self._choose()
        seed = self._ctx.seeds.seed(
            SeedRequest(
                user=checks.login(self._ctx),
                user_data=checks.own_user_data(self._ctx),
                limit=checks.USER_DATA_LIMIT,
            )
        )
        key = self._ctx.text("keypair-name")
        if not key:
            key = plan.own_name(self._ctx)
            self._import_key(key, checks.own_public_key(self._ctx) or seed.public_key)
            yield from self._learn("key", key, "Imported SSH key...")
        groups: Sequence[str] = choice.groups
        if not groups:
            groups = yield from self._own_group(choice)
        yield from self._launch(choice, groups, key, seed)

    def _choose(self) -> Generator[Made, None, Choice]:
        stored = plan.choice_of(self._state.get("choice"), plan.asked_for(self._ctx))
        if stored is not None:
            return stored
        choice = finding.choose(self._cloud, self._ctx)
        yield from self._learn(
            "choice",
            choice.stored(),
            f"Image {choice.image} on {choice.instance_type} in {choice.zone}",
        )
        return choice

    # -- key pair

    def _import_key(self, name: str, public: str) -> None:
        cloud, ctx = self._cloud, self._ctx

        def ensure() -> None:
            if patiently(ctx, self._own_keys):
                return
            try:
                cloud.once(
                    "ImportKeyPair",
                    KeyName=name,
                    PublicKeyMaterial=public.encode(),
                    TagSpecifications=plan.tagged(ctx, "key-pair"),
                )
            except ConflictError:  # by us, and the answer was lost; or not by us
                if not self._appears(self._own_keys):
                    raise

        retried(ensure, clock=ctx.clock)

    def _own_keys(self) -> list[Document]:
        return finding.own(self._cloud, self._ctx, "DescribeKeyPairs", "KeyPairs")

    # -- security group

    def _own_group(self, choice: Choice) -> Generator[Made, None, tuple[str, ...]]:
        group = self._make_group(choice.vpc)
        yield from self._learn("group", group, "Made security group...")
        sources = self._state.get("open_to")
        given = plan.networks(self._ctx.listed("open-to"))
        if given or not isinstance(sources, list):
            sources = list(given) or self._default_sources(choice)
            yield from self._learn("open_to", sources, f"Opening it to {', '.join(sources)}")
        self.open(group, [str(one) for one in sources], only=True)
        return (group,)

    def _default_sources(self, choice: Choice) -> list[str]:
        ctx = self._ctx
        if checks.private(ctx):
            return finding.vpc_networks(self._cloud, choice.vpc)
        return [caller_cidr(ctx)]

    def _make_group(self, vpc: str) -> str:
        cloud, ctx = self._cloud, self._ctx

        def own() -> list[Document]:  # another try may have left one in another VPC
            return [one for one in self._own_groups() if text(one, "VpcId") == vpc]

        def ensure() -> str:
            found = patiently(ctx, own)
            if found:
                return text(found[0], "GroupId")
            try:
                made = cloud.once(
                    "CreateSecurityGroup",
                    GroupName=plan.own_name(ctx),
                    Description=f"machine {ctx.name}",
                    VpcId=vpc,
                    TagSpecifications=plan.tagged(ctx, "security-group"),
                )
                return text(made, "GroupId")
            except ConflictError:
                found = self._appears(own)
                if not found:
                    raise
                return text(found[0], "GroupId")

        return retried(ensure, clock=ctx.clock)

    def _own_groups(self) -> list[Document]:
        return finding.own(self._cloud, self._ctx, "DescribeSecurityGroups", "SecurityGroups")

    def open(self, group: str, sources: Sequence[str], *, only: bool = False) -> None:
        """Add the rules that the machine's own group lacks; with `only`, take others away.

        Others are of an earlier try of this create, with other options.
        """
        cloud, ctx = self._cloud, self._ctx
        wanted = plan.rules(ctx, sources)

        def ensure() -> None:
            found = cloud.listed("DescribeSecurityGroups", "SecurityGroups", GroupIds=[group])
            if not found:
                raise GoneError(f"DescribeSecurityGroups: {group} is not listed yet")
            if tags(found[0]).get(TAG) not in {ctx.uuid, None}:
                raise ConflictError(f"security group {group} is another machine's")
            lacking = plan.lacking(found[0], wanted)
            surplus = plan.surplus(found[0], wanted) if only else []
            if surplus:
                cloud.ask("RevokeSecurityGroupIngress", GroupId=group, IpPermissions=surplus)
            if not lacking:
                return
            try:
                cloud.once("AuthorizeSecurityGroupIngress", GroupId=group, IpPermissions=lacking)
            except ConflictError:  # InvalidPermission.Duplicate: an answer was lost
                return

        retried(lambda: patiently(ctx, ensure), clock=ctx.clock)

    # -- instance

    def _launch(
        self, choice: Choice, groups: Sequence[str], key: str, seed: Seed
    ) -> Iterator[Made]:
        cloud, ctx = self._cloud, self._ctx
        fields = plan.launch(ctx, choice, groups, key, seed.user_data)
        dead = [one.id for one in patiently(ctx, lambda: finding.own_instances(cloud, ctx))]
        token = plan.launch_token(ctx, fields, dead)
        yield from self._learn("launching", token, "Launching instance...")

        def run() -> Document:
            # a key pair, group or profile made just now may not be known there yet
            return patiently(ctx, lambda: cloud.ask("RunInstances", **fields, ClientToken=token))

        made = rows(run(), "Instances")
        yield from self._learn("instance", text(made[0], "InstanceId"))

    def _appears(self, look: Callable[[], list[Document]]) -> list[Document]:
        """What `look` lists in the end; [] when it lists nothing for a while."""

        def attempt() -> list[Document] | NotYet:
            return look() or NotYet()

        try:
            return wait_until(
                attempt, what="it", seconds=_LOOK_AGAIN_SECONDS, clock=self._ctx.clock
            )
        except WaitTimeoutError:
            return []


def wait_running(cloud: Cloud, ctx: DriverContext, ident: str) -> Instance:
    """The instance, once Amazon says that it runs; one that is stopped is left so.

    Raises QuotaError with Amazon's reason when it ends at once: capacity, volume limit, KMS key.
    """

    def attempt() -> Instance | NotYet:
        found = finding.by_id(cloud, ident)
        if found is None:
            return NotYet(f"{ident} is not listed yet")
        if found.dead or found.state == "shutting-down":
            raise QuotaError(
                f"Amazon ended {ident} at once: {found.reason or 'it gave no reason'}",
                hint="The same command makes another one.",
            )
        if found.state in {"running", "stopped"}:
            return found
        return NotYet(f"{ident} is {found.state}")

    return wait_until(attempt, what=f"the start of {ident}", seconds=RUN_SECONDS, clock=ctx.clock)
