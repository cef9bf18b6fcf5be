from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cli_lab import RUN_ID, make_record

from orchestrator import summary
from orchestrator.cli import runs
from orchestrator.errors import CancelledError, LockHeldError, VerificationError

if TYPE_CHECKING:
    from cli_lab import CommandLine

SUPPORT = Path(__file__).parents[2] / "support"


def test_list_is_a_table_of_runs(command_line: CommandLine) -> None:
    """One line a run, with what it was and how long it took on the clock."""
    header, line = command_line.call("runs", "list").stdout.splitlines()
    assert header.split()[:3] == ["run_id", "playbook", "donor"]
    assert line.split()[:5] == [RUN_ID, "clone", "master", "replica", "succeeded"]
    assert line.endswith("2026-11-21 21:05:00  8.5 s")


def test_list_as_json_is_a_list(command_line: CommandLine) -> None:
    """--json gives the same as a list of documents."""
    (item,) = command_line.document("runs", "list")
    assert (item["run_id"], item["recipient"], item["seconds"]) == (RUN_ID, "replica", 8.5)


def test_list_without_runs_says_so(command_line: CommandLine) -> None:
    """No run is no error."""
    command_line.backend.records = {}
    assert command_line.call("runs", "list").stdout == "no runs\n"
    assert command_line.document("runs", "list") == []


def test_show_as_json_is_the_clones_document_with_steps_and_parts(
    command_line: CommandLine,
) -> None:
    """`runs show --json` tells the same as `clone --json`, and steps and parts."""
    document = command_line.document("runs", "show", RUN_ID)
    clone = command_line.document("clone", "master", "replica", "--yes")
    assert {key: document[key] for key in clone} == clone
    assert set(document) - set(clone) == {"progress", "steps", "parts"}
    assert document["parts"][0]["kind"] == "cleanup"


def test_show_as_json_tells_how_far_the_running_step_is(
    command_line: CommandLine, tmp_path: Path
) -> None:
    """While a run goes on, the last progress of its step is told by host, with the time left."""
    record = make_record(status="running")
    going = dataclasses.replace(record.steps[0], status="running", result=None)
    command_line.backend.records[RUN_ID] = make_record(status="running", steps=(going,))
    with command_line.config.open("a") as stream:
        stream.write(f'[journal]\ndirectory = "{tmp_path}"\n')
    log = tmp_path / "logs" / f"{RUN_ID}.jsonl"
    log.parent.mkdir()

    def progress(host: str, size: int) -> dict[str, Any]:
        said = {"bytes": size, "expected_bytes": 300, "bytes_per_second": 10, "job": "j"}
        frame = {"event": "job.progress", "step": "stream-backup", "timestamp": "2026-11-21"}
        return {**frame, "level": "info", "run_id": RUN_ID, "host": host, **said}

    began = {"event": "step.began", "step": "stream-backup"}
    events = [progress("old", 1), began, progress("a", 100), progress("b", 300), progress("a", 200)]
    log.write_text("".join(f"{json.dumps(event)}\n" for event in events) + '{"event": "half')
    found = command_line.document("runs", "show", RUN_ID)["progress"]
    assert [(entry["host"], entry["bytes"], entry["seconds_left"]) for entry in found] == [
        ("a", 200, 10.0),
        ("b", 300, None),
    ]
    assert found[0] == {
        "step": "stream-backup",
        "host": "a",
        "at": "2026-11-21",
        "job": "j",
        "bytes": 200,
        "expected_bytes": 300,
        "bytes_per_second": 10,
        "seconds_left": 10.0,
    }
    command_line.backend.records[RUN_ID] = make_record()
    assert command_line.document("runs", "show", RUN_ID)["progress"] == []


