"""What a restore to a moment or a transaction begins with, and what it replays on top of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import catalogue
from orchestrator.errors import PreconditionError
from orchestrator.models import LogSet, Replay, StoredLog
from orchestrator.repository import binlogs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.catalogue import StoredSet
    from orchestrator.repository.binlogs import Target
    from orchestrator.repository.manifest import Manifest


def list_sound(listed: Iterable[StoredSet]) -> Iterator[Manifest]:
    """Return the manifests of the sets that can be restored."""
    for each in listed:
        report = each.report
        if report.manifest and report.state.is_restorable and each.keys.state == catalogue.ACTIVE:
            yield report.manifest


def choose_set(
    listed: Sequence[StoredSet], host: str, repository: str, target: Target
) -> StoredSet | None:
    """Return a host's newest set that ended before a target, and lies beside its archives.

    Args:
        listed: Folders of repositories.
        host: The host.
        repository: Only in this one; empty for all.
        target: Where to.
    """
    usable = {
        each.report.manifest.backup_id: (each, each.report.manifest)
        for each in listed
        if each.report.manifest
        and each.report.state.is_restorable
        and each.keys.state == catalogue.ACTIVE
        and repository in ("", each.repository)
    }
    best = binlogs.choose_base({name: found for name, (_, found) in usable.items()}, host, target)
    return usable[best.backup_id][0] if best else None


def plan_replay(
    listed: Sequence[StoredSet], base: Manifest, repository: str, target: Target
) -> Replay:
    """Return what a restore replays on top of a set.

    Args:
        listed: Folders of repositories.
        base: The set.
        repository: Where it is; the archives must be there, too.
        target: Where to.

    Raises:
        PreconditionError: The target lies before the set or behind the archives, or binary logs
            between them are missing; it says which.
    """
    sound = list(list_sound(each for each in listed if each.repository == repository))
    way = binlogs.find_way(base, binlogs.sort_archives(sound, base.host), target)
    at = base.coordinates
    if at is None:  # find_way has refused that
        raise PreconditionError(f"{base.backup_id} tells no place in a binary log")
    return Replay(
        at=target.text,
        first=way.first,
        position=at.position,
        last=way.last,
        sets=tuple(
            LogSet(
                backup_id=each.backup_id,
                parts=len(each.parts),
                stored_bytes=sum(part.bytes for part in each.parts),
                compress=each.compress,
                logs=tuple(StoredLog(name=log.name, bytes=log.bytes) for log in each.binlogs),
            )
            for each in way.archives
        ),
    )
