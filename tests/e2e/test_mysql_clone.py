"""The clone of an encrypted MySQL server, from end to end: twice, undone, forgotten.

The servers are real; the backup tool is a double of XtraBackup. One laboratory for the whole file,
whose master is being written all the while. Its fixtures are the story, one chapter each, and the
tests hold in their order. In the first clone every process and every small file is looked at for
its secrets; in the second the orchestrator is killed again and again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kills
import pytest
from clone_lab import CLONE_CHECKS
from lab import model
from leak_scanner import Hit, Known, Recorder, scan, trees_of
from mysql_lab import (
    KEYRING,
    SHARED_KINDS,
    knobs,
    list_keys_in_file,
    list_master_keys,
    mysql_lab,
    read_source,
)
from replicas import (
    DATADIR,
    OBJECTS,
    check_arrival,
    list_beside,
    list_leftovers,
    read_inode,
    read_newest_run,
    read_pid,
    restart,
    show_run,
)
from vault_root import VaultRoot
from warm_cli import WarmCli, warm_cli

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clone_lab import CloneLab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

RECORDS = "xbvault"
OF_MARIADB = {"tablespaces-own-key", "server-on-own-mount", "donor-mount-refused"}
"""Checks of what MySQL with a keyring in a file does not have."""
CHECKS = [name for name in CLONE_CHECKS if name not in OF_MARIADB]
CALLS = "/var/log/mysql/calls-of-the-tool"
OPTION_FILE = re.compile(
    r"/run/xbvault/[^/]+/(?:\.xbvault\.\w+|backup\.cnf|prepare\.cnf|restore\.cnf)"
)
"""The one place where the transition key may be seen, while a command reads it."""
KILLS: list[kills.Point] = [
    ("stream-backup", "after"),
    ("prepare-backup-set", "before"),
    ("prepare-backup-set", "after"),
    ("move-backup-set", "after"),
    ("swap-datadir", "after"),
    ("start-server", "after"),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clone:
    """A clone that has ended.

    Attributes:
        document: What was printed at its end.
        shown: What ``runs show --json`` tells of it.
        uuid: The replica's ``server_uuid`` after it.
        keys: Names of the master keys in the replica's keyring.
    """

    document: dict[str, Any]
    shown: dict[str, Any]
    uuid: str
    keys: set[str]

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return str(self.shown["run_id"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched:
    """A clone that was watched.

    Attributes:
        clone: The clone.
        hits: Where its secrets were seen.
        calls: What the backup tool has written down of its calls, by host.
    """

    clone: Clone
    hits: tuple[Hit, ...]
    calls: dict[str, list[dict[str, Any]]]


def read_uuid(lab: CloneLab, host: str) -> str:
    """Return a server's own UUID."""
    return lab.sql(host, "SELECT @@GLOBAL.server_uuid")[0][0]


def tell(lab: CloneLab, document: dict[str, Any]) -> Clone:
    """Return a clone that has ended, with what is to be seen of it."""
    return Clone(
        document=document,
        shown=show_run(lab, document["run_id"]),
        uuid=read_uuid(lab, "replica"),
        keys=list_master_keys(lab, "replica"),
    )


