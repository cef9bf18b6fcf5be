from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from stored_sets import make_set

from orchestrator.errors import VerificationError
from orchestrator.repository import chains

if TYPE_CHECKING:
    from orchestrator.repository.manifest import Manifest

FULL = make_set(1)
FIRST = make_set(2, base=FULL)
SECOND = make_set(3, base=FIRST)
OTHER = make_set(4, host="db2")


def by_name(*manifests: Manifest) -> dict[str, Manifest]:
    """Return manifests by the name of their set."""
    return {each.backup_id: each for each in manifests}


ALL = by_name(FULL, FIRST, SECOND, OTHER)


def test_a_chain_begins_with_the_full_set() -> None:
    """And ends with the one that was asked for; a full set is a chain by itself."""
    assert chains.list_chain(SECOND.backup_id, ALL) == (FULL, FIRST, SECOND)
    assert chains.list_chain(FULL.backup_id, ALL) == (FULL,)


@pytest.mark.parametrize(("lost", "following"), [(FULL, FIRST), (FIRST, SECOND)])
def test_a_base_that_is_missing_is_named(lost: Manifest, following: Manifest) -> None:
    """With the set that builds on it."""
    found = by_name(*(each for each in ALL.values() if each is not lost))
    text = f"no sound backup set {lost.backup_id}, which {following.backup_id} builds on"
    with pytest.raises(VerificationError, match=text):
        chains.list_chain(SECOND.backup_id, found)
    assert not chains.is_whole(SECOND.backup_id, found)


def test_a_set_that_is_missing_is_named() -> None:
    """By itself."""
    with pytest.raises(VerificationError, match=f"no sound backup set {SECOND.backup_id}$"):
        chains.list_chain(SECOND.backup_id, by_name(FULL, FIRST))


def test_a_gap_between_two_sets_is_named() -> None:
    """By the log sequence numbers on either side."""
    late = dataclasses.replace(FIRST, from_lsn=FULL.to_lsn + 1)
    with pytest.raises(VerificationError, match=f"{late.backup_id} does not follow .* 1000.* 1001"):
        chains.list_chain(late.backup_id, by_name(FULL, late))


def test_a_set_of_another_server_is_no_base() -> None:
    """Whatever its log sequence number is."""
    odd = dataclasses.replace(FIRST, base_backup_id=OTHER.backup_id, from_lsn=OTHER.to_lsn)
    with pytest.raises(VerificationError, match="two servers"):
        chains.list_chain(odd.backup_id, by_name(OTHER, odd))


def test_a_chain_without_a_full_set_ends() -> None:
    """Two that build on each other."""
    one = dataclasses.replace(FIRST, base_backup_id=SECOND.backup_id, from_lsn=3000, to_lsn=3000)
    two = dataclasses.replace(SECOND, from_lsn=3000)
    with pytest.raises(VerificationError, match="has no full set"):
        chains.list_chain(two.backup_id, by_name(one, two))


def test_the_latest_is_the_newest_that_can_be_restored() -> None:
    """Of that host; a set whose chain is broken does not count."""
    assert chains.find_newest_whole("db1", ALL) == SECOND
    assert chains.find_newest_whole("db2", ALL) == OTHER
    assert chains.find_newest_whole("db3", ALL) is None
    assert chains.find_newest_whole("db1", by_name(FULL, SECOND)) == FULL


def test_the_last_whole_point_lies_before_a_broken_set() -> None:
    """A newer one is another point, and not what was asked for."""
    newer = make_set(9)
    found = by_name(FULL, SECOND, newer)
    assert chains.find_newest_whole("db1", found) == newer
    assert chains.find_newest_whole("db1", found, until=SECOND.ended) == FULL


def test_sets_are_sorted_by_age() -> None:
    """By the moment whose state they have; then by name, so that the order is always the same."""
    twin = dataclasses.replace(FULL, backup_id=FULL.backup_id[:-1] + "f")
    assert chains.sort_by_age([FULL, SECOND, twin, FIRST]) == [SECOND, FIRST, twin, FULL]


def test_what_cannot_be_restored_without_a_set() -> None:
    """All that builds on it, also behind one that is missing between; nothing of another host."""
    everything = (FULL, FIRST, SECOND, OTHER)
    behind = (SECOND.backup_id, FIRST.backup_id)
    assert chains.list_dependents([FULL.backup_id], everything) == behind
    assert chains.list_dependents([FIRST.backup_id], [SECOND]) == (SECOND.backup_id,)
    assert chains.list_dependents([FULL.backup_id, FIRST.backup_id], everything) == behind[:1]
    assert chains.list_dependents([SECOND.backup_id, OTHER.backup_id], everything) == ()
    circle = dataclasses.replace(FULL, base_backup_id=SECOND.backup_id)
    assert chains.list_dependents([FIRST.backup_id], [circle, FIRST, SECOND]) == (
        SECOND.backup_id,
        FULL.backup_id,
    )
