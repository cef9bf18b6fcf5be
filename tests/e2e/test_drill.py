"""Drills, real from end to end: proved, taken back, reported, whatever comes of them.

One laboratory for the whole file. Its scratch host has a server of its own, running and empty, which
must be as it was after every drill. The tests hold in their order.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browser
import pytest
from clone_lab import CloneLab, running_lab
from replicas import check_given_back, read_inode, read_newest_run, show_run

from orchestrator import report, summary
from orchestrator.flavors.mariadb_sql import MariaDBDialect
from orchestrator.privileges.database import MARIADB, grant_sql

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

REPOSITORY = "/srv/backups"
STILL = """CREATE DATABASE still; CREATE TABLE still.life (id INT PRIMARY KEY);
INSERT INTO still.life VALUES (1), (2)"""
"""A table that nobody writes to."""
NOT_OF_DRILLS = {
    *("backup-completed", "encrypted-files", "tables-equal", "server-answers"),
    *("replication-running", "replication-advancing", "replication-encrypted"),
    *("binlogs-whole", "binlogs-replayed", "increments", "tables-summed"),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up, with a server of its own on the scratch host."""
    folder = tmp_path_factory.mktemp("drill") / "lab"
    with running_lab(folder, "--stores", "1", "--replica-server") as found:
        yield found


@pytest.fixture(scope="module")
def backup_id(lab: CloneLab) -> str:
    """Store a backup."""
    return str(lab.backup("master")["backup_id"])


@pytest.fixture(scope="module")
def inode(lab: CloneLab) -> str:
    """Return the identity of the scratch host's own data directory."""
    return read_inode(lab)


