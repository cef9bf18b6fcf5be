"""The SQL that MariaDB speaks. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator import numerals
from orchestrator.flavors.interface import (
    APPLIED_COLUMN,
    INNODB_CASCADES_SQL,
    SYSTEM_SCHEMAS,
    Dialect,
)
from orchestrator.flavors.quoting import quote_plain, quote_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.models import Coordinates, Plan

VARIABLES = (
    "version",
    "datadir",
    "server_id",
    "port",
    "read_only",
    "log_bin",
    "log_bin_basename",
    "binlog_format",
    "log_slave_updates",
    "gtid_binlog_pos",
    "gtid_current_pos",
    "expire_logs_days",
    "binlog_expire_logs_seconds",
    "have_ssl",
    "skip_name_resolve",
    "relay_log_basename",
    "innodb_data_home_dir",
    "innodb_undo_directory",
    "innodb_log_group_home_dir",
    "aria_log_dir_path",
    "log_bin_index",
    "relay_log_index",
    "innodb_data_file_path",
    "innodb_log_file_size",
    "innodb_encrypt_tables",
    "innodb_encrypt_log",
    "innodb_encryption_threads",
    "innodb_encryption_rotation_iops",
    "innodb_encryption_rotate_key_age",
    "hashicorp_key_management_vault_url",
    "hashicorp_key_management_caching_enabled",
    "hashicorp_key_management_cache_timeout",
    "hashicorp_key_management_cache_version_timeout",
    "hashicorp_key_management_use_cache_on_timeout",
)
"""Server variables that preflight looks at."""

VARIABLES_SQL = (
    "SELECT LOWER(VARIABLE_NAME) AS name, COALESCE(GLOBAL_VALUE, '') AS value "
    "FROM information_schema.SYSTEM_VARIABLES WHERE LOWER(VARIABLE_NAME) IN ("
    + ", ".join(f"'{name}'" for name in VARIABLES)
    + ")"
)

_SYSTEM = ", ".join(f"'{schema}'" for schema in SYSTEM_SCHEMAS)

TABLES_SQL = (
    "SELECT HEX(TABLE_SCHEMA) AS table_schema, HEX(TABLE_NAME) AS table_name, ENGINE AS engine, "
    "COALESCE(DATA_LENGTH + INDEX_LENGTH, 0) AS bytes FROM information_schema.TABLES "
    "WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') "
    "AND TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema') "
    "ORDER BY TABLE_SCHEMA, TABLE_NAME"
)

COLUMNS_SQL = (
    "SELECT HEX(TABLE_SCHEMA) AS table_schema, HEX(TABLE_NAME) AS table_name, "
    "HEX(COLUMN_NAME) AS column_name, IS_GENERATED AS is_generated "
    f"FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN ({_SYSTEM}) "
    "ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
)

SUMMARY_SQL = (
    "SELECT COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) AS bytes, "
    # A schema without a table may hold routines and events.
    "(SELECT COUNT(*) FROM information_schema.SCHEMATA "
    f"WHERE SCHEMA_NAME NOT IN ({_SYSTEM})) AS user_schemas "
    "FROM information_schema.TABLES"
)

ENCRYPTION_SQL = (
    "SELECT HEX(NAME) AS name, CURRENT_KEY_ID AS key_id, MIN_KEY_VERSION AS min_key_version, "
    "CURRENT_KEY_VERSION AS current_key_version, ROTATING_OR_FLUSHING AS rotating "
    "FROM information_schema.INNODB_TABLESPACES_ENCRYPTION "
    "WHERE ENCRYPTION_SCHEME <> 0 ORDER BY SPACE"
)

TABLESPACES_SQL = "SELECT HEX(NAME) AS name FROM information_schema.INNODB_SYS_TABLESPACES"
"""All of them; that of ENCRYPTION_SQL has only those that ever were encrypted."""

PLUGIN_SQL = (
    "SELECT PLUGIN_NAME AS name, PLUGIN_STATUS AS status FROM information_schema.PLUGINS "
    "WHERE PLUGIN_TYPE = 'ENCRYPTION'"
)

REPLICAS_SQL = (
    "SELECT HOST AS host FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
)

UNQUOTED_SQL = (
    "SELECT HEX(TABLE_SCHEMA) AS table_schema, HEX(TABLE_NAME) AS table_name "
    "FROM information_schema.TABLES WHERE TABLE_TYPE NOT IN ('VIEW', 'SYSTEM VIEW') "
    "AND ENGINE NOT IN ('InnoDB', 'MEMORY') "
    "AND (INSTR(TABLE_SCHEMA, '`') OR INSTR(TABLE_NAME, '`')) "
    "ORDER BY TABLE_SCHEMA, TABLE_NAME LIMIT 20"
)
"""Tables that mariadb-backup fails at: it puts their names unquoted into ``BACKUP LOCK `a`.`b```
(seen with 10.11.19); InnoDB tables need no such lock."""

EVENTS_SQL = (
    "SELECT HEX(EVENT_SCHEMA) AS event_schema, HEX(EVENT_NAME) AS event_name, "
    "HEX(DEFINER) AS definer, STATUS AS status "
    "FROM information_schema.EVENTS ORDER BY EVENT_SCHEMA, EVENT_NAME"
)


_FLUSH = "FLUSH LOCAL ENGINE LOGS"
"""Without it, a server that was just started waits up to a second in RESET MASTER, until InnoDB's
master thread has flushed its log."""
RESET_USED_LOGS_SQL = (
    f"{_FLUSH};\nEXECUTE IMMEDIATE IF(@@GLOBAL.gtid_binlog_state = '', 'DO 0', 'RESET MASTER')"
)
"""Nothing has a GTID, so nothing was logged: then logs need no reset, which takes half a second while
InnoDB re-encrypts pages, whatever was flushed before."""

UPSTREAM_GTID_SQL = (
    "SELECT GROUP_CONCAT(CONCAT(domain_id, '-', server_id, '-', seq_no) ORDER BY domain_id) "
    f"AS {APPLIED_COLUMN} FROM mysql.gtid_slave_pos AS applied "
    "WHERE sub_id = (SELECT MAX(sub_id) FROM mysql.gtid_slave_pos AS same "
    "WHERE same.domain_id = applied.domain_id) AND EXISTS (SELECT 1 FROM information_schema.TABLES "
    "WHERE TABLE_SCHEMA = 'mysql' AND TABLE_NAME = 'gtid_slave_pos' AND ENGINE = 'InnoDB')"
)
"""A replica writes its position in the transaction that it applies, so a snapshot has both, and needs
no lock; but only where the table of positions has transactions."""


def rotation_sql(*, threads: int) -> str:
    """Return the statements that let the server re-encrypt its pages as fast as it can."""
    return (
        f"SET GLOBAL innodb_encryption_rotate_key_age = 1;"
        f"SET GLOBAL innodb_encryption_rotation_iops = 100000;"
        f"SET GLOBAL innodb_encryption_threads = {threads}"
    )


class MariaDBDialect(Dialect):
    """The same for every version from 10.5 on."""

    source_word = "Master"
    replica_word = "Slave"
    takes_password_hash = True
    tables_sql = TABLES_SQL
    columns_sql = COLUMNS_SQL
    summary_sql = SUMMARY_SQL
    encryption_sql = ENCRYPTION_SQL
    tablespaces_sql = TABLESPACES_SQL
    keyring_sql = PLUGIN_SQL
    replicas_sql = REPLICAS_SQL
    unquoted_sql = UNQUOTED_SQL
    datafiles_sql = ""
    cascades_sql = INNODB_CASCADES_SQL
    events_sql = EVENTS_SQL
    position_sql = "SELECT @@GLOBAL.gtid_binlog_pos AS pos"
    binlog_sql = "SHOW MASTER STATUS"
    applied_sql = "SELECT @@GLOBAL.gtid_slave_pos AS pos"
    disable_event = "DISABLE ON SLAVE"
    logs_updates = "log_slave_updates"
    sources_sql = "SHOW ALL SLAVES STATUS"
    upstream_gtid_sql = UPSTREAM_GTID_SQL
    fresh_logs_sql = f"STOP SLAVE; FLUSH BINARY LOGS; {_FLUSH};\nRESET MASTER"
    forget_source_sql = "STOP SLAVE; RESET SLAVE ALL"
    lsn_sql = "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'"
    tells_gtid_at = True

    def read_position(self, row: Mapping[str, str]) -> str:
        """Return the GTID position of the binary log."""
        return row["pos"]

    def read_lsn(self, row: Mapping[str, str]) -> int:
        """Return the end of InnoDB's redo log."""
        return numerals.parse_whole(row["Value"])

    def count_transactions(self, earlier: str, later: str) -> int | None:
        """Return how many transactions lie between two GTID positions, over all domains.

        None where they are not of one history.
        """
        before, after = _read_sequences(earlier), _read_sequences(later)
        if before is None or after is None or not set(before) <= set(after):
            return None
        counts = [number - before.get(domain, 0) for domain, number in after.items()]
        return sum(counts) if min(counts, default=0) >= 0 else None

    def list_outside(self, paths: Iterable[str], *, datadir: str) -> tuple[str, ...]:
        """Return none: they are not asked for."""
        return ()

    def wait_sql(self, position: str) -> str:
        """Return the query that waits a second for a GTID position."""
        return f"SELECT MASTER_GTID_WAIT({quote_plain(position)}, 1) AS reached"

    def until_sql(self, file: str, position: int) -> str:
        """Return the statement that applies events up to a position of the source."""
        return (
            f"START SLAVE UNTIL MASTER_LOG_FILE = {quote_plain(file)}, MASTER_LOG_POS = {position}"
        )

    def until_gtid_sql(self, gtid: str) -> str:
        """Return the statement that applies events up to a GTID position."""
        return f"START SLAVE UNTIL master_gtid_pos = {quote_plain(gtid)}"

    def reach_sql(self, position: Coordinates) -> str:
        """Return the query that waits a second for a position of the source."""
        if position.gtid:
            return self.wait_sql(position.gtid)
        at = f"{quote_plain(position.file)}, {position.position}"
        return f"SELECT IF(MASTER_POS_WAIT({at}, 1) >= 0, 0, 1) AS reached"

    def snapshot_sql(self) -> tuple[str, ...]:
        """Return the statements that open a snapshot; the server knows its position."""
        return (
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
            "SHOW STATUS LIKE 'binlog_snapshot_%'",
        )

    def read_snapshot(self, text: str) -> tuple[str, int]:
        """Return the position in the answer to SHOW STATUS."""
        file, position = "", 0
        for line in text.split("\n"):
            name, _, value = line.partition("\t")
            if name == "Binlog_snapshot_file":
                file = value
            elif name == "Binlog_snapshot_position" and numerals.is_whole(value):
                position = numerals.parse_whole(value)
        return file, position

    def open_sql(self, statement: str) -> str:
        """Return one line that runs a statement."""
        return f"EXECUTE IMMEDIATE {quote_text(statement)}"

    def account_sql(self, user: str, host: str) -> tuple[str, str]:
        """Return the statements that make a replica's account, around the password's hash."""
        account = f"{quote_plain(user)}@{quote_plain(host)}"
        return (
            f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY PASSWORD '",
            f"' REQUIRE SSL;GRANT REPLICATION SLAVE ON *.* TO {account}",
        )

    def uses_gtid(self, row: Mapping[str, str]) -> bool:
        """Return whether GTIDs are asked for."""
        return row.get("Using_Gtid", "No") != "No"

    def change_source_sql(
        self, plan: Plan, coordinates: Coordinates, *, use_gtid: bool, user: str, ca_file: str
    ) -> tuple[str, str]:
        """Return the statements that wire replication, before and after the password."""
        lines = [
            "SET SESSION sql_log_off = 1",
            "STOP SLAVE",
            "RESET SLAVE ALL",
            RESET_USED_LOGS_SQL,
        ]
        if coordinates.gtid:
            lines.append(f"SET GLOBAL gtid_slave_pos = {quote_plain(coordinates.gtid)}")
        parts = [
            f"CHANGE MASTER TO MASTER_HOST = {quote_plain(plan.source_address)}",
            f"MASTER_PORT = {plan.source_port}",
            f"MASTER_USER = {quote_plain(user)}",
            "MASTER_CONNECT_RETRY = 5",
            "MASTER_SSL = 1",
            "MASTER_SSL_VERIFY_SERVER_CERT = 1",
        ]
        if ca_file:
            parts.append(f"MASTER_SSL_CA = {quote_plain(ca_file)}")
        if use_gtid:
            parts.append("MASTER_USE_GTID = slave_pos")
        else:
            parts += [
                "MASTER_USE_GTID = no",
                f"MASTER_LOG_FILE = {quote_plain(coordinates.file)}",
                f"MASTER_LOG_POS = {coordinates.position}",
            ]
        lines.append(", ".join(parts) + ", MASTER_PASSWORD = '")
        return ";\n".join(lines), "'"


def _read_sequences(position: str) -> dict[str, int] | None:
    """Return the sequence number of each domain in a GTID position; None if it is none."""
    found = [_GTID.fullmatch(gtid.strip()) for gtid in position.split(",")]
    return {gtid[1]: int(gtid[2]) for gtid in found if gtid} if all(found) else None


_GTID = re.compile(r"([0-9]{1,10})-[0-9]{1,10}-([0-9]{1,20})")
