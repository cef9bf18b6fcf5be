"""Which key versions nobody needs any more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.steps.forget import unused_versions

RANGE = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(
    lambda pair: {"low": min(pair), "high": max(pair), "first_new": 0}
)


@pytest.mark.parametrize(
    ("alive", "first_needed", "ranges", "unused"),
    [
        ([1, 2, 3, 4], 3, [], (1, 2)),
        ([4, 2, 3, 1], 3, [], (1, 2)),
        ([3, 4], 3, [], ()),
        ([], 3, [], ()),
        ([1, 2, 3, 4, 5, 6], 5, [(2, 3)], (1, 4)),
        ([1, 2, 3, 4, 5, 6], 5, [(1, 1), (3, 4)], (2,)),
        ([1, 2, 3, 4, 5, 6], 5, [(1, 6)], ()),
        ([1, 2], 1, [], ()),
        ([1, 2, 3], 4, [(1, 0)], (1, 2, 3)),  # a datadir set aside that held nothing
    ],
)
def test_by_example(
    alive: list[int], first_needed: int, ranges: list[tuple[int, int]], unused: tuple[int, ...]
) -> None:
    """Older than the datadir in place needs, and in no range of one set aside."""
    needed = [{"low": low, "high": high} for low, high in ranges]
    assert unused_versions(alive, first_needed=first_needed, ranges=needed) == unused


@given(st.sets(st.integers(1, 40)), st.integers(1, 40), st.lists(RANGE, max_size=4))
def test_nothing_that_is_needed_is_ever_given_up(
    alive: set[int], first_needed: int, ranges: list[dict[str, int]]
) -> None:
    """Every version is either needed by somebody or unused, and never both."""
    unused = unused_versions(list(alive), first_needed=first_needed, ranges=ranges)
    needed = {
        version
        for version in alive
        if version >= first_needed or any(r["low"] <= version <= r["high"] for r in ranges)
    }
    assert set(unused) == alive - needed
    assert list(unused) == sorted(unused)
