"""``xbvault playbook list | show | check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import output
from orchestrator.cli.call import Call, json_option, pass_call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.playbook import PlaybookStep


@click.group()
def playbook() -> None:
    """List and show the playbooks, or check one."""


@playbook.command("list")
@json_option
@pass_call
def list_(call: Call) -> None:
    """List the playbooks that come with xbvault."""
    found = call.backend.list_playbooks()
    if call.as_json:
        output.print_document(
            [
                {"name": item.name, "summary": item.summary, "steps": len(item.steps)}
                for item in found
            ]
        )
        return
    rows = [(item.name, str(len(item.steps)), item.summary) for item in found]
    click.echo(output.format_table(("playbook", "steps", "summary"), rows))


@playbook.command()
@click.argument("name_or_file")
@json_option
@pass_call
def show(call: Call, name_or_file: str) -> None:
    """Show a playbook's steps: who they act on, what they do, and what repeating them does."""
    found = call.backend.load_playbook(name_or_file)
    steps = describe_steps(call, found.steps)
    cleanup = describe_steps(call, found.cleanup)
    if call.as_json:
        output.print_document(
            {
                "name": found.name,
                "summary": found.summary,
                "steps": steps,
                "cleanup": cleanup,
                "text": found.text,
            }
        )
        return
    click.echo(f"{found.name}: {found.summary}")
    _print_steps("step", steps)
    if cleanup:
        _print_steps("clean-up step", cleanup)


@playbook.command()
@click.argument("file")
@json_option
@pass_call
def check(call: Call, file: str) -> None:
    """Check the playbook FILE; every problem is listed, and nothing is contacted."""
    found = call.backend.load_playbook(file if "/" in file else f"./{file}")
    if call.as_json:
        output.print_document({"ok": True, "name": found.name, "steps": len(found.steps)})
    else:
        click.echo(f"ok: {found.name}, {len(found.steps)} steps")


def describe_steps(call: Call, steps: Sequence[PlaybookStep]) -> list[dict[str, Any]]:
    """Return the steps of a playbook with what the registry knows of them."""
    described = []
    names = [step.use for step in steps]
    for step in steps:
        info = call.backend.find_step(step.use)
        described.append(
            {
                "name": step.use,
                "role": step.on,
                "summary": info.summary,
                "repeat": info.repeat.value,
                "back_to": info.find_back_to(names),
                "deadline_seconds": info.deadline_seconds,
                "values": step.values,
            }
        )
    return described


def _print_steps(title: str, steps: Sequence[dict[str, Any]]) -> None:
    rows = [
        (str(number), step["name"], step["role"], step["repeat"], step["summary"])
        for number, step in enumerate(steps, 1)
    ]
    click.echo("")
    click.echo(output.format_table(("#", title, "on", "repeat", ""), rows))
