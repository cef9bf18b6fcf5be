"""The tables of versions as ``docs/reference/compatibility.md`` shows them. Pure.

They are made from the very tables that decide, so that the page says what is done.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from orchestrator.flavors import mysql_keyrings, mysql_versions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.flavors.mysql_keyrings import KeyringKind, Numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Servers that the same tools fit.

    Attributes:
        first: The first of them.
        last: The last of them, or one of those that are not the last.
        shown: How the page calls them.
        tool: A tool that fits all of them.
        refused: A tool that fits none of them; empty where only another series does not fit.
        tools: How the page calls those that fit.
    """

    first: str
    last: str
    shown: str
    tool: str
    refused: str
    tools: str


_SAME: Final = "of the server's series"

SERVERS: Final = (
    Row(
        first="5.7.11",
        last="5.7.31",
        shown="5.7.11 to 5.7.31",
        tool="2.4.20",
        refused="2.4.19",
        tools="2.4, from 2.4.20 on",
    ),
    Row(
        first="5.7.32",
        last="5.7.44",
        shown="5.7.32 and later",
        tool="2.4.21",
        refused="2.4.20",
        tools="2.4, from 2.4.21 on",
    ),
    Row(
        first="8.0.11",
        last="8.0.33",
        shown="8.0.11 to 8.0.33",
        tool="8.0.33-28",
        refused="8.0.14",
        tools="8.0, from 8.0.22-15 on, and not older than the server",
    ),
    Row(
        first="8.0.34",
        last="8.0.46",
        shown="8.0.34 and later",
        tool="8.0.34-29",
        refused="8.0.33-28",
        tools="8.0, from 8.0.34-29 on",
    ),
    Row(first="8.1.0", last="8.1.0", shown="8.1", tool="8.1.0-1", refused="8.0.35-34", tools=_SAME),
    Row(first="8.2.0", last="8.2.0", shown="8.2", tool="8.2.0-1", refused="8.1.0-1", tools=_SAME),
    Row(first="8.3.0", last="8.3.0", shown="8.3", tool="8.3.0-1", refused="8.4.0-5", tools=_SAME),
    Row(first="8.4.0", last="8.4.11", shown="8.4", tool="8.4.0-1", refused="8.3.0-1", tools=_SAME),
    Row(
        first="9.0.1",
        last="9.0.1",
        shown="9.0 to 9.6",
        tool="9.0.0-1",
        refused="9.7.1-rc1",
        tools=_SAME,
    ),
    Row(first="9.7.0", last="9.7.4", shown="9.7", tool="9.7.1-rc1", refused="9.6.0-1", tools=_SAME),
)
"""What `mysql_versions.judge_tool` decides; a test holds that it does."""

_NAMES: Final = {
    "change_source": "wires replication",
    "source_prefix": "options of that statement",
    "replica": "in START, STOP, RESET and SHOW",
    "source_column": "the source in columns of SHOW",
    "replica_column": "the replica in columns of SHOW",
    "binlog_status": "position of the binary log",
    "reset_binlogs": "begins the binary logs anew",
    "wait_for_position": "waits for a position",
    "skip_start": "keeps replication from starting",
    "logs_updates": "logs what a replica applies",
    "disable_event": "disables an event on a replica",
    "disabled_status": "status of such an event",
    "account_plugin": "authenticates new accounts",
    "tablespaces": "view of the tablespaces",
    "datafiles": "view of their files",
    "is_encrypted": "tells an encrypted one",
}


def make_tables() -> dict[str, str]:
    """Return every table of the page, by its heading."""
    return {
        "Servers and tools": _table(
            ("MySQL and Percona Server", "XtraBackup"), ((row.shown, row.tools) for row in SERVERS)
        ),
        "Keyrings": _table(
            ("keyring", "server", "made by", "XtraBackup", "KV engine of Vault"),
            (_keyring_row(kind) for kind in mysql_keyrings.KeyringKind),
        ),
        "Defects of tools": _table(
            ("defect", "mended in", "what happens", "a tool that has it"),
            (
                (
                    defect.name,
                    _show_fixed(defect.fixed_in),
                    defect.text,
                    "is used" if defect.is_avoided else "is refused",
                )
                for defect in mysql_versions.DEFECTS
            ),
        ),
        "Words of servers": _table(
            ("from", "word", "what for"),
            (
                (_dotted(since), f"`{new}`", _NAMES[name])
                for since, changes in mysql_versions.WORD_CHANGES
                for name, new in changes.items()
                if name in _NAMES
            ),
        ),
    }


def _keyring_row(kind: KeyringKind) -> tuple[str, ...]:
    first = mysql_keyrings.SERVERS[kind][0]
    early = mysql_keyrings.list_kv_versions(kind, _dotted(first))
    engine = " or ".join(map(str, early))
    if early == (1,):
        learned = " and ".join(_dotted(numbers) for numbers in mysql_keyrings.FIRST_WITH_KV_2)
        engine = f"1; from {learned} on also 2"
    maker = "Percona Server" if kind in mysql_keyrings.PERCONA_ONLY else "both"
    servers, tools = (
        _range(*table[kind]) for table in (mysql_keyrings.SERVERS, mysql_keyrings.TOOLS)
    )
    return (f"`{kind.value}`", servers, maker, tools, engine or "none")


def _range(first: Numbers, end: Numbers) -> str:
    later = "" if end == mysql_keyrings.NEVER else f", before {_dotted(end)}"
    return f"from {_dotted(first)}{later}"


def _show_fixed(numbers: Numbers) -> str:
    is_build = numbers[:2] >= (8, 1)
    return f"{numbers[0]}.{numbers[1]}.0-{numbers[2]}" if is_build else _dotted(numbers)


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
