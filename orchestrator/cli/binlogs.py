"""``xbvault binlogs archive | list``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator import summary
from orchestrator.cli import output
from orchestrator.cli.backups import join_errors, repository_option
from orchestrator.cli.call import Call, json_option, pass_call, verbose_option, yes_option
from orchestrator.cli.options import plan_option, stream_options
from orchestrator.cli.planned import carry_out
from orchestrator.errors import OrchestratorError, PreconditionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.archives import Archives
    from orchestrator.models import ArchivePlan

PLAYBOOK = "archive"


@click.group()
def binlogs() -> None:
    """Archive binary logs, so that a backup can be restored to a moment or a transaction."""


@binlogs.command()
@click.argument("host")
@click.option(
    "--to",
    "repository",
    metavar="REPOSITORY",
    default="",
    help="Where to store them; needed where several repositories are configured.",
)
@click.option(
    "--new-chain",
    is_flag=True,
    help="Do not go on from the archive before: begin with what HOST still has.",
)
@plan_option
@stream_options
@json_option
@verbose_option
@yes_option
@pass_call
def archive(
    call: Call,
    /,
    host: str,
    *,
    repository: str,
    new_chain: bool,
    only_plan: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Store the binary logs of HOST that are not in the repository yet.

    The newest one is closed for that (FLUSH BINARY LOGS). What was committed before can be restored
    from then on; let it run every few minutes, see `xbvault schedule binlogs`.
    """
    config = call.load_config()
    call.document = summary.build_empty_backup_document()
    config.host(host)
    config.find_repository(repository)
    if not only_plan:
        output.require_consent(call, yes=yes)
        call.attempt = f"archive of binary logs of {host}: did not begin" if yes else ""
        call.backend.prepare_engine()
    playbook = call.backend.load_playbook(PLAYBOOK)
    plan, checks = call.backend.make_archive_plan(
        config, host, repository, new_chain=new_chain, **options
    )
    carry_out(
        call,
        config,
        playbook,
        (plan, checks),
        only_plan=only_plan,
        yes=yes,
        question=f"Archive the binary logs of {host} in {plan.recipient}?",
        description=_describe(plan),
    )


@binlogs.command("list")
@click.argument("host", default="")
@repository_option
@json_option
@pass_call
def list_(call: Call, host: str, repository: str) -> None:
    """List what of HOST's binary logs, or of all hosts', is archived; and what is missing.

    A gap between two archives ends with exit status 3: nothing behind it can be restored from a
    backup that was taken before it.
    """
    failed: list[OrchestratorError] = []
    found = call.backend.list_archives(call.load_config(), host, repository, failed)
    call.document = {"archives": [build_item(each) for each in found]}
    gaps = [gap for each in found for gap in each.gaps]
    if call.as_json and not failed and not gaps:
        output.print_document(call.document["archives"])
        return
    if not call.as_json:
        click.echo(_format(found))
    if failed:
        raise join_errors(failed, f"{len(failed)} repositories could not be read")
    if gaps:
        raise PreconditionError(
            f"binary logs are missing between archives: {gaps[0].shown}",
            hint="take a full backup, if none was taken since",
            problems=[gap.shown for gap in gaps],
        )


def build_item(found: Archives) -> dict[str, Any]:
    """Return what ``binlogs list --json`` says of a host's archives in a repository."""
    first, last = found.archives[0], found.archives[-1]
    return {
        "repository": found.repository,
        "host": found.host,
        "archive_count": len(found.archives),
        "first_log": first.binlogs[0].name,
        "last_log": last.binlogs[-1].name,
        "began_at": first.binlogs[0].began_at,
        "until": last.ended_at,
        "gtid": last.coordinates.gtid if last.coordinates else "",
        "bytes": sum(each.data_bytes for each in found.archives),
        "stored_bytes": sum(each.stored_bytes for each in found.archives),
        "gaps": [{"after": gap.after, "before": gap.before, "log": gap.log} for gap in found.gaps],
    }


def _format(found: Sequence[Archives]) -> str:
    rows = [
        (
            item["host"],
            item["repository"],
            str(item["archive_count"]),
            f"{item['first_log']} to {item['last_log']}",
            item["began_at"],
            item["until"],
            item["gtid"],
            str(len(item["gaps"])),
        )
        for item in map(build_item, found)
    ]
    header = ("host", "repository", "archives", "binary logs", "from", "until", "GTID", "gaps")
    return output.format_table(header, rows) if rows else "no archives of binary logs"


def _describe(plan: ArchivePlan) -> str:
    """Return what an archive will do, for the person who is asked."""
    after = f"goes on from {plan.follows}" if plan.follows else "begins a new chain"
    return "\n".join(
        (
            f"donor       {plan.donor} ({plan.flavor} {plan.server_version}); begins another binary log",
            f"from        {plan.first_log} on, {after}",
            f"repository  {plan.recipient}, folder {plan.set_dir}",
            f"run         {plan.run_id}",
        )
    )
