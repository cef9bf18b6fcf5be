from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_sets import make_folder, make_set

from orchestrator.errors import ConfigError
from orchestrator.repository import retention, sets
from orchestrator.repository.retention import Candidate, Policy
from orchestrator.repository.sets import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.repository.manifest import Manifest
    from orchestrator.repository.retention import Decision

MOMENT = datetime(2026, 11, 21, 21, 5, tzinfo=UTC)
RULES = ("last", "daily", "weekly", "monthly", "yearly", "minimum")

unhurried = settings(deadline=None, max_examples=200)  # a shared machine pauses now and then


def make(name: str, when: datetime | str, **fields: Any) -> Candidate:
    """Return a candidate of db1, unless told otherwise."""
    ended = datetime.fromisoformat(f"{when}T12:00:00Z") if isinstance(when, str) else when
    known: dict[str, Any] = {"backup_id": name, "host": "db1", "ended": ended}
    return Candidate(**(known | fields))


def kept(candidates: Iterable[Candidate], **policy: int) -> list[str]:
    """Return the names of the sets that are kept, the newest first within a host."""
    return names(retention.plan_expiry(candidates, Policy(**policy)))


def began_of(manifest: Manifest) -> datetime:
    """Return when a set was begun."""
    return datetime.fromisoformat(manifest.began_at)


def names(decisions: Iterable[Decision]) -> list[str]:
    """Return the names of those that are kept."""
    return [decision.backup_id for decision in decisions if decision.keep]


def reasons(candidates: Iterable[Candidate], name: str, **policy: int) -> tuple[str, ...]:
    """Return why a set is kept or expires."""
    found = retention.plan_expiry(candidates, Policy(**policy))
    return next(decision.reasons for decision in found if decision.backup_id == name)


DAYS = [make(f"d{number:02}", MOMENT - timedelta(days=number)) for number in range(40)]


def test_the_last_are_kept() -> None:
    """The newest, whatever order they come in."""
    assert kept(DAYS, last=3) == kept(reversed(DAYS), last=3) == ["d00", "d01", "d02"]


def test_of_a_period_the_newest_set_is_kept() -> None:
    """Of each of as many periods as were asked for."""
    hours = [make(f"h{number:02}", MOMENT - timedelta(hours=number)) for number in range(60)]
    assert kept(hours, daily=2) == ["h00", "h22"]
    assert kept(DAYS, weekly=3) == ["d00", "d06", "d13"]  # 2026-11-21 is a Saturday
    assert kept(DAYS, monthly=2) == ["d00", "d21"]
    assert kept(DAYS, yearly=5) == ["d00"]


def test_periods_without_a_set_do_not_count() -> None:
    """A host that was off for a year keeps as many sets as one that was not."""
    sparse = [make("a", "2026-11-21"), make("b", "2025-03-01"), make("c", "2019-07-04")]
    assert kept(sparse, daily=3) == ["a", "b", "c"]


def test_rules_do_not_look_at_each_other() -> None:
    """A set that is kept by one counts for the other as well, and both say so."""
    assert kept(DAYS, last=2, daily=2) == ["d00", "d01"]
    assert reasons(DAYS, "d00", last=2, daily=7, weekly=4, monthly=1, yearly=1) == (
        "the last good set of db1",
        "last: 1 of 2",
        "daily: 2026-11-21, 1 of 7",
        "weekly: 2026-W47, 1 of 4",
        "monthly: 2026-11, 1 of 1",
        "yearly: 2026, 1 of 1",
        "minimum: full set 1 of 1",
    )
    assert reasons(DAYS, "d09", last=2) == ("no rule keeps it",)


