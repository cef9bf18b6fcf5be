"""The main job, real from end to end: clone, replace, undo, forget, and what the replica outlives.

One laboratory for the whole file, whose master is being written all the while. Its fixtures are the
story, one chapter each, and a test looks at the chapter before the next begins: so the tests hold
in their order.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import MARIADB_CHECKS, CloneLab, running_lab
from replicas import (
    DATADIR,
    OBJECTS,
    check_arrival,
    list_beside,
    list_leftovers,
    list_objects,
    list_tables,
    read_inode,
    read_newest_run,
    read_pid,
    read_source,
    restart,
    show_run,
)
from vault_root import VaultRoot

from orchestrator.steps import bottleneck

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

OWN, DONORS, RECORDS = "mariadb-replica", "mariadb-master", "xbvault"
KEY_IDS = ("1", "2")
DONOR_VERSIONS = 3
"""The laboratory's master has used three versions of each of its keys."""
POLICY = "xbvault-orchestrator"
FOREIGN_EVENT = """
SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT', time_zone = '+02:00';
CREATE DEFINER = 'o''brien "odd"'@'10.%' EVENT shop."it's daily" ON SCHEDULE EVERY 1 DAY
  DO INSERT INTO shop.audit (what) VALUES ('never ' || 'here');
"""
"""An event that belongs to somebody else than the administrator, with settings of its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clone:
    """A clone that has ended.

    Attributes:
        document: What ``clone --json`` printed, and its exit status as ``exit``.
        shown: What ``runs show --json`` tells of it.
        written: Newest row of the writer before and after.
    """

    document: dict[str, Any]
    shown: dict[str, Any]
    written: tuple[int, int]

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return str(self.shown["run_id"])

    @property
    def names(self) -> list[str]:
        """Names of its checks."""
        return [check["name"] for check in self.shown["checks"]]


def read_written(lab: CloneLab) -> int:
    """Return the newest row of the writer."""
    return int(lab.sql("master", "SELECT MAX(id) FROM live.ledger")[0][0])


def clone(lab: CloneLab, *options: str) -> Clone:
    """Clone master to replica while the writer writes."""
    before = read_written(lab)
    document = lab.clone(*options)
    after = read_written(lab)
    shown = show_run(lab, document["run_id"])
    return Clone(document=document, shown=shown, written=(before, after))


def each_key(*versions: int) -> dict[str, list[int]]:
    """Return these versions for every key."""
    return {key_id: list(versions) for key_id in KEY_IDS}


def live_versions(root: VaultRoot, mount: str = OWN) -> dict[str, list[int]]:
    """Return the versions of every key of a mount that can still be read."""
    return {key_id: root.live_versions(mount, key_id) for key_id in root.list_secrets(mount)}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    with running_lab(tmp_path_factory.mktemp("clone") / "lab", is_warm=False) as found:
        found.sql("master", FOREIGN_EVENT)
        yield found


@pytest.fixture(scope="module")
def root(lab: CloneLab) -> VaultRoot:
    """Return the laboratory's Vault in its administrator's hands."""
    return VaultRoot(lab.directory)


@pytest.fixture(scope="module")
def first(lab: CloneLab) -> Clone:
    """Clone to a recipient that has nothing."""
    return clone(lab)


def test_every_check_is_there_and_holds(first: Clone) -> None:
    """A clone ends with exit status 0, with every check of the fixed list, and all of them hold."""
    assert first.document["exit"] == 0
    assert first.document["status"] == "succeeded"
    assert first.document["error"] is None
    assert first.names == MARIADB_CHECKS
    assert all(check["ok"] and check["evidence"] for check in first.document["checks"])


def test_the_document_tells_what_a_script_needs(first: Clone) -> None:
    """Names, seconds by step, bytes, coordinates and the state of replication are told."""
    document = first.document
    assert re.fullmatch(r"\d{8}T\d{6}Z-replica-[0-9a-f]{8,}", document["run_id"])
    assert re.fullmatch(r"\d{8}T\d{6}Z-master-[0-9a-f]{8,}", document["backup_id"])
    steps = {step["name"] for step in first.shown["steps"]}
    assert set(document["seconds"]) == {*steps, "total"}
    assert document["bytes_streamed"] > 50_000_000
    assert document["coordinates"]["file"].startswith("bin.")
    assert document["coordinates"]["gtid"]
    replication = document["replication"]
    assert replication["io_running"]
    assert replication["sql_running"]
    assert replication["uses_tls"]
    assert replication["uses_gtid"]


def test_the_transfer_is_told_with_what_limited_it(first: Clone) -> None:
    """Bytes, rate, the processor time of every process of the stream, and the kernel's account."""
    transfer = first.document["transfer"]
    assert transfer["bytes"] == first.document["bytes_streamed"]
    assert 0 < transfer["seconds"] <= first.document["seconds"]["stream-backup"]
    assert transfer["bytes_per_second"] == round(transfer["bytes"] / transfer["seconds"])
    assert transfer["bottleneck"] in ("", *bottleneck.BOTTLENECKS)
    assert transfer["evidence"]
    assert set(transfer["cpu_seconds"]) == {"read", "encrypt", "write"}
    assert all(0 < spent < 300 for spent in transfer["cpu_seconds"].values())
    assert 0 <= transfer["held_up_share"] <= 1
    account = transfer["connection"]
    assert 0 < account["busy_seconds"] <= account["seconds"] <= transfer["seconds"] + 1
    assert account["receiver_seconds"] + account["buffer_seconds"] <= account["busy_seconds"]


