"""Dummy steps and a session for the tests of the engine; also a command line for subprocesses.

What a step does is scripted in a folder, the world, named by ENGINE_WORLD: each call appends a
line to ``trace`` and takes the first line of the file that has the step's name:

``transient``, ``fail``, ``refuse``, ``interrupted``, ``broken TEXT`` (a fault of ours),
``sleep SECONDS`` (looking whether to end), ``hold`` (until ``release`` exists or the run is
cancelled), ``say TEXT`` (as result), ``full`` (from now on this process can make no file larger).
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from orchestrator import config as config_module
from orchestrator import durable, log, models, playbook
from orchestrator.durable import journal
from orchestrator.errors import (
    CommandError,
    HostUnreachableError,
    InterruptedWorkError,
    OrchestratorError,
    PreconditionError,
)
from orchestrator.models import Plan, RunPlan
from orchestrator.steps.registry import REGISTRY, Repeat, StepInfo, Tools, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.config import Config

MAIN = """\
name: engine-main
summary: Four steps, one of which may send the run back.
version: 1
steps:
  - {use: engine-one, on: donor, with: {text: hello}}
  - {use: engine-two, on: both}
  - {use: engine-three, on: recipient}
  - {use: engine-four, on: recipient}
cleanup:
  - {use: engine-sweep, on: both}
"""
UNDO = """\
name: engine-undo
summary: Put it back.
version: 1
steps:
  - {use: engine-revert, on: recipient}
"""
FORGET = """\
name: engine-forget
summary: Drop it.
version: 1
steps:
  - {use: engine-drop, on: recipient}
"""
REPORT = """\
name: engine-report
summary: Tell of it.
version: 1
steps:
  - {use: engine-one, on: donor}
