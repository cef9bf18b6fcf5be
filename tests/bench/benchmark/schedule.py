"""Which ways are measured in which round, and in which order. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def rotate(items: Sequence[T], number: int) -> list[T]:
    """Return the items begun with another one each round.

    What the machine does meanwhile, and what one way leaves in its caches for the next, then falls
    on a different way each time.

    Args:
        items: In the order of the first round.
        number: Of the round, from 1 on.
    """
    if not items:
        return []
    shift = (number - 1) % len(items)
    return [*items[shift:], *items[:shift]]


def order_round(
    items: Sequence[T], number: int, *, is_slow: Callable[[T], bool], slow_rounds: int
) -> list[T]:
    """Return what is measured in a round.

    Args:
        items: All of them.
        number: Of the round, from 1 on.
        is_slow: Whether one takes so long that it is not measured in every round.
        slow_rounds: In how many rounds, the first ones, the slow are measured as well.
    """
    wanted = [item for item in items if number <= slow_rounds or not is_slow(item)]
    return rotate(wanted, number)
