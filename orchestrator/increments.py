"""Incremental backups: the set that a new one builds on, and all that a restore of one needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import catalogue, replays
from orchestrator.errors import PreconditionError, VerificationError
from orchestrator.models import BaseSet
from orchestrator.repository import chains
from orchestrator.repository.sets import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.catalogue import StoredSet
    from orchestrator.config import Config
    from orchestrator.repository.manifest import Manifest


def choose_base(config: Config, donor: str, repository: str, wanted: str = "") -> Manifest:
    """Return the set that a new incremental backup builds on.

    Args:
        config: The configuration.
        donor: Host that is backed up.
        repository: Where the backup goes; the set must be there.
        wanted: Name of a set; empty for the newest one whose chain is whole.

    Raises:
        PreconditionError: There is none, or its chain is not whole, or its keys were destroyed.
        RemoteError: The repository's host cannot be used.
        SecretError: Vault refuses.
    """
    sound = _list_sound(catalogue.list_sets(config, repository, donor))
    found = sound.get(wanted) if wanted else chains.find_newest_whole(donor, sound)
    if found is None or not (found.has_data and chains.is_whole(found.backup_id, sound)):
        what = f"{wanted} is no backup" if wanted else "there is no backup"
        raise PreconditionError(
            f"{what} of {donor} in {repository} that another one could build on",
            host=repository,
            hint=f"`xbvault backup {donor}` takes a full one; `xbvault backups list` shows what is there",
        )
    return found


def list_bases(
    listed: Iterable[StoredSet], repository: str, document: Manifest
) -> tuple[BaseSet, ...]:
    """Return the sets that one builds on, the full one first; none of a full one.

    Args:
        listed: Folders of repositories.
        repository: Where the set is; the others must be there, too.
        document: Its manifest.

    Raises:
        VerificationError: The chain is broken; it says between which sets.
    """
    if not document.base_backup_id:
        return ()
    there = {
        each.report.name: each.report.manifest
        for each in listed
        if each.repository == repository
        and each.report.manifest
        and each.report.state.is_restorable
    }
    chain = chains.list_chain(document.backup_id, {**there, document.backup_id: document})
    return tuple(
        BaseSet(
            backup_id=each.backup_id,
            parts=len(each.parts),
            stored_bytes=sum(part.bytes for part in each.parts),
            compress=each.compress,
            from_lsn=each.from_lsn,
            to_lsn=each.to_lsn,
        )
        for each in chain[:-1]
    )


def need_no_later(listed: Iterable[StoredSet], chosen: Manifest) -> None:
    """Refuse a newest set behind which another one stands whose chain is broken.

    Raises:
        VerificationError: One does; it says what is wrong with it, and what would be restored.
    """
    for each in listed:
        document = each.report.manifest
        if (
            document
            and document.host == chosen.host
            and each.report.state is State.CHAIN_BROKEN
            and document.ended > chosen.ended
        ):
            raise VerificationError(
                f"the newest backup of {chosen.host}, {document.backup_id}, cannot be restored: "
                f"{each.report.problems[0]}",
                host=each.repository,
                hint=f"--last-whole restores {chosen.backup_id}, of {chosen.ended_at}",
            )


def find_last_whole(listed: Sequence[StoredSet], stored: StoredSet) -> StoredSet:
    """Return the last set whose chain is whole, up to one of which that may not be so.

    Args:
        listed: Folders of repositories.
        stored: The one that was asked for.

    Raises:
        PreconditionError: There is none.
    """
    document = stored.report.manifest
    here = [each for each in listed if each.repository == stored.repository]
    sound = _list_sound(here)
    found = document and chains.find_newest_whole(document.host, sound, until=document.ended)
    if not found:
        raise PreconditionError(
            f"no set before {stored.report.name} can be restored",
            host=stored.repository,
            hint="`xbvault backups list` shows what is there",
        )
    return next(each for each in here if each.report.name == found.backup_id)


def _list_sound(listed: Iterable[StoredSet]) -> dict[str, Manifest]:
    return {each.backup_id: each for each in replays.list_sound(listed)}
