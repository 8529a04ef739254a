"""Measures the source for the budgets: lengths, annotations, bans that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("machine", "drivers", "agent")
BANNED_NAMES = {"utils", "common", "helpers", "base", "manager", "misc", "util"}
BANNED_CALLS = {"os.system", "eval", "exec", "pickle.loads", "pickle.load", "yaml.load"}
BANNED_ATTRIBUTES = {"extractall", "AutoAddPolicy", "WarningPolicy"}


@dataclass
class Measures:
    """What the tree looks like; numbers are counts, lists name places."""

    longest_file: int = 0
    longest_function: int = 0
    functions: int = 0
    functions_over_50: int = 0
    files_over_500: list[str] = field(default_factory=list)
    broad_excepts: list[str] = field(default_factory=list)  # those that do not raise again
    waivers: int = 0
    any_signatures: int = 0
    bad_names: list[str] = field(default_factory=list)
    banned: list[str] = field(default_factory=list)


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def measure() -> Measures:
    found = Measures()
    for path in sources():
        _file(path, found)
    return found


def _file(path: Path, found: Measures) -> None:
    text = path.read_text()
    name = str(path.relative_to(ROOT))
    lines = text.count("\n")
    found.longest_file = max(found.longest_file, lines)
    if lines > 500:
        found.files_over_500.append(name)
    if path.stem in BANNED_NAMES:
        found.bad_names.append(name)
    found.waivers += len(re.findall(r"#\s*(?:noqa|type:\s*ignore)", text))
    for node in ast.walk(ast.parse(text)):
        _node(node, name, found)


def _node(node: ast.AST, name: str, found: Measures) -> None:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        found.functions += 1
        found.longest_function = max(found.longest_function, length)
        found.functions_over_50 += length > 50
        found.any_signatures += "dict[str, Any]" in ast.unparse(node.args)
    elif isinstance(node, ast.ClassDef):
        if node.name.endswith(("Manager", "Helper", "Util", "Utils")):
            found.bad_names.append(f"{name}: {node.name}")
    elif isinstance(node, ast.ExceptHandler):
        caught = ast.unparse(node.type) if node.type else "everything"
        again = any(isinstance(part, ast.Raise) and part.exc is None for part in node.body)
        if caught in {"Exception", "BaseException", "everything"} and not again:
            found.broad_excepts.append(f"{name}:{node.lineno}")
    elif isinstance(node, ast.Call):
        _call(node, name, found)
    elif isinstance(node, ast.Attribute) and node.attr in BANNED_ATTRIBUTES:
        found.banned.append(f"{name}:{node.lineno} {node.attr}")


def _call(node: ast.Call, name: str, found: Measures) -> None:
    called = ast.unparse(node.func)
    if called in BANNED_CALLS:
        found.banned.append(f"{name}:{node.lineno} {called}")
    for keyword in node.keywords:
        value = keyword.value
        shell = keyword.arg == "shell" and isinstance(value, ast.Constant) and value.value is True
        unverified = (
            keyword.arg == "verify" and isinstance(value, ast.Constant) and value.value is False
        )
        if shell or unverified:
            found.banned.append(f"{name}:{node.lineno} {keyword.arg}=")
