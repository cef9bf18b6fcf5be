"""Stored backups of an encrypted MySQL server: the donor is lost for good, and comes back elsewhere.

The servers are real; the backup tool is a double of XtraBackup. The tests hold in their order.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Any

import laws
import pytest
import set_laws
from mysql_lab import (
    KEYRING,
    SHARED_KINDS,
    list_keys_in_file,
    list_master_keys,
    mysql_lab,
    read_source,
)
from replicas import OBJECTS, check_arrival, read_inode, read_pid, restart, show_run
from ways import MYSQL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clone_lab import CloneLab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lost:
    """What the donor had before it was lost.

    Attributes:
        objects: All that it held beside rows.
        keys: Names of its master keys.
    """

    objects: list[list[str]]
    keys: set[str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    folder = tmp_path_factory.mktemp("mysql-restore") / "lab"
    with mysql_lab(folder, "--stores", "1", "--replicas", "2") as found:
        yield found


@pytest.fixture(scope="module")
def stored(lab: CloneLab) -> dict[str, Any]:
    """A backup under the writer's writes, and another one of a donor that rests."""
    first = lab.backup("master")
    assert first["coordinates"]["gtid"]
    lab.lab("writer", "stop")
    lab.sql("master", "SET GLOBAL event_scheduler = OFF")
    return lab.backup("master", "--compress", "none")


@pytest.fixture(scope="module")
def digests(lab: CloneLab, stored: dict[str, Any]) -> dict[str, str]:
    """Of the donor's tables at the position of the set."""
    gtid = lab.sql("master", MYSQL.position)[0][0]
    assert stored["coordinates"]["gtid"].replace("\n", "") == gtid
    return laws.read_digests(lab, "master", MYSQL)


def read_objects(lab: CloneLab, host: str) -> list[list[str]]:
    """Return all that a server holds beside rows."""
    statements = ";\n".join(OBJECTS[kind] for kind in SHARED_KINDS)
    return sorted(lab.sql(host, f"SET NAMES utf8mb4;\n{statements}"))


def test_a_backup_is_a_whole_set_with_its_evidence(lab: CloneLab, stored: dict[str, Any]) -> None:
    """Every check holds, the sets are whole, and nothing else is left on either host."""
    assert stored["status"] == "succeeded"
    assert stored["checks"]
    assert all(check["ok"] and check["evidence"] for check in stored["checks"])
    shown = show_run(lab, stored["run_id"])
    told = {key: value for key, value in stored.items() if key != "exit"}
    assert {key: shown[key] for key in told} == told
    assert len(set_laws.list_sets(lab)) == 2
    for name in set_laws.list_sets(lab):
        set_laws.check_whole(lab, name)
    set_laws.check_nothing_outlives(lab, ("master", "store"))
    set_laws.check_ended(lab, stored["run_id"], "succeeded")
    manifest = set_laws.read_manifest(lab, stored["backup_id"])
    assert manifest["flavor"] == "mysql"
    assert manifest["has_keyring"]
    assert [file["name"] for file in manifest["files"]] == ["tablespaces.json"]


def test_a_restored_host_follows_the_living_donor(
    lab: CloneLab, stored: dict[str, Any], digests: dict[str, str]
) -> None:
    """It replicates by GTID from where the backup was taken, through what was written since."""
    lab.sql("master", "INSERT INTO shop.audit (what) VALUES ('since the backup')")
    restored = lab.restore("latest", "replica2", "--as-replica-of", "master")
    assert restored["status"] == "succeeded"
    assert restored["replication"]["uses_gtid"]
    check_arrival(lab, target="replica2")
    assert read_source(lab, "replica2")["Replica_SQL_Running"] == "Yes"
    assert lab.sql("replica2", "SELECT @@GLOBAL.read_only") == [["1"]]
    set_laws.check_nothing_outlives(lab, ("store", "replica2", "master"), run_dirs=True)


@pytest.fixture(scope="module")
def lost(lab: CloneLab, stored: dict[str, Any], digests: dict[str, str]) -> Lost:
    """The donor is lost for good, with the file of its keys."""
    found = Lost(objects=read_objects(lab, "master"), keys=list_master_keys(lab, "master"))
    lab.on("master", f"shred -u {KEYRING}/keyring")
    lab.lab("server", "stop", "master")
    lab.lab("power-off", "master")
    return found


