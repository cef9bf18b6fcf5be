"""Facts about a running instance: variables, tables, encryption, replication."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import flavors, numerals, sql
from orchestrator.flavors import option_files, versions
from orchestrator.flavors.quoting import unhex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import HostConfig
    from orchestrator.flavors.interface import Dialect, ReplicationStatus
    from orchestrator.remote import Remote


MOST_SHOWN = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstanceFacts:
    """What a running server says about itself.

    Attributes:
        variables: Global variables by lower-case name, those that its flavor asks for.
        data_bytes: Size of all tables as the server estimates it.
        user_schemas: Schemas that are not the system's.
        encryption_plugins: Status by name.
        replicas: Hosts that read its binary log now.
        is_replica: Whether it replicates from another server.
        sources: What it says of each server that it replicates from, running or not.
        outside_files: Data files outside of the data directory; at most 20.
        unquoted_tables: Tables whose names the backup tool would not quote; at most 20.
    """

    variables: dict[str, str]
    data_bytes: int
    user_schemas: int
    encryption_plugins: dict[str, str]
    replicas: tuple[str, ...]
    is_replica: bool
    sources: tuple[ReplicationStatus, ...] = ()
    unquoted_tables: tuple[str, ...] = ()
    outside_files: tuple[str, ...] = ()

    def is_on(self, name: str) -> bool:
        """Return whether a variable is on."""
        return option_files.is_on(self.variables.get(name, ""))

    @property
    def server_version(self) -> str:
        """The version's numbers, such as ``10.11.19``."""
        return ".".join(map(str, versions.read_numbers(self.variables.get("version", ""))))

    @property
    def replicates(self) -> bool:
        """Whether events of another server arrive, or would if its connection were better."""
        return any(not status.is_off for status in self.sources)

    @property
    def has_keyring(self) -> bool:
        """Whether an encryption plugin is active."""
        return "ACTIVE" in self.encryption_plugins.values()

    @property
    def binlog_kept_seconds(self) -> float:
        """How long the binary logs are kept; infinite where they never expire."""
        seconds = numerals.parse_decimal(self.variables.get("binlog_expire_logs_seconds") or "0")
        days = numerals.parse_decimal(self.variables.get("expire_logs_days") or "0")
        return seconds or days * 86400 or float("inf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A base table.

    Attributes:
        schema: Its schema.
        name: Its name.
        engine: Its storage engine, such as ``InnoDB``.
        bytes: Its size as the server estimates it.
    """

    schema: str
    name: str
    engine: str
    bytes: int

    @property
    def label(self) -> str:
        """Schema and name for a reader."""
        return f"{self.schema}.{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tablespace:
    """An encrypted InnoDB tablespace.

    Attributes:
        name: ``schema/table`` in the character set of file names, or ``innodb_system``.
        key_id: Encryption key that it uses; empty where all are under one master key.
        min_key_version: The oldest key version of any page in it; 0 where keys have none.
        is_rotating: Whether its pages are being re-encrypted or flushed.
    """

    name: str
    key_id: str
    min_key_version: int
    is_rotating: bool


def read_instance(remote: Remote, config: HostConfig) -> InstanceFacts:
    """Ask a running server about itself.

    Raises:
        CommandError: It does not answer.
    """
    flavor = flavors.of(config)
    rows = sql.query(remote, config, flavor.variables_sql)
    variables = {row["name"]: row["value"] for row in rows}
    dialect = flavor.dialect(variables.get("version", ""))
    asked = {
        "summary": dialect.summary_sql,
        "plugins": dialect.keyring_sql,
        "replicas": dialect.replicas_sql,
        "unquoted": dialect.unquoted_sql,
        "outside": dialect.datafiles_sql,
        "sources": dialect.sources_sql,
    }
    found = sql.query_all(
        remote, config, {name: text for name, text in asked.items() if text}, timeout_seconds=300
    )
    summary, sources = sql.take_one(found["summary"], remote.name), found["sources"]
    return InstanceFacts(
        variables=variables,
        sources=tuple(dialect.read_status(row) for row in sources),
        outside_files=dialect.list_outside(
            [unhex(row["path"]) for row in found.get("outside", ())],
            datadir=variables.get("datadir", ""),
        )[:MOST_SHOWN],
        data_bytes=summary.whole("bytes"),
        user_schemas=summary.whole("user_schemas"),
        encryption_plugins={row["name"]: row["status"] for row in found["plugins"]},
        replicas=tuple(row["host"] for row in found["replicas"]),
        is_replica=bool(sources),
        unquoted_tables=tuple(
            f"{unhex(row['table_schema'])}.{unhex(row['table_name'])}"
            for row in found.get("unquoted", ())
        ),
    )


def read_tables(remote: Remote, config: HostConfig, dialect: Dialect) -> tuple[Table, ...]:
    """List the base tables of all schemas but the virtual ones."""
    return tuple(
        Table(
            schema=unhex(row["table_schema"]),
            name=unhex(row["table_name"]),
            engine=row["engine"],
            bytes=row.whole("bytes"),
        )
        for row in sql.query(remote, config, dialect.tables_sql, timeout_seconds=300)
    )


def read_base_columns(
    remote: Remote, config: HostConfig, dialect: Dialect
) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the stored columns of the tables that have generated columns too.

    They are found by schema and name: two tables can read the same with a dot between these.
    """
    columns: dict[tuple[str, str], list[str]] = {}
    generated = set()
    for row in sql.query(remote, config, dialect.columns_sql, timeout_seconds=300):
        table = unhex(row["table_schema"]), unhex(row["table_name"])
        if row["is_generated"] == "NEVER":
            columns.setdefault(table, []).append(unhex(row["column_name"]))
        else:
            generated.add(table)
    return {table: tuple(columns.get(table, ())) for table in generated}


def read_tablespaces(
    remote: Remote, config: HostConfig, dialect: Dialect
) -> tuple[Tablespace, ...]:
    """List the encrypted InnoDB tablespaces with the key versions that they use."""
    return tuple(
        Tablespace(
            name=unhex(row["name"]) if row["name"] != "NULL" else "",
            key_id=row.get("key_id", ""),
            min_key_version=row.whole("min_key_version") if "min_key_version" in row else 0,
            is_rotating=row.get("rotating", "0") != "0",
        )
        for row in sql.query(remote, config, dialect.encryption_sql, timeout_seconds=300)
    )


def read_tablespace_names(remote: Remote, config: HostConfig, dialect: Dialect) -> frozenset[str]:
    """Return the names of all InnoDB tablespaces, encrypted or not."""
    rows = sql.query(remote, config, dialect.tablespaces_sql, timeout_seconds=300)
    return frozenset(unhex(row["name"]) for row in rows)


def read_replication(
    remote: Remote, config: HostConfig, dialect: Dialect
) -> ReplicationStatus | None:
    """Return the state of replication from the default source; None where there is none."""
    return find_status(sql.query(remote, config, dialect.status_sql), dialect)


def find_status(rows: Sequence[sql.Row], dialect: Dialect) -> ReplicationStatus | None:
    """Return the state of replication from the default source; None where there is none."""
    ours = [row for row in rows if not row.get("Channel_Name")]
    return dialect.read_status(ours[0]) if ours else None


def is_answering(remote: Remote, config: HostConfig) -> bool:
    """Return whether the server takes a statement now."""
    result = remote.run(
        sql.client_command(config), stdin="SELECT 1;\n", check=False, timeout_seconds=30
    )
    return result.status == 0
