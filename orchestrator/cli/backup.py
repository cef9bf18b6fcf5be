"""``xbvault backup``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator import summary
from orchestrator.cli import output
from orchestrator.cli.call import Call, json_option, pass_call, verbose_option, yes_option
from orchestrator.cli.options import plan_option, stream_options
from orchestrator.cli.planned import carry_out

if TYPE_CHECKING:
    from orchestrator.models import BackupPlan

PLAYBOOK = "backup"


@click.command()
@click.argument("host")
@click.option(
    "--to",
    "repository",
    metavar="REPOSITORY",
    default="",
    help="Where to store it; needed where several repositories are configured.",
)
@click.option(
    "--incremental",
    is_flag=True,
    help="Store what has changed since the newest backup there alone; MariaDB only.",
)
@click.option(
    "--base",
    metavar="BACKUP",
    default="",
    help="Build on this backup instead; incremental as well.",
)
@plan_option
@click.option(
    "--checksums",
    type=click.Choice(["all", "sample", "none"]),
    help="InnoDB tables summed up for a drill to compare; else clone.backup_checksums.",
)
@stream_options
@json_option
@verbose_option
@yes_option
@pass_call
def backup(
    call: Call,
    /,
    host: str,
    *,
    repository: str,
    only_plan: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Store a backup of the server of HOST in a repository.

    It is encrypted on HOST, to a key that stands in Vault alone. An incremental one needs all that it
    builds on to be restored; `restore` finds that by itself.
    """
    config = call.load_config()
    call.document = summary.build_empty_backup_document()
    config.host(host)
    config.find_repository(repository)
    if not only_plan:
        output.require_consent(call, yes=yes)
        call.attempt = f"backup of {host}: did not begin" if yes else ""
        call.backend.prepare_engine()
    playbook = call.backend.load_playbook(PLAYBOOK)
    plan, checks = call.backend.make_backup_plan(config, host, repository, **options)
    carry_out(
        call,
        config,
        playbook,
        (plan, checks),
        only_plan=only_plan,
        yes=yes,
        question=f"Store a backup of {host} in {plan.recipient}?",
        description=_describe(plan),
    )


def _describe(plan: BackupPlan) -> str:
    """Return what a backup will do, for the person who is asked."""
    base = f"{plan.base_backup_id}, what has changed since LSN {plan.from_lsn}"
    return "\n".join(
        (
            f"donor       {plan.donor} ({plan.flavor} {plan.server_version}), only read",
            f"repository  {plan.recipient}, folder {plan.set_dir}",
            *((f"builds on   {base}",) if plan.base_backup_id else ()),
            f"run         {plan.run_id}",
        )
    )
