"""MySQL and Percona Server with XtraBackup. Pure.

The tool carries the keys itself, sealed under the transition key, and gives the restored tablespaces
a new master key in the recipient's keyring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.flavors import (
    mysql_commands,
    mysql_files,
    mysql_output,
    mysql_sets,
    mysql_sql,
    mysql_start,
    mysql_versions,
    versions,
)
from orchestrator.flavors.interface import (
    CASCADES_SQL,
    INNODB_CASCADES_SQL,
    Dialect,
    FailedStart,
    Flavor,
    Programs,
    SetFiles,
    Upstream,
    locked_snapshot_sql,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.flavors.file_sets import FileSet
    from orchestrator.models import Coordinates, Plan


class MySQLDialect(Dialect):
    """The SQL of one version.

    Attributes:
        encrypted_files_sql: Encrypted tablespaces: name and path (HEX).
        keys_sql: Names of the keys that the server holds; empty where it does not tell.
    """

    takes_password_hash = False
    tables_sql = mysql_sql.TABLES_SQL
    columns_sql = mysql_sql.COLUMNS_SQL
    summary_sql = mysql_sql.SUMMARY_SQL
    replicas_sql = mysql_sql.REPLICAS_SQL
    unquoted_sql = ""
    events_sql = mysql_sql.EVENTS_SQL
    applied_sql = mysql_sql.APPLIED_SQL
    upstream_gtid_sql = mysql_sql.UPSTREAM_GTID_SQL
    lsn_sql = "SHOW ENGINE INNODB STATUS"
    tells_gtid_at = False

    def __init__(self, version: str) -> None:
        words = mysql_versions.choose_words(version)
        self._words = words
        self.source_word = words.source_column
        self.replica_word = words.replica_column
        self.encryption_sql = mysql_sql.encryption_sql(words)
        self.tablespaces_sql = mysql_sql.tablespaces_sql(words)
        self.datafiles_sql = mysql_sql.datafiles_sql(words)
        self.keyring_sql = mysql_sql.keyring_sql(words)
        self.cascades_sql = CASCADES_SQL if words.shows_foreign_keys else INNODB_CASCADES_SQL
        self.position_sql = words.binlog_status
        self.binlog_sql = words.binlog_status
        self.disable_event = words.disable_event
        self.logs_updates = words.logs_updates
        self.fresh_logs_sql = mysql_sql.fresh_logs_sql(words)
        self.forget_source_sql = f"STOP {words.replica}; RESET {words.replica} ALL"
        self.encrypted_files_sql = (
            # The server does not list the file of the tablespace `mysql`, which it alone makes.
            "SELECT HEX(spaces.NAME) AS name, HEX(COALESCE(files.PATH, 'mysql.ibd')) AS path "
            f"FROM (SELECT SPACE, NAME FROM {words.tablespaces} WHERE {words.is_encrypted}) "
            f"AS spaces LEFT JOIN {words.datafiles} AS files ON files.SPACE = spaces.SPACE "
            "WHERE files.PATH IS NOT NULL OR spaces.NAME = 'mysql'"
        )
        self.keys_sql = mysql_sql.KEYS_SQL if words.has_keyring_keys else ""

    def read_position(self, row: Mapping[str, str]) -> str:
        """Return file, offset and GTID set."""
        return mysql_sql.read_position(row)

    def read_lsn(self, row: Mapping[str, str]) -> int:
        """Return the end of InnoDB's redo log."""
        return mysql_output.parse_lsn(row["Status"])

    def list_outside(self, paths: Iterable[str], *, datadir: str) -> tuple[str, ...]:
        """Return the data files that the tool would put back over whatever lies there."""
        return mysql_sql.list_outside(paths, datadir=datadir)

    def wait_sql(self, position: str) -> str:
        """Return the query that waits a second for a position."""
        return mysql_sql.wait_sql(self._words, position)

    def until_sql(self, file: str, position: int) -> str:
        """Return the statement that applies events up to a position of the source."""
        return mysql_sql.until_sql(self._words, file, position)

    def until_gtid_sql(self, gtid: str) -> str:
        """Return the statement that applies events up to a GTID set."""
        return mysql_sql.until_gtid_sql(self._words, gtid)

    def reach_sql(self, position: Coordinates) -> str:
        """Return the query that waits a second for a position of the source."""
        return mysql_sql.reach_sql(self._words, position)

    def upstream_snapshot_sql(self, *, by_gtid: bool) -> tuple[str, ...]:
        """Return the statements that open a snapshot; its GTID set, too, belongs to it by a lock."""
        if by_gtid:
            return locked_snapshot_sql(self.upstream_gtid_sql)
        return super().upstream_snapshot_sql(by_gtid=by_gtid)

    def snapshot_sql(self) -> tuple[str, ...]:
        """Return the statements that open a snapshot under a lock that is held for a moment."""
        return mysql_sql.snapshot_sql(self._words)

    def read_snapshot(self, text: str) -> tuple[str, int]:
        """Return the position in the client's output."""
        return mysql_sql.read_snapshot(text)

    def open_sql(self, statement: str) -> str:
        """Return one line that prepares and runs a statement."""
        return mysql_sql.open_sql(statement)

    def account_sql(self, user: str, host: str) -> tuple[str, str]:
        """Return the statements that make a replica's account, around its password."""
        return mysql_sql.account_sql(self._words, user, host)

    def uses_gtid(self, row: Mapping[str, str]) -> bool:
        """Return whether GTIDs are asked for."""
        return mysql_sql.uses_gtid(row)

    def change_source_sql(
        self, plan: Plan, coordinates: Coordinates, *, use_gtid: bool, user: str, ca_file: str
    ) -> tuple[str, str]:
        """Return the statements that wire replication, before and after the password."""
        return mysql_sql.change_source_sql(
            self._words, plan, coordinates, use_gtid=use_gtid, user=user, ca_file=ca_file
        )


