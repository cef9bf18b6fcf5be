"""The results as tables, as Markdown and as a document."""

from __future__ import annotations

import io
import json

import pytest
from benchmark.figures import judge
from benchmark.report import (
    Report,
    Sheet,
    format_amount,
    format_markdown,
    format_number,
    format_spread,
    make_document,
    make_sheets,
    make_table,
)
from benchmark.results import Results, Sample, Spread
from rich.console import Console

RESULTS = Results(
    samples=(
        Sample(
            way="ours",
            round=1,
            values={"replicating": 9.0, "verified": 20.0, "memory": 160.0, "step swap": 0.5},
        ),
        Sample(way="ours", round=2, values={"replicating": 8.0, "verified": 22.0}),
        Sample(way="bare", round=1, failure="no such\nthing | at all"),
        Sample(way="start-up", round=1, values={"version": 0.2}),
    )
)
REPORT = Report(
    machine={"processor": "2 x some"},
    settings={"rounds": "2"},
    labels={"ours": "the product", "bare": "by hand"},
    results=RESULTS,
    judgements=judge(RESULTS),
)


def sheet(title: str) -> Sheet:
    """Return the sheet whose title begins so."""
    found = [one for one in make_sheets(REPORT) if one.title.startswith(title)]
    assert len(found) == 1
    return found[0]


def test_the_main_table_has_a_row_for_each_way_to_a_replica() -> None:
    """One that failed has a row that says so; what is none of the columns has its own table."""
    assert sheet("Seconds").rows == (
        ("the product", "2", "-", "8.50 (8.00 to 9.00)", "21.0 (20.0 to 22.0)"),
        ("by hand", "failed", "-", "-", "-"),
    )
    assert sheet("Phases").rows == (
        ("the product", "memory", "160 MB", "1"),
        ("start-up", "version", "0.200 s", "1"),
    )
    assert sheet("Steps").head == ("step", "the product")
    assert sheet("Steps").rows == (("swap", "0.500"),)


def test_a_figure_that_is_not_reached_says_no() -> None:
    """Beside its limit and what was measured; one whose way failed cannot be told."""
    rows = {row[0]: row[2:] for row in sheet("Figures").rows}
    assert rows["the orchestrator's peak memory"] == ("150 MB", "160 MB", "no")
    assert rows["`xbvault --version`"] == ("0.250 s", "0.200 s", "yes")
    assert rows["to replicating, against the bare tools by hand"] == ("-", "8.50 s", "not measured")


def test_what_failed_is_told_in_its_own_words() -> None:
    """On one line."""
    assert sheet("Failed").rows == (("bare", "1", "no such thing | at all"),)


def test_a_table_with_nothing_in_it_is_left_out() -> None:
    """No failure, no table of failures."""
    empty = Report(
        machine={"a": "b"}, settings={}, labels={}, results=Results(samples=()), judgements=[]
    )
    assert [one.title for one in make_sheets(empty)] == ["Measured on"]


def test_markdown_is_a_heading_and_a_table_each() -> None:
    """With as many cells in each row as there are columns, whatever is in them."""
    text = format_markdown([Sheet(title="Failed", head=("a", "b"), rows=(("x | y", "z"),))])
    assert text == "## Failed\n\n| a | b |\n| --- | --- |\n| x \\| y | z |\n"


def test_a_table_shows_its_cells_as_they_are() -> None:
    """Brackets are no markup."""
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(make_table(Sheet(title="t", head=("a",), rows=(("[bold]x[/bold]",),))))
    assert "[bold]x[/bold]" in console.export_text()


def test_the_document_is_json_with_all_of_it() -> None:
    """Samples, medians and verdicts, for a program."""
    document = json.loads(json.dumps(make_document(REPORT)))
    assert document["machine"] == {"processor": "2 x some"}
    assert len(document["samples"]) == 4
    assert document["samples"][2]["failure"].startswith("no such")
    assert {"way", "measure", "unit", "median", "least", "most", "count"} == set(
        document["summary"][0]
    )
    reached = {one["figure"]: one["reached"] for one in document["figures"]}
    assert reached["the orchestrator's peak memory"] is False


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.01234, "0.012"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (2_000_000_123.0, "2,000,000,123"),
    ],
)
def test_a_number_has_the_digits_that_are_worth_reading(value: float, expected: str) -> None:
    """Three or so; a count of bytes has all of them."""
    assert format_number(value) == expected


def test_what_is_not_there_is_a_dash() -> None:
    """In any cell."""
    assert format_amount(None, "s") == format_spread(None) == "-"
    assert format_spread(Spread(median=1.0, least=1.0, most=1.0, count=1)) == "1.00"
