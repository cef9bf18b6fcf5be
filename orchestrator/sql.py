"""SQL on a host, through the server's own client, with the statement on stdin.

``--binary-mode`` because without it a backslash-bang inside data runs a shell command;
``--batch`` because its output can be taken apart again: one line a row, tabs between columns,
and backslash escapes for tabs, newlines, backslashes and NUL inside values. A NULL shows as the
word ``NULL``: statements that must tell it apart use COALESCE, HEX or JSON.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from orchestrator import flavors, numerals
from orchestrator.errors import VerificationError
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.config import HostConfig
    from orchestrator.remote import Remote

_SHOWN = 80
_END = "xbvault_end"
"""Column of the row that ends an answer."""


class Row(dict[str, str]):
    """One row of an answer: the values by the names of their columns."""

    def __missing__(self, name: str) -> str:
        """Refuse a column that is not there.

        Raises:
            VerificationError: Always.
        """
        raise VerificationError(f"the server's answer has no column {name!r}")

    def whole(self, name: str) -> int:
        """Return a whole number.

        Raises:
            VerificationError: The column is not there, or holds none.
        """
        return numerals.parse_whole(self[name])


_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


def client_command(host: HostConfig, *options: str) -> list[str]:
    """Return the argument list of the client for a host's server."""
    server, flavor = host.server, flavors.of(host)
    environment = flavor.socket_environment if server.socket else ()
    command = [*(("env", *environment) if environment else ()), flavor.programs(host).client]
    if server.defaults_file:
        command.append(f"--defaults-extra-file={server.defaults_file}")  # must be the first
    command += ["--batch", "--binary-mode", "--default-character-set=utf8mb4", *options]
    if server.socket:
        # by name: an option file may say a host, to which the client would connect by TCP
        command += ["--protocol=socket", f"--socket={server.socket}"]
    return command


def binlog_command(host: HostConfig, *, connects: bool) -> tuple[str, ...]:
    """Return the argument list of the reader of binary logs of a host.

    Args:
        host: The host.
        connects: Whether it asks the host's server for them, with the client's account.
    """
    server, flavor = host.server, flavors.of(host)
    program = flavor.programs(host).binlog
    if not connects:
        return (program,)
    environment = flavor.socket_environment if server.socket else ()
    command = [*(("env", *environment) if environment else ()), program]
    if server.defaults_file:
        command.append(f"--defaults-extra-file={server.defaults_file}")  # must be the first
    if server.socket:
        command += ["--protocol=socket", f"--socket={server.socket}"]
    return tuple(command)


def query(
    remote: Remote,
    host: HostConfig,
    statement: str | Secret,
    *,
    timeout_seconds: float = 60.0,
) -> list[Row]:
    """Run one statement and return its rows by column name.

    Raises:
        CommandError: The client failed; its words are in ``stderr``.
        VerificationError: What it wrote is not to be understood.
    """
    result = remote.run(
        client_command(host),
        stdin=Secret.join(statement, ";\n"),
        timeout_seconds=timeout_seconds,
    )
    return parse_batch(result.stdout.decode("utf-8", "replace"))


def query_all(
    remote: Remote,
    host: HostConfig,
    statements: Mapping[str, str],
    *,
    timeout_seconds: float = 60.0,
) -> dict[str, list[Row]]:
    """Run several statements in one session of the client, and return the rows of each by its name.

    A client that only starts and ends costs more than most questions do.

    Raises:
        CommandError: The client failed; it stops at the first error.
        VerificationError: What it wrote is not to be understood.
    """
    mark = secrets.token_hex(16)  # data cannot hold it, and so cannot end an answer
    text = "".join(f"{asked};\nSELECT '{mark}' AS {_END};\n" for asked in statements.values())
    result = remote.run(client_command(host), stdin=text, timeout_seconds=timeout_seconds)
    *answers, rest = result.stdout.decode("utf-8", "replace").split(f"{_END}\n{mark}\n")
    if rest or len(answers) != len(statements):
        raise VerificationError(
            f"the server answered {len(answers)} of {len(statements)} questions", host=remote.name
        )
    return {name: parse_batch(text) for name, text in zip(statements, answers, strict=True)}


def query_row(
    remote: Remote, host: HostConfig, statement: str, *, timeout_seconds: float = 60.0
) -> Row:
    """Run one statement and return the one row of its answer.

    Raises:
        CommandError: The client failed; its words are in ``stderr``.
        VerificationError: It is not one row.
    """
    return take_one(query(remote, host, statement, timeout_seconds=timeout_seconds), remote.name)


def take_one(rows: list[Row], host: str) -> Row:
    """Return the one row of an answer.

    Raises:
        VerificationError: It is not one row.
    """
    if len(rows) != 1:
        raise VerificationError(
            f"the server answered with {len(rows)} rows instead of one", host=host
        )
    return rows[0]


def execute(
    remote: Remote,
    host: HostConfig,
    statements: str | Secret,
    *,
    timeout_seconds: float = 60.0,
) -> None:
    """Run statements for their effect.

    Raises:
        CommandError: The client failed; it stops at the first error.
    """
    remote.run(
        client_command(host),
        stdin=Secret.join(statements, ";\n"),
        timeout_seconds=timeout_seconds,
    )


def parse_batch(text: str) -> list[Row]:
    """Return the rows of one result set in the client's batch format.

    Raises:
        VerificationError: It was cut, or a row has another number of columns than the head.
    """
    if text and not text.endswith("\n"):
        raise VerificationError(f"the client's output was cut: it ends with {text[-_SHOWN:]!r}")
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    if not lines:
        return []
    names = [unescape(name) for name in lines[0].split("\t")]
    rows = [[unescape(value) for value in line.split("\t")] for line in lines[1:]]
    if any(len(row) != len(names) for row in rows):
        raise VerificationError(
            f"a row does not fit the {len(names)} columns {lines[0][:_SHOWN]!r}"
        )
    return [Row(zip(names, row, strict=True)) for row in rows]


def unescape(value: str) -> str:
    """Return a value of the batch format as it is in the table."""
    if "\\" not in value:
        return value
    return _ESCAPE.sub(lambda found: _ESCAPES.get(found.group(1), found.group(0)), value)
