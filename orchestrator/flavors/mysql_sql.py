"""The SQL that MySQL and Percona Server speak, from 5.7 on. Pure.

What is the same in every version is a constant; the rest is made with the `Words` of one. Columns
have lower-case names, and names that users chose are given in hexadecimal digits.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from typing import TYPE_CHECKING, Final

from orchestrator import numerals
from orchestrator.errors import VerificationError
from orchestrator.flavors.interface import APPLIED_COLUMN, locked_snapshot_sql
from orchestrator.flavors.quoting import quote_plain, quote_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.flavors.mysql_versions import Words
    from orchestrator.models import Coordinates, Plan

ACCOUNTS_TABLE: Final = "mysql.user"
SYSTEM_SCHEMAS: Final = ("mysql", "sys", "information_schema", "performance_schema")
RETRY_COUNT: Final = 86_400
"""How often a replica tries to connect; from 8.4 on a server gives up after ten times by itself."""

VARIABLES: Final = (
    "version",
    "version_comment",
    "datadir",
    "plugin_dir",
    "server_id",
    "server_uuid",
    "port",
    "read_only",
    "super_read_only",
    "event_scheduler",
    "log_raw",
    "log_bin",
    "log_bin_basename",
    "log_bin_index",
    "relay_log_basename",
    "relay_log_index",
    "binlog_format",
    "log_slave_updates",
    "log_replica_updates",
    "gtid_mode",
    "expire_logs_days",
    "binlog_expire_logs_seconds",
    "ssl_ca",
    "ssl_cert",
    "skip_name_resolve",
    "lower_case_table_names",
    "innodb_data_file_path",
    "innodb_data_home_dir",
    "innodb_directories",
    "innodb_doublewrite_dir",
    "innodb_log_file_size",
    "innodb_log_files_in_group",
    "innodb_log_group_home_dir",
    "innodb_page_size",
    "innodb_redo_log_capacity",
    "innodb_temp_data_file_path",
    "innodb_temp_tablespaces_dir",
    "innodb_undo_directory",
    "innodb_undo_tablespaces",
    "innodb_redo_log_encrypt",
    "innodb_undo_log_encrypt",
    "binlog_encryption",
    "encrypt_binlog",
    "default_table_encryption",
    "keyring_file_data",
    "keyring_vault_config",
    "keyring_vault_timeout",
)
"""Server variables that preflight looks at; a version has not all of them."""

VARIABLES_SQL: Final = (
    "SELECT LOWER(VARIABLE_NAME) AS name, COALESCE(VARIABLE_VALUE, '') AS value "
    "FROM performance_schema.global_variables WHERE VARIABLE_NAME IN ("
    + ", ".join(f"'{name}'" for name in VARIABLES)
    # The variable have_ssl was removed in 8.4; a server without TLS has no certificate that ends.
    + ") UNION ALL SELECT 'have_ssl', IF(VARIABLE_VALUE = '', 'DISABLED', 'YES') "
    "FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Ssl_server_not_after'"
)

_SYSTEM: Final = ", ".join(f"'{schema}'" for schema in SYSTEM_SCHEMAS)

TABLES_SQL: Final = (
    "SELECT HEX(TABLE_SCHEMA) AS table_schema, HEX(TABLE_NAME) AS table_name, "
    "COALESCE(ENGINE, '') AS engine, COALESCE(DATA_LENGTH + INDEX_LENGTH, 0) AS bytes "
    "FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' "
    "AND TABLE_SCHEMA NOT IN ('information_schema', 'performance_schema') "
    "ORDER BY TABLE_SCHEMA, TABLE_NAME"
)

COLUMNS_SQL: Final = (
    "SELECT HEX(TABLE_SCHEMA) AS table_schema, HEX(TABLE_NAME) AS table_name, "
    "HEX(COLUMN_NAME) AS column_name, "
    "IF(COALESCE(GENERATION_EXPRESSION, '') = '', 'NEVER', 'ALWAYS') AS is_generated "
    f"FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN ({_SYSTEM}) "
    "ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
)

SUMMARY_SQL: Final = (
    "SELECT COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) AS bytes, "
    # A schema without a table may hold routines and events.
    "(SELECT COUNT(*) FROM information_schema.SCHEMATA "
    f"WHERE SCHEMA_NAME NOT IN ({_SYSTEM})) AS user_schemas "
    "FROM information_schema.TABLES"
)

REPLICAS_SQL: Final = (
    "SELECT HOST AS host FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'"
)

EVENTS_SQL: Final = (
    "SELECT HEX(EVENT_SCHEMA) AS event_schema, HEX(EVENT_NAME) AS event_name, "
    "HEX(DEFINER) AS definer, STATUS AS status "
    "FROM information_schema.EVENTS ORDER BY EVENT_SCHEMA, EVENT_NAME"
)

APPLIED_SQL: Final = "SELECT REPLACE(@@GLOBAL.gtid_executed, CHAR(10), '') AS pos"
"""The GTID set of a server; it has a line break behind each comma."""

UPSTREAM_GTID_SQL: Final = (
    f"SELECT REPLACE(@@GLOBAL.gtid_executed, CHAR(10), '') AS {APPLIED_COLUMN}"
)

KEYS_SQL: Final = (
    "SELECT HEX(KEY_ID) AS key_id FROM performance_schema.keyring_keys ORDER BY KEY_ID"
)
"""Names of the keys that a server holds, never their values."""

_PLUGINS_SQL: Final = (
    "SELECT PLUGIN_NAME AS name, PLUGIN_STATUS AS status FROM information_schema.PLUGINS "
    "WHERE PLUGIN_TYPE = 'KEYRING'"
)
_COMPONENT_STATUS_SQL: Final = (
    "SELECT named.STATUS_VALUE AS name, UPPER(states.STATUS_VALUE) AS status "
    "FROM performance_schema.keyring_component_status AS named "
    "JOIN performance_schema.keyring_component_status AS states "
    "WHERE named.STATUS_KEY = 'Component_name' AND states.STATUS_KEY = 'Component_status'"
)


def keyring_sql(words: Words) -> str:
    """Return the query for name and status of keyring plugins and components."""
    if not words.has_component_status:
        return _PLUGINS_SQL
    return f"{_PLUGINS_SQL} UNION ALL {_COMPONENT_STATUS_SQL}"


def tablespaces_sql(words: Words) -> str:
    """Return the query for all tablespaces."""
    return f"SELECT HEX(NAME) AS name FROM {words.tablespaces}"


def encryption_sql(words: Words) -> str:
    """Return the query for the encrypted tablespaces.

    All of a server's are under its one master key, so there is no key of each to tell.
    """
    return (
        "SELECT HEX(NAME) AS name, COALESCE(SPACE_TYPE, '') AS space_type "
        f"FROM {words.tablespaces} WHERE {words.is_encrypted} ORDER BY SPACE"
    )


def datafiles_sql(words: Words) -> str:
    """Return the query for data files that do not lie in a folder below the datadir by default."""
    return f"SELECT HEX(PATH) AS path FROM {words.datafiles} WHERE LEFT(PATH, 2) <> './'"


_UNDO_FILE: Final = re.compile(r"undo_?[0-9]+|.*\.ibu")


def list_outside(paths: Iterable[str], *, datadir: str) -> tuple[str, ...]:
    """Return the data files, of those that `datafiles_sql` tells, that lie outside of the datadir.

    The tool puts them back where they were on the donor, whatever lies there. Undo tablespaces are
    left out, for they go where it is told.
    """
    home = posixpath.normpath(datadir)
    found = (posixpath.normpath(posixpath.join(home, path)) for path in paths)
    return tuple(
        path
        for path in found
        if not path.startswith(f"{home}/") and not _UNDO_FILE.fullmatch(posixpath.basename(path))
    )


# Positions.

_POSITION: Final = re.compile(r"(.+?):([0-9]{1,20})(?: ([0-9A-Fa-f-]{36}:\S+))?")
"""The file's name may have spaces and colons, and a GTID set may look like the end of a position."""


