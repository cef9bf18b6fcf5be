"""The page cache that a cold way begins without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchmark import cache
from benchmark.errors import WayFailedError

if TYPE_CHECKING:
    from pathlib import Path


def test_everything_is_dropped(tmp_path: Path) -> None:
    """Pages, and the kernel's knowledge of folders and files."""
    told = tmp_path / "drop_caches"
    cache.drop(told)
    assert told.read_text(encoding="ascii") == "3\n"


def test_a_machine_that_drops_nothing_is_told_in_words(tmp_path: Path) -> None:
    """So the row fails, and is not measured warm under a cold name."""
    with pytest.raises(WayFailedError, match="cannot be dropped on this machine: No such file"):
        cache.drop(tmp_path / "none" / "drop_caches")


def test_a_little_of_the_data_may_be_left() -> None:
    """The server that runs has read some of it again."""
    cache.need_dropped(" 4096 1000000\n    0     500\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("950000 1000000\n0 500\n", "950,000 of 1,000,500 bytes are still in it"),
        ("", "fincore does not tell"),
    ],
)
def test_what_is_still_cached_is_no_cold_start(text: str, words: str) -> None:
    """A kernel that takes the word and drops nothing is found out; so is one that nobody can ask."""
    with pytest.raises(WayFailedError, match=words):
        cache.need_dropped(text)
