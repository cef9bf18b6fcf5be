"""MariaDB with ``mariadb-backup`` and the ``hashicorp_key_management`` plugin.

Pure: argument lists, option files, SQL texts and parsers for what its tools write. Sources for
the choices are in ``docs/explanation/how-a-clone-stays-encrypted.md``.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import TYPE_CHECKING

from orchestrator import numerals
from orchestrator.errors import VerificationError
from orchestrator.flavors.quoting import quote_option, quote_plain, show_name
from orchestrator.models import Coordinates

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.models import Plan

CLIENT = "mariadb"
BACKUP_TOOL = "mariadb-backup"
STREAM_TOOL = "mbstream"
PROGRAMS = (CLIENT, "mariadbd", BACKUP_TOOL, STREAM_TOOL, "my_print_defaults", "pv", "flock")
DONOR_PROGRAMS = ("ssh", "ssh-keygen")
DROP_IN = "zz-xbvault.cnf"
"""Read last, because drop-ins are read in alphabetical order."""

OPTION_GROUPS = ("mysqld", "server", "mariadb", "mariadbd")
"""Groups that every server reads; those with its series are added on the host."""

SEALED_DONOR_MILLISECONDS = 3_600_000
"""Caches shorter than this let a Vault that seals crash the donor in the middle of a run."""

RECEIVED_TYPE = "full-backuped"
PREPARED_TYPES = ("log-applied", "full-prepared")
"""What a prepared set calls itself: the first is what MariaDB 10.11 was seen to write."""

_STARTING = "[Note] Starting MariaDB "
_ERROR_LINE = re.compile(r"\[ERROR\] (?:\w+: )?(.*)")
_VAULT_ANSWER = re.compile(r"hashicorp: Hashicorp server error: (\d+), .*")
"""The key plugin gives it as a warning, before the error that follows from it."""
_NO_ANSWER = re.compile(r"hashicorp: curl returned this error code: (?:5|6|7|28|35|52|56) .*")
"""curl: no such name, no connection, no answer in time, cut off."""
_DENIED_STATUS = "403"
_COMPLETED = "completed OK!"
_URL_OPTION = "hashicorp_key_management_vault_url"
_CA_OPTION = "hashicorp_key_management_vault_ca"
_FIRST_POSITION = 4
"""Every binary log begins with four bytes that are no event."""
_BINLOG = re.compile(r"[^\\\ufffd]+\.[0-9]{6,10}")
_GTID = re.compile(r"([0-9]{1,10})-[0-9]{1,10}-[0-9]{1,20}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetFiles:
    """Names of the metadata files in a backup set.

    Attributes:
        info: Written last, so a stream without it was cut.
        checkpoints: Kind of the set and its log sequence numbers.
        binlog_info: Binary log coordinates.
    """

    info: str
    checkpoints: str
    binlog_info: str


_OLD_NAMES = SetFiles(
    info="xtrabackup_info",
    checkpoints="xtrabackup_checkpoints",
    binlog_info="xtrabackup_binlog_info",
)
_NEW_NAMES = SetFiles(
    info="mariadb_backup_info",
    checkpoints="mariadb_backup_checkpoints",
    binlog_info="mariadb_backup_binlog_info",
)


def set_files(server_version: str) -> SetFiles:
    """Return the names that mariadb-backup of this series gives (renamed in 11.1, MDEV-18931)."""
    return _NEW_NAMES if version_numbers(server_version)[:2] >= (11, 1) else _OLD_NAMES


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the first three numbers of a version text, such as ``(10, 11, 19)``.

    Raises:
        VerificationError: There are none.
    """
    found = re.search(r"(?<![0-9])([0-9]{1,5})\.([0-9]{1,5})\.([0-9]{1,5})(?![0-9])", version)
    if not found:
        raise VerificationError(f"no version number in {version[:80]!r}")
    return tuple(int(part) for part in found.groups())


def parse_program_version(text: str) -> str:
    """Return the server version that a ``--version`` output names.

    ``mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)`` and
    ``mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu`` both give ``10.11.19``.
    """
    found = re.search(r"(?<![\w.])([0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5})-MariaDB", text)
    return found.group(1) if found else ""


