"""What the commands have in common that plan one run, show it, ask, and carry it out."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from orchestrator import models, summary
from orchestrator.cli import follow, output
from orchestrator.cli.playbook import describe_steps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.cli.call import Call
    from orchestrator.config import Config
    from orchestrator.models import Check, RunPlan
    from orchestrator.playbook import Playbook


def carry_out(
    call: Call,
    config: Config,
    playbook: Playbook,
    planned: tuple[RunPlan, Sequence[Check]],
    *,
    only_plan: bool,
    yes: bool,
    question: str,
    description: str = "",
) -> None:
    """Show a planned run, or ask and carry it out.

    Args:
        call: The call.
        config: The configuration.
        playbook: What is run.
        planned: The plan, and the findings of the preflight.
        only_plan: Whether that is all that is wanted.
        yes: Whether nobody is to be asked.
        question: For the person who is asked.
        description: What it will do, likewise.

    Raises:
        OrchestratorError: A precondition does not hold, or the run failed.
    """
    plan, checks = planned
    call.document |= {"run_id": plan.run_id, "backup_id": plan.backup_id}
    if only_plan:
        show_plan(call, config, plan, playbook, checks)
        return
    call.document["checks"] = [models.as_json(check) for check in checks]
    call.backend.raise_for(checks)
    if not yes:
        if description:
            output.talk(description)
        output.confirm(question)
    record = follow.go(
        call,
        plan.run_id,
        follow.list_steps(playbook),
        lambda: call.backend.begin_run(config, plan, playbook),
    )
    follow.report(call, record, "succeeded")


def show_plan(
    call: Call, config: Config, plan: RunPlan, playbook: Playbook, checks: Sequence[Check]
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
