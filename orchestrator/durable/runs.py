"""The verbs on runs: begin, resume, cancel, undo, forget, report, record, list and read.

Each of the first five holds the run, looks at its record, refuses what does not fit its state,
and drives the flows that belong to the verb. Called again, it goes on where it was cut off.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from orchestrator import models
from orchestrator.durable import crash, drive, engine, files, flows, journal, records, run_lock
from orchestrator.durable.flows import Flow
from orchestrator.errors import ConfigError, PreconditionError
from orchestrator.steps.registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import Config
    from orchestrator.durable.attempts import OpenSession
    from orchestrator.durable.journal import Journal
    from orchestrator.durable.records import RunRecord
    from orchestrator.models import RunPlan
    from orchestrator.playbook import Playbook

CANCEL_WAIT_SECONDS = 300.0
"""How long a cancel waits for the process that holds the run."""


def begin_run(
    config: Config, plan: RunPlan, playbook: Playbook, open_session: OpenSession
) -> RunRecord:
    """Begin a run, and stay until it and its clean-up have ended.

    Raises:
        OrchestratorError: What the failing step raised; the run can be resumed.
        PreconditionError: A run of that name exists.
        JournalError: The journal cannot be written.
    """
    spec = flows.make_spec("run", plan, playbook)
    with run_lock.hold_run(config, plan.run_id):
        opened = journal.create_journal(config)
        if opened.rows([plan.run_id]):
            raise PreconditionError(
                f"there is a run {plan.run_id} already", hint=f"xbvault runs show {plan.run_id}"
            )
        drive.drive_flows(config, opened, open_session, flows.make_flows(spec))
    return read_run(config, plan.run_id)


def record_runs(config: Config, plans: Sequence[RunPlan], playbook: Playbook) -> None:
    """Write down runs that are to begin together, all of them or none; `resume_run` begins each.

    So a process that dies while it begins them leaves none of which the journal does not know.

    Raises:
        JournalError: The journal cannot be written.
    """
    crash.die_at("group", "before")
    began_at = journal.as_moment(time.time() * 1000)
    recorded = [
        Flow(
            name=plan.run_id,
            spec={**flows.make_spec("run", plan, playbook), "began_at": began_at},
        )
        for plan in plans
    ]
    engine.record_runs(journal.create_journal(config).path, recorded)
    crash.die_at("group", "recorded")


def resume_run(config: Config, run_id: str, open_session: OpenSession) -> RunRecord:
    """Go on with a run where it failed or was cut off, or with its clean-up; or begin a recorded one.

    Raises:
        OrchestratorError: What the failing step raised.
        ConfigError: There is no such run.
        LockHeldError: A live process holds it.
        PreconditionError: It is cancelled, undone, or of another version.
    """
    run_id = _find_run(config, run_id, open_session)
    with run_lock.hold_run(config, run_id):
        opened = journal.create_journal(config)
        record = records.read_record(opened, run_id, held=False)
        if record.status in ("succeeded", "forgotten"):
            return record
        state = "undone" if _has_part(record, "undo") else record.status
        if state in ("undone", "cancelled"):
            raise PreconditionError(
                f"run {run_id} was {state}, which is final", hint=_way_out(record)
            )
        found = flows.make_flows(opened.rows([run_id])[run_id].spec)
        _refuse_other_version(opened, record, found)
        drive.drive_flows(config, opened, open_session, found)
    return read_run(config, run_id)


def cancel_run(config: Config, run_id: str, open_session: OpenSession, undo: Playbook) -> RunRecord:
    """End a run for good: stop it if it is live, put back what it changed, clean up.

    Raises:
        OrchestratorError: What the failing step raised.
        ConfigError: There is no such run.
        LockHeldError: The process that holds it did not let go.
        PreconditionError: It has succeeded, or is of another version.
    """
    run_id = _find_run(config, run_id, open_session)
    opened = journal.create_journal(config)

    def mark() -> None:
        _mark_cancelled(opened, run_id)

    with run_lock.hold_run(config, run_id, seconds=CANCEL_WAIT_SECONDS, meanwhile=mark):
        mark()
        record = records.read_record(opened, run_id, held=False)
        found = _action_flows(opened, run_id, "cancel", undo)
        _refuse_other_version(opened, record, found)
        drive.drive_flows(config, opened, open_session, found, ends="cancelled")
    return read_run(config, run_id)


def undo_run(config: Config, run_id: str, open_session: OpenSession, undo: Playbook) -> RunRecord:
    """Put back what a run that succeeded has changed.

    Raises:
        OrchestratorError: What the failing step raised.
        ConfigError: There is no such run.
        LockHeldError: A live process holds it.
        PreconditionError: It did not succeed, was forgotten, or is of another version.
    """
    run_id = _find_run(config, run_id, open_session)
    with run_lock.hold_run(config, run_id):
        opened = journal.create_journal(config)
        record = records.read_record(opened, run_id, held=False)
        if record.status == "undone":
            return record
        if not _has_part(record, "undo") and record.status not in ("succeeded", "cleaning"):
            raise PreconditionError(
                f"run {run_id} is {record.status} and cannot be undone", hint=_way_out(record)
            )
        found = _action_flows(opened, run_id, "undo", undo)
        _refuse_other_version(opened, record, found)
        drive.drive_flows(config, opened, open_session, found)
    return read_run(config, run_id)


def forget_run(
    config: Config, run_id: str, open_session: OpenSession, forget: Playbook
) -> RunRecord:
    """Remove what a run that has ended set aside.

    Raises:
        OrchestratorError: What the failing step raised.
        ConfigError: There is no such run.
        LockHeldError: A live process holds it.
        PreconditionError: It has not ended, or is of another version.
    """
    run_id = _find_run(config, run_id, open_session)
    with run_lock.hold_run(config, run_id):
        opened = journal.create_journal(config)
        record = records.read_record(opened, run_id, held=False)
        if record.status == "forgotten":
            return record
        if not _is_over(record):
            raise PreconditionError(
                f"run {run_id} is {record.status} and has not ended", hint=_way_out(record)
            )
        found = _action_flows(opened, run_id, "forget", forget)
        _refuse_other_version(opened, record, found)
        drive.drive_flows(config, opened, open_session, found)
    return read_run(config, run_id)


def report_run(
    config: Config,
    run_id: str,
    open_session: OpenSession,
    playbook: Playbook,
    values: dict[str, Any],
    *,
    same: str,
) -> RunRecord:
    """File a report of a run, unless there is one of what it has come to.

    Args:
        config: The configuration.
        run_id: The run; whoever calls has seen that it has ended, well or not.
        open_session: Opens what the steps share.
        playbook: The one step that writes the report.
        values: What that step is given; it is stored, so that the step can be repeated.
        same: The value by which a report of an earlier call is known to be of the same.

    Raises:
        OrchestratorError: What the step raised.
        LockHeldError: A live process holds the run.
    """
    with run_lock.hold_run(config, run_id):
        opened = journal.create_journal(config)
        name = f"report:{run_id}"
        rows = opened.rows([run_id, name])
        earlier = rows.get(name)
        if earlier is not None and earlier.spec["steps"][0]["with"].get(same) != values[same]:
            engine.delete_flow(opened.path, name)
            earlier = None
        if earlier is None:
            spec = flows.make_spec("report", models.read_plan(rows[run_id].spec["plan"]), playbook)
            spec["steps"] = [{**step, "with": dict(values)} for step in spec["steps"]]
        else:
            spec = earlier.spec
        # The host is not needed for it, and its lock is nobody's business here.
        found = flows.make_flows(spec)
        drive.drive_flows(config, opened, open_session, found, ends="reported")
    return read_run(config, run_id)


def list_runs(config: Config, limit: int = 100) -> list[RunRecord]:
    """Return the latest runs, newest first, without their steps.

    Raises:
        JournalError: The journal cannot be read.
    """
    found = journal.Journal(files.journal_path(config))
    names = found.latest(limit)
    held = [name for name in names if run_lock.find_holder(config, name) is not None]
    return records.read_records(found, names, held=held, with_steps=False)


def read_run(config: Config, run_id: str) -> RunRecord:
    """Return a run with its steps and parts.

    Args:
        config: The configuration, which says where the journal is.
        run_id: Name of the run, or a beginning that only one run has.

    Raises:
        ConfigError: There is no such run, or more than one.
        JournalError: The journal cannot be read.
    """
    opened = journal.Journal(files.journal_path(config))
    found = opened.find(run_id)
    if not found:
        raise ConfigError(f"unknown run {run_id!r}", hint="`xbvault runs list` shows them")
    if len(found) > 1:
        raise ConfigError(
            f"{run_id!r} names {len(found)} runs", hint=f"one of: {', '.join(found[:5])}"
        )
    is_held = run_lock.find_holder(config, found[0]) is not None
    return records.read_record(opened, found[0], held=is_held)


def _find_run(config: Config, run_id: str, open_session: OpenSession) -> str:
    """Return the whole name of a run that somebody wants something done to."""
    record = read_run(config, run_id)
    opened = journal.Journal(files.journal_path(config))
    drive.release_ended(config, opened, open_session, record.plan.recipient)
    return record.run_id


def _mark_cancelled(opened: Journal, run_id: str) -> None:
    """Mark a run that has not ended as cancelled.

    Raises:
        PreconditionError: It has done its work.
    """
    status = opened.status(run_id)
    if status == "SUCCESS":
        raise PreconditionError(
            f"run {run_id} has done its work and cannot be cancelled",
            hint=f"xbvault runs undo {run_id}",
        )
    if status in journal.LIVE:
        engine.cancel_flow(opened.path, run_id)


def _action_flows(opened: Journal, run_id: str, kind: str, playbook: Playbook) -> list[Flow]:
    """Return the flows of an undo, cancel or forget; one that began keeps its first playbook.

    The clean-up is the one that the action's playbook names, else the run's own. A forget has
    none, for the run it forgets was cleaned up before.
    """
    name = f"{kind}:{run_id}"
    rows = opened.rows([run_id, name])
    if name in rows:
        return flows.make_flows(rows[name].spec)
    main = rows[run_id].spec
    spec = flows.make_spec(kind, models.read_plan(main["plan"]), playbook)
    spec["cleanup"] = [] if kind == "forget" else spec["cleanup"] or main["cleanup"]
    spec["attempt"] = 1 + sum(step.went_back for step in opened.steps(run_id))
    return flows.make_flows(spec)


def _refuse_other_version(opened: Journal, record: RunRecord, found: Sequence[Flow]) -> None:
    """Refuse flows that another version has begun, or that name steps which this one lacks.

    A run of another version can still be cancelled, undone and forgotten: those are flows of this
    version, which take nothing from the run but its plan.
    """
    rows = opened.rows([flow.name for flow in found]).values()
    versions = {row.version for row in rows} - {flows.FLOW_VERSION}
    unknown = {entry["use"] for flow in found for entry in flow.spec["steps"]} - set(REGISTRY)
    if not versions and not unknown:
        return
    kind = found[0].spec["kind"]
    hint = f"end the {kind} with the version that began it"
    if kind == "run":
        verb = "undo" if record.status == "cleaning" else "cancel"
        hint = (
            f"`xbvault runs {verb} {record.run_id}` takes it back; or resume it with the version "
            "that began it"
        )
    what = f"knows no step {min(unknown)!r}" if unknown else f"reads {flows.FLOW_VERSION}"
    raise PreconditionError(
        f"run {record.run_id} was begun by another version of xbvault "
        f"({min(versions, default=record.flow_version)}; this one {what})",
        hint=hint,
    )


def _has_part(record: RunRecord, kind: str) -> bool:
    return any(part.kind == kind for part in record.parts)


def _is_over(record: RunRecord) -> bool:
    """Say whether a run has come to an end that stands, its clean-up included."""
    if record.status == "cancelled":
        return bool(record.ended_at) or _has_part(record, "forget")
    return record.status in ("succeeded", "undone")


def _way_out(record: RunRecord) -> str:
    """Return the command that fits a run's state."""
    if record.status in ("undone", "forgotten") or (
        record.status == "cancelled" and _is_over(record)
    ):
        return "begin a new run"
    if record.status == "cancelled":
        verb = "cancel"
    elif _has_part(record, "undo"):
        verb = "undo"
    elif record.status == "running":
        verb = "watch"
    elif record.status in ("failed", "interrupted"):
        return f"xbvault runs resume {record.run_id}, or xbvault runs cancel {record.run_id}"
    else:
        verb = "resume"
    return f"xbvault runs {verb} {record.run_id}"
