"""How the tools that remote jobs run have ended, in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator import log
from orchestrator.errors import CommandError
from orchestrator.flavors import backup_sets
from orchestrator.jobs import SIGNALLED
from orchestrator.remote import is_disk_full, pick_line

if TYPE_CHECKING:
    from orchestrator.jobs import JobState

_VAULT_REFUSES = re.compile(r"error.*(vault|hashicorp)|hashicorp: ", re.IGNORECASE)
_LAST_LINES = 20
_MOST_CHARACTERS = 300


def describe_end(status: int, words: str) -> str:
    """Return how a tool ended, with the line of its last words that tells most.

    Args:
        status: Its exit status, as a shell has it.
        words: What it wrote to stderr.
    """
    if status in SIGNALLED:  # what a killed process said last is its work, not its end
        return f"was killed by signal {status - 128}"
    line = pick_line("\n".join(words.splitlines()[-_LAST_LINES:]))[:_MOST_CHARACTERS]
    return f"ended with status {status}" + (f"; {line}" if line else "")


def find_vault_line(words: str) -> str:
    """Return the first line in which a tool says that it got no keys; empty if there is none."""
    return next((line.strip() for line in words.split("\n") if _VAULT_REFUSES.search(line)), "")


def explain_failure(words: str, *, host: str, otherwise: str) -> str:
    """Return the hint for a tool that failed: what to mend, then to resume.

    Args:
        words: What it wrote to stderr.
        host: Where it ran.
        otherwise: The hint where its words tell nothing.
    """
    if is_disk_full(words):
        return f"free space on {host}'s filesystem, then `xbvault runs resume`"
    return otherwise


def need_success(state: JobState, what: str, host: str) -> None:
    """Raise if a backup tool's job on the recipient did not end well, by its status and its words.

    Args:
        state: The job's.
        what: The tool and what it did, for the message.
        host: Where it ran.

    Raises:
        CommandError: With the tool's last words.
    """
    if state.ended and not any(state.statuses) and backup_sets.is_completed(state.stderr):
        return
    status = next((status for status in state.statuses if status), 0)
    ended = describe_end(status, state.stderr)
    if state.died or not state.ended:
        ended = "was killed, or its host was restarted"
    again = "`xbvault runs resume` tries again; the recipient's data was not touched"
    raise CommandError(
        f"{what} {ended}",
        host=host,
        hint=explain_failure(state.stderr, host=host, otherwise=again),
        status=status,
        stderr=log.redact_text(state.stderr),
    )
