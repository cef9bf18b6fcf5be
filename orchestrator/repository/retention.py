"""Which backup sets are kept, and which expire. Pure.

Counts for days, weeks, months and years are those of the field: of each of the newest periods that
have a set at all, the newest set is kept. Periods are those of UTC, weeks those of ISO 8601, so
that no clock that is set forward or back makes a day without a set, or one with two. Each rule
looks at all sets, whatever another one keeps; so a higher count never lets a set go that a lower
one kept.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC
from typing import TYPE_CHECKING, Final

from orchestrator.errors import ConfigError
from orchestrator.repository import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from orchestrator.repository.sets import SetReport

Reasons = dict[str, list[str]]
"""Why a set is kept, by its name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """How many sets of each host are kept.

    Attributes:
        last: The newest ones, whenever they were taken.
        daily: The newest of a day, of as many days.
        weekly: The newest of a week.
        monthly: The newest of a month.
        yearly: The newest of a year.
        minimum: The newest full ones: ways back that do not depend on each other. At least 1.
    """

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    minimum: int = 1

    def __post_init__(self) -> None:
        if min(self.last, self.daily, self.weekly, self.monthly, self.yearly) < 0:
            raise ValueError("a count of sets is not negative")
        if self.minimum < 1:
            raise ValueError("the last good set of a host is always kept: minimum is 1 or more")

    @property
    def is_empty(self) -> bool:
        """Whether it asks for nothing, which nobody can have meant."""
        counts = (self.last, self.daily, self.weekly, self.monthly, self.yearly)
        return not any(counts) and self.minimum == 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A set that is kept or expires.

    Attributes:
        backup_id: Its name.
        host: The host that it is of.
        ended: The moment whose state it has, of any time zone; it is kept in UTC.
        is_good: Whether it can be restored, as far as is known.
        base: The set that it builds on; empty of a full one.
        has_data: Whether it has a server's data, and not only binary logs.
        began: When it was begun, of any time zone; None for when it ended.
    """

    backup_id: str
    host: str
    ended: datetime
    is_good: bool = True
    base: str = ""
    has_data: bool = True
    began: datetime | None = None

    def __post_init__(self) -> None:
        if self.ended.tzinfo is None:
            raise ValueError("a moment says its time zone")
        # Two moments of one zone are compared by its clock, which an hour of autumn shows twice.
        object.__setattr__(self, "ended", self.ended.astimezone(UTC))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of a set.

    Attributes:
        backup_id: Its name.
        host: The host that it is of.
        keep: Whether it stays.
        reasons: Why; at least one.
    """

    backup_id: str
    host: str
    keep: bool
    reasons: tuple[str, ...]


_FORMS: Final[Mapping[str, str]] = {
    "daily": "%Y-%m-%d",
    "weekly": "%G-W%V",
    "monthly": "%Y-%m",
    "yearly": "%Y",
}
"""How a period is written, by the rule; two sets of one period have the same text."""
_LOOK: Final = "it is not whole, but no older than all good sets that are kept: look at it"
_LOOK_ALONE: Final = "it is not whole, but there is no good set: look at it"


def list_candidates(reports: Iterable[SetReport]) -> tuple[Candidate, ...]:
    """Return the sets that a retention may decide on: those whose manifest was proved to be ours.

    A folder without one may be a backup under way, and nothing that others wrote decides that keys
    are destroyed.
    """
    return tuple(
        Candidate(
            backup_id=report.name,
            host=report.manifest.host,
            ended=report.manifest.ended,
            is_good=report.state.is_restorable,
            base=report.manifest.base_backup_id,
            has_data=report.manifest.has_data,
            began=names.parse_moment(report.manifest.began_at),
        )
        for report in reports
        if report.manifest and report.manifest.backup_id == report.name
    )