def read_report(document: dict[str, Any]) -> dict[str, str]:
    """Return the files of a report, each of which must be what the journal has the sum of."""
    told = document["report"]
    assert list(told["files"]) == list(report.FILES)
    found = {}
    for name, digest in told["files"].items():
        content = (Path(told["directory"]) / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        found[name] = content.decode()
    assert json.loads(found[report.JSON])["run_id"] == document["run_id"]
    return found


def sum_set(lab: CloneLab, backup_id: str) -> str:
    """Return a sum over all files of a set."""
    return lab.on("store", f"cd {REPOSITORY}/{backup_id} && sha256sum * | sha256sum")


def spoil(lab: CloneLab, backup_id: str, name: str, at: int) -> str:
    """Flip a byte of a part, and return the command that puts it right again."""
    path = f"{REPOSITORY}/{backup_id}/{name}"
    lab.on(
        "store",
        f"cp -a {path} /root/part && b=$(od -An -tu1 -j {at} -N 1 {path}) && "
        f'printf "\\\\$(printf %o $((b ^ 1)))" | '
        f"dd of={path} bs=1 seek={at} conv=notrunc status=none && ! cmp -s {path} /root/part",
    )
    return f"cp -a /root/part {path}"


def test_a_drill_proves_the_set_and_gives_the_host_back(
    lab: CloneLab, backup_id: str, inode: str, tmp_path: Path
) -> None:
    """Every check holds, every phase has its time, and set, keys and host are as they were."""
    before = sum_set(lab, backup_id)
    document = lab.drill("latest:master", "replica", "--report", str(tmp_path / "audit"))
    told = {key: value for key, value in document.items() if key != "exit"}
    assert list(told) == list(summary.build_empty_drill_document())
    assert (document["status"], document["verdict"]) == ("succeeded", "passed")
    assert (document["backup_id"], document["host"]) == (backup_id, "replica")
    assert (document["torn_down"], document["kept"], document["error"]) == (True, False, None)
    names = [check["name"] for check in document["checks"]]
    assert sorted(names) == sorted(set(summary.CHECKS) - NOT_OF_DRILLS)
    assert all(check["ok"] and check["evidence"] for check in document["checks"])
    assert [phase["status"] for phase in document["phases"]] == ["done"] * len(summary.ALWAYS)
    times = document["recovery_time"]
    assert 0 < times["answers_sql_seconds"] < times["proved_seconds"]
    point = document["recovery_point"]
    assert (point["host"], point["reached"]) == ("master", True)
    assert point["seconds"] > 0
    assert point["transactions"] > 0
    reason = "not recorded: `xbvault backup --checksums`"
    assert document["tables_compared"] == {"recorded": 0, "compared": 0, "reason": reason}
    assert document["trend"] == []
    assert document["report"]["directory"] == str(tmp_path / "audit")
    files = read_report(document)
    assert "passed" in files[report.HTML]
    assert "not recorded: " in files[report.HTML]
    shown = show_run(lab, document["run_id"])
    assert {key: shown[key] for key in told} == told
    check_given_back(lab, inode, document["run_id"])
    assert sum_set(lab, backup_id) == before
    listed = json.loads(lab.xbvault("backups", "list", "--json").stdout)
    assert [each["keys"]["state"] for each in listed] == ["active"]
    refused = lab.xbvault("runs", "undo", document["run_id"], "--yes", check=False)
    assert refused.returncode == 3
    assert "given replica back" in refused.stderr


@pytest.fixture(scope="module")
def summed(lab: CloneLab, backup_id: str) -> dict[str, Any]:
    """Store another backup, with the sums of its tables, while the donor is written to."""
    assert backup_id
    lab.sql("master", STILL)
    return lab.backup("master", "--checksums", "all")


def list_recorded(lab: CloneLab, backup_id: str) -> list[str]:
    """Return the tables that a manifest has sums of."""
    shown = json.loads(lab.xbvault("backups", "show", backup_id, "--json").stdout)
    return [f"{each['schema']}.{each['name']}" for each in shown["manifest"]["checksums"]]


def test_the_account_of_a_backup_sees_what_cascades(lab: CloneLab, backup_id: str) -> None:
    """With the least that is asked of it, and whatever the tables are called."""
    assert backup_id
    lab.sql(
        "master",
        f"CREATE USER least@localhost IDENTIFIED BY 'only-of-this-test'; "
        f"{grant_sql('least', 'localhost', (*MARIADB.backup, *MARIADB.events))} "
        "SET NAMES utf8mb4; CREATE DATABASE `Ä/ö.x`; USE `Ä/ö.x`; "
        "CREATE TABLE `pä✓/r` (id INT PRIMARY KEY); "
        "CREATE TABLE `c``h` (p INT, FOREIGN KEY (p) REFERENCES `pä✓/r`(id) ON UPDATE CASCADE); "
        "CREATE TABLE still (p INT, FOREIGN KEY (p) REFERENCES `pä✓/r`(id) ON DELETE NO ACTION)",
    )
    client = "mariadb --batch --skip-column-names -uleast -ponly-of-this-test"
    asked = shlex.quote(MariaDBDialect().cascades_sql)
    told = [line.split("\t") for line in lab.on("master", f"{client} -e {asked}").splitlines()]
    lab.sql("master", "DROP USER least@localhost; DROP DATABASE `Ä/ö.x`")
    assert sorted(tuple(bytes.fromhex(part).decode() for part in row) for row in told) == [
        ("shop", "order_items", "shop", "orders"),
        ("Ä/ö.x", "c`h", "Ä/ö.x", "pä✓/r"),
    ]


def test_a_set_with_sums_is_compared(lab: CloneLab, summed: dict[str, Any], inode: str) -> None:
    """Every table that was recorded; those that were written meanwhile were left out."""
    told = summed["tables_summed"]
    assert told["recorded"] > 5
    assert told["reason"] == ""
    (evidence,) = [c["evidence"] for c in summed["checks"] if c["name"] == "tables-summed"]
    assert evidence.startswith(f"{told['recorded']} tables summed up at ")
    recorded = list_recorded(lab, summed["backup_id"])
    assert len(recorded) == told["recorded"]
    assert "still.life" in recorded
    assert not set(recorded) & {name.partition(" (")[0] for name in told["left_out"]}
    document = lab.drill(summed["backup_id"], "replica")
    number = told["recorded"]
    assert document["verdict"] == "passed"
    assert document["tables_compared"] == {"recorded": number, "compared": number, "reason": ""}
    assert "tables-equal" in {check["name"] for check in document["checks"]}
    files = read_report(document)
    assert f"**{number} of {number}** tables equal" in files[report.MARKDOWN]
    assert f"<b>{number} of {number}</b> tables equal" in files[report.HTML]
    check_given_back(lab, inode, document["run_id"])


def test_a_row_that_differs_fails_the_drill(
    lab: CloneLab, summed: dict[str, Any], inode: str
) -> None:
    """The table is named, and the host has back what it had."""
    killed = lab.xbvault(
        *("drill", summed["backup_id"], "replica", "--yes"),
        env={"XBVAULT_CRASH_AT": "compare-recorded-tables:before"},
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    run_id = read_newest_run(lab)["run_id"]
    lab.sql("replica", "DELETE FROM still.life LIMIT 1")
    ended = lab.xbvault("runs", "resume", run_id, "--json", check=False)
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["verdict"]) == (6, "failed")
    assert document["error"]["message"].endswith("that were backed up: still.life")
    assert document["torn_down"]
    assert all("still.life" in content for content in read_report(document).values())
    check_given_back(lab, inode, run_id)


def test_a_statement_in_the_log_leaves_nothing_recorded(lab: CloneLab, backup_id: str) -> None:
    """A wrong sum would be worse than none; the backup is as good without."""
    killed = lab.xbvault(
        *("backup", "master", "--checksums", "all", "--yes"),
        env={"XBVAULT_CRASH_AT": "sum-up-tables:before"},
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    run_id = read_newest_run(lab)["run_id"]
    lab.sql("master", "SET SESSION binlog_format = STATEMENT; DELETE FROM shop.orders LIMIT 1")
    document = json.loads(lab.xbvault("runs", "resume", run_id, "--json").stdout)
    assert document["status"] == "succeeded"
    told = document["tables_summed"]
    assert (told["recorded"], told["left_out"]) == (0, [])
    assert "a statement stands at bin." in told["reason"]
    assert "tables-summed" not in {check["name"] for check in document["checks"]}
    lab.xbvault("runs", "undo", run_id, "--yes")
    assert backup_id


def test_a_donor_that_is_gone_is_no_failure(
    lab: CloneLab, backup_id: str, inode: str, tmp_path: Path
) -> None:
    """The report says so, and knows the drill before."""
    lab.lab("power-off", "master")
    document = lab.drill(backup_id, "replica")
    lab.lab("power-on", "master")
    lab.lab("server", "start", "master")
    assert document["verdict"] == "passed"
    point = document["recovery_point"]
    assert point["reason"].startswith("the donor could not be reached: ")
    assert (point["reached"], point["seconds"], point["transactions"]) == (False, None, None)
    assert [past["verdict"] for past in document["trend"]] == ["passed", "passed", "failed"]
    files = read_report(document)
    assert "could not be reached" in files[report.MARKDOWN]
    check_given_back(lab, inode, document["run_id"])
    for width in (browser.DESKTOP, browser.PHONE):
        seen = browser.look(files[report.HTML], width, tmp_path)
        assert seen.scroll_width <= seen.width
        assert "could not be reached" in seen.text
        assert "PASSED" in seen.text.upper()
        assert seen.bars > 0


def test_a_killed_drill_is_resumed(lab: CloneLab, backup_id: str, inode: str) -> None:
    """From where it was killed, be it in the work, in the tear-down, or in the report."""
    for point in ("swap-datadir:after", "restore-datadir:after", "write-drill-report:after"):
        killed = lab.xbvault(
            *("drill", backup_id, "replica", "--yes"), env={"XBVAULT_CRASH_AT": point}, check=False
        )
        assert killed.returncode == -9, killed.stderr
        run_id = read_newest_run(lab)["run_id"]
        document = json.loads(lab.xbvault("runs", "resume", run_id, "--json").stdout)
        assert (document["status"], document["verdict"]) == ("succeeded", "passed")
        read_report(document)
        check_given_back(lab, inode, run_id)
        again = json.loads(lab.xbvault("runs", "resume", run_id, "--json").stdout)
        assert again["report"] == document["report"]


def test_a_killed_drill_is_cancelled(lab: CloneLab, backup_id: str, inode: str) -> None:
    """The host gets back what it had, and the report says that nothing was proved."""
    killed = lab.xbvault(
        *("drill", backup_id, "replica", "--yes"),
        env={"XBVAULT_CRASH_AT": "re-encrypt-tablespaces:before"},
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    run_id = read_newest_run(lab)["run_id"]
    document = json.loads(lab.xbvault("runs", "cancel", run_id, "--yes", "--json").stdout)
    assert (document["status"], document["verdict"]) == ("cancelled", "incomplete")
    assert document["torn_down"]
    read_report(document)
    check_given_back(lab, inode, run_id)


def test_a_kept_server_is_isolated_until_it_is_undone(
    lab: CloneLab, backup_id: str, inode: str
) -> None:
    """It can be looked into, refuses writes, and goes with undo."""
    document = lab.drill(backup_id, "replica", "--keep")
    assert (document["verdict"], document["kept"], document["torn_down"]) == ("passed", True, False)
    assert read_inode(lab) != inode
    assert lab.sql("replica", "SELECT COUNT(*) FROM shop.audit")
    assert lab.sql("replica", "SELECT @@GLOBAL.read_only, @@GLOBAL.event_scheduler") == [
        ["1", "OFF"]
    ]
    assert lab.on("replica", "mariadb --batch -e 'SHOW ALL SLAVES STATUS'") == ""
    lab.xbvault("runs", "undo", document["run_id"], "--yes")
    check_given_back(lab, inode, document["run_id"])


@pytest.mark.parametrize("at", [4096, -1])
def test_a_flipped_byte_fails_the_drill_and_the_report_names_the_part(
    lab: CloneLab, backup_id: str, inode: str, at: int
) -> None:
    """Wherever in the part it is; the host has back what it had."""
    name = "part-000002.age"
    size = int(lab.on("store", f"stat -c %s {REPOSITORY}/{backup_id}/{name}"))
    put_back = spoil(lab, backup_id, name, at % size)
    document = lab.drill(backup_id, "replica", check=False)
    lab.on("store", put_back)
    assert (document["exit"], document["verdict"]) == (6, "failed")
    assert (document["status"], document["torn_down"]) == ("cancelled", True)
    assert name in document["error"]["message"]
    for content in read_report(document).values():
        assert name in content
    check_given_back(lab, inode, document["run_id"])


def test_a_missing_part_fails_the_drill(lab: CloneLab, backup_id: str, inode: str) -> None:
    """Nothing is fetched then, and the report names the part."""
    path = f"{REPOSITORY}/{backup_id}/part-000003.age"
    lab.on("store", f"mv {path} /root/third")
    document = lab.drill(backup_id, "replica", check=False)
    lab.on("store", f"mv /root/third {path}")
    assert (document["exit"], document["verdict"]) == (6, "failed")
    assert "part-000003.age" in read_report(document)[report.HTML]
    check_given_back(lab, inode, document["run_id"])


def test_destroyed_keys_fail_the_drill(lab: CloneLab, backup_id: str, inode: str) -> None:
    """With exit status 5, and a report that says who destroyed them."""
    lab.xbvault("keys", "revoke", backup_id, "--yes")
    document = lab.drill(backup_id, "replica", check=False)
    assert (document["exit"], document["verdict"]) == (5, "failed")
    assert "were destroyed on" in document["error"]["message"]
    files = read_report(document)
    assert "were destroyed on" in files[report.HTML]
    check_given_back(lab, inode, document["run_id"])
    assert {past["verdict"] for past in document["trend"]} == {"passed", "failed", "incomplete"}
