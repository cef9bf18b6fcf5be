"""How long a user waits for the command line to say anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.errors import WayFailedError
from benchmark.results import Sample

if TYPE_CHECKING:
    from benchmark.stand import Stand

NAME = "start-up"
ROUNDS = 10
_COMMANDS = {"version": ("--version",), "runs-list": ("runs", "list")}


def measure(stand: Stand) -> list[Sample]:
    """Call the cheapest commands some times."""
    return [
        Sample(
            way=NAME,
            round=number,
            values={name: _time(stand, words) for name, words in _COMMANDS.items()},
        )
        for number in range(1, ROUNDS + 1)
    ]


def _time(stand: Stand, words: tuple[str, ...]) -> float:
    done = stand.xbvault(*words)
    if done.status != 0:
        raise WayFailedError(f"xbvault {' '.join(words)}: {done.stderr.strip()[-300:]}")
    return done.seconds
