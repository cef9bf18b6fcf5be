"""Doing a run in front of a person: the view, Ctrl-C, and the report at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import click

from orchestrator import errors, summary
from orchestrator.cli import aftermath, output, view
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.models import AnyDrill, StoringPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from orchestrator.cli.call import Call
    from orchestrator.durable import RunRecord
    from orchestrator.playbook import Playbook

DETACHED = 130
_SHOW_CURSOR = "\x1b[?25h"


def go(
    call: Call,
    run_id: str,
    steps: Iterable[view.StepView],
    act: Callable[[], RunRecord],
    *,
    is_told: bool = True,
) -> RunRecord:
    """Do what goes on with a run, and show its steps meanwhile.

    Args:
        call: The call.
        run_id: The run.
        steps: The steps to show, in order.
        act: Does it; returns the run's record at the end.
        is_told: Whether a notice of its end is sent, where one is wanted.

    Raises:
        OrchestratorError: As `act` does; with ``--json`` the document of the failure then tells
            how far the run came.
    """
    call.run_id, call.attempt = run_id, ""
    shown = view.choose_view(steps, as_json=call.as_json, verbose=call.verbose)
    shown.open()
    begun = threading.Event()

    def listen(event: Mapping[str, Any]) -> None:
        if event.get("event") == "run.began":
            begun.set()
        shown.feed(event)

    def describe() -> str:
        if not begun.is_set():
            return "ended before anything was done"
        return (
            "detached: the run goes on where remote jobs run; "
            f"resume with: xbvault runs resume {run_id}"
        )

    unsubscribe = call.backend.subscribe(listen)
    try:
        with aftermath.after(call, run_id, is_told=is_told), detachable(describe):
            return act()
    except OrchestratorError as error:
        with contextlib.suppress(OrchestratorError):
            _tell_way_on(call, error, call.backend.read_run(call.load_config(), run_id))
        raise
    finally:
        unsubscribe()
        shown.close()


def report(call: Call, record: RunRecord, wanted: str) -> None:
    """Print how a run ended.

    Args:
        call: The call.
        record: The run's record.
        wanted: The status that means success of this command.

    Raises:
        OrchestratorError: The run ended otherwise.
    """
    document = summary.build_document(record)
    if record.status != wanted:
        call.document.update(document)
        if not call.as_json:
            print_findings(record)
        raise read_error(record)
    if call.as_json:
        output.print_document(document)
    else:
        print_findings(record)
        click.echo(describe_end(record))


def read_error(record: RunRecord) -> OrchestratorError:
    """Return why a run is not where it should be, as the error that it recorded."""
    if record.error:
        return errors.from_json(record.error)
    if record.status == "cancelled":
        return errors.CancelledError(f"run {record.run_id} was cancelled")
    return errors.InterruptedWorkError(
        f"run {record.run_id} is {record.status}",
        hint=f"xbvault runs resume {record.run_id}",
    )


def list_steps(playbook: Playbook, flow: str = "run") -> list[view.StepView]:
    """Return the steps of a playbook and of its clean-up, as lines of a view."""
    return [view.StepView(step.use, flow) for step in playbook.steps] + [
        view.StepView(step.use, "cleanup") for step in playbook.cleanup
    ]


def list_done_steps(call: Call, record: RunRecord) -> list[view.StepView]:
    """Return the steps of a run as they stand, as lines of a view."""
    found: dict[tuple[str, str], view.StepView] = {}
    ordered = sorted(record.steps, key=lambda step: step.index)
    parts = [(step, part.kind) for part in record.parts for step in part.steps]
    for step, flow in [*((step, "run") for step in ordered), *parts]:
        is_done = step.status == "succeeded"
        found[step.name, flow] = view.StepView(
            step.name,
            flow,
            status="succeeded" if is_done else "pending",
            seconds=step.seconds if is_done else 0.0,
        )
    # a clean-up that has not begun stands in the playbook alone
    with contextlib.suppress(ConfigError):
        for line in list_steps(call.backend.parse_playbook(record.playbook_text)):
            found.setdefault((line.name, line.flow), line)
    return list(found.values())


def describe_end(record: RunRecord) -> str:
    """Return the last line of a report."""
    words = [f"{record.status}: {record.run_id}"]
    total = summary.read_seconds(record)["total"]
    if record.status == "succeeded":
        words.append(f"{record.plan.donor} → {record.plan.recipient}")
        if isinstance(record.plan, StoringPlan):
            words.append(f"backup set {record.plan.backup_id}")
        words.append(f"{output.format_seconds(total)} in steps")
    return ", ".join(words)


def print_findings(record: RunRecord) -> None:
    """Print the table of checks, the facts of replication, and how the stream went, on stdout."""
    document = summary.build_document(record)
    checks = summary.collect_checks(record.steps)
    if checks:
        click.echo(output.format_checks(checks))
    is_drill = isinstance(record.plan, AnyDrill)
    replication = None if is_drill else document.get("replication")
    facts = {**(document["coordinates"] or {}), **(replication or {})}
    if facts:
        click.echo("")
        rows = [(name, _show(value)) for name, value in facts.items() if value not in ("", None)]
        wires = "replication" in document and not is_drill
        title = "replication" if wires else "coordinates"
        click.echo(output.format_table((title, ""), rows))
    transfer = document["transfer"]
    if transfer:
        click.echo("")
        click.echo(output.format_transfer(transfer))
    if is_drill:
        click.echo("")
        click.echo("\n".join(_format_drill(document)))
    if checks or facts or transfer or is_drill:
        click.echo("")


def _format_drill(document: dict[str, Any]) -> Iterator[str]:
    """Yield verdict, recovery time and point, and where the report is with its sums."""
    if document["verdict"]:
        yield f"verdict: {document['verdict']}"
    answers = document["recovery_time"]["answers_sql_seconds"]
    if answers is not None:
        took = [
            f"{phase['name']} {output.format_seconds(phase['seconds'])}"
            for phase in document["phases"]
            if phase["began_at"]
        ]
        yield f"recovery time: {output.format_seconds(answers)} until it answered SQL"
        yield f"phases: {', '.join(took)}"
    point = document["recovery_point"]
    if point and point["reached"]:
        more = "" if point["transactions"] is None else f", {point['transactions']} transactions"
        behind = output.format_seconds(point["seconds"])
        yield f"recovery point: {behind} behind {point['host']}{more}"
    elif point:
        yield f"recovery point: {point['reason']}"
    tables = document["tables_compared"]
    if tables:
        equal = f"{tables['compared']} of {tables['recorded']} equal to the sums in the manifest"
        yield f"tables: {tables['reason'] or equal}"
    watched = document["replication"]
    if watched:
        yield (
            f"replication: from {watched['source']} for "
            f"{output.format_seconds(watched['seconds'])}, {watched['began_at_position']} to "
            f"{watched['reached_position']}"
        )
    if document["report"]:
        yield f"report: {document['report']['directory']}"
        for name, digest in document["report"]["files"].items():
            yield f"  {digest}  {name}"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def _tell_way_on(call: Call, error: OrchestratorError, record: RunRecord) -> None:
    """Add to a failure how far the run came, and how it goes on."""
    call.document.update(summary.build_document(record))
    if not error.hint and record.status in ("failed", "interrupted", "cleaning"):
        error.hint = f"`xbvault runs resume {record.run_id}` goes on from here"


@contextlib.contextmanager
def detachable(describe: Callable[[], str]) -> Iterator[None]:
    """Let SIGINT and SIGTERM leave runs as they are, to be resumed.

    The engine's thread cannot be interrupted, and an ordinary exit would wait for it to the end
    of the run: so the process ends at once. What is under way on the hosts goes on there.

    Args:
        describe: Returns what is said at the end.
    """

    def detach(_number: int, _frame: Any) -> NoReturn:
        text = describe()
        # written past rich and click, whose locks the interrupted thread may hold
        restore = _SHOW_CURSOR if sys.stderr.isatty() else ""
        with contextlib.suppress(OSError):
            os.write(2, f"{restore}\n{text}\n".encode())
        os._exit(DETACHED)

    before = {number: signal.signal(number, detach) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