def parse_print_defaults(text: str) -> dict[str, str]:
    """Return the options that ``my_print_defaults`` printed; a later one wins.

    Names are given with underscores and without prefixes such as ``loose-``; an option without a
    value is ``1``, and ``skip-x`` is ``x`` = ``0``.
    """
    options: dict[str, str] = {}
    for line in text.split("\n"):  # a value may hold what splitlines() takes for an end of line
        if not line.startswith("--"):
            continue
        name, has_value, value = line[2:].partition("=")
        name = name.replace("-", "_").lower()
        for prefix in ("loose_", "enable_"):
            name = name.removeprefix(prefix)
        if name in ("skip_slave_start", "skip_name_resolve", "skip_networking"):
            options[name] = value if has_value else "1"
        elif name.startswith(("skip_", "disable_")) and not has_value:
            options[name.partition("_")[2]] = "0"
        else:
            options[name] = value if has_value else "1"
    return options


def is_on(value: str) -> bool:
    """Return whether an option's or variable's text means on."""
    return value.strip().upper() in ("1", "ON", "YES", "TRUE", "FORCE", "FORCE_PLUS_PERMANENT")


def backup_command(
    *, parallel: int, tmp_dir: str, socket: str, defaults_file: str
) -> tuple[str, ...]:
    """Return the command that writes a backup as an mbstream to stdout."""
    command = [BACKUP_TOOL]
    if defaults_file:
        command.append(f"--defaults-extra-file={defaults_file}")  # must be the first
    command += [
        "--backup",
        "--stream=mbstream",
        f"--target-dir={tmp_dir}",
        f"--parallel={parallel}",
    ]
    if socket:
        command.append(f"--socket={socket}")
    return tuple(command)


def extract_command(*, parallel: int, staging_dir: str) -> tuple[str, ...]:
    """Return the command that extracts an mbstream from stdin."""
    return (STREAM_TOOL, "-x", f"--parallel={parallel}", f"--directory={staging_dir}")


def prepare_command(*, staging_dir: str, memory_bytes: int) -> tuple[str, ...]:
    """Return the command that makes a set consistent."""
    return (
        BACKUP_TOOL,
        "--prepare",
        f"--use-memory={memory_bytes}",
        f"--target-dir={staging_dir}",
    )


def move_command(*, staging_dir: str, new_datadir: str) -> tuple[str, ...]:
    """Return the command that moves a prepared set into a new data directory.

    ``--no-defaults``, because with the server's defaults it was seen to put undo files into the
    live datadir and to exit 0.
    """
    return (
        BACKUP_TOOL,
        "--no-defaults",
        "--move-back",
        f"--target-dir={staging_dir}",
        f"--datadir={new_datadir}",
    )


def is_completed(stderr: str) -> bool:
    """Return whether the tool's last line says that it completed."""
    lines = [line for line in stderr.split("\n") if line.strip()]
    return bool(lines) and lines[-1].rstrip().endswith(_COMPLETED)


class StartFailure(enum.Enum):
    """Why a server did not start, as far as somebody else than its own DBA must act."""

    VAULT_UNAVAILABLE = "vault-unavailable"
    VAULT_DENIES = "vault-denies"
    OTHER = "other"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FailedStart:
    """What a server said when it did not start.

    Attributes:
        cause: Who must act.
        reason: The line that tells most, without its moment; empty if it said nothing.
        errors: Its errors, the first one first, without moments.
    """

    cause: StartFailure
    reason: str
    errors: tuple[str, ...]


def parse_failed_start(text: str) -> FailedStart:
    """Return what the last start in a server's log says.

    The key plugin comes up first, and everything after it fails for want of keys.
    """
    last = text[max(text.rfind(_STARTING), 0) :]
    errors = tuple(line.strip() for line in _ERROR_LINE.findall(last))
    cause, reason = StartFailure.OTHER, next(iter(errors), "")
    if answer := _VAULT_ANSWER.search(last):
        is_denied = answer.group(1) == _DENIED_STATUS
        cause = StartFailure.VAULT_DENIES if is_denied else StartFailure.VAULT_UNAVAILABLE
        reason = answer.group()
    elif silence := _NO_ANSWER.search(last):
        cause, reason = StartFailure.VAULT_UNAVAILABLE, silence.group()
    return FailedStart(cause=cause, reason=reason.strip(), errors=errors)


