"""``xbvault drill``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator import models, report, summary
from orchestrator.cli import follow, output, view
from orchestrator.cli.call import Call, json_option, pass_call, verbose_option, yes_option
from orchestrator.cli.options import (
    MOST_REPLICATE_SECONDS,
    parallel_option,
    plan_option,
    throttle_option,
)
from orchestrator.cli.planned import show_plan
from orchestrator.errors import ConfigError, OrchestratorError, PreconditionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.config import Config
    from orchestrator.durable import RunRecord
    from orchestrator.models import AnyDrill

PLAYBOOK, KEEP_PLAYBOOK, UNDO_PLAYBOOK = "drill", "drill-keep", "undo-restore"
REPLICATE_PLAYBOOK = "drill-replicate"
CLONE_PLAYBOOK, CLONE_REPLICATE_PLAYBOOK = "drill-clone", "drill-clone-replicate"
CLONE_UNDO_PLAYBOOK = "undo"
TORN_DOWN = ("succeeded", "cleaning")
"""What a drill can be once its last step has given the host back what it had."""
OF_THE_SET = ("set-complete", "vault-set-keys")
"""Findings of the preflight that say something against the set: the drill finds them itself, so that
its report tells them."""


@click.command()
@click.argument("backup")
@click.argument("host")
@click.option(
    "--from",
    "repository",
    metavar="REPOSITORY",
    default="",
    help="Where it is; else wherever it is.",
)
@click.option(
    "--clone",
    "clones",
    is_flag=True,
    help="Drill a clone instead: BACKUP is the host that is streamed from, and no set is needed.",
)
@click.option(
    "--keep",
    is_flag=True,
    help="Leave the restored server on HOST, isolated; `runs undo` gives the earlier data back.",
)
@click.option(
    "--replicate",
    type=click.IntRange(1, MOST_REPLICATE_SECONDS),
    metavar="SECONDS",
    help="Let the restored server follow the host that BACKUP was made of for so long, then end it.",
)
@click.option(
    "--report",
    "report_dir",
    metavar="DIR",
    default="",
    help="Directory on this machine for the report of this drill alone; else drills/RUN in the "
    "journal's folder.",
)
@plan_option
@parallel_option
@throttle_option
@json_option
@verbose_option
@yes_option
@pass_call
def drill(
    call: Call,
    /,
    backup: str,
    host: str,
    *,
    repository: str,
    clones: bool,
    keep: bool,
    replicate: int | None,
    report_dir: str,
    only_plan: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Prove on the scratch host HOST that the stored backup BACKUP comes back, with a report.

    BACKUP is the name of a set, or `latest`, or `latest:DONOR`. The set is restored there, isolated;
    every table is opened, and wrong keys are tried. Then HOST gets back what it had. With --clone,
    BACKUP is a host, of which a clone is proved.
    """
    config = call.load_config()
    call.document = summary.build_empty_drill_document()
    config.host(host)
    if keep and replicate:
        raise ConfigError(
            "--keep and --replicate do not go together",
            hint="what is kept is what the set had; run one drill for each",
        )
    if clones:
        _check_clone(config, backup, host, keep=keep, repository=repository)
    if repository:
        config.repository(repository)
    if not only_plan:
        output.require_consent(call, yes=yes)
        what = f"a clone of {backup}" if clones else backup
        call.attempt = f"drill of {what} on {host}" if yes else ""
        call.backend.prepare_engine()
    playbook = call.backend.load_playbook(
        _choose_playbook(clones=clones, keep=keep, replicates=bool(replicate))
    )
    options |= {"replicate": replicate, "report_dir": _find_report_dir(report_dir)}
    plan: AnyDrill
    if clones:
        plan, checks = call.backend.make_clone_drill_plan(config, backup, host, **options)
    else:
        plan, checks = call.backend.make_drill_plan(
            config, backup, host, repository, keep=keep, **options
        )
    call.document |= {"run_id": plan.run_id, "backup_id": plan.backup_id}
    if only_plan:
        show_plan(call, config, plan, playbook, checks)
        return
    call.document["checks"] = [models.as_json(check) for check in checks]
    call.backend.raise_for([check for check in checks if check.name not in OF_THE_SET])
    call.document["checks"] = []
    if not yes:
        output.talk(_describe(plan))
        output.confirm(f"Drill {what if clones else plan.backup_id} on {host}?")
    steps = [*follow.list_steps(playbook), view.StepView(summary.REPORT_STEP, "report")]
    record = follow.go(
        call,
        plan.run_id,
        steps,
        lambda: conclude(
            call, config, plan.run_id, lambda: call.backend.begin_run(config, plan, playbook)
        ),
    )
    follow.report(call, record, "succeeded")


