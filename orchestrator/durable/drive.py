"""Driving flows to their end: one process, one session, one flow after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from typing import TYPE_CHECKING

from orchestrator import log, models
from orchestrator.durable import crash, engine, files, records, run_lock
from orchestrator.durable.attempts import Attempts
from orchestrator.durable.interpreter import Interpreter
from orchestrator.durable.journal import LIVE, as_moment
from orchestrator.errors import (
    CancelledError,
    LockHeldError,
    OrchestratorError,
    PreconditionError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import Config
    from orchestrator.durable.attempts import OpenSession, Session
    from orchestrator.durable.engine import Engine
    from orchestrator.durable.flows import Flow, Spec
    from orchestrator.durable.journal import Journal, Row

_HAND_OUT_SECONDS = 60.0
_COMMIT_SECONDS = 10.0
_LAST_WORD_SECONDS = 0.1


def drive_flows(
    config: Config,
    journal: Journal,
    open_session: OpenSession,
    flows: Sequence[Flow],
    *,
    ends: str = "succeeded",
) -> None:
    """Drive flows of a run to their end, one after the other; those that are done are left alone.

    Args:
        config: The configuration.
        journal: The journal.
        open_session: Opens what the steps share.
        flows: The flows, whose run is held by this process.
        ends: What the session is told when all went well.

    Raises:
        OrchestratorError: What the failing step raised.
        CancelledError: The run was cancelled meanwhile.
        JournalError: The journal cannot be read or written.
    """
    spec = flows[0].spec
    run_id = spec["run_id"]
    rows = journal.rows([flow.name for flow in flows])
    resuming = any(not row.has_succeeded for row in rows.values())
    if len(rows) == len(flows) and not resuming:
        return
    plan = models.read_plan(spec["plan"])
    release_ended(config, journal, open_session, plan.recipient)
    log_path = config.state_directory / "logs" / f"{run_id}.jsonl"
    context = log.bound(run_id=run_id, playbook=spec["playbook"]["name"])
    with contextlib.ExitStack() as stack:
        with files.translate_errors(log_path):
            stack.enter_context(log.run_file(run_id, log_path))
        stack.enter_context(context)
        session = open_session(config, plan)
        status = "detached"
        try:
            if spec["kind"] == "cancel" and not rows:
                session.need_unended()
            with engine.launch_engine(journal.path, resuming=resuming) as launched:
                for flow in flows:
                    _drive_flow(journal, session, launched, flow)
            crash.die_at("run", "ended")
            status = ends
        except CancelledError:
            status = "cancelled"
            raise
        except Exception:
            status = "failed"
            raise
        finally:
            _end_session(session, status)


def release_ended(
    config: Config, journal: Journal, open_session: OpenSession, recipient: str
) -> None:
    """Let go of a recipient that is still held for a run that has ended.

    Its process was killed after the last word in the journal and before it had let go.

    Args:
        config: The configuration.
        journal: The journal.
        open_session: Opens what can let go.
        recipient: Of which host to let go.
    """
    left = run_lock.list_left(config)
    for run_id in journal.rows(left):
        record = records.read_record(journal, run_id, held=False)
        if not record.ended_at or record.plan.recipient != recipient:
            continue
        with contextlib.suppress(LockHeldError), run_lock.hold_run(config, run_id):
            _end_session(open_session(config, record.plan), "succeeded")


class _Walk:
    """A flow's walk in a thread of the library, as the driver in the main thread sees it."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.crash: BaseException | None = None
        self._interpreter = interpreter

    def __call__(self, spec: Spec) -> None:
        # Nothing is bound in the library's threads.
        context = log.bound(
            run_id=spec["run_id"], playbook=spec["playbook"]["name"], flow=spec["kind"]
        )
        with run_lock.walked(spec["run_id"]), context:
            self.begun.set()
            try:
                self._interpreter.walk(spec)
            except BaseException as error:
                self.crash = error
                raise
            finally:
                self.ended.set()


