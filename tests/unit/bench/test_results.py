"""Medians and spreads of what was measured."""

from __future__ import annotations

from benchmark.results import Results, Sample, Spread, make_spread, unit_of

RESULTS = Results(
    samples=(
        Sample(way="ours", round=1, values={"replicating": 9.0, "memory": 100.0}),
        Sample(way="bare", round=1, values={"replicating": 4.0}, note="2 threads"),
        Sample(way="bare", round=2, values={"replicating": 3.0}, note="4 threads"),
        Sample(way="ours", round=2, failure="exit status 4"),
        Sample(way="ours", round=3, values={"replicating": 7.0, "memory": 90.0}),
    )
)


def test_the_median_of_an_even_number_lies_between_two() -> None:
    """With least and most beside it."""
    assert make_spread([4.0, 1.0, 2.0, 9.0]) == Spread(median=3.0, least=1.0, most=9.0, count=4)


def test_without_values_there_is_no_spread() -> None:
    """So no zero is mistaken for a time."""
    assert make_spread([]) is None
    assert RESULTS.read_spread("bare", "memory") is None
    assert RESULTS.read_spread("other", "replicating") is None


def test_a_round_that_failed_counts_nowhere() -> None:
    """It is no time of zero, and is listed by itself."""
    spread = RESULTS.read_spread("ours", "replicating")
    assert spread == Spread(median=8.0, least=7.0, most=9.0, count=2)
    assert RESULTS.count_rounds("ours") == 2
    assert [(s.way, s.round) for s in RESULTS.list_failures()] == [("ours", 2)]


def test_the_best_is_told_with_its_settings() -> None:
    """The sample with the least, for the note that it has."""
    best = RESULTS.find_least("bare", "replicating")
    assert best is not None
    assert best.note == "4 threads"
    assert RESULTS.find_least("bare", "memory") is None


def test_ways_and_measures_keep_their_order() -> None:
    """As they were first tried and told."""
    assert RESULTS.list_ways() == ["ours", "bare"]
    assert RESULTS.list_measures("ours") == ["replicating", "memory"]


def test_the_summary_has_every_measure_with_its_unit() -> None:
    """One entry a way and measure."""
    found = [
        (one["way"], one["measure"], one["unit"], one["median"]) for one in RESULTS.summarize()
    ]
    assert found == [
        ("ours", "replicating", "s", 8.0),
        ("ours", "memory", "MB", 95.0),
        ("bare", "replicating", "s", 3.5),
    ]
    assert unit_of("step stream-backup") == "s"
