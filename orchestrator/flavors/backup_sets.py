"""What every backup tool of this family writes into a set, and at its end. Pure."""

from __future__ import annotations

from orchestrator import numerals
from orchestrator.errors import VerificationError

RECEIVED_TYPE = "full-backuped"
PREPARED_TYPES = ("log-applied", "full-prepared")
"""What a prepared set calls itself: the first is what MariaDB 10.11 was seen to write."""
OPTIONS = "backup-my.cnf"
"""The server's options that prepare needs."""

_COMPLETED = "completed OK!"


def is_completed(stderr: str) -> bool:
    """Return whether the tool's last line says that it completed."""
    lines = [line for line in stderr.split("\n") if line.strip()]
    return bool(lines) and lines[-1].rstrip().endswith(_COMPLETED)


def parse_checkpoints(text: str) -> dict[str, str]:
    """Return the ``key = value`` lines of a ``…_checkpoints`` or ``…_info`` file.

    Raises:
        VerificationError: It was cut, holds bytes that the tool does not write, or says two things.
    """
    if text and not text.endswith("\n"):
        raise VerificationError(f"it does not end with a line: {text[-80:]!r}")
    if "\0" in text or "\ufffd" in text:
        raise VerificationError("it holds bytes that the tool does not write")
    values: dict[str, str] = {}
    for line in text.split("\n"):
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals and values.setdefault(key, value) != value:
            raise VerificationError(f"it says two things of {key[:80]!r}")
    return values


def parse_lsn(values: dict[str, str], name: str) -> int:
    """Return a log sequence number of a set's checkpoints.

    Raises:
        VerificationError: It is not there, or is none.
    """
    return numerals.parse_whole(values.get(name, ""))
