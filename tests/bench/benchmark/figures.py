"""The figures that the product has to reach, judged by what the same run measured. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmark.results import Results

HAND_FACTOR = 1.05
HAND_SECONDS = 4.0
"""What checks and keys may cost more than the same tools by hand."""
LOGICAL_FACTOR = 0.15
TRANSFER_FACTOR = 1.25
RE_ENCRYPTION_FACTOR = 1.3
SEVERAL_FACTOR = 0.7
READING_FACTOR = 1.05
"""As long as it runs, the tool reads the end of the redo log again and again; with three, longer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure to reach: a measure of the product, and how its limit is made.

    Attributes:
        name: In words.
        way: Of which way the measure is.
        measure: Which.
        unit: Of measure and limit.
        against: Ways and measures of which the largest median counts; none for a fixed limit.
        takes_least: Whether the smallest sample counts instead of the median.
        factor: What that is multiplied with.
        plus: What is added; with nothing to compare with, the limit itself.
    """

    name: str
    way: str
    measure: str
    unit: str = "s"
    against: tuple[tuple[str, str], ...] = ()
    takes_least: bool = False
    factor: float = 1.0
    plus: float = 0.0

    @property
    def rule(self) -> str:
        """How the limit is made, for the reader."""
        if not self.against:
            return f"{self.plus:g} {self.unit}"
        names = [way if way == measure else f"{way} {measure}" for way, measure in self.against]
        text = f"max({', '.join(names)})" if len(names) > 1 else names[0]
        if self.takes_least:
            text = f"the best {text}"
        times = "" if self.factor == 1 else f"{self.factor:g} \N{MULTIPLICATION SIGN} "
        return f"{times}{text}" + (f" + {self.plus:g} {self.unit}" if self.plus else "")


STORED_FACTOR = 1.15
"""What checksums, parts and the manifest of a stored backup may cost."""

FIGURES = (
    Figure(
        name="storing a backup, against the same pipe by hand",
        way="backup",
        measure="transfer",
        against=(("bare-backup", "transfer"),),
        factor=STORED_FACTOR,
    ),
    Figure(
        name="fetching a stored backup, against the same pipe by hand",
        way="restore",
        measure="transfer",
        against=(("bare-restore", "transfer"),),
        factor=STORED_FACTOR,
    ),
    Figure(
        name="to replicating, against the bare tools by hand",
        way="ours",
        measure="replicating",
        against=(("bare", "replicating"),),
        factor=HAND_FACTOR,
        plus=HAND_SECONDS,
    ),
    Figure(
        name="the same, against the seeds' recipe in the page cache",
        way="ours",
        measure="replicating",
        against=(("seeds", "replicating"),),
        plus=HAND_SECONDS,
    ),
    Figure(
        name="the same, against the seeds' recipe with the cache dropped",
        way="ours-cold",
        measure="replicating",
        against=(("seeds-cold", "replicating"),),
    ),
    Figure(
        name="the same, against a dump",
        way="ours",
        measure="replicating",
        against=(("dump", "replicating"),),
        factor=LOGICAL_FACTOR,
    ),
    Figure(
        name="the same, against mydumper and myloader",
        way="ours",
        measure="replicating",
        against=(("mydumper", "replicating"),),
        factor=LOGICAL_FACTOR,
    ),
    Figure(
        name="the same, against the SST way",
        way="ours",
        measure="replicating",
        against=(("sst", "replicating"),),
        plus=HAND_SECONDS,
    ),
    Figure(
        name="the transfer, against the slower of reading and the wire",
        way="ours",
        measure="transfer",
        against=(("limit-read", "transfer"), ("limit-wire", "transfer")),
        factor=TRANSFER_FACTOR,
    ),
    Figure(
        name="the re-encryption, against the best by hand",
        way="ours",
        measure="re-encryption",
        against=(("re-encryption", "re-encryption"),),
        takes_least=True,
        factor=RE_ENCRYPTION_FACTOR,
    ),
    Figure(
        name="three recipients at once, against one after the other",
        way="three-at-once",
        measure="verified",
        against=(("three-in-turn", "verified"),),
        factor=SEVERAL_FACTOR,
    ),
    Figure(
        name="what the backup tool reads for three at once, against one clone",
        way="three-at-once",
        measure="donor-bytes",
        unit="bytes",
        against=(("three-in-turn", "donor-bytes-a-clone"),),
        factor=READING_FACTOR,
    ),
    Figure(
        name="the orchestrator's peak memory", way="ours", measure="memory", unit="MB", plus=150
    ),
    Figure(name="the orchestrator's CPU", way="ours", measure="cpu", unit="%", plus=5),
    Figure(name="`xbvault --version`", way="start-up", measure="version", plus=0.25),
    Figure(name="`xbvault runs list`", way="start-up", measure="runs-list", plus=1.0),
    Figure(
        name="the engine, a step",
        way="engine",
        measure="milliseconds-a-step",
        unit="ms",
        plus=20,
    ),
)
"""What the project wants to reach."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """Whether a figure was reached.

    Attributes:
        figure: The figure.
        limit: The largest that is good; None where what it is made of failed.
        measured: The product's median; None where that failed.
    """

    figure: Figure
    limit: float | None
    measured: float | None

    @property
    def is_reached(self) -> bool | None:
        """Whether it was; None if that cannot be told."""
        if self.limit is None or self.measured is None:
            return None
        return self.measured <= self.limit


def judge(results: Results, figures: Sequence[Figure] = FIGURES) -> list[Judgement]:
    """Return the figures whose ways were all tried, each with its limit and what was measured."""
    tried = set(results.list_ways())
    return [
        Judgement(
            figure=figure,
            limit=_make_limit(results, figure),
            measured=_read_median(results, figure.way, figure.measure),
        )
        for figure in figures
        if tried.issuperset({figure.way, *(way for way, _ in figure.against)})
    ]


def _make_limit(results: Results, figure: Figure) -> float | None:
    if not figure.against:
        return figure.plus
    read = _read_least if figure.takes_least else _read_median
    found = [read(results, way, measure) for way, measure in figure.against]
    known = [value for value in found if value is not None]
    return max(known) * figure.factor + figure.plus if len(known) == len(found) else None


def _read_median(results: Results, way: str, measure: str) -> float | None:
    spread = results.read_spread(way, measure)
    return spread.median if spread else None


def _read_least(results: Results, way: str, measure: str) -> float | None:
    sample = results.find_least(way, measure)
    return sample.values[measure] if sample else None
