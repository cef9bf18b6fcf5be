"""Several clones at once, as the command line tells of them."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from cli_lab import CommandLine, make_plan, make_record
from rich.console import Console

from orchestrator.cli import view
from orchestrator.cli.group_view import LiveGroupView
from orchestrator.errors import CommandError, LockHeldError
from orchestrator.models import Check

if TYPE_CHECKING:
    from orchestrator.durable import RunRecord

HOSTS = """
[hosts.replica2]
vault_mount = "keys/replica2"
[hosts.replica3]
vault_mount = "keys/replica3"
"""
NAMES = ("run-replica", "run-replica2", "run-replica3")
GROUP = make_plan().backup_id


def member(name: str, status: str = "succeeded", **changes: Any) -> RunRecord:
    """Return the record of a run of the group."""
    plan = make_plan(run_id=name, recipient=name.removeprefix("run-"), group_runs=NAMES)
    return make_record(run_id=name, plan=plan, status=status, **changes)


FAILURE = CommandError("the stream failed: ssh ended with 255", host="replica3").as_json()
LOST: dict[str, Any] = {"status": "failed", "error": FAILURE}


@pytest.fixture
def line(command_line: CommandLine) -> CommandLine:
    """Return a command line with a configuration of four hosts, and a group that succeeded."""
    with command_line.config.open("a") as stream:
        stream.write(HOSTS)
    command_line.backend.records = {name: member(name) for name in NAMES}
    return command_line


CLONE = ("clone", "master", "replica", "replica2", "replica3", "--yes")


def test_each_recipient_gets_a_process_and_a_report(line: CommandLine) -> None:
    """All of them begin, and each ends with its own findings."""
    result = line.call(*CLONE)
    assert result.exit_code == 0, result.output
    assert [asked for asked in line.backend.asked if asked.startswith("start_run")] == [
        f"start_run {name}" for name in NAMES
    ]
    for name in NAMES:
        assert f"== {name.removeprefix('run-')}\n" in result.stdout
        assert f"succeeded: {name}" in result.stdout


def test_all_are_recorded_before_any_begins(line: CommandLine) -> None:
    """So a command that is killed leaves no run that the journal does not know."""
    assert line.call(*CLONE).exit_code == 0
    asked = line.backend.asked
    assert asked.index(f"record_runs {' '.join(NAMES)}") < asked.index(f"start_run {NAMES[0]}")


def test_some_that_failed_make_it_partial(line: CommandLine) -> None:
    """Exit status 9; the error names who failed and why, and how the rest is done."""
    line.backend.records["run-replica3"] = member("run-replica3", **LOST)
    result = line.call(*CLONE)
    assert result.exit_code == 9
    assert "1 of 3 recipients failed: replica3" in result.stderr
    assert "run-replica3: the stream failed: ssh ended with 255" in result.stderr
    assert f"xbvault runs resume {GROUP}" in result.stderr
    document = line.document(*CLONE)
    assert document["status"] == "partial"
    assert [run["status"] for run in document["runs"]] == ["succeeded", "succeeded", "failed"]
    assert document["error"]["error"] == "PartialError"


def test_when_all_failed_the_first_error_counts(line: CommandLine) -> None:
    """A runbook branches on the cause then."""
    line.backend.records = {name: member(name, **LOST) for name in NAMES}
    assert line.call(*CLONE).exit_code == CommandError.exit_status
    assert line.document(*CLONE)["status"] == "failed"


def test_a_process_that_failed_before_its_run_began_is_told(line: CommandLine) -> None:
    """What it said is the error; one that said nothing is a fault of ours."""
    del line.backend.records["run-replica2"], line.backend.records["run-replica3"]
    line.backend.said["run-replica2"] = json.dumps(CommandError("no journal").as_json())
    result = line.call(*CLONE)
    assert result.exit_code == 9
    assert "run-replica2: no journal" in result.stderr
    assert "run-replica3: its process ended without a word" in result.stderr
    assert "2 of 3 recipients failed: replica2, replica3" in result.stderr


def test_failed_preconditions_of_one_stop_all(line: CommandLine) -> None:
    """Nothing is begun; the finding is there once, though each plan has it."""
    line.backend.checks = (Check(name="space", host="replica", ok=False, evidence="too little"),)
    result = line.call(*CLONE)
    assert result.exit_code == 3
    assert result.stderr.count("space: too little") == 1
    assert not [asked for asked in line.backend.asked if asked.startswith("start_run")]


def test_a_recipient_that_is_named_twice_is_refused(line: CommandLine) -> None:
    """Before anything is asked."""
    result = line.call("clone", "master", "replica", "replica2", "replica", "--yes")
    assert result.exit_code == 2
    assert "recipient 'replica' is named twice" in result.stderr
    assert line.backend.asked == []


def test_the_plan_shows_each_recipient(line: CommandLine) -> None:
    """As text and as JSON, with the findings once."""
    result = line.call(*CLONE[:-1], "--plan")
    assert result.exit_code == 0
    for name in ("replica", "replica2", "replica3"):
        assert f"== {name}\n" in result.stdout
    document = line.document(*CLONE[:-1], "--plan")
    assert [plan["plan"]["recipient"] for plan in document["plans"]] == list(CLONE[2:-1])
    assert len(document["checks"]) == 1


def test_a_group_is_resumed_by_its_name(line: CommandLine) -> None:
    """Only what has not ended is begun again; the report is of all."""
    line.backend.records["run-replica2"] = member("run-replica2", "failed")
    result = line.call("runs", "resume", GROUP)
    started = [asked for asked in line.backend.asked if asked.startswith("start_run")]
    assert started == ["start_run run-replica2"]
    assert "succeeded: run-replica3" in result.stdout


def test_what_has_ended_lets_go_when_its_group_is_resumed(line: CommandLine) -> None:
    """The process of a run may have been killed after its last word; one that is held lives."""
    line.backend.records["run-replica2"] = member("run-replica2", "failed")
    line.backend.failure = LockHeldError("run run-replica is held by process 7")
    line.call("runs", "resume", GROUP)
    asked = [asked for asked in line.backend.asked if asked.startswith("resume_run")]
    assert asked == ["resume_run run-replica", "resume_run run-replica3"]


def test_a_run_that_another_process_holds_is_told(line: CommandLine) -> None:
    """Not as one that was interrupted, which is all that the journal knows."""
    line.backend.records["run-replica2"] = member("run-replica2", "running")
    held = LockHeldError("run run-replica2 is held by process 7")
    line.backend.said["run-replica2"] = json.dumps(held.as_json())
    result = line.call("runs", "resume", GROUP)
    assert result.exit_code == 9
    assert "run-replica2: run run-replica2 is held by process 7" in result.stderr


def test_lines_begin_with_the_recipient(line: CommandLine) -> None:
    """In a pipe, each line of the talk says whose it is."""
    state = line.backend.load_config(line.config).state_directory / "logs"
    state.mkdir(parents=True)
    line.backend.logs = state
    result = line.call(*CLONE)
    for name in ("replica ", "replica2", "replica3"):
        assert f"{name}  [1/4] stream-backup …" in result.stderr


def test_the_live_view_has_a_line_for_each_recipient() -> None:
    """With the step that each is at."""
    console = Console(file=io.StringIO(), width=80, height=20)
    steps = [view.StepView("stream-backup"), view.StepView("verify-backup-set")]
    shown = LiveGroupView({"r1": "replica", "r2": "replica2"}, steps, console)
    shown.feed("r1", {"event": "step.began", "step": "stream-backup"})
    shown.feed("r1", {"event": "step.ended", "step": "stream-backup", "seconds": 1.0})
    shown.feed("r1", {"event": "step.began", "step": "verify-backup-set"})
    shown.feed("r2", {"event": "step.began", "step": "stream-backup"})
    with console.capture() as capture:
        console.print(shown)
    first, second = capture.get().splitlines()[:2]
    assert first.split()[:2] == ["replica", "1/2"]
    assert "verify-backup-set" in first
    assert second.split()[:2] == ["replica2", "0/2"]
    assert "stream-backup" in second
