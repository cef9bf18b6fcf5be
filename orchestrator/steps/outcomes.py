"""How the tools that remote jobs run have ended, in words."""

from __future__ import annotations

import re

from orchestrator.jobs import SIGNALLED
from orchestrator.remote import is_disk_full, pick_line

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
