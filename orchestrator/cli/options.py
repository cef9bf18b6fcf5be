"""Options that commands with a stream have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator import wire

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

MOST_REPLICATE_SECONDS = 6 * 86400
"""For which a drilled server follows the live host at most."""


def check_value(parse: Callable[[str], Any]) -> Callable[..., str | None]:
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


plan_option = click.option(
    "--plan", "only_plan", is_flag=True, help="Show what would happen, and end."
)
parallel_option = click.option(
    "--parallel",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Copy threads of the backup tool; else clone.parallel of the configuration.",
)
throttle_option = click.option(
    "--throttle",
    metavar="RATE",
    callback=check_value(wire.parse_rate),
    help="Most bytes per second of the stream, such as 50M (K, M, G), or none; else clone.throttle.",
)
_STREAM = (
    parallel_option,
    click.option(
        "--require-encryption", is_flag=True, help="Refuse a donor that is not encrypted at rest."
    ),
    throttle_option,
    click.option(
        "--nice/--no-nice",
        default=None,
        help="Let the donor's server come before its backup tool (nice, ionice); else clone.nice.",
    ),
    click.option(
        "--relay/--no-relay",
        default=None,
        help="Where DONOR does not reach the recipient, stream through this machine; else clone.relay.",
    ),
    click.option(
        "--compress",
        metavar="auto|none|zstd[:LEVEL]",
        callback=check_value(wire.parse_compression),
        help="Compress the stream; auto does so where it makes it faster. Else clone.compress.",
    ),
)


def stream_options(command: F) -> F:
    """Give a command the options of a stream."""
    for option in reversed(_STREAM):
        command = option(command)
    return command
