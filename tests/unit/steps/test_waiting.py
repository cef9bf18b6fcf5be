"""What the wait for replication tells while it waits, and where a restored replica begins."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import pytest
from engine_lab import make_plan
from fake_remote import Call, FakeRemote
from stored_runs import make_restore_plan

from orchestrator import config as config_module
from orchestrator import log
from orchestrator.errors import PreconditionError
from orchestrator.models import Coordinates
from orchestrator.remote import Result
from orchestrator.steps import replication
from orchestrator.steps.registry import Tools

STATUS = (
    "Master_Host\tMaster_Port\tMaster_User\tSlave_IO_Running\tSlave_SQL_Running\t"
    "Seconds_Behind_Master\n10.0.0.1\t3306\tx\tYes\tYes\t{}\n"
)


def wait(behind: list[str]) -> list[dict[str, Any]]:
    """Wait for a replica that is so far behind, look by look; return what was told of it."""
    looks = iter(behind)
    left = len(behind)

    def answer(call: Call) -> Result:
        nonlocal left
        if b"STATUS" in call.stdin:
            return Result(status=0, stdout=STATUS.format(next(looks)).encode())
        assert b"WAIT" in call.stdin
        left -= 1
        return Result(status=0, stdout=f"reached\n{-1 if left else 0}\n".encode())

    donor, replica = FakeRemote("master"), FakeRemote("replica", answers={("mariadb",): answer})
    donor.answer("mariadb", stdout="pos\n0-1-99\n")
    hosts = {"master": {"vault_mount": "m"}, "replica": {"vault_mount": "r"}}
    tools = Tools(
        config=config_module.parse({"hosts": hosts}),
        vault=cast("Any", None),
        donor=donor,
        recipient=replica,
    )
    log.configure()
    told: list[dict[str, Any]] = []
    end = log.subscribe(lambda event: told.append(dict(event)))
    try:
        assert replication.wait_until_caught_up(tools, make_plan("r1")) == "0-1-99"
    finally:
        end()
    return told


def test_a_replica_that_is_behind_is_told_by_its_delay() -> None:
    """Each look that did not find it there tells how far it is behind, where the server knows."""
    told = wait(["65", "NULL", "7", "0"])
    assert [(e["event"], e["host"], e["seconds_behind"]) for e in told] == [
        ("job.progress", "replica", 65),
        ("job.progress", "replica", 7),
    ]


def test_a_replica_that_is_there_tells_nothing() -> None:
    """Nothing was waited for."""
    assert wait(["0"]) == []


@pytest.mark.parametrize(
    ("source", "coordinates", "gtid", "uses_gtid"),
    [
        ("db1", "auto", "", False),
        ("db1", "position", "0-1-2", False),
        ("db1", "auto", "0-1-2", True),
        ("db3", "auto", "0-1-2", True),
        ("db3", "gtid", "0-1-2", True),
        ("db3", "position", "0-1-2", None),
        ("db3", "auto", "", None),
    ],
)
def test_a_restored_replica_never_begins_at_another_hosts_offset(
    source: str, coordinates: str, gtid: str, *, uses_gtid: bool | None
) -> None:
    """A set of db1 tells offsets in the binary log of db1 alone."""
    plan = dataclasses.replace(
        make_restore_plan("r1"), source=source, set_host="db1", coordinates=coordinates
    )
    at = Coordinates(file="bin.000002", position=4, gtid=gtid)
    if uses_gtid is None:
        with pytest.raises(PreconditionError, match="a position of db1, not of db3"):
            replication._uses_gtid(plan, at)
    else:
        assert replication._uses_gtid(plan, at) is uses_gtid
