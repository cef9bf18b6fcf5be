"""Runs that survive: the only module that knows the workflow library (DBOS on SQLite).

A run is a workflow whose stored input is the plan and the playbook; every step is journalled when
it has ended. Clean-up, undo, cancel and forget of a run are workflows of their own, named
``cleanup:RUN:<cause>``, ``undo:RUN``, ``cancel:RUN`` and ``forget:RUN``. All of them walk a list of
steps in the same way (`_Interpreter`).

What the library leaves to us is here as well: the run lock (an flock, so that it dies with its
process), the version gate, a JSON-only journal, and the refusal of pickles. The library is
imported by the functions that need it, because it takes a third of a second.

For tests, ``XBVAULT_CRASH_AT=<step>:<before|after|committed>`` makes the process kill itself with
SIGKILL before a step acts, after it acted but before that is journalled, or after it is journalled.

The caller has called `orchestrator.steps.load` and `orchestrator.log.configure`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import errno
import fcntl
import json
import logging
import os
import re
import signal
import sqlite3
import stat
import threading
import time
import traceback
import uuid
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol

from orchestrator import errors, log, models
from orchestrator.errors import (
    CancelledError,
    CommandError,
    ConfigError,
    InterruptedWorkError,
    JournalError,
    LockHeldError,
    OrchestratorError,
    PreconditionError,
)
from orchestrator.models import Plan
from orchestrator.steps.registry import REGISTRY, Repeat, StepInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from dbos import DBOSClient

    from orchestrator.config import Config
    from orchestrator.playbook import Playbook, PlaybookStep
    from orchestrator.steps.registry import Tools

FLOW_VERSION = "flow-1"
"""Format of a run's stored input and of its step names. A new one does not resume runs of an old
one; the library's own default would change with every release and strand them silently."""

RETRY_WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Waits between the attempts at a step that failed on a transient error."""
MOST_RETURNS = 3
"""A run goes back at most this often by itself each time that it is begun or resumed."""
CANCEL_WAIT_SECONDS = 300.0
"""How long a cancel waits for the process that holds the run."""
_APPLICATION = "xbvault"
_CANCEL_POLL_SECONDS = 1.0
_HAND_OUT_SECONDS = 60.0
_COMMIT_SECONDS = 10.0
_LOCKED_SECONDS = 10.0
_LIVE = ("PENDING", "ENQUEUED", "DELAYED")
_PARTS = (
    "cleanup:{}:success",
    "undo:{}",
    "cleanup:{}:undo",
    "cancel:{}",
    "cleanup:{}:cancel",
    "forget:{}",
)
_SERIALIZATION = "xbvault_json"
_ROWS = """
    SELECT s.workflow_uuid, s.status, s.application_version, s.created_at, s.completed_at,
        s.serialization, coalesce(i.inputs, s.inputs), coalesce(o.error, s.error)
    FROM workflow_status AS s
    LEFT JOIN workflow_input AS i ON i.workflow_uuid = s.workflow_uuid
    LEFT JOIN workflow_output AS o ON o.workflow_uuid = s.workflow_uuid
"""
_STEPS = """
    SELECT function_id, function_name, output, error, started_at_epoch_ms, serialization,
        completed_at_epoch_ms
    FROM operation_outputs WHERE workflow_uuid = ? ORDER BY function_id
