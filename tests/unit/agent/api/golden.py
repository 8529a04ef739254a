"""Golden JSON documents in tests/golden/api.  A missing file is written, and the test fails once;
to regenerate one, delete it."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "golden" / "api"


def check_golden(name: str, document: object) -> None:
    path = FOLDER / f"{name}.json"
    text = json.dumps(document, indent=1) + "\n"
    if not path.exists():
        path.write_text(text)
        raise AssertionError(f"{path.name} was missing and has been written: look at it")
    # The order of keys counts too: it is what `docker inspect` shows.
    assert text == path.read_text()
