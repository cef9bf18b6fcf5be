"""Who may go on with a run: two at once, beside a live one, from a copy of the journal, much later.

One laboratory for the whole file. A copy of the state directory stands for another machine: its
processes are another holder of the recipient lock. Two clones at once, from two machines, are in
``tests/e2e/test_clone_endings.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from typing import TYPE_CHECKING, Any

import kills
import laws
import pytest
from clone_lab import CloneLab, running_lab
from lab import product
from lab.commands import wait_until
from replicas import show_run

from orchestrator.steps import records, restarts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

CLONE = ("clone", "master", "replica", "--replace", "--yes", "--json")
LOCK_SECONDS = 5
STALL_SECONDS = 12
SETTINGS = f"lock_lease_seconds = {LOCK_SECONDS}\nstall_seconds = {STALL_SECONDS}\n"
FREEZE = "for i in $(seq 4000); do pkill -STOP -x mbstream && exit; sleep 0.01; done; exit 1"
KILL_PREPARE = (
    "for i in $(seq 8000); do pkill -KILL -f '^mariadb-backup --prepare' && exit; sleep 0.01; done;"
    " exit 1"
)
STARTS_SECONDS = 60


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """A lab whose replica was cloned once."""
    with running_lab(tmp_path_factory.mktemp("resume") / "lab") as made:
        made.clone()
        yield made


@pytest.fixture(scope="module")
def config(lab: CloneLab) -> Path:
    """The configuration, with a short lease of the recipient lock."""
    text = lab.config_file.read_text(encoding="utf-8")
    assert "[clone]" not in text
    path = lab.directory / "short.toml"
    path.write_text(f"{text}\n[clone]\n{SETTINGS}", encoding="utf-8")
    return path


def copy_journal(lab: CloneLab, config: Path, name: str) -> Path:
    """Copy the state directory as it is; return the configuration of the machine that has it."""
    shutil.copytree(
        lab.directory / "state", lab.directory / name, ignore=shutil.ignore_patterns("locks")
    )
    text = config.read_text(encoding="utf-8")
    path = lab.directory / f"{name}.toml"
    path.write_text(
        text.replace(f'"{lab.directory}/state"', f'"{lab.directory}/{name}"'), encoding="utf-8"
    )
    assert path.read_text() != text
    return path


def resume(lab: CloneLab, config: Path, run_id: str) -> tuple[int, dict[str, Any]]:
    """Resume a run; return exit status and document."""
    ended = lab.xbvault("runs", "resume", run_id, "--json", config=config, check=False)
    return ended.returncode, json.loads(ended.stdout)


def kill_at(lab: CloneLab, config: Path, point: str) -> str:
    """Clone until the process is killed at a point; return the run."""
    crash = {"XBVAULT_CRASH_AT": point}
    ended = lab.xbvault(*CLONE, config=config, env=crash, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stdout + ended.stderr
    return kills.read_newest(lab)


@contextlib.contextmanager
def process(
    config: Path, *arguments: str, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run the command line beside the test; end it with the block."""
    begun = subprocess.Popen(
        [*product.command(), *arguments],
        env={**os.environ, "XBVAULT_CONFIG": str(config), **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield begun
    finally:
        begun.kill()
        begun.communicate()


def is_halted(begun: subprocess.Popen[str]) -> bool:
    """Tell whether a process was stopped by a signal."""
    with open(f"/proc/{begun.pid}/stat", encoding="utf-8") as stream:  # noqa: PTH123 - not a file of ours
        return stream.read().rpartition(") ")[2].startswith("T")


def list_events(lab: CloneLab, run_id: str, state: str = "state") -> list[str]:
    """Return the names of a run's events, those of jobs with the job."""
    events = kills.read_events(lab.directory / state, run_id)
    return [f"{e['event']} {e.get('job', '').removeprefix(f'{run_id}.')}".strip() for e in events]


def check_success(lab: CloneLab, before: laws.Before, document: dict[str, Any]) -> None:
    """Judge a clone that says that it has succeeded, by the laws."""
    assert document["status"] == "succeeded"
    assert all(check["ok"] for check in document["checks"])
    run_id = document["run_id"]
    assert laws.read_lock_holder(lab) == ""
    account = f"xbvault_{run_id.rpartition('-')[2]}"
    laws.check_donor_is_as_it_was(lab, before, accounts={account})
    assert laws.check_earlier_data(lab, before) == []
    laws.check_nothing_outlives(lab, document["backup_id"])


def test_of_two_resumes_one_goes_on_and_an_old_journal_never(lab: CloneLab, config: Path) -> None:
    """Two resumes at once: one is told who holds the run. The journal's copies of before: refused."""
    before = laws.note(lab)
    run_id = kill_at(lab, config, "stream-backup:before")
    early = copy_journal(lab, config, "early")
    command = ("runs", "resume", run_id, "--json")
    with process(config, *command) as one, process(config, *command) as two:
        outputs = {begun: begun.communicate(timeout=240)[0] for begun in (one, two)}
    winner, loser = sorted(outputs, key=lambda begun: begun.returncode)
    assert (winner.returncode, loser.returncode) == (0, 3), outputs
    error = json.loads(outputs[loser])["error"]
    assert error["error"] == "LockHeldError"
    assert f"run {run_id} is held by process {winner.pid}" in error["message"]
    check_success(lab, before, json.loads(outputs[winner]))

    state, fence = laws.read_state(lab, run_id), laws.read_lock(lab)["fence"]
    status, document = resume(lab, early, run_id)
    assert (status, document["error"]["error"]) == (3, "PreconditionError")
    assert f"run {run_id} has ended elsewhere" in document["error"]["message"]
    ended = lab.xbvault("runs", "cancel", run_id, "--yes", "--json", check=False, config=early)
    assert ended.returncode == 3
    assert f"run {run_id} has ended elsewhere" in json.loads(ended.stdout)["error"]["message"]
    assert laws.read_state(lab, run_id) == state
    late = copy_journal(lab, config, "late")
    status, document = resume(lab, late, run_id)
    assert (status, document["status"]) == (0, "succeeded")
    assert laws.read_state(lab, run_id) == state
    assert laws.read_lock_holder(lab) == ""
    assert int(laws.read_lock(lab)["fence"]) == int(fence) + 1, "only the early copy has asked"
    laws.check_nothing_outlives(lab, document["backup_id"])


def test_a_run_of_another_version_is_refused_and_taken_back(lab: CloneLab, config: Path) -> None:
    """The refusal names the command that ends the run with this version, and that one works."""
    before, follows = laws.note(lab), laws.read_replication(lab)["Master_User"]
    run_id = kill_at(lab, config, "start-replication:before")
    path = lab.directory / "state/journal.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as journal, journal:
        journal.execute(
            "UPDATE workflow_status SET application_version = 'flow-0' WHERE workflow_uuid = ?",
            [run_id],
        )
    status, document = resume(lab, config, run_id)
    assert status == 3
    assert "another version of xbvault (flow-0;" in document["error"]["message"]
    way_out = f"xbvault runs cancel {run_id}"
    assert f"`{way_out}`" in document["error"]["hint"]
    ended = lab.xbvault(*way_out.split()[1:], "--yes", "--json", config=config)
    assert json.loads(ended.stdout)["status"] == "cancelled"
    laws.check_ended(lab, run_id, "cancelled")
    laws.check_donor_is_as_it_was(lab, before, accounts=set())
    assert laws.note(lab).datadir_inode == before.datadir_inode
    assert laws.check_earlier_data(lab, before) == []
    laws.check_nothing_outlives(lab, json.loads(ended.stdout)["backup_id"])
    laws.wait_until_caught_up(lab)
    assert laws.read_replication(lab)["Master_User"] == follows


def test_beside_a_live_run_nobody_goes_on_and_a_cut_prepare_is_streamed_again(
    lab: CloneLab, config: Path
) -> None:
    """Here and from a copy a resume is told who holds it; a killed prepare needs nobody's resume."""
    before = laws.note(lab)
    halt = {"XBVAULT_HALT_AT": "create-transition-key:before"}
    with process(config, *CLONE, env=halt) as live:
        wait_until(lambda: is_halted(live), "the halt", timeout_seconds=STARTS_SECONDS)
        run_id = kills.read_newest(lab)
        copied = copy_journal(lab, config, "middle")
        status, document = resume(lab, config, run_id)
        assert (status, document["error"]["error"]) == (3, "LockHeldError")
        assert f"held by process {live.pid}" in document["error"]["message"]
        live.send_signal(signal.SIGCONT)
        lab.on("replica", KILL_PREPARE)
        status, document = resume(lab, copied, run_id)
        assert (status, document["error"]["error"]) == (3, "LockHeldError")
        assert f"run {run_id} holds replica" in document["error"]["message"]
        document = json.loads(live.communicate(timeout=240)[0])
    assert live.returncode == 0
    check_success(lab, before, document)
    events = list_events(lab, run_id)
    assert events.count("step.went_back") == 1
    for job in ("send-backup", "send-backup.2", "prepare-backup-set", "prepare-backup-set.2"):
        assert events.count(f"job.started {job}") == 1
    steps = show_run(lab, run_id, config)["steps"]
    assert [s["name"] for s in steps if s["status"] == "failed"] == ["prepare-backup-set"]
    status, document = resume(lab, copied, run_id)
    assert (status, document["error"]["error"]) == (3, "PreconditionError")
    assert "has ended elsewhere" in document["error"]["message"]


@pytest.mark.parametrize("point", ["prepare-backup-set", "stop-server", "swap-datadir"])
def test_what_a_restarted_host_received_is_streamed_again(
    lab: CloneLab, config: Path, point: str
) -> None:
    """Before the swap a set may not be on disk, whatever its files look like; nobody is asked."""
    before = laws.note(lab)
    run_id = kill_at(lab, config, f"{point}:before")
    noted = f"{records.RUNS}/{run_id}/{restarts.BOOT_FILE}"
    # As the kernel would name another boot: that of this machine cannot be had again.
    lab.on("replica", f"test -s {noted} && echo 11111111-2222-3333-4444-555555555555 >{noted}")
    time.sleep(LOCK_SECONDS)
    status, document = resume(lab, config, run_id)
    assert status == 0, document
    check_success(lab, before, document)
    events = list_events(lab, run_id)
    assert events.count("step.went_back") == 1
    for job in ("send-backup", "send-backup.2", "move-backup-set.2"):
        assert events.count(f"job.started {job}") == 1, job
    steps = show_run(lab, run_id, config)["steps"]
    assert [s["name"] for s in steps if s["status"] == "failed"] == [point]


def test_who_wakes_up_after_a_takeover_does_no_more_harm(lab: CloneLab, config: Path) -> None:
    """One that was stopped in its stream ends nothing of the other machine's that goes on with it.

    To itself the stream looks stalled when it wakes up, so that it would stop the donor's job.
    """
    before = laws.note(lab)
    with process(config, *CLONE) as paused:
        lab.on("replica", FREEZE)
        paused.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        run_id = kills.read_newest(lab)
        other = copy_journal(lab, config, "other")
        wait_until(
            lambda: laws.read_lock(lab)["live"] == "0",
            "the end of the lease",
            timeout_seconds=3 * LOCK_SECONDS,
        )
        with process(other, "runs", "resume", run_id, "--json") as successor:
            wait_until(
                lambda: "job.attached send-backup" in list_events(lab, run_id, "other"),
                "the takeover",
                timeout_seconds=STARTS_SECONDS,
            )
            fence = laws.read_lock(lab)["fence"]
            time.sleep(max(0.0, stopped_at + STALL_SECONDS + 1 - time.monotonic()))
            paused.send_signal(signal.SIGCONT)
            refused = json.loads(paused.communicate(timeout=60)[0])
            lab.on("replica", "pkill -CONT -x mbstream")
            document = json.loads(successor.communicate(timeout=240)[0])
    assert paused.returncode == 3
    assert refused["error"]["error"] == "LockHeldError"
    assert successor.returncode == 0, document
    check_success(lab, before, document)
    assert laws.read_lock(lab)["fence"] == fence, "nobody has taken it since"
    for state in ("state", "other"):  # the copy has what was logged before it was made
        events = list_events(lab, run_id, state)
        assert events.count("job.started send-backup") == 1
        assert not [event for event in events if event.startswith("job.stopped")]
    status, document = resume(lab, config, run_id)
    assert (status, document["error"]["error"]) == (3, "PreconditionError")
    laws.check_recipient_equals_donor(lab)


def test_who_wakes_up_inside_a_step_is_refused_by_the_recipient(
    lab: CloneLab, config: Path
) -> None:
    """One that was stopped with the lock in hand, about to restart the server, does not touch it."""
    before = laws.note(lab)
    halt = {"XBVAULT_HALT_AT": "start-server:inside"}
    with process(config, *CLONE, env=halt) as paused:
        wait_until(lambda: is_halted(paused), "the halt", timeout_seconds=STARTS_SECONDS)
        run_id = kills.read_newest(lab)
        other = copy_journal(lab, config, "successor")
        wait_until(
            lambda: laws.read_lock(lab)["live"] == "0",
            "the end of the lease",
            timeout_seconds=3 * LOCK_SECONDS,
        )
        status, document = resume(lab, other, run_id)
        assert status == 0, document
        state, server = laws.read_state(lab, run_id), laws.read_server(lab, laws.RECIPIENT)
        paused.send_signal(signal.SIGCONT)
        refused = json.loads(paused.communicate(timeout=60)[0])
    assert paused.returncode == 3
    assert refused["error"]["error"] == "LockHeldError"
    assert laws.read_server(lab, laws.RECIPIENT) == server
    assert laws.read_state(lab, run_id) == state
    check_success(lab, before, document)
