"""Commands as messages and the log show them: short, and without what looks like a secret."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from orchestrator import log
from orchestrator.errors import CommandError
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.remote.interface import Result

_TAIL_LINES = 40
_TAIL_CHARACTERS = 4000
_SHOWN_ARGUMENTS = 3
_SHOWN_CHARACTERS = 120
DISK_FULL_HINT = "free space on that filesystem, then `xbvault runs resume`"
_DISK_FULL = re.compile(r"No space left|rrcode: 28|ERROR (1114|1021) \(HY000\)")
"""The kernel's words, its number in a server's, and the server's own for a full table and a full disk."""
_TELLING = re.compile(
    r"\berror\b|\bfatal\b|failed|unable|invalid|no space|denied|refused", re.IGNORECASE
)


def as_bytes(content: str | bytes | Secret) -> bytes:
    """Return what is sent to a host, as bytes."""
    if isinstance(content, Secret):
        content = content.reveal()
    return content.encode() if isinstance(content, str) else content


def show_command(argv: Sequence[str]) -> str:
    """Return a command short enough for a message: the program and its first arguments."""
    argv = _cut_environment(argv)
    words = []
    for argument in argv[:_SHOWN_ARGUMENTS]:
        first, _, rest = argument.strip().partition("\n")
        cut = rest or len(first) > _SHOWN_CHARACTERS
        words.append(shlex.quote(f"{first[:_SHOWN_CHARACTERS]}…" if cut else first))
    more = " …" if len(argv) > _SHOWN_ARGUMENTS else ""
    return log.redact_text(" ".join(words) + more)


def _cut_environment(argv: Sequence[str]) -> Sequence[str]:
    """Return a command without the ``env NAME=VALUE`` that stands before its program."""
    if argv[0] != "env":
        return argv
    is_setting = [*("=" in word for word in argv[1:]), False]
    return argv[1 + is_setting.index(False) :]


def cut_tail(stderr: str) -> str:
    """Return the last lines of what a command complained about."""
    tail = "\n".join(stderr.strip().splitlines()[-_TAIL_LINES:])[-_TAIL_CHARACTERS:]
    return log.redact_text(tail)


def make_command_error(argv: Sequence[str], result: Result, host: str) -> CommandError:
    """Return the error for a command that ended with another exit status than 0."""
    tail = cut_tail(result.stderr)
    message = f"{show_command(argv)} on {host} ended with status {result.status}"
    line = pick_line(tail)
    return CommandError(
        f"{message}: {line}" if line else message,
        host=host,
        hint=DISK_FULL_HINT if is_disk_full(tail) else "",
        status=result.status,
        stderr=tail,
    )


def pick_line(stderr: str) -> str:
    """Return the line that tells most of what a command complained about: an error, or the last."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return (telling or lines[-1:] or [""])[0]


def is_disk_full(stderr: str) -> bool:
    """Whether a command complained that a filesystem is full."""
    return _DISK_FULL.search(stderr) is not None
