"""How a clone can end otherwise: refused, cancelled, found wrong; and what it leaves then.

One laboratory for the whole file. Its recipient has a server of its own, running and empty, which
must be as it was after every ending. All is done with a login that needs sudo. The tests hold in
their order: each ending leaves the recipient to the next as it found it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import MARIADB_CHECKS, REPOSITORY, CloneLab, running_lab
from lab import product
from lab.commands import wait_until
from replicas import (
    DATADIR,
    check_arrival,
    list_beside,
    list_leftovers,
    read_inode,
    read_lock_holder,
    read_newest_run,
    read_pid,
    read_source,
    show_run,
)
from vault_root import VaultRoot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

OWN, RECORDS = "mariadb-replica", "xbvault"
CLONE = ("clone", "master", "replica", "--replace", "--json", "--yes")
ENDS_SECONDS = 30
"""A process whose run is cancelled looks at that once a second; the other one has to start first."""
BEGINS_SECONDS = 120
STANDS_STILL = "SELECT SLEEP(301)"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up, with a server of its own on the recipient."""
    directory = tmp_path_factory.mktemp("endings") / "lab"
    with running_lab(directory, "--replica-server") as found:
        yield found


@pytest.fixture(scope="module")
def root(lab: CloneLab) -> VaultRoot:
    """Return the laboratory's Vault in its administrator's hands."""
    return VaultRoot(lab.directory)


@pytest.fixture(scope="module")
def config(lab: CloneLab) -> Path:
    """Return the configuration with a login that needs sudo."""
    return lab.directory / "xbvault-dba.toml"


def kill_at(lab: CloneLab, config: Path, point: str) -> dict[str, Any]:
    """Clone until a step, before which the process is killed; return what is shown of the run."""
    killed = lab.xbvault(
        *CLONE, config=config, env={"XBVAULT_CRASH_AT": f"{point}:before"}, check=False
    )
    assert killed.returncode == -9, killed.stderr
    run = read_newest_run(lab, config)
    assert run["status"] == "interrupted"
    return show_run(lab, run["run_id"], config)


def resume(lab: CloneLab, config: Path, run_id: str) -> tuple[int, dict[str, Any]]:
    """Resume a run; return exit status and document."""
    ended = lab.xbvault("runs", "resume", run_id, "--json", config=config, check=False)
    return ended.returncode, json.loads(ended.stdout)


def cancel(lab: CloneLab, config: Path, run_id: str) -> None:
    """Cancel a run for good."""
    ended = lab.xbvault("runs", "cancel", run_id, "--yes", "--json", config=config)
    assert json.loads(ended.stdout)["status"] == "cancelled"


def check_as_before(lab: CloneLab, run_id: str, inode: str) -> None:
    """See that the recipient's own server runs in its own datadir, and nothing of a run is left."""
    assert read_inode(lab) == inode
    assert read_pid(lab)
    assert lab.sql("replica", "SELECT @@server_id, @@GLOBAL.read_only, @@event_scheduler") == [
        ["12", "0", "ON"]
    ]
    assert lab.sql("replica", "SHOW DATABASES LIKE 'shop'") == []
    assert lab.on("replica", "ls /etc/mysql/mariadb.conf.d").split() == [
        "50-server.cnf",
        "60-encryption.cnf",
    ]
    assert list_leftovers(lab, run_id) == []
    assert list_beside(lab) == []
    assert lab.on("replica", "ls /var/lib/xbvault/runs") == ""
    assert read_lock_holder(lab) == ""
    users = "SELECT User FROM mysql.global_priv WHERE User LIKE 'xbvault%'"
    assert lab.sql("master", users) == []


