"""Drills on MySQL: the servers are real, the backup tool is a double.

One laboratory for the whole file; the tests hold in their order.
"""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mysql_lab import list_keys_in_file, mysql_lab
from replicas import check_given_back, read_inode, read_newest_run

from orchestrator import report, summary
from orchestrator.flavors.mysql import MySQLDialect
from orchestrator.privileges.database import grant_sql, wanted_privileges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clone_lab import CloneLab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

STILL = """CREATE DATABASE still; CREATE TABLE still.life (id INT PRIMARY KEY);
INSERT INTO still.life VALUES (1), (2)"""
"""A table that nobody writes to."""
PROVED = {
    *("stream-exit-statuses", "stream-bytes", "closing-files", "checkpoints", "stored-parts"),
    *("sealed-keys", "coordinates", "tables-open", "tablespaces-encrypted", "keys-not-shared"),
    *("server-isolated", "wrong-identity-refused", "wrong-key-refused"),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up, with a server of its own on the scratch host."""
    folder = tmp_path_factory.mktemp("mysql-drill") / "lab"
    with mysql_lab(folder, "--stores", "1", "--replica-server") as found:
        yield found


def check_keys_as_well(lab: CloneLab, before: tuple[str, set[str]], run_id: str) -> None:
    """See that the scratch host has its own data, keys and server, and nothing of a drill."""
    inode, keys = before
    check_given_back(lab, inode, run_id)
    assert list_keys_in_file(lab, "replica") == keys


def test_the_account_of_a_backup_sees_what_the_sums_need(lab: CloneLab) -> None:
    """With the least that is asked of it: what cascades, and the events of the binary log."""
    version = lab.sql("master", "SELECT VERSION()")[0][0]
    wanted = wanted_privileges("mysql", version)
    lab.sql(
        "master",
        "CREATE USER least@localhost IDENTIFIED BY 'only-of-this-test'; "
        + grant_sql("least", "localhost", (*wanted.backup, *wanted.events)),
    )
    asked = shlex.quote(f"{MySQLDialect(version).cascades_sql}; SHOW BINLOG EVENTS LIMIT 1")
    client = "MYSQL_PWD=only-of-this-test mysql --batch --skip-column-names -uleast"
    (cascade, event) = lab.on("master", f"{client} -e {asked}").splitlines()
    lab.sql("master", "DROP USER least@localhost")
    told = [bytes.fromhex(part).decode() for part in cascade.split("\t")]
    assert told == ["shop", "order_items", "shop", "orders"]
    assert "Format_desc" in event


def test_a_drill_proves_the_set_and_gives_the_host_back(lab: CloneLab) -> None:
    """Datadir and keyring, while the donor writes compressed transactions."""
    before = read_inode(lab), list_keys_in_file(lab, "replica")
    lab.sql("master", f"SET GLOBAL binlog_transaction_compression = ON; {STILL}")
    stored = lab.backup("master", "--checksums", "all")
    assert stored["tables_summed"]["recorded"] > 5
    document = lab.drill("latest", "replica")
    assert (document["status"], document["verdict"]) == ("succeeded", "passed")
    assert (document["flavor"], document["torn_down"]) == ("mysql", True)
    names = {check["name"] for check in document["checks"]}
    assert {*PROVED, "tables-equal"} <= names <= set(summary.CHECKS)
    assert all(check["ok"] and check["evidence"] for check in document["checks"])
    assert [phase["status"] for phase in document["phases"]] == ["done"] * len(document["phases"])
    number = stored["tables_summed"]["recorded"]
    assert document["tables_compared"] == {"recorded": number, "compared": number, "reason": ""}
    point = document["recovery_point"]
    assert (point["host"], point["reached"]) == ("master", True)
    assert point["seconds"] > 0
    written = (Path(document["report"]["directory"]) / report.MARKDOWN).read_text()
    assert f"**{number} of {number}** tables equal" in written
    check_keys_as_well(lab, before, document["run_id"])


def test_a_row_that_differs_fails_the_drill(lab: CloneLab) -> None:
    """The table is named, and the host has back what it had, its keys among it."""
    before = read_inode(lab), list_keys_in_file(lab, "replica")
    killed = lab.xbvault(
        *("drill", "latest", "replica", "--yes"),
        env={"XBVAULT_CRASH_AT": "compare-recorded-tables:before"},
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    run_id = read_newest_run(lab)["run_id"]
    lab.sql("replica", "SET SESSION sql_log_bin = 0; DELETE FROM still.life LIMIT 1")
    ended = lab.xbvault("runs", "resume", run_id, "--json", check=False)
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["verdict"]) == (6, "failed")
    assert "that were backed up: still.life" in document["error"]["message"]
    check_keys_as_well(lab, before, run_id)


def test_a_killed_drill_is_resumed_and_a_kept_server_undone(lab: CloneLab) -> None:
    """From the swap and from the tear-down; what was kept is isolated until then."""
    before = read_inode(lab), list_keys_in_file(lab, "replica")
    for point in ("swap-datadir:after", "restore-datadir:after"):
        killed = lab.xbvault(
            *("drill", "latest", "replica", "--yes"), env={"XBVAULT_CRASH_AT": point}, check=False
        )
        assert killed.returncode == -9, killed.stderr
        run_id = read_newest_run(lab)["run_id"]
        document = json.loads(lab.xbvault("runs", "resume", run_id, "--json").stdout)
        assert (document["status"], document["verdict"]) == ("succeeded", "passed")
        check_keys_as_well(lab, before, run_id)
    document = lab.drill("latest", "replica", "--keep")
    assert (document["verdict"], document["kept"]) == ("passed", True)
    assert lab.sql("replica", "SELECT @@GLOBAL.read_only, @@GLOBAL.event_scheduler") == [
        ["1", "OFF"]
    ]
    assert lab.sql("replica", "SHOW REPLICA STATUS") == []
    lab.xbvault("runs", "undo", document["run_id"], "--yes")
    check_keys_as_well(lab, before, document["run_id"])


def test_destroyed_keys_fail_the_drill(lab: CloneLab) -> None:
    """With exit status 5."""
    before = read_inode(lab), list_keys_in_file(lab, "replica")
    (listed,) = json.loads(lab.xbvault("backups", "list", "--json").stdout)
    lab.xbvault("keys", "revoke", listed["backup_id"], "--yes")
    document = lab.drill(listed["backup_id"], "replica", check=False)
    assert (document["exit"], document["verdict"]) == (5, "failed")
    assert "were destroyed on" in document["error"]["message"]
    check_keys_as_well(lab, before, document["run_id"])
