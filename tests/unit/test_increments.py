"""What an incremental backup builds on, and what a restore of one needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stored_sets import make_folder, make_set

from orchestrator import catalogue, increments
from orchestrator.errors import PreconditionError, VerificationError
from orchestrator.repository.sets import judge_repository

if TYPE_CHECKING:
    from orchestrator.catalogue import StoredSet
    from orchestrator.repository.manifest import Manifest

FULL = make_set(1)
FIRST = make_set(2, base=FULL)
SECOND = make_set(3, base=FIRST)
OTHER = make_set(4, host="db2")


def store(*manifests: Manifest, repository: str = "store") -> list[StoredSet]:
    """Return what a repository with these sets lists."""
    active = catalogue.KeyState(state=catalogue.ACTIVE)
    reports = judge_repository(make_folder(each) for each in manifests)
    return [
        catalogue.StoredSet(repository=repository, report=report, keys=active) for report in reports
    ]


def find(listed: list[StoredSet], document: Manifest) -> StoredSet:
    """Return a set of a listing."""
    return next(each for each in listed if each.report.name == document.backup_id)


def test_a_full_set_builds_on_none() -> None:
    """And the bases of another come in order, with what their restore must know."""
    listed = store(FULL, FIRST, SECOND, OTHER)
    assert increments.list_bases(listed, "store", FULL) == ()
    bases = increments.list_bases(listed, "store", SECOND)
    assert [each.backup_id for each in bases] == [FULL.backup_id, FIRST.backup_id]
    assert [(each.from_lsn, each.to_lsn) for each in bases] == [(0, 1000), (1000, 2000)]
    assert bases[0].stored_bytes == sum(part.bytes for part in FULL.parts)


def test_bases_must_be_where_the_set_is() -> None:
    """The host of another repository has no part in the stream."""
    listed = [*store(FULL, repository="elsewhere"), *store(FIRST)]
    with pytest.raises(VerificationError, match=f"no sound backup set {FULL.backup_id}, which"):
        increments.list_bases(listed, "store", FIRST)


def test_a_broken_chain_behind_the_newest_set_is_not_passed_over() -> None:
    """It says what is wrong, and what would be restored."""
    listed = store(FULL, SECOND, OTHER)
    with pytest.raises(VerificationError, match=SECOND.backup_id) as caught:
        increments.need_no_later(listed, FULL)
    assert f"no sound backup set {FIRST.backup_id}" in caught.value.message
    assert f"--last-whole restores {FULL.backup_id}" in caught.value.hint
    increments.need_no_later(listed, OTHER)
    increments.need_no_later(store(FULL, FIRST, SECOND), SECOND)


def test_the_last_whole_set_before_a_broken_one() -> None:
    """Of the same host, in the same repository."""
    listed = store(FULL, SECOND, OTHER)
    assert increments.find_last_whole(listed, find(listed, SECOND)) == find(listed, FULL)
    listed = store(SECOND, OTHER)
    with pytest.raises(PreconditionError, match=f"no set before {SECOND.backup_id}"):
        increments.find_last_whole(listed, find(listed, SECOND))