def test_weeks_at_the_turn_of_the_year_are_those_of_iso_8601() -> None:
    """The last days of December can be of the first week, the first of January of the last."""
    turn = [
        make("monday", "2024-12-30"),
        make("new-year", "2025-01-01"),
        make("sunday", "2025-01-05"),
        make("before", "2024-12-29"),
        make("leap", "2021-01-03"),  # 2020-W53
        make("next", "2021-01-04"),  # 2021-W01
    ]
    assert kept(turn, weekly=9) == ["sunday", "before", "next", "leap"]
    assert kept(turn, yearly=9) == ["sunday", "monday", "next"]
    assert "weekly: 2025-W01, 1 of 9" in reasons(turn, "sunday", weekly=9)
    assert "weekly: 2020-W53, 4 of 9" in reasons(turn, "leap", weekly=9)


def test_days_are_those_of_utc() -> None:
    """Where a zone has a day of 23 or 25 hours, or is far away, nothing is different."""
    paris = ZoneInfo("Europe/Paris")
    night = [
        make("before", datetime(2026, 10, 25, 2, 30, tzinfo=paris, fold=0)),
        make("after", datetime(2026, 10, 25, 2, 30, tzinfo=paris, fold=1)),
        make("eve", datetime(2026, 10, 25, 1, 30, tzinfo=paris)),  # still the 24th in UTC
    ]
    assert kept(night, daily=9) == ["after", "eve"]
    assert [each.ended.hour for each in night] == [0, 1, 23]


def test_the_minimum_is_of_full_sets() -> None:
    """A chain of many increments is one way back; a minimum of two keeps the one before it."""
    chain = [
        make("old", "2026-11-01"),
        make("full", "2026-11-08"),
        *(
            make(f"i{n}", f"2026-11-{9 + n:02}", base=f"i{n - 1}" if n else "full")
            for n in range(6)
        ),
    ]
    assert kept(chain, last=3) == ["i5", "i4", "i3", "i2", "i1", "i0", "full"]
    assert kept(chain, last=3, minimum=2)[-2:] == ["full", "old"]


def test_a_set_that_a_kept_one_builds_on_is_kept() -> None:
    """Along the whole chain, with the reason."""
    chain = [
        make("full", "2026-11-01"),
        make("i1", "2026-11-02", base="full"),
        make("i2", "2026-11-03", base="i1"),
        make("next", "2026-11-04"),
        make("gone", "2026-10-01"),
    ]
    assert kept(chain, last=2) == ["next", "i2", "i1", "full"]
    assert reasons(chain, "i1", last=2) == ("i2 builds on it",)
    assert reasons(chain, "full", last=2) == ("i1 builds on it",)


def test_what_is_not_good_counts_for_no_rule() -> None:
    """And goes only when it is older than every good set that a rule keeps."""
    mixed = [
        make("bad-new", "2026-11-05", is_good=False),
        make("good", "2026-11-04"),
        make("bad-between", "2026-11-03", is_good=False),
        make("good-old", "2026-11-02"),
        make("bad-old", "2026-11-01", is_good=False),
    ]
    assert kept(mixed, last=1) == ["bad-new", "good"]
    assert kept(mixed, last=2) == ["bad-new", "good", "bad-between", "good-old"]
    assert "not whole" in reasons(mixed, "bad-new", last=1)[0]
    twin = make("bad-twin", "2026-11-04", is_good=False)
    assert kept([*mixed, twin], last=1) == ["bad-new", "good", "bad-twin"]
    only_bad = [each for each in mixed if not each.is_good]
    assert kept(only_bad, last=1) == ["bad-new", "bad-between", "bad-old"]
    assert "no good set" in reasons(only_bad, "bad-old", last=1)[0]


def test_an_increment_without_its_base_is_not_good() -> None:
    """Whatever was said of it: the newest good set is the one that can be restored."""
    found = [
        make("full", "2026-11-01"),
        make("lost", "2026-11-02", base="never-there"),
        make("on-lost", "2026-11-03", base="lost"),
        make("round", "2026-11-04", base="trip"),
        make("trip", "2026-11-05", base="round"),
    ]
    assert "the last good set of db1" in reasons(found, "full", last=1)
    assert kept(found, last=1) == ["trip", "round", "on-lost", "lost", "full"]


