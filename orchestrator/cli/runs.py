"""``xbvault runs list | show | watch | resume | cancel | undo | forget``."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator import models, summary
from orchestrator.cli import drill, follow, groups, output, view
from orchestrator.cli.call import Call, json_option, pass_call, verbose_option, yes_option
from orchestrator.cli.run_file import RunFile
from orchestrator.errors import ConfigError, LockHeldError, PreconditionError
from orchestrator.models import AnyDrill, Plan, StoringPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from orchestrator.config import Config
    from orchestrator.durable import RunRecord, StepRecord
    from orchestrator.models import RunPlan

POLL_SECONDS = 0.2
ASK_JOURNAL_SECONDS = 1.0
PROGRESS_BYTES = 65536
"""So much of the end of a log is read for the latest progress."""
RESTED = 2
"""A watched run has ended when the journal says so this often in a row."""
PLAYBOOKS = {
    (models.CLONE, "cancel_run"): "undo",
    (models.CLONE, "undo_run"): "undo",
    (models.CLONE, "forget_run"): "forget",
    (models.BACKUP, "cancel_run"): "undo-backup",
    (models.BACKUP, "undo_run"): "undo-backup",
    (models.ARCHIVE, "cancel_run"): "undo-backup",
    (models.ARCHIVE, "undo_run"): "undo-backup",
    (models.COPY, "cancel_run"): "undo-copy",
    (models.COPY, "undo_run"): "undo-copy",
    (models.RESTORE, "cancel_run"): "undo-restore",
    (models.RESTORE, "undo_run"): "undo-restore",
    (models.RESTORE, "forget_run"): "forget",
    (models.DRILL, "cancel_run"): "undo-restore",
    (models.DRILL, "undo_run"): "undo-restore",
    (models.DRILL, "forget_run"): "forget",
    (models.DRILL_CLONE, "cancel_run"): "undo",
    (models.DRILL_CLONE, "undo_run"): "undo",
    (models.DRILL_CLONE, "forget_run"): "forget",
}
"""What ends a run, by its form and by how it is ended."""
_QUESTIONS = {
    "cancel_run": "Cancel {} for good?",
    "undo_run": "Undo {}: put the recipient's earlier datadir back?",
    "forget_run": "Forget {}: delete the recipient's earlier datadir for good?",
}
_UNDONE = {
    "undo-backup": "End {}: remove the backup set, and destroy its keys?",
    "undo-copy": "End {}: remove the copy of the backup set?",
}


@click.group()
def runs() -> None:
    """List, show and watch runs; resume, cancel, undo or forget one."""


@runs.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="Newest N.")
@json_option
@pass_call
def list_(call: Call, limit: int) -> None:
    """List runs, the newest first."""
    found = call.backend.list_runs(call.load_config(), limit)
    items = [summary.build_list_item(record) for record in found]
    if call.as_json:
        output.print_document(items)
        return
    rows = [
        (
            item["run_id"],
            item["playbook"],
            item["donor"],
            item["recipient"],
            item["status"],
            _shorten_moment(item["began_at"]),
            "" if item["seconds"] is None else output.format_seconds(item["seconds"]),
        )
        for item in items
    ]
    header = ("run_id", "playbook", "donor", "recipient", "status", "began", "seconds")
    click.echo(output.format_table(header, rows) if rows else "no runs")


@runs.command()
@click.argument("run")
@json_option
@pass_call
def show(call: Call, run: str) -> None:
    """Show what RUN did: its steps, checks, replication facts and error."""
    config = call.load_config()
    record = call.backend.read_run(config, run)
    call.run_id = record.run_id
    if call.as_json:
        progress = read_progress(config, record)
        output.print_document(summary.build_full_document(record, progress))
        return
    click.echo("\n".join(_format_run(record)))
    click.echo("")
    follow.print_findings(record)
    if record.error:
        click.echo(output.format_error(follow.read_error(record), record.run_id))


@runs.command()
@click.argument("run")
@json_option
@verbose_option
@pass_call
def watch(call: Call, run: str) -> None:
    """Watch RUN, which another process does, until it ends."""
    config = call.load_config()
    record = call.backend.read_run(config, run)
    call.run_id = record.run_id
    pending = [view.StepView(step.name, step.flow) for step in follow.list_done_steps(call, record)]
    shown = view.choose_view(pending, as_json=call.as_json, verbose=call.verbose)
    shown.open()
    try:
        for event in _tail(call, config, record.run_id):
            shown.feed(event)
    finally:
        shown.close()
    record = call.backend.read_run(config, record.run_id)
    wanted = record.status if record.status in ("undone", "forgotten") else "succeeded"
    follow.report(call, record, wanted)


@runs.command()
@click.argument("run")
@json_option
@verbose_option
@pass_call
def resume(call: Call, run: str) -> None:
    """Go on with RUN where it was interrupted or failed; finished steps are not done again.

    The backup_id of clones that began together stands for all of them.
    """
    config = call.load_config()
    try:
        record = call.backend.read_run(config, run)
    except ConfigError:
        together = groups.find(call, config, run)
        if not together:
            raise
        _resume_group(call, config, run, together)
        return
    steps = follow.list_done_steps(call, record)

    def act() -> RunRecord:
        return call.backend.resume_run(config, record.run_id)

    ended = follow.go(call, record.run_id, steps, _conclude(call, config, record, act))
    # a run that was forgotten has succeeded before
    follow.report(call, ended, "forgotten" if ended.status == "forgotten" else "succeeded")


@runs.command()
@click.argument("run")
@json_option
@verbose_option
@yes_option
@pass_call
def cancel(call: Call, run: str, *, yes: bool) -> None:
    """Cancel RUN for good: its jobs end, what it changed is taken back, and it is cleaned up."""
    _end(call, run, "cancel_run", "cancelled", yes=yes)


@runs.command()
@click.argument("run")
@json_option
@verbose_option
@yes_option
@pass_call
def undo(call: Call, run: str, *, yes: bool) -> None:
    """Undo RUN: the recipient gets back the datadir that RUN set aside.

    Of a backup, the set is removed, and its keys are destroyed.
    """
    _end(call, run, "undo_run", "undone", yes=yes)


@runs.command()
@click.argument("run")
@json_option
@verbose_option
@yes_option
@pass_call
def forget(call: Call, run: str, *, yes: bool) -> None:
    """Forget RUN: remove the datadir that it set aside, and what only that needed. No way back."""
    _end(call, run, "forget_run", "forgotten", yes=yes)


def _conclude(
    call: Call, config: Config, record: RunRecord, act: Callable[[], RunRecord]
) -> Callable[[], RunRecord]:
    """Return what does the same, and then writes the report of a drill."""
    if not isinstance(record.plan, AnyDrill):
        return act
    return lambda: drill.conclude(call, config, record.run_id, act)


def _resume_group(call: Call, config: Config, name: str, together: Sequence[RunRecord]) -> None:
    for record in together:
        if record.status == "succeeded":
            # Its process may have been killed before it let go of the recipient. If it is held, it
            # lives.
            with contextlib.suppress(LockHeldError):
                call.backend.resume_run(config, record.run_id)
    left = groups.list_unended(together)
    playbook = call.backend.parse_playbook(together[0].playbook_text)
    call.document = summary.build_group_document(name, together)
    said = groups.go(call, name, left, follow.list_steps(playbook)) if left else {}
    known = {record.run_id: record.plan.recipient for record in together}
    groups.report(call, name, {r: known.get(r, r) for r in together[0].plan.group_runs}, said)


def _end(call: Call, run: str, method: str, wanted: str, *, yes: bool) -> None:
    config = call.load_config()
    output.require_consent(call, yes=yes)
    record = call.backend.read_run(config, run)
    call.run_id = record.run_id
    name = PLAYBOOKS.get((record.plan.form, method))
    if name is None:
        raise PreconditionError(
            f"run {record.run_id} is a {record.plan.form}, which set nothing aside",
            hint=f"xbvault runs undo {record.run_id}",
        )
    is_cancel = method == "cancel_run"
    if not is_cancel:
        drill.refuse_ended(record)
    playbook = call.backend.load_playbook(name)
    if not yes:
        output.talk(
            f"{record.run_id}: {record.playbook}, {record.plan.donor} → {record.plan.recipient}, "
            f"{record.status}; {_describe_stake(record.plan)}"
        )
        question = _UNDONE.get(name, _QUESTIONS[method])
        output.confirm(question.format(record.run_id))
    steps = follow.list_steps(playbook, method.removesuffix("_run"))

    def act() -> RunRecord:
        done: RunRecord = getattr(call.backend, method)(config, record.run_id, playbook)
        return done

    going = _conclude(call, config, record, act) if is_cancel else act
    ended = follow.go(call, record.run_id, steps, going, is_told=False)
    follow.report(call, ended, wanted)


def _tail(call: Call, config: Config, run_id: str) -> Iterator[dict[str, Any]]:
    """Yield the events of a run's file, and wait for more while the run goes on.

    Whether it goes on is for the journal to say: a process that was killed writes no last event.
    It is asked twice, because for a moment between a run and its clean-up neither is running.
    """
    file = RunFile(config, run_id)
    asked_at, rested = -math.inf, 0
    while True:
        # asked before the file is read, so that nothing that is written in between is lost
        if time.monotonic() - asked_at >= ASK_JOURNAL_SECONDS:
            rested = 0 if _is_going(call.backend.read_run(config, run_id)) else rested + 1
            asked_at = time.monotonic()
        yield from file.read_events()
        if rested == RESTED:
            return
        time.sleep(POLL_SECONDS)


def read_progress(config: Config, record: RunRecord) -> list[dict[str, Any]]:
    """Return how far the step is that runs, as the end of the run's log has it: last word by host."""
    running = {step.name for step in record.steps if step.status == "running"}
    found: dict[str, dict[str, Any]] = {}
    if running:
        for event in RunFile(config, record.run_id, last_bytes=PROGRESS_BYTES).read_events():
            if event.get("event") == "step.began":
                found.clear()
            if event.get("event") == "job.progress" and event.get("step") in running:
                found[str(event.get("host", ""))] = view.describe_progress_event(event)
    return list(found.values())


