"""The thread that sees other programs change our nftables table, and has it put back (case 103)."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import threading
import time

from agent.net.firewall import Firewall
from agent.net.netlink import NETLINK_NETFILTER, NetlinkSocket
from agent.net.nfnetlink import NFNLGRP_NFTABLES, decode_event
from agent.net.nftables import NftError
from agent.net.rules import USER_CHAIN

_log = logging.getLogger(__name__)
# A reload by another tool is many transactions: wait for its end, but not for long.
_QUIET = 0.03
_LATEST = 0.3
# Against a tool that fights with us: after this many repairs in a row each waits a second.
_PATIENCE = 20
_RETRY = 1.0
# The kernel charges 4 KiB for each event, however small: the default 208 KiB hold a dozen publishes.
_BUFFER = 8 << 20


class Watcher:
    """Watches from construction on (in the calling thread's network namespace) until `close`."""

    def __init__(self, firewall: Firewall) -> None:
        self._firewall = firewall
        self._events = NetlinkSocket(NETLINK_NETFILTER)
        self._events.enlarge(_BUFFER)
        self._events.join(NFNLGRP_NFTABLES)
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
        self._touched = False  # our table, in the transaction that is being reported
        self._user_touched = False
        self._due: float | None = None
        self._first = 0.0
        self._repairs: list[float] = []
        self._thread = threading.Thread(target=self._run, name="nft-watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._stop_write, b"x")
        self._thread.join()
        self._events.close()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._events.fileno(), select.POLLIN)
        poller.register(self._stop_read, select.POLLIN)
        while True:
            timeout = None if self._due is None else max(self._due - time.monotonic(), 0) * 1000
            ready = [fd for fd, _ in poller.poll(timeout)]
            if self._stop_read in ready:
                return
            try:
                if ready:
                    self._read()
                elif self._due is not None:
                    self._repair()
            except (OSError, NftError) as error:
                _log.error(
                    "nftables table %s could not be put back: %s", self._firewall.table, error
                )
                self._due = time.monotonic() + _RETRY

    def _read(self) -> None:
        try:
            events = self._events.receive()
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._schedule()  # events were lost: assume the worst
            return
        for kind, _, _, _, body in events:
            event = decode_event(kind, body)
            if event is None:
                continue
            if event.generation is not None:
                self._transaction_ended(event.generation)
            elif event.table == self._firewall.table:
                if event.chain == USER_CHAIN:
                    self._user_touched = True
                else:
                    self._touched = True

    def _transaction_ended(self, number: int) -> None:
        touched, self._touched = self._touched, False
        user_touched, self._user_touched = self._user_touched, False
        if not (touched or user_touched) or self._firewall.is_own(number):
            return
        if touched:
            self._schedule()
        elif self._due is None:
            self._firewall.remember_user_rules()

    def _schedule(self) -> None:
        now = time.monotonic()
        if self._due is None:
            self._first = now
        self._due = min(now + _QUIET, self._first + _LATEST)
        self._repairs = [moment for moment in self._repairs if now - moment < 10.0]
        if len(self._repairs) >= _PATIENCE:
            self._due = now + _RETRY

    def _repair(self) -> None:
        self._due = None
        self._repairs.append(time.monotonic())
        self._firewall.restore()
        _log.warning("nftables table %s was changed by others and put back", self._firewall.table)
