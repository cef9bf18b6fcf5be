"""``xbvault restore``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator import summary
from orchestrator.cli import output
from orchestrator.cli.call import Call, json_option, pass_call, verbose_option, yes_option
from orchestrator.cli.options import parallel_option, plan_option, throttle_option
from orchestrator.cli.planned import carry_out

if TYPE_CHECKING:
    from orchestrator.models import RestorePlan
    from orchestrator.repository.binlogs import Target

PLAYBOOK, REPLICA_PLAYBOOK, REPLAY_PLAYBOOK = "restore", "restore-replica", "restore-at"


def check_at(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> Target | None:
    """Return the target that ``--at`` names, as click's callback."""
    from orchestrator.repository import binlogs  # noqa: PLC0415 - late, for the start-up

    try:
        return None if value is None else binlogs.parse_target(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; {value!r} is none") from error


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
    "--as-replica-of",
    "source",
    metavar="SOURCE",
    default="",
    help="Let the restored server replicate from SOURCE, from where the backup was taken.",
)
@plan_option
@click.option(
    "--replace", is_flag=True, help="Set aside whatever datadir HOST has, for `runs undo`."
)
@click.option(
    "--read-only", is_flag=True, help="Leave the restored server read-only, its events not run."
)
@click.option(
    "--at",
    metavar="TIME|GTID|latest",
    callback=check_at,
    help="Replay archived binary logs up to there: a moment such as 2026-01-31T23:59:59Z, a "
    "transaction such as 0-1-42, which is the last one then, or all that is archived.",
)
@click.option(
    "--last-whole",
    is_flag=True,
    help="If what BACKUP builds on is not all there, restore the last backup before it that is whole.",
)
@parallel_option
@throttle_option
@json_option
@verbose_option
@yes_option
@pass_call
def restore(
    call: Call,
    /,
    backup: str,
    host: str,
    *,
    repository: str,
    only_plan: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Bring the stored backup BACKUP back on HOST, under keys of HOST's own.

    BACKUP is the name of a set, or `latest`, or `latest:DONOR` where the repository has sets of
    several hosts. The host that it was made of is not needed.
    """
    if options["at"] and options["source"]:
        raise click.UsageError(
            "--at and --as-replica-of exclude each other: a replica goes on to the newest transaction"
        )
    if options["at"] and options["last_whole"]:
        raise click.UsageError(
            "--at and --last-whole exclude each other: --at replays on a set that is whole anyway"
        )
    config = call.load_config()
    call.document = summary.build_empty_restore_document()
    config.host(host)
    if repository:
        config.repository(repository)
    if not only_plan:
        output.require_consent(call, yes=yes)
        call.attempt = f"restore of {backup} to {host}: did not begin" if yes else ""
        call.backend.prepare_engine()
    playbook = call.backend.load_playbook(_choose_playbook(**options))
    plan, checks = call.backend.make_restore_plan(config, backup, host, repository, **options)
    carry_out(
        call,
        config,
        playbook,
        (plan, checks),
        only_plan=only_plan,
        yes=yes,
        question=f"Restore {plan.backup_id} to {host}?",
        description=_describe(plan),
    )


def _choose_playbook(*, source: str, at: Target | None, **_others: Any) -> str:
    if source:
        return REPLICA_PLAYBOOK
    return REPLAY_PLAYBOOK if at else PLAYBOOK


def _describe(plan: RestorePlan) -> str:
    """Return what a restore will do to the recipient, for the person who is asked."""
    lines = [
        f"backup set  {plan.backup_id} of {plan.set_host}, as of {plan.ended_at}, in {plan.donor}",
        f"recipient   {plan.recipient}, datadir {plan.datadir}",
    ]
    if plan.bases:
        bases = ", ".join(each.backup_id for each in plan.bases)
        lines.insert(1, f"builds on   {bases}")
    if plan.replay:
        lines.append(
            f"up to       {plan.replay.at}: binary logs {plan.replay.first} to {plan.replay.last}, "
            f"of {len(plan.replay.sets)} archives"
        )
    if plan.source:
        lines.append(f"source      {plan.source}, which the recipient will follow")
    if plan.replace:
        lines.append(f"replace     whatever datadir is there is set aside as {plan.old_datadir}")
        lines.append("            nothing of it is deleted; `xbvault runs undo` brings it back")
    else:
        lines.append("replace     no: a recipient with data is refused")
    lines.append(f"run         {plan.run_id}")
    return "\n".join(lines)
