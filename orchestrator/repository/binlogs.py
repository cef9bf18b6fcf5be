"""Archives of a host's binary logs: how they follow each other, and what a moment or GTID needs. Pure.

An archive is a set of kind ``binlogs``. It holds the logs that were closed since the one before it,
and says in its coordinates which log comes next and with which GTID state that begins; so a gap
shows between two archives, whatever their names say.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from orchestrator.errors import PreconditionError, VerificationError
from orchestrator.repository import chains, names
from orchestrator.repository.manifest import BINLOGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.models import Coordinates
    from orchestrator.repository.manifest import ArchivedLog, Manifest

LATEST: Final = "latest"
"""As far as the archives go."""
_MARIADB_GTID: Final = re.compile(r"[0-9]{1,10}-[0-9]{1,10}-[0-9]{1,20}")
_DATE: Final = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]")
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MYSQL_GTID: Final = re.compile(rf"{_UUID}:[1-9][0-9]{{0,18}}")
_NUMBERED: Final = re.compile(r"(.+\.)([0-9]{6,10})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """Up to where a host's data is to be brought back.

    Attributes:
        text: As it is written down.
        moment: The last moment whose transactions are wanted; None for the others.
        gtid: The last transaction that is wanted; empty for the others.
    """

    text: str
    moment: datetime | None = None
    gtid: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """Binary logs that are in no archive.

    Attributes:
        after: The archive that ends before it.
        before: The archive that begins behind it.
        log: The log that is missing first.
    """

    after: str
    before: str
    log: str

    @property
    def shown(self) -> str:
        """For a reader."""
        return f"binary log {self.log} is in no archive: {self.before} does not go on from {self.after}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """From a set to a target.

    Attributes:
        archives: Those that are needed, in order.
        first: Binary log that the set's coordinates name.
        last: Binary log in which the target is.
    """

    archives: tuple[Manifest, ...]
    first: str
    last: str


def parse_target(text: str) -> Target:
    """Return the target that a text names.

    Args:
        text: ``latest``, a GTID of either flavor, or a moment in ISO 8601 with its time zone.

    Raises:
        ValueError: It is none.
    """
    if text == LATEST:
        return Target(text=text)
    if _DATE.fullmatch(text):  # which is a GTID as well, of a domain that nobody has
        raise ValueError("a moment has its time and zone as well, such as 2026-01-31T23:59:59Z")
    if _MARIADB_GTID.fullmatch(text) or _MYSQL_GTID.fullmatch(text.lower()):
        return Target(text=text.lower(), gtid=text.lower())
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or len(text) < len("2026-01-01T00:00"):
        raise ValueError(
            "is latest, a GTID such as 0-1-42, or a moment such as 2026-01-31T23:59:59Z"
        )
    if moment.tzinfo is None:
        raise ValueError("a moment says its time zone, such as Z or +01:00")
    moment = moment.astimezone(UTC).replace(microsecond=0)
    return Target(text=moment.isoformat().replace("+00:00", "Z"), moment=moment)


def has_gtid(state: str, gtid: str) -> bool:
    """Return whether a GTID state includes a transaction.

    Args:
        state: Of MariaDB the last GTID of each domain and server; of MySQL a set of intervals.
        gtid: Of one transaction, of the same flavor.
    """
    state = re.sub(r"\s", "", state).strip("[]").lower()
    if _MARIADB_GTID.fullmatch(gtid):
        domain, _, number = gtid.split("-")
        return any(
            each.split("-")[0] == domain and int(each.split("-")[2]) >= int(number)
            for each in state.split(",")
            if _MARIADB_GTID.fullmatch(each)
        )
    source, _, number = gtid.rpartition(":")
    for each in state.split(","):
        uuid, *intervals = each.split(":")
        bounds = (interval.partition("-") for interval in intervals if interval[:1].isdigit())
        if uuid == source and any(
            int(low) <= int(number) <= int(high or low) for low, _, high in bounds
        ):
            return True
    return False


def name_next(log: str) -> str:
    """Return the name of the binary log that a server begins after another.

    Raises:
        VerificationError: A server does not name its logs like that.
    """
    found = _NUMBERED.fullmatch(log)
    if not found:
        raise VerificationError(f"no name of a binary log: {log[:80]!r}")
    return f"{found[1]}{int(found[2]) + 1:0{len(found[2])}}"


def sort_archives(manifests: Iterable[Manifest], host: str) -> tuple[Manifest, ...]:
    """Return the archives of a host, the oldest first; each is there once."""
    found = {each.backup_id: each for each in manifests if each.kind == BINLOGS}
    mine = (each for each in found.values() if each.host == host)
    return tuple(sorted(mine, key=lambda each: (each.ended, each.backup_id)))


def find_gaps(archives: Sequence[Manifest]) -> tuple[Gap, ...]:
    """Return the gaps between archives of one host, the oldest first."""
    return tuple(
        Gap(after=one.backup_id, before=other.backup_id, log=_need_next(one).file)
        for one, other in itertools.pairwise(archives)
        if not goes_on(_need_next(one), other.binlogs[0])
    )


def goes_on(end: Coordinates, log: ArchivedLog) -> bool:
    """Return whether a binary log is the one that an archive says comes next.

    A server whose logs were reset begins again with names that it had before; the GTID state with
    which a log begins tells them apart.
    """
    return (end.file, end.gtid) == (log.name, log.gtid_before)


def find_way(base: Manifest, archives: Sequence[Manifest], target: Target) -> Way:
    """Return what is replayed on top of a set to come to a target.

    Args:
        base: The set.
        archives: Of its host, the oldest first.
        target: Where to.

    Raises:
        PreconditionError: The target lies before the set or behind the archives, or binary logs
            between them are missing; it says which.
    """
    at = base.coordinates
    if at is None or not at.file:
        raise PreconditionError(
            f"{base.backup_id} tells no place in a binary log, so nothing can be replayed on it",
            hint="take another set, or leave --at out",
        )
    if _is_before(base, target):
        raise PreconditionError(
            f"{target.text} lies before the end of {base.backup_id}, which is {base.ended_at}",
            hint="name an earlier set, or latest, which finds one by itself",
        )
    needed = _find_chain(base, at, archives)
    logs = [(each, log) for each in needed for log in each.binlogs]
    start = next(index for index, (_, log) in enumerate(logs) if log.name == at.file)
    logs = logs[start:]
    stop = _find_stop(needed[-1], [log for _, log in logs], target)
    chosen = {each.backup_id: each for each, _ in logs[: stop + 1]}
    return Way(archives=tuple(chosen.values()), first=at.file, last=logs[stop][1].name)


def choose_base(manifests: Mapping[str, Manifest], host: str, target: Target) -> Manifest | None:
    """Return a host's newest set that ended before a target, and whose chain is whole.

    Args:
        manifests: Of the sets that can be restored, by name.
        host: The host that they are of.
        target: Where to.
    """
    found = [
        each
        for each in manifests.values()
        if each.host == host
        and each.has_data
        and chains.is_whole(each.backup_id, manifests)
        and not _is_before(each, target)
    ]
    return max(found, key=lambda each: (each.ended, each.backup_id), default=None)


def _is_before(base: Manifest, target: Target) -> bool:
    if target.moment:
        return target.moment < base.ended.replace(microsecond=0)
    return bool(target.gtid and base.coordinates and has_gtid(base.coordinates.gtid, target.gtid))


def _find_chain(
    base: Manifest, at: Coordinates, archives: Sequence[Manifest]
) -> tuple[Manifest, ...]:
    """Return the archives from the one with the set's own binary log on, as far as there is no gap."""
    # It was closed after the backup had begun; one of that name before is of before a reset.
    began = names.parse_moment(base.began_at).replace(microsecond=0)
    later = [each for each in archives if each.ended >= began]
    for index, each in enumerate(later):
        if any(log.name == at.file for log in each.binlogs):
            later = later[index:]
            break
    else:
        raise PreconditionError(
            f"binary log {at.file}, in which {base.backup_id} ended, is in no archive of "
            f"{base.host}",
            hint=f"`xbvault binlogs archive {base.host}` stores it, if that host still has it",
        )
    for one, other in itertools.pairwise(later):
        if not goes_on(_need_next(one), other.binlogs[0]):
            return tuple(later[: later.index(one) + 1])
    return tuple(later)


