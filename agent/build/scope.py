"""What all steps of one build share, and one stage's state."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from agent.build import overlay
from agent.build.args import BuildArgs
from agent.build.cache import Cache
from agent.build.context import Context
from agent.build.copying import ensure_directory
from agent.build.draft import Draft
from agent.build.instructions import Dockerfile
from agent.build.shellwords import Lexer, WordError
from agent.build.sshforward import Sessions, Upstream
from agent.engine.building import BuildOutput, BuildRequest, Gone, Layers, Runs
from agent.engine.ports import Images
from agent.errors import cancelled, invalid
from agent.host import openat

_LOOK = 0.1  # seconds between looks at whether the build was given up
# In a build's folder: the layers that it has made, for the agent that finds them after a crash.
LAYERS = "layers"


def orphans(work: str) -> list[str]:
    """diffIDs of the layers that builds of a dead agent had made."""
    found: list[str] = []
    for name in os.listdir(work):
        with suppress(OSError), open(os.path.join(work, name, "tmp", LAYERS), "rb") as file:
            found += file.read(1 << 20).decode("ascii", "replace").split()
    return found


@dataclass(frozen=True)
class World:
    """The builder's ports and folders.  `home`: for this build's temporary things; `mounts`: RUN's
    caches; `now`: wall-clock ns."""

    layers: Layers
    images: Images
    runs: Runs
    mounts: str
    secrets: str  # in $RUN: memory
    now: Callable[[], int]
    upper: Callable[[str], str]  # a container's upper directory
    sessions: Sessions = field(default_factory=Sessions)  # clients' SSH agents


class FinishedStages:
    """Stages by their numbers.  Who needs one waits for it; a stage only needs earlier ones, and
    they are begun in order, so nobody waits for ever."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._done: dict[int, Draft] = {}

    def put(self, number: int, draft: Draft) -> None:
        with self._changed:
            self._done[number] = draft
            self._changed.notify_all()

    def wait(self, number: int, check: Callable[[], None]) -> Draft:
        """`check` raises when waiting has become pointless: the build was given up."""
        with self._changed:
            while number not in self._done:
                check()
                self._changed.wait(_LOOK)
            return self._done[number]


@dataclass
class Build:
    """One build under way, as one of its stages sees it."""

    world: World
    request: BuildRequest
    dockerfile: Dockerfile
    context: Context
    cache: Cache
    output: BuildOutput
    gone: Gone
    home: str
    held: list[str] = field(default_factory=list)
    stages: FinishedStages = field(default_factory=FinishedStages)
    number: int = 0  # of the stage that this view of the build belongs to
    bases: dict[tuple[str, str], Draft] = field(default_factory=dict)

    def check(self) -> None:
        """CANCELLED when the client went."""
        if self.gone():
            raise cancelled("the build was cancelled: the client has gone")

    def agent_of(self, identity: str) -> Upstream | None:
        """The way to the client's SSH agent of that id."""
        return self.world.sessions.find(self.request.agents.get(identity, ""))

    def wait(self, seconds: float) -> None:
        """A short pause, for somebody else's lock."""
        threading.Event().wait(seconds)

    def say(self, text: str) -> None:
        self.output.stream(text)

    def hold(self, diff_ids: Sequence[str]) -> None:
        self.world.layers.hold(diff_ids)
        self.held += diff_ids

    def temporary(self) -> str:
        """A new private folder that goes with the build."""
        return tempfile.mkdtemp(dir=self.home)

    def commit(self, folder: str) -> str:
        """A staged folder as a layer; its diffID."""
        self.check()
        diff_id = self.world.layers.commit(folder)
        self.held.append(diff_id)
        with open(os.path.join(self.home, LAYERS), "a", encoding="ascii") as file:
            file.write(f"{diff_id}\n")
        return diff_id


@dataclass
class ConfigState:
    """An image's configuration while instructions change it (commit's `changes`)."""

    args: BuildArgs
    draft: Draft
    escape: str = "\\"
    command_set: bool = False

    def values(self) -> dict[str, str]:
        """What variables mean now: ENV before ARG."""
        env = self.draft.env()
        return {**self.args.allowed(env), **env}

    def word(self, text: str) -> str:
        """One word, expanded.  INVALID."""
        try:
            return Lexer(self.escape).word(text, self.values())
        except WordError as error:
            raise invalid(str(error)) from error

    def words(self, texts: Sequence[str]) -> list[str]:
        """Each expanded and split."""
        try:
            values, lexer = self.values(), Lexer(self.escape)
            return [one for text in texts for one in lexer.words(text, values)]
        except WordError as error:
            raise invalid(str(error)) from error

    def heredoc(self, text: str) -> str:
        """A heredoc's text with its variables: quotes are ordinary characters there."""
        try:
            return Lexer(self.escape, quotes=False).word(text, self.values())
        except WordError as error:
            raise invalid(str(error)) from error

    def comment(self, text: str) -> str:
        """created_by of an instruction without a command."""
        return f"{' '.join(self.draft.shell())} #(nop)  {text}"

    def metadata(self, text: str, wanted: Draft) -> None:
        """A step that only changes the configuration."""
        self.step(self.comment(text), wanted, lambda: "")

    def step(
        self, created_by: str, wanted: Draft, make: Callable[[], str], extra: str = ""
    ) -> None:
        """Here: no history, no layer."""
        del created_by, make, extra
        self.draft = wanted

    def make_folder(self, path: str) -> str:
        """WORKDIR's folder; a layer's diffID, "" = none is needed."""
        del path
        return ""


@dataclass
class StageState(ConfigState):
    """One stage: the image so far, and what only lives as long as the stage."""

    build: Build = field(kw_only=True)

    def step(
        self, created_by: str, wanted: Draft, make: Callable[[], str], extra: str = ""
    ) -> None:
        """From the cache, or made: `make` gives the new layer's diffID, "" = none."""
        build, before = self.build, self.draft
        build.check()
        found = build.cache.find(before, created_by, wanted, extra)
        if found is not None:
            build.say(" ---> Using cache\n")
            build.hold(found.diff_ids)
            self.draft = found
            return
        diff_id = make()
        self.draft = wanted.step(created_by, build.world.now(), diff_id)
        build.cache.add(before, created_by, self.draft, extra)

    def make_folder(self, path: str) -> str:
        build, layers = self.build, self.build.world.layers
        lower = layers.lower(self.draft.diff_ids)
        if path == "/" or (lower and self._exists(lower, path)):
            return ""
        folder = layers.stage(self.draft.diff_ids)
        try:
            with overlay.writable(build.home, lower, folder) as root:
                os.close(ensure_directory(root, path, (0, 0)))
            return build.commit(folder)
        except BaseException:
            layers.discard(folder)
            raise

    def _exists(self, lower: Sequence[str], path: str) -> bool:
        with overlay.readable(self.build.home, lower) as root:
            try:
                os.close(openat.open_in_root(root, os.fsencode(path), openat.DIRECTORY))
            except OSError:
                return False
        return True
