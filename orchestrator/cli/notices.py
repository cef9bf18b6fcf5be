"""``xbvault notices test``."""

from __future__ import annotations

import click

from orchestrator.cli import output
from orchestrator.cli.call import Call, json_option, pass_call
from orchestrator.errors import RemoteError


@click.group()
def notices() -> None:
    """Try the notices of how runs end."""


@notices.command()
@json_option
@pass_call
def test(call: Call) -> None:
    """Send a notice to everybody who is told how runs end."""
    from orchestrator import notices as sender  # noqa: PLC0415 - late, for the start-up

    config = call.load_config()
    call.document = {"sent": 0, "failed": []}
    sent = call.backend.send_notice(config, sender.build_test())
    call.document = {"sent": sent.count, "failed": list(sent.failed)}
    if sent.failed:
        raise RemoteError(
            f"the notice went to {sent.count}, and not to {len(sent.failed)}",
            hint="see to these URLs in the file, with the `apprise` command",
            problems=sent.failed,
        )
    if call.as_json:
        output.print_document({"status": "sent", **call.document, "error": None})
    else:
        click.echo(f"sent to {sent.count}")