"""
_STEP_NAME = re.compile(r"(\d+)\.([^.]+)(?:\.(\d+))?")
_WENT_BACK = {"back_to", "error"}


class Session(Protocol):
    """What the steps of one process entry share: connections, and the recipient lock."""

    def tools(
        self,
        info: StepInfo,
        attempt: int,
        check_cancelled: Callable[[], None],
        seconds_left: Callable[[], float],
    ) -> Tools:
        """Return what a step works with."""

    def end(self, status: str) -> None:
        """Close everything; called once, with succeeded, failed, cancelled or detached."""


if TYPE_CHECKING:
    OpenSession = Callable[[Config, Plan], Session]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What the journal knows of one step.

    Attributes:
        index: Place in the playbook, from 0.
        name: Name of the step.
        status: succeeded, failed, running or pending. One that sent the run back is failed.
        attempt: 1, and one more for each time that the run went back before it.
        began_at: When it began, ISO 8601 in UTC; empty if it did not.
        ended_at: When it ended; empty if it did not.
        seconds: How long it took, or has taken so far.
        result: What it returned.
        error: Why it failed, as `OrchestratorError.as_json` says it.
    """

    index: int
    name: str
    status: str
    attempt: int = 1
    began_at: str = ""
    ended_at: str = ""
    seconds: float = 0.0
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartRecord:
    """What the journal knows of a clean-up, undo, cancel or forget of a run.

    Attributes:
        name: Name of its workflow, such as ``cleanup:RUN:success``.
        kind: cleanup, undo, cancel or forget.
        status: running, interrupted, failed or succeeded.
        began_at: When it began.
        ended_at: When it ended; empty if it did not.
        steps: Its steps; empty in lists.
        error: Why it failed.
    """

    name: str
    kind: str
    status: str
    began_at: str
    ended_at: str
    steps: tuple[StepRecord, ...] = ()
    error: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What the journal knows of a run.

    Attributes:
        run_id: Name of the run.
        playbook: Name of its playbook.
        status: running, interrupted (no process holds it), failed, cleaning (done but for the
            clean-up), succeeded, cancelled, undone or forgotten.
        plan: Its plan.
        playbook_text: The playbook that it began with.
        flow_version: Format that it was written in.
        began_at: When it began.
        ended_at: When its last part ended; empty if one has not.
        steps: The steps of the main part; empty in lists.
        error: Why it failed.
        parts: Its other parts, in the order in which they are begun.
    """

    run_id: str
    playbook: str
    status: str
    plan: Plan
    playbook_text: str
    flow_version: str
    began_at: str
    ended_at: str
    steps: tuple[StepRecord, ...] = ()
    error: dict[str, Any] | None = None
    parts: tuple[PartRecord, ...] = ()


def begin_run(
    config: Config, plan: Plan, playbook: Playbook, open_session: OpenSession
) -> RunRecord:
    """Begin a run, and stay until it and its clean-up have ended.

    Raises:
        OrchestratorError: What the failing step raised; the run can be resumed.
        PreconditionError: A run of that name exists.
        JournalError: The journal cannot be written.
    """
    spec = _new_spec("run", plan, playbook, steps=playbook.steps, cleanup=playbook.cleanup)
    with _hold_run(config, plan.run_id), _open_to_write(config) as journal:
        if journal.has_tables() and journal.rows([plan.run_id]):
            raise PreconditionError(
                f"there is a run {plan.run_id} already", hint=f"xbvault runs show {plan.run_id}"
            )
        _drive(config, journal, open_session, _flows(spec, "success"), began=False)
    return read_run(config, plan.run_id)


def resume_run(config: Config, run_id: str, open_session: OpenSession) -> RunRecord:
    """Go on with a run where it failed or was cut off, or with its clean-up.

    Raises:
        OrchestratorError: What the failing step raised.
        ConfigError: There is no such run.
        LockHeldError: A live process holds it.
        PreconditionError: It is cancelled, undone, or of another version.
    """
    run_id = read_run(config, run_id).run_id
    with _hold_run(config, run_id), _open_to_write(config) as journal:
        record = journal.read(run_id, held=False)
        if record.status in ("succeeded", "forgotten"):
            return record
        _refuse_to_resume(record)
        flows = _flows(journal.spec(run_id), "success")
        _refuse_other_version(record, flows)
        _drive(config, journal, open_session, flows, began=True)
    return read_run(config, run_id)


def cancel_run(config: Config, run_id: str, open_session: OpenSession, undo: Playbook) -> RunRecord:
    """End a run for good: stop it if it is live, put back what it changed, clean up.

    Called again, it goes on where it was cut off.

    Raises:
        OrchestratorError: What the failing step raised.
        ConfigError: There is no such run.
        LockHeldError: The process that holds it did not let go.
        PreconditionError: It has succeeded, or is of another version.
    """
    run_id = read_run(config, run_id).run_id
    with _open_to_write(config) as journal:

        def mark() -> None:
            status = journal.rows([run_id])[run_id].status
            if status == "SUCCESS":
                raise PreconditionError(
                    f"run {run_id} has done its work and cannot be cancelled",
                    hint=f"xbvault runs undo {run_id}",
                )
            if status in _LIVE:
                journal.client.cancel_workflow(run_id)

        with _hold_run(config, run_id, seconds=CANCEL_WAIT_SECONDS, meanwhile=mark):
            mark()
            record = journal.read(run_id, held=False)
            flows = _action_flows(journal, run_id, "cancel", undo)
            _refuse_other_version(record, flows)
            if not _all_done(journal, flows):
                _drive(config, journal, open_session, flows, began=True, ends="cancelled")
    return read_run(config, run_id)


def undo_run(config: Config, run_id: str, open_session: OpenSession, undo: Playbook) -> RunRecord:
    """Put back what a run that succeeded has changed. Called again, it goes on.

    Raises:
        OrchestratorError: What the failing step raised.
        ConfigError: There is no such run.
        LockHeldError: A live process holds it.
        PreconditionError: It did not succeed, was forgotten, or is of another version.
    """
    run_id = read_run(config, run_id).run_id
    with _hold_run(config, run_id), _open_to_write(config) as journal:
        record = journal.read(run_id, held=False)
        if record.status == "undone":
            return record
        begun = any(part.kind == "undo" for part in record.parts)
        if not begun and record.status not in ("succeeded", "cleaning"):
            raise PreconditionError(
                f"run {run_id} is {record.status} and cannot be undone", hint=_way_out(record)
            )
        flows = _action_flows(journal, run_id, "undo", undo)
        _refuse_other_version(record, flows)
        _drive(config, journal, open_session, flows, began=True)
    return read_run(config, run_id)


def forget_run(
    config: Config, run_id: str, open_session: OpenSession, forget: Playbook
) -> RunRecord:
    """Remove what a run that has ended set aside. Called again, it goes on.

    Raises:
        OrchestratorError: What the failing step raised.
        ConfigError: There is no such run.
        LockHeldError: A live process holds it.
        PreconditionError: It has not ended, or is of another version.
    """
    run_id = read_run(config, run_id).run_id
    with _hold_run(config, run_id), _open_to_write(config) as journal:
        record = journal.read(run_id, held=False)
        if record.status == "forgotten":
            return record
        if record.status not in ("succeeded", "undone", "cancelled") or _unfinished(record):
            raise PreconditionError(
                f"run {run_id} is {record.status} and has not ended", hint=_way_out(record)
            )
        flows = _action_flows(journal, run_id, "forget", forget)
        _refuse_other_version(record, flows)
        _drive(config, journal, open_session, flows, began=True)
    return read_run(config, run_id)


def list_runs(config: Config, limit: int = 100) -> list[RunRecord]:
    """Return the latest runs, newest first, without their steps.

    Raises:
        JournalError: The journal cannot be read.
    """
    with _open_to_read(config) as journal:
        return journal.latest(limit) if journal else []


def read_run(config: Config, run_id: str) -> RunRecord:
    """Return a run with its steps and parts.

    Args:
        config: The configuration, which says where the journal is.
        run_id: Name of the run, or a beginning that only one run has.

    Raises:
        ConfigError: There is no such run, or more than one.
        JournalError: The journal cannot be read.
    """
    with _open_to_read(config) as journal:
        found = journal.find(run_id) if journal else []
        if not journal or not found:
            raise ConfigError(f"unknown run {run_id!r}", hint="`xbvault runs list` shows them")
        if len(found) > 1:
            raise ConfigError(
                f"{run_id!r} names {len(found)} runs", hint=f"one of: {', '.join(found[:5])}"
            )
        return journal.read(found[0], held=_holder(config.state_directory, found[0]) is not None)


def detach_message(run_id: str) -> str:
    """Return what to tell a person who leaves a run with Ctrl-C."""
    return f"detached; the run can go on: xbvault runs resume {run_id}"


def _refuse_to_resume(record: RunRecord) -> None:
    undone = record.status == "undone" or any(part.kind == "undo" for part in record.parts)
    if record.status == "cancelled" or undone:
        state = "cancelled" if record.status == "cancelled" else "undone"
        raise PreconditionError(
            f"run {record.run_id} was {state}, which is final", hint=_way_out(record)
        )


def _refuse_other_version(record: RunRecord, flows: Sequence[_Flow]) -> None:
    unknown = {s["use"] for flow in flows for s in flow.spec["steps"]} - set(REGISTRY)
    if record.flow_version == FLOW_VERSION and not unknown:
        return
    what = f"knows no step {min(unknown)!r}" if unknown else f"reads {FLOW_VERSION}"
    raise PreconditionError(
        f"run {record.run_id} was begun by another version of xbvault "
        f"({record.flow_version}; this one {what})",
        hint="end it with the version that began it, or begin a new run",
    )


def _way_out(record: RunRecord) -> str:
    """Return the command that fits a run's state."""
    kinds = {part.kind for part in record.parts}
    if record.status in ("undone", "forgotten") or (
        record.status == "cancelled" and not _unfinished(record)
    ):
        return "begin a new run"
    verb = "resume"
    if record.status == "cancelled":
        verb = "cancel"
    elif "undo" in kinds:
        verb = "undo"
    elif record.status == "running":
        verb = "watch"
    elif record.status in ("failed", "interrupted"):
        return f"xbvault runs resume {record.run_id}, or xbvault runs cancel {record.run_id}"
    return f"xbvault runs {verb} {record.run_id}"


