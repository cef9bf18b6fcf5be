"""Version numbers in what servers and tools say. Pure."""

from __future__ import annotations

import re

from orchestrator.errors import VerificationError


def read_numbers(version: str) -> tuple[int, ...]:
    """Return the first three numbers of a version text, such as ``(10, 11, 19)``.

    Raises:
        VerificationError: There are none.
    """
    found = re.search(r"(?<![0-9])([0-9]{1,5})\.([0-9]{1,5})\.([0-9]{1,5})(?![0-9])", version)
    if not found:
        raise VerificationError(f"no version number in {version[:80]!r}")
    return tuple(int(part) for part in found.groups())
