"""Chains of backup sets: a full one, and incremental ones that build on each other. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from orchestrator.repository.manifest import Manifest

_HINT = "take a full backup; `latest` means the newest set whose chain is whole"


def list_chain(backup_id: str, manifests: Mapping[str, Manifest]) -> tuple[Manifest, ...]:
    """Return what a restore of a set needs: the full set first, the set itself last.

    Args:
        backup_id: The set.
        manifests: Of the sets that are sound, by name.

    Raises:
        VerificationError: The chain is broken; it says between which sets.
    """
    chain: list[Manifest] = []
    wanted, needed_by = backup_id, ""
    while True:
        found = manifests.get(wanted)
        if found is None:
            by = f", which {needed_by} builds on" if needed_by else ""
            raise VerificationError(f"no sound backup set {wanted}{by}", hint=_HINT)
        if found in chain:
            raise VerificationError(
                f"the chain of {backup_id} has no full set: it comes back to {wanted}", hint=_HINT
            )
        if chain:
            _check_link(found, chain[-1])
        chain.append(found)
        if not found.base_backup_id:
            return tuple(reversed(chain))
        wanted, needed_by = found.base_backup_id, wanted


def _check_link(base: Manifest, following: Manifest) -> None:
    between = f"{following.backup_id} does not follow {base.backup_id}"
    if (base.host, base.flavor) != (following.host, following.flavor):
        raise VerificationError(f"{between}: they are of two servers", hint=_HINT)
    if base.to_lsn != following.from_lsn:
        raise VerificationError(
            f"{between}: one ends at LSN {base.to_lsn}, the other begins at {following.from_lsn}",
            hint=_HINT,
        )


def is_whole(backup_id: str, manifests: Mapping[str, Manifest]) -> bool:
    """Return whether `list_chain` finds all that a restore of the set needs."""
    try:
        list_chain(backup_id, manifests)
    except VerificationError:
        return False
    return True


def list_dependents(backup_ids: Iterable[str], manifests: Iterable[Manifest]) -> tuple[str, ...]:
    """Return the sets that cannot be restored without one of others, and are none of those.

    Args:
        backup_ids: The others.
        manifests: Of all sets, sound or not.
    """
    bases = {each.backup_id: each.base_backup_id for each in manifests}
    gone = set(backup_ids)
    found: set[str] = set()
    while more := {name for name, base in bases.items() if base in gone | found} - gone - found:
        found |= more
    return tuple(sorted(found, reverse=True))


def find_newest_whole(
    host: str, manifests: Mapping[str, Manifest], *, until: datetime | None = None
) -> Manifest | None:
    """Return a host's newest set of data whose chain is whole: its ``latest``.

    Args:
        host: The host that the sets are of.
        manifests: Of the sets that are sound, by name.
        until: Only those that had ended by then. With the end of a set whose chain is broken, what
            is found is the last whole point before it.

    Returns:
        The set, or None if there is none.
    """
    found = [
        manifest
        for name, manifest in manifests.items()
        if manifest.host == host
        and manifest.has_data
        and (until is None or manifest.ended <= until)
        and is_whole(name, manifests)
    ]
    return sort_by_age(found)[0] if found else None


def sort_by_age(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return sets with the newest first; the name decides between two of one moment."""
    return sorted(manifests, key=lambda each: (each.ended, each.backup_id), reverse=True)
