"""Which tables were written between two places in a server's binary log. Nothing here changes anything.

An answer is right or is none: an event that no table can be found for makes the whole of it unknown.
Statements stand in the log as they were sent, passwords and all, so no word of them is repeated.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from orchestrator import sql
from orchestrator.errors import CommandError, VerificationError
from orchestrator.facts import binlogs, instances
from orchestrator.flavors.quoting import unhex
from orchestrator.models import Coordinates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orchestrator.config import HostConfig
    from orchestrator.facts.instances import Table
    from orchestrator.flavors.interface import Dialect
    from orchestrator.remote import Remote
    from orchestrator.sql import Row

CHUNK: Final = 1000
"""Events asked for at once: MariaDB lets nobody commit while it reads them."""
MOST_EVENTS: Final = 500_000
"""More are not looked at."""
_NO_CHANGE: Final = {
    *("format_desc", "start_encryption", "rotate", "stop", "ignorable"),
    *("gtid_list", "previous_gtids", "binlog_checkpoint", "gtid", "gtid_tagged", "anonymous_gtid"),
    *("xid", "xa_prepare", "annotate_rows", "rows_query", "heartbeat", "transaction_payload"),
}
_ROWS: Final = re.compile(r"(?:write|update|delete)_rows(?:_[a-z0-9_]+)?")
"""What such an event changes, the event ``Table_map`` before it names."""
_MAP: Final = re.compile(r"table_id: [0-9]+ \((.*)\)(?: CRC32 .*)?", re.DOTALL)
_QUERIES: Final = {"query", "query_compressed"}
_PREFIX: Final = re.compile(r"\A(?:use `(?:[^`]|``)*`; )?(?:\s|/\*[^!M].*?\*/)*", re.DOTALL)
_TRANSACTION: Final = re.compile(
    r"(?:BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE SAVEPOINT|XA (?:START|BEGIN|END|PREPARE|ROLLBACK))\b"
    r"|XA COMMIT .* ONE PHASE\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
"""A transaction whose rows stand elsewhere may be committed by XA COMMIT, so that is none of these."""
_DEFINITION: Final = re.compile(
    r"(?:CREATE|ALTER|DROP|TRUNCATE|RENAME|OPTIMIZE|ANALYZE|REPAIR|FLUSH|GRANT|REVOKE"
    r"|SET (?:PASSWORD|DEFAULT ROLE))\b",
    re.IGNORECASE,
)
"""Statements that name every table whose rows they change."""
_OF_SCHEMA: Final = re.compile(
    r"(?:CREATE|ALTER|DROP)\b.*\b(?:DATABASE|SCHEMA)\b", re.IGNORECASE | re.DOTALL
)
_FILLED: Final = re.compile(r"CREATE\b.*\bTABLE\b.*\bSELECT\b", re.IGNORECASE | re.DOTALL)
"""What a query calls may write elsewhere."""
Key = tuple[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """Which tables were written.

    Attributes:
        tables: Schema and name of each that was, or may have been.
        problem: Why that is not known; empty if it is.
    """

    tables: frozenset[Key] = frozenset()
    problem: str = ""


def find_unlogged(remote: Remote, host: HostConfig, dialect: Dialect) -> str:
    """Return why a server's binary log does not tell of every write; empty if it does.

    What a session writes while it has switched its own ``sql_log_bin`` off, nobody can know.

    Raises:
        CommandError: The server refuses.
    """
    found = instances.read_instance(remote, host)
    if not found.is_on("log_bin"):
        return "the donor writes no binary log"
    if found.is_replica and not found.is_on(dialect.logs_updates):
        return f"the donor does not log what it replicates ({dialect.logs_updates})"
    told = sql.query_row(remote, host, dialect.binlog_sql)
    filters = [name for name in ("Binlog_Do_DB", "Binlog_Ignore_DB") if told.get(name)]
    return f"the donor does not log every schema ({', '.join(filters)})" if filters else ""


def read_end(remote: Remote, host: HostConfig, dialect: Dialect) -> Coordinates:
    """Return where the binary log ends now.

    Raises:
        CommandError: The server refuses.
        VerificationError: It does not say.
    """
    told = sql.query_row(remote, host, dialect.binlog_sql)
    return Coordinates(file=told["File"], position=told.whole("Position"))


def read_changes(
    remote: Remote,
    host: HostConfig,
    dialect: Dialect,
    tables: Sequence[Table],
    between: tuple[Coordinates, Coordinates],
    *,
    check_cancelled: Callable[[], None] = lambda: None,
) -> Changes:
    """Find the tables that were written between two places in the binary log.

    Where a foreign key cascades, its table counts as written with the one that it refers to: most
    servers log no row of it.

    Args:
        remote: The door to the server's host.
        host: That host.
        dialect: The SQL that it speaks.
        tables: Those that are asked for.
        between: Where to begin, and where to end.
        check_cancelled: Raises when the run must end.

    Returns:
        Those of them that were, or why that is not known.
    """
    begin, end = between
    try:
        names = binlogs.read_binlogs(remote, host).names
        if begin.file not in names or end.file not in names:
            return Changes(problem=f"binary log {begin.file} is not there any more")
        logs = names[names.index(begin.file) : names.index(end.file) + 1]
        written: set[Key] = set()
        seen = 0
        for name in logs:
            at = begin.position if name == begin.file else 4
            until = end.position if name == end.file else None
            for rows in _read_events(remote, host, name, at, until):
                check_cancelled()
                seen += len(rows)
                found = find_touched(rows, tables)
                if found.problem or seen > MOST_EVENTS:
                    return Changes(
                        problem=found.problem
                        or f"more than {MOST_EVENTS} events stand in the binary log since the backup"
                    )
                written |= found.tables
        cascades = _read_cascades(remote, host, dialect) if written else ()
    except (CommandError, VerificationError) as error:
        return Changes(problem=f"the binary log cannot be read: {error.message}")
    return Changes(tables=frozenset(_add_cascades(written, cascades)))


def find_touched(rows: Iterable[Row], tables: Sequence[Table]) -> Changes:
    """Return the tables that some events change. Pure.

    Args:
        rows: Of the answer to SHOW BINLOG EVENTS.
        tables: Those that are asked for.
    """
    by_label: dict[str, set[Key]] = {}
    for table in tables:
        by_label.setdefault(table.label.casefold(), set()).add((table.schema, table.name))
    touched: set[Key] = set()
    for row in rows:
        kind, info = row["Event_type"].lower(), row["Info"]
        at = f"{row['Log_name']}:{row['Pos']}"
        if kind in _NO_CHANGE or _ROWS.fullmatch(kind):
            continue
        if kind == "table_map":
            named = _MAP.fullmatch(info)
            if not named:
                return Changes(problem=f"the event at {at} does not say of which table it is")
            touched |= by_label.get(named[1].casefold(), set())
        elif kind in _QUERIES:
            found = _find_named(info, tables)
            if found is None:
                return Changes(
                    problem=f"a statement stands at {at}, and does not tell what it wrote"
                )
            touched |= found
        else:
            return Changes(problem=f"event {row['Event_type']} at {at} does not tell what it wrote")
    return Changes(tables=frozenset(touched))


def _find_named(info: str, tables: Sequence[Table]) -> set[Key] | None:
    """Return the tables that a statement can have changed; None where that cannot be known.

    A table counts as named wherever its name occurs: that can be one too many, and never one too few.
    A name beyond ASCII may stand there in another character set, so it always counts.
    """
    statement = _PREFIX.sub("", info, count=1)
    if _TRANSACTION.match(statement):
        return set()
    if not _DEFINITION.match(statement) or _FILLED.match(statement):
        return None
    text, of_schema = info.casefold(), bool(_OF_SCHEMA.match(statement))

    def is_named(name: str) -> bool:
        forms = (name, name.replace("`", "``"), name.replace('"', '""'))
        return not name.isascii() or any(form.casefold() in text for form in forms)

    return {
        (table.schema, table.name)
        for table in tables
        if is_named(table.name) or (of_schema and is_named(table.schema))
    }


def _read_events(
    remote: Remote, host: HostConfig, name: str, at: int, until: int | None
) -> Iterable[list[Row]]:
    """Yield the events of a binary log in chunks, from one position to another or to its end.

    Events out of a compressed transaction all end where that ends, so no chunk may end among them.
    """
    most = CHUNK
    while until is None or at < until:
        statement = f"SHOW BINLOG EVENTS IN '{name}' FROM {at} LIMIT {most}"
        rows = sql.query(remote, host, statement, timeout_seconds=300)
        if not rows:
            return
        is_cut = len(rows) == most
        if is_cut and _is_inside(rows[-1]) and most <= MOST_EVENTS:
            most *= 2
            continue
        # by their ends: what comes out of a compressed transaction begins where that ends
        kept = [row for row in rows if until is None or row.whole("End_log_pos") <= until]
        yield kept
        if not is_cut or len(kept) < len(rows):
            return
        end = rows[-1].whole("End_log_pos")
        if end <= at:  # 32 bits of it are written, and a log can be larger
            raise VerificationError(f"the positions in {name} go back at {at}")
        at, most = end, CHUNK


def _is_inside(row: Row) -> bool:
    """Return whether an event may be followed by others out of the same compressed transaction."""
    return row["Event_type"].lower() == "transaction_payload" or row["Pos"] == row["End_log_pos"]


def _read_cascades(
    remote: Remote, host: HostConfig, dialect: Dialect
) -> tuple[tuple[Key, Key], ...]:
    """Return the tables with foreign keys that cascade, each with the one that it refers to."""
    return tuple(
        (
            (unhex(row["of_schema"]), unhex(row["of_table"])),
            (unhex(row["to_schema"]), unhex(row["to_table"])),
        )
        for row in sql.query(remote, host, dialect.cascades_sql, timeout_seconds=300)
    )


def _add_cascades(written: set[Key], cascades: Iterable[tuple[Key, Key]]) -> set[Key]:
    found, pairs = set(written), tuple(cascades)
    while more := {child for child, parent in pairs if parent in found} - found:
        found |= more
    return found