def plan_expiry(candidates: Iterable[Candidate], policy: Policy) -> tuple[Decision, ...]:
    """Decide what becomes of each set.

    Archives of binary logs stay as long as a backup does that they can be replayed on.

    The newest good set of a host stays, whatever is asked; so does every set that one that is kept
    builds on. A set that is not good counts for no rule, and goes only when it is older than every
    good one that a rule keeps: what is newer may be all that there is of its time.

    Args:
        candidates: All sets of the repository that are ours.
        policy: How many to keep.

    Returns:
        A decision for each, by host, the newest first.

    Raises:
        ConfigError: The policy asks for nothing.
    """
    if policy.is_empty:
        raise ConfigError(
            "no retention is set: nothing would be kept but the last good set of each host",
            hint="set one of last, daily, weekly, monthly and yearly above 0, or minimum above 1",
        )
    by_host: dict[str, dict[str, Candidate]] = {}
    for candidate in sorted(
        candidates, key=lambda each: (each.ended, each.backup_id), reverse=True
    ):
        by_host.setdefault(candidate.host, {})[candidate.backup_id] = candidate
    return tuple(
        decision for host in sorted(by_host) for decision in _decide(by_host[host], policy)
    )


def _decide(everything: Mapping[str, Candidate], policy: Policy) -> list[Decision]:
    sets = {name: each for name, each in everything.items() if each.has_data}
    decided = _decide_backups(sets, policy)
    # The binary log in which a backup ended may have been archived before the backup had ended.
    going_back = (sets[each.backup_id] for each in decided if each.keep)
    kept = [min(each.ended, each.began or each.ended) for each in going_back]
    oldest = min(kept, default=None)
    for name, each in everything.items():
        if each.has_data:
            continue
        keep = oldest is None or each.ended >= oldest
        reason = "no backup that is kept is as old" if not keep else "binary logs since a backup"
        if oldest is None:
            reason = "binary logs, and no backup that is kept"
        decided.append(Decision(backup_id=name, host=each.host, keep=keep, reasons=(reason,)))
    place = {name: number for number, name in enumerate(everything)}
    return sorted(decided, key=lambda each: place[each.backup_id])


def _decide_backups(sets: Mapping[str, Candidate], policy: Policy) -> list[Decision]:
    good = [each for each in sets.values() if _is_good(each, sets)]
    reasons: Reasons = {}
    for name, reason in _apply_rules(good, policy):
        reasons.setdefault(name, []).append(reason)
    oldest = min((sets[name].ended for name in reasons), default=None)
    for name in sets.keys() - {each.backup_id for each in good}:
        if oldest is None or sets[name].ended >= oldest:
            reasons[name] = [_LOOK if oldest else _LOOK_ALONE]
    _keep_bases(sets, reasons)
    return [
        Decision(
            backup_id=name,
            host=each.host,
            keep=name in reasons,
            reasons=tuple(reasons.get(name, ("no rule keeps it",))),
        )
        for name, each in sets.items()
    ]


def _is_good(candidate: Candidate, sets: Mapping[str, Candidate]) -> bool:
    """Return whether a set and all that it builds on is there and good."""
    seen = set()
    each: Candidate | None = candidate
    while each and each.is_good and each.backup_id not in seen:
        if not each.base:
            return True
        seen.add(each.backup_id)
        each = sets.get(each.base)
    return False


def _apply_rules(good: Sequence[Candidate], policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield the name of each set that a rule keeps, with the reason, once for each rule."""
    for each in good[:1]:
        yield each.backup_id, f"the last good set of {each.host}"
    for number, each in enumerate(good[: policy.last], 1):
        yield each.backup_id, f"last: {number} of {policy.last}"
    for rule, form in _FORMS.items():
        count: int = getattr(policy, rule)
        newest: dict[str, Candidate] = {}
        for each in good:
            newest.setdefault(each.ended.strftime(form), each)
        for number, (period, each) in enumerate(list(newest.items())[:count], 1):
            yield each.backup_id, f"{rule}: {period}, {number} of {count}"
    full = [each for each in good if not each.base]
    for number, each in enumerate(full[: policy.minimum], 1):
        yield each.backup_id, f"minimum: full set {number} of {policy.minimum}"


def _keep_bases(sets: Mapping[str, Candidate], reasons: Reasons) -> None:
    waiting = [sets[name] for name in sets if name in reasons]
    for each in waiting:  # grows as it goes
        if each.base in sets:
            if each.base not in reasons:
                waiting.append(sets[each.base])
            reasons.setdefault(each.base, []).append(f"{each.backup_id} builds on it")
