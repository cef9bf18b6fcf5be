"""``xbvault clone``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from orchestrator import models, summary
from orchestrator.cli import follow, groups, output
from orchestrator.cli.call import Call, json_option, pass_call, verbose_option, yes_option
from orchestrator.cli.options import plan_option, stream_options
from orchestrator.cli.planned import carry_out, format_plan
from orchestrator.cli.playbook import describe_steps
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import Config
    from orchestrator.models import Check, Plan
    from orchestrator.playbook import Playbook

PLAYBOOK = "clone"


@click.command()
@click.argument("donor")
@click.argument("recipients", metavar="RECIPIENT...", nargs=-1, required=True)
@plan_option
@click.option(
    "--replace", is_flag=True, help="Set aside whatever datadir the recipient has, for `runs undo`."
)
@click.option(
    "--checksums",
    type=click.Choice(["all", "sample", "none"]),
    help="InnoDB tables compared at the end; else clone.checksums of the configuration.",
)
@click.option(
    "--source",
    metavar="HOST",
    help="Host that the new replica follows: DONOR itself, as without this, or DONOR's own source.",
)
@stream_options
@json_option
@verbose_option
@yes_option
@pass_call
def clone(
    call: Call,
    /,
    donor: str,
    recipients: tuple[str, ...],
    *,
    only_plan: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Clone the server of DONOR to the host RECIPIENT, as a replica under keys of its own.

    With several recipients, the donor is read once.
    """
    config = call.load_config()
    call.document = summary.build_empty_document()
    check_recipients(recipients)
    for recipient in recipients:
        config.check_roles(donor, recipient, options["source"])
    if not only_plan:
        output.require_consent(call, yes=yes)
        names = ", ".join(recipients)
        call.attempt = f"clone of {donor} to {names}: did not begin" if yes else ""
    playbook = call.backend.load_playbook(PLAYBOOK)
    if not only_plan:
        call.backend.prepare_engine()
    if len(recipients) > 1:
        _clone_group(
            call, config, playbook, donor, recipients, only_plan=only_plan, yes=yes, **options
        )
        return
    with contextlib.closing(call.backend):
        _clone_one(
            call, config, playbook, donor, *recipients, only_plan=only_plan, yes=yes, **options
        )


def _clone_one(
    call: Call,
    config: Config,
    playbook: Playbook,
    donor: str,
    recipient: str,
    *,
    only_plan: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Clone to one recipient."""
    plan, checks = call.backend.make_plan(config, donor, recipient, **options)
    carry_out(
        call,
        config,
        playbook,
        (plan, checks),
        only_plan=only_plan,
        yes=yes,
        question=f"Clone {donor} to {recipient}?",
        description=describe_change(plan),
    )


def check_recipients(recipients: Sequence[str]) -> None:
    """See that each recipient is named once.

    Raises:
        ConfigError: One is named again.
    """
    for index, name in enumerate(recipients):
        if name in recipients[:index]:
            raise ConfigError(f"recipient {name!r} is named twice", hint="name each host once")


def _clone_group(
    call: Call,
    config: Config,
    playbook: Playbook,
    donor: str,
    recipients: Sequence[str],
    *,
    only_plan: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Clone one donor to several recipients; see `groups`."""
    planned = call.backend.make_group(config, donor, recipients, **options)
    plans = [plan for plan, _checks in planned]
    call.document = summary.build_group_document(plans[0].group, [])
    found = [check for _plan, checks in planned for check in checks]
    checks = list(dict.fromkeys(found))  # what is true of the donor was found for each of them
    if only_plan:
        _show_group_plan(call, config, plans, playbook, checks)
        return
    call.document["checks"] = [models.as_json(check) for check in checks]
    call.backend.raise_for(checks)
    if not yes:
        output.talk("\n\n".join(map(describe_change, plans)))
        output.confirm(f"Clone {donor} to {', '.join(recipients)}?")
    steps = follow.list_steps(playbook)
    said = groups.begin(call, plans, playbook, steps)
    groups.report(call, plans[0].group, {p.run_id: p.recipient for p in plans}, said)


def _show_group_plan(
    call: Call,
    config: Config,
    plans: Sequence[Plan],
    playbook: Playbook,
    checks: Sequence[Check],
) -> None:
    """Print the plan of each recipient, and the findings of the preflight.

    Raises:
        OrchestratorError: A precondition does not hold.
    """
    steps = describe_steps(call, playbook.steps)
    documents = [
        summary.build_plan_document(plan, summary.list_vault_paths(config, plan), steps, ())
        for plan in plans
    ]
    if not call.as_json:
        for document in documents:
            click.echo(f"== {document['plan']['recipient']}")
            click.echo("\n".join(format_plan(document)))
            click.echo("")
        click.echo(output.format_checks(checks))
    whole = {
        "group": plans[0].group,
        "status": "planned",
        "plans": documents,
        "checks": [models.as_json(check) for check in checks],
        "error": None,
    }
    call.document = {**whole, "status": "failed"}
    call.backend.raise_for(checks)
    if call.as_json:
        output.print_document(whole)


def describe_change(plan: Plan) -> str:
    """Return what a clone will do to the recipient, for the person who is asked."""
    lines = [
        f"donor      {plan.donor} ({plan.flavor} {plan.server_version}), only read",
        f"recipient  {plan.recipient}, datadir {plan.datadir}",
    ]
    if plan.is_sibling:
        lines.append(f"source     {plan.source}, which the recipient will follow as the donor does")
    if plan.replace:
        lines.append(f"replace    whatever datadir is there is set aside as {plan.old_datadir}")
        lines.append("           nothing of it is deleted; `xbvault runs undo` brings it back")
    else:
        lines.append("replace    no: a recipient with data is refused")
    lines.append(f"run        {plan.run_id}")
    return "\n".join(lines)
