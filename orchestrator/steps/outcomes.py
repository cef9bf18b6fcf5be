"""How the tools that remote jobs run have ended, in words."""

from __future__ import annotations

import re

SIGNALLED = range(129, 193)
"""Exit statuses by which a shell tells the end by a signal."""
_TELLING = re.compile(r"error|fail|invalid|no space|denied|refused", re.IGNORECASE)
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
    lines = [line.strip() for line in words.splitlines() if line.strip()][-_LAST_LINES:]
    telling = [line for line in lines if _TELLING.search(line)] or lines[-1:]
    said = f"; {telling[0][:_MOST_CHARACTERS]}" if telling else ""
    return f"ended with status {status}{said}"


def is_disk_full(words: str) -> bool:
    """Whether a tool's words say that a filesystem is full."""
    return "No space left" in words or "rrcode: 28" in words
