"""What every backup tool of this family writes into a set, and at its end. Pure."""

from __future__ import annotations

import re

from orchestrator import numerals
from orchestrator.errors import VerificationError
from orchestrator.flavors.interface import Upstream
from orchestrator.models import Coordinates

RECEIVED_TYPE = "full-backuped"
INCREMENTAL_TYPE = "incremental"
OPTIONS = "backup-my.cnf"
"""The server's options that prepare needs."""

_COMPLETED = "completed OK!"
_FIRST_POSITION = 4
"""Every binary log begins with four bytes that are no event."""
_BINLOG = re.compile(r"[^\\\ufffd]+\.[0-9]{6,10}")


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


def need_coordinates(file: str, position: str, gtid: str) -> Coordinates:
    """Return coordinates from the words of a tool.

    Args:
        file: Name of the binary log file.
        position: Offset in it.
        gtid: Checked already; empty where there is none.

    Raises:
        VerificationError: File or position is none.
    """
    if not (_BINLOG.fullmatch(file) and file.isprintable() and numerals.is_whole(position)):
        raise VerificationError(f"no binary log coordinates: {file[:80]!r} {position[:20]!r}")
    if int(position) < _FIRST_POSITION:
        raise VerificationError(f"{position} is no position in a binary log")
    return Coordinates(file=file, position=int(position), gtid=gtid)


def need_upstreams(text: str, change: re.Pattern[str], *, gtid: str) -> tuple[Upstream, ...]:
    """Return what the statements say that name a donor's own sources, a channel each.

    Args:
        text: The statements, one behind the other, and nothing else.
        change: One of them, with the groups ``by_gtid``, ``file``, ``position`` and ``channel``.
        gtid: What is there already, where GTIDs are used; empty where none is told.

    Raises:
        VerificationError: It is not of this form, was cut, names no source, or goes by GTID and
            does not tell which are there already: a replica would begin from the first one.
    """
    found: list[Upstream] = []
    at = 0
    while named := change.match(text, at):
        if named["by_gtid"] and not gtid:
            raise VerificationError("a source of the donor goes by GTID, and no position is told")
        coordinates = (
            Coordinates(file="", position=0, gtid=gtid)
            if named["by_gtid"]
            else need_coordinates(named["file"], named["position"], "")
        )
        found.append(
            Upstream(
                channel=named["channel"] or "",
                coordinates=coordinates,
                uses_gtid=bool(named["by_gtid"]),
            )
        )
        at = named.end()
    if not found or text[at:].strip():
        raise VerificationError(f"no source of the donor in {text[at:][:80]!r}")
    return tuple(found)
