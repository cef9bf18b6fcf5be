"""Binary logs of MySQL archived and replayed: the servers are real, the backup tool is a double."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from mysql_lab import mysql_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clone_lab import CloneLab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

ROWS = "SELECT what FROM pitr.said ORDER BY id"
EXECUTED = "SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '')"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    folder = tmp_path_factory.mktemp("mysql-pitr") / "lab"
    with mysql_lab(folder, "--stores", "1", "--no-writer") as found:
        yield found


def say(lab: CloneLab, what: str) -> str:
    """Write a row on the donor; return its GTID."""
    lab.sql("master", f"INSERT INTO pitr.said (what) VALUES ('{what}')")
    uuid, _, interval = lab.sql("master", EXECUTED)[0][0].partition(":")
    return f"{uuid}:{interval.rpartition('-')[2]}"


def test_to_a_transaction_and_to_the_end(lab: CloneLab) -> None:
    """The one transaction is there, the next is not; then all that was archived."""
    lab.sql("master", "SET GLOBAL event_scheduler = OFF")
    lab.sql(
        "master",
        "CREATE DATABASE pitr; CREATE TABLE pitr.said "
        "(id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(100))",
    )
    lab.backup("master")
    say(lab, "first")
    lab.run("binlogs", "archive", "master")
    second = say(lab, "second")
    say(lab, "third")
    archived = lab.run("binlogs", "archive", "master")
    assert [check["ok"] for check in archived["checks"]] == [True] * 4
    (listed,) = json.loads(lab.xbvault("binlogs", "list", "--json").stdout)
    assert (listed["archive_count"], listed["gaps"]) == (2, [])
    lab.lab("power-off", "master")
    document = lab.restore("latest", "replica", "--at", second)
    assert document["replayed"] == {"at": second.lower(), "gtid": second, "logs": 2}
    assert lab.sql("replica", ROWS) == [["first"], ["second"]]
    lab.sql("replica", "SET GLOBAL read_only = ON")
    document = lab.restore("latest", "replica", "--at", "latest", "--replace")
    assert lab.sql("replica", ROWS) == [["first"], ["second"], ["third"]]
    encrypted = lab.sql(
        "replica",
        "SELECT encryption FROM information_schema.innodb_tablespaces WHERE name = 'pitr/said'",
    )
    assert encrypted == [["Y"]]
