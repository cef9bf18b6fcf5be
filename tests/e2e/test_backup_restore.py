"""Stored backups, real from end to end: the donor is lost for good, and its server comes back.

The tests share a laboratory for each story, and hold in their order.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import laws
import pytest
import set_laws
from clone_lab import REPOSITORY, CloneLab, running_lab
from lab import product
from lab.commands import wait_until
from replicas import (
    DATADIR,
    OBJECTS,
    check_arrival,
    list_beside,
    list_leftovers,
    list_objects,
    read_inode,
    read_pid,
    read_source,
    restart,
    show_run,
)
from vault_root import VaultRoot
from ways import MARIADB

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

OWN, DONORS, RECORDS = "mariadb-replica", "mariadb-master", "xbvault"
AUDIT = "shop.audit"
"""What the donor's event writes to, wherever it runs."""
ROWS = "SELECT id, what FROM shop.audit ORDER BY id"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """A backup that was taken while the donor was written to.

    Attributes:
        document: What ``backup --json`` printed.
        shown: What ``runs show --json`` tells of it.
        digests: Of the donor's tables at the position of the backup.
        audit: The rows of the one table that an event writes to.
        gtid: That position, as the donor told it.
        objects: What the donor held beside rows.
    """

    document: dict[str, Any]
    shown: dict[str, Any]
    digests: dict[str, str]
    audit: list[list[str]]
    gtid: str
    objects: dict[str, list[list[str]]]

    @property
    def name(self) -> str:
        """The set."""
        return str(self.document["backup_id"])