def read_objects(lab: CloneLab, host: str) -> list[list[str]]:
    """Return all that a server holds beside rows."""
    statements = ";\n".join(OBJECTS[kind] for kind in SHARED_KINDS)
    return sorted(lab.sql(host, f"SET NAMES utf8mb4;\n{statements}"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    with mysql_lab(tmp_path_factory.mktemp("mysql") / "lab") as found:
        yield found


@pytest.fixture(scope="module")
def cli(lab: CloneLab) -> Iterator[WarmCli]:
    """The command line; runs by file and position, unless another configuration is named."""
    config = lab.directory / "position.toml"
    text = lab.config_file.read_text(encoding="utf-8")
    config.write_text(f'{text}\n[clone]\ncoordinates = "position"\n', encoding="utf-8")
    with warm_cli(config) as made:
        yield made


@pytest.fixture(scope="module")
def watched(lab: CloneLab, cli: WarmCli, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Clone by file and position, onto a recipient that has nothing, and look on."""
    seen = model.load(lab.directory)
    root = VaultRoot(lab.directory)
    recorder = Recorder(seen, tmp_path_factory.mktemp("watch") / "seen", trace=False)
    with knobs(lab, "master", log=CALLS), knobs(lab, "replica", log=CALLS), recorder:
        crash = {"XBVAULT_CRASH_AT": "verify-backup-set:before"}
        killed = cli.call("clone", "master", "replica", "--yes", "--json", env=crash)
        assert killed.returncode == -9, killed.stderr
        (backup_id,) = root.list_secrets(RECORDS, "transition-keys")
        key = root.read_secret(RECORDS, f"transition-keys/{backup_id}")["key"]
        ended = cli.call("runs", "resume", kills.read_newest(lab), "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    run_id = json.loads(ended.stdout)["run_id"]
    password = root.read_secret(RECORDS, f"replication/master/replica/{run_id}")["password"]
    known = [
        Known(kind="transition-key", value=key.encode()),
        Known(kind="replication-password", value=password.encode()),
    ]
    calls = {
        host: [json.loads(line) for line in lab.on(host, f"cat {CALLS}").splitlines()]
        for host in ("master", "replica")
    }
    return Watched(
        clone=tell(lab, json.loads(ended.stdout)),
        hits=tuple(scan(known, contents=recorder.contents(), trees=trees_of(seen))),
        calls=calls,
    )


@pytest.fixture(scope="module")
def first(watched: Watched) -> Clone:
    """Return that clone."""
    return watched.clone


def test_every_check_is_there_and_holds(first: Clone) -> None:
    """A clone ends well with every check that a file as keyring has, and all of them hold."""
    assert first.document["status"] == "succeeded"
    assert [check["name"] for check in first.document["checks"]] == CHECKS
    assert all(check["ok"] and check["evidence"] for check in first.document["checks"])


def test_replication_by_file_and_position(lab: CloneLab, first: Clone) -> None:
    """With coordinates of file and position, the replica follows over TLS without GTIDs."""
    assert first.document["replication"]["uses_gtid"] is False
    source = read_source(lab)
    assert source["Auto_Position"] == "0"
    assert source["Replica_IO_Running"] == source["Replica_SQL_Running"] == "Yes"
    assert source["Source_SSL_Allowed"] == source["Source_SSL_Verify_Server_Cert"] == "Yes"
    check_arrival(lab)


def test_the_replica_has_all_that_the_donor_has(lab: CloneLab, first: Clone) -> None:
    """Every object of the donor is on the replica, the same in all that defines it."""
    theirs = read_objects(lab, "master")
    assert len(theirs) > 500
    assert read_objects(lab, "replica") == theirs


def test_the_replica_is_a_server_of_its_own(lab: CloneLab, first: Clone) -> None:
    """It has a UUID of its own, keys of its own, and nothing of the donor's in its datadir."""
    assert first.uuid != read_uuid(lab, "master")
    assert first.keys
    assert not first.keys & list_master_keys(lab, "master")
    names = lab.on("replica", f"ls -A {DATADIR}").split()
    assert [name for name in names if name.startswith(("xtrabackup", "backup-my"))] == []
    configured = json.loads(lab.on("replica", f"cat {DATADIR}/component_keyring_file.cnf"))
    assert configured["path"] == f"{KEYRING}/keyring"


def test_the_replica_is_quiet(lab: CloneLab, first: Clone) -> None:
    """The replica is read-only, and none of the donor's events runs there."""
    assert lab.sql("replica", "SELECT @@GLOBAL.read_only") == [["1"]]
    rows = lab.sql("replica", "SELECT EVENT_NAME, STATUS FROM information_schema.EVENTS")
    assert dict(rows) == {"tick": "REPLICA_SIDE_DISABLED", "sleeping": "DISABLED"}


def test_no_process_is_told_a_secret(watched: Watched) -> None:
    """Transition key and password stand in no argument, environment, file, log or journal."""
    found = [
        hit
        for hit in watched.hits
        if not (
            hit.kind == "transition-key"
            and (hit.place, hit.seen_by) == ("tmpfs", "sample")
            and OPTION_FILE.fullmatch(hit.name)
        )
    ]
    assert found == []


def test_the_watch_was_awake(watched: Watched) -> None:
    """The transition key was seen where the tool reads it, on both hosts, and nowhere afterwards."""
    names = {(hit.host, Path(hit.name).name) for hit in watched.hits}
    assert {("master", "backup.cnf"), ("replica", "prepare.cnf")} <= names
    assert {hit.seen_by for hit in watched.hits} == {"sample"}


def test_the_tool_gets_the_key_by_option_file(watched: Watched) -> None:
    """Backup, prepare and restore were called without the key in an argument, and without asking."""
    modes = [
        word
        for call in (*watched.calls["master"], *watched.calls["replica"])
        for word in call["argv"]
        if word in ("--backup", "--prepare", "--copy-back")
    ]
    assert modes == ["--backup", "--prepare", "--copy-back"]
    for calls in watched.calls.values():
        assert not any(call["key_in_argv"] or call["prompted"] for call in calls)


def test_nothing_is_left_over(lab: CloneLab, first: Clone) -> None:
    """Jobs, staging, option files and the key are gone, and the datadir that was there is kept."""
    assert list_leftovers(lab, first.run_id) == []
    assert list_beside(lab) == [f"mysql.xbvault-old-{first.run_id}"]
    assert list_beside(lab, "master") == []
    root = VaultRoot(lab.directory)
    assert root.live_versions(RECORDS, f"transition-keys/{first.document['backup_id']}") == []
    restart(lab, "replica")
    check_arrival(lab)


@pytest.fixture(scope="module")
def second(lab: CloneLab, cli: WarmCli, first: Clone) -> Clone:
    """Clone again by GTID, onto the replica that runs; kill the orchestrator at every point."""
    before, inode, donor = read_newest_run(lab)["run_id"], read_inode(lab), read_pid(lab, "master")

    def command() -> Sequence[str]:
        run_id = kills.read_newest(lab)
        if run_id == before:
            return "clone", "master", "replica", "--replace", "--yes", "--json"
        return "runs", "resume", run_id, "--json"

    def judge() -> list[str]:
        kept = [
            read_inode(lab),
            *(read_inode(lab, f"/var/lib/{name}") for name in list_beside(lab)),
        ]
        return [
            *([] if inode in kept else [f"the earlier datadir is gone: {kept}"]),
            *([] if read_pid(lab, "master") == donor else ["the donor was started again"]),
        ]

    with warm_cli(lab.config_file) as by_gtid:
        done = kills.kill_at_each(by_gtid, KILLS, command, judge)
    assert done.breaches == []
    assert done.all_killed, done.exits
    assert done.last.returncode == 0, done.last.stdout + done.last.stderr
    return tell(lab, json.loads(done.last.stdout))


def test_a_clone_outlives_kills_of_its_orchestrator(
    lab: CloneLab, first: Clone, second: Clone
) -> None:
    """Killed and resumed at every point, the clone ends like one that was left in peace."""
    assert second.document["status"] == "succeeded"
    assert [check["name"] for check in second.document["checks"]] == CHECKS
    assert all(check["ok"] for check in second.document["checks"])
    assert second.document["replication"]["uses_gtid"] is True
    assert read_source(lab)["Auto_Position"] == "1"
    assert list_leftovers(lab, second.run_id) == []
    events = kills.read_events(lab.directory / "state", second.run_id)
    ended = [event["step"] for event in events if event["event"] == "step.ended"]
    assert len(ended) == len(set(ended))
    restart(lab, "replica")
    check_arrival(lab)


def test_the_earlier_replicas_keys_are_kept(lab: CloneLab, first: Clone, second: Clone) -> None:
    """The keyring holds the earlier keys and a new one, and the earlier file waits beside it."""
    assert first.keys < second.keys
    assert second.uuid not in (first.uuid, read_uuid(lab, "master"))
    old = f"{KEYRING}/.xbvault/old-{second.run_id}/keyring"
    assert list_keys_in_file(lab, "replica", old) >= first.keys
    assert not second.keys - first.keys & list_keys_in_file(lab, "replica", old)


@pytest.fixture(scope="module")
def undone(lab: CloneLab, second: Clone) -> dict[str, Any]:
    """Undo the second clone; return what was shown of it."""
    ended = lab.xbvault("runs", "undo", second.run_id, "--yes", "--json")
    assert json.loads(ended.stdout)["status"] == "undone"
    return show_run(lab, second.run_id)


def test_undo_gives_datadir_and_keyring_back(
    lab: CloneLab, first: Clone, second: Clone, undone: dict[str, Any]
) -> None:
    """After an undo the earlier replica runs on the earlier keyring, after a restart as well."""
    assert list_beside(lab) == [f"mysql.xbvault-old-{first.run_id}"]
    assert list_leftovers(lab, second.run_id) == []
    check_arrival(lab)
    restart(lab, "replica")
    check_arrival(lab)
    assert read_uuid(lab, "replica") == first.uuid
    assert list_master_keys(lab, "replica") == first.keys
    assert read_source(lab)["Source_User"].endswith(first.run_id.rpartition("-")[2])


@pytest.fixture(scope="module")
def forgotten(lab: CloneLab, first: Clone, undone: dict[str, Any]) -> dict[str, Any]:
    """Forget the first clone: nothing is set aside any more."""
    ended = lab.xbvault("runs", "forget", first.run_id, "--yes", "--json")
    assert json.loads(ended.stdout)["status"] == "forgotten"
    return show_run(lab, first.run_id)


def test_forget_leaves_a_replica_that_restarts(
    lab: CloneLab, first: Clone, forgotten: dict[str, Any]
) -> None:
    """After forget nothing of ours lies beside datadir and keyring, and both servers restart."""
    assert list_beside(lab) == []
    assert lab.on("replica", f"ls -A {KEYRING}").split() == ["keyring"]
    restart(lab, "replica")
    restart(lab, "master")
    check_arrival(lab)
    assert list_master_keys(lab, "replica") == first.keys
