"""Several clones of one donor at once: a process for each run, and one view of them all."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING

import click

from orchestrator import errors, summary
from orchestrator.cli import follow, group_view, output, view
from orchestrator.cli.run_file import RunFile
from orchestrator.errors import OrchestratorError, PartialError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.cli.call import Call
    from orchestrator.config import Config
    from orchestrator.durable import RunRecord
    from orchestrator.models import Plan
    from orchestrator.playbook import Playbook

POLL_SECONDS = 0.2


def begin(
    call: Call, plans: Sequence[Plan], playbook: Playbook, steps: Sequence[view.StepView]
) -> dict[str, str]:
    """Do new runs side by side, see `go`.

    All of them stand in the journal before the first process is started, so that whatever ends this
    one, `find` has them all.
    """
    call.backend.record_runs(call.load_config(), plans, playbook)
    return go(call, plans[0].group, {plan.run_id: plan.recipient for plan in plans}, steps)


def list_unended(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return whom those runs of a group serve that have not succeeded, and can go on."""
    return {
        record.run_id: record.plan.recipient
        for record in records
        if record.status not in ("succeeded", "cancelled", "undone", "forgotten")
    }


def find(call: Call, config: Config, name: str) -> list[RunRecord]:
    """Return the runs of the group of this name, in its order; none if there is no such group."""
    found = {
        record.run_id: record
        for record in call.backend.list_runs(config, limit=1000)
        if record.plan.group == name
    }
    wanted = next(iter(found.values())).plan.group_runs if found else ()
    return [found[run] for run in wanted if run in found]


def go(
    call: Call, group: str, recipients: Mapping[str, str], steps: Sequence[view.StepView]
) -> dict[str, str]:
    """Do the runs side by side, and show them; return the words of those that failed, by run.

    Args:
        call: The call.
        group: Its name.
        recipients: Whom each of its runs serves that are to be done; the journal has them.
        steps: The steps of each, in order.
    """
    call.attempt = ""  # each run's own process tells of its end
    config = call.load_config()
    path = call.backend.find_config(call.config_option)
    shown = group_view.choose_view(recipients, steps, as_json=call.as_json, verbose=call.verbose)
    said: dict[str, str] = {}
    files = {run: RunFile(config, run, last_bytes=0) for run in recipients}
    processes: dict[str, subprocess.Popen[bytes]] = {}
    shown.open()
    try:
        with follow.detachable(lambda: _leave(group, list(processes.values()))):
            for run in recipients:
                processes[run] = call.backend.start_run(path, run)
            left = dict(processes)
            while left:
                ended = [run for run, process in left.items() if process.poll() is not None]
                for run, file in files.items():
                    for event in file.read_events():
                        shown.feed(run, event)
                for run in ended:
                    said[run] = left.pop(run).communicate()[0].decode("utf-8", "replace")
                if left and not ended:
                    time.sleep(POLL_SECONDS)
    finally:
        shown.close()
    return said


def report(call: Call, group: str, recipients: Mapping[str, str], said: Mapping[str, str]) -> None:
    """Print how the runs of a group have ended.

    Args:
        call: The call.
        group: Its name.
        recipients: Whom each of its runs serves, in order.
        said: What the processes of those that failed said.

    Raises:
        PartialError: Some failed, some succeeded.
        OrchestratorError: All failed; the error of the first.
    """
    config = call.load_config()
    records = [record for record in map(_reader(call, config), recipients) if record is not None]
    known = {record.run_id: record for record in records}
    failed = {
        run: _find_error(known.get(run), said.get(run, ""))
        for run in recipients
        if run not in known or known[run].status != "succeeded"
    }
    status = (
        "succeeded" if not failed else "failed" if len(failed) == len(recipients) else "partial"
    )
    document = summary.build_group_document(group, records, status=status)
    if not call.as_json:
        for record in records:
            click.echo(f"== {record.plan.recipient}")
            follow.print_findings(record)
            click.echo(follow.describe_end(record))
            click.echo("")
    if not failed:
        if call.as_json:
            output.print_document(document)
        return
    call.document = document
    if len(failed) == len(recipients):
        raise next(iter(failed.values()))
    names = [recipient for run, recipient in recipients.items() if run in failed]
    raise PartialError(
        f"{len(failed)} of {len(recipients)} recipients failed: {', '.join(names)}",
        hint=f"`xbvault runs resume {group}` goes on with these; the others are done",
        problems=[f"{run}: {error.message}" for run, error in failed.items()],
    )


def _reader(call: Call, config: Config) -> Callable[[str], RunRecord | None]:
    def read(run: str) -> RunRecord | None:
        with contextlib.suppress(errors.ConfigError):  # it never began
            return call.backend.read_run(config, run)
        return None

    return read


def _find_error(record: RunRecord | None, said: str) -> OrchestratorError:
    """Return why a run is not done: as its process said it, or else as the journal has it.

    A process may have ended before its run was in the journal, or because another one holds it.
    """
    with contextlib.suppress(ValueError, TypeError):
        return errors.from_json(json.loads(said))
    if record is not None:
        return follow.read_error(record)
    return OrchestratorError("its process ended without a word", hint="begin a new run")


def _leave(group: str, processes: Sequence[subprocess.Popen[bytes]]) -> str:
    """Tell the processes to leave their runs as they are; return what is to be said."""
    for process in processes:
        with contextlib.suppress(OSError):
            process.terminate()
    return (
        f"detached: the runs go on where remote jobs run; resume with: xbvault runs resume {group}"
    )
