"""Which ways are measured in which round, and in which order."""

from __future__ import annotations

import pytest
from benchmark import schedule

ITEMS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("number", "expected"), [(1, "abc"), (2, "cba"), (3, "bca"), (4, "bac"), (5, "cab"), (6, "acb")]
)
def test_no_way_follows_the_same_one_each_time(number: int, expected: str) -> None:
    """A round that goes backwards stands between two that begin with others."""
    assert "".join(schedule.take_turns(ITEMS, number)) == expected


def test_nothing_takes_no_turn() -> None:
    """No way, no order."""
    assert schedule.take_turns([], 3) == []


@pytest.mark.parametrize(
    ("slow_rounds", "expected"), [(0, ["ac", "ca", "ca"]), (1, ["abc", "ca", "ca"])]
)
def test_the_slow_are_measured_in_the_first_rounds_only(
    slow_rounds: int, expected: list[str]
) -> None:
    """The others take turns among themselves in the later ones."""
    orders = [
        schedule.order_round(ITEMS, n, is_slow=lambda item: item == "b", slow_rounds=slow_rounds)
        for n in (1, 2, 3)
    ]
    assert ["".join(order) for order in orders] == expected
