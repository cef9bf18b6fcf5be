"""The command group ``xbvault``: global options, and what happens to errors."""

from __future__ import annotations

import gc
import os
import traceback
from typing import Any

import click

from orchestrator.cli import (
    aftermath,
    backup,
    backups,
    binlogs,
    clone,
    config,
    drill,
    explain,
    hosts,
    keys,
    metrics,
    notices,
    output,
    playbook,
    restore,
    runs,
    schedule,
    vault,
)
from orchestrator.cli.call import Call
from orchestrator.errors import OrchestratorError

_MADE_BEFORE_COLLECTING = 50_000
"""Imports make hundreds of thousands of objects that stay: with the default of 700, looking through
them again and again for what can go takes a tenth of the start."""


class App(click.Group):
    """The group that turns errors into words and exit statuses."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named.

        Our own errors end in ``error:``, ``hint:`` and their class's exit status. Anything else is
        a fault of ours, and shows where it happened, with secrets masked.
        """
        call = ctx.ensure_object(Call)
        gc.set_threshold(_MADE_BEFORE_COLLECTING)
        # It would look through all that is installed for plugins, of which none is ours.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        try:
            return super().invoke(ctx)
        except OrchestratorError as error:
            output.fail(call, error)
            aftermath.tell_failure(call, error)
            ctx.exit(error.exit_status)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame: shown, never swallowed
            output.fail_foreign(call, error, traceback.format_exc())
            aftermath.tell_failure(call, error)
            ctx.exit(1)


def _show_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback shape
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415 - only for this option

    from orchestrator import version  # noqa: PLC0415 - only for this option

    try:
        click.echo(f"xbvault {version()}")
    except PackageNotFoundError:
        click.echo("xbvault, run from a source tree that is not installed")
    ctx.exit()


@click.group(cls=App, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_option",
    metavar="FILE",
    help="Configuration; else XBVAULT_CONFIG, ./xbvault.toml, /etc/xbvault/xbvault.toml.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def app(ctx: click.Context, config_option: str | None) -> None:
    """Clone, back up and restore encrypted servers, with the keys in HashiCorp Vault or OpenBao.

    stdout is the answer, stderr the talk. Exit status: 0 done, 1 a fault of ours, 2 configuration,
    3 precondition, 4 host, 5 Vault, 6 verification, 7 a person must judge, 8 journal,
    9 some recipients failed, 130 cancelled or detached.
    """
    ctx.ensure_object(Call).config_option = config_option


app.add_command(clone.clone)
app.add_command(backup.backup)
app.add_command(restore.restore)
app.add_command(drill.drill)
app.add_command(backups.backups)
app.add_command(binlogs.binlogs)
app.add_command(schedule.schedule)
app.add_command(metrics.metrics)
app.add_command(notices.notices)
app.add_command(keys.keys)
app.add_command(runs.runs)
app.add_command(playbook.playbook)
app.add_command(hosts.hosts)
app.add_command(explain.explain)
app.add_command(vault.vault)
app.add_command(config.config)