def _drive_flow(journal: Journal, session: Session, launched: Engine, flow: Flow) -> None:
    row = journal.rows([flow.name]).get(flow.name)
    if row is not None and row.has_succeeded:
        return
    with log.bound(flow=flow.spec["kind"]):
        resumed = row is not None and not row.is_waiting
        log.get().info("run.began", resumed=resumed, steps=len(flow.spec["steps"]))
        began = time.monotonic()
        attempts = Attempts(session, lambda: journal.status(flow.name) == "CANCELLED")
        walk = _Walk(Interpreter(engine.run_step, attempts))
        try:
            _hand_over(journal, launched, flow, row, walk)
            _wait(journal, flow.name, walk)
            row = journal.rows([flow.name])[flow.name]
            if row.status == "CANCELLED":
                raise _cancelled(flow)
            if not row.has_succeeded:
                raise row.error or OrchestratorError(f"{flow.name} ended as {row.status}")
        except OrchestratorError as error:
            log.get().error("run.failed", **error.as_json())
            _take_refused_back(journal, flow, error)
            raise
        log.get().info("run.ended", seconds=round(time.monotonic() - began, 3))


def _hand_over(
    journal: Journal, launched: Engine, flow: Flow, row: Row | None, walk: _Walk
) -> None:
    """Give a flow to the library: as a new one, or as one that goes on."""
    if row is None:
        # The library's own moment has no more than seconds.
        spec: Spec = {**flow.spec, "began_at": as_moment(time.time() * 1000)}
        launched.start_flow(dataclasses.replace(flow, spec=spec), walk)
    elif row.status == "CANCELLED":
        # Another process waits for us to let go; the library would go on with it.
        raise _cancelled(flow)
    elif row.is_live:
        launched.resume_flow(flow.name, walk)
    else:
        # Nothing is lost for the reader: the run's log keeps what this removes from the journal.
        launched.rewind_flow(flow.name, journal.first_undone(flow.name), walk)


def _wait(journal: Journal, name: str, walk: _Walk) -> None:
    """Wait until the journal has the flow's end; signal handlers of the main thread still run."""
    deadline = time.monotonic() + _HAND_OUT_SECONDS
    while not walk.ended.wait(0.2):
        if walk.begun.is_set():
            continue
        if journal.status(name) not in LIVE:
            return
        if time.monotonic() > deadline:
            raise files.journal_error(journal.path, "it did not hand the run out")
    # A step's own error is being written down. Any other is the journal's, which takes no more.
    is_broken = not isinstance(walk.crash, OrchestratorError | None)
    deadline = time.monotonic() + (_LAST_WORD_SECONDS if is_broken else _COMMIT_SECONDS)
    while journal.status(name) in LIVE:
        if walk.crash is not None and not isinstance(walk.crash, Exception):
            raise walk.crash
        if time.monotonic() > deadline:
            reason = walk.crash if is_broken else "it did not take the end of the run"
            raise files.journal_error(journal.path, reason) from walk.crash
        time.sleep(0.005)


def _take_refused_back(journal: Journal, flow: Flow, error: OrchestratorError) -> None:
    """Let an undo or forget that was refused at its first step not have begun.

    The run would be failed otherwise, for good, although nothing was done to it.
    """
    if flow.spec["kind"] not in ("undo", "forget") or not isinstance(error, PreconditionError):
        return
    if all(step.error is not None for step in journal.steps(flow.name)):
        engine.delete_flow(journal.path, flow.name)


def _cancelled(flow: Flow) -> CancelledError:
    return CancelledError(f"run {flow.spec['run_id']} was cancelled")


def _end_session(session: Session, status: str) -> None:
    try:
        session.end(status)
    except OrchestratorError as error:
        # The work is done or has failed already, which must not be hidden; a lock that could not
        # be released ends with its lease.
        log.get().warning("notice", about="session not ended cleanly", **error.as_json())
