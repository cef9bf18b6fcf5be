"""SQL quoting: names, texts and plain literals."""

from __future__ import annotations


def quote_name(name: str) -> str:
    """Return an identifier quoted, whatever is in it."""
    return "`" + name.replace("`", "``") + "`"


def quote_text(text: str) -> str:
    """Return a text expression that means the same under every sql_mode, whatever is in it."""
    return f"CONVERT(X'{text.encode().hex()}' USING utf8mb4)" if text else "''"


def quote_plain(text: str) -> str:
    """Return a quoted literal for statements that take no expression, such as CHANGE MASTER.

    Raises:
        ValueError: The text holds a quote, a backslash or a control character.
    """
    if any(c in "'\"\\" or not c.isprintable() for c in text):
        raise ValueError(f"cannot stand in a plain literal: {text!r}")
    return f"'{text}'"


def quote_definer(definer: str) -> str:
    """Return the ``user@host`` of a view, routine or event as a DEFINER clause names it.

    A role has no host.
    """
    user, sign, host = definer.rpartition("@")
    if not sign:
        return quote_name(definer)
    return f"{quote_name(user)}@{quote_name(host)}" if host else quote_name(user)


def unhex(digits: str) -> str:
    """Return the text that SQL's HEX() of it gave."""
    return bytes.fromhex(digits).decode("utf-8", "replace")
