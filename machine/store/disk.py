"""The store: `certs/`, `machines/NAME/` and records, for many processes at once (C1, C3, C4)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from machine.errors import CorruptRecordError, MachineError, NotFoundError
from machine.model import MachineRecord
from machine.store import codec, files, names

RECORD: Final = "config.json"


@dataclasses.dataclass(frozen=True, slots=True)
class StorePaths:
    """Where things are below the store's root."""

    root: Path

    @property
    def certs(self) -> Path:
        return self.root / "certs"

    @property
    def made(self) -> Path:
        return self.root / "made"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    @property
    def locks(self) -> Path:
        return self.root / "locks"  # outside machines/: a lock outlives the machine that it guards

    def machine(self, name: str) -> Path:
        return self.machines / name


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A folder of `machines/`: its record, or what is wrong with it."""

    name: str
    record: MachineRecord | None
    problem: MachineError | None


class Store:
    """Machine records below one folder.

    Readers take no lock: a record is replaced whole. Writers of one record take its short record
    lock; a command that changes a machine holds the machine's operation lock for as long as it
    runs (`operating`). All methods raise MachineError.
    """

    def __init__(self, root: Path) -> None:
        self.paths = StorePaths(root)
        self._uid = os.geteuid()

    # -- reading

    def names(self) -> list[str]:
        """Every machine's name, sorted naturally and without regard to case (as `ls` shows them)."""
        try:
            found = [e.name for e in os.scandir(self.paths.machines) if e.is_dir()]
        except FileNotFoundError:
            return []
        return sorted((n for n in found if not n.startswith(".")), key=_natural)

    def exists(self, name: str) -> bool:
        return names.is_readable_name(name) and self.paths.machine(name).is_dir()

    def load(self, name: str) -> MachineRecord:
        """The machine's record. Raises NotFoundError, CorruptRecordError, MachineError."""
        if not self.exists(name):
            raise NotFoundError(name)
        path = self.paths.machine(name) / RECORD
        try:
            return codec.decode(files.read_limited(path, codec.LIMIT), name)
        except FileNotFoundError as err:
            raise CorruptRecordError(
                f'Machine "{name}" has no record', details=f"{path} is missing", hint=_salvage(path)
            ) from err
        except CorruptRecordError as err:
            raise CorruptRecordError(
                f'Machine "{name}": {err.brief}', details=str(path), hint=_salvage(path)
            ) from err
        except OSError as err:
            raise MachineError(f"Cannot read {path}", details=err.strerror or str(err)) from err

    def entries(self) -> list[Entry]:
        """All machines; one that can't be read is an entry with its problem (case 164)."""
        out = []
        for name in self.names():
            try:
                out.append(Entry(name, self.load(name), None))
            except MachineError as err:
                out.append(Entry(name, None, err))
        return out

    def machine_dir(self, name: str) -> Path:
        """The folder that DOCKER_CERT_PATH points at: ca.pem, cert.pem, key.pem, known_hosts."""
        return self.paths.machine(name)

    def record_lines(self, name: str) -> bytes:
        """The record's file as it is (for inspect)."""
        return files.read_limited(self.paths.machine(name) / RECORD, codec.LIMIT)

    # -- writing

    def prepare(self) -> None:
        """Make the store's folders. Raises MachineError when they can't be made."""
        try:
            for path in (self.paths.root, self.paths.certs, self.paths.machines, self.paths.locks):
                files.ensure_dir(path)
        except OSError as err:
            raise MachineError(
                f"Cannot make the store {self.paths.root}", details=err.strerror or str(err)
            ) from err

    def check_modes(self, name: str | None = None) -> None:
        """Raise MachineError when the store (or a machine's folder) is open to others (case 166)."""
        wanted = [self.paths.root, self.paths.certs, self.paths.machines]
        wanted += [self.paths.machine(name)] if name else []
        found = [p for path in wanted for p in files.problems_with_modes(path, uid=self._uid)]
        if found:
            raise MachineError(
                "The store is not private, so its keys can't be trusted",
                details="\n".join(found),
                hint="Repair it with: machine --fix-perms "
                f"-s {shlex.quote(str(self.paths.root))} ls",
            )

    def fix_modes(self) -> list[Path]:
        """Make the store private again; returns the paths that were changed."""
        return files.fix_modes(self.paths.root, uid=self._uid)

    def save(self, record: MachineRecord) -> None:
        """Write the whole record, with the previous one kept as config.json.bak.

        The caller holds `operating(record.name)`; use `update` to change a record without it.
        """
        if record.imported:
            record = record.with_changes(imported=False)
        folder = self.paths.machine(record.name)
        self.prepare()
        with self._record_lock(record.name):
            if folder.is_dir():
                files.write_atomic(folder / RECORD, codec.encode(record), backup=True)
            else:
                self._save_first(folder, record)

    def _save_first(self, folder: Path, record: MachineRecord) -> None:
        """Folder and record appear together: a kill leaves no folder that blocks the name."""
        fresh = self.paths.machines / f".new-{folder.name}"
        if fresh.exists():
            shutil.rmtree(fresh)
        files.ensure_dir(fresh)
        files.write_atomic(fresh / RECORD, codec.encode(record))
        self._note_made(record.uuid)
        fresh.rename(folder)
        files.sync_dir(self.paths.machines)

    def made(self) -> frozenset[str]:
        """The uuids of all machines that this store has ever made: what `gc` may call its own."""
        try:
            return frozenset(self.paths.made.read_text().split())
        except OSError:
            return frozenset()

    def _note_made(self, uuid: str) -> None:
        """Before the provider is asked for anything; one short line, so appending is atomic."""
        if uuid:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            fd = os.open(self.paths.made, flags, files.FILE_MODE)
            try:
                os.write(fd, f"{uuid}\n".encode())
                os.fsync(fd)
            finally:
                os.close(fd)

    def update(self, name: str, change: Callable[[MachineRecord], MachineRecord]) -> MachineRecord:
        """Read, change and write a record with no other writer in between (case 163)."""
        with self._record_lock(name):
            after = change(self.load(name)).with_changes(imported=False)
            path = self.paths.machine(name) / RECORD
            files.write_atomic(path, codec.encode(after), backup=True)
        return after

    def forget(self, name: str) -> None:
        """Remove the machine's folder, record last, so that a kill in between can be rerun."""
        folder = self.paths.machine(name)
        if not names.is_readable_name(name) or not folder.is_dir():
            return
        with self._record_lock(name):
            for path in folder.iterdir():
                if path.name == RECORD:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            (folder / RECORD).unlink(missing_ok=True)
            folder.rmdir()

    def restore_backup(self, name: str) -> MachineRecord:
        """Put config.json.bak in place of a damaged record. Raises MachineError without a backup."""
        folder = self.paths.machine(name)
        with self._record_lock(name):
            try:
                saved = files.read_limited(folder / f"{RECORD}.bak", codec.LIMIT)
            except FileNotFoundError as err:
                raise MachineError(f'Machine "{name}" has no backup of its record') from err
            record = codec.decode(saved, name)
            files.write_atomic(folder / RECORD, saved)
        return record

    # -- locks

    @contextlib.contextmanager
    def operating(self, name: str) -> Iterator[None]:
        """Hold the machine for a command that changes it; refuses when another process does."""
        if not names.is_readable_name(name):
            raise NotFoundError(name)
        self.prepare()
        try:
            with files.locked(self.paths.locks / f"{name}.lock", wait=False):
                yield
        except BlockingIOError as err:
            raise MachineError(
                f'Machine "{name}" is being changed by another process',
                details=f"process {err.strerror} holds it" if err.strerror else "",
                hint="Wait until it has ended, or stop it.",
            ) from err

    @contextlib.contextmanager
    def ca_lock(self) -> Iterator[None]:
        """Held while the store's CA and client identity are made or renewed (case 162)."""
        self.prepare()
        with files.locked(self.paths.locks / "ca..lock", wait=True):
            yield

    @contextlib.contextmanager
    def _record_lock(self, name: str) -> Iterator[None]:
        with files.locked(self.paths.locks / f"{name}..record.lock", wait=True):
            yield


def _salvage(path: Path) -> str:
    if path.with_name(path.name + ".bak").exists():
        return f"A backup is available: cp {path}.bak {path}"
    return f"Remove it with: machine rm -f {path.parent.name}"


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p]
