"""The page of the backup set has what the code has."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.models import Coordinates
from orchestrator.repository import manifest, names, retention, sets

PAGE = (Path(__file__).parents[2] / "docs/reference/backup-set.md").read_text("utf-8")
_ROWS = re.compile(r"((?:^\|.*\n)+)", re.MULTILINE)
TABLES = [re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) for table in _ROWS.findall(PAGE)]


def fields(cls: Any) -> list[str]:
    """Return the names of a dataclass's fields."""
    return [field.name for field in dataclasses.fields(cls)]


@pytest.mark.parametrize(
    "listed",
    [
        fields(manifest.Manifest),
        fields(manifest.StoredFile),
        fields(manifest.TableChecksum),
        [state.value for state in sets.State],
        fields(retention.Policy),
    ],
    ids=["manifest", "file", "checksum", "state", "policy"],
)
def test_the_page_has_every_name_in_its_order(listed: list[str]) -> None:
    """One line for each field, state and rule, and no other."""
    assert listed in TABLES


def test_the_page_says_what_is_fixed() -> None:
    """Format and version, names of files, and the bound of size."""
    assert f"This is format version {manifest.FORMAT_VERSION}." in PAGE
    row = next(line for line in PAGE.splitlines() if line.startswith("| `coordinates` |"))
    shown = [
        manifest.FORMAT,
        manifest.FULL,
        manifest.INCREMENTAL,
        names.MANIFEST,
        names.NEW_MANIFEST,
        names.EXPIRED_MANIFEST,
        names.name_part(1),
        *manifest.FLAVORS,
    ]
    assert [word for word in shown if f"`{word}`" not in PAGE] == []
    assert all(f"`{name}`" in row for name in fields(Coordinates))
    assert f"above {manifest.LARGEST_BYTES >> 20} MiB" in PAGE


def test_the_page_says_which_states_can_be_restored() -> None:
    """Those, and no others."""
    good = [f"`{state.value}`" for state in sets.State if state.is_restorable]
    assert f"Only {' and '.join(good)} can be restored." in PAGE