def test_show_prints_the_transfer(command_line: CommandLine) -> None:
    """A person reads the same line at the end of the clone and later."""
    line = "transfer: 42 B in 4.1 s, 10 B/s"
    assert line in command_line.call("runs", "show", RUN_ID).stdout.splitlines()
    cloned = command_line.call("clone", "master", "replica", "--yes").stdout.splitlines()
    assert cloned.index(line) < cloned.index(next(x for x in cloned if x.startswith("succeeded")))


def test_show_prints_steps_parts_and_error(command_line: CommandLine) -> None:
    """A person sees which step failed, and why."""
    error = VerificationError("rows differ", problems=["shop.orders"]).as_json()
    command_line.backend.records[RUN_ID] = make_record(status="failed", error=error)
    lines = command_line.call("runs", "show", RUN_ID).stdout.splitlines()
    assert any(line.split()[:3] == ["1", "stream-backup", "succeeded"] for line in lines)
    assert f"cleanup:{RUN_ID}:success: succeeded" in lines
    assert "error: rows differ" in lines
    assert "  shop.orders" in lines


@pytest.mark.parametrize("verb", ["show", "watch", "resume", "cancel", "undo", "forget"])
def test_an_unknown_run_exits_2(command_line: CommandLine, verb: str) -> None:
    """A run that nobody knows is a wrong argument."""
    command_line.answers = "y\n"
    result = command_line.call("runs", verb, "nope")
    assert result.exit_code == 2
    assert "error: unknown run 'nope'" in result.stderr


def test_a_beginning_of_the_name_is_enough(command_line: CommandLine) -> None:
    """The journal completes the name, and from then on the whole name is used."""
    command_line.call("runs", "resume", RUN_ID[:8])
    assert f"resume_run {RUN_ID}" in command_line.backend.asked


@pytest.mark.parametrize(
    ("verb", "status", "playbook"),
    [
        ("cancel", "cancelled", "undo"),
        ("undo", "undone", "undo"),
        ("forget", "forgotten", "forget"),
    ],
)
def test_what_ends_a_run_asks_first(
    command_line: CommandLine, verb: str, status: str, playbook: str
) -> None:
    """A no changes nothing, a yes or --yes does it, and nobody to ask is exit 2."""
    command_line.backend.result = make_record(status=status)
    assert command_line.call("runs", verb, RUN_ID).exit_code == 2
    command_line.answers = "n\n"
    assert command_line.call("runs", verb, RUN_ID).exit_code == 130
    deed = f"{verb}_run by {playbook}"
    assert deed not in command_line.backend.asked
    command_line.answers = "y\n"
    assert command_line.call("runs", verb, RUN_ID).exit_code == 0
    assert deed in command_line.backend.asked
    command_line.answers = None
    result = command_line.call("runs", verb, RUN_ID, "--yes")
    assert result.exit_code == 0
    assert f"{status}: {RUN_ID}" in result.stdout


def test_resume_of_a_held_run_exits_3(command_line: CommandLine) -> None:
    """Another process works on it."""
    command_line.backend.failure = LockHeldError("held by process 1", hint="watch it")
    result = command_line.call("runs", "resume", RUN_ID)
    assert result.exit_code == 3
    assert "hint: watch it" in result.stderr


def test_resume_of_a_cancelled_run_exits_130(command_line: CommandLine) -> None:
    """Cancelled is final."""
    command_line.backend.failure = CancelledError("the run was cancelled")
    assert command_line.call("runs", "resume", RUN_ID).exit_code == 130


def write_log(command_line: CommandLine, events: list[dict[str, Any]]) -> Path:
    """Append events to the run's file, the last one without its end of line."""
    path = Path(os.environ["XDG_STATE_HOME"]) / "xbvault" / "logs" / f"{RUN_ID}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write("\n".join(json.dumps(event) for event in events))
    return path


