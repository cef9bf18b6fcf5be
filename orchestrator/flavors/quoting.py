"""Quoting: SQL names, texts and plain literals, and the values of option files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterable

_BARE_OPTION = re.compile(r"[A-Za-z0-9_./:@%+,~-]+")


def quote_name(name: str) -> str:
    """Return an identifier quoted, whatever is in it."""
    return "`" + name.replace("`", "``") + "`"


def quote_text(text: str) -> str:
    """Return a text expression that means the same under every sql_mode, whatever is in it."""
    return f"CONVERT(X'{text.encode().hex()}' USING utf8mb4)" if text else "''"


def quote_plain(text: str) -> str:
    """Return a quoted literal for statements that take no expression, such as CHANGE MASTER.

    Raises:
        VerificationError: The text holds a backslash, whose meaning depends on the sql_mode, a
            character that cannot be printed, or one beyond the basic plane, which the server keeps
            as a question mark.
    """
    if not is_plain(text):
        raise VerificationError(f"cannot stand in a plain literal: {text[:80]!r}")
    return "'" + text.replace("'", "''") + "'"


def is_plain(text: str) -> bool:
    """Return whether `quote_plain` takes a text."""
    return "\\" not in text and text.isprintable() and all(c <= "\uffff" for c in text)


MOST_OPTION_BYTES = 3900
"""The server reads lines of at most 4,096 bytes, and takes the rest for another line."""


def quote_option(value: str) -> str:
    """Return a value as it must stand in an option file, to be read back as it is.

    Raises:
        VerificationError: The value holds a character that cannot be printed, such as a line break,
            or is longer than a line that the server reads as one.
    """
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if not value.isprintable() or len(quoted.encode()) > MOST_OPTION_BYTES:
        raise VerificationError(f"cannot stand in an option file: {value[:80]!r}")
    return value if _BARE_OPTION.fullmatch(value) else quoted


def show_name(name: str) -> str:
    """Return a name for a message: on one line, and without what a terminal would act on."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def describe_names(names: Iterable[str], *, most: int = 5) -> str:
    """Return some names for a message, and how many more there are."""
    listed = [show_name(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def quote_definer(definer: str) -> str:
    """Return the ``user@host`` of a view, routine or event as a DEFINER clause names it.

    A role has no host.
    """
    user, sign, host = definer.rpartition("@")
    if not sign:
        return quote_name(definer)
    return f"{quote_name(user)}@{quote_name(host)}" if host else quote_name(user)


def unhex(digits: str) -> str:
    """Return the text that SQL's HEX() of it gave.

    Raises:
        VerificationError: These are no such digits.
    """
    if not re.fullmatch(r"(?:[0-9A-Fa-f]{2})*", digits):
        raise VerificationError(f"no hexadecimal digits: {digits[:80]!r}")
    return bytes.fromhex(digits).decode("utf-8", "replace")