"""
ERRORS: dict[str, Callable[[], OrchestratorError]] = {
    "transient": lambda: HostUnreachableError("no answer", host="replica"),
    "fail": lambda: CommandError(
        "it failed", host="replica", status=3, stderr="so bad", hint="look"
    ),
    "refuse": lambda: PreconditionError("not now", host="replica"),
    "interrupted": lambda: InterruptedWorkError("half done", host="replica"),
}
"""What a step raises at a word of its script."""
STEPS = ("engine-one", "engine-two", "engine-three", "engine-four")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """What a dummy step returns."""

    text: str
    attempt: int


def world() -> Path:
    """Return the folder that scripts the steps."""
    return Path(os.environ["ENGINE_WORLD"])


def script(name: str, *lines: str) -> None:
    """Say what the next calls of a step do, in order."""
    (world() / name).write_text("".join(f"{line}\n" for line in lines))


def trace() -> list[str]:
    """Return the steps that were called, in order, with their attempt if it is not the first."""
    path = world() / "trace"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def _take_line(name: str) -> tuple[str, str]:
    path = world() / name
    lines = path.read_text().splitlines() if path.exists() else []
    if not lines:
        return "", ""
    path.write_text("".join(f"{line}\n" for line in lines[1:]))
    word, _, rest = lines[0].partition(" ")
    return word, rest


def _act(tools: Tools, name: str, text: str = "") -> Said:
    with (world() / "trace").open("a") as stream:
        stream.write(name + (f" {tools.attempt}" if tools.attempt > 1 else "") + "\n")
    word, rest = _take_line(name)
    if word in ERRORS:
        error = ERRORS[word]()
        raise error
    if word == "broken":
        raise KeyError(rest)
    if word == "sleep":
        end = time.monotonic() + float(rest)
        while time.monotonic() < end:
            tools.check_cancelled()
            time.sleep(0.02)
    if word == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    if word == "hold":
        while not (world() / "release").exists():
            tools.check_cancelled()
            time.sleep(0.02)
    return Said(text=rest if word == "say" else text, attempt=tools.attempt)


@step("engine-one", role="donor", repeat=Repeat.SAFE, values={"text": str, "number": int})
def engine_one(tools: Tools, plan: Plan, text: str = "", number: int = 0) -> Said:
    """Do the first thing."""
    return _act(tools, "engine-one", text or str(number))


@step("engine-two", role="both", repeat=Repeat.RESTART)
def engine_two(tools: Tools, plan: Plan) -> Said:
    """Do the second thing."""
    return _act(tools, "engine-two")


@step("engine-three", role="recipient", repeat=Repeat.BACK, back_to="engine-two")
def engine_three(tools: Tools, plan: Plan) -> Said:
    """Do the third thing, or go back to the second."""
    return _act(tools, "engine-three")


@step("engine-four", role="recipient", repeat=Repeat.SAFE)
def engine_four(tools: Tools, plan: Plan) -> None:
    """Do the fourth thing, with no result."""
    _act(tools, "engine-four")


@step("engine-ask", role="recipient", repeat=Repeat.ASK)
def engine_ask(tools: Tools, plan: Plan) -> Said:
    """Do what is never repeated."""
    return _act(tools, "engine-ask")


@step("engine-short", role="recipient", repeat=Repeat.SAFE, deadline_seconds=0.5)
def engine_short(tools: Tools, plan: Plan) -> Said:
    """Do what must not take long."""
    return _act(tools, "engine-short")


@step("engine-measured", role="recipient", repeat=Repeat.SAFE, values={"ratio": float, "on": bool})
def engine_measured(tools: Tools, plan: Plan, ratio: float, on: bool = False) -> Said:  # noqa: FBT001, FBT002 - called by name
    """Take a value that is required."""
    return _act(tools, "engine-measured", f"{ratio} {on}")


@step("engine-sweep", role="both", repeat=Repeat.SAFE)
def engine_sweep(tools: Tools, plan: Plan) -> Said:
    """Clean up."""
    return _act(tools, "engine-sweep")


@step("engine-revert", role="recipient", repeat=Repeat.SAFE)
def engine_revert(tools: Tools, plan: Plan) -> Said:
    """Put it back."""
    return _act(tools, "engine-revert")


@step("engine-drop", role="recipient", repeat=Repeat.SAFE)
def engine_drop(tools: Tools, plan: Plan) -> Said:
    """Drop what was set aside."""
    return _act(tools, "engine-drop")


DUMMIES = {name: REGISTRY.pop(name) for name in tuple(REGISTRY) if name.startswith("engine-")}
"""The steps above. They are registered only while a test wants them, so that tests which loop over
the registry see real steps alone."""


class EngineSession:
    """A session that reaches nothing and writes down how it ended."""

    def __init__(self, config: Config, plan: RunPlan) -> None:
        self._config = config
        self.plan = plan

    def tools(
        self,
        info: StepInfo,
        attempt: int,
        check_cancelled: Callable[[], None],
        seconds_left: Callable[[], float],
    ) -> Tools:
        """Return tools whose doors are shut."""
        shut = cast("Any", None)
        return Tools(
            config=self._config,
            vault=shut,
            donor=shut,
            recipient=shut,
            attempt=attempt,
            check_cancelled=check_cancelled,
            seconds_left=seconds_left,
        )

    def start_server(self, tools: Tools, plan: RunPlan) -> bool:
        """Say that there is none to start."""
        return False

    def need_unended(self) -> None:
        """Know of no other copy of the journal."""

    def end(self, status: str) -> None:
        """Write the status down."""
        with (world() / "sessions").open("a") as stream:
            stream.write(f"{status}\n")


def sessions() -> list[str]:
    """Return how the sessions ended, in order."""
    path = world() / "sessions"
    return path.read_text().split() if path.exists() else []


def make_config(state: Path) -> Config:
    """Return a configuration with two hosts and its journal in `state`."""
    return config_module.parse(
        {
            "journal": {"directory": str(state)},
            "hosts": {"master": {"vault_mount": "m"}, "replica": {"vault_mount": "r"}},
        }
    )


def make_plan(run_id: str) -> Plan:
    """Return a plan of that name."""
    return Plan(
        run_id=run_id,
        backup_id=f"b-{run_id}",
        donor="master",
        recipient="replica",
        flavor="mariadb",
        server_version="10.11.19",
        datadir="/var/lib/mysql",
        staging_dir="/var/lib/staging",
        new_datadir="/var/lib/new",
        old_datadir="/var/lib/old",
        donor_mount="m",
        own_mount="r",
        source_address="192.0.2.1",
        source_port=3306,
        parallel=2,
        replace=False,
        require_encryption=True,
        coordinates="auto",
        checksums="all",
        commands={"engine-one": ("true", "echo hello")},
    )


def parse(text: str) -> playbook.Playbook:
    """Return a checked playbook."""
    return playbook.parse_playbook(text, "test")


def read_events(state: Path, run_id: str) -> list[dict[str, Any]]:
    """Return the events in a run's log."""
    text = (state / "logs" / f"{run_id}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def main() -> int:
    """Do one verb in this process: ``engine_lab.py STATE VERB RUN_ID``; print JSON."""
    state, verb, run_id = sys.argv[1:]
    log.configure()
    REGISTRY.update(DUMMIES)
    # Set in any case: a suite in the background of a shell hands down that SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "ENGINE_NO_HANDLER" not in os.environ:
        # What the command line does: leave at once, and let the run be resumed.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    if "ENGINE_LOCKED_SECONDS" in os.environ:
        journal.LOCKED_SECONDS = float(os.environ["ENGINE_LOCKED_SECONDS"])
    config = make_config(Path(state))
    text = world() / "playbook.yaml"
    calls: dict[str, Callable[[], durable.RunRecord | None]] = {
        "record": lambda: durable.record_runs(
            config, [make_plan(run_id), make_plan(f"{run_id}.other")], parse(MAIN)
        ),
        "begin": lambda: durable.begin_run(
            config,
            make_plan(run_id),
            parse(text.read_text() if text.exists() else MAIN),
            EngineSession,
        ),
        "resume": lambda: durable.resume_run(config, run_id, EngineSession),
        "cancel": lambda: durable.cancel_run(config, run_id, EngineSession, parse(UNDO)),
        "undo": lambda: durable.undo_run(config, run_id, EngineSession, parse(UNDO)),
        "forget": lambda: durable.forget_run(config, run_id, EngineSession, parse(FORGET)),
        "report": lambda: durable.report_run(
            config,
            run_id,
            EngineSession,
            parse(REPORT),
            {"text": "killed", "number": 1},
            same="text",
        ),
        "show": lambda: durable.read_run(config, run_id),
    }
    try:
        found = calls[verb]()
        answer = found if found is None else models.as_json(found)
    except OrchestratorError as error:
        sys.stdout.write(json.dumps(error.as_json()))
        return error.exit_status
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