class MySQL(Flavor):
    """MySQL and Percona Server 5.7, 8.0, 8.4 and 9.x."""

    name = "mysql"
    label = "MySQL"
    own = Programs(
        client="mysql",
        server="mysqld",
        backup="xtrabackup",
        stream="xbstream",
        print_defaults="my_print_defaults",
        binlog="mysqlbinlog",
    )
    config_dir = "/etc/mysql/mysql.conf.d"
    unit = "mysql"
    packages = "the server, its client, percona-xtrabackup, pv, openssh-client, util-linux"
    keyrings = "a keyring plugin or component"
    option_groups = ("mysqld", "server")
    series_groups = ("mysqld-",)
    client_groups = ("mysql", "client")
    socket_environment = ()
    carries_keys = True
    prepared_types = ("full-prepared",)  # the tool restores from no other
    default_event_scheduler = "ON"
    accounts_table = mysql_sql.ACCOUNTS_TABLE
    variables_sql = mysql_sql.VARIABLES_SQL

    def list_file_sets(self, values: Mapping[str, str], *, datadir: str) -> tuple[FileSet, ...]:
        """Return the kinds of files that can lie outside of the data directory."""
        return mysql_files.list_file_sets(values, datadir=datadir)

    def list_unlogged(self, options: Mapping[str, str], version: str) -> list[str]:
        """Return the options that are off; from 8.0 on both are on by default."""
        updates = [name for name in ("log_replica_updates", "log_slave_updates") if name in options]
        names = ["log_bin", *(updates or ["log_slave_updates"])]
        default = "1" if versions.read_numbers(version) >= (8, 0, 3) else ""
        off = ("", "0", "OFF")
        return [
            f"{name}={options.get(name, 'off')}"
            for name in names
            if options.get(name, default).upper() in off
        ]

    def has_gtid(self, variables: Mapping[str, str]) -> bool:
        """Return whether GTIDs are on."""
        return variables.get("gtid_mode") == "ON"

    def trust_options(self, version: str, ca_file: str) -> list[str]:
        """Return the options; without a CA they trust nobody, and neither does a replica."""
        return ["--ssl-mode=VERIFY_IDENTITY", *([f"--ssl-ca={ca_file}"] if ca_file else [])]

    def dialect(self, version: str) -> MySQLDialect:
        """Return the SQL of a version."""
        return MySQLDialect(version)

    def read_server_version(self, text: str) -> str:
        """Return the version that ``mysqld --version`` names; empty if none."""
        return mysql_output.parse_server_version(text)

    def read_tool_version(self, text: str) -> str:
        """Return XtraBackup's version, such as ``8.0.35-34``; empty if none."""
        return mysql_output.parse_tool_version(text)

    def judge_tool(self, server_version: str, tool_version: str) -> str:
        """Return why this XtraBackup does not fit this server."""
        if not server_version or not tool_version:
            return f"install {self.packages}"
        return mysql_versions.judge_tool(server_version, tool_version)

    def judge_versions(self, donor: str, recipient: str) -> str:
        """Return why the recipient's server cannot take the donor's data."""
        if not donor or not recipient:
            return "install the donor's server version on the recipient"
        return mysql_versions.judge_restore(donor, recipient)

    def judge_tools(self, donor: str, recipient: str) -> str:
        """Return why the recipient's XtraBackup cannot take the set of the donor's."""
        if not donor or not recipient:
            return "install the backup tool on both hosts"
        return mysql_versions.judge_tools(donor, recipient)

    def set_files(self, version: str) -> SetFiles:
        """Return the names that XtraBackup gives; they are the same in every version."""
        return mysql_sets.FILES

    def read_coordinates(self, text: str) -> Coordinates:
        """Return the coordinates in the set's file of them."""
        return mysql_sets.parse_binlog_info(text)

    def read_upstreams(self, text: str) -> tuple[Upstream, ...]:
        """Return the donor's own sources in the set's file of them."""
        return mysql_sets.parse_slave_info(text)

    def backup_command(
        self,
        programs: Programs,
        *,
        parallel: int,
        tmp_dir: str,
        socket: str,
        defaults_file: str,
        options_file: str,
        slave_info: bool,
        extra_dir: str = "",
        from_lsn: int = 0,
        is_shared: bool = False,
    ) -> tuple[str, ...]:
        """Return the command that writes a backup as an xbstream to stdout."""
        return mysql_commands.backup_command(
            tool=programs.backup,
            options_file=options_file,
            parallel=parallel,
            tmp_dir=tmp_dir,
            socket=socket,
            slave_info=slave_info,
            extra_dir=extra_dir,
            from_lsn=from_lsn,
        )

    def extract_command(
        self, programs: Programs, *, parallel: int, staging_dir: str
    ) -> tuple[str, ...]:
        """Return the command that extracts an xbstream from stdin."""
        return mysql_commands.extract_command(
            tool=programs.stream, parallel=parallel, staging_dir=staging_dir
        )

    def prepare_command(
        self,
        programs: Programs,
        *,
        staging_dir: str,
        memory_bytes: int,
        options_file: str,
        increment_dir: str = "",
        has_more: bool = False,
    ) -> tuple[str, ...]:
        """Return the command that makes a set consistent."""
        return mysql_commands.prepare_command(
            tool=programs.backup,
            options_file=options_file,
            memory_bytes=memory_bytes,
            increment_dir=increment_dir,
            has_more=has_more,
        )

    def restore_command(
        self,
        programs: Programs,
        *,
        staging_dir: str,
        new_datadir: str,
        parallel: int,
        rekey: bool,
        options_file: str,
    ) -> tuple[str, ...]:
        """Return the command that copies or moves a prepared set into a new data directory."""
        return mysql_commands.restore_command(
            tool=programs.backup,
            options_file=options_file,
            staging_dir=staging_dir,
            new_datadir=new_datadir,
            parallel=parallel,
            rekey=rekey,
        )

    def find_contradictions(self, words: str) -> tuple[str, ...]:
        """Return the lines that say that the set lacks a table or a part of the redo log."""
        return mysql_output.find_contradictions(words)

    def read_failed_start(self, text: str) -> FailedStart:
        """Return what the last start in the server's log says."""
        return mysql_start.parse_failed_start(text)

    def quiet_drop_in(
        self,
        *,
        run_id: str,
        version: str,
        vault_url: str = "",
        ignored_directories: tuple[str, ...] = (),
    ) -> str:
        """Return the option file of a new replica that must stay quiet."""
        words = mysql_versions.choose_words(version)
        lines = [
            f"# written by xbvault for run {run_id}, until the replica is released",
            "[mysqld]",
            words.skip_start,
            "read_only=ON",
            "event_scheduler=OFF",
            *_ignored(version, ignored_directories),
        ]
        return "\n".join(lines) + "\n"

    def released_drop_in(
        self,
        *,
        run_id: str,
        version: str,
        read_only: bool,
        is_replica: bool = True,
        ignored_directories: tuple[str, ...] = (),
    ) -> str:
        """Return the option file that a released server keeps."""
        what = "is a replica" if is_replica else "was restored"
        lines = [
            f"# written by xbvault for run {run_id}: this server {what}",
            "[mysqld]",
            *_ignored(version, ignored_directories),
        ]
        if read_only:
            # The events of a replica are disabled one by one.
            lines += ["read_only=ON", *(() if is_replica else ("event_scheduler=OFF",))]
        return "\n".join(lines) + "\n"


def _ignored(version: str, names: tuple[str, ...]) -> list[str]:
    """Return the options that keep directories from being schemas; from 8.0 on none is by itself."""
    if versions.read_numbers(version) >= (8, 0, 0):
        return []
    return [f"ignore_db_dir={name}" for name in names]
