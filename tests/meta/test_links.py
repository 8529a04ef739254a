"""Links in the documentation lead to files and headings that exist; nobody's network is asked."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
# Code is not read: `[a](b)` may stand in it.
_FENCE: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE: Final = re.compile(r"`[^`\n]*`|^ {4}.*$", re.MULTILINE)
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
# Files that a text names in code: `docs/x.md`, `tests/meta/y.py` ...
_NAMED: Final = re.compile(
    r"`((?:agent|machine|drivers|tests|docs|bench|cloud-init)/[\w./-]+\.(?:py|md|sh|json))`"
)


def pages() -> list[Path]:
    """Every Markdown page that is in the repository."""
    found = subprocess.run(
        ["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in found.stdout.split("\0") if name]


def broken(page: Path) -> Iterator[str]:
    """Each link of a page that leads nowhere, with what is missing."""
    prose = _CODE.sub("", _FENCE.sub("", page.read_text()))
    for target in _LINK.findall(prose):
        if "://" in target or target.startswith("mailto:"):
            continue
        place, _, heading = target.partition("#")
        aim = page.parent / place if place else page
        if not aim.exists():
            yield f"{target}: no such file"
        elif heading and heading not in anchors(aim.read_text()):
            yield f"{target}: no such heading"


def anchors(text: str) -> set[str]:
    """The headings' names in links, as GitHub makes them."""
    names = set()
    for title in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        names.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
    return names


def unknown(page: Path) -> Iterator[str]:
    """Each file that a page names by its path and that does not exist."""
    for name in _NAMED.findall(page.read_text()):
        if not ((ROOT / name).exists() or (page.parent / name).exists()):
            yield name


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    assert [*broken(page), *unknown(page)] == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `x`, two\n[a](page.md#one-x-two) [b](#two) [c](gone.md) [d](https://x.invalid/)\n"
        "`[e](gone.md)`\n\n    [f](gone.md)\n\n```\n[g](gone.md)\n```\nsee `drivers/gone.py`\n"
    )
    assert list(broken(page)) == ["#two: no such heading", "gone.md: no such file"]
    assert list(unknown(page)) == ["drivers/gone.py"]
