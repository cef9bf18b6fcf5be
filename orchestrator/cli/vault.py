"""``xbvault vault init | check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator import models
from orchestrator.cli import output
from orchestrator.cli.backend import ORCHESTRATOR
from orchestrator.cli.call import Call, json_option, pass_call, yes_option
from orchestrator.cli.hosts import report_checks
from orchestrator.errors import SecretError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.vault_setup import Change


@click.group()
def vault() -> None:
    """Make in Vault what clones need, or check that it is there."""


@vault.command()
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be written, and end.")
@click.option(
    "--admin-token-file",
    metavar="FILE",
    default="",
    help="File with an administrator's token; else VAULT_TOKEN, else ~/.vault-token.",
)
@click.option(
    "--issue-token",
    "holder",
    metavar="HOST|orchestrator",
    help="Then issue a periodic token: a host's (written as VAULT_TOKEN=…) or the orchestrator's.",
)
@click.option("--out", metavar="FILE", help="Where --issue-token writes to, with mode 0600.")
@click.option(
    "--print-policy",
    is_flag=True,
    help="Print every policy, database grant and sudo rule, ready to paste, and end; no token.",
)
@click.option("--force", is_flag=True, help="Let --out replace an existing file.")
@json_option
@yes_option
@pass_call
def init(
    call: Call,
    *,
    only_plan: bool,
    admin_token_file: str,
    holder: str | None,
    out: str | None,
    print_policy: bool,
    force: bool,
    yes: bool,
) -> None:
    """Write mounts, policies, token roles and the SSH CA for the hosts of the configuration.

    Shows first what it would write. A second time there is nothing to change. The orchestrator's
    own token cannot do this; it takes an administrator's.
    """
    if bool(holder) != bool(out):
        raise click.UsageError("--issue-token and --out go together")
    config = call.load_config()
    if print_policy:
        _print_privileges(call, call.backend.list_privileges(config))
        return
    if holder and holder != ORCHESTRATOR:
        config.host(holder)
    connection = call.backend.open_admin_vault(config, admin_token_file)
    changes = call.backend.plan_vault_setup(connection, config)
    if not call.as_json:
        click.echo("\n".join(_format_changes(changes)))
    if changes and not only_plan:
        output.require_consent(call, yes=yes)
        if not yes:
            output.confirm("Write this to Vault?")
        call.backend.apply_vault_setup(connection, config, changes)
    issued = holder if out and holder and not only_plan else None
    if out and issued:
        call.backend.issue_token(connection, issued, Path(out), replace=force)
    _report_setup(
        call,
        {
            "status": "unchanged" if not changes else "planned" if only_plan else "changed",
            "changes": [models.as_json(change) for change in changes],
            "issued": {"holder": issued, "file": out} if issued else None,
            # as a list: a key that ends in "token", as the script's path does, would be masked
            "renewal": [
                {"host": name, "path": path, "content": content}
                for name in sorted(config.hosts)
                for path, content in call.backend.render_renewal(
                    config, name, connection.address
                ).items()
            ],
            "error": None,
        },
    )


@vault.command()
@json_option
@pass_call
def check(call: Call) -> None:
    """Check with the orchestrator's own token what clones need of Vault."""
    config = call.load_config()
    checks = call.backend.check_vault_setup(call.backend.open_vault(config), config)
    report_checks(call, checks, SecretError)


def _print_privileges(call: Call, found: Mapping[str, Any]) -> None:
    if call.as_json:
        output.print_document(dict(found))
        return
    for name, text in found["policies"].items():
        click.echo(f"# policy {name}\n{text}")
    click.echo(found["grants"])
    for text in found["sudoers"].values():
        click.echo(text)


def _report_setup(call: Call, document: dict[str, Any]) -> None:
    if call.as_json:
        output.print_document(document)
        return
    if document["status"] == "changed":
        click.echo(f"written: {len(document['changes'])} changes")
    if document["issued"]:
        click.echo(f"new token of {document['issued']['holder']} in {document['issued']['file']}")
    click.echo("\n".join(_format_renewal(document["renewal"])))


def _format_changes(changes: Sequence[Change]) -> Iterator[str]:
    if not changes:
        yield "nothing to change: Vault holds what clones need"
        return
    for change in changes:
        yield f"{change.action} {change.kind} {change.path}"
        yield from (f"    {line}" for line in change.detail.splitlines())


def _format_renewal(renewal: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Return the files of the timer, once for all hosts that take the same."""
    files: dict[str, list[tuple[str, str]]] = {}
    for item in renewal:
        files.setdefault(item["host"], []).append((item["path"], item["content"]))
    hosts: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for host, contents_of_host in files.items():
        hosts.setdefault(tuple(contents_of_host), []).append(host)
    for contents, names in hosts.items():
        yield ""
        yield "The server's key plugin never renews its Vault token; a timer on the host does."
        yield f"On {', '.join(names)}:"
        for path, text in contents:
            yield ""
            yield f"# {path}"
            yield text.rstrip()
        yield ""
        yield f"Then there: chmod 0755 {contents[0][0]}; systemctl daemon-reload"
        yield f"systemctl enable --now {Path(contents[-1][0]).name}"