def test_hosts_are_counted_by_themselves() -> None:
    """One that has no new set any more keeps its last."""
    both = [*DAYS[:3], make("x", "2020-01-01", host="db0"), make("y", "2019-01-01", host="db0")]
    assert kept(both, last=1) == ["x", "d00"]


def test_a_retention_that_asks_for_nothing_is_refused() -> None:
    """It would leave one set of each host, which nobody can have meant."""
    with pytest.raises(ConfigError, match="no retention is set") as caught:
        retention.plan_expiry(DAYS, Policy())
    assert "last" in caught.value.hint
    assert kept(DAYS, minimum=2) == ["d00", "d01"]


@pytest.mark.parametrize("wrong", [*({rule: -1} for rule in RULES), {"minimum": 0}])
def test_a_count_is_not_negative(wrong: dict[str, int]) -> None:
    """And at least one full set is always kept."""
    with pytest.raises(ValueError, match=r"is not negative|1 or more"):
        Policy(**wrong)


def test_a_moment_without_a_zone_is_refused() -> None:
    """It would be that of the machine which looks at it."""
    with pytest.raises(ValueError, match="time zone"):
        make("a", datetime(2026, 11, 21))  # noqa: DTZ001 - that is the point


def test_only_what_was_proved_to_be_ours_is_a_candidate() -> None:
    """Not a backup under way, nor what others put there; a set with a fault is one, but not good."""
    full = make_set(1)
    first = make_set(2, base=full)
    whole = [make_folder(full), make_folder(first)]
    cut = dataclasses.replace(whole[1], entries=whole[1].entries[1:])
    others = [
        Folder(name="lost+found"),
        Folder(name=make_set(7).backup_id),
        dataclasses.replace(make_folder(make_set(8)), manifest=None, refusal="its MAC"),
        dataclasses.replace(make_folder(make_set(8)), name=make_set(9).backup_id),
    ]
    reports = sets.judge_repository([whole[0], cut, *others])
    assert retention.list_candidates(reports) == (
        Candidate(backup_id=full.backup_id, host="db1", ended=full.ended, began=began_of(full)),
        Candidate(
            backup_id=first.backup_id,
            host="db1",
            ended=first.ended,
            began=began_of(first),
            is_good=False,
            base=full.backup_id,
        ),
    )


@st.composite
def repositories(draw: st.DrawFn) -> list[Candidate]:
    """Return sets of a few hosts, some of them chains, some not good, some without their base."""
    made: list[Candidate] = []
    begin = draw(st.sampled_from(["2024-12-20", "2020-02-20", "2026-10-20"]))
    steps = st.integers(0, 400) | st.integers(0, 30)
    for number in range(draw(st.integers(0, 14))):
        host = draw(st.sampled_from(["db1", "db2"]))
        same = [each.backup_id for each in made if each.host == host]
        base = draw(st.sampled_from(["", "", "lost", *same]))
        ended = datetime.fromisoformat(f"{begin}T22:00:00+00:00") + timedelta(
            hours=6 * draw(steps), minutes=draw(st.integers(0, 59))
        )
        made.append(
            make(
                f"s{number:02}",
                ended,
                host=host,
                base=base,
                is_good=draw(st.integers(0, 5)) > 0,
            )
        )
    return made


policies = st.fixed_dictionaries(
    {rule: st.integers(1 if rule in ("last", "minimum") else 0, 4) for rule in RULES}
)


