"""The specification's paths and field names (an extract), to hold our tables against."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

EXTRACT = Path(__file__).parents[3] / "golden" / "api" / "spec-v1.51.yaml"


@cache
def paths() -> dict[str, list[str]]:
    """Path template -> methods."""
    return _document()["paths"]


@cache
def definitions() -> dict[str, list[str]]:
    """Definition -> its fields' names, those of `allOf` first."""
    return _document()["definitions"]


def _document() -> dict[str, dict[str, list[str]]]:
    document: dict[str, dict[str, list[str]]] = yaml.safe_load(EXTRACT.read_text())
    return document
