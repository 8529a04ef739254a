"""Runs the stages of a Dockerfile, with the classic builder's words in its order.

Stages that do not need each other run at the same time; `agent.build.turns` keeps the output of
each together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from agent.build import copystep, metadata, origins, parser, runstep
from agent.build import draft as drafts
from agent.build.args import BuildArgs
from agent.build.draft import Draft
from agent.build.instructions import (
    Arg,
    Copy,
    Dockerfile,
    From,
    Instruction,
    Label,
    Run,
    Stage,
    instruction,
)
from agent.build.scope import Build, StageState
from agent.build.shellwords import Lexer, WordError
from agent.build.turns import Turns
from agent.errors import EngineError, invalid


class Stages:
    """One build's stages.  `tips`: the last image of each so far, also after a failure."""

    def __init__(self, build: Build, platform: dict[str, str], host: tuple[str, str, str]) -> None:
        self._build = build
        self._host = host
        self._args = BuildArgs(build.request.build_args, platform)
        self._stages = chosen(build.dockerfile, build.request.target)
        self._stages[-1] = labelled(self._stages[-1], build.request.labels)
        self._total = len(build.dockerfile.globals) + sum(
            1 + len(one.steps) for one in self._stages
        )
        self._tips: dict[int, Draft] = {}

    @property
    def tips(self) -> list[Draft]:
        return [draft for _, draft in sorted(self._tips.items())]

    def run(self) -> Draft:
        """The image of the last (or the target's) stage.  Raises EngineError."""
        for number, one in enumerate(self._build.dockerfile.globals, 1):
            self._build.check()
            self._build.say(f"Step {number}/{self._total} : {one.text}\n")
            self._global(one)
        turns = Turns(self._build.output, self._build.gone, len(self._stages))
        done = turns.run([self._work(number, turns) for number in range(len(self._stages))])
        unused = self._args.unused()
        if unused:
            shown = " ".join(unused)
            self._build.say(f"[Warning] One or more build-args [{shown}] were not consumed\n")
        return done

    def _work(self, number: int, turns: Turns) -> Callable[[], Draft]:
        first = len(self._build.dockerfile.globals)
        first += sum(1 + len(one.steps) for one in self._stages[:number])
        build = dataclasses.replace(
            self._build, output=turns.output(number), gone=turns.gone, number=number
        )
        walk = StageWalk(build, self._args, self._host, (first, self._total), self._tips)
        return lambda: walk.run(self._stages[number])

    def _global(self, one: Instruction) -> None:
        if isinstance(one.body, Arg):
            for name, default in one.body.pairs:
                value = None if default is None else word(self._build, self._args, default)
                self._args.add_global(name, value)


def word(build: Build, args: BuildArgs, text: str) -> str:
    """One word outside of any stage: only global arguments count."""
    try:
        return Lexer(build.dockerfile.escape).word(text, args.for_from())
    except WordError as error:
        raise invalid(str(error)) from error


