"""The results as tables, for the screen and as Markdown, and as a JSON document. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from benchmark.results import STEP, unit_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmark.figures import Judgement
    from benchmark.results import Results, Spread

MAIN = {"transfer": "transfer", "replicating": "to replicating", "verified": "own keys, verified"}
"""Measures that are columns of the first table, with their heads."""
NOTHING = "-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table, wherever it is shown.

    Attributes:
        title: Above it.
        head: Names of the columns.
        rows: As many texts each as there are columns.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """All that is told of a benchmark.

    Attributes:
        machine: What it ran on.
        settings: What was asked for.
        labels: What each way is.
        results: What was measured.
        judgements: Of the figures to reach.
    """

    machine: Mapping[str, str]
    settings: Mapping[str, str]
    labels: Mapping[str, str]
    results: Results
    judgements: Sequence[Judgement]


def make_sheets(report: Report) -> list[Sheet]:
    """Return the tables that have something in them."""
    sheets = [
        Sheet(
            title="Measured on",
            head=("what", "which"),
            rows=tuple({**report.machine, **report.settings}.items()),
        ),
        _make_main(report),
        _make_phases(report),
        _make_steps(report),
        _make_figures(report.judgements),
        Sheet(
            title="Failed",
            head=("way", "round", "words"),
            rows=tuple(
                (sample.way, str(sample.round), " ".join(sample.failure.split()))
                for sample in report.results.list_failures()
            ),
        ),
    ]
    return [sheet for sheet in sheets if sheet.rows]


def _make_main(report: Report) -> Sheet:
    results = report.results
    rows = []
    for way in results.list_ways():
        cells = [format_spread(results.read_spread(way, measure)) for measure in MAIN]
        if set(cells) != {NOTHING} or results.count_rounds(way) == 0:
            rounds = str(results.count_rounds(way)) if results.count_rounds(way) else "failed"
            rows.append((report.labels.get(way, way), rounds, *cells))
    return Sheet(
        title="Seconds, median (least to most)",
        head=("way", "rounds", *MAIN.values()),
        rows=tuple(rows),
    )


def _make_phases(report: Report) -> Sheet:
    return Sheet(
        title="Phases and costs, median (least to most)",
        head=("way", "measure", "value", "rounds"),
        rows=tuple(
            (report.labels.get(way, way), measure, shown, str(spread.count))
            for way, measure, spread in _list_spreads(report.results)
            if measure not in MAIN and not measure.startswith(STEP)
            for shown in [f"{format_spread(spread)} {unit_of(measure)}".strip()]
        ),
    )


def _make_steps(report: Report) -> Sheet:
    results = report.results
    steps = [name for _, name, _ in _list_spreads(results) if name.startswith(STEP)]
    ways = [way for way in results.list_ways() if set(results.list_measures(way)) & set(steps)]
    return Sheet(
        title="Steps, seconds, median (least to most)",
        head=("step", *(report.labels.get(way, way) for way in ways)),
        rows=tuple(
            (
                step.removeprefix(STEP),
                *(format_spread(results.read_spread(way, step)) for way in ways),
            )
            for step in dict.fromkeys(steps)
        ),
    )


def _make_figures(judgements: Sequence[Judgement]) -> Sheet:
    words = {True: "yes", False: "no", None: "not measured"}
    return Sheet(
        title="Figures to reach",
        head=("figure", "at most", "limit", "measured", "reached"),
        rows=tuple(
            (
                one.figure.name,
                one.figure.rule,
                format_amount(one.limit, one.figure.unit),
                format_amount(one.measured, one.figure.unit),
                words[one.is_reached],
            )
            for one in judgements
        ),
    )


def _list_spreads(results: Results) -> Iterator[tuple[str, str, Spread]]:
    for way in results.list_ways():
        for measure in results.list_measures(way):
            spread = results.read_spread(way, measure)
            if spread:
                yield way, measure, spread


def format_number(value: float) -> str:
    """Return a number with as many digits as are worth reading."""
    if value >= 10_000:
        return f"{value:,.0f}"
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def format_amount(value: float | None, unit: str) -> str:
    """Return a number with its unit; a dash if there is none."""
    return NOTHING if value is None else f"{format_number(value)} {unit}".strip()


def format_spread(spread: Spread | None) -> str:
    """Return the median, and the range where there were several; a dash if there is none."""
    if spread is None:
        return NOTHING
    median = format_number(spread.median)
    if spread.count == 1:
        return median
    return f"{median} ({format_number(spread.least)} to {format_number(spread.most)})"


def make_table(sheet: Sheet) -> Table:
    """Return a table for the screen."""
    table = Table(title=sheet.title, title_justify="left", title_style="bold")
    for name in sheet.head:
        table.add_column(name, overflow="fold")
    for row in sheet.rows:
        table.add_row(*map(escape, row))
    return table


def format_markdown(sheets: Sequence[Sheet]) -> str:
    """Return the tables as Markdown, with headings fit to stand below a page's title."""
    return "\n".join(_format_sheet(sheet) for sheet in sheets)


def _format_sheet(sheet: Sheet) -> str:
    lines = [
        f"## {sheet.title}",
        "",
        _format_row(sheet.head),
        _format_row(["---"] * len(sheet.head)),
    ]
    lines += [_format_row(row) for row in sheet.rows]
    return "\n".join(lines) + "\n"


def _format_row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def make_document(report: Report) -> dict[str, Any]:
    """Return everything for a program to read."""
    return {
        "machine": dict(report.machine),
        "settings": dict(report.settings),
        "ways": dict(report.labels),
        "samples": [dataclasses.asdict(sample) for sample in report.results.samples],
        "summary": report.results.summarize(),
        "figures": [
            {
                "figure": one.figure.name,
                "rule": one.figure.rule,
                "unit": one.figure.unit,
                "limit": one.limit,
                "measured": one.measured,
                "reached": one.is_reached,
            }
            for one in report.judgements
        ],
    }