def conclude(call: Call, config: Config, run_id: str, act: Callable[[], RunRecord]) -> RunRecord:
    """Do what goes on with a drill, and write its report, however it ended.

    Where something was found against the set, no retry mends it: the host gets back what it had at
    once. Any other failure leaves the run as it is, to be resumed or cancelled.

    Args:
        call: The call.
        config: The configuration.
        run_id: The drill.
        act: Does it; returns the run's record at the end.

    Raises:
        OrchestratorError: As `act` does, or the report could not be written.
    """
    try:
        act()
    except OrchestratorError as error:
        with contextlib.suppress(OrchestratorError):
            _conclude_failed(call, config, run_id, error)
        raise
    return call.backend.write_drill_report(config, run_id)


def refuse_ended(record: RunRecord) -> None:
    """Refuse to undo or forget a drill that has ended with its tear-down.

    Any other is refused as every run of its status, which says what there is to be done.

    Args:
        record: Any run.

    Raises:
        PreconditionError: It is such a drill.
    """
    plan = record.plan
    if isinstance(plan, models.AnyDrill) and not plan.keep and record.status in TORN_DOWN:
        raise PreconditionError(
            f"run {record.run_id} is a drill, which has given {plan.recipient} back what it had",
            host=plan.recipient,
            hint="nothing of it is left to be undone or forgotten",
        )


def _conclude_failed(call: Call, config: Config, run_id: str, error: OrchestratorError) -> None:
    record = call.backend.read_run(config, run_id)
    host = record.plan.recipient
    if record.status == "failed" and summary.is_verdict(error.as_json()) and not _is_kept(record):
        of_clone = isinstance(record.plan, models.CloneDrillPlan)
        undo = call.backend.load_playbook(CLONE_UNDO_PLAYBOOK if of_clone else UNDO_PLAYBOOK)
        try:
            record = call.backend.cancel_run(config, run_id, undo)
        except OrchestratorError as second:
            error.hint = (
                f"{host} does not have back what it had ({second.message}): "
                f"`xbvault runs cancel {run_id}`"
            )
        else:
            what = "a clone as it is made now" if of_clone else "this set"
            error.hint = f"do not rely on {what}; {host} has back what it had"
    if record.status in ("failed", "cancelled"):
        written = summary.find_report(call.backend.write_drill_report(config, run_id))
        if written and not call.as_json:
            output.talk(f"report: {written['directory']}")


def _is_kept(record: RunRecord) -> bool:
    return isinstance(record.plan, models.DrillPlan) and record.plan.keep


def _check_clone(config: Config, donor: str, host: str, *, keep: bool, repository: str) -> None:
    """Refuse what means nothing for the drill of a clone.

    Raises:
        ConfigError: Always then, or where a host is not in the configuration.
    """
    if keep or repository:
        raise ConfigError(
            f"--clone and {'--keep' if keep else '--from'} do not go together",
            hint=f"`xbvault clone {donor} {host}` makes a replica that stays"
            if keep
            else "a clone comes from its donor, and from no repository",
        )
    config.check_roles(donor, host, None)


def _choose_playbook(*, clones: bool, keep: bool, replicates: bool) -> str:
    if clones:
        return CLONE_REPLICATE_PLAYBOOK if replicates else CLONE_PLAYBOOK
    return KEEP_PLAYBOOK if keep else REPLICATE_PLAYBOOK if replicates else PLAYBOOK


def _find_report_dir(given: str) -> str:
    """Return where the report is to go; empty for the journal's folder.

    Raises:
        ConfigError: It is no directory that can be made, or a report is filed there.
    """
    if not given:
        return ""
    path = Path(given).absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        filed = _read_filed(path / report.JSON)
    except OSError as error:
        raise ConfigError(
            f"--report {given!r}: {error.strerror}", hint="name a directory that can be written to"
        ) from error
    if filed is not None:
        raise ConfigError(
            f"--report {given!r}: the report of {filed or 'something else'} is filed there",
            hint="name another directory on this machine, or leave --report out",
        )
    return str(path)


def _read_filed(path: Path) -> str | None:
    """Return which drill a report is of that is filed already; None if there is none."""
    return report.read_run_id(path.read_bytes()) if path.exists() else None


def _describe(plan: AnyDrill) -> str:
    """Return what a drill will do to the host, for the person who is asked."""
    lines = [
        f"backup set  {plan.backup_id} of {plan.set_host}, as of {plan.ended_at}, in {plan.donor}"
        if isinstance(plan, models.DrillPlan)
        else f"clone       of {plan.donor} ({plan.flavor} {plan.server_version}), only read",
        f"scratch     {plan.recipient}, datadir {plan.datadir}",
        f"            what is there is set aside as {plan.old_datadir}, and its server is stopped",
        "afterwards  the restored server stays, isolated; `xbvault runs undo` gives the data back"
        if plan.keep
        else "afterwards  the host gets back what it had",
        *(
            [f"replicates  {plan.replicate_seconds} s from {plan.set_host}, and no longer"]
            if plan.replicate_seconds
            else []
        ),
        f"report      {plan.report_dir}",
        f"run         {plan.run_id}",
    ]
    return "\n".join(lines)
