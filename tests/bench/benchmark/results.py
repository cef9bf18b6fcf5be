"""What was measured: samples, their medians and spreads. Pure."""

from __future__ import annotations

import dataclasses
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SECONDS = "s"
STEP = "step "
"""Begins the name of a measure that is the time of a step of the product."""
_UNITS = {
    "memory": "MB",
    "cpu": "%",
    "processors": "%",
    "bytes": "bytes",
    "donor-bytes": "bytes",
    "donor-bytes-a-clone": "bytes",
    "donor-server-bytes": "bytes",
    "milliseconds-a-step": "ms",
    "threads": "",
    "iops": "",
}
"""Of the measures that are not seconds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a way measured of itself.

    Attributes:
        values: By measure.
        note: With which settings, where the way tries several.
    """

    values: Mapping[str, float]
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One way in one round.

    Attributes:
        way: Its name.
        round: From 1 on.
        values: What was measured, by measure; empty if it failed.
        note: With which settings.
        failure: The words of what went wrong; empty if nothing did.
    """

    way: str
    round: int
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""
    failure: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """What several rounds gave.

    Attributes:
        median: The middle one.
        least: The smallest.
        most: The largest.
        count: Of how many.
    """

    median: float
    least: float
    most: float
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """All samples of a benchmark.

    Attributes:
        samples: In the order in which they were taken.
    """

    samples: tuple[Sample, ...]

    def list_ways(self) -> list[str]:
        """Return the ways in the order in which they were first tried."""
        return list(dict.fromkeys(sample.way for sample in self.samples))

    def list_measures(self, way: str) -> list[str]:
        """Return what was measured of a way, in its order."""
        return list(dict.fromkeys(name for s in self._of(way) for name in s.values))

    def list_failures(self) -> list[Sample]:
        """Return the samples that failed."""
        return [sample for sample in self.samples if sample.failure]

    def count_rounds(self, way: str) -> int:
        """Return in how many rounds a way worked."""
        return sum(1 for sample in self._of(way) if not sample.failure)

    def list_values(self, way: str, measure: str) -> list[float]:
        """Return a measure of a way, a number a round."""
        return [s.values[measure] for s in self._of(way) if measure in s.values]

    def read_spread(self, way: str, measure: str) -> Spread | None:
        """Return the spread of a measure; None if there is no sample of it."""
        return make_spread(self.list_values(way, measure))

    def find_least(self, way: str, measure: str) -> Sample | None:
        """Return the sample in which a measure was smallest; None if there is none."""
        found = [sample for sample in self._of(way) if measure in sample.values]
        return min(found, key=lambda sample: sample.values[measure], default=None)

    def summarize(self) -> list[dict[str, Any]]:
        """Return the spread of every measure of every way, as a document."""
        return [
            {
                "way": way,
                "measure": measure,
                "unit": unit_of(measure),
                **dataclasses.asdict(spread),
            }
            for way in self.list_ways()
            for measure in self.list_measures(way)
            if (spread := self.read_spread(way, measure))
        ]

    def _of(self, way: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.way == way]


def make_spread(values: Iterable[float]) -> Spread | None:
    """Return median, least and most; None if there are no values."""
    found = list(values)
    if not found:
        return None
    return Spread(
        median=statistics.median(found), least=min(found), most=max(found), count=len(found)
    )


def unit_of(measure: str) -> str:
    """Return the unit of a measure."""
    return _UNITS.get(measure, SECONDS)
