"""A drill that follows the live host for a while: what speaks against the set, and what does not."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import pytest
from drilled import make_drill_plan
from fake_remote import FakeRemote

from orchestrator import config as config_module
from orchestrator.errors import CancelledError, CommandError, VerificationError
from orchestrator.facts import instances
from orchestrator.flavors.interface import ReplicationStatus
from orchestrator.remote import Result
from orchestrator.steps import drill_replication, replication
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from fake_remote import Call

PLAN = make_drill_plan(replicate_seconds=1, source="master")
CLIENT = ("mariadb", "--batch")
RUNNING = ReplicationStatus(
    host="10.0.0.1",
    port="3306",
    user="xbvault_1a2b3c4d",
    io="Yes",
    sql="Yes",
    io_errno="0",
    io_error="",
    sql_error="",
    seconds_behind=2,
    uses_gtid=True,
    uses_tls=True,
    applied_file="bin.000002",
    applied_position="900",
)


@dataclasses.dataclass
class Stand:
    """What the steps work with.

    Attributes:
        told: What the replica says, one look after the other; the last for ever.
        looks: How often it was asked.
        applied: What it has applied.
    """

    tools: Tools
    told: list[ReplicationStatus | None] = dataclasses.field(default_factory=lambda: [RUNNING])
    looks: int = 0
    applied: str = "0-11-760"

    def read(self, *_arguments: Any) -> ReplicationStatus | None:
        """Return what the replica says."""
        self.looks += 1
        return self.told[min(self.looks, len(self.told)) - 1]

    @property
    def ran(self) -> list[str]:
        """The statements that the restored server was sent."""
        return [call.stdin.decode() for call in cast("FakeRemote", self.tools.recipient).calls]


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    """A restored server that follows the live host, 40 transactions behind."""
    host = {"flavor": "mariadb"}
    config = config_module.parse(
        {
            "hosts": {
                "master": {**host, "vault_mount": "m"},
                "replica": {**host, "vault_mount": "r"},
            },
            "repositories": {"store": {"path": "/srv/backups"}},
        }
    )
    live, scratch = FakeRemote("master"), FakeRemote("replica")
    live.answer(*CLIENT, stdout="pos\n0-11-800\n")
    scratch.answer("test")
    path = f"/var/lib/xbvault/runs/{PLAN.run_id}/binlog_info.1"
    scratch.files[path] = b"bin.000002\t4711\t0-11-700\n"
    tools = Tools(
        config=config,
        vault=cast("Any", None),
        donor=FakeRemote("store"),
        recipient=scratch,
        upstream=live,
    )
    found = Stand(tools=tools)

    def answer(call: Call) -> Result:
        asked = b"pos" in call.stdin
        return Result(
            status=0, stdout=f"pos\n{found.applied}\n".encode() if asked else b"", stderr=""
        )

    scratch.answers[CLIENT] = answer
    monkeypatch.setattr(instances, "read_replication", found.read)
    monkeypatch.setattr(replication, "wait_until_connected", lambda *_: None)
    monkeypatch.setattr(drill_replication, "POLL_SECONDS", 0.3)
    return found


def test_it_is_watched_for_the_whole_time(stand: Stand) -> None:
    """And it is told how far it came, of how much."""
    found = drill_replication.watch_replication(stand.tools, PLAN)
    assert found.seconds >= 1
    assert found.looks == stand.looks >= 3
    assert (found.source, found.seconds_behind) == ("master", 2)
    assert (found.began_at_position, found.reached_position) == ("0-11-700", "0-11-760")
    assert found.source_position == "0-11-800"
    assert (found.applied_transactions, found.missing_transactions) == (60, 40)
    assert [(check.name, check.ok) for check in found.checks] == [
        ("replication-running", True),
        ("replication-advancing", True),
        ("replication-encrypted", True),
    ]


def test_repeated_it_is_watched_for_the_whole_time_again(stand: Stand) -> None:
    """What was seen before a cut is not taken for it."""
    drill_replication.watch_replication(stand.tools, PLAN)
    assert drill_replication.watch_replication(stand.tools, PLAN).seconds >= 1


def test_without_gtid_it_is_told_by_file_and_position(stand: Stand) -> None:
    """Those of the live host's binary log."""
    stand.told = [dataclasses.replace(RUNNING, uses_gtid=False, seconds_behind=-1)]
    found = drill_replication.watch_replication(stand.tools, PLAN)
    assert (found.began_at_position, found.reached_position) == (
        "bin.000002:4711",
        "bin.000002:900",
    )
    assert found.seconds_behind is None


def test_an_event_that_cannot_be_applied_speaks_against_the_set(stand: Stand) -> None:
    """With the server's words."""
    stand.told = [RUNNING, dataclasses.replace(RUNNING, sql="No", sql_error="Duplicate entry '5'")]
    with pytest.raises(VerificationError, match="stopped after 0 s: Duplicate entry '5'"):
        drill_replication.watch_replication(stand.tools, PLAN)


@pytest.mark.parametrize("state", ["Connecting", "No"])
def test_a_connection_that_breaks_says_nothing_about_the_set(stand: Stand, state: str) -> None:
    """The drill can be resumed."""
    stand.told = [RUNNING, dataclasses.replace(RUNNING, io=state, io_error="Lost connection")]
    with pytest.raises(CommandError, match="to master broke after 0 s: Lost connection") as caught:
        drill_replication.watch_replication(stand.tools, PLAN)
    assert f"xbvault runs resume {PLAN.run_id}" in caught.value.hint


def test_nothing_applied_is_no_proof(stand: Stand) -> None:
    """The account that was made there is newer than the set, so something had to come."""
    stand.applied = "0-11-700"
    with pytest.raises(CommandError, match="nothing of master was applied in 1 s") as caught:
        drill_replication.watch_replication(stand.tools, PLAN)
    assert "--replicate" in caught.value.hint


def test_replication_that_is_not_there_or_is_in_the_clear(stand: Stand) -> None:
    """Neither passes."""
    stand.told = [dataclasses.replace(RUNNING, uses_tls=False)]
    with pytest.raises(VerificationError, match="replication-encrypted: no TLS"):
        drill_replication.watch_replication(stand.tools, PLAN)
    stand.told = [None]
    with pytest.raises(VerificationError, match="not wired"):
        drill_replication.watch_replication(stand.tools, PLAN)


def test_a_cancel_ends_the_watch(stand: Stand) -> None:
    """At the next look."""

    def cancel() -> None:
        raise CancelledError("cancelled")

    tools = dataclasses.replace(stand.tools, check_cancelled=cancel)
    with pytest.raises(CancelledError):
        drill_replication.watch_replication(tools, PLAN)


def test_replication_is_ended(stand: Stand) -> None:
    """The server knows of no source any more."""
    stand.told = [RUNNING, None]
    assert drill_replication.end_replication(stand.tools, PLAN).source == "master"
    assert stand.ran == ["STOP SLAVE; RESET SLAVE ALL;\n"]


def test_ended_replication_is_left_alone(stand: Stand) -> None:
    """Nothing is sent."""
    stand.told = [None]
    assert drill_replication.end_replication(stand.tools, PLAN).source == ""
    assert stand.ran == []


def test_a_server_that_still_knows_of_a_source_is_not_believed(stand: Stand) -> None:
    """Whatever its client's exit status."""
    with pytest.raises(VerificationError, match="still knows of a source"):
        drill_replication.end_replication(stand.tools, PLAN)