def test_the_log_tells_how_far_the_steps_are(lab: CloneLab, first: Clone) -> None:
    """The stream tells bytes, re-encryption tablespaces, the comparison tables."""
    path = lab.directory / "state/logs" / f"{first.run_id}.jsonl"
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    told = {e["step"]: e for e in events if e["event"] == "job.progress"}
    assert 0 < told["stream-backup"]["bytes"] <= first.document["bytes_streamed"]
    assert told["stream-backup"]["host"] == "master"
    spaces = told["re-encrypt-tablespaces"]
    assert 0 < spaces["tablespaces"] == spaces["expected_tablespaces"]
    assert told["compare-tables"]["expected_tables"] > 0


def test_runs_show_tells_the_same(first: Clone) -> None:
    """What the clone printed at its end is what the journal tells of it."""
    told = {key: value for key, value in first.document.items() if key != "exit"}
    assert {key: first.shown[key] for key in told} == told


def test_the_writer_wrote_all_the_while(lab: CloneLab, first: Clone) -> None:
    """The donor took writes during the clone, and takes them afterwards."""
    before, after = first.written
    assert after > before + 50
    assert lab.lab("writer", "status").stdout.startswith("running")


@pytest.mark.parametrize("kind", OBJECTS)
def test_the_replica_has_all_that_the_donor_has(lab: CloneLab, first: Clone, kind: str) -> None:
    """Every object of the donor is on the replica, the same in all that defines it."""
    theirs = list_objects(lab, "master", kind)
    assert theirs
    assert list_objects(lab, "replica", kind) == theirs


def test_events_do_not_run_on_the_replica(lab: CloneLab, first: Clone) -> None:
    """Events are disabled on the replica, those that were disabled on the donor as they were."""
    rows = lab.sql("replica", "SELECT EVENT_NAME, STATUS FROM information_schema.EVENTS")
    assert dict(rows) == {
        "tick": "SLAVESIDE_DISABLED",
        "sleeping": "DISABLED",
        "it's daily": "SLAVESIDE_DISABLED",
    }
    theirs = lab.sql("master", "SELECT EVENT_NAME, STATUS FROM information_schema.EVENTS")
    assert dict(theirs) == {"tick": "ENABLED", "sleeping": "DISABLED", "it's daily": "ENABLED"}


def test_the_replica_is_read_only(lab: CloneLab, first: Clone) -> None:
    """The replica is read-only, its donor is not."""
    assert lab.sql("replica", "SELECT @@GLOBAL.read_only") == [["1"]]
    assert lab.sql("master", "SELECT @@GLOBAL.read_only") == [["0"]]


def test_a_new_row_arrives(lab: CloneLab, first: Clone) -> None:
    """A row that is written on the donor after the clone arrives on the replica."""
    check_arrival(lab)


def test_nothing_is_left_over(lab: CloneLab, root: VaultRoot, first: Clone) -> None:
    """After success the transition mount, the jobs, the staging directory and the secrets are gone."""
    assert list_leftovers(lab, first.run_id) == []
    assert list_beside(lab) == [f"mysql.xbvault-old-{first.run_id}"]
    assert list_beside(lab, "master") == []
    assert root.list_mounts("xbvault-transition") == []


def test_the_record_of_the_transition_key_stays(root: VaultRoot, first: Clone) -> None:
    """No version of the transition key can be read, and its record says when and by which run."""
    path = f"transition-keys/{first.document['backup_id']}"
    assert root.live_versions(RECORDS, path) == []
    record = root.read_metadata(RECORDS, path)["custom_metadata"]
    assert record["state"] == "destroyed"
    assert record["destroyed_by"] == first.run_id
    assert record["run"] == first.run_id
    assert record["donor"] == "master"


