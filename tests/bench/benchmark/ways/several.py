"""Three recipients: at once, from one reading of the donor, and one after the other.

Both tell, beside the times, what was read on the donor and how busy the processors were: where these
were busy all the while, several at once can gain no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmark.costs import Costs
from benchmark.registry import way
from benchmark.results import STEP, Outcome
from benchmark.ways import ours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmark.stand import Stand

    Values = Mapping[str, float]

COUNT = 3
_SUMMED = ("verified", "transfer", "cpu-seconds", "bytes")
_ONCE = ("read", "compress")
"""Stages of a stream that serve all recipients together; each run tells of them."""
_OUTSIDE = f"{STEP}(between and after)"


@way("three-at-once", "`xbvault clone` to three at once", recipients=COUNT, is_slow=True)
def measure_at_once(stand: Stand) -> Outcome:
    """Clone to all of them with one command."""
    stand.start_clock()
    with Costs(stand) as costs:
        found = ours.clone(stand, *stand.recipients[:COUNT])
    values = combine_at_once([ours.read_values(found.done, shown) for shown in found.shown])
    return Outcome(values={**values, **add_stages(found.shown, _ONCE), **costs.values})


@way(
    "three-in-turn",
    "`xbvault clone` to three, one after the other",
    recipients=COUNT,
    is_slow=True,
)
def measure_in_turn(stand: Stand) -> Outcome:
    """Clone to each with a command of its own, when the one before has ended."""
    stand.start_clock()
    with Costs(stand) as costs:
        found = [ours.clone(stand, host) for host in stand.recipients[:COUNT]]
    values = combine_in_turn([ours.read_values(one.done, one.shown[0]) for one in found])
    each = costs.values["donor-bytes"] / COUNT
    stages = add_stages([shown for one in found for shown in one.shown])
    return Outcome(values={**values, **stages, **costs.values, "donor-bytes-a-clone": each})


def combine_at_once(runs: Sequence[Values]) -> dict[str, float]:
    """Return the measures of runs that one command has made.

    The times end with the last of them, and the steps are those of the run that ended last, so that
    they add up to the whole.
    """
    last = min(runs, key=lambda values: values[_OUTSIDE])
    return {
        "replicating": max(values["replicating"] for values in runs),
        "verified": last["verified"],
        "transfer": max(values["transfer"] for values in runs),
        "cpu-seconds": last["cpu-seconds"],
        "bytes": sum(values["bytes"] for values in runs),
        **{name: value for name, value in last.items() if name.startswith(STEP)},
    }


def combine_in_turn(runs: Sequence[Values]) -> dict[str, float]:
    """Return the measures of runs of which each has begun when the one before had ended.

    All are sums; that the last one replicates is what "to replicating" ends with.
    """
    summed = [name for name in runs[0] if name in _SUMMED or name.startswith(STEP)]
    return {
        "replicating": sum(v["verified"] for v in runs[:-1]) + runs[-1]["replicating"],
        **{name: sum(values.get(name, 0.0) for values in runs) for name in summed},
    }


def add_stages(shown: Sequence[Mapping[str, Any]], once: Sequence[str] = ()) -> dict[str, float]:
    """Return what the stages of the streams took of the processors, all runs together.

    Args:
        shown: What ``runs show --json`` says of the runs.
        once: Stages that the runs have in common, so that each tells of the same one.
    """
    stages: dict[str, float] = {}
    for run in shown:
        for stage, seconds in (run["transfer"] or {}).get("cpu_seconds", {}).items():
            before = stages.get(stage, 0.0)
            stages[stage] = max(before, seconds) if stage in once else before + seconds
    return {f"stream-cpu-{stage}": seconds for stage, seconds in stages.items()}