def _unfinished(record: RunRecord) -> bool:
    """Say whether a cancelled run still has something to put back or clean up."""
    return record.status == "cancelled" and (
        not record.ended_at or not any(part.kind == "cancel" for part in record.parts)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Flow:
    """A workflow to be driven to its end: its name, and its input if it is new."""

    name: str
    spec: dict[str, Any]


def _stored_steps(steps: Iterable[PlaybookStep]) -> list[dict[str, Any]]:
    return [{"use": step.use, "on": step.on, "with": step.values} for step in steps]


def _new_spec(
    kind: str,
    plan: Plan,
    playbook: Playbook,
    *,
    steps: Iterable[PlaybookStep],
    cleanup: Iterable[PlaybookStep],
) -> dict[str, Any]:
    return {
        "kind": kind,
        "run_id": plan.run_id,
        "plan": models.as_json(plan),
        "playbook": {"name": playbook.name, "text": playbook.text},
        "steps": _stored_steps(steps),
        "cleanup": _stored_steps(cleanup),
        "attempt": 1,
        "flow": FLOW_VERSION,
    }


def _flows(spec: dict[str, Any], cause: str) -> list[_Flow]:
    """Return a flow and the clean-up that follows it, where there is one."""
    run_id, kind = spec["run_id"], spec["kind"]
    flows = [_Flow(name=run_id if kind == "run" else f"{kind}:{run_id}", spec=spec)]
    if spec["cleanup"]:
        cleanup = {**spec, "kind": "cleanup", "steps": spec["cleanup"], "cleanup": []}
        flows.append(_Flow(name=f"cleanup:{run_id}:{cause}", spec=cleanup))
    return flows


def _action_flows(journal: _Journal, run_id: str, kind: str, playbook: Playbook) -> list[_Flow]:
    """Return the flows of an undo, cancel or forget; one that began keeps its first playbook.

    The clean-up is the one that the action's playbook names, else the run's own. A forget has
    none, for the run it forgets was cleaned up before.
    """
    name = f"{kind}:{run_id}"
    if journal.rows([name]):
        return _flows(journal.spec(name), kind)
    main = journal.spec(run_id)
    plan = models.from_json(Plan, main["plan"])
    spec = _new_spec(kind, plan, playbook, steps=playbook.steps, cleanup=playbook.cleanup)
    spec["cleanup"] = [] if kind == "forget" else spec["cleanup"] or main["cleanup"]
    spec["attempt"] = 1 + journal.returns(run_id)
    return _flows(spec, kind)


def _all_done(journal: _Journal, flows: Sequence[_Flow]) -> bool:
    rows = journal.rows([flow.name for flow in flows])
    return all(flow.name in rows and rows[flow.name].status == "SUCCESS" for flow in flows)


def _drive(
    config: Config,
    journal: _Journal,
    open_session: OpenSession,
    flows: Sequence[_Flow],
    *,
    began: bool,
    ends: str = "succeeded",
) -> None:
    """Drive flows to their end, one after the other, with one session."""
    spec = flows[0].spec
    run_id = spec["run_id"]
    log_path = config.state_directory / "logs" / f"{run_id}.jsonl"
    context = log.bound(run_id=run_id, playbook=spec["playbook"]["name"])
    with log.run_file(run_id, log_path), context:
        session = open_session(config, models.from_json(Plan, spec["plan"]))
        status = "detached"
        try:
            with _launched(journal, resuming=began) as queue:
                for flow in flows:
                    _drive_flow(journal, session, queue, flow)
            status = ends
        except CancelledError:
            status = "cancelled"
            raise
        except Exception:
            status = "failed"
            raise
        finally:
            _end_session(session, status)


def _end_session(session: Session, status: str) -> None:
    try:
        session.end(status)
    except OrchestratorError as error:
        # The work is done or has failed already, which must not be hidden; a lock that could not
        # be released ends with its lease.
        log.get().warning("notice", about="session not ended cleanly", **error.as_json())


def _drive_flow(journal: _Journal, session: Session, queue: str, flow: _Flow) -> None:
    row = journal.rows([flow.name]).get(flow.name)
    if row is not None and row.status == "SUCCESS":
        return
    with log.bound(flow=flow.spec["kind"]):
        log.get().info("run.began", resumed=row is not None, steps=len(flow.spec["steps"]))
        began = time.monotonic()
        interpreter = _Interpreter(journal, session, flow.name)
        try:
            with _door(journal.path):
                _hand_over(journal, interpreter, queue, flow, row)
                _wait(journal, interpreter)
            row = journal.rows([flow.name])[flow.name]
            if row.status == "CANCELLED":
                raise CancelledError(f"run {flow.spec['run_id']} was cancelled")
            if row.status != "SUCCESS":
                raise row.error or OrchestratorError(f"{flow.name} ended as {row.status}")
        except OrchestratorError as error:
            log.get().error("run.failed", **error.as_json())
            raise
        log.get().info("run.ended", seconds=round(time.monotonic() - began, 3))


def _hand_over(
    journal: _Journal, interpreter: _Interpreter, queue: str, flow: _Flow, row: _Row | None
) -> None:
    """Give a flow to the library: as a new workflow, or as one that goes on through our queue."""
    dbos = _library()
    _Interpreter.current = interpreter
    if row is None:
        with dbos.SetWorkflowID(flow.name, workflow_id_reuse_policy="reject"):
            # The library's own moment has no more than seconds.
            spec = {**flow.spec, "began_at": _moment(time.time() * 1000)}
            dbos.DBOS.start_workflow(_workflow(spec["kind"]), spec)
    elif row.status == "ERROR":
        # Nothing is lost for the reader: the run's log keeps what this removes from the journal.
        first = journal.first_undone(flow.name)
        journal.client.rewind_workflow(flow.name, start_step=first, queue_name=queue)
    else:
        journal.client.resume_workflow(flow.name, queue_name=queue)


def _wait(journal: _Journal, interpreter: _Interpreter) -> None:
    """Wait until the journal has the flow's end; signal handlers of the main thread still run."""
    name = interpreter.name
    deadline = time.monotonic() + _HAND_OUT_SECONDS
    while not interpreter.ended.wait(0.2):
        if interpreter.begun.is_set():
            continue
        if not journal.rows([name])[name].is_live:
            return
        if time.monotonic() > deadline:
            raise _journal_error(journal.path, "it did not hand the run out")
    deadline = time.monotonic() + _COMMIT_SECONDS
    while journal.rows([name])[name].is_live:
        # The walk has ended, but the journal does not take its end: a full disk, for example.
        if interpreter.crash is not None and not isinstance(interpreter.crash, Exception):
            raise interpreter.crash
        if interpreter.crash is not None or time.monotonic() > deadline:
            time.sleep(0.1)  # the library may be about to write the error down
            if journal.rows([name])[name].is_live:
                reason = interpreter.crash or "it did not take the end of the run"
                raise _journal_error(journal.path, reason)
        time.sleep(0.005)


class _Interpreter:
    """Walks the steps of one flow inside a workflow of the library.

    Everything that decides the way (which step, which round) comes from the stored input and the
    journalled results, so that a replay takes the same way; the rest happens inside a step.
    """

    current: ClassVar[_Interpreter | None] = None
    """The one that the workflow functions use: a process drives one flow at a time."""
    walking: ClassVar[set[str]] = set()
    """Runs that a thread of this process is walking."""

    def __init__(self, journal: _Journal, session: Session, name: str) -> None:
        self.name = name
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.crash: BaseException | None = None
        self._journal = journal
        self._session = session
        self._returns = 0
        self._acted = False
        self._looked_at = 0.0
        self._guard = threading.Lock()

    def walk(self, spec: dict[str, Any]) -> None:
        """Run the steps that the journal does not have, in their order."""
        self.walking.add(spec["run_id"])
        self.begun.set()
        try:
            # The library starts workflows in threads of its own, where nothing is bound.
            with log.bound(
                run_id=spec["run_id"], playbook=spec["playbook"]["name"], flow=spec["kind"]
            ):
                self._walk(spec)
        except BaseException as error:
            self.crash = error
            raise
        finally:
            self.walking.discard(spec["run_id"])
            self.ended.set()

    def _walk(self, spec: dict[str, Any]) -> None:
        plan = models.from_json(Plan, spec["plan"])
        steps = spec["steps"]
        places = {entry["use"]: index for index, entry in enumerate(steps)}
        index, returns = 0, 0
        while index < len(steps):
            entry = steps[index]
            info = REGISTRY[entry["use"]]
            attempt = spec["attempt"] + returns
            name = f"{index:02d}.{info.name}" + (f".{returns + 1}" if returns else "")
            self._acted = False
            with log.bound(step=info.name, host=_host_of(plan, info.role)):
                began = time.monotonic()
                place = {"index": index, "of": len(steps), "attempt": attempt}
                result = _library().DBOS.run_step(
                    {"name": name}, self._run_step, info, plan, entry["with"], attempt, place
                )
                went_back = isinstance(result, dict) and set(result) == _WENT_BACK
                if self._acted and not went_back:
                    seconds = round(time.monotonic() - began, 3)
                    log.get().info("step.ended", **place, seconds=seconds)
                if self._acted:
                    _crash_point(info.name, "committed")
            index = places[result["back_to"]] if went_back else index + 1
            returns += went_back

    def _run_step(
        self, info: StepInfo, plan: Plan, values: Mapping[str, Any], attempt: int, place: Any
    ) -> Any:
        self._acted = True
        log.get().info("step.began", **place)
        try:
            _crash_point(info.name, "before")
            document = _masked(models.as_json(self._try(info, plan, values, attempt)))
            _crash_point(info.name, "after")
        except InterruptedWorkError as error:
            if info.repeat is not Repeat.BACK or self._returns >= MOST_RETURNS:
                log.get().error("step.failed", **error.as_json())
                raise
            self._returns += 1
            log.get().warning("step.went_back", back_to=info.back_to, **error.as_json())
            return {"back_to": info.back_to, "error": log.redact(error.as_json())}
        except OrchestratorError as error:
            log.get().error("step.failed", **error.as_json())
            raise
        except Exception as error:
            fault = _fault(info, error)
            log.get().error("step.failed", **fault.as_json(), stack=traceback.format_exc())
            raise fault from error
        return document

    def _try(self, info: StepInfo, plan: Plan, values: Mapping[str, Any], attempt: int) -> Any:
        """Call the step, again if it may be repeated and the error says that it may help."""
        deadline = time.monotonic() + info.deadline_seconds

        def seconds_left() -> float:
            return max(0.0, deadline - time.monotonic())

        def check() -> None:
            self._check(info, deadline)

        may_repeat = info.repeat in (Repeat.SAFE, Repeat.RESTART)
        for number, wait in enumerate((*RETRY_WAITS_SECONDS, None), start=1):
            check()
            try:
                tools = self._session.tools(info, attempt, check, seconds_left)
                return info.function(tools, plan, **values)
            except OrchestratorError as error:
                if not (error.transient and may_repeat) or wait is None or wait > seconds_left():
                    raise
                log.get().warning(
                    "step.retried", number=number, wait_seconds=wait, **error.as_json()
                )
                self._pause(wait, check)
        raise AssertionError("the last attempt returns or raises")

    def _pause(self, seconds: float, check: Callable[[], None]) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            check()

    def _check(self, info: StepInfo, deadline: float) -> None:
        """Raise if the run was cancelled or the step is late; asks the journal once a second."""
        with self._guard:
            now = time.monotonic()
            if now > deadline:
                raise CommandError(
                    f"step {info.name} did not end within {info.deadline_seconds:g} s"
                )
            if now - self._looked_at < _CANCEL_POLL_SECONDS:
                return
            self._looked_at = now
            if self._journal.rows([self.name])[self.name].status == "CANCELLED":
                raise CancelledError(f"run {self.name} was cancelled")


def _host_of(plan: Plan, role: str) -> str:
    if role == "both":
        return f"{plan.donor},{plan.recipient}"
    return plan.donor if role == "donor" else plan.recipient


def _fault(info: StepInfo, error: Exception) -> OrchestratorError:
    """Return a fault of ours as an error that the journal can carry."""
    return OrchestratorError(
        log.redact_text(f"step {info.name} broke: {type(error).__name__}: {error}"),
        hint="this is a fault in xbvault; the run's log has the stack trace",
    )


def _masked(document: Any) -> Any:
    """Return a step's result with every known secret value blotted out."""
    if isinstance(document, str):
        return log.redact_text(document)
    if isinstance(document, dict):
        return {key: _masked(item) for key, item in document.items()}
    if isinstance(document, list):
        return [_masked(item) for item in document]
    return document


def _crash_point(step: str, moment: str) -> None:
    if os.environ.get("XBVAULT_CRASH_AT") == f"{step}:{moment}":
        os.kill(os.getpid(), signal.SIGKILL)


def _lock_path(state_directory: Path, run_id: str) -> Path:
    return state_directory / "locks" / run_id


@contextlib.contextmanager
def _hold_run(
    config: Config,
    run_id: str,
    *,
    seconds: float = 0.5,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold the run lock inside the block.

    It is an flock, so it ends with the process however that dies, and nobody has to judge whether
    a pid is still the same process. A reader that looks at the lock holds it for a moment, hence
    the short wait.

    Args:
        config: The configuration, which says where the locks are.
        run_id: The run.
        seconds: How long to wait for another holder.
        meanwhile: Called at each try.

    Raises:
        LockHeldError: Another process holds it.
    """
    path = _lock_path(config.state_directory, run_id)
    deadline = time.monotonic() + seconds
    with _door(path):
        _make_private_directory(config.state_directory)
        _make_private_directory(path.parent)
    while True:
        with _door(path):
            descriptor = _take_lock(path)
        if descriptor is not None:
            break
        meanwhile()
        if time.monotonic() > deadline:
            raise LockHeldError(
                f"run {run_id} is held by process {_holder(config.state_directory, run_id) or '?'}",
                hint=f"xbvault runs watch {run_id}, or end that process",
            )
        time.sleep(0.05)
    try:
        yield
    finally:
        # After a Ctrl-C that nobody handled, a step is still at work in its thread: then the lock
        # stays with the process. Else the file is removed while it is held, so that nobody can
        # hold one that is no longer there.
        if run_id not in _Interpreter.walking:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _take_lock(path: Path) -> int | None:
    """Return the descriptor that holds the lock, or None if another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _lock_descriptor(descriptor, path):
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _lock_descriptor(descriptor: int, path: Path) -> bool:
    """Lock an open file; false if another has it, or removed it since it was opened."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _holder(state_directory: Path, run_id: str) -> int | None:
    """Return the pid of the process that holds a run (0 if it is not known), or None."""
    try:
        descriptor = os.open(_lock_path(state_directory, run_id), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.pread(descriptor, 20, 0).strip()
        return int(written) if written.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


class JournalSerializer:
    """Puts inputs, results and errors into the journal as JSON, and nothing else.

    Moments and errors come back as what they were; an error that is not ours comes back as
    `OrchestratorError`. Errors are redacted on their way in.
    """

    def name(self) -> str:
        """Return the name that the journal keeps beside each value."""
        return _SERIALIZATION

    def serialize(self, data: Any) -> str:
        """Return the JSON text of a value.

        Raises:
            TypeError: It has no JSON form.
        """
        return json.dumps(
            data, default=_encode, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )

    def deserialize(self, serialized_data: str) -> Any:
        """Return the value of a JSON text."""
        return json.loads(serialized_data, object_hook=_decode)


def _encode(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return {"$at": value.isoformat()}
    if isinstance(value, OrchestratorError):
        return {"$error": log.redact(value.as_json())}
    if isinstance(value, BaseException):
        name = type(value).__name__
        return {"$error": {"error": name, "message": log.redact_text(f"{name}: {value}")}}
    raise TypeError(f"not a JSON value: {type(value).__name__}")


def _decode(document: dict[str, Any]) -> Any:
    if set(document) == {"$at"}:
        return dt.datetime.fromisoformat(document["$at"])
    if set(document) == {"$error"}:
        return errors.from_json(document["$error"])
    return document


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Row:
    """A workflow as the journal has it; moments in milliseconds."""

    name: str
    status: str
    version: str
    created_at: int
    ended_at: int
    input: str
    error: OrchestratorError | None

    @property
    def is_live(self) -> bool:
        return self.status in _LIVE


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Step:
    """A journalled step; moments in milliseconds."""

    number: int
    name: str
    output: Any
    error: OrchestratorError | None
    began_at: int
    ended_at: int

    @property
    def went_back(self) -> bool:
        return _is_return(self.output)


class _Journal:
    """Questions to the journal, and the library's client for changes; it never runs anything.

    Questions go to SQLite directly, because importing the library takes longer than `runs list`
    may. The tables are those of the library's pinned version; a test compares the answers with
    the client's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._client: DBOSClient | None = None

    @property
    def client(self) -> DBOSClient:
        """The library's client, made at first use."""
        if self._client is None:
            self._client = _library().DBOSClient(
                system_database_url=_url(self.path),
                serializer=JournalSerializer(),
                application_name=_APPLICATION,
            )
        return self._client

    def close(self) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._client.destroy()
            self._client = None

    def _ask(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Ask on a connection of its own, for threads ask too; reads the file without changing it."""
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        with (
            _door(self.path),
            contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_LOCKED_SECONDS)) as opened,
        ):
            return opened.execute(query, values).fetchall()

    def _value(self, serialization: str | None, text: str | None) -> Any:
        """Return a stored value; what another serializer wrote is refused unread."""
        if text is None:
            return None
        if serialization != _SERIALIZATION:
            raise _journal_error(self.path, f"holds a value written as {serialization!r}, not read")
        try:
            return JournalSerializer().deserialize(text)
        except (ValueError, TypeError, AttributeError) as error:
            raise _journal_error(self.path, f"holds a value that is not ours: {error}") from error

    def _error(self, serialization: str | None, text: str | None) -> OrchestratorError | None:
        found = self._value(serialization, text)
        return None if found is None else _as_error(found)

    def has_tables(self) -> bool:
        """Say whether a run was ever begun."""
        return bool(self._ask("SELECT 1 FROM sqlite_master WHERE name = 'workflow_status'"))

    def _rows(self, where: str, values: Sequence[object]) -> list[_Row]:
        found = self._ask(f"{_ROWS} WHERE {where}", values)
        return [
            _Row(
                name=row[0],
                status=row[1],
                version=row[2] or "",
                created_at=row[3],
                ended_at=row[4] or row[3],
                input=row[6] if row[5] == _SERIALIZATION and row[6] else "",
                error=self._error(row[5], row[7]),
            )
            for row in found
        ]

    def rows(self, names: Sequence[str]) -> dict[str, _Row]:
        """Return workflows by name; unknown ones are left out."""
        marks = ",".join("?" * len(names))
        return {row.name: row for row in self._rows(f"s.workflow_uuid IN ({marks})", names)}

    def spec(self, name: str) -> dict[str, Any]:
        """Return the stored input of a workflow."""
        return self.spec_of(self.rows([name])[name])

    def spec_of(self, row: _Row) -> dict[str, Any]:
        """Return the stored input of a workflow, which must be ours."""
        stored = self._value(_SERIALIZATION, row.input or "null")
        if not isinstance(stored, dict) or not stored.get("args"):
            raise _journal_error(self.path, f"the input of {row.name} is not ours")
        spec: dict[str, Any] = stored["args"][0]
        return spec

    def find(self, prefix: str) -> list[str]:
        """Return the runs whose names begin so; only the one that is named exactly, if it is."""
        query = "SELECT workflow_uuid FROM workflow_status WHERE name = 'run'"
        found = self._ask(f"{query} AND substr(workflow_uuid, 1, ?) = ?", (len(prefix), prefix))
        names = [str(row[0]) for row in found]
        return [prefix] if prefix in names else names

    def steps(self, name: str) -> list[_Step]:
        """Return the journalled steps of a workflow in their order."""
        return [
            _Step(
                number=row[0],
                name=row[1],
                output=self._value(row[5], row[2]),
                error=self._error(row[5], row[3]),
                began_at=row[4] or 0,
                ended_at=row[6] or row[4] or 0,
            )
            for row in self._ask(_STEPS, (name,))
        ]

    def returns(self, name: str) -> int:
        """Return how often a run went back."""
        return sum(step.went_back for step in self.steps(name))

    def first_undone(self, name: str) -> int:
        """Return the number of the step that a failed workflow goes on with."""
        steps = self.steps(name)
        last = max((step.number for step in steps), default=0)
        return min((step.number for step in steps if step.error is not None), default=last + 1)

    def latest(self, limit: int) -> list[RunRecord]:
        """Return the latest runs without their steps."""
        latest = "s.name = 'run' ORDER BY s.created_at DESC, s.workflow_uuid DESC LIMIT ?"
        runs = self._rows(latest, [limit])
        parts = self.rows([part.format(run.name) for run in runs for part in _PARTS])
        return [
            self._record(
                run,
                parts,
                held=_holder(self.path.parent, run.name) is not None,
                with_steps=False,
            )
            for run in runs
        ]

    def read(self, run_id: str, *, held: bool) -> RunRecord:
        """Return a run with its steps and parts; `held` if another process works on it."""
        rows = self.rows([run_id, *(part.format(run_id) for part in _PARTS)])
        return self._record(rows.pop(run_id), rows, held=held, with_steps=True)

    def _record(
        self, run: _Row, parts: Mapping[str, _Row], *, held: bool, with_steps: bool
    ) -> RunRecord:
        spec = self.spec_of(run)
        names = [part.format(run.name) for part in _PARTS]
        rows = [parts[name] for name in names if name in parts]
        states = {row.name: _state(row, held=held) for row in rows}
        undo = parts.get(f"undo:{run.name}")
        cleans = {"success": bool(spec["cleanup"])}
        cleans["undo"] = undo is not None and bool(self.spec_of(undo)["cleanup"])
        status = _status(run, states, cleans, held=held)
        steps = self._steps(run, spec, held=held) if with_steps else ()
        records = tuple(self._part(row, held=held, with_steps=with_steps) for row in rows)
        has_ended = status not in ("running", "interrupted", "cleaning") and not any(
            row.is_live for row in (run, *rows)
        )
        last = max([_moment(row.ended_at) for row in (run, *rows)] + [s.ended_at for s in steps])
        return RunRecord(
            run_id=run.name,
            playbook=spec["playbook"]["name"],
            status=status,
            plan=models.from_json(Plan, spec["plan"]),
            playbook_text=spec["playbook"]["text"],
            flow_version=run.version,
            began_at=spec["began_at"],
            ended_at=max([last, *(part.ended_at for part in records)]) if has_ended else "",
            steps=steps,
            error=None if run.error is None else run.error.as_json(),
            parts=records,
        )

    def _part(self, row: _Row, *, held: bool, with_steps: bool) -> PartRecord:
        spec = self.spec_of(row)
        steps = self._steps(row, spec, held=held) if with_steps else ()
        last = max([_moment(row.ended_at), *(step.ended_at for step in steps)])
        return PartRecord(
            name=row.name,
            kind=spec["kind"],
            status=_state(row, held=held),
            began_at=spec["began_at"],
            ended_at="" if row.is_live else last,
            steps=steps,
            error=None if row.error is None else row.error.as_json(),
        )

    def _steps(self, row: _Row, spec: dict[str, Any], *, held: bool) -> tuple[StepRecord, ...]:
        places = {entry["use"]: index for index, entry in enumerate(spec["steps"])}
        records: list[StepRecord] = []
        following, attempt, last_end = 0, 1, row.created_at
        for step in self.steps(row.name):
            found = _STEP_NAME.fullmatch(step.name)
            if found is None:
                raise _journal_error(self.path, f"{row.name} has a step {step.name!r}, not ours")
            records.append(_step_record(step, found))
            following = places[step.output["back_to"]] if step.went_back else int(found[1]) + 1
            attempt += step.went_back
            last_end = step.ended_at
        for index in range(following, len(spec["steps"])):
            is_running = held and row.is_live and index == following
            so_far = max(0.0, time.time() - last_end / 1000) if is_running else 0.0
            records.append(
                StepRecord(
                    index=index,
                    name=spec["steps"][index]["use"],
                    status="running" if is_running else "pending",
                    attempt=attempt,
                    began_at=_moment(last_end) if is_running else "",
                    seconds=round(so_far, 3),
                )
            )
        return tuple(records)


def _is_return(output: Any) -> bool:
    return isinstance(output, dict) and set(output) == _WENT_BACK


def _step_record(step: _Step, found: re.Match[str]) -> StepRecord:
    error = None if step.error is None else step.error.as_json()
    if step.went_back:
        error = step.output["error"]
    return StepRecord(
        index=int(found[1]),
        name=found[2],
        status="failed" if error else "succeeded",
        attempt=int(found[3] or 1),
        began_at=_moment(step.began_at),
        ended_at=_moment(step.ended_at),
        seconds=round((step.ended_at - step.began_at) / 1000, 3),
        result=step.output,
        error=error,
    )


def _state(row: _Row, *, held: bool) -> str:
    if row.status == "SUCCESS":
        return "succeeded"
    if row.is_live:
        return "running" if held else "interrupted"
    return "failed"


def _status(run: _Row, states: Mapping[str, str], cleans: Mapping[str, bool], *, held: bool) -> str:
    """Return the state of a run from the states of its parts; the latest part decides.

    Args:
        run: The main part.
        states: States of the other parts by name.
        cleans: Whether a clean-up belongs to ``success`` and to ``undo``.
        held: Whether a process works on the run.
    """

    def after_cleanup(cause: str, status: str) -> str:
        clean = states.get(f"cleanup:{run.name}:{cause}", "")
        return status if clean == "succeeded" or not cleans[cause] else "cleaning"

    if states.get(f"forget:{run.name}") == "succeeded":
        return "forgotten"
    if run.status == "CANCELLED" or f"cancel:{run.name}" in states:
        return "cancelled"
    undo = states.get(f"undo:{run.name}")
    if undo is not None:
        return after_cleanup("undo", "undone") if undo == "succeeded" else undo
    if run.status == "SUCCESS":
        return after_cleanup("success", "succeeded")
    return _state(run, held=held)


def _as_error(error: Any) -> OrchestratorError:
    if isinstance(error, OrchestratorError):
        return error
    return OrchestratorError(log.redact_text(f"the run failed: {error}"))


def _moment(milliseconds: float) -> str:
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _journal_path(config: Config) -> Path:
    return config.state_directory / "journal.sqlite"


def _url(path: Path) -> str:
    if "?" in str(path):
        raise ConfigError(f"journal.directory: must not contain '?', is {path.parent}")
    return f"sqlite:///{path.absolute()}"


@contextlib.contextmanager
def _open_to_read(config: Config) -> Iterator[_Journal | None]:
    """Open the journal for questions; None if there is none, for asking must not make one."""
    path = _journal_path(config)
    journal = _Journal(path)
    try:
        # An empty file was left by a process that was killed before it could begin.
        yield journal if path.exists() and journal.has_tables() else None
    finally:
        journal.close()


@contextlib.contextmanager
def _open_to_write(config: Config) -> Iterator[_Journal]:
    """Open the journal for work; make it first, private and with a write-ahead log."""
    path = _journal_path(config)
    with _door(path):
        _make_private_directory(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        with contextlib.closing(sqlite3.connect(path, timeout=_LOCKED_SECONDS)) as connection:
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                connection.execute("PRAGMA journal_mode = WAL")
            # The library waits for ever on a locked journal; we would rather say so.
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    journal = _Journal(path)
    try:
        yield journal
    finally:
        journal.close()


def _make_private_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid == os.geteuid() and found.st_mode & 0o077 and not found.st_mode & stat.S_ISVTX:
        path.chmod(0o700)


@contextlib.contextmanager
def _door(path: Path) -> Iterator[None]:
    """Translate what SQLite, the library and the filesystem raise about the journal."""
    try:
        yield
    except OrchestratorError:
        raise
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if not isinstance(error, OSError) and library not in ("sqlite3", "sqlalchemy", "dbos"):
            raise
        raise _journal_error(path, error) from error


def _journal_error(path: Path, reason: object) -> JournalError:
    # SQLAlchemy's own text holds the statement and its values.
    said = log.redact_text(str(getattr(reason, "orig", None) or reason))
    hint = "see that the disk is sound; a copy of the file can be put back"
    if "full" in said or getattr(reason, "errno", 0) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "make room on its filesystem, then resume the run"
    elif "locked" in said:
        hint = "another program holds the file; end it and try again"
    elif "readonly" in said or "unable to open" in said or isinstance(reason, PermissionError):
        hint = "see that this user may write the file and its directory ([journal] directory)"
    return JournalError(f"journal {path}: {said}", hint=hint)


_workflows: dict[str, Any] = {}
_one_at_a_time = threading.Lock()


def _library() -> ModuleType:
    """Import the library, silenced and without pickle."""
    quiet = logging.getLogger("dbos")
    if not quiet.handlers:
        # It would write to stderr otherwise, advertisements included.
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
    import dbos  # noqa: PLC0415 - takes a third of a second
    from dbos import _serialization  # noqa: PLC0415 - as above

    # A row that says it is a pickle would be loaded, whatever serializer is configured (dbos issue
    # 485); who can write the journal could run code as us.
    for verb in ("serialize", "deserialize"):
        setattr(_serialization.DefaultSerializer, verb, _refuse_pickle)
    return dbos


def _refuse_pickle(_self: Any, _data: Any) -> NoReturn:
    raise JournalError(
        "the journal holds a pickle, which is never read",
        hint="somebody else wrote to the journal; see who may write its directory",
    )


def _workflow(kind: str) -> Any:
    """Return the workflow function for a kind of flow: ``run``, or ``part`` for the others."""
    name = "run" if kind == "run" else "part"
    if name not in _workflows:

        def walk(spec: dict[str, Any]) -> None:
            if _Interpreter.current is None:
                raise AssertionError("a flow was handed out that nobody drives")
            _Interpreter.current.walk(spec)

        decorate = _library().DBOS.workflow(name=name, max_recovery_attempts=None)
        _workflows[name] = decorate(walk)
    return _workflows[name]


@contextlib.contextmanager
def _launched(journal: _Journal, *, resuming: bool) -> Iterator[str]:
    """Launch the library for the block; gives the queue through which this process resumes.

    Name of executor and queue are new for each process: so the library recovers nobody's run by
    itself, and takes none that another process resumes.
    """
    dbos = _library()
    name = f"cli-{uuid.uuid4().hex}"
    with _one_at_a_time:
        _workflow("run")
        _workflow("cleanup")
        with _door(journal.path):
            if resuming:
                # Before the launch: a queue that comes later is seen only at the next full second.
                journal.client.register_queue(name, polling_interval_sec=0.1)
            dbos.DBOS(
                config={
                    "name": _APPLICATION,
                    "system_database_url": _url(journal.path),
                    "executor_id": name,
                    "application_version": FLOW_VERSION,
                    "serializer": JournalSerializer(),
                    "log_level": "CRITICAL",
                    # Nobody is notified here, but the end of a run waits for this poll.
                    "notification_listener_polling_interval_sec": 0.05,
                }
            )
        try:
            with _door(journal.path):
                dbos.DBOS.listen_queues([name])
                dbos.DBOS.launch()
            yield name
        finally:
            _Interpreter.current = None
            dbos.DBOS.destroy()
            if resuming:
                with contextlib.suppress(Exception):
                    # A leftover row does no harm, and must not hide why the run ended.
                    journal.client.delete_queue(name)
