"""Which ways are measured in which round, and in which order. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def take_turns(items: Sequence[T], number: int) -> list[T]:
    """Return the items, each second round backwards, and each two rounds begun with another one.

    What the machine does meanwhile, and what one way leaves in its caches and to its disk for the
    next, then falls on a different way each time: were they only begun with another one, each would
    still follow the same.

    Args:
        items: In the order of the first round.
        number: Of the round, from 1 on.
    """
    if not items:
        return []
    ordered = items if number % 2 else items[::-1]
    shift = (number - 1) // 2 % len(items)
    return [*ordered[shift:], *ordered[:shift]]


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
    return take_turns(wanted, number)