def parse_binlog_info(text: str) -> Coordinates:
    """Return the coordinates in a ``…_binlog_info`` file.

    One record ``FILE<TAB>POSITION[<TAB>GTID]`` with a newline at its end; a GTID list may go on
    after a comma on a further line.

    Raises:
        VerificationError: It is not of this form, or was cut.
    """
    file, _, rest = text.removesuffix("\n").replace(",\n", ",").partition("\t")
    position, _, gtid = rest.partition("\t")
    is_file = _BINLOG.fullmatch(file) and file.isprintable()
    if not text.endswith("\n") or not is_file or not numerals.is_whole(position):
        raise VerificationError(f"no binary log coordinates in {text[:80]!r}")
    if int(position) < _FIRST_POSITION:
        raise VerificationError(f"{position} is no position in a binary log")
    found = [_GTID.fullmatch(part) for part in gtid.split(",")] if gtid else []
    domains = [one.group(1) for one in found if one]
    if len(domains) != len(found) or len(set(domains)) != len(domains):
        raise VerificationError(f"no GTID position in {gtid[:80]!r}")
    return Coordinates(file=file, position=int(position), gtid=gtid)


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


def retarget_options(text: str, *, vault_url: str, vault_ca: str) -> str:
    """Return a set's ``backup-my.cnf`` with the keys' place changed.

    Prepare takes the plugin's options from this file alone; there is no command-line override.

    Raises:
        VerificationError: The file names no key plugin, although it should, or a value could not
            stand in it.
    """
    lines = text.removesuffix("\n").split("\n")
    if not any(line.startswith(f"{_URL_OPTION}=") for line in lines):
        raise VerificationError(
            "backup-my.cnf of the set does not name the key plugin",
            hint="is hashicorp_key_management loaded by an option (not INSTALL PLUGIN) on the donor?",
        )
    changed = [
        f"{_URL_OPTION}={quote_option(vault_url)}"
        if line.startswith(f"{_URL_OPTION}=")
        else f"{_CA_OPTION}={quote_option(vault_ca)}"
        if vault_ca and line.startswith(f"{_CA_OPTION}=")
        else line
        for line in lines
    ]
    return "\n".join(changed) + "\n"


def quiet_drop_in(
    *, run_id: str, vault_url: str = "", ignored_directories: tuple[str, ...] = ()
) -> str:
    """Return the option file of a new replica that must stay quiet.

    Args:
        run_id: For the reader of the file.
        vault_url: Where its keys are, while that is not the host's own mount.
        ignored_directories: Names in the data directory that are no schemas, although the server
            (and the backup tool, which reads this file too) would take them for such.
    """
    lines = [
        f"# written by xbvault for run {run_id}, until the replica is released",
        "[mariadb]",
        "skip-slave-start",
        "read_only=ON",
        "event_scheduler=OFF",
    ]
    lines += [f"ignore_db_dirs={name}" for name in ignored_directories]
    if vault_url:
        lines.append(f"hashicorp-key-management-vault-url={quote_option(vault_url)}")
    return "\n".join(lines) + "\n"


def released_drop_in(
    *, run_id: str, read_only: bool, ignored_directories: tuple[str, ...] = ()
) -> str:
    """Return the option file that a released replica keeps."""
    lines = [f"# written by xbvault for run {run_id}: this server is a replica", "[mariadb]"]
    lines += [f"ignore_db_dirs={name}" for name in ignored_directories]
    if read_only:
        lines.append("read_only=ON")
    return "\n".join(lines) + "\n"


def account_name(run_id: str) -> str:
    """Return the name of the replication account of a run; `run_id` ends in random hex."""
    return f"xbvault_{run_id.rpartition('-')[2]}"


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

SYSTEM_SCHEMAS = ("mysql", "sys", "information_schema", "performance_schema")
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


def rotation_sql(*, threads: int) -> str:
    """Return the statements that let the server re-encrypt its pages as fast as it can."""
    return (
        f"SET GLOBAL innodb_encryption_rotate_key_age = 1;"
        f"SET GLOBAL innodb_encryption_rotation_iops = 100000;"
        f"SET GLOBAL innodb_encryption_threads = {threads}"
    )


def change_source_sql(
    plan: Plan, coordinates: Coordinates, *, use_gtid: bool, user: str, ca_file: str
) -> tuple[str, str]:
    """Return the statements that wire replication, as text before and after the password."""
    lines = ["SET SESSION sql_log_off = 1", "STOP SLAVE", "RESET SLAVE ALL", "RESET MASTER"]
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


def describe_names(names: Iterable[str], *, most: int = 5) -> str:
    """Return some names for a message, and how many more there are."""
    listed = [show_name(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