def _find_stop(newest: Manifest, logs: Sequence[ArchivedLog], target: Target) -> int:
    """Return the number of the binary log in which the target is."""
    end = _need_next(newest)
    if target.gtid:
        states = [*(log.gtid_before for log in logs[1:]), end.gtid]
        for number, state in enumerate(states):
            if has_gtid(state, target.gtid):
                return number
        raise PreconditionError(
            f"transaction {target.gtid} is in no archive of {newest.host}: they go to "
            f"{end.gtid or 'no GTID'}, {newest.ended_at}",
            hint=f"is it one of {newest.host}? `xbvault binlogs list {newest.host}` shows what there is",
        )
    if target.moment is None:
        return len(logs) - 1
    if target.moment > newest.ended:
        raise PreconditionError(
            f"{target.text} lies behind the archives of {newest.host}, which go to "
            f"{newest.ended_at}; binary log {end.file} is in none",
            hint=f"`xbvault binlogs archive {newest.host}` if that host still has it; else take an "
            "earlier moment",
        )
    begun = [n for n, log in enumerate(logs) if names.parse_moment(log.began_at) <= target.moment]
    return max(begun, default=0)


def _need_next(archive: Manifest) -> Coordinates:
    if archive.coordinates is None:
        raise VerificationError(f"{archive.backup_id} does not say which binary log comes next")
    return archive.coordinates
