"""``xbvault hosts check | receiver``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from orchestrator import models
from orchestrator.cli import output
from orchestrator.cli.call import Call, json_option, pass_call
from orchestrator.errors import OrchestratorError, PreconditionError, RemoteError, SecretError
from orchestrator.models import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import Config

AT_ONCE = 8
READABLE = "host-readable"
"""Name of the finding that a host can be asked at all."""


@click.group()
def hosts() -> None:
    """Check the hosts of the configuration, or print what they must have installed."""


@hosts.command()
@click.argument("names", metavar="[HOST]...", nargs=-1)
@json_option
@pass_call
def check(call: Call, names: Sequence[str]) -> None:
    """Check that each HOST (all without one) can be reached and has what a clone needs."""
    config = call.load_config()
    wanted = tuple(names) or tuple(sorted(config.hosts))
    for name in wanted:
        config.host(name)
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        answers = list(pool.map(lambda name: _check(call, config, name), wanted))
    checks = [found for answer, _error in answers for found in answer]
    raised = [type(error) for _answer, error in answers if error is not None]
    report_checks(call, checks, raised[0] if raised else _choose_class(checks))


@hosts.command()
@pass_call
def receiver(call: Call) -> None:
    """Print the receiver, the script that takes the stream on a recipient.

    It belongs in /usr/local/sbin/xbvault-receive of every host, owned by root, with mode 0755.
    """
    click.echo(call.backend.read_receiver(), nl=False)


def _choose_class(checks: Sequence[Check]) -> type[OrchestratorError]:
    """Return the class of the worst finding: no way in, then Vault, then the rest."""
    wrong = [found.name for found in checks if not found.ok]
    if READABLE in wrong:
        return RemoteError
    if any(name.startswith("vault-") for name in wrong):
        return SecretError
    return PreconditionError


def report_checks(
    call: Call,
    checks: Sequence[Check],
    kind: type[OrchestratorError],
) -> None:
    """Print findings, and fail when one does not hold.

    Args:
        call: The call.
        checks: The findings.
        kind: The class of the failure, which decides the exit status.

    Raises:
        OrchestratorError: A finding does not hold.
    """
    wrong = [found for found in checks if not found.ok]
    document = {"ok": not wrong, "checks": [models.as_json(found) for found in checks]}
    if not call.as_json:
        click.echo(output.format_checks(checks))
    if wrong:
        call.document = document
        raise kind(
            f"{len(wrong)} of {len(checks)} checks do not hold",
            problems=[output.format_finding(found) for found in wrong],
        )
    if call.as_json:
        output.print_document({**document, "status": "ok"})


def _check(
    call: Call, config: Config, name: str
) -> tuple[Sequence[Check], OrchestratorError | None]:
    try:
        return call.backend.check_host(config, name), None
    except OrchestratorError as error:
        evidence = error.message
        return (
            Check(name=READABLE, ok=False, evidence=evidence, host=name, hint=error.hint),
        ), error
