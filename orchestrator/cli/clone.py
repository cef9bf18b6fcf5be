"""``xbvault clone``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from orchestrator import models, summary, wire
from orchestrator.cli import follow, groups, output
from orchestrator.cli.call import Call, json_option, pass_call, verbose_option, yes_option
from orchestrator.cli.playbook import describe_steps
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from orchestrator.config import Config
    from orchestrator.models import Check, Plan
    from orchestrator.playbook import Playbook

PLAYBOOK = "clone"


def _check(parse: Callable[[str], Any]) -> Callable[..., str | None]:
    """Return click's callback that refuses a value which a parser does not take."""

    def check(
        _context: click.Context, _parameter: click.Parameter, value: str | None
    ) -> str | None:
        try:
            if value is not None:
                parse(value)
        except ValueError as error:
            raise click.BadParameter(f"{error}, is {value!r}") from error
        return value

    return check


@click.command()
@click.argument("donor")
@click.argument("recipients", metavar="RECIPIENT...", nargs=-1, required=True)
@click.option("--plan", "only_plan", is_flag=True, help="Show what would happen, and end.")
@click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Copy threads of the backup tool; else clone.parallel of the configuration.",
)
@click.option(
    "--replace", is_flag=True, help="Set aside whatever datadir the recipient has, for `runs undo`."
)
@click.option(
    "--require-encryption", is_flag=True, help="Refuse a donor that is not encrypted at rest."
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
@click.option(
    "--throttle",
    metavar="RATE",
    callback=_check(wire.parse_rate),
    help="Most bytes per second of the stream, such as 50M (K, M, G), or none; else clone.throttle.",
)
@click.option(
    "--nice/--no-nice",
    default=None,
    help="Let the donor's server come before its backup tool (nice, ionice); else clone.nice.",
)
@click.option(
    "--relay/--no-relay",
    default=None,
    help="Where DONOR does not reach the recipient, stream through this machine; else clone.relay.",
)
@click.option(
    "--compress",
    metavar="auto|none|zstd[:LEVEL]",
    callback=_check(wire.parse_compression),
    help="Compress the stream; auto does so where it makes it faster. Else clone.compress.",
)
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
        call.backend.prepare_engine()
    playbook = call.backend.load_playbook(PLAYBOOK)
    if len(recipients) > 1:
        _clone_group(
            call, config, playbook, donor, recipients, only_plan=only_plan, yes=yes, **options
        )
        return
    (recipient,) = recipients
    plan, checks = call.backend.make_plan(config, donor, recipient, **options)
    call.document |= {"run_id": plan.run_id, "backup_id": plan.backup_id}
    if only_plan:
        _show_plan(call, config, plan, playbook, checks)
        return
    call.document["checks"] = [models.as_json(check) for check in checks]
    call.backend.raise_for(checks)
    if not yes:
        output.talk(describe_change(plan))
        output.confirm(f"Clone {donor} to {recipient}?")
    record = follow.go(
        call,
        plan.run_id,
        follow.list_steps(playbook),
        lambda: call.backend.begin_run(config, plan, playbook),
    )
    follow.report(call, record, "succeeded")


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


def _show_plan(
    call: Call, config: Config, plan: Plan, playbook: Playbook, checks: Sequence[Check]
) -> None:
    """Print the plan and the findings of the preflight.

    Raises:
        OrchestratorError: A precondition does not hold.
    """
    paths = summary.list_vault_paths(config, plan)
    steps = describe_steps(call, playbook.steps)
    document = summary.build_plan_document(plan, paths, steps, checks)
    if not call.as_json:
        click.echo("\n".join(format_plan(document)))
        click.echo("")
        click.echo(output.format_checks(checks))
    call.document = {**document, "status": "failed"}
    call.backend.raise_for(checks)
    if call.as_json:
        output.print_document(document)


def format_plan(document: dict[str, Any]) -> Iterator[str]:
    """Return the plan for a reader: facts first, then the steps with their commands."""
    facts = [(k, v) for k, v in document["plan"].items() if k != "commands"]
    yield output.format_table(("plan", ""), [(name, _show(value)) for name, value in facts])
    yield ""
    yield output.format_table(("vault path", ""), list(document["vault_paths"].items()))
    yield ""
    total = len(document["steps"])
    indent = " " * (len(str(total)) * 2 + 4)
    for number, step in enumerate(document["steps"], 1):
        yield f"[{number:{len(str(total))}}/{total}] {step['name']} ({step['role']}): {step['summary']}"
        yield from (
            textwrap.indent(f"$ {command}", indent, lambda _line: True)
            for command in step["commands"]
        )


def _show(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
