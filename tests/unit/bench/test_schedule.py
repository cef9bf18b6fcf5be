"""Which ways are measured in which round, and in which order."""

from __future__ import annotations

import pytest
from benchmark import schedule

ITEMS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("number", "expected"), [(1, "abc"), (2, "bca"), (3, "cab"), (4, "abc"), (5, "bca")]
)
def test_each_round_begins_with_the_next(number: int, expected: str) -> None:
    """After as many rounds as there are ways, each has stood at every place once."""
    assert "".join(schedule.rotate(ITEMS, number)) == expected


def test_nothing_can_be_rotated() -> None:
    """No way, no order."""
    assert schedule.rotate([], 3) == []


@pytest.mark.parametrize(
    ("slow_rounds", "expected"), [(0, ["ac", "ca", "ac"]), (1, ["abc", "ca", "ac"])]
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