def test_watch_follows_the_file_until_the_run_ends(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that come later are shown, half written ones wait for their end."""
    monkeypatch.setattr(runs, "ASK_JOURNAL_SECONDS", 0.05)
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.01)
    backend, at = command_line.backend, "2026-11-21T21:05:00.000000Z"
    backend.records[RUN_ID] = make_record(status="running", parts=())
    step = {"step": "stream-backup", "timestamp": at}
    path = write_log(command_line, [{"event": "step.began", **step}])

    def go_on() -> None:
        time.sleep(0.2)
        with path.open("a") as stream:
            stream.write("\n")
        ended = {"event": "step.ended", "seconds": 4.2, **step}
        write_log(command_line, [ended, {"event": "run.ended", "flow": "run"}])
        with path.open("a") as stream:
            stream.write("\n")
        backend.records[RUN_ID] = make_record()

    other = threading.Thread(target=go_on)
    other.start()
    result = command_line.call("runs", "watch", RUN_ID)
    other.join()
    assert result.exit_code == 0
    assert result.stderr.splitlines() == ["[1/4] stream-backup …", "[1/4] stream-backup done 4.2 s"]
    assert "bytes-equal" in result.stdout


def test_watch_of_an_interrupted_run_ends_and_says_how_to_resume(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was killed wrote no last event; the journal knows that nobody holds the run."""
    monkeypatch.setattr(runs, "ASK_JOURNAL_SECONDS", 0.01)
    command_line.backend.records[RUN_ID] = make_record(status="interrupted", parts=())
    write_log(command_line, [{"event": "step.began", "step": "stream-backup"}])
    result = command_line.call("runs", "watch", RUN_ID)
    assert result.exit_code == 7
    assert f"hint: xbvault runs resume {RUN_ID}" in result.stderr


def test_watch_passes_over_a_line_that_was_cut(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that lost its power may leave half of a line, which what is resumed goes on after."""
    monkeypatch.setattr(runs, "ASK_JOURNAL_SECONDS", 0.01)
    path = write_log(command_line, [])
    path.write_text('{"event": "step.be{"event": "step.began"}\n', encoding="utf-8")
    result = command_line.call("runs", "watch", RUN_ID)
    assert result.exit_code == 0


def test_watch_as_json_waits_and_prints_the_document(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One document, when the run has ended."""
    monkeypatch.setattr(runs, "ASK_JOURNAL_SECONDS", 0.01)
    result = command_line.call("runs", "watch", RUN_ID, "--json")
    assert (list(json.loads(result.stdout)), result.stderr) == (
        list(summary.build_empty_document()),
        "",
    )


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from cli_lab import FakeBackend
from orchestrator.cli.call import Call
from orchestrator.cli.main import app

class Endless(FakeBackend):
    def resume_run(self, config, run_id):
        if sys.argv[4] == "begun":
            self.listeners[0]({"event": "run.began"})
        print("under way", flush=True)
        time.sleep(60)

app(["--config", sys.argv[2], "runs", "resume", sys.argv[3]], obj=Call(backend=Endless()))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_detaches_at_once(command_line: CommandLine, number: int) -> None:
    """Ctrl-C and SIGTERM leave the run to be resumed, say how, and do not wait for its thread."""
    returned, said = detach(command_line, "begun", number)
    assert returned == 130
    assert f"resume with: xbvault runs resume {RUN_ID}" in said
    assert "Traceback" not in said


def test_a_signal_before_the_run_began_leaves_nothing_to_resume(command_line: CommandLine) -> None:
    """A run that does not stand in the journal yet is not offered to be resumed."""
    returned, said = detach(command_line, "not yet", signal.SIGINT)
    assert (returned, said.strip()) == (130, "ended before anything was done")


def detach(command_line: CommandLine, when: str, number: int) -> tuple[int, str]:
    """Send a signal to a process that resumes a run; return its exit status and stderr."""
    arguments = ["-c", SCRIPT, str(SUPPORT), str(command_line.config), RUN_ID, when]
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        process.send_signal(number)
        _out, said = process.communicate(timeout=10)
    return process.returncode, said
