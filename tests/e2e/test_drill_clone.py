"""Drills of a clone, on both flavors: proved, taken back, reported, with no stored backup.

One laboratory for each flavor; the tests hold in their order.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clone_lab import CloneLab, running_lab
from mysql_lab import mysql_lab
from replicas import check_given_back, read_inode, read_newest_run
from vault_root import VaultRoot

from orchestrator import report, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

PROVED = {
    *("stream-exit-statuses", "backup-completed", "stream-bytes", "closing-files", "checkpoints"),
    *("coordinates", "server-isolated", "tables-open", "tablespaces-encrypted", "keys-not-shared"),
}


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CloneLab]:
    """Bring a laboratory up, with a server of its own on the scratch host."""
    folder = tmp_path_factory.mktemp(f"drill-clone-{request.param}") / "lab"
    made = (
        mysql_lab(folder, "--replica-server")
        if request.param == "mysql"
        else running_lab(folder, "--replica-server", size=0.02)
    )
    with made as found:
        yield found


@pytest.fixture(scope="module")
def inode(lab: CloneLab) -> str:
    """Return the identity of the scratch host's own data directory."""
    return read_inode(lab)


def check_nothing_left(lab: CloneLab, inode: str, run_id: str) -> None:
    """See that both hosts and Vault have nothing of the drill."""
    check_given_back(lab, inode, run_id)
    assert lab.sql("master", "SELECT User FROM mysql.user WHERE User LIKE 'xbvault\\_%'") == []
    root = VaultRoot(lab.directory)
    assert root.list_secrets("xbvault", "replication/master/replica") == []
    assert root.list_mounts("xbvault-transition/") == []
    for name in root.list_secrets("xbvault", "transition-keys"):
        assert root.live_versions("xbvault", f"transition-keys/{name}") == []


def test_a_clone_is_proved_and_taken_back(lab: CloneLab, inode: str) -> None:
    """Isolated; every phase has its time, and the report says that it was a clone."""
    document = lab.run("drill", "--clone", "master", "replica")
    told = {key: value for key, value in document.items() if key != "exit"}
    assert list(told) == list(summary.build_empty_drill_document())
    assert (document["status"], document["verdict"]) == ("succeeded", "passed")
    assert (document["set_host"], document["repository"]) == ("master", "")
    assert (document["torn_down"], document["kept"]) == (True, False)
    names = {check["name"] for check in document["checks"]}
    assert names >= PROVED
    assert not names & {"tables-equal", "replication-running", "wrong-identity-refused"}
    assert all(check["ok"] and check["evidence"] for check in document["checks"])
    assert [phase["name"] for phase in document["phases"]] == list(summary.ALWAYS)
    assert {phase["status"] for phase in document["phases"]} == {"done"}
    times = document["recovery_time"]
    assert 0 < times["answers_sql_seconds"] < times["proved_seconds"]
    point = document["recovery_point"]
    assert (point["host"], point["reached"]) == ("master", True)
    assert point["seconds"] > 0
    assert document["set_ended_at"] == point["set_ended_at"]
    assert document["trend"] == []
    written = (Path(document["report"]["directory"]) / report.MARKDOWN).read_text()
    assert "| clone | of master, streamed for this drill |" in written
    check_nothing_left(lab, inode, document["run_id"])
    refused = lab.xbvault("runs", "undo", document["run_id"], "--yes", check=False)
    assert refused.returncode == 3
    assert "given replica back" in refused.stderr


def test_it_may_follow_its_donor_for_a_while(lab: CloneLab, inode: str) -> None:
    """Then account and password are gone; the drill before stands in the report."""
    document = lab.run("drill", "--clone", "master", "replica", "--replicate", "3")
    assert document["verdict"] == "passed"
    assert document["replication"]["source"] == "master"
    assert document["replication"]["seconds"] >= 3
    assert [phase["name"] for phase in document["phases"]] == list(summary.CLONE_PHASES)
    assert [past["verdict"] for past in document["trend"]] == ["passed"]
    check_nothing_left(lab, inode, document["run_id"])


def test_a_killed_one_is_resumed_or_cancelled(lab: CloneLab, inode: str) -> None:
    """From the swap on; a cancelled one has proved nothing."""
    command = ("drill", "--clone", "master", "replica", "--yes")
    killed = lab.xbvault(*command, env={"XBVAULT_CRASH_AT": "swap-datadir:after"}, check=False)
    assert killed.returncode == -9, killed.stderr
    run_id = read_newest_run(lab)["run_id"]
    document = json.loads(lab.xbvault("runs", "resume", run_id, "--json").stdout)
    assert (document["status"], document["verdict"]) == ("succeeded", "passed")
    check_nothing_left(lab, inode, run_id)
    killed = lab.xbvault(*command, env={"XBVAULT_CRASH_AT": "verify-isolation:before"}, check=False)
    assert killed.returncode == -9, killed.stderr
    run_id = read_newest_run(lab)["run_id"]
    document = json.loads(lab.xbvault("runs", "cancel", run_id, "--yes", "--json").stdout)
    assert (document["status"], document["verdict"]) == ("cancelled", "incomplete")
    assert document["torn_down"]
    check_nothing_left(lab, inode, run_id)


def test_a_server_that_takes_writes_by_itself_fails_the_drill(lab: CloneLab, inode: str) -> None:
    """With exit status 6; the host has back what it had, and the report tells."""
    killed = lab.xbvault(
        *("drill", "--clone", "master", "replica", "--yes"),
        env={"XBVAULT_CRASH_AT": "verify-isolation:before"},
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    run_id = read_newest_run(lab)["run_id"]
    lab.sql("replica", "SET GLOBAL read_only = OFF")
    ended = lab.xbvault("runs", "resume", run_id, "--json", check=False)
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["verdict"]) == (6, "failed")
    assert "server-isolated: read_only=OFF" in document["error"]["message"]
    assert "do not rely on a clone" in ended.stderr
    written = (Path(document["report"]["directory"]) / report.HTML).read_text()
    assert "read_only=OFF" in written
    check_nothing_left(lab, inode, run_id)
