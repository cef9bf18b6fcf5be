"""The figures to reach, and whether they were."""

from __future__ import annotations

import pytest
from benchmark.figures import FIGURES, Figure, judge
from benchmark.results import Results, Sample

PLAIN = Figure(name="memory", way="ours", measure="memory", unit="MB", plus=150)
AGAINST_ONE = Figure(
    name="hand",
    way="ours",
    measure="replicating",
    against=(("bare", "replicating"),),
    factor=1.05,
    plus=4.0,
)
AGAINST_TWO = Figure(
    name="transfer",
    way="ours",
    measure="transfer",
    against=(("read", "transfer"), ("wire", "transfer")),
    factor=1.25,
)
AGAINST_BEST = Figure(
    name="re-encryption",
    way="ours",
    measure="re-encryption",
    against=(("hand", "re-encryption"),),
    takes_least=True,
    factor=1.3,
)


def take(way: str, measure: str, *values: float) -> list[Sample]:
    """Return a sample for each value."""
    return [Sample(way=way, round=n, values={measure: v}) for n, v in enumerate(values, 1)]


def judge_one(
    figure: Figure, *samples: list[Sample]
) -> tuple[float | None, float | None, bool | None]:
    """Return limit, what was measured, and the verdict of the only figure."""
    found = judge(Results(samples=tuple(s for part in samples for s in part)), [figure])
    assert len(found) == 1
    return found[0].limit, found[0].measured, found[0].is_reached


@pytest.mark.parametrize(("value", "reached"), [(149.9, True), (150.0, True), (150.1, False)])
def test_a_fixed_limit_is_reached_by_what_is_not_above_it(value: float, reached: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The limit itself is good."""
    assert judge_one(PLAIN, take("ours", "memory", value)) == (150.0, value, reached)


def test_a_limit_is_made_of_the_other_ways_median() -> None:
    """Times the factor, plus what is allowed on top."""
    ours, bare = take("ours", "replicating", 14.0), take("bare", "replicating", 30.0, 10.0, 9.0)
    assert judge_one(AGAINST_ONE, ours, bare) == (14.5, 14.0, True)


def test_of_two_limits_the_slower_counts() -> None:
    """A transfer cannot be faster than the slower of both."""
    limits = [*take("read", "transfer", 2.0), *take("wire", "transfer", 4.0)]
    assert judge_one(AGAINST_TWO, take("ours", "transfer", 5.1), limits) == (5.0, 5.1, False)


def test_the_best_by_hand_is_the_least_of_all_settings() -> None:
    """Not their median."""
    hand = take("hand", "re-encryption", 9.0, 2.0, 8.0)
    assert judge_one(AGAINST_BEST, take("ours", "re-encryption", 2.6), hand) == (2.6, 2.6, True)


def test_what_failed_cannot_be_judged() -> None:
    """Neither reached nor missed, and said so."""
    failed = [Sample(way="bare", round=1, failure="so bad")]
    assert judge_one(AGAINST_ONE, take("ours", "replicating", 1.0), failed) == (None, 1.0, None)
    no_wire = [*take("read", "transfer", 2.0), Sample(way="wire", round=1, failure="cut")]
    assert judge_one(AGAINST_TWO, take("ours", "transfer", 1.0), no_wire) == (None, 1.0, None)


def test_what_was_not_tried_is_not_listed() -> None:
    """A flavor without a way has no figure against it."""
    assert judge(Results(samples=tuple(take("ours", "replicating", 1.0))), [AGAINST_ONE]) == []


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (PLAIN, "150 MB"),
        (AGAINST_ONE, "1.05 \N{MULTIPLICATION SIGN} bare replicating + 4 s"),
        (AGAINST_TWO, "1.25 \N{MULTIPLICATION SIGN} max(read transfer, wire transfer)"),
        (AGAINST_BEST, "1.3 \N{MULTIPLICATION SIGN} the best hand re-encryption"),
    ],
)
def test_a_rule_says_how_its_limit_is_made(figure: Figure, expected: str) -> None:
    """In the names of ways and measures."""
    assert figure.rule == expected


def test_three_at_once_are_judged_by_three_in_turn_of_the_same_run() -> None:
    """Their time, and what the backup tool has read for one clone."""
    samples = [
        *take("three-at-once", "verified", 70.0),
        *take("three-in-turn", "verified", 100.0),
        *take("three-at-once", "donor-bytes", 1_060.0),
        *take("three-in-turn", "donor-bytes-a-clone", 1_000.0),
    ]
    found = judge(Results(samples=tuple(samples)))
    assert [(one.limit, one.is_reached) for one in found] == [(70.0, True), (1_050.0, False)]


def test_every_figure_has_a_name_of_its_own() -> None:
    """And so a row of its own."""
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)