def take_backup(lab: CloneLab) -> Stored:
    """Store a backup during the first part of which the donor is written to.

    The stream is slow enough for the writer to end before it; so what the donor has afterwards is
    what the set must have, and was changed after the backup tool had begun to read.
    """
    last = int(lab.sql("master", "SELECT MAX(id) FROM live.ledger")[0][0])
    earlier = set_laws.list_folders(lab)

    def count_parts() -> int:
        new = set(set_laws.list_folders(lab)) - set(earlier)
        folder = set_laws.find_repository(lab)
        return sum(len(list((folder / name).glob("part-*.age"))) for name in new)

    slowly = ("--throttle", "12M", "--compress", "none", "--checksums", "all")
    command = [*product.command(), "backup", "master", *slowly, "--yes", "--json"]
    with subprocess.Popen(
        command,
        env={**os.environ, "XBVAULT_CONFIG": str(lab.config_file)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        text=True,
    ) as process:
        wait_until(
            lambda: count_parts() >= 2 or process.poll() is not None,
            "the stream",
            timeout_seconds=60,
        )
        lab.lab("writer", "stop")
        lab.sql("master", "SET GLOBAL event_scheduler = OFF")
        parts = count_parts()
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    document = json.loads(out)
    whole = len(set_laws.read_manifest(lab, document["backup_id"])["parts"])
    assert parts < whole - 4, "the writer was not stopped in time"
    gtid = lab.sql("master", "SELECT @@GLOBAL.gtid_binlog_pos")[0][0]
    assert int(lab.sql("master", "SELECT MAX(id) FROM live.ledger")[0][0]) > last
    return Stored(
        document=document,
        shown=show_run(lab, document["run_id"]),
        digests=laws.read_digests(lab, "master", MARIADB),
        audit=lab.sql("master", ROWS),
        gtid=gtid,
        objects={kind: list_objects(lab, "master", kind) for kind in OBJECTS},
    )


def compare(lab: CloneLab, stored: Stored, host: str = "replica") -> None:
    """See that a host has every row of the donor at the position of the backup."""
    digests = laws.read_digests(lab, host, MARIADB)
    assert len(digests) > 15
    differ = {
        name for name in stored.digests | digests if stored.digests.get(name) != digests.get(name)
    }
    assert differ <= {AUDIT}
    assert lab.sql(host, ROWS)[: len(stored.audit)] == stored.audit


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    folder = tmp_path_factory.mktemp("restore") / "lab"
    with running_lab(folder, "--stores", "1") as found:
        yield found


@pytest.fixture(scope="module")
def root(lab: CloneLab) -> VaultRoot:
    """Return the laboratory's Vault in its administrator's hands."""
    return VaultRoot(lab.directory)


@pytest.fixture(scope="module")
def earlier(lab: CloneLab) -> dict[str, Any]:
    """A backup of before."""
    before = laws.note(lab, "master")
    document = lab.backup("master")
    laws.check_donor_is_as_it_was(lab, before, accounts=set())
    return document


@pytest.fixture(scope="module")
def stored(lab: CloneLab, earlier: dict[str, Any]) -> Stored:
    """The backup that everything depends on."""
    return take_backup(lab)


def test_a_backup_is_told_with_its_evidence(stored: Stored) -> None:
    """Checks, parts, coordinates and transfer are told, and runs show tells the same."""
    document = stored.document
    assert document["status"] == "succeeded"
    assert document["error"] is None
    assert document["checks"]
    assert all(check["ok"] and check["evidence"] for check in document["checks"])
    assert document["coordinates"]["gtid"] == stored.gtid
    assert document["transfer"]["bytes"] == document["bytes_streamed"] > 50_000_000
    assert document["stored_bytes"] > document["bytes_streamed"]
    assert set(document["transfer"]["cpu_seconds"]) == {"read", "seal", "encrypt", "write"}
    steps = {step["name"] for step in stored.shown["steps"]}
    assert set(document["seconds"]) == {*steps, "total"}
    assert {key: stored.shown[key] for key in document} == document
    assert re.fullmatch(r"\d{8}T\d{6}Z-master-[0-9a-f]{8}", stored.name)


def test_two_backups_are_two_whole_sets(
    lab: CloneLab, earlier: dict[str, Any], stored: Stored
) -> None:
    """Each has its own folder and keys, and neither leaves anything else behind."""
    assert set_laws.list_folders(lab) == sorted([earlier["backup_id"], stored.name])
    for name in set_laws.list_sets(lab):
        set_laws.check_whole(lab, name)
    keys = {set_laws.read_manifest(lab, name)["age_recipient"] for name in set_laws.list_sets(lab)}
    assert len(keys) == 2
    set_laws.check_nothing_outlives(lab, ("master", "store"))
    set_laws.check_ended(lab, stored.document["run_id"], "succeeded")


@pytest.fixture(scope="module")
def lost(lab: CloneLab, root: VaultRoot, stored: Stored) -> None:
    """The donor is lost for good: server, host, its keys in Vault and its token."""
    text = lab.on("master", "cat /etc/mysql/vault.env")
    token = text.partition("VAULT_TOKEN=")[2].splitlines()[0].strip("'\"")
    lab.lab("server", "stop", "master")
    lab.lab("power-off", "master")
    root.remove_mount(DONORS)
    laws.request(lab, "POST", "auth/token/revoke", {"token": token})
    with pytest.raises(AssertionError):
        lab.on("master", "true")


@pytest.fixture(scope="module")
def restored(lab: CloneLab, lost: None) -> dict[str, Any]:
    """The newest backup comes back on a host that had nothing."""
    return lab.restore("latest", "replica")


def test_the_newest_backup_is_restored_without_its_donor(
    lab: CloneLab, stored: Stored, restored: dict[str, Any]
) -> None:
    """Every table has the rows that the donor had at the backup's position, and every object is there."""
    assert restored["status"] == "succeeded"
    assert restored["backup_id"] == stored.name
    assert restored["coordinates"]["gtid"] == stored.gtid
    compare(lab, stored)
    for kind, theirs in stored.objects.items():
        assert theirs, kind
        assert list_objects(lab, "replica", kind) == theirs, kind


def test_a_restore_is_told_with_its_evidence(
    lab: CloneLab, stored: Stored, restored: dict[str, Any]
) -> None:
    """Checks, set and transfer are told, and runs show tells the same."""
    assert restored["checks"]
    assert all(check["ok"] and check["evidence"] for check in restored["checks"])
    shown = show_run(lab, restored["run_id"])
    told = {key: value for key, value in restored.items() if key != "exit"}
    assert {key: shown[key] for key in told} == told
    assert set(restored["seconds"]) == {*(step["name"] for step in shown["steps"]), "total"}
    assert (restored["repository"], restored["set_host"]) == ("store", "master")
    names = {check["name"] for check in restored["checks"]}
    assert {"stored-parts", "sealed-keys", "tablespaces-own-key", "server-answers"} <= names
    assert "tables-equal" in names
    number = stored.document["tables_summed"]["recorded"]
    assert number > 12
    compared = {"recorded": number, "compared": number, "reason": ""}
    assert restored["tables_compared"] == compared


def test_the_restored_server_takes_writes(lab: CloneLab, restored: dict[str, Any]) -> None:
    """It is no replica, refuses no write, and runs its events, also after a restart."""
    assert read_source(lab) == {}
    for _ in range(2):
        assert lab.sql("replica", "SELECT @@GLOBAL.read_only") == [["0"]]
        lab.sql("replica", "INSERT INTO shop.audit (what) VALUES ('written after the restore')")
        wait_for_event(lab)
        restart(lab, "replica")


def wait_for_event(lab: CloneLab) -> None:
    """Wait until an event of the restored server has run."""

    def count() -> int:
        return int(lab.sql("replica", "SELECT COUNT(*) FROM shop.audit WHERE what = 'tick'")[0][0])

    ticks = count()
    wait_until(lambda: count() > ticks, "an event", timeout_seconds=20)


def test_its_keys_are_its_own(
    lab: CloneLab, root: VaultRoot, stored: Stored, restored: dict[str, Any]
) -> None:
    """It runs on new versions in its own mount, and there is no other mount with keys of it."""
    manifest = set_laws.read_manifest(lab, stored.name)
    for key_id, newest in manifest["key_versions"].items():
        live = root.live_versions(OWN, key_id)
        assert live[-1] == newest + 2, key_id
    assert root.list_mounts("xbvault-transition") == []
    spaces = lab.sql(
        "replica",
        "SELECT DISTINCT KEYSERVER_REQUESTS, CURRENT_KEY_VERSION "
        "FROM information_schema.INNODB_TABLESPACES_ENCRYPTION WHERE CURRENT_KEY_ID > 0",
    )
    assert spaces


def test_a_restore_leaves_nothing_but_the_set(
    lab: CloneLab, stored: Stored, restored: dict[str, Any]
) -> None:
    """Jobs, secrets, tokens and the staging directory are gone, and the set is as it was."""
    set_laws.check_nothing_outlives(lab, ("store", "replica"), run_dirs=True)
    assert list_beside(lab) in ([], [f"mysql.xbvault-old-{restored['run_id']}"])
    set_laws.check_whole(lab, stored.name)
    laws.check_ended(lab, restored["run_id"], "succeeded")
    fence = laws.read_lock(lab)["fence"]
    assert lab.run("runs", "resume", restored["run_id"], yes=False)["status"] == "succeeded"
    assert laws.read_lock(lab)["fence"] == fence


def test_a_restore_is_undone_and_done_again(
    lab: CloneLab, stored: Stored, restored: dict[str, Any]
) -> None:
    """A second restore sets the first aside; its undo gives that back; the set can be restored again.

    The earlier of the two sets can be asked for by its name.
    """
    assert lab.restore("latest", "replica", check=False)["exit"] == 3
    lab.sql("replica", "INSERT INTO shop.audit (what) VALUES ('the first one')")
    inode = read_inode(lab)
    writes = lab.restore("latest", "replica", "--replace", check=False)
    assert writes["exit"] == 3
    assert "takes writes" in writes["error"]["message"]
    lab.sql("replica", "SET GLOBAL read_only = ON")
    second = lab.restore("latest", "replica", "--replace", "--read-only")
    assert read_inode(lab) != inode
    assert laws.read_digests(lab, "replica", MARIADB) == stored.digests
    for _ in range(2):
        assert lab.sql("replica", "SELECT @@read_only, @@event_scheduler") == [["1", "OFF"]]
        restart(lab, "replica")
    undone = lab.run("runs", "undo", second["run_id"])
    assert undone["status"] == "undone"
    assert read_inode(lab) == inode
    assert lab.sql("replica", "SELECT what FROM shop.audit WHERE what = 'the first one'")
    assert not [name for name in list_beside(lab) if second["run_id"] in name]
    set_laws.check_whole(lab, stored.name)
    set_laws.check_nothing_outlives(lab, ("store", "replica"), run_dirs=True)
    lab.sql("replica", "SET GLOBAL read_only = ON")
    again = lab.restore(stored.name, "replica", "--replace", "--read-only")
    assert again["status"] == "succeeded"
    assert laws.read_digests(lab, "replica", MARIADB) == stored.digests


def test_an_undone_backup_is_gone_for_good(
    lab: CloneLab, earlier: dict[str, Any], stored: Stored, restored: dict[str, Any]
) -> None:
    """Its folder is gone and its keys destroyed; a copy of the folder is of no use; others stand.

    It is undone while its donor is gone: that needs the donor for nothing but jobs that ran there.
    """
    name = earlier["backup_id"]
    lab.lab("power-on", "master")
    kept = set_laws.find_repository(lab).parent / "kept"
    lab.on("store", f"cp -a /srv/backups/{name} /srv/kept")
    undone = lab.run("runs", "undo", earlier["run_id"])
    assert undone["status"] == "undone"
    set_laws.check_removed(lab, name)
    assert set_laws.read_keys_state(lab, name) == "destroyed"
    set_laws.check_whole(lab, stored.name)
    pid, inode = read_pid(lab), read_inode(lab)

    gone = lab.restore(name, "replica", "--replace", check=False)
    assert gone["exit"] == 3
    assert f"no backup set {name}" in gone["error"]["message"]
    kept.rename(set_laws.find_repository(lab) / name)
    unread = lab.restore(name, "replica", "--replace", check=False)
    assert unread["exit"] == 5, unread["error"]
    said = json.dumps(unread["error"])
    assert "were destroyed on" in said
    assert earlier["run_id"] in said
    assert (read_pid(lab), read_inode(lab)) == (pid, inode)
    lab.on("store", f"rm -r /srv/backups/{name}")


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """A laboratory whose donor lives on."""
    folder = tmp_path_factory.mktemp("follows") / "lab"
    with running_lab(folder, "--stores", "1", size=0.02) as found:
        yield found


def test_a_restored_host_follows_the_living_donor(living: CloneLab) -> None:
    """It replicates from where the backup was taken, through what was written since, and is quiet."""
    document = living.backup("master", "--compress", "zstd:3")
    assert set_laws.read_manifest(living, document["backup_id"])["compress"] == "zstd:3"
    before = laws.note(living, "master")
    living.sql("master", "INSERT INTO shop.audit (what) VALUES ('since the backup')")
    restored = living.restore(document["backup_id"], "replica", "--as-replica-of", "master")
    assert restored["status"] == "succeeded"
    assert restored["replication"]["io_running"]
    assert restored["replication"]["sql_running"]
    check_arrival(living)
    assert living.sql("replica", "SELECT @@GLOBAL.read_only") == [["1"]]
    assert read_source(living)["Master_Host"]
    laws.check_recipient_equals_donor(living)
    account = f"xbvault_{restored['run_id'].rpartition('-')[2]}"
    laws.check_donor_is_as_it_was(living, before, accounts={account})
    set_laws.check_nothing_outlives(living, ("store", "replica", "master"), run_dirs=True)
    set_laws.check_whole(living, document["backup_id"])
    assert list_leftovers(living, restored["run_id"]) == []
    restart(living, "replica")
    living.lab("writer", "start")
    check_arrival(living)


def test_undo_of_a_following_restore_leaves_no_account(living: CloneLab) -> None:
    """The source has no account of the run any more, and the recipient what it had before."""
    inode = read_inode(living)
    accounts = living.sql("master", "SELECT user FROM mysql.user ORDER BY 1")
    restored = living.restore("latest", "replica", "--as-replica-of", "master", "--replace")
    assert read_inode(living) != inode
    assert living.run("runs", "undo", restored["run_id"])["status"] == "undone"
    assert read_inode(living) == inode
    assert living.sql("master", "SELECT user FROM mysql.user ORDER BY 1") == accounts
    check_arrival(living)
    assert living.on("replica", f"ls -d {DATADIR}").strip() == DATADIR


def test_the_host_that_a_backup_came_from_is_not_overwritten(living: CloneLab) -> None:
    """A restore onto the running donor is refused, and nothing is touched, also with --replace."""
    pid, inode = read_pid(living, "master"), read_inode(living, host="master")
    for options in ((), ("--replace",)):
        refused = living.restore("latest", "master", *options, check=False)
        assert refused["exit"] == 3, refused
        assert (read_pid(living, "master"), read_inode(living, host="master")) == (pid, inode)
    assert living.lab("writer", "status").stdout.startswith("running")


def test_a_host_gets_its_own_set_back(living: CloneLab) -> None:
    """Under keys that are new, in the mount that has the set's own; nothing else can be its own."""
    living.lab("writer", "stop")
    living.lab("server", "stop", "master")
    restored = living.restore("latest", "master", "--replace")
    assert restored["status"] == "succeeded"
    checks = {check["name"]: check for check in restored["checks"]}
    assert checks["keys-not-shared"]["ok"]
    assert "not compared" in checks["keys-not-shared"]["evidence"]
    assert living.sql("master", "SELECT @@GLOBAL.read_only") == [["0"]]
    assert list_leftovers(living, restored["run_id"]) == []
