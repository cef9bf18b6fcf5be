"""Binary logs archived and replayed on real servers: to a transaction, to a moment, to the end.

The tests share a laboratory, and hold in their order: the donor is gone for good half way.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import laws
import pytest
import set_laws
from clone_lab import REPOSITORY, CloneLab, running_lab
from lab import model, product
from leak_scanner import Content, Known, Recorder, scan, trees_of
from ways import MARIADB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

PLANTED = "PLANTED-in-a-transaction-4b1d0f"
AUDIT = "shop.audit"
"""What an event writes to as soon as the restored server is handed over."""
TABLES = "SELECT what FROM pitr.said ORDER BY id"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Story:
    """What happened on the donor since its backup.

    Attributes:
        backup_id: The backup.
        archives: What each archive's ``--json`` printed.
        gtids: The transaction of each row, by what it says.
        moment: Between the rows ``second`` and ``third``, in ISO 8601.
        digests: Of the donor's tables at the end of all archives.
        hits: Where the planted row was seen while logs were archived, and once it lay in a file.
    """

    backup_id: str
    archives: tuple[dict[str, Any], ...]
    gtids: dict[str, str]
    moment: str
    digests: dict[str, str]
    hits: tuple[tuple[str, ...], ...]


def say(lab: CloneLab, what: str) -> str:
    """Write a row on the donor; return its GTID."""
    lab.sql("master", f"INSERT INTO pitr.said (what) VALUES ('{what}')")
    return lab.sql("master", "SELECT @@GLOBAL.gtid_binlog_pos")[0][0]


def watched(
    lab: CloneLab, folder: Path, *arguments: str
) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """Run a command while files are sampled; return its document, and where the row was seen."""
    recorder = Recorder(model.load(lab.directory), folder, trace=False)
    with recorder:
        ended = subprocess.run(
            [*product.command(), *arguments, "--yes", "--json"],
            env={
                **os.environ,
                "XBVAULT_CONFIG": str(lab.config_file),
                "TMPDIR": str(recorder.temporary),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=REPOSITORY,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    outputs = [Content(place="output", host="", name="both", content=ended.stdout.encode())]
    return json.loads(ended.stdout), find_row(lab, [*recorder.contents(), *outputs])


def find_row(lab: CloneLab, contents: list[Content]) -> list[tuple[str, ...]]:
    """Return where the planted row stands in the clear, on any host's disk or in what was sampled."""
    known = [Known(kind="row", value=PLANTED.encode())]
    trees = trees_of(model.load(lab.directory))
    return [(hit.place, hit.host, hit.name) for hit in scan(known, contents=contents, trees=trees)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    folder = tmp_path_factory.mktemp("pitr") / "lab"
    with running_lab(folder, "--stores", "1", "--no-writer", size=0.02) as found:
        yield found


@pytest.fixture(scope="module")
def story(lab: CloneLab, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Return a backup, and what was archived since."""
    lab.sql("master", "SET GLOBAL event_scheduler = OFF")
    lab.sql(
        "master",
        "CREATE DATABASE pitr; CREATE TABLE pitr.said "
        "(id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(100))",
    )
    backup_id = lab.backup("master")["backup_id"]
    gtids = {"first": say(lab, "first"), PLANTED: say(lab, PLANTED)}
    archived, hits = watched(lab, tmp_path_factory.mktemp("seen"), "binlogs", "archive", "master")
    gtids["second"] = say(lab, "second")
    time.sleep(1.2)
    moment = lab.on("master", "date -u +%Y-%m-%dT%H:%M:%SZ").strip()
    time.sleep(1.2)
    gtids["third"] = say(lab, "third")
    lab.sql("master", "CREATE TABLE pitr.later (id INT PRIMARY KEY); FLUSH BINARY LOGS")
    gtids["fourth"] = say(lab, "fourth")
    again = lab.run("binlogs", "archive", "master")
    return Story(
        backup_id=backup_id,
        archives=(archived, again),
        gtids=gtids,
        moment=moment,
        digests=laws.read_digests(lab, "master", MARIADB),
        hits=tuple(hits),
    )


def read_rows(lab: CloneLab, host: str = "replica") -> list[str]:
    """Return what the rows of a host say."""
    return [row[0] for row in lab.sql(host, TABLES)]


def restore(lab: CloneLab, at: str, *options: str) -> dict[str, Any]:
    """Bring the newest backup back on the replica, up to a target."""
    lab.on("replica", "mariadb -e 'SET GLOBAL read_only = ON'", check=False)
    return lab.restore("latest", "replica", "--at", at, "--replace", *options)


def test_what_is_archived_is_told(lab: CloneLab, story: Story) -> None:
    """Both archives are sets that go on from each other, and each says what it was judged by."""
    (found,) = json.loads(lab.xbvault("binlogs", "list", "--json").stdout)
    assert (found["host"], found["archive_count"], found["gaps"]) == ("master", 2, [])
    assert found["gtid"] == story.gtids["fourth"]
    names = [check["name"] for check in story.archives[0]["checks"]]
    assert names == ["stream-exit-statuses", "stream-bytes", "stored-parts", "binlogs-whole"]
    listed = json.loads(lab.xbvault("backups", "list", "--json").stdout)
    assert [(each["kind"], each["state"]) for each in listed] == [
        *[("binlogs", "complete")] * 2,
        ("full", "complete"),
    ]
    manifest = set_laws.read_manifest(lab, story.archives[1]["backup_id"])
    assert len(manifest["binlogs"]) == 2
    assert lab.xbvault("backups", "verify", story.archives[1]["backup_id"]).returncode == 0


def test_no_row_is_on_a_disk_while_logs_are_archived(lab: CloneLab, story: Story) -> None:
    """The scanner finds the row where a binary log lies in a file, and nowhere else."""
    assert story.hits == ()
    lab.on(
        "master",
        "cd /root && mariadb-binlog -R --raw --protocol=socket --result-file=raw- "
        "$(mariadb -BNe 'SHOW BINARY LOGS' | cut -f1)",
    )
    assert find_row(lab, [])
    lab.on("master", "rm /root/raw-*")
    assert find_row(lab, []) == []


@pytest.mark.parametrize(
    ("at", "status", "words"),
    [
        ("0-11-99999999", 3, "is in no archive of master"),
        ("7-1-1", 3, "is in no archive of master"),
        ("2001-01-01T00:00:00Z", 3, "no backup of master ended before"),
        ("2099-01-01T00:00:00Z", 3, "lies behind the archives of master"),
        ("yesterday", 2, "is latest, a GTID"),
        ("2026-01-01T00:00:00", 2, "a moment says its time zone"),
    ],
)
def test_a_target_that_cannot_be_reached_is_refused(
    lab: CloneLab, story: Story, at: str, status: int, words: str
) -> None:
    """Before anything is begun, and it says how far the archives go."""
    assert story.backup_id
    refused = lab.xbvault("restore", "latest", "replica", "--at", at, "--yes", check=False)
    assert (refused.returncode, words in refused.stderr) == (status, True), refused.stderr


def test_an_archive_is_no_backup(lab: CloneLab, story: Story) -> None:
    """Neither can it be restored, nor is it the newest backup."""
    name = story.archives[0]["backup_id"]
    refused = lab.xbvault("restore", name, "replica", "--plan", check=False)
    assert refused.returncode == 3
    assert "set-chain" in refused.stderr
    shown = json.loads(lab.xbvault("backups", "show", "latest", "--json").stdout)
    assert shown["backup_id"] == story.backup_id


def test_to_a_transaction_with_the_donor_gone_for_good(
    lab: CloneLab, story: Story, tmp_path: Path
) -> None:
    """The one transaction is there, the next is not; no row was on a disk on the way."""
    lab.lab("power-off", "master")
    document, hits = watched(
        lab,
        tmp_path / "seen",
        *("restore", "latest", "replica", "--at", story.gtids["second"]),
    )
    assert hits == []
    assert document["replayed"] == {
        "at": story.gtids["second"],
        "gtid": story.gtids["second"],
        "logs": 2,
    }
    assert "binlogs-replayed" in [check["name"] for check in document["checks"]]
    assert read_rows(lab) == ["first", PLANTED, "second"]
    plain = lab.sql(
        "replica",
        "SELECT COUNT(*) FROM information_schema.innodb_tablespaces_encryption "
        "WHERE encryption_scheme = 0 OR min_key_version = 0",
    )
    assert plain == [["0"]]
    assert lab.on("replica", "ls /run/xbvault", check=False).split() == []


def test_a_killed_restore_goes_on(lab: CloneLab, story: Story) -> None:
    """In the middle of the replay, and after it: nothing is replayed twice."""
    lab.on("replica", "mariadb -e 'SET GLOBAL read_only = ON'")
    command = ("restore", "latest", "replica", "--at", story.moment, "--replace", "--yes")
    killed = lab.xbvault(*command, check=False, env={"XBVAULT_CRASH_AT": "find-replay-end:after"})
    assert killed.returncode == -9, killed.stderr
    run_id = json.loads(lab.xbvault("runs", "list", "--json").stdout)[0]["run_id"]
    killed = lab.xbvault(
        *("runs", "resume", run_id), check=False, env={"XBVAULT_CRASH_AT": "replay-binlogs:after"}
    )
    assert killed.returncode == -9, killed.stderr
    document = json.loads(lab.xbvault("runs", "resume", run_id, "--json").stdout)
    assert document["status"] == "succeeded"
    assert read_rows(lab) == ["first", PLANTED, "second"]


def test_to_the_end_of_the_archives(lab: CloneLab, story: Story) -> None:
    """All that the donor had is there."""
    document = restore(lab, "latest")
    assert document["replayed"]["logs"] == 3
    assert read_rows(lab) == ["first", PLANTED, "second", "third", "fourth"]
    digests = laws.read_digests(lab, "replica", MARIADB)
    differ = {name for name in story.digests if story.digests[name] != digests.get(name)}
    assert differ <= {AUDIT}


def test_an_altered_archive_is_named(lab: CloneLab, story: Story) -> None:
    """One flipped byte ends the restore before the recipient's data is touched."""
    name = story.archives[1]["backup_id"]
    part = set_laws.find_repository(lab) / name / "part-000001.age"
    good = part.read_bytes()
    part.write_bytes(good[:-20] + bytes([good[-20] ^ 1]) + good[-19:])
    lab.on("replica", "mariadb -e 'SET GLOBAL read_only = ON'")
    failed = lab.restore("latest", "replica", "--at", "latest", "--replace", check=False)
    part.write_bytes(good)
    assert failed["exit"] == 6
    assert name in failed["error"]["message"]
    assert read_rows(lab)[-1] == "fourth"
    lab.xbvault("runs", "cancel", failed["run_id"], "--yes")


def test_a_gap_is_found_at_once(lab: CloneLab, story: Story) -> None:
    """Logs that the donor has removed are named; a new chain begins, and the gap stays known."""
    lab.lab("power-on", "master")
    lab.lab("server", "start", "master")
    lab.sql("master", "FLUSH BINARY LOGS")
    lost = lab.sql("master", "SHOW BINARY LOGS")[-2][0]
    lab.sql("master", "FLUSH BINARY LOGS")
    newest = lab.sql("master", "SHOW BINARY LOGS")[-1][0]
    lab.sql("master", f"PURGE BINARY LOGS TO '{newest}'")
    refused = lab.run("binlogs", "archive", "master", check=False)
    assert refused["exit"] == 3
    assert "is not on master any more" in refused["error"]["message"]
    anew = lab.run("binlogs", "archive", "master", "--new-chain")
    assert anew["status"] == "succeeded"
    shown = lab.xbvault("binlogs", "list", check=False)
    assert shown.returncode == 3
    assert "is in no archive" in shown.stderr
    behind = lab.restore("latest", "replica", "--at", "latest", "--plan", yes=False, check=False)
    assert behind["exit"] in (0, 3)  # as far as there is no gap
    assert lost
    lab.sql("master", "RESET MASTER")
    reset = lab.run("binlogs", "archive", "master", check=False)
    assert reset["exit"] == 3
    assert story.backup_id


def test_archives_stay_as_long_as_a_backup_that_needs_them(lab: CloneLab, story: Story) -> None:
    """An expiry keeps them with their backup."""
    text = lab.config_file.read_text(encoding="utf-8")
    config = lab.config_file.with_name("retention.toml")
    config.write_text(f"{text}\n[repositories.store.retention]\nlast = 1\n", encoding="utf-8")
    planned = json.loads(lab.xbvault("backups", "expire", "--plan", "--json", config=config).stdout)
    assert {each["backup_id"]: each["keep"] for each in planned["sets"]}[story.backup_id]
    assert all(each["keep"] for each in planned["sets"])


def test_a_replay_that_fails_is_taken_back(lab: CloneLab, story: Story) -> None:
    """A table that the binary logs do not know of: the statement is named, and the data comes back."""
    assert story.backup_id
    lab.backup("master")
    lab.sql(
        "master",
        "SET SESSION sql_log_bin = 0; CREATE TABLE pitr.hidden (id INT PRIMARY KEY); "
        "SET SESSION sql_log_bin = 1; INSERT INTO pitr.hidden VALUES (1)",
    )
    lab.run("binlogs", "archive", "master", "--new-chain")
    lab.on("replica", "mariadb -e 'SET GLOBAL read_only = ON'")
    before = read_rows(lab)
    failed = lab.restore("latest", "replica", "--at", "latest", "--replace", check=False)
    assert failed["exit"] == 4
    assert "the replay of the binary logs failed" in failed["error"]["message"]
    assert "hidden" in json.dumps(failed["error"])
    again = lab.xbvault("runs", "resume", failed["run_id"], "--json", check=False)
    assert again.returncode == 4, again.stdout
    lab.xbvault("runs", "cancel", failed["run_id"], "--yes")
    assert read_rows(lab) == before
    assert lab.on("replica", "ls /run/xbvault", check=False).split() == []
    assert lab.on("replica", "ls /var/lib | grep xbvault-staging || true").strip() == ""
