"""The binary logs of a server, as it tells of them. Nothing here changes anything."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from orchestrator import sql
from orchestrator.errors import CommandError, PreconditionError, VerificationError

if TYPE_CHECKING:
    from orchestrator.config import HostConfig
    from orchestrator.remote import Remote
    from orchestrator.sql import Row

NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.[0-9]{6,10}")
"""Of a binary log; what else a server may call one is not archived."""
_ENCRYPTED_HEADER_BYTES: Final = 512
"""Before an encrypted log of MySQL; a replica does not get it. MariaDB's size is that of the log."""
_STATES: Final = ("gtid_list", "previous_gtids")
_FIRST_EVENTS: Final = 6
_NEXT: Final = re.compile(r"GTID_NEXT\s*=\s*'([^':]+:[^']+)'")
"""In an event of MySQL that begins a transaction; one without a GTID says ANONYMOUS."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binlog:
    """A binary log of a server.

    Attributes:
        name: The server's name for it.
        bytes: Its size as a replica gets it.
    """

    name: str
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binlogs:
    """The binary logs that a server has.

    Attributes:
        logs: The oldest first; the last one is being written.
        moment: The server's clock before they were listed, in seconds since 1970.
    """

    logs: tuple[Binlog, ...]
    moment: int

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, the oldest first."""
        return tuple(log.name for log in self.logs)


def read_binlogs(remote: Remote, host: HostConfig) -> Binlogs:
    """Ask a server for its binary logs.

    Raises:
        PreconditionError: It writes none, or calls them as nobody would.
        CommandError: The server refuses.
    """
    asked = {"clock": "SELECT UNIX_TIMESTAMP() AS moment", "logs": "SHOW BINARY LOGS"}
    try:
        told = sql.query_all(remote, host, asked)
    except CommandError as error:
        if "1381" not in error.stderr:  # ER_NO_BINARY_LOGGING
            raise
        raise PreconditionError(
            f"{remote.name} writes no binary log",
            host=remote.name,
            hint="set log_bin there and restart its server; only from then on can a moment be "
            "restored",
        ) from error
    logs = tuple(_read_log(row) for row in told["logs"])
    strange = [log.name for log in logs if not NAME.fullmatch(log.name)]
    if strange or not logs:
        raise PreconditionError(
            f"binary log {strange[0][:80]!r} has a name that is not archived"
            if strange
            else f"{remote.name} lists no binary log",
            host=remote.name,
            hint="give log_bin a name of letters, digits, dots, hyphens and underscores",
        )
    return Binlogs(logs=logs, moment=told["clock"][0].whole("moment"))


def read_state(remote: Remote, host: HostConfig, name: str) -> str:
    """Return the GTID state with which a binary log begins; empty where the server keeps none.

    Args:
        remote: The door to the server's host.
        host: That host.
        name: From `read_binlogs`.

    Raises:
        VerificationError: This is no name of a binary log.
        CommandError: The server refuses.
    """
    if not NAME.fullmatch(name):
        raise VerificationError(f"no name of a binary log: {name[:80]!r}")
    rows = sql.query(remote, host, f"SHOW BINLOG EVENTS IN '{name}' LIMIT {_FIRST_EVENTS}")
    told = [row["Info"] for row in rows if row["Event_type"].lower() in _STATES]
    return re.sub(r"\s", "", told[0]).strip("[]") if told else ""


def read_position_gtid(remote: Remote, host: HostConfig, file: str, position: int) -> str | None:
    """Return the GTID state at a position of a binary log; None where the server has no such place.

    Args:
        remote: The door to the server's host; of MariaDB.
        host: That host.
        file: Name of the log.
        position: In bytes; None is returned for one inside of an event.

    Raises:
        VerificationError: This is no name of a binary log.
        CommandError: The server refuses.
    """
    if not NAME.fullmatch(file):
        raise VerificationError(f"no name of a binary log: {file[:80]!r}")
    row = sql.query_row(remote, host, f"SELECT BINLOG_GTID_POS('{file}', {position}) AS gtid")
    return None if row["gtid"] == "NULL" else row["gtid"]


def read_next_gtid(remote: Remote, host: HostConfig, file: str, position: int) -> str | None:
    """Return the GTID of the transaction that begins at a place of a binary log.

    Args:
        remote: The door to the server's host; of MySQL.
        host: That host.
        file: Name of the log.
        position: In bytes.

    Returns:
        Empty where none begins there, or it has no GTID; None where the server has no such place.

    Raises:
        PreconditionError: It writes no binary log.
        CommandError: It refuses.
    """
    logs = {log.name: log for log in read_binlogs(remote, host).logs}
    if file not in logs or position > logs[file].bytes:
        return None
    statement = f"SHOW BINLOG EVENTS IN '{file}' FROM {position} LIMIT 1"
    try:
        rows = sql.query(remote, host, statement)
    except CommandError as error:
        if "1220" not in error.stderr:  # ER_ERROR_WHEN_EXECUTING_COMMAND: inside of an event
            raise
        return None
    if not rows:
        return ""
    if rows[0].whole("Pos") != position:
        return None
    told = _NEXT.search(rows[0]["Info"])
    return told[1] if told else ""


def close_binlog(remote: Remote, host: HostConfig) -> None:
    """Let the server begin another binary log, which no replica is told of.

    Raises:
        CommandError: The server refuses.
    """
    sql.execute(remote, host, "FLUSH LOCAL BINARY LOGS")


def _read_log(row: Row) -> Binlog:
    size = row.whole("File_size")
    if row.get("Encrypted", "").lower() == "yes" and size >= _ENCRYPTED_HEADER_BYTES:
        size -= _ENCRYPTED_HEADER_BYTES
    return Binlog(name=row["Log_name"], bytes=size)
