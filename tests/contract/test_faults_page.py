"""The page of the faults is about the nemeses that are there, and no others."""

from __future__ import annotations

import re

import nemeses
import pytest
from clone_lab import REPOSITORY
from nemesis import NEMESES
from table import KILLED

nemeses.load()
PAGE = (REPOSITORY / "docs/reference/faults.md").read_text(encoding="utf-8")


def read_section(name: str) -> str:
    """Return a nemesis's part of the page."""
    return PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", [n for n, found in NEMESES.items() if "mariadb" in found.flavors])
def test_every_nemesis_is_on_the_page(name: str) -> None:
    """Its words and all its moments are, so `make fault` was run since it came."""
    section = read_section(name)
    assert NEMESES[name].what in section
    for moment in NEMESES[name].moments:
        assert re.search(rf"\b{moment.phase}\b", section), moment.phase


def test_nothing_else_is_on_the_page() -> None:
    """A nemesis that is no more has no section."""
    assert set(re.findall(r"^## ([a-z-]+)$", PAGE, re.MULTILINE)) <= {*KILLED, *NEMESES}


def test_a_sample_of_each_kind_is_in_the_daily_tests() -> None:
    """The sample has nemeses of several rooms."""
    rooms = {found.room for found in NEMESES.values() if found.sample}
    assert len(rooms) > 3
