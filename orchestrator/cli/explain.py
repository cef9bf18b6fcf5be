"""``xbvault explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator import explanations, models
from orchestrator.cli import output
from orchestrator.cli.call import Call, json_option, pass_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.explanations import Explanation


@click.command()
@click.argument("code", required=False)
@json_option
@pass_call
def explain(call: Call, *, code: str | None) -> None:
    """Explain an error by its class or exit status; without CODE, list them all."""
    found = explanations.explain(code) if code else explanations.list_explanations()
    if call.as_json:
        output.print_document({"explanations": [models.as_json(e) for e in found]})
    else:
        click.echo("\n\n".join("\n".join(_format(e)) for e in found))


def _format(explanation: Explanation) -> Iterator[str]:
    yield f"{explanation.name} (exit status {explanation.exit_status})"
    yield f"  what happened  {explanation.happened}"
    yield f"  what was kept  {explanation.kept}"
    yield f"  what to do     {explanation.to_do}"
