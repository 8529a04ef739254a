"""Our nftables table, kept as planned: publish, withdraw, and put back what others took away."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping

from agent.net import rules
from agent.net.netlink import NETLINK_NETFILTER, NetlinkSocket
from agent.net.nfnetlink import generation
from agent.net.nftables import Nft, NftError
from agent.net.rules import Forwarding, NetworkRules, Plan

_log = logging.getLogger(__name__)


class Firewall:
    """The table of one plan.  Threads may share it.  Every method raises NftError or OSError."""

    def __init__(self, nft: Nft, plan: Plan) -> None:
        self._nft = nft
        self._plan = plan
        self._lock = threading.Lock()
        self._forwardings: dict[str, frozenset[Forwarding]] = {}
        self._user_rules: tuple[str, ...] = ()
        self._netfilter = NetlinkSocket(NETLINK_NETFILTER)
        # Generations that our own transactions made, for telling our events from others'.
        self._own: deque[int] = deque(maxlen=4096)

    @property
    def table(self) -> str:
        return self._plan.table

    def assert_all(self, forwardings: Mapping[str, Iterable[Forwarding]]) -> None:
        """Make the table exactly that of the plan and of these owners' ports."""
        with self._lock:
            self._forwardings = {owner: frozenset(some) for owner, some in forwardings.items()}
            self._assert()

    def publish(self, owner: str, forwardings: Iterable[Forwarding]) -> None:
        """Idempotent for one owner and its ports."""
        wanted = frozenset(forwardings)
        with self._lock:
            if self._forwardings.get(owner) == wanted:
                return
            before = self._forwardings.get(owner)
            self._forwardings[owner] = wanted
            try:
                if before:
                    self._assert()
                else:
                    self._change(rules.publish(self._plan, wanted))
            except (NftError, OSError):
                self._forwardings.pop(owner, None)
                raise

    def withdraw(self, owner: str) -> None:
        """Idempotent."""
        with self._lock:
            gone = self._forwardings.pop(owner, None)
            if gone:
                self._change(rules.withdraw(self._plan, gone))

    def add_network(self, network: NetworkRules) -> None:
        """Idempotent."""
        with self._lock:
            before = self._plan
            known = before.networks.get(network.key)
            if known == network:
                return
            networks = {**before.networks, network.key: network}
            self._plan = dataclasses.replace(before, networks=networks)
            try:
                if known is None:
                    self._change(rules.add_network(self._plan, network))
                else:
                    self._assert()
            except (NftError, OSError):
                self._plan = before
                raise

    def drop_network(self, key: str) -> None:
        """Idempotent.  Its containers' ports have been withdrawn."""
        with self._lock:
            networks = dict(self._plan.networks)
            network = networks.pop(key, None)
            if network is not None:
                self._plan = dataclasses.replace(self._plan, networks=networks)
                self._change(rules.drop_network(self._plan, network))

    def guard6(self, links: tuple[int, ...]) -> None:
        """See Plan.guarded6: IPv6 forwarding has just been turned on, or is about to be."""
        with self._lock:
            if self._plan.guarded6 != links:
                self._plan = dataclasses.replace(self._plan, guarded6=links)
                self._assert()

    def is_own(self, number: int) -> bool:
        """Whether that generation is the work of this object.  Waits for a running change."""
        with self._lock:
            return number in self._own

    def restore(self) -> None:
        """Somebody else touched the table: put it back, keeping the operator's rules."""
        with self._lock:
            self._assert()

    def remember_user_rules(self) -> None:
        """The operator changed the chain `user`: that is what a flush must not lose."""
        with self._lock:
            self._take_user_rules()

    def foreign_drops(self) -> list[str]:
        """Other tables' forward chains with policy drop: these eat what ours lets through."""
        tables: list[str] = []
        table = ""
        for line in self._nft.run("list chains\n").splitlines():
            words = line.replace(";", " ").split()
            if words[:1] == ["table"]:
                table = " ".join(words[1:3])
            elif "hook" in words and "forward" in words and words[-1:] == ["drop"]:
                tables.append(table)
        return [name for name in tables if name != f"inet {self._plan.table}"]

    def remove(self) -> None:
        """Delete the table, the operator's chain with it."""
        with self._lock:
            self._forwardings.clear()
            self._commit(rules.removal(self._plan.table))

    def close(self) -> None:
        self._netfilter.close()

    def _change(self, text: str) -> None:
        """A small change; when the table is not as we left it, the whole of it instead."""
        if not text:
            return
        try:
            self._commit(text)
        except NftError as error:
            _log.warning("nftables table %s was changed by others: %s", self.table, error)
            self._assert()

    def _assert(self) -> None:
        user_rules = () if self._take_user_rules() else self._user_rules
        wanted = [one for some in self._forwardings.values() for one in some]
        present = self._chains()
        try:
            text = rules.assertion(self._plan, wanted, user_rules=user_rules, present=present)
            self._commit(text)
            return
        except NftError as error:
            # A chain of ours with another hook, a map with another type, ...: start afresh.
            _log.warning("nftables table %s is made anew: %s", self.table, error)
        kept = self._user_rules
        try:
            self._commit(rules.assertion(self._plan, wanted, user_rules=kept, afresh=True))
        except NftError as error:
            if not kept:
                raise
            _log.warning("rules of the chain user are lost: %s: %s", error, "; ".join(kept))
            self._commit(rules.assertion(self._plan, wanted, afresh=True))

    def _commit(self, text: str) -> None:
        before = generation(self._netfilter)
        self._nft.run(text)
        after = generation(self._netfilter)
        # Anything more than one step is somebody else's transaction beside ours.
        if after == before + 1:
            self._own.append(after)

    def _chains(self) -> list[str]:
        """The names of the table's chains; none when there is no such table."""
        names: list[str] = []
        table = ""
        for line in self._nft.run("list chains inet\n").splitlines():
            words = line.split()
            if words[:1] == ["table"]:
                table = words[2]
            elif words[:1] == ["chain"] and table == self._plan.table:
                names.append(words[1])
        return names

    def _take_user_rules(self) -> bool:
        """Remember what the chain `user` holds; False when there is no such chain."""
        with contextlib.suppress(NftError):
            listing = self._nft.run(f"list chain inet {self._plan.table} {rules.USER_CHAIN}\n")
            self._user_rules = rules.user_rules_in(listing)
            return True
        return False