class StageWalk:
    """One stage.  `steps`: the number before its first step, and how many the build has."""

    def __init__(
        self,
        build: Build,
        args: BuildArgs,
        host: tuple[str, str, str],
        steps: tuple[int, int],
        tips: dict[int, Draft],
    ) -> None:
        self._build = build
        self._args = args
        self._host = host
        self._number, self._total = steps
        self._tips = tips

    def _announce(self, text: str) -> None:
        self._number += 1
        self._build.check()
        self._build.say(f"Step {self._number}/{self._total} : {text}\n")

    def run(self, stage: Stage) -> Draft:
        """The image of the stage.  Raises EngineError."""
        build = self._build
        self._announce(stage.text)
        draft = self._origin(stage.origin)
        escape = build.dockerfile.escape
        state = StageState(self._args.stage(), draft, escape, build=build)
        build.say(f" ---> {drafts.short(state.draft.image_id)}\n")
        self._tips[build.number] = state.draft
        try:
            self._triggers(state)
            for one in stage.steps:
                self._announce(one.text)
                self._perform(state, one)
                build.say(f" ---> {drafts.short(state.draft.image_id)}\n")
        finally:
            self._tips[build.number] = state.draft
        if state.draft.image_id:
            build.output.aux(state.draft.image_id)
        build.stages.put(build.number, state.draft)
        return state.draft

    def _perform(self, state: StageState, one: Instruction) -> None:
        if len(state.draft.diff_ids) > drafts.MAX_LAYERS:
            raise invalid("max depth exceeded")
        try:
            if isinstance(one.body, Run):
                runstep.run(state, one.body)
            elif isinstance(one.body, Copy):
                copystep.copy(state, one.body)
            else:
                metadata.apply(state, one.body)
        except EngineError:
            if one.line:
                name = self._build.context.dockerfile_name
                self._build.say(f" ---> Failed at {name}:{one.line}\n")
            raise

    # ------------------------------------------------------------------------------------ FROM

    def _origin(self, origin: From) -> Draft:
        base = word(self._build, self._args, origin.base)
        if not base:
            raise invalid(f"base name ({origin.base}) should not be blank")
        platform = word(self._build, self._args, origin.platform) or self._build.request.platform
        draft = self._base(base, platform)
        config = {**draft.config, "Env": list(draft.texts("Env") or ())}
        if not any(one.startswith("PATH=") for one in draft.texts("Env") or ()):
            config["Env"] = [*(draft.texts("Env") or ()), drafts.DEFAULT_PATH]
        return dataclasses.replace(draft, config=config)

    def _base(self, name: str, platform: str) -> Draft:
        build = self._build
        if name == "scratch":
            return Draft(platform=_parts(platform, self._host))
        index = build.dockerfile.find(name) if not name.isdigit() else -1
        if 0 <= index < build.number:
            return build.stages.wait(index, build.check)
        return origins.image(build, name, platform)

    def _triggers(self, state: StageState) -> None:
        """The base's ONBUILD instructions; they are not handed on."""
        triggers = state.draft.texts("OnBuild") or ()
        if not triggers:
            return
        state.draft = state.draft.with_config(OnBuild=None)
        plural = "s" if len(triggers) > 1 else ""
        self._build.say(f"# Executing {len(triggers)} build trigger{plural}\n")
        for text in triggers:
            self._perform(state, trigger(text, self._build.dockerfile.escape))


def trigger(text: str, escape: str) -> Instruction:
    """One ONBUILD text of an image; it was written by a stranger."""
    parsed = parser.parse(text.encode("utf-8", "surrogateescape"), escape=escape)
    if len(parsed.nodes) != 1 or parsed.nodes[0].name in ("FROM", "ONBUILD", "MAINTAINER"):
        raise invalid(f"invalid ONBUILD trigger: {text[:200]}")
    return dataclasses.replace(instruction(parsed.nodes[0]), line=0)


def chosen(dockerfile: Dockerfile, target: str) -> list[Stage]:
    """The stages up to the target.  INVALID when there is no such stage."""
    if not target:
        return list(dockerfile.stages)
    index = dockerfile.find(target)
    if index < 0:
        raise invalid(f"target stage {target} could not be found")
    return list(dockerfile.stages[: index + 1])


def labelled(stage: Stage, labels: object) -> Stage:
    """--label: one more LABEL at the end for each."""
    pairs: Sequence[tuple[str, str]] = sorted(labels.items()) if isinstance(labels, dict) else ()
    extra = tuple(
        Instruction(Label(((_quoted(name), _quoted(value)),)), f"LABEL {name}={value}", 0)
        for name, value in pairs
    )
    return dataclasses.replace(stage, steps=(*stage.steps, *extra))


def _quoted(text: str) -> str:
    """As a word that expands to itself."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _parts(platform: str, host: tuple[str, str, str]) -> tuple[str, str, str]:
    if not platform:
        return host
    words = [*platform.lower().split("/"), "", ""]
    return words[0] or "linux", words[1] or host[1], words[2]
