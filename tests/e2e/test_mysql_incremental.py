"""Incremental backups of an encrypted MySQL server, taken, restored as a whole, and refused.

The servers are real; the backup tool is a double of XtraBackup, whose increments hold all pages. The
tests share a laboratory, and hold in their order.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import laws
import pytest
import set_laws
from mysql_lab import KEYRING, knobs, list_master_keys, mysql_lab
from replicas import list_beside, list_leftovers, show_run
from ways import MYSQL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clone_lab import CloneLab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

MADE = (
    "CREATE DATABASE inc; CREATE TABLE inc.kept (id INT PRIMARY KEY, what VARCHAR(100)) ENCRYPTION='Y'; "
    "INSERT INTO inc.kept VALUES (1, 'in the full set'); CREATE TABLE inc.dropped (id INT) ENCRYPTION='Y'"
)
SINCE_FULL = (
    "ALTER INSTANCE ROTATE INNODB MASTER KEY; DROP TABLE inc.dropped; "
    "CREATE TABLE inc.made (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(100)) ENCRYPTION='Y'; "
    "INSERT INTO inc.made (what) VALUES ('in the first'); UPDATE inc.kept SET what = 'changed'; "
    "FLUSH BINARY LOGS"
)
SINCE_FIRST = (
    "RENAME TABLE inc.made TO inc.renamed; INSERT INTO inc.renamed (what) VALUES ('in the second'); "
    "TRUNCATE TABLE inc.kept"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """A full backup and two that build on it.

    Attributes:
        sets: What each ``backup --json`` printed, the full one first.
        digests: Of the donor's tables at the end of each.
    """

    sets: tuple[dict[str, Any], ...]
    digests: tuple[dict[str, str], ...]

    @property
    def names(self) -> list[str]:
        """The sets, the full one first."""
        return [each["backup_id"] for each in self.sets]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    folder = tmp_path_factory.mktemp("mysql-incremental") / "lab"
    with mysql_lab(folder, "--stores", "1", "--no-writer") as found:
        found.sql("master", "SET GLOBAL event_scheduler = OFF")
        yield found


@pytest.fixture(scope="module")
def chain(lab: CloneLab) -> Chain:
    """Return a chain over which the donor changed tables, names, its master key and its binary log."""
    sets: list[dict[str, Any]] = []
    digests = []
    for statements, options in (
        (MADE, ()),
        (SINCE_FULL, ("--compress", "zstd:1")),
        (SINCE_FIRST, ()),
    ):
        lab.sql("master", statements)
        builds = ("--incremental",) if sets else ()
        sets.append(lab.backup("master", *builds, *options))
        digests.append(laws.read_digests(lab, "master", MYSQL))
    return Chain(sets=tuple(sets), digests=tuple(digests))


def find_check(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a check of a document."""
    (found,) = (check for check in document["checks"] if check["name"] == name)
    return dict(found)


def test_each_builds_on_the_one_before_it(lab: CloneLab, chain: Chain) -> None:
    """By name, and by the log sequence number at which that ends."""
    manifests = [set_laws.read_manifest(lab, name) for name in chain.names]
    assert [each["kind"] for each in manifests] == ["full", "incremental", "incremental"]
    assert [each["base_backup_id"] for each in manifests] == ["", *chain.names[:2]]
    assert [each["from_lsn"] for each in manifests[1:]] == [
        each["to_lsn"] for each in manifests[:2]
    ]
    assert len({each["layout"]["server_uuid"] for each in manifests}) == 1
    assert len({each["age_recipient"] for each in manifests}) == 3


@pytest.mark.parametrize("index", [1, 2])
def test_a_chain_is_restored_as_a_whole(lab: CloneLab, chain: Chain, index: int) -> None:
    """Up to any of its sets, under a new master key; what was dropped or renamed is not there."""
    theirs = list_master_keys(lab, "master")
    document = lab.restore(chain.names[index], "replica", "--replace", "--read-only")
    assert document["base_backup_ids"] == chain.names[:index]
    found = find_check(document, "increments")
    assert f"{index}, each from where the one before it ends" in found["evidence"]
    assert laws.read_digests(lab, "replica", MYSQL) == chain.digests[index]
    assert not list_master_keys(lab, "replica") & theirs
    at = set_laws.read_manifest(lab, chain.names[index])["coordinates"]
    assert find_check(document, "coordinates")["evidence"].endswith(at["gtid"])
    carried = lab.on("replica", "cd /var/lib/mysql && ls", check=False).split()
    assert not [name for name in carried if name.endswith((".delta", ".meta"))]
    assert not [path for path in list_beside(lab, "replica") if "increment" in path]
    assert list_leftovers(lab, document["run_id"]) == []
    lab.sql("replica", "SET GLOBAL super_read_only = OFF, GLOBAL read_only = ON")


def test_a_drill_takes_a_chain(lab: CloneLab, chain: Chain) -> None:
    """And is of the whole of it."""
    document = lab.drill("latest", "replica")
    assert document["backup_id"] == chain.names[2]
    assert document["verdict"] == "passed"
    assert find_check(document, "increments")["ok"]


def test_a_chain_whose_prepare_failed_is_fetched_again(lab: CloneLab, chain: Chain) -> None:
    """No increment is put in twice: exit status 4, nothing swapped, and a resume begins with the stream."""
    with knobs(lab, "replica", fail="prepare"):
        failed = lab.restore("latest", "replica", "--replace", "--read-only", check=False)
    assert failed["exit"] == 4
    assert "xtrabackup --prepare" in failed["error"]["message"]
    assert laws.read_digests(lab, "replica", MYSQL) == chain.digests[2]
    ended = lab.run("runs", "resume", failed["run_id"], yes=False)
    assert ended["status"] == "succeeded"
    assert laws.read_digests(lab, "replica", MYSQL) == chain.digests[2]
    told = [step["name"] for step in show_run(lab, failed["run_id"])["steps"]]
    assert told.count("fetch-backup-set") == 2
    lab.sql("replica", "SET GLOBAL super_read_only = OFF, GLOBAL read_only = ON")


def test_what_cannot_be_built_on(lab: CloneLab, chain: Chain) -> None:
    """A server with the same names of logs and another history, and one that is another server."""
    lab.sql("master", "RESET BINARY LOGS AND GTIDS")
    refused = lab.backup("master", "--incremental", check=False)
    assert refused["exit"] == 3
    assert "base-position" in refused["error"]["message"]
    assert "take a full backup" in refused["error"]["hint"]
    full = lab.backup("master")
    assert lab.backup("master", "--base", full["backup_id"])["base_backup_id"] == full["backup_id"]
    lab.lab("server", "stop", "master")
    lab.on("master", "rm /var/lib/mysql/auto.cnf")
    lab.lab("server", "start", "master")
    refused = lab.backup("master", "--incremental", check=False)
    assert refused["exit"] == 3
    assert "is server " in refused["error"]["message"]


def test_a_revoked_base_takes_what_builds_on_it_along(lab: CloneLab, chain: Chain) -> None:
    """All sets have one transition key, and each an identity of its own: exit 5, with who and when."""
    planned = lab.run("keys", "revoke", chain.names[0], "--plan", yes=False)
    assert planned["dependents"] == chain.names[:0:-1]
    lab.run("keys", "revoke", chain.names[0], "--reason", "a test")
    refused = lab.restore(chain.names[2], "replica", "--replace", check=False)
    assert refused["exit"] == 5
    assert f"keys of backup set {chain.names[0]} were destroyed on" in refused["error"]["message"]
    assert lab.on("replica", f"ls {KEYRING}")
