"""What people are told of a drill that has ended."""

from __future__ import annotations

import dataclasses

import pytest
from drilled import BACKUP_ID, make_clone_drill_plan, make_drill_record, make_steps

from orchestrator import notices
from orchestrator.errors import CommandError, VerificationError

pytestmark = pytest.mark.timeout(30)
ALTERED = VerificationError("part-000007.age is another one", host="store").as_json()


def test_a_drill_reads_from_a_repository() -> None:
    """Its donor is none, and must not be told as one."""
    told = notices.describe_run(make_drill_record())
    assert told.is_good
    assert told.title.endswith("drill from store to replica: succeeded")
    assert "donor" not in told.body
    assert BACKUP_ID in told.body


def test_a_drill_of_a_clone_says_so() -> None:
    """It has no repository."""
    told = notices.describe_run(make_drill_record(plan=make_clone_drill_plan()))
    assert told.title.endswith("drill of a clone of master on replica: succeeded")


def test_a_drill_that_failed_is_no_good_news() -> None:
    """Also when the host has got back what it had."""
    record = make_drill_record(
        status="cancelled", steps=make_steps("fetch-backup-set", ALTERED), error=ALTERED
    )
    told = notices.describe_run(record)
    assert not told.is_good
    assert "part-000007.age" in told.body
    assert told.title.endswith("drill from store to replica: failed")
    assert "status: failed\n" in told.body


def test_a_drill_that_somebody_cancelled_has_not_failed() -> None:
    """It says nothing about the set."""
    broke = CommandError("it broke").as_json()
    record = make_drill_record(
        status="cancelled", steps=make_steps("fetch-backup-set", broke), error=broke
    )
    assert notices.describe_run(record).title.endswith(": cancelled")


def test_a_drill_with_a_bad_check_is_no_good_news_whatever_its_status() -> None:
    """No exception is not success."""
    bad = {"name": "tables-open", "ok": False, "evidence": "shop.a", "host": "replica"}
    first, *others = make_steps()
    record = make_drill_record(
        steps=(dataclasses.replace(first, result={"checks": [bad]}), *others)
    )
    told = notices.describe_run(record)
    assert not told.is_good
    assert told.title.endswith(": failed")