def test_the_recipients_mount_has_a_new_pair(root: VaultRoot, first: Clone) -> None:
    """The recipient's mount got placeholders up to the donor's newest version, and two new ones."""
    assert live_versions(root, DONORS) == each_key(1, 2, 3)
    assert live_versions(root) == each_key(1, 2, 3, 4, 5)


def test_a_replica_that_runs_is_refused_without_replace(lab: CloneLab, first: Clone) -> None:
    """Without --replace, a recipient that has data ends with exit status 3 and is left alone."""
    pid, inode = read_pid(lab), read_inode(lab)
    document = lab.clone(check=False)
    assert document["exit"] == 3
    bad = {check["name"] for check in document["checks"] if not check["ok"]}
    assert bad == {"recipient-datadir", "recipient-server"}
    assert all("--replace" in problem for problem in document["error"]["problems"])
    assert (read_pid(lab), read_inode(lab)) == (pid, inode)
    assert read_newest_run(lab)["run_id"] == first.run_id
    assert list_beside(lab) == [f"mysql.xbvault-old-{first.run_id}"]


@pytest.fixture(scope="module")
def second(lab: CloneLab, first: Clone) -> Clone:
    """Clone again, onto the replica that runs."""
    return clone(lab, "--replace")


def test_replace_makes_the_replica_anew(lab: CloneLab, first: Clone, second: Clone) -> None:
    """A clone onto a running replica succeeds like the first, and sets its datadir aside."""
    assert second.document["exit"] == 0
    assert second.names == MARIADB_CHECKS
    assert all(check["ok"] for check in second.document["checks"])
    assert list_beside(lab) == [
        f"mysql.xbvault-old-{run.run_id}" for run in sorted((first, second), key=lambda r: r.run_id)
    ]
    check_arrival(lab)


def test_an_earlier_swap_cannot_be_undone(lab: CloneLab, first: Clone, second: Clone) -> None:
    """Undo is refused for a run that is not the latest swap, and nothing is touched."""
    pid, inode = read_pid(lab), read_inode(lab)
    refused = lab.xbvault("runs", "undo", first.run_id, "--yes", "--json", check=False)
    assert refused.returncode == 3, refused.stderr
    assert "is not the latest swap" in json.loads(refused.stdout)["error"]["message"]
    assert show_run(lab, first.run_id)["status"] == "succeeded"
    assert (read_pid(lab), read_inode(lab)) == (pid, inode)
    check_arrival(lab)


@pytest.fixture(scope="module")
def undone(lab: CloneLab, second: Clone) -> dict[str, Any]:
    """Undo the second clone; return what was shown of it."""
    ended = lab.xbvault("runs", "undo", second.run_id, "--yes", "--json")
    assert json.loads(ended.stdout)["status"] == "undone"
    return show_run(lab, second.run_id)


def test_undo_gives_the_earlier_replica_back(
    lab: CloneLab, first: Clone, second: Clone, undone: dict[str, Any]
) -> None:
    """After an undo the earlier replica runs, and after a restart of its server rows arrive."""
    assert list_beside(lab) == [f"mysql.xbvault-old-{first.run_id}"]
    assert list_leftovers(lab, second.run_id) == []
    check_arrival(lab)
    restart(lab, "replica")
    check_arrival(lab)
    assert read_source(lab)["Master_User"].endswith(first.run_id.rpartition("-")[2])
    assert lab.sql("replica", "SELECT @@GLOBAL.read_only") == [["1"]]


def test_undo_takes_its_own_account_only(
    lab: CloneLab, root: VaultRoot, first: Clone, second: Clone, undone: dict[str, Any]
) -> None:
    """The account of the run that was undone is gone, that of the earlier replica stays."""
    users = lab.sql("master", "SELECT User FROM mysql.global_priv WHERE User LIKE 'xbvault%'")
    assert users == [[f"xbvault_{first.run_id.rpartition('-')[2]}"]]
    assert root.list_secrets(RECORDS, "replication/master/replica") == [first.run_id]


def test_undo_destroys_no_key(root: VaultRoot, undone: dict[str, Any]) -> None:
    """Every key version that the run wrote to the recipient's mount is still there."""
    assert live_versions(root) == each_key(1, 2, 3, 4, 5, 6, 7)


