"""The engine with the real workflow library on SQLite; kills happen to real processes."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engine_lab
import pytest
from engine_lab import (
    FORGET,
    MAIN,
    REPORT,
    STEPS,
    UNDO,
    EngineSession,
    make_plan,
    parse,
    read_events,
    script,
    sessions,
    trace,
)

from orchestrator import durable, log, models
from orchestrator.durable import attempts, files, flows, journal, runs
from orchestrator.durable import engine as library
from orchestrator.errors import (
    CancelledError,
    CommandError,
    ConfigError,
    HostUnreachableError,
    InterruptedWorkError,
    JournalError,
    LockHeldError,
    OrchestratorError,
    PreconditionError,
    SecretError,
)
from orchestrator.steps.registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.config import Config
    from orchestrator.durable import RunRecord
    from orchestrator.models import RunPlan

ALL = [*STEPS, "engine-sweep"]


class Engine:
    """The verbs on one journal, in this process or in one of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.config: Config = engine_lab.make_config(state)

    def begin(self, run_id: str = "r1", text: str = MAIN) -> RunRecord:
        """Begin a run here."""
        return durable.begin_run(self.config, make_plan(run_id), parse(text), EngineSession)

    def record(self, *run_ids: str) -> None:
        """Record runs here that are to begin together."""
        durable.record_runs(self.config, [make_plan(run_id) for run_id in run_ids], parse(MAIN))

    def resume(self, run_id: str = "r1") -> RunRecord:
        """Resume a run here."""
        return durable.resume_run(self.config, run_id, EngineSession)

    def cancel(self, run_id: str = "r1") -> RunRecord:
        """Cancel a run here."""
        return durable.cancel_run(self.config, run_id, EngineSession, parse(UNDO))

    def undo(self, run_id: str = "r1") -> RunRecord:
        """Undo a run here."""
        return durable.undo_run(self.config, run_id, EngineSession, parse(UNDO))

    def forget(self, run_id: str = "r1") -> RunRecord:
        """Forget a run here."""
        return durable.forget_run(self.config, run_id, EngineSession, parse(FORGET))

    def report(self, text: str, number: int = 1, run_id: str = "r1") -> RunRecord:
        """Report a run here, of which a text tells what it has come to."""
        book = parse(REPORT)
        values = {"text": text, "number": number}
        return durable.report_run(self.config, run_id, EngineSession, book, values, same="text")

    def read(self, run_id: str = "r1") -> RunRecord:
        """Read a run."""
        return durable.read_run(self.config, run_id)

    def events(self, run_id: str = "r1") -> list[str]:
        """Return the names of the events in a run's log."""
        return [event["event"] for event in read_events(self.state, run_id)]

    def spawn(self, verb: str, run_id: str = "r1", crash_at: str = "") -> subprocess.Popen[str]:
        """Do a verb in a process of its own."""
        package = Path(durable.__file__).parent.parent.parent
        return subprocess.Popen(
            [sys.executable, engine_lab.__file__, str(self.state), verb, run_id],
            env={**os.environ, "XBVAULT_CRASH_AT": crash_at, "PYTHONPATH": str(package)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_at(self, verb: str, crash_at: str) -> None:
        """Do a verb in a process that kills itself there."""
        process = self.spawn(verb, crash_at=crash_at)
        out, err = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, (out, err)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine with an empty journal, and a world in which every step succeeds."""
    (tmp_path / "world").mkdir()
    monkeypatch.setenv("ENGINE_WORLD", str(tmp_path / "world"))
    monkeypatch.setattr(attempts, "RETRY_WAITS_SECONDS", (0.01, 0.01, 0.01, 0.01))
    for name, info in engine_lab.DUMMIES.items():
        monkeypatch.setitem(REGISTRY, name, info)
    log.configure()
    return Engine(tmp_path / "state")


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


@contextlib.contextmanager
def living(engine: Engine, step: str = "engine-two") -> Iterator[subprocess.Popen[str]]:
    """A process that holds run r1 inside a step, until `release` exists."""
    script(step, "hold")
    process = engine.spawn("begin")
    try:
        wait_for(lambda: step in trace())
        yield process
    finally:
        process.kill()
        process.communicate()


def statuses(record: RunRecord) -> list[tuple[str, str]]:
    """Return the steps of a run with their status."""
    return [(step.name, step.status) for step in record.steps]


def test_run_goes_from_end_to_end(engine: Engine) -> None:
    """All steps run once, in order, then the clean-up; the record tells all of it."""
    record = engine.begin()
    assert trace() == ALL
    assert sessions() == ["succeeded"]
    assert record.status == "succeeded"
    assert (record.run_id, record.playbook, record.flow_version) == ("r1", "engine-main", "flow-1")
    assert record.plan == make_plan("r1")
    assert record.playbook_text == MAIN
    assert statuses(record) == [(name, "succeeded") for name in STEPS]
    assert record.steps[0].result == {"text": "hello", "attempt": 1}
    assert record.steps[3].result is None
    assert [(part.name, part.kind, part.status) for part in record.parts] == [
        ("cleanup:r1:success", "cleanup", "succeeded")
    ]
    assert [step.name for step in record.parts[0].steps] == ["engine-sweep"]
    moments = [record.began_at, *(step.began_at for step in record.steps), record.ended_at]
    assert moments == sorted(moments)
    assert models.as_json(record)["status"] == "succeeded"


def test_run_leaves_no_lock_and_private_files(engine: Engine) -> None:
    """After a run nothing is locked, and nobody else may read what it left."""
    engine.begin()
    assert list((engine.state / "locks").iterdir()) == []
    for path in [engine.state, *engine.state.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_log_tells_every_step_with_its_context(engine: Engine) -> None:
    """The run's log has began and ended of each step, bound to run, playbook, step and host."""
    engine.begin()
    events = [e for e in read_events(engine.state, "r1") if e["event"].startswith("step.")]
    assert [(e["event"], e["step"]) for e in events] == [
        (event, name) for name in ALL for event in ("step.began", "step.ended")
    ]
    assert {e["run_id"] for e in events} == {"r1"}
    assert {e["playbook"] for e in events} == {"engine-main"}
    assert [e["host"] for e in events[::2]] == [
        "master",
        "master,replica",
        "replica",
        "replica",
        "master,replica",
    ]


def test_journal_answers_as_the_library_does(engine: Engine) -> None:
    """What is read from the tables directly is what the library's client says."""
    script("engine-three", "fail")
    with pytest.raises(CommandError):
        engine.begin()
    tables = journal.Journal(files.journal_path(engine.config))
    with library.open_client(tables.path) as client:
        theirs = client.list_workflows()[0]
        ours = tables.rows(["r1"])["r1"]
        assert (ours.status, ours.version) == (theirs.status, theirs.app_version)
        assert (ours.created_at, ours.ended_at) == (theirs.created_at, theirs.completed_at)
        assert theirs.input
        assert ours.spec == theirs.input["args"][0]
        assert isinstance(theirs.error, CommandError)
        assert ours.error
        assert ours.error.as_json() == theirs.error.as_json()
        for mine, step in zip(tables.steps("r1"), client.list_workflow_steps("r1"), strict=True):
            assert (mine.number, mine.name) == (step["function_id"], step["function_name"])
            assert mine.output == step["output"]
            assert (mine.error is None) == (step["error"] is None)
            assert mine.began_at == step["started_at_epoch_ms"]
            assert mine.ended_at == step["completed_at_epoch_ms"]


def test_failed_run_goes_on_at_the_failed_step(engine: Engine) -> None:
    """A failure raises the step's own error and cleans nothing up; resume repeats only that."""
    script("engine-three", "fail")
    with pytest.raises(CommandError, match="it failed") as caught:
        engine.begin()
    assert (caught.value.status, caught.value.stderr) == (3, "so bad")
    record = engine.read()
    assert record.status == "failed"
    assert record.error == caught.value.as_json()
    assert statuses(record) == [
        ("engine-one", "succeeded"),
        ("engine-two", "succeeded"),
        ("engine-three", "failed"),
        ("engine-four", "pending"),
    ]
    assert record.steps[2].error == caught.value.as_json()
    assert record.parts == ()
    assert engine.resume().status == "succeeded"
    assert trace() == [*STEPS[:3], *STEPS[2:], "engine-sweep"]
    assert sessions() == ["failed", "succeeded"]
    assert "step.failed" in engine.events()


def test_finished_run_is_returned_unchanged(engine: Engine) -> None:
    """Resuming a run that has ended does nothing."""
    first = engine.begin()
    assert engine.resume() == first
    assert trace() == ALL
    assert sessions() == ["succeeded"]


@pytest.mark.parametrize("step", ["engine-one", "engine-two"])
def test_transient_error_is_retried(engine: Engine, step: str) -> None:
    """A step that is safe to repeat or restart tries again when the error says it may help."""
    script(step, "transient", "transient")
    assert engine.begin().status == "succeeded"
    assert trace().count(step) == 3
    assert engine.events().count("step.retried") == 2


def test_transient_error_is_not_retried_for_ever(engine: Engine) -> None:
    """After five attempts the error stands as the step raised it."""
    script("engine-one", *["transient"] * 9)
    with pytest.raises(HostUnreachableError, match="no answer"):
        engine.begin()
    assert trace() == ["engine-one"] * 5


def test_step_that_goes_back_is_retried_as_well(engine: Engine) -> None:
    """It asks before it acts, as any other: a connection that breaks sends nothing back."""
    script("engine-three", "transient")
    assert engine.begin().status == "succeeded"
    assert trace() == [*STEPS[:3], *STEPS[2:], "engine-sweep"]


def test_step_that_may_not_be_repeated_is_not_retried(engine: Engine) -> None:
    """A step that asks fails at once, transient or not."""
    script("engine-ask", "transient")
    with pytest.raises(HostUnreachableError):
        engine.begin(text=MAIN.replace("engine-three", "engine-ask"))
    assert trace() == [*STEPS[:2], "engine-ask"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps whose server did not run, and was started again; ``engine-four`` needs one."""
    found: list[str] = []

    def start_server(_session: EngineSession, _tools: object, plan: RunPlan) -> bool:
        found.append(plan.run_id)
        return True

    info = dataclasses.replace(engine_lab.DUMMIES["engine-four"], needs_server=True)
    monkeypatch.setitem(REGISTRY, info.name, info)
    monkeypatch.setattr(EngineSession, "start_server", start_server)
    return found


def test_server_that_does_not_run_is_started_once(engine: Engine, started: list[str]) -> None:
    """The step that failed on it is tried again; if it fails again, that was not why."""
    script("engine-four", "fail")
    assert engine.begin().status == "succeeded"
    script("engine-four", "fail", "fail")
    with pytest.raises(CommandError, match="it failed"):
        engine.begin("r2")
    assert started == ["r1", "r2"]


def test_last_attempt_is_the_last(engine: Engine, started: list[str]) -> None:
    """What it fails on is said, also where a server could still be started."""
    script("engine-four", *["transient"] * 4, "fail")
    with pytest.raises(CommandError, match="it failed"):
        engine.begin()
    assert started == []


def test_lasting_error_is_not_retried(engine: Engine) -> None:
    """An error that is not transient is tried once."""
    script("engine-one", "fail")
    with pytest.raises(CommandError):
        engine.begin()
    assert trace() == ["engine-one"]


def test_interrupted_step_sends_the_run_back(engine: Engine) -> None:
    """The run goes back by itself, with a new attempt number, and keeps the steps before."""
    script("engine-three", "interrupted")
    record = engine.begin()
    again = ["engine-two 2", "engine-three 2", "engine-four 2"]
    assert trace() == ["engine-one", "engine-two", "engine-three", *again, "engine-sweep"]
    assert [(s.name, s.attempt, s.status) for s in record.steps] == [
        ("engine-one", 1, "succeeded"),
        ("engine-two", 1, "succeeded"),
        ("engine-three", 1, "failed"),
        ("engine-two", 2, "succeeded"),
        ("engine-three", 2, "succeeded"),
        ("engine-four", 2, "succeeded"),
    ]
    assert record.steps[2].error
    assert record.steps[2].error["error"] == "InterruptedWorkError"
    assert engine.events().count("step.went_back") == 1


def test_run_goes_back_three_times_at_most(engine: Engine) -> None:
    """Then a person is asked; a resume may go back again, and knows which attempt it is."""
    script("engine-three", *["interrupted"] * 5)
    with pytest.raises(InterruptedWorkError) as caught:
        engine.begin()
    assert caught.value.exit_status == 7
    assert trace()[-1] == "engine-three 4"
    record = engine.resume()
    assert record.status == "succeeded"
    assert trace()[-5:] == [
        "engine-three 4",
        "engine-two 5",
        "engine-three 5",
        "engine-four 5",
        "engine-sweep",
    ]


def test_later_parts_know_the_attempt(engine: Engine) -> None:
    """What undoes a run is told how often the run went back."""
    script("engine-three", "interrupted", "interrupted")
    engine.begin()
    engine.undo()
    assert trace()[-2:] == ["engine-revert 3", "engine-sweep 3"]


def test_step_that_asks_stops_the_run(engine: Engine) -> None:
    """Interrupted work that must not be repeated ends with exit status 7."""
    script("engine-ask", "interrupted")
    text = UNDO.replace("engine-revert", "engine-ask")
    with pytest.raises(InterruptedWorkError):
        engine.begin(text=text)
    assert trace() == ["engine-ask"]
    assert engine.read().status == "failed"


def test_fault_of_ours_is_journalled_as_text(engine: Engine) -> None:
    """A foreign exception ends the run with exit status 1; its stack is in the log, redacted."""
    secret = models.Secret("correct-horse-battery")
    script("engine-one", f"broken {secret.reveal()}")
    with pytest.raises(OrchestratorError, match="step engine-one broke: KeyError") as caught:
        engine.begin()
    assert type(caught.value) is OrchestratorError
    text = (engine.state / "logs" / "r1.jsonl").read_text()
    assert "Traceback" in text
    assert secret.reveal() not in text + str(engine.read())
    assert engine.resume().status == "succeeded"


def test_secret_in_a_result_is_masked(engine: Engine) -> None:
    """A step that returns a secret by mistake does not put it into the journal."""
    secret = models.Secret("correct-horse-stapler")
    script("engine-one", f"say it is {secret.reveal()}")
    record = engine.begin()
    assert record.steps[0].result == {"text": "it is ***", "attempt": 1}
    for path in engine.state.rglob("*"):
        assert path.is_dir() or secret.reveal().encode() not in path.read_bytes(), path


def test_step_that_takes_too_long_is_named(engine: Engine) -> None:
    """A step that looks at its deadline ends there, with an error that names it."""
    script("engine-short", "sleep 20")
    began = time.monotonic()
    with pytest.raises(CommandError, match=r"engine-short did not end within 0\.5 s"):
        engine.begin(text=UNDO.replace("engine-revert", "engine-short"))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("moment", ["before", "after", "committed"])
@pytest.mark.parametrize("step", ["engine-one", "engine-three", "engine-sweep"])
def test_killed_run_goes_on_and_repeats_only_the_cut_step(
    engine: Engine, step: str, moment: str
) -> None:
    """SIGKILL before, after or past the journalling of a step: the same end, nothing done again."""
    engine.kill_at("begin", f"{step}:{moment}")
    record = engine.read()
    # Its work is done with the last step, but only the end of the walk says so.
    expected = "cleaning" if step == "engine-sweep" else "interrupted"
    assert record.status == expected
    assert record.ended_at == ""
    done = trace()
    assert engine.resume().status == "succeeded"
    twice = [step] if moment == "after" else []
    place = ALL.index(step)
    assert trace() == [*ALL[: place + 1], *twice, *ALL[place + 1 :]]
    assert trace()[: len(done)] == done


def test_killed_run_remembers_where_it_went_back(engine: Engine) -> None:
    """A kill in a later round goes on in that round."""
    script("engine-three", "interrupted")
    process = engine.spawn("begin", crash_at="engine-four:before")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    before = trace()
    assert before[-1] == "engine-three 2"
    assert engine.resume().status == "succeeded"
    assert trace() == [*before, "engine-four 2", "engine-sweep"]


def test_process_that_is_killed_from_outside_leaves_a_run_to_resume(engine: Engine) -> None:
    """The lock goes with the process, and the step that it was in is begun again."""
    with living(engine) as process:
        process.kill()
        process.wait()
        assert engine.read().status == "interrupted"
        assert engine.resume().status == "succeeded"
    assert trace() == ["engine-one", "engine-two", "engine-two", *STEPS[2:], "engine-sweep"]


def test_signal_handler_runs_while_a_run_is_waited_for(engine: Engine) -> None:
    """Ctrl-C reaches the handler of the command line at once, and the run can be resumed."""
    with living(engine) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 130
        assert engine.read().status == "interrupted"
        assert engine.resume().status == "succeeded"


def test_unhandled_interrupt_keeps_the_run_held_until_the_step_is_gone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that is still at work in its thread is not joined by one of another process."""
    monkeypatch.setenv("ENGINE_NO_HANDLER", "1")
    with living(engine) as process:
        process.send_signal(signal.SIGINT)
        wait_for(lambda: sessions() == ["detached"])
        with pytest.raises(LockHeldError, match=str(process.pid)):
            engine.resume()
        (engine_lab.world() / "release").touch()
        process.communicate(timeout=30)
    assert engine.read().status == "interrupted"
    assert engine.resume().status == "succeeded"
    assert trace() == ["engine-one", "engine-two", "engine-two", *STEPS[2:], "engine-sweep"]


def test_process_says_nothing_on_its_own(engine: Engine) -> None:
    """The library writes nothing to stderr or stdout: a run's answer stands alone."""
    process = engine.spawn("begin")
    out, err = process.communicate(timeout=60)
    assert err == ""
    assert json.loads(out)["status"] == "succeeded"


def test_live_run_is_seen_and_left_alone(engine: Engine) -> None:
    """Others see it running, with its step, and are told who holds it."""
    with living(engine) as process:
        record = engine.read()
        assert record.status == "running"
        assert statuses(record)[:3] == [
            ("engine-one", "succeeded"),
            ("engine-two", "running"),
            ("engine-three", "pending"),
        ]
        assert durable.list_runs(engine.config)[0].status == "running"
        for verb in (engine.resume, engine.undo, engine.forget, engine.begin):
            with pytest.raises(LockHeldError, match=f"held by process {process.pid}"):
                verb()
        (engine_lab.world() / "release").touch()
        out, _ = process.communicate(timeout=30)
        assert json.loads(out)["status"] == "succeeded"
    assert trace() == ALL


def test_live_run_is_cancelled(engine: Engine) -> None:
    """The holder ends within seconds; then what it did is undone and cleaned up, once."""
    with living(engine) as process:
        record = engine.cancel()
        out, _ = process.communicate(timeout=5)
    assert process.returncode == 130
    assert json.loads(out)["error"] == "CancelledError"
    assert record.status == "cancelled"
    assert record.ended_at
    assert [(part.name, part.status) for part in record.parts] == [
        ("cancel:r1", "succeeded"),
        ("cleanup:r1:cancel", "succeeded"),
    ]
    done = ["engine-one", "engine-two", "engine-revert", "engine-sweep"]
    assert trace() == done
    assert sessions() == ["cancelled", "cancelled"]
    assert engine.cancel() == record
    with pytest.raises(PreconditionError, match="was cancelled, which is final"):
        engine.resume()
    with pytest.raises(PreconditionError, match="is cancelled and cannot be undone"):
        engine.undo()
    assert trace() == done
    assert engine.forget().status == "forgotten"


def test_holder_that_does_not_let_go_stops_a_cancel(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancel that waits in vain names the process; it can be repeated when that is gone."""
    monkeypatch.setattr(runs, "CANCEL_WAIT_SECONDS", 0.3)
    with living(engine) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(LockHeldError, match=str(process.pid)):
            engine.cancel()
        process.kill()
        process.wait()
    record = engine.read()
    assert record.status == "cancelled"
    with pytest.raises(PreconditionError) as caught:
        engine.forget()
    assert caught.value.hint == "xbvault runs cancel r1"
    assert engine.cancel().parts[0].status == "succeeded"


def test_failed_and_interrupted_runs_are_cancelled(engine: Engine) -> None:
    """No process is needed; a run that has done its work is undone instead."""
    script("engine-three", "fail")
    with pytest.raises(CommandError):
        engine.begin()
    assert engine.cancel().status == "cancelled"
    with pytest.raises(PreconditionError, match="final"):
        engine.resume()
    engine.begin("r2")
    with pytest.raises(PreconditionError) as caught:
        engine.cancel("r2")
    assert caught.value.hint == "xbvault runs undo r2"


def test_killed_cancel_goes_on(engine: Engine) -> None:
    """A cancel that was cut off is repeated where it was; resume says so."""
    script("engine-three", "fail")
    with pytest.raises(CommandError):
        engine.begin()
    engine.kill_at("cancel", "engine-revert:committed")
    assert engine.read().status == "cancelled"
    assert engine.read().ended_at == ""
    with pytest.raises(PreconditionError) as caught:
        engine.resume()
    assert caught.value.hint == "xbvault runs cancel r1"
    assert engine.cancel().ended_at
    assert trace()[-2:] == ["engine-revert", "engine-sweep"]


@pytest.mark.parametrize("step", ["engine-revert", "engine-sweep"])
def test_failed_cancel_has_not_ended(engine: Engine, step: str) -> None:
    """A cancel that failed, or whose clean-up did, must be repeated before anything is forgotten."""
    script("engine-three", "fail")
    with pytest.raises(CommandError):
        engine.begin()
    script(step, "fail")
    with pytest.raises(CommandError):
        engine.cancel()
    record = engine.read()
    assert (record.status, record.ended_at) == ("cancelled", "")
    with pytest.raises(PreconditionError, match="has not ended") as caught:
        engine.forget()
    assert caught.value.hint == "xbvault runs cancel r1"
    assert engine.cancel().ended_at
    assert engine.forget().status == "forgotten"
    assert "engine-drop" in trace()


def test_cancel_that_meets_a_resume_stands(engine: Engine) -> None:
    """A run that is marked as cancelled while a resume makes ready does not go on."""
    engine.kill_at("begin", "engine-two:before")
    path = files.journal_path(engine.config)

    def open_late(config: Config, plan: RunPlan) -> EngineSession:
        library.cancel_flow(path, plan.run_id)
        return EngineSession(config, plan)

    with pytest.raises(CancelledError):
        durable.resume_run(engine.config, "r1", open_late)
    assert engine.read().status == "cancelled"
    assert trace() == ["engine-one"]
    assert sessions() == ["cancelled"]


def test_failed_cleanup_is_done_by_resume(engine: Engine) -> None:
    """The run's work is done but it has not ended; resume does only the clean-up."""
    script("engine-sweep", "fail")
    with pytest.raises(CommandError):
        engine.begin()
    record = engine.read()
    assert (record.status, record.ended_at, record.error) == ("cleaning", "", None)
    assert record.parts[0].error
    assert record.parts[0].error["message"] == "it failed"
    assert engine.resume().status == "succeeded"
    assert trace() == [*ALL, "engine-sweep"]


@pytest.mark.parametrize("verb", ["begin", "resume"])
def test_what_a_killed_process_held_is_let_go(engine: Engine, verb: str) -> None:
    """A process that died after the last word in the journal has its recipient let go for it."""
    engine.kill_at("begin", "run:ended")
    locks = engine.state / "locks"
    assert [path.name for path in locks.iterdir()] == ["r1"]
    assert (engine.read().status, sessions()) == ("succeeded", [])
    if verb == "begin":
        engine.begin("r2")
    else:
        assert engine.resume() == engine.read()
    assert sessions() == ["succeeded"] * (2 if verb == "begin" else 1)
    assert list(locks.iterdir()) == []
    engine.resume()
    assert sessions() == ["succeeded"] * (2 if verb == "begin" else 1)


def test_what_was_interrupted_stays_held(engine: Engine) -> None:
    """Another run does not take the recipient from one that was cut off and will be resumed."""
    engine.kill_at("begin", "engine-two:before")
    engine.begin("r2")
    assert sessions() == ["succeeded"]
    assert engine.resume().status == "succeeded"


def reports(record: RunRecord) -> list[tuple[str, str, str]]:
    """Return the reports of a run: status of the part, and what its step was given and has said."""
    return [
        (part.status, part.name, (part.steps[0].result or {}).get("text", ""))
        for part in record.parts
        if part.kind == "report"
    ]


def test_a_report_is_a_part_of_its_run(engine: Engine) -> None:
    """It is given its values, holds no host, and leaves the run as it has ended."""
    done = engine.begin()
    record = engine.report("passed")
    assert reports(record) == [("succeeded", "report:r1", "passed")]
    assert sessions() == ["succeeded", "reported"]
    assert (record.status, record.steps) == ("succeeded", done.steps)
    assert engine.resume() == record


def test_a_report_is_written_once_of_the_same(engine: Engine) -> None:
    """What else it was given does not count; of a run that has gone on, it is written anew."""
    script("engine-three", "fail")
    with pytest.raises(CommandError):
        engine.begin()
    first = engine.report("failed")
    assert first.status == "failed"
    assert engine.report("failed", number=2) == first
    assert trace().count("engine-one") == 2
    assert engine.resume().status == "succeeded"
    record = engine.report("passed")
    assert record.status == "succeeded"
    assert reports(record) == [("succeeded", "report:r1", "passed")]
    assert trace().count("engine-one") == 3


def test_a_failed_or_killed_report_is_written_by_the_next(engine: Engine) -> None:
    """Of the same as before, or of something else by then."""
    engine.begin()
    script("engine-one", "fail")
    with pytest.raises(CommandError):
        engine.report("passed")
    assert reports(engine.read())[0][0] == "failed"
    assert engine.read().status == "succeeded"
    assert reports(engine.report("passed")) == [("succeeded", "report:r1", "passed")]
    for left in ("other", "third"):
        script("engine-one", "fail")
        with pytest.raises(CommandError):
            engine.report(left)
    engine.kill_at("report", "engine-one:after")
    assert reports(engine.read())[0][0] == "interrupted"
    assert reports(engine.report("last")) == [("succeeded", "report:r1", "last")]


def test_a_run_that_is_held_is_not_reported(engine: Engine) -> None:
    """It has not ended."""
    with living(engine), pytest.raises(LockHeldError):
        engine.report("passed")


def test_undo_puts_back_and_cleans_up(engine: Engine) -> None:
    """An undone run stays undone; it is neither resumed nor undone again."""
    engine.begin()
    record = engine.undo()
    assert record.status == "undone"
    assert trace() == [*ALL, "engine-revert", "engine-sweep"]
    assert [part.name for part in record.parts] == [
        "cleanup:r1:success",
        "undo:r1",
        "cleanup:r1:undo",
    ]
    assert engine.undo() == record
    with pytest.raises(PreconditionError, match="was undone, which is final"):
        engine.resume()
    assert engine.forget().status == "forgotten"


def test_undo_takes_the_place_of_a_cleanup_that_was_cut_off(engine: Engine) -> None:
    """A run that is undone before its clean-up was done has ended with the undo's clean-up."""
    engine.kill_at("begin", "engine-sweep:before")
    record = engine.undo()
    assert record.status == "undone"
    assert record.ended_at
    assert trace() == [*STEPS, "engine-revert", "engine-sweep"]


def test_undo_with_a_cleanup_of_its_own_uses_that(engine: Engine) -> None:
    """The clean-up that the undo's playbook names takes the place of the run's, which has none."""
    engine.begin(text=MAIN.partition("cleanup:")[0])
    assert engine.read().parts == ()
    undo = parse(UNDO + "cleanup:\n  - {use: engine-drop, on: recipient}\n")
    script("engine-drop", "fail")
    with pytest.raises(CommandError):
        durable.undo_run(engine.config, "r1", EngineSession, undo)
    assert engine.read().status == "cleaning"
    record = durable.undo_run(engine.config, "r1", EngineSession, undo)
    assert record.status == "undone"
    assert trace() == [*STEPS, "engine-revert", "engine-drop", "engine-drop"]


@pytest.mark.parametrize("step", ["engine-revert", "engine-sweep"])
def test_killed_or_failed_undo_goes_on(engine: Engine, step: str) -> None:
    """An undo that failed, then was killed, is completed by the next, without repeating."""
    engine.begin()
    script(step, "fail")
    with pytest.raises(CommandError):
        engine.undo()
    assert engine.read().status == ("failed" if step == "engine-revert" else "cleaning")
    engine.kill_at("undo", f"{step}:committed")
    with pytest.raises(PreconditionError) as caught:
        engine.resume()
    assert caught.value.hint == "xbvault runs undo r1"
    assert engine.undo().status == "undone"
    assert trace()[len(ALL) :].count("engine-revert") == 1 + (step == "engine-revert")
    assert trace()[len(ALL) :].count("engine-sweep") == 1 + (step == "engine-sweep")


def test_what_is_refused_at_its_first_step_has_not_begun(engine: Engine) -> None:
    """An undo or forget that may not be done now leaves the run as it was, and may come later."""
    done = engine.begin()
    script("engine-revert", "refuse", "refuse")
    script("engine-drop", "refuse")
    for verb in (engine.undo, engine.undo, engine.forget):
        with pytest.raises(PreconditionError, match="not now"):
            verb()
        assert engine.read() == done
    assert engine.undo().status == "undone"
    assert engine.forget().status == "forgotten"


def test_what_has_not_succeeded_is_not_undone(engine: Engine) -> None:
    """A failed run is resumed or cancelled; a forgotten one is beyond undo."""
    script("engine-three", "fail")
    with pytest.raises(CommandError):
        engine.begin()
    for verb in (engine.undo, engine.forget):
        with pytest.raises(PreconditionError) as caught:
            verb()
        assert caught.value.hint == "xbvault runs resume r1, or xbvault runs cancel r1"
    engine.resume()
    forgotten = engine.forget()
    assert forgotten.status == "forgotten"
    assert engine.forget() == forgotten
    assert engine.resume() == forgotten
    with pytest.raises(PreconditionError, match="is forgotten and cannot be undone"):
        engine.undo()
    assert trace().count("engine-drop") == 1


def test_run_of_another_format_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that another version began is not resumed, and its reader is told what to do."""
    script("engine-three", "fail")
    with monkeypatch.context() as older:
        older.setattr(flows, "FLOW_VERSION", "flow-0")
        with pytest.raises(CommandError):
            engine.begin()
    assert engine.read().flow_version == "flow-0"
    with pytest.raises(PreconditionError, match="flow-0; this one reads flow-1") as caught:
        engine.resume()
    assert caught.value.hint == (
        "`xbvault runs cancel r1` takes it back; or resume it with the version that began it"
    )
    assert trace() == list(STEPS[:3])


@pytest.mark.parametrize("verb", ["cancel", "undo"])
def test_run_of_another_format_is_taken_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """What another version began can be cancelled or undone, as the refusal of its resume says."""
    script("engine-sweep" if verb == "undo" else "engine-three", "fail")
    with monkeypatch.context() as older:
        older.setattr(flows, "FLOW_VERSION", "flow-0")
        with pytest.raises(CommandError):
            engine.begin()
    with pytest.raises(PreconditionError) as caught:
        engine.resume()
    assert f"`xbvault runs {verb} r1`" in caught.value.hint
    ended = engine.undo() if verb == "undo" else engine.cancel()
    assert ended.status == {"undo": "undone", "cancel": "cancelled"}[verb]
    assert ended.ended_at
    assert trace()[-2:] == ["engine-revert", "engine-sweep"]


def test_undo_of_another_format_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An undo that another version has begun is not gone on with."""
    engine.begin()
    script("engine-revert", "fail")
    with monkeypatch.context() as older:
        older.setattr(flows, "FLOW_VERSION", "flow-0")
        with pytest.raises(CommandError):
            engine.undo()
    with pytest.raises(PreconditionError, match="flow-0; this one reads flow-1") as caught:
        engine.undo()
    assert caught.value.hint == "end the undo with the version that began it"


def test_run_with_a_step_that_is_gone_is_refused(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stored playbook that names a step which this version lacks is not begun half way."""
    script("engine-one", "fail")
    with pytest.raises(CommandError):
        engine.begin()
    monkeypatch.delitem(REGISTRY, "engine-four")
    with pytest.raises(PreconditionError, match="knows no step 'engine-four'"):
        engine.resume()
    assert trace() == ["engine-one"]


def test_resumed_run_follows_the_playbook_that_it_began_with(engine: Engine) -> None:
    """A playbook that was changed in between changes nothing for a run under way."""
    path = engine_lab.world() / "playbook.yaml"
    path.write_text(MAIN)
    script("engine-three", "fail")
    process = engine.spawn("begin")
    process.communicate(timeout=60)
    assert process.returncode == 4
    path.write_text(UNDO)
    assert engine.resume().playbook_text == MAIN
    assert trace()[-2:] == ["engine-four", "engine-sweep"]


def test_run_id_is_used_once(engine: Engine) -> None:
    """A second run of the same name is refused, and changes nothing."""
    first = engine.begin()
    with pytest.raises(PreconditionError, match="there is a run r1 already"):
        engine.begin()
    assert engine.read() == first
    assert trace() == ALL


def test_recorded_runs_begin_when_they_are_resumed(engine: Engine) -> None:
    """All stand in the journal, none has done anything; each begins like a run that is begun."""
    engine.record("r1", "r2")
    assert trace() == []
    listed = {run.run_id: (run.status, run.ended_at) for run in durable.list_runs(engine.config)}
    assert listed == {"r1": ("interrupted", ""), "r2": ("interrupted", "")}
    assert [step.status for step in engine.read("r2").steps] == ["pending"] * len(STEPS)
    assert engine.resume("r2").status == "succeeded"
    assert trace() == ALL
    assert engine.read("r1").status == "interrupted"
    (began,) = (e for e in read_events(engine.state, "r2")[:1] if e["event"] == "run.began")
    assert began["resumed"] is False
    assert engine.resume("r1").status == "succeeded"
    assert engine.resume("r1") == engine.read("r1")


def test_recorded_run_is_cancelled_before_it_begins(engine: Engine) -> None:
    """Nothing of its playbook is done; what a cancel does is."""
    engine.record("r1", "r2")
    assert engine.cancel().status == "cancelled"
    assert trace() == ["engine-revert", "engine-sweep"]
    assert engine.read("r2").status == "interrupted"


def test_runs_are_recorded_all_or_none(engine: Engine) -> None:
    """A name that is taken keeps the others out; what stood there stays."""
    first = engine.begin("r2")
    with pytest.raises(JournalError):
        engine.record("r1", "r2", "r3")
    assert [run.run_id for run in durable.list_runs(engine.config)] == ["r2"]
    assert engine.read("r2") == first


@pytest.mark.parametrize(("moment", "left"), [("before", []), ("recorded", ["r1", "r1.other"])])
def test_process_that_is_killed_around_the_record_leaves_all_or_none(
    engine: Engine, moment: str, left: list[str]
) -> None:
    """And what is left can be resumed."""
    engine.kill_at("record", f"group:{moment}")
    assert sorted(run.run_id for run in durable.list_runs(engine.config)) == left
    assert [engine.resume(run).status for run in left] == ["succeeded"] * len(left)


def test_runs_are_listed_and_found_by_a_beginning(engine: Engine) -> None:
    """Lists are newest first and without steps; a beginning names a run if only one has it."""
    for name in ("20260101-a1", "20260102-a2", "20260102_b3"):
        engine.begin(name, UNDO)
    found = durable.list_runs(engine.config)
    assert [run.run_id for run in found] == ["20260102_b3", "20260102-a2", "20260101-a1"]
    assert all(run.steps == () and run.status == "succeeded" for run in found)
    assert len(durable.list_runs(engine.config, limit=2)) == 2
    assert engine.read("20260101").run_id == "20260101-a1"
    assert engine.read("20260102_").run_id == "20260102_b3"
    with pytest.raises(ConfigError, match="names 2 runs"):
        engine.read("20260102")
    with pytest.raises(ConfigError, match="unknown run '%'"):
        engine.read("%")


def test_session_that_cannot_open_leaves_no_run(engine: Engine) -> None:
    """What fails before the first step is not a run."""

    def refuse(_config: Config, _plan: RunPlan) -> EngineSession:
        raise SecretError("no token")

    with pytest.raises(SecretError):
        durable.begin_run(engine.config, make_plan("r1"), parse(MAIN), refuse)
    assert durable.list_runs(engine.config) == []


def test_session_that_ends_badly_does_not_hide_the_run(engine: Engine) -> None:
    """A lock that cannot be released is noted; the run's own end stands."""

    class BadEnd(EngineSession):
        def end(self, status: str) -> None:
            super().end(status)
            raise HostUnreachableError("cannot release")

    record = durable.begin_run(engine.config, make_plan("r1"), parse(MAIN), BadEnd)
    assert record.status == "succeeded"
    assert "notice" in engine.events()


class Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("table", ["operation_outputs", "workflow_input"])
def test_pickle_in_the_journal_is_refused(engine: Engine, tmp_path: Path, table: str) -> None:
    """Who can write the journal cannot make us run code, be it read or resumed."""
    script("engine-two", "fail")
    with pytest.raises(CommandError):
        engine.begin()
    bomb = base64.b64encode(pickle.dumps(Bomb(tmp_path / "exploded"))).decode()
    with contextlib.closing(sqlite3.connect(engine.state / "journal.sqlite")) as connection:
        if table == "operation_outputs":
            connection.execute(
                "UPDATE operation_outputs SET output = ?, serialization = 'py_pickle'", (bomb,)
            )
        else:
            connection.execute("UPDATE workflow_input SET inputs = ?", (bomb,))
            connection.execute("UPDATE workflow_status SET serialization = 'py_pickle'")
        connection.commit()
    for verb in (engine.read, engine.resume):
        with pytest.raises(JournalError):
            verb()
    # The library itself, asked past our own reading.
    with library.open_client(files.journal_path(engine.config)) as client:
        with contextlib.suppress(JournalError):
            client.list_workflow_steps("r1")
        client.list_workflows()
    assert not (tmp_path / "exploded").exists()
    assert pickle.loads(base64.b64decode(bomb)) is None
    assert (tmp_path / "exploded").exists(), "the bomb was a dud, so the test proved nothing"


def test_locked_journal_is_a_journal_error(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that another program holds ends with exit status 8 instead of waiting for ever."""
    engine.begin()
    monkeypatch.setattr(journal, "LOCKED_SECONDS", 0.2)
    with contextlib.closing(sqlite3.connect(engine.state / "journal.sqlite")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(JournalError, match="locked"):
            engine.begin("r2")
        assert time.monotonic() - began < 10
        assert engine.read().status == "succeeded"
        connection.rollback()
    assert engine.begin("r2").status == "succeeded"


def test_journal_that_is_locked_meanwhile_stops_the_run_there(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run waits for a while, says so with exit status 8, and can be resumed."""
    monkeypatch.setenv("ENGINE_LOCKED_SECONDS", "1")
    script("engine-two", "hold")
    process = engine.spawn("begin")
    wait_for(lambda: "engine-two" in trace())
    with contextlib.closing(sqlite3.connect(engine.state / "journal.sqlite")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        (engine_lab.world() / "release").touch()
        out, err = process.communicate(timeout=30)
        connection.rollback()
    assert process.returncode == 8, (out, err)
    document = json.loads(out)
    assert (document["error"], "locked" in document["message"]) == ("JournalError", True)
    assert engine.resume().status == "succeeded"
    assert trace() == ["engine-one", "engine-two", "engine-two", *STEPS[2:], "engine-sweep"]


def test_full_disk_ends_in_a_journal_error_and_a_run_to_resume(engine: Engine) -> None:
    """A journal that takes no more stops the run at that step, and the run can be resumed."""
    script("engine-two", "full")
    process = engine.spawn("begin")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 8, (out, err)
    document = json.loads(out)
    assert document["error"] == "JournalError"
    assert str(engine.state / "journal.sqlite") in document["message"]
    assert engine.read().status == "interrupted"
    assert engine.resume().status == "succeeded"
    assert trace() == ["engine-one", "engine-two", "engine-two", *STEPS[2:], "engine-sweep"]


def test_processes_share_a_journal(engine: Engine) -> None:
    """Four runs at once on one new journal all end well, each by its own process."""
    processes = [engine.spawn("begin", f"r{number}") for number in range(4)]
    answers = [json.loads(process.communicate(timeout=90)[0]) for process in processes]
    assert [answer["status"] for answer in answers] == ["succeeded"] * 4
    assert sorted(trace()) == sorted(ALL * 4)
    assert len(durable.list_runs(engine.config)) == 4


def test_begun_run_does_not_take_what_others_left(engine: Engine) -> None:
    """A new run beside an interrupted one leaves that alone."""
    engine.kill_at("begin", "engine-two:before")
    # Long enough for the library to look for what it could recover, which it does every second.
    script("engine-one", "sleep 3")
    assert engine.begin("r2").status == "succeeded"
    assert engine.read("r1").status == "interrupted"
    assert trace() == ["engine-one", *ALL]
