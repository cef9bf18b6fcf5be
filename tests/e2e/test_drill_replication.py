"""Drills whose restored server follows the live host for a while, on both flavors.

One laboratory for each flavor; the tests hold in their order.
"""

from __future__ import annotations

import json
import os
import re
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

STILL = """CREATE DATABASE still; CREATE TABLE still.life (id INT PRIMARY KEY);
INSERT INTO still.life VALUES (1), (2)"""
"""A table that nobody writes to."""
REPLICATED = {"replication-running", "replication-advancing", "replication-encrypted"}


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CloneLab]:
    """Bring a laboratory up, with a server of its own on the scratch host and a stored backup."""
    folder = tmp_path_factory.mktemp(f"follow-{request.param}") / "lab"
    options = ("--stores", "1", "--replica-server")
    made = (
        mysql_lab(folder, *options)
        if request.param == "mysql"
        else running_lab(folder, *options, size=0.02)
    )
    with made as found:
        found.sql("master", STILL)
        found.backup("master")
        yield found


@pytest.fixture(scope="module")
def inode(lab: CloneLab) -> str:
    """Return the identity of the scratch host's own data directory."""
    return read_inode(lab)


def list_accounts(lab: CloneLab) -> list[list[str]]:
    """Return our accounts on the live host."""
    return lab.sql("master", "SELECT User FROM mysql.user WHERE User LIKE 'xbvault\\_%'")


def check_nothing_left(lab: CloneLab, inode: str, run_id: str) -> None:
    """See that the scratch host has its own, and that the live host and Vault have nothing of ours."""
    check_given_back(lab, inode, run_id)
    assert list_accounts(lab) == []
    assert VaultRoot(lab.directory).list_secrets("xbvault", "replication/master/replica") == []


def kill_at(lab: CloneLab, point: str, seconds: int = 4) -> str:
    """Kill a drill at a point; return its run."""
    killed = lab.xbvault(
        *("drill", "latest", "replica", "--replicate", str(seconds), "--yes"),
        env={"XBVAULT_CRASH_AT": point},
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    return str(read_newest_run(lab)["run_id"])


def test_it_follows_for_as_long_as_was_asked_for(lab: CloneLab, inode: str) -> None:
    """After all else was proved; then account, password and restored server are gone."""
    document = lab.drill("latest", "replica", "--replicate", "5")
    assert (document["verdict"], document["torn_down"]) == ("passed", True)
    assert {check["name"] for check in document["checks"]} >= REPLICATED
    assert [phase["name"] for phase in document["phases"]] == list(summary.PHASES)
    assert {phase["status"] for phase in document["phases"]} == {"done"}
    told = document["replication"]
    assert told["source"] == "master"
    assert told["seconds"] >= 5
    assert told["looks"] >= 4
    assert told["began_at_position"] == document["coordinates"]["gtid"]
    assert told["reached_position"] != told["began_at_position"]
    if lab.flavor == "mariadb":
        assert told["applied_transactions"] > 0
    times = document["recovery_time"]
    assert times["proved_seconds"] < document["seconds"]["total"] - 5
    written = (Path(document["report"]["directory"]) / report.HTML).read_text()
    assert "It followed master for 5." in written
    check_nothing_left(lab, inode, document["run_id"])


def test_a_killed_one_watches_again_for_the_whole_time(lab: CloneLab, inode: str) -> None:
    """Whatever it had done already."""
    run_id = kill_at(lab, "watch-replication:after")
    assert list_accounts(lab) != []
    document = json.loads(lab.xbvault("runs", "resume", run_id, "--json").stdout)
    assert document["verdict"] == "passed"
    assert document["replication"]["seconds"] >= 4
    check_nothing_left(lab, inode, run_id)


def test_a_cancelled_one_takes_its_account_back(lab: CloneLab, inode: str) -> None:
    """And the server that followed is gone."""
    run_id = kill_at(lab, "watch-replication:before")
    assert list_accounts(lab) != []
    document = json.loads(lab.xbvault("runs", "cancel", run_id, "--yes", "--json").stdout)
    assert (document["status"], document["verdict"]) == ("cancelled", "incomplete")
    assert document["replication"] is None
    check_nothing_left(lab, inode, run_id)


def test_an_event_that_cannot_be_applied_fails_the_drill(lab: CloneLab, inode: str) -> None:
    """With exit status 6 and the server's own words; all is taken back."""
    # Long enough to come to the event, which stands behind all that was written since the backup.
    run_id = kill_at(lab, "start-replication:before", 90)
    lab.sql("replica", "SET SESSION sql_log_bin = 0; INSERT INTO still.life VALUES (3)")
    lab.sql("master", "INSERT INTO still.life VALUES (3)")
    ended = lab.xbvault("runs", "resume", run_id, "--json", check=False)
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["verdict"]) == (6, "failed")
    assert "replication stopped after" in document["error"]["message"]
    assert document["torn_down"]
    written = (Path(document["report"]["directory"]) / report.MARKDOWN).read_text()
    assert "replication stopped after" in written
    check_nothing_left(lab, inode, run_id)


def test_a_host_that_cannot_be_followed_is_refused(
    lab: CloneLab, inode: str, tmp_path: Path
) -> None:
    """The scratch host itself, and one that is not configured; nothing is touched."""
    document = lab.drill("latest", "master", "--replicate", "5", check=False)
    assert document["exit"] == 3
    assert "master cannot follow itself" in document["error"]["message"]
    text = lab.config_file.read_text(encoding="utf-8")
    without = re.sub(r"(?ms)^\[hosts\.master.*?(?=^\[(?!hosts\.master))", "", text)
    other = tmp_path / "xbvault.toml"
    other.write_text(without, encoding="utf-8")
    document = lab.drill("latest", "replica", "--replicate", "5", check=False, config=other)
    assert document["exit"] == 3
    assert "is not configured" in document["error"]["message"]
    assert "[hosts.master]" in document["error"]["hint"]
    assert read_inode(lab) == inode
