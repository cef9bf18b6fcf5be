"""Numbers in what hosts and tools write, taken strictly.

``int`` and ``float`` are no parsers for that: they take ``nan``, ``1_0``, spaces and the digits of
every script, and give up with another error at 4,300 digits.
"""

from __future__ import annotations

import re
from typing import Final

from orchestrator.errors import VerificationError

_WHOLE: Final = re.compile(r"[0-9]{1,20}")
_DECIMAL: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?")
_SHOWN: Final = 40


def is_whole(text: str) -> bool:
    """Return whether a text is a whole number that is not negative."""
    return bool(_WHOLE.fullmatch(text))


def parse_whole(text: str) -> int:
    """Return the whole number that a text is.

    Raises:
        VerificationError: It is none, or is negative.
    """
    if not is_whole(text):
        raise VerificationError(f"no whole number: {text[:_SHOWN]!r}")
    return int(text)


def parse_decimal(text: str) -> float:
    """Return the number that a text is, with or without a fraction.

    Raises:
        VerificationError: It is none, or is negative.
    """
    if not _DECIMAL.fullmatch(text):
        raise VerificationError(f"no number: {text[:_SHOWN]!r}")
    return float(text)