def test_an_undo_is_final(lab: CloneLab, second: Clone, undone: dict[str, Any]) -> None:
    """A second undo changes nothing, and what was undone is not resumed."""
    pid = read_pid(lab)
    again = lab.xbvault("runs", "undo", second.run_id, "--yes", "--json")
    assert json.loads(again.stdout)["status"] == "undone"
    resumed = lab.xbvault("runs", "resume", second.run_id, check=False)
    assert resumed.returncode == 3
    assert "undone" in resumed.stderr
    assert read_pid(lab) == pid


@pytest.fixture(scope="module")
def third(lab: CloneLab, root: VaultRoot, undone: dict[str, Any]) -> Clone:
    """Clone by file and position; the right to read the donor's mount goes in the middle of it."""
    config = lab.directory / "position.toml"
    text = lab.config_file.read_text(encoding="utf-8")
    config.write_text(f'{text}\n[clone]\ncoordinates = "position"\n', encoding="utf-8")
    before = read_written(lab)
    killed = lab.xbvault(
        *("clone", "master", "replica", "--replace", "--json", "--yes"),
        config=config,
        env={"XBVAULT_CRASH_AT": "create-transition-mount:before"},
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    run = read_newest_run(lab)
    assert run["status"] == "interrupted"
    policy = root.read_policy(POLICY)
    blocks = re.findall(r'^path "[^"]*" \{.*?^\}\n', policy, re.MULTILINE | re.DOTALL)
    kept = [block for block in blocks if DONORS not in block]
    assert 0 < len(kept) < len(blocks)
    root.write_policy(POLICY, "".join(kept))
    try:
        resumed = lab.xbvault("runs", "resume", run["run_id"], "--json", config=config, check=False)
        assert resumed.returncode == 0, resumed.stderr
    finally:
        root.write_policy(POLICY, policy)
    document = {**json.loads(resumed.stdout), "exit": resumed.returncode}
    shown = show_run(lab, run["run_id"])
    return Clone(document=document, shown=shown, written=(before, read_written(lab)))


def test_the_donors_mount_is_not_read_once_the_bundle_is_sealed(
    lab: CloneLab, root: VaultRoot, third: Clone
) -> None:
    """A clone succeeds whose orchestrator may not read the donor's keys after it sealed them."""
    audit = (lab.directory / "vault/audit.log").read_text(encoding="utf-8")
    assert f'"{DONORS}/data/1"' in audit
    assert third.document["status"] == "succeeded"
    assert third.names == MARIADB_CHECKS
    assert all(check["ok"] for check in third.document["checks"])


def test_a_resumed_run_does_no_finished_step_again(lab: CloneLab, third: Clone) -> None:
    """What had ended before the process was killed was not done again."""
    path = lab.directory / "state/logs" / f"{third.run_id}.jsonl"
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    began = [event["step"] for event in events if event["event"] == "step.began"]
    assert began.count("stream-backup") == began.count("seal-key-bundle") == 1
    assert began.count("create-transition-mount") == 2
    assert all(began.count(step["name"]) <= 2 for step in third.shown["steps"])


def test_replication_by_file_and_position(lab: CloneLab, third: Clone) -> None:
    """With coordinates of file and position, the replica follows without GTIDs."""
    assert third.document["replication"]["uses_gtid"] is False
    source = read_source(lab)
    assert source["Using_Gtid"] == "No"
    assert source["Slave_IO_Running"] == source["Slave_SQL_Running"] == "Yes"
    check_arrival(lab)


@pytest.fixture(scope="module")
def forgotten(lab: CloneLab, first: Clone, third: Clone) -> dict[str, Any]:
    """Forget the first clone, while the third has its datadir set aside."""
    ended = lab.xbvault("runs", "forget", first.run_id, "--yes", "--json")
    assert json.loads(ended.stdout)["status"] == "forgotten"
    return show_run(lab, first.run_id)


def test_forget_keeps_what_another_datadir_needs(
    lab: CloneLab, root: VaultRoot, third: Clone, forgotten: dict[str, Any]
) -> None:
    """Forget destroys no key version that a datadir still set aside was using."""
    assert list_beside(lab) == [f"mysql.xbvault-old-{third.run_id}"]
    # The first clone made that datadir with versions 4 and 5, and its server could see up to 9.
    assert live_versions(root) == each_key(4, 5, 6, 7, 8, 9)


@pytest.fixture(scope="module")
def bare(lab: CloneLab, third: Clone, forgotten: dict[str, Any]) -> dict[str, Any]:
    """Forget the third clone as well: nothing is set aside any more."""
    ended = lab.xbvault("runs", "forget", third.run_id, "--yes", "--json")
    assert json.loads(ended.stdout)["status"] == "forgotten"
    return show_run(lab, third.run_id)


def test_forget_removes_the_old_datadir_and_its_keys(
    lab: CloneLab, root: VaultRoot, third: Clone, bare: dict[str, Any]
) -> None:
    """After forget the old datadir, the keys and the account that only it needed are gone."""
    assert list_beside(lab) == []
    assert live_versions(root) == each_key(8, 9)
    users = lab.sql("master", "SELECT User FROM mysql.global_priv WHERE User LIKE 'xbvault%'")
    assert users == [[f"xbvault_{third.run_id.rpartition('-')[2]}"]]
    assert root.list_secrets(RECORDS, "replication/master/replica") == [third.run_id]
    assert live_versions(root, DONORS) == each_key(1, 2, 3)


def test_both_restart_after_forget(lab: CloneLab, bare: dict[str, Any]) -> None:
    """Donor and replica restart with the keys that forget has left, and replication goes on."""
    restart(lab, "replica")
    restart(lab, "master")
    check_arrival(lab)


def test_what_was_forgotten_cannot_be_undone(
    lab: CloneLab, first: Clone, third: Clone, bare: dict[str, Any]
) -> None:
    """Undo after forget is refused with exit status 3, and nothing is touched."""
    pid, inode = read_pid(lab), read_inode(lab)
    for run_id in (first.run_id, third.run_id):
        refused = lab.xbvault("runs", "undo", run_id, "--yes", "--json", check=False)
        assert refused.returncode == 3, refused.stderr
        assert "forgotten" in json.loads(refused.stdout)["error"]["message"]
    assert (read_pid(lab), read_inode(lab)) == (pid, inode)


@pytest.fixture(scope="module")
def alone(lab: CloneLab, root: VaultRoot, bare: dict[str, Any]) -> None:
    """Take every key from Vault that is not the replica's own new pair, and restart the replica."""
    newest = max(live_versions(root)["1"])
    for key_id in KEY_IDS:
        root.destroy_versions(OWN, key_id, range(1, newest - 1))
    for mount in (DONORS, *root.list_mounts("xbvault-transition")):
        root.remove_mount(mount)
    restart(lab, "replica")


def test_the_replica_lives_on_its_own_two_keys(lab: CloneLab, root: VaultRoot, alone: None) -> None:
    """With every other key gone, the replica serves every table and goes on replicating."""
    assert root.list_mounts("mariadb-") == [OWN]
    assert live_versions(root) == each_key(8, 9)
    tables = list_tables(lab, "replica")
    assert tables == list_tables(lab, "master")
    script = ";\n".join(f"SELECT COUNT(*) FROM {table}" for table in tables)
    assert len(lab.sql("replica", f"SET NAMES utf8mb4; {script}")) == len(tables)
    check_arrival(lab)


def test_every_table_is_sound_on_its_own_keys(lab: CloneLab, alone: None) -> None:
    """CHECK TABLE … EXTENDED finds every table of the replica sound with no older key in Vault."""
    tables = list_tables(lab, "replica")
    script = ";\n".join(f"CHECK TABLE {table} EXTENDED" for table in tables)
    rows = lab.sql("replica", f"SET NAMES utf8mb4; {script}")
    verdicts = [(row[0], row[3]) for row in rows if row[2] == "status"]
    # A sequence is read, above, and cannot be checked.
    unchecked = {row[0] for row in rows if "doesn't support check" in row[3]}
    assert unchecked == {"shop.voucher"}
    assert len(verdicts) == len(tables) - 1
    assert {name: said for name, said in verdicts if said != "OK"} == {}
    assert [row for row in rows if row[2].lower() == "error"] == []


def test_a_backup_of_the_replica_needs_its_own_keys_only(lab: CloneLab, alone: None) -> None:
    """A backup of the replica is taken and prepared with no older key in Vault."""
    target = "/var/lib/backup-of-replica"
    tool = f"set -a; . /etc/mysql/vault.env; mariadb-backup --target-dir={target}"
    taken = lab.on("replica", f"({tool} --backup) 2>&1 | tail -n 1")
    assert taken.rstrip().endswith("completed OK!"), taken
    prepared = lab.on("replica", f"({tool} --prepare) 2>&1 | tail -n 1")
    assert prepared.rstrip().endswith("completed OK!"), prepared
    assert lab.on("replica", f"test -s {target}/ibdata1 && test -d {DATADIR} && echo there")
