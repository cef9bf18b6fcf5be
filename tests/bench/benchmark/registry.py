"""The registry of ways."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmark.results import Outcome
    from benchmark.stand import Stand

    Measure = Callable[[Stand], Outcome]

COLD = "-cold"
"""Ends the name of a way that begins with the page cache dropped."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """A way that is measured.

    Attributes:
        name: Its name in results and on the command line.
        label: What it is, for the reader.
        measure: Brings the recipient there and says how long it took.
        flavors: Of which servers.
        recipients: How many hosts it needs beside the donor.
        is_slow: Whether it is left out of the later rounds, unless all are asked for.
        has_cold: Whether it is measured with the page cache dropped as well, when asked for.
        is_cold: Whether the page cache is dropped before.
        needs_store: Whether it needs a host with a repository.
    """

    name: str
    label: str
    measure: Measure
    flavors: tuple[str, ...]
    recipients: int = 1
    is_slow: bool = False
    has_cold: bool = False
    is_cold: bool = False
    needs_store: bool = False


WAYS: dict[str, Way] = {}


def way(
    name: str,
    label: str,
    *,
    flavors: tuple[str, ...] = ("mariadb", "mysql"),
    recipients: int = 1,
    is_slow: bool = False,
    has_cold: bool = False,
    needs_store: bool = False,
) -> Callable[[Measure], Measure]:
    """Register a function as a way.

    Args:
        name: Of the way.
        label: What it is, for the reader.
        flavors: Of which servers.
        recipients: How many hosts it needs beside the donor.
        is_slow: Whether it is left out of the later rounds.
        has_cold: Whether it is measured with the page cache dropped as well.
        needs_store: Whether it needs a host with a repository.
    """

    def register(function: Measure) -> Measure:
        WAYS[name] = Way(
            name=name,
            label=label,
            measure=function,
            flavors=flavors,
            recipients=recipients,
            is_slow=is_slow,
            has_cold=has_cold,
            needs_store=needs_store,
        )
        return function

    return register


def list_names() -> list[str]:
    """Return the names of all ways, those with the page cache dropped last."""
    return [*WAYS, *(f"{found.name}{COLD}" for found in WAYS.values() if found.has_cold)]


def choose_ways(flavor: str, names: tuple[str, ...] = (), *, cold: bool | None = None) -> list[Way]:
    """Return the ways of a flavor, in the order in which they are registered; the cold ones last.

    Args:
        flavor: Kind of the servers.
        names: Which; all if none is named.
        cold: Whether each comes with the page cache dropped as well; None for what is named, and
            both where nothing is.
    """
    wanted = set(names or WAYS)
    if cold or (cold is None and not names):
        wanted |= {f"{name}{COLD}" for name in wanted}
    warm = [found for found in WAYS.values() if flavor in found.flavors]
    dropped = [] if cold is False else [_make_cold(found) for found in warm if found.has_cold]
    return [found for found in (*warm, *dropped) if found.name in wanted]


def _make_cold(found: Way) -> Way:
    """Return the same way with the page cache dropped, which takes long in all."""
    return dataclasses.replace(
        found,
        name=f"{found.name}{COLD}",
        label=f"{found.label}, page cache dropped",
        is_slow=True,
        is_cold=True,
    )
