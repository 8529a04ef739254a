"""Runs the stages of a Dockerfile in order, with the classic builder's words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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
from agent.errors import EngineError, invalid

_MAX_STEPS = 20_000


class Stages:
    """One build's walk over its stages.  `tips`: the last image of each, also after a failure."""

    def __init__(self, build: Build, platform: dict[str, str], host: tuple[str, str, str]) -> None:
        self._build = build
        self._host = host
        self._args = BuildArgs(build.request.build_args, platform)
        self._stages = chosen(build.dockerfile, build.request.target)
        self._stages[-1] = labelled(self._stages[-1], build.request.labels)
        self._total = len(build.dockerfile.globals) + sum(
            1 + len(one.steps) for one in self._stages
        )
        self._number = 0
        self.tips: list[Draft] = []

    def run(self) -> Draft:
        """The image of the last (or the target's) stage.  Raises EngineError."""
        for one in self._build.dockerfile.globals:
            self._announce(one.text)
            self._global(one)
        for stage in self._stages:
            self._build.stages.append(self._stage(stage))
        unused = self._args.unused()
        if unused:
            shown = " ".join(unused)
            self._build.say(f"[Warning] One or more build-args [{shown}] were not consumed\n")
        return self._build.stages[-1]

    def _announce(self, text: str) -> None:
        self._number += 1
        self._build.check()
        self._build.say(f"Step {self._number}/{self._total} : {text}\n")

    def _global(self, one: Instruction) -> None:
        if isinstance(one.body, Arg):
            for name, default in one.body.pairs:
                value = None if default is None else self._word(default)
                self._args.add_global(name, value)

    def _word(self, text: str) -> str:
        try:
            return Lexer(self._build.dockerfile.escape).word(text, self._args.for_from())
        except WordError as error:
            raise invalid(str(error)) from error

    def _stage(self, stage: Stage) -> Draft:
        build = self._build
        self._announce(stage.text)
        draft = self._origin(stage.origin)
        escape = build.dockerfile.escape
        state = StageState(self._args.stage(), draft, escape, build=build)
        build.say(f" ---> {drafts.short(state.draft.image_id)}\n")
        self.tips.append(state.draft)
        try:
            self._triggers(state)
            for one in stage.steps:
                self._announce(one.text)
                self._perform(state, one)
                build.say(f" ---> {drafts.short(state.draft.image_id)}\n")
        finally:
            self.tips[-1] = state.draft
        if state.draft.image_id:
            build.output.aux(state.draft.image_id)
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
        base = self._word(origin.base)
        if not base:
            raise invalid(f"base name ({origin.base}) should not be blank")
        platform = self._word(origin.platform) or self._build.request.platform
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
        if 0 <= index < len(build.stages):
            return build.stages[index]
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
