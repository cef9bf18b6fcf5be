"""The page's rows are what is decided, at both ends of each."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import compatibility
import pytest

from orchestrator.flavors import mysql_keyrings, mysql_versions
from orchestrator.flavors.versions import read_numbers

if TYPE_CHECKING:
    from compatibility import Row


@pytest.mark.parametrize("row", compatibility.SERVERS, ids=lambda row: row.shown)
def test_a_row_of_servers(row: Row) -> None:
    """Its tool fits the first and the last of its servers, and an older one does not fit the last."""
    for server in (row.first, row.last):
        assert mysql_versions.judge_tool(server, row.tool) == ""
    assert mysql_versions.judge_tool(row.last, row.refused)
    assert mysql_versions.choose_words(row.first)


def test_rows_leave_no_gap() -> None:
    """Each begins where the one before it ends."""
    order = [
        read_numbers(version) for row in compatibility.SERVERS for version in (row.first, row.last)
    ]
    assert order == sorted(order)
    assert order[0] == mysql_versions.OLDEST_SERVER
    for before, after in itertools.pairwise(compatibility.SERVERS):
        first, last = (read_numbers(v) for v in (after.first, before.last))
        assert first[:2] != last[:2] or first[2] == last[2] + 1


def test_every_table_has_a_row_for_everything() -> None:
    """Nothing that decides is left out of the page."""
    tables = compatibility.make_tables()
    assert all(f"`{kind.value}`" in tables["Keyrings"] for kind in mysql_keyrings.KeyringKind)
    assert all(one.name in tables["Defects of tools"] for one in mysql_versions.DEFECTS)
    words = [
        new
        for _, changes in mysql_versions.WORD_CHANGES
        for new in changes.values()
        if isinstance(new, str)
    ]
    assert all(f"| `{word}` |" in tables["Words of servers"] for word in words)
    assert tables["Words of servers"].count("\n") == len(words) + 2
