"""Parts of the answers that Vault gives."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from orchestrator.errors import SecretError
from orchestrator.numerals import is_whole

Answer = dict[str, Any]


def take_part(answer: Answer, name: str) -> dict[str, Any]:
    """Return the part of an answer that is a table of its own, and must be there.

    Raises:
        SecretError: There is none; it is no answer of Vault.
    """
    part = answer.get(name)
    if not isinstance(part, dict):
        raise SecretError(f"an answer of Vault has no {name!r}", hint="check vault.address")
    return part


def take_whole(part: Answer, name: str) -> int:
    """Return a whole number of an answer, which may stand in it as text; 0 if it is not there.

    Raises:
        SecretError: It is no number, or a negative one.
    """
    found = part.get(name)
    if found is None or found == "":
        return 0
    if isinstance(found, str) and is_whole(found):
        return int(found)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise _odd(name, found)
    return found


def take_text(part: Answer, name: str) -> str:
    """Return a text of an answer; empty if it is not there.

    Raises:
        SecretError: It is something else.
    """
    found = part.get(name)
    if found is not None and not isinstance(found, str):
        raise _odd(name, found)
    return found or ""


def take_words(part: Answer, name: str) -> tuple[str, ...]:
    """Return a list of texts of an answer; empty if it is not there.

    Raises:
        SecretError: It is something else.
    """
    found = part.get(name)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise _odd(name, found)
    return tuple(found)


def take_table(part: Answer, name: str) -> dict[str, Any]:
    """Return a table inside an answer; empty if it is not there.

    Raises:
        SecretError: It is something else.
    """
    found = part.get(name)
    if found is not None and not isinstance(found, dict):
        raise _odd(name, found)
    return found or {}


def take_moment(part: Answer, name: str) -> datetime | None:
    """Return a moment of an answer; None if it is empty or not there.

    Raises:
        SecretError: It is none.
    """
    return parse_moment(take_text(part, name))


def parse_moment(text: str) -> datetime | None:
    """Return a moment that Vault gave, with its time zone; an empty one is None.

    Raises:
        SecretError: It is none.
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        found.timestamp()
    except (ValueError, OverflowError) as error:
        raise _odd("moment", text) from error
    if found.tzinfo is None:
        raise _odd("moment", text)
    return found


def _odd(name: str, found: object) -> SecretError:
    """Return the error; it does not repeat what was found, which may be a secret."""
    kind = type(found).__name__
    return SecretError(
        f"an answer of Vault has an odd {name!r}, of kind {kind}", hint="check vault.address"
    )