def find_good(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return what can be restored, written again in the plainest way."""
    good: dict[str, Candidate] = {}
    while True:
        more = {
            each.backup_id: each
            for each in candidates
            if each.is_good and (not each.base or each.base in good) and each.backup_id not in good
        }
        if not more:
            return list(good.values())
        good |= more


@unhurried
@given(candidates=repositories(), policy=policies)
def test_the_newest_good_set_of_each_host_is_never_lost(
    candidates: list[Candidate], policy: dict[str, int]
) -> None:
    """It stays, and can still be restored from what stays."""
    decisions = retention.plan_expiry(candidates, Policy(**policy))
    remaining = [each for each in candidates if each.backup_id in names(decisions)]
    good = {each.backup_id for each in find_good(remaining)}
    for host in ("db1", "db2"):
        ours = [each for each in find_good(candidates) if each.host == host]
        if ours:
            assert max(ours, key=lambda each: (each.ended, each.backup_id)).backup_id in good
    before = {each.backup_id for each in find_good(candidates)}
    assert good == before & set(names(decisions))


@unhurried
@given(candidates=repositories(), policy=policies, rule=st.sampled_from(RULES))
def test_to_keep_more_never_lets_more_go(
    candidates: list[Candidate], policy: dict[str, int], rule: str
) -> None:
    """Whichever count is raised."""
    fewer = set(kept(candidates, **policy))
    assert fewer <= set(kept(candidates, **(policy | {rule: policy[rule] + 1})))


@unhurried
@given(candidates=repositories(), policy=policies)
def test_a_second_expiry_finds_nothing(candidates: list[Candidate], policy: dict[str, int]) -> None:
    """What was kept once is kept again."""
    remaining = [each for each in candidates if each.backup_id in kept(candidates, **policy)]
    assert sorted(kept(remaining, **policy)) == sorted(each.backup_id for each in remaining)


@unhurried
@given(candidates=repositories(), policy=policies, order=st.randoms(use_true_random=False))
def test_the_order_of_the_listing_decides_nothing(
    candidates: list[Candidate], policy: dict[str, int], order: Any
) -> None:
    """Every set has one decision with a reason, the same each time."""
    shuffled = list(candidates)
    order.shuffle(shuffled)
    decisions = retention.plan_expiry(shuffled, Policy(**policy))
    assert decisions == retention.plan_expiry(candidates, Policy(**policy))
    assert sorted(d.backup_id for d in decisions) == sorted(c.backup_id for c in candidates)
    assert all(decision.reasons for decision in decisions)


@unhurried
@given(
    candidates=repositories(),
    policy=policies,
    zone=st.sampled_from(["Pacific/Kiritimati", "Europe/Paris", "America/St_Johns"]),
)
def test_the_time_zone_of_a_moment_decides_nothing(
    candidates: list[Candidate], policy: dict[str, int], zone: str
) -> None:
    """Nor does a clock that is set forward or back there."""
    there = [
        dataclasses.replace(each, ended=each.ended.astimezone(ZoneInfo(zone)))
        for each in candidates
    ]
    assert kept(there, **policy) == kept(candidates, **policy)


def make_log(name: str, when: datetime | str) -> Candidate:
    """Return an archive of binary logs."""
    return make(name, when, has_data=False)


def test_archives_stay_with_the_oldest_backup_that_is_kept() -> None:
    """They count for no rule, and go when no backup is left that they can be replayed on."""
    backups = [make("b3", "2026-11-23"), make("b2", "2026-11-22"), make("b1", "2026-11-21")]
    logs = [make_log(f"l{day}", f"2026-11-{day}") for day in (24, 23, 22, 21, 20)]
    assert kept([*backups, *logs], last=2) == ["l24", "l23", "b3", "l22", "b2"]
    assert kept([*logs], last=1) == ["l24", "l23", "l22", "l21", "l20"]
    told = reasons([*backups, *logs], "l20", last=2)
    assert told == ("no backup that is kept is as old",)


def test_a_log_that_was_archived_during_a_backup_stays_with_it() -> None:
    """The backup ended in it, and its archive before the backup."""
    backup = make("b", MOMENT, began=MOMENT - timedelta(hours=2))
    logs = [
        make_log("in", MOMENT - timedelta(hours=1)),
        make_log("out", MOMENT - timedelta(hours=3)),
    ]
    assert kept([backup, *logs], last=1) == ["b", "in"]