def _is_going(record: RunRecord) -> bool:
    return record.status == "running" or any(part.status == "running" for part in record.parts)


def _format_run(record: RunRecord) -> Iterator[str]:
    plan = record.plan
    facts = [
        ("run", record.run_id),
        ("playbook", record.playbook),
        ("status", record.status),
        ("donor", plan.donor),
        _describe_target(plan),
        ("backup_id", plan.backup_id),
        ("began", _shorten_moment(record.began_at)),
        ("ended", _shorten_moment(record.ended_at)),
    ]
    yield output.format_table(("", ""), facts).lstrip("\n")
    yield ""
    yield _format_steps(record.steps)
    for part in record.parts:
        yield ""
        yield f"{part.name}: {part.status}"
        yield _format_steps(part.steps)


def _describe_target(plan: RunPlan) -> tuple[str, str]:
    """Return what a run wrote to, and its name."""
    if isinstance(plan, StoringPlan):
        return "repository", f"{plan.recipient}, folder {plan.set_dir}"
    datadir = plan.datadir if isinstance(plan, Plan) else ""
    return "recipient", f"{plan.recipient}, datadir {datadir}"


def _describe_stake(plan: RunPlan) -> str:
    """Return what the end of a run puts at stake."""
    if isinstance(plan, StoringPlan):
        return f"backup set: {plan.set_dir}"
    return f"earlier datadir: {plan.old_datadir if isinstance(plan, Plan) else ''}"


def _format_steps(steps: tuple[StepRecord, ...]) -> str:
    rows = [
        (
            str(step.index + 1),
            step.name,
            step.status,
            output.format_seconds(step.seconds) if step.status != "pending" else "",
            str((step.error or {}).get("message", "")),
        )
        for step in steps
    ]
    return output.format_table(("#", "step", "status", "seconds", ""), rows)


def _shorten_moment(moment: str) -> str:
    """Return an ISO moment to the second."""
    return moment.partition(".")[0].removesuffix("Z").replace("T", " ")