@pytest.fixture(scope="module")
def restored(lab: CloneLab, lost: Lost) -> dict[str, Any]:
    """The newest backup comes back on a host that had nothing."""
    return lab.restore("latest", "replica", "--read-only")


def test_the_newest_backup_is_restored_without_its_donor(
    lab: CloneLab,
    stored: dict[str, Any],
    digests: dict[str, str],
    lost: Lost,
    restored: dict[str, Any],
) -> None:
    """Every table has the rows of the donor, and every object is there."""
    assert restored["status"] == "succeeded"
    assert restored["backup_id"] == stored["backup_id"]
    assert restored["checks"]
    assert all(check["ok"] and check["evidence"] for check in restored["checks"])
    assert len(digests) > 15
    assert laws.read_digests(lab, "replica", MYSQL) == digests
    assert read_objects(lab, "replica") == lost.objects
    shown = show_run(lab, restored["run_id"])
    told = {key: value for key, value in restored.items() if key != "exit"}
    assert {key: shown[key] for key in told} == told


def test_its_keys_are_its_own(lab: CloneLab, lost: Lost, restored: dict[str, Any]) -> None:
    """None of its master keys is one of the donor's, and it opens its tables with them again."""
    keys = list_master_keys(lab, "replica")
    assert keys
    assert lost.keys
    assert not keys & lost.keys
    assert keys <= list_keys_in_file(lab, "replica")
    assert "keys-not-shared" in {check["name"] for check in restored["checks"]}
    restart(lab, "replica")
    assert lab.sql("replica", "SELECT @@read_only, @@event_scheduler") == [["1", "OFF"]]
    assert lab.sql("replica", "SELECT COUNT(*) > 0 FROM shop.audit") == [["1"]]


def test_a_restore_leaves_nothing_but_the_set(
    lab: CloneLab, stored: dict[str, Any], restored: dict[str, Any]
) -> None:
    """Jobs, secrets and the staging directory are gone, and the set is as it was."""
    set_laws.check_nothing_outlives(lab, ("store", "replica"), run_dirs=True)
    set_laws.check_whole(lab, stored["backup_id"])
    laws.check_ended(lab, restored["run_id"], "succeeded")
    assert read_source(lab) == {}


def test_a_restore_is_undone_and_done_again(
    lab: CloneLab, stored: dict[str, Any], digests: dict[str, str], restored: dict[str, Any]
) -> None:
    """The undo gives datadir and keyring back, and the set can be restored once more."""
    inode, pid, keys = read_inode(lab), read_pid(lab), list_master_keys(lab, "replica")
    assert lab.restore("latest", "replica", check=False)["exit"] == 3
    assert read_pid(lab) == pid
    second = lab.restore("latest", "replica", "--replace")
    assert read_inode(lab) != inode
    assert lab.sql("replica", "SELECT @@GLOBAL.read_only") == [["0"]]
    assert list_master_keys(lab, "replica") > keys, "the earlier ones are kept for the undo"
    assert lab.run("runs", "undo", second["run_id"])["status"] == "undone"
    assert read_inode(lab) == inode
    assert list_master_keys(lab, "replica") == keys
    assert laws.read_digests(lab, "replica", MYSQL) == digests
    set_laws.check_whole(lab, stored["backup_id"])
    set_laws.check_nothing_outlives(lab, ("store", "replica"), run_dirs=True)
    again = lab.restore(stored["backup_id"], "replica", "--replace", "--read-only")
    assert again["status"] == "succeeded"
    assert laws.read_digests(lab, "replica", MYSQL) == digests


def test_an_undone_backup_is_gone_for_good(
    lab: CloneLab, stored: dict[str, Any], restored: dict[str, Any]
) -> None:
    """Its folder is gone and its keys destroyed, so that a copy of it is of no use."""
    lab.lab("power-on", "master")
    name = stored["backup_id"]
    lab.on("store", f"cp -a /srv/backups/{name} /srv/kept")
    assert lab.run("runs", "undo", stored["run_id"])["status"] == "undone"
    set_laws.check_removed(lab, name)
    assert lab.restore(name, "replica", "--replace", check=False)["exit"] == 3
    lab.on("store", f"mv /srv/kept /srv/backups/{name}")
    unread = lab.restore(name, "replica", "--replace", check=False)
    assert unread["exit"] == 5, unread["error"]
    assert stored["run_id"] in json.dumps(unread["error"])