def read_position(row: Mapping[str, str]) -> str:
    """Return the donor's position from the answer to `Words.binlog_status`.

    It is ``FILE:POSITION``, and behind a space the GTID set where there is one.
    """
    gtid_set = re.sub(r"\s", "", row["Executed_Gtid_Set"])
    return f"{row['File']}:{numerals.parse_whole(row['Position'])} {gtid_set}".rstrip()


def split_position(position: str) -> tuple[str, int, str]:
    """Return file, offset and GTID set of a position that `read_position` gave.

    Raises:
        VerificationError: It is none.
    """
    found = _POSITION.fullmatch(position)
    if not found:
        raise VerificationError(f"no position: {position[:80]!r}")
    return found.group(1), int(found.group(2)), found.group(3) or ""


def wait_sql(words: Words, position: str) -> str:
    """Return the query that waits a second for a position; ``reached`` is 0 when it is.

    A server without GTIDs raises an error when it is asked to wait for one.
    """
    file, offset, gtid_set = split_position(position)
    by_file = f"IF({words.wait_for_position}({quote_plain(file)}, {offset}, 1) >= 0, 0, 1)"
    if not gtid_set:
        return f"SELECT {by_file} AS reached"
    by_gtid = f"WAIT_FOR_EXECUTED_GTID_SET({quote_plain(gtid_set)}, 1)"
    return f"SELECT IF(@@GLOBAL.gtid_mode = 'ON', {by_gtid}, {by_file}) AS reached"


