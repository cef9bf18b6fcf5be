"""What one call of the command line carries from the group to its command."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.config import Config

F = TypeVar("F", bound="Callable[..., Any]")


def _stdin_is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


@dataclasses.dataclass
class Call:
    """One call of the command line.

    Attributes:
        backend: The rooms below.
        config_option: ``--config``.
        as_json: ``--json``: one document on stdout, no talk.
        verbose: ``--verbose``: every event as a line on stderr.
        run_id: The run that the call is about, once known.
        attempt: What has failed if an error ends the call now, where nobody is there to see it;
            empty where somebody is, or a run has begun, which is told of by itself.
        document: With ``--json``: what the document of a failure carries besides the error.
        is_interactive: Tells whether somebody at a terminal can be asked.
    """

    backend: Backend = dataclasses.field(default_factory=Backend)
    config_option: str | None = None
    as_json: bool = False
    verbose: bool = False
    run_id: str = ""
    attempt: str = ""
    document: dict[str, Any] = dataclasses.field(default_factory=dict)
    is_interactive: Callable[[], bool] = _stdin_is_terminal

    def load_config(self) -> Config:
        """Read and check the configuration that ``--config`` or its defaults name."""
        return self.backend.load_config(self.backend.find_config(self.config_option))


pass_call = click.make_pass_decorator(Call)


def _set_json(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback shape
    ctx.ensure_object(Call).as_json = value


def _set_verbose(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback shape
    ctx.ensure_object(Call).verbose = value


def json_option(command: F) -> F:
    """Give a command ``--json``."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_json,
        help="Print one JSON document on stdout, and no talk.",
    )(command)


def verbose_option(command: F) -> F:
    """Give a command ``--verbose``."""
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_set_verbose,
        help="Print every event as a line on stderr.",
    )(command)


def yes_option(command: F) -> F:
    """Give a command ``--yes``."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)
