"""What the journal says of a run, as its reader sees it: records, and how their status is derived."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from orchestrator import models
from orchestrator.durable import files, flows
from orchestrator.durable.journal import as_moment

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from orchestrator.durable.flows import StepName
    from orchestrator.durable.journal import Journal, JournalledStep, Row
    from orchestrator.models import RunPlan


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
        name: Name of its flow, such as ``cleanup:RUN:success``.
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
        ended_at: When its last part ended; empty if one has not. A cancelled run ends with the
            clean-up that follows.
        steps: The steps of the main part; empty in lists.
        error: Why it failed.
        parts: Its other parts, in the order in which they are begun.
    """

    run_id: str
    playbook: str
    status: str
    plan: RunPlan
    playbook_text: str
    flow_version: str
    began_at: str
    ended_at: str
    steps: tuple[StepRecord, ...] = ()
    error: dict[str, Any] | None = None
    parts: tuple[PartRecord, ...] = ()


def read_records(
    journal: Journal, run_ids: Sequence[str], *, held: Collection[str], with_steps: bool
) -> list[RunRecord]:
    """Return the records of runs that exist, in the order asked for.

    Args:
        journal: The journal.
        run_ids: The runs.
        held: Those that a process works on. Ask for that before, not after: a run that ends in
            between would be said to be interrupted.
        with_steps: Whether to read their steps as well.
    """
    names = {run_id: flows.part_names(run_id) for run_id in run_ids}
    rows = journal.rows([name for run_id in run_ids for name in (run_id, *names[run_id])])
    return [
        _make_record(
            journal,
            rows[run_id],
            {name: rows[name] for name in names[run_id] if name in rows},
            held=run_id in held,
            with_steps=with_steps,
        )
        for run_id in run_ids
    ]


def read_record(journal: Journal, run_id: str, *, held: bool) -> RunRecord:
    """Return the record of a run that exists, with its steps."""
    (record,) = read_records(journal, [run_id], held=[run_id] if held else [], with_steps=True)
    return record


def derive_status(run: Row, parts: Mapping[str, Row], *, held: bool) -> str:
    """Return the status of a run from those of its parts; the latest part decides.

    Args:
        run: The main part.
        parts: The other parts that were begun, by name.
        held: Whether a process works on the run.
    """
    forget = parts.get(f"forget:{run.name}")
    if forget is not None and forget.has_succeeded:
        return "forgotten"
    if run.status == "CANCELLED" or f"cancel:{run.name}" in parts:
        return "cancelled"
    undo = parts.get(f"undo:{run.name}")
    decides, cause, end = (
        (run, "success", "succeeded") if undo is None else (undo, "undo", "undone")
    )
    if not decides.has_succeeded:
        return _derive_state(decides, held=held)
    return end if _is_clean(decides, parts, cause) else "cleaning"


def has_ended(status: str, run: Row, parts: Mapping[str, Row]) -> bool:
    """Say whether nothing of a run is left to be done, or it failed.

    Args:
        status: As `derive_status` has it.
        run: The main part.
        parts: The other parts that were begun, by name.
    """
    forget = parts.get(f"forget:{run.name}")
    if forget is not None and forget.is_live:
        return False
    if status == "cancelled":
        cancel = parts.get(f"cancel:{run.name}")
        return cancel is not None and cancel.has_succeeded and _is_clean(cancel, parts, "cancel")
    return status not in ("running", "interrupted", "cleaning")


def _is_clean(row: Row, parts: Mapping[str, Row], cause: str) -> bool:
    """Say whether the clean-up that follows a part is done, if one does follow."""
    cleanup = parts.get(f"cleanup:{row.spec['run_id']}:{cause}")
    return not row.spec["cleanup"] or (cleanup is not None and cleanup.has_succeeded)


def _derive_state(row: Row, *, held: bool) -> str:
    """Return the status of one part."""
    if row.has_succeeded:
        return "succeeded"
    if row.is_live:
        return "running" if held else "interrupted"
    return "failed"


def _make_record(
    journal: Journal, run: Row, parts: Mapping[str, Row], *, held: bool, with_steps: bool
) -> RunRecord:
    status = derive_status(run, parts, held=held)
    steps = _read_steps(journal, run, held=held) if with_steps else ()
    records = tuple(
        _make_part(row, _read_steps(journal, row, held=held) if with_steps else (), held=held)
        for row in parts.values()
    )
    ends = [_last_moment(run, steps), *(part.ended_at for part in records)]
    return RunRecord(
        run_id=run.name,
        playbook=run.spec["playbook"]["name"],
        status=status,
        plan=models.read_plan(run.spec["plan"]),
        playbook_text=run.spec["playbook"]["text"],
        flow_version=run.version,
        began_at=run.spec["began_at"],
        ended_at=max(ends) if has_ended(status, run, parts) else "",
        steps=steps,
        error=_describe_error(run),
        parts=records,
    )


def _make_part(row: Row, steps: tuple[StepRecord, ...], *, held: bool) -> PartRecord:
    return PartRecord(
        name=row.name,
        kind=row.spec["kind"],
        status=_derive_state(row, held=held),
        began_at=row.spec["began_at"],
        ended_at="" if row.is_live else _last_moment(row, steps),
        steps=steps,
        error=_describe_error(row),
    )


def _last_moment(row: Row, steps: Sequence[StepRecord]) -> str:
    # A cancel marks the end of a flow while a step of it is still at work.
    return max([as_moment(row.ended_at), *(step.ended_at for step in steps)])


def _describe_error(found: Row | JournalledStep) -> dict[str, Any] | None:
    return None if found.error is None else found.error.as_json()


def _read_steps(journal: Journal, row: Row, *, held: bool) -> tuple[StepRecord, ...]:
    """Return the steps that a flow has walked, then those that it has before it."""
    stored = row.spec["steps"]
    places = {entry["use"]: index for index, entry in enumerate(stored)}
    records: list[StepRecord] = []
    following, attempt, last_end = 0, 1, row.created_at
    for step in journal.steps(row.name):
        name = flows.StepName.parse(step.name)
        if name is None:
            reason = f"{row.name} has a step {step.name!r}, not ours"
            raise files.journal_error(journal.path, reason)
        records.append(_make_step(step, name))
        if step.went_back and step.output["back_to"] not in places:
            raise files.journal_error(journal.path, f"{row.name} went back to a step that is not")
        following = places[step.output["back_to"]] if step.went_back else name.index + 1
        attempt += step.went_back
        last_end = step.ended_at
    for index in range(following, len(stored)):
        is_running = held and row.is_live and index == following
        so_far = max(0.0, time.time() - last_end / 1000) if is_running else 0.0
        records.append(
            StepRecord(
                index=index,
                name=stored[index]["use"],
                status="running" if is_running else "pending",
                attempt=attempt,
                began_at=as_moment(last_end) if is_running else "",
                seconds=round(so_far, 3),
            )
        )
    return tuple(records)


def _make_step(step: JournalledStep, name: StepName) -> StepRecord:
    error = step.output["error"] if step.went_back else _describe_error(step)
    return StepRecord(
        index=name.index,
        name=name.step,
        status="failed" if error else "succeeded",
        attempt=name.round,
        began_at=as_moment(step.began_at),
        ended_at=as_moment(step.ended_at),
        seconds=round((step.ended_at - step.began_at) / 1000, 3),
        result=step.output,
        error=error,
    )