def until_gtid_sql(words: Words, gtid: str) -> str:
    """Return the statement that applies events until all of a GTID set are applied."""
    return f"START {words.replica} UNTIL SQL_AFTER_GTIDS = {quote_plain(gtid)}"


def reach_sql(words: Words, position: Coordinates) -> str:
    """Return the query that waits a second until a replica has applied a source's position."""
    if position.gtid:
        by_gtid = f"WAIT_FOR_EXECUTED_GTID_SET({quote_plain(position.gtid)}, 1)"
        return f"SELECT {by_gtid} AS reached"
    at = f"{quote_plain(position.file)}, {position.position}"
    return f"SELECT IF({words.wait_for_position}({at}, 1) >= 0, 0, 1) AS reached"


def until_sql(words: Words, file: str, position: int) -> str:
    """Return the statement that applies events up to a position of the source."""
    prefix = words.source_prefix
    return (
        f"START {words.replica} SQL_THREAD "
        f"UNTIL {prefix}LOG_FILE = {quote_plain(file)}, {prefix}LOG_POS = {position}"
    )


def snapshot_sql(words: Words) -> tuple[str, ...]:
    """Return the statements that open a consistent snapshot and say its position."""
    return locked_snapshot_sql(words.binlog_status)


def read_snapshot(text: str) -> tuple[str, int]:
    """Return file and position from the client's output; empty and 0 if they are not there."""
    lines = text.split("\n")
    for head, row in itertools.pairwise(lines):
        if head.startswith("File\tPosition\t"):
            file, _, rest = row.partition("\t")
            position = rest.partition("\t")[0]
            if file and numerals.is_whole(position):
                return file, numerals.parse_whole(position)
    return "", 0


def open_sql(statement: str) -> str:
    """Return one line that runs a statement given as text, whatever is in its names."""
    return (
        f"SET @xbvault = {quote_text(statement)}; PREPARE xbvault FROM @xbvault; "
        "EXECUTE xbvault; DEALLOCATE PREPARE xbvault"
    )


# Replication.


def account_sql(words: Words, user: str, host: str) -> tuple[str, str]:
    """Return the statements that make a replica's account, before and after its password.

    Binary and general log get its hash, or nothing of it: the server rewrites such statements.
    """
    account = f"{quote_plain(user)}@{quote_plain(host)}"
    return (
        f"CREATE USER IF NOT EXISTS {account} IDENTIFIED WITH {words.account_plugin} BY '",
        f"' REQUIRE SSL;GRANT REPLICATION SLAVE ON *.* TO {account}",
    )


def fresh_logs_sql(words: Words) -> str:
    """Return the statements that stop replication and begin the binary logs anew."""
    return f"STOP {words.replica}; FLUSH BINARY LOGS; {words.reset_binlogs}"


def change_source_sql(
    words: Words,
    plan: Plan,
    coordinates: Coordinates,
    *,
    use_gtid: bool,
    user: str,
    ca_file: str,
) -> tuple[str, str]:
    """Return the statements that wire replication, as text before and after the password.

    The connection is always encrypted, so the source is never asked for its public key.
    """
    lines = [
        "SET SESSION sql_log_off = 1",
        f"STOP {words.replica}",
        f"RESET {words.replica} ALL",
        words.reset_binlogs,
    ]
    if coordinates.gtid:
        lines.append(f"SET GLOBAL gtid_purged = {quote_plain(coordinates.gtid)}")
    options = [
        f"HOST = {quote_plain(plan.source_address)}",
        f"PORT = {plan.source_port}",
        f"USER = {quote_plain(user)}",
        "CONNECT_RETRY = 5",
        f"RETRY_COUNT = {RETRY_COUNT}",
        "SSL = 1",
        "SSL_VERIFY_SERVER_CERT = 1",
    ]
    if ca_file:
        options.append(f"SSL_CA = {quote_plain(ca_file)}")
    if use_gtid:
        options.append("AUTO_POSITION = 1")
    else:
        options += [
            "AUTO_POSITION = 0",
            f"LOG_FILE = {quote_plain(coordinates.file)}",
            f"LOG_POS = {coordinates.position}",
        ]
    parts = ", ".join(f"{words.source_prefix}{option}" for option in options)
    lines.append(f"{words.change_source} {parts}, {words.source_prefix}PASSWORD = '")
    return ";\n".join(lines), "'"


def uses_gtid(row: Mapping[str, str]) -> bool:
    """Return whether a row of SHOW … STATUS says that the source is asked for GTIDs."""
    return row.get("Auto_Position") == "1"