@contextlib.contextmanager
def donor_being_backed_up(lab: CloneLab) -> Iterator[None]:
    """Be in a backup of the donor, so that another one begins and waits; writes go on."""
    argv = [sys.executable, "-m", "lab", "--dir", str(lab.directory)]
    client = subprocess.Popen(
        [*argv, "exec", "master", "mariadb --batch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "fixtures")},
    )
    find = f"SELECT ID FROM information_schema.PROCESSLIST WHERE INFO = '{STANDS_STILL}'"
    try:
        assert client.stdin
        client.stdin.write(f"BACKUP STAGE START;\n{STANDS_STILL};\n")
        client.stdin.close()
        wait_until(lambda: bool(lab.sql("master", find)), "a backup", timeout_seconds=30)
        yield
    finally:
        for row in lab.sql("master", find):
            lab.sql("master", f"KILL {row[0]}")
        client.wait(timeout=30)


@dataclasses.dataclass(kw_only=True)
class Rival:
    """One of several clones that run at once, each with a journal of its own.

    Attributes:
        config: Its configuration.
        process: The process.
        output: Where it prints its document.
    """

    config: Path
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def document(self) -> dict[str, Any]:
        """What it printed."""
        found: dict[str, Any] = json.loads(self.output.read_text(encoding="utf-8"))
        return found


@contextlib.contextmanager
def rivals(lab: CloneLab, configs: list[Path]) -> Iterator[list[Rival]]:
    """Begin clones at the same moment; end those that still run when the block ends."""
    begun: list[Rival] = []
    try:
        for number, config in enumerate(configs):
            output = lab.directory / f"rival{number}.json"
            with output.open("wb") as stream:
                process = subprocess.Popen(
                    [*product.command(), *CLONE],
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.DEVNULL,
                    cwd=REPOSITORY,
                    env={**os.environ, "XBVAULT_CONFIG": str(config)},
                )
            begun.append(Rival(config=config, process=process, output=output))
        yield begun
    finally:
        for rival in begun:
            rival.process.kill()
            rival.process.wait(timeout=30)


def is_streaming(lab: CloneLab, config: Path) -> bool:
    """Return whether the newest run is at its stream, with the backup tool at work."""
    run = read_newest_run(lab, config)
    if not run or run["status"] != "running":
        return False
    steps = {s["name"]: s["status"] for s in show_run(lab, run["run_id"], config)["steps"]}
    tool = lab.on("master", "pgrep -x mariadb-backup", check=False)
    return steps["stream-backup"] == "running" and bool(tool)


def test_of_two_clones_one_is_refused_and_the_other_can_be_cancelled(
    lab: CloneLab, config: Path
) -> None:
    """Of two clones at once one is refused and names the other, which a third process cancels."""
    inode, pid = read_inode(lab), read_pid(lab)
    other = lab.directory / "other.toml"
    text = config.read_text(encoding="utf-8")
    other.write_text(text.replace(f'"{lab.directory}/state"', f'"{lab.directory}/state2"'))
    with donor_being_backed_up(lab), rivals(lab, [config, other]) as both:
        wait_until(
            lambda: any(rival.process.poll() is not None for rival in both),
            "the end of one of two clones",
            timeout_seconds=BEGINS_SECONDS,
        )
        loser, winner = sorted(both, key=lambda rival: rival.process.poll() is None)
        assert loser.process.returncode == 3, loser.document
        run_id = read_newest_run(lab, winner.config)["run_id"]
        assert loser.document["error"]["error"] == "LockHeldError"
        assert run_id in loser.document["error"]["message"]
        assert read_lock_holder(lab) == run_id
        wait_until(
            lambda: is_streaming(lab, winner.config),
            "a stream that is under way",
            timeout_seconds=BEGINS_SECONDS,
            pause_seconds=0.2,
        )
        with ThreadPoolExecutor() as pool:
            cancelled = pool.submit(cancel, lab, winner.config, run_id)
            assert winner.process.wait(timeout=ENDS_SECONDS) == 130
            cancelled.result()
        assert winner.document["status"] == "cancelled"
        assert winner.document["error"]["error"] == "CancelledError"
    assert read_pid(lab) == pid
    check_as_before(lab, run_id, inode)
    refused = lab.xbvault("runs", "resume", run_id, config=winner.config, check=False)
    assert refused.returncode == 3


def test_cancel_before_the_swap_touches_nothing(
    lab: CloneLab, root: VaultRoot, config: Path
) -> None:
    """A run that was cut off before the swap is cancelled while the recipient's server runs on."""
    inode, pid = read_inode(lab), read_pid(lab)
    run = kill_at(lab, config, "verify-backup-set")
    assert list_beside(lab) == [f"mysql.xbvault-staging-{run['run_id']}"]
    cancel(lab, config, run["run_id"])
    assert read_pid(lab) == pid
    check_as_before(lab, run["run_id"], inode)
    assert root.live_versions(OWN, "1") == [1]
    assert root.live_versions(RECORDS, f"transition-keys/{run['backup_id']}") == []


def test_cancel_between_the_two_renames_puts_the_datadir_back(
    lab: CloneLab, root: VaultRoot, config: Path
) -> None:
    """A run that was cut off with the earlier datadir set aside and none in place is taken back."""
    inode = read_inode(lab)
    run = kill_at(lab, config, "swap-datadir")
    assert not read_pid(lab)
    lab.on("replica", f"mv -T {DATADIR} {DATADIR}.xbvault-old-{run['run_id']}")
    cancel(lab, config, run["run_id"])
    check_as_before(lab, run["run_id"], inode)
    assert root.list_mounts("xbvault-transition") == []
    assert 1 in root.live_versions(OWN, "1")


def test_cancel_after_the_swap_gives_the_earlier_server_back(
    lab: CloneLab, root: VaultRoot, config: Path
) -> None:
    """A run that was cut off with its own server running is taken back: the earlier one runs.

    Before that its swap failed once, so that the earlier server was started again in between.
    """
    inode = read_inode(lab)
    run = kill_at(lab, config, "swap-datadir")
    obstacle = f"/var/lib/xbvault/runs/{run['run_id']}/swap.list"
    lab.on("replica", f"mkdir {obstacle}")
    status, document = resume(lab, config, run["run_id"])
    assert status == 4
    assert "the datadir could not be swapped" in document["error"]["message"]
    assert read_pid(lab)
    lab.on("replica", f"rmdir {obstacle}")
    killed = lab.xbvault(
        *("runs", "resume", run["run_id"]),
        config=config,
        env={"XBVAULT_CRASH_AT": "wait-for-replication:before"},
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    assert read_inode(lab) != inode
    assert read_source(lab)["Master_Host"]
    cancel(lab, config, run["run_id"])
    check_as_before(lab, run["run_id"], inode)
    assert root.list_mounts("xbvault-transition") == []
    assert root.list_secrets(RECORDS, "replication/master/replica") == []
    again = lab.xbvault("runs", "cancel", run["run_id"], "--yes", "--json", config=config)
    assert json.loads(again.stdout)["status"] == "cancelled"
    assert read_pid(lab)


def test_a_bundle_opens_with_its_own_key_only(lab: CloneLab, root: VaultRoot, config: Path) -> None:
    """With another transition key in Vault the clone ends with exit status 6, before it swaps."""
    inode, pid = read_inode(lab), read_pid(lab)
    run = kill_at(lab, config, "create-transition-mount")
    path = f"transition-keys/{run['backup_id']}"
    root.write_secret(RECORDS, path, {"key": secrets.token_hex(32)})
    status, document = resume(lab, config, run["run_id"])
    assert status == 6, document["error"]
    assert document["error"]["error"] == "VerificationError"
    assert document["status"] == "failed"
    assert (read_pid(lab), read_inode(lab)) == (pid, inode)
    cancel(lab, config, run["run_id"])
    check_as_before(lab, run["run_id"], inode)
    assert root.live_versions(RECORDS, path) == []


@pytest.fixture(scope="module")
def altered(lab: CloneLab, config: Path) -> dict[str, Any]:
    """Clone until the tables are to be compared, and alter two rows on the replica."""
    run = kill_at(lab, config, "compare-tables")
    lab.sql("replica", f"{HERE_ONLY} {ALTER}")
    return run


HERE_ONLY = "SET SESSION sql_log_bin = 0;"
ALTER = """
UPDATE documents.attachments SET name = CONCAT(name, '!') WHERE id = 3;
UPDATE shop.customers SET note = CONCAT(note, '!'), changed_at = changed_at WHERE id = 1000;
"""
MEND = """
UPDATE documents.attachments SET name = TRIM(TRAILING '!' FROM name) WHERE id = 3;
UPDATE shop.customers SET note = TRIM(TRAILING '!' FROM note), changed_at = changed_at
  WHERE id = 1000;
"""


def test_an_altered_row_is_found(lab: CloneLab, config: Path, altered: dict[str, Any]) -> None:
    """One row that differs ends the clone with exit status 6, and its table is named."""
    status, document = resume(lab, config, altered["run_id"])
    assert status == 6, document["error"]
    error = document["error"]
    assert error["error"] == "VerificationError"
    named = {problem.partition(":")[0] for problem in error["problems"]}
    assert named == {"documents.attachments", "shop.customers"}
    assert all(name in error["message"] for name in named)
    assert read_source(lab)["Slave_SQL_Running"] == "Yes"


@pytest.fixture(scope="module")
def cloned(lab: CloneLab, config: Path, altered: dict[str, Any]) -> dict[str, Any]:
    """Mend the rows, and resume the clone to its end."""
    lab.sql("replica", f"{HERE_ONLY} {MEND}")
    status, document = resume(lab, config, altered["run_id"])
    assert status == 0, document["error"]
    return document


def test_a_login_with_sudo_clones(lab: CloneLab, cloned: dict[str, Any]) -> None:
    """With a login that is not root and may use sudo, a clone succeeds with every check."""
    assert cloned["status"] == "succeeded"
    assert [check["name"] for check in cloned["checks"]] == MARIADB_CHECKS
    assert all(check["ok"] for check in cloned["checks"])
    assert list_leftovers(lab, cloned["run_id"]) == []
    check_arrival(lab)


def test_undo_gives_a_server_of_another_origin_back(
    lab: CloneLab, config: Path, cloned: dict[str, Any]
) -> None:
    """Undo puts back a datadir that no clone of ours has made, with its server and its options."""
    beside = list_beside(lab)
    assert beside == [f"mysql.xbvault-old-{cloned['run_id']}"]
    inode = read_inode(lab, f"{DATADIR}/../{beside[0]}")
    ended = lab.xbvault("runs", "undo", cloned["run_id"], "--yes", "--json", config=config)
    assert json.loads(ended.stdout)["status"] == "undone"
    check_as_before(lab, cloned["run_id"], inode)
