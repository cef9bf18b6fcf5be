"""Parts of the answers that Vault gives."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from orchestrator.errors import SecretError

Answer = dict[str, Any]


def take_part(answer: Answer, name: str) -> dict[str, Any]:
    """Return the part of an answer that is a table of its own.

    Raises:
        SecretError: There is none; it is no answer of Vault.
    """
    part = answer.get(name)
    if not isinstance(part, dict):
        raise SecretError(f"an answer of Vault has no {name!r}", hint="check vault.address")
    return part


def parse_moment(text: str | None) -> datetime | None:
    """Return a moment that Vault gave; an empty one is None."""
    return datetime.fromisoformat(text) if text else None
