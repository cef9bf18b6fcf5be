"""What the steps ask of a kind of server. Pure.

A `Flavor` has what holds for every version: programs, option groups, commands, file names. Its
`Dialect` has the SQL of one version.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import itertools
from typing import TYPE_CHECKING, ClassVar, Final

from orchestrator import numerals
from orchestrator.models import Coordinates

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.config import HostConfig
    from orchestrator.flavors.file_sets import FileSet
    from orchestrator.models import Plan

DROP_IN = "zz-xbvault.cnf"
"""Read last, because drop-ins are read in alphabetical order."""
COMMON_PROGRAMS = ("pv", "flock")
DONOR_PROGRAMS = ("ssh", "ssh-keygen")
GROUP_PROGRAMS = ("mbuffer",)
"""What a donor of several clones at once needs besides."""
BACKUP_PROGRAMS = ("age",)
"""What a donor of stored backups needs besides."""
RESTORE_PROGRAMS = ("age", "perl", "sha256sum")
"""What the recipient of a stored backup needs besides."""
STORE_PROGRAMS = ("pv", "flock", "perl", "sha256sum", "sync")
"""What the host of a repository needs."""
SYSTEM_SCHEMAS = ("mysql", "sys", "information_schema", "performance_schema")

SNAPSHOT_LOCK_SECONDS = 30
"""How long a server's writers may have to wait behind our waiting for a lock."""
APPLIED_COLUMN = "xbvault_applied"


def locked_snapshot_sql(position: str) -> tuple[str, ...]:
    """Return the statements that open a consistent snapshot, with a query about its position.

    Only under a lock do snapshot and position belong together; it is held for a moment. Waiting for
    it is bounded, because everybody who writes waits behind it.
    """
    return (
        f"SET SESSION lock_wait_timeout = {SNAPSHOT_LOCK_SECONDS}",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "FLUSH TABLES WITH READ LOCK",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        position,
        "UNLOCK TABLES",
    )


CASCADES_SQL: Final = (
    "SELECT HEX(CONSTRAINT_SCHEMA) AS of_schema, HEX(TABLE_NAME) AS of_table, "
    "HEX(UNIQUE_CONSTRAINT_SCHEMA) AS to_schema, HEX(REFERENCED_TABLE_NAME) AS to_table "
    "FROM information_schema.REFERENTIAL_CONSTRAINTS "
    "WHERE NOT (UPDATE_RULE IN ('RESTRICT', 'NO ACTION') AND DELETE_RULE IN ('RESTRICT', 'NO ACTION'))"
)
"""Foreign keys that change rows of their own table."""


def _decode_part(column: str, part: int) -> str:
    """Return the expression for schema (1) or table (-1) in a name as InnoDB has it."""
    name = f"CAST(SUBSTRING_INDEX({column}, '/', {part}) AS BINARY)"
    return f"HEX(CONVERT(CONVERT({name} USING filename) USING utf8mb4))"


INNODB_CASCADES_SQL: Final = (
    f"SELECT {_decode_part('FOR_NAME', 1)} AS of_schema, {_decode_part('FOR_NAME', -1)} AS of_table, "
    f"{_decode_part('REF_NAME', 1)} AS to_schema, {_decode_part('REF_NAME', -1)} AS to_table "
    "FROM information_schema.INNODB_SYS_FOREIGN WHERE TYPE & 15 <> 0"
)
"""The same where the other view shows an account with SELECT nothing: MariaDB, MySQL before 8.0. The
bits are those of ON DELETE and ON UPDATE with CASCADE and SET NULL."""


def account_name(run_id: str) -> str:
    """Return the name of the replication account of a run; `run_id` ends in random hex."""
    return f"xbvault_{run_id.rpartition('-')[2]}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
    """A host's programs, each by its name or its path.

    Attributes:
        client: Takes SQL on stdin.
        server: Is asked for its version.
        backup: Writes, prepares and puts back backup sets.
        stream: Extracts a stream.
        print_defaults: Says what stands in option files.
        binlog: Reads binary logs; only their archives and a replay need it.
    """

    client: str
    server: str
    backup: str
    stream: str
    print_defaults: str
    binlog: str

    @property
    def names(self) -> tuple[str, ...]:
        """All that a recipient must have."""
        own = (self.client, self.server, self.backup, self.stream, self.print_defaults)
        return (*own, *COMMON_PROGRAMS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetFiles:
    """Names of the metadata files in a backup set.

    Attributes:
        info: Written last, so a stream without it was cut.
        checkpoints: Kind of the set and its log sequence numbers.
        binlog_info: Binary log coordinates.
        slave_info: What the donor itself replicates from; written where it is asked for.
        keys: Keys that the tool has sealed under the transition key; empty where it has none.
    """

    info: str
    checkpoints: str
    binlog_info: str
    slave_info: str
    keys: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upstream:
    """What the donor itself replicates from, and up to where the set has it.

    Attributes:
        channel: Name of the channel; empty for the default one.
        coordinates: Where to go on; without a file where GTIDs say it.
        uses_gtid: Whether the donor asks its source for GTIDs.
    """

    channel: str
    coordinates: Coordinates
    uses_gtid: bool


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplicationStatus:
    """What a replica says of a source.

    Attributes:
        host: The source's name or address.
        port: The source's port.
        user: The account that it logs in with.
        io: Whether events are fetched: ``Yes``, ``No``, ``Connecting``.
        sql: Whether events are applied: ``Yes``, ``No``.
        io_errno: Number of the last error in fetching; ``0`` if none.
        io_error: Its words.
        sql_error: Words of the last error in applying.
        seconds_behind: Delay; -1 when unknown.
        uses_gtid: Whether the source is asked for GTIDs.
        uses_tls: Whether the connection is encrypted and the certificate verified.
        applied_file: The source's binary log up to which events are applied.
        applied_position: Position in it.
        channel: Name of the channel; empty for the default one.
        source_id: The source's server_id; ``0`` before it ever answered.
        source_uuid: The source's server_uuid; empty where there is none, or it is not known.
        delay_seconds: How long events are held back on purpose.
    """

    host: str
    port: str
    user: str
    io: str
    sql: str
    io_errno: str
    io_error: str
    sql_error: str
    seconds_behind: int
    uses_gtid: bool
    uses_tls: bool
    applied_file: str
    applied_position: str
    channel: str = ""
    source_id: str = ""
    source_uuid: str = ""
    delay_seconds: int = 0

    @property
    def is_stopped(self) -> bool:
        """Whether nothing is fetched, or nothing applied, until somebody starts it."""
        return "No" in (self.io, self.sql)

    @property
    def is_off(self) -> bool:
        """Whether all of it is stopped, as on a server that is no replica any more."""
        return self.io == self.sql == "No"


class Dialect(abc.ABC):
    """The SQL of one version of a kind of server.

    Attributes:
        source_word: How columns and statements call the source.
        replica_word: How they call the replica.
        takes_password_hash: Whether accounts are made by hash, because the clear password would be
            logged.
        tables_sql: Base tables: table_schema and table_name (HEX), engine, bytes.
        columns_sql: Columns: table_schema, table_name, column_name (HEX), is_generated (NEVER or
            else).
        summary_sql: bytes of all tables, user_schemas.
        encryption_sql: Encrypted tablespaces: name (HEX); and key_id, min_key_version and rotating
            where each has a key of its own.
        tablespaces_sql: All tablespaces: name (HEX).
        keyring_sql: name and status of what gives the server its keys.
        replicas_sql: host of whoever reads the binary log now.
        unquoted_sql: Tables that the backup tool would fail at; empty if it never does.
        datafiles_sql: path (HEX) of data files that may lie outside of the data directory; empty where
            the backup tool takes such along.
        events_sql: event_schema, event_name, definer (HEX), status.
        position_sql: The donor's position of now; `read_position` takes the answer's row.
        binlog_sql: File: the binary log that is being written.
        applied_sql: pos: what the replica has applied.
        disable_event: What disables an event on a replica.
        cascades_sql: Foreign keys that change rows of their own table: of_schema and of_table, to_schema
            and to_table (HEX).
        fresh_logs_sql: Stops replication and begins the binary logs anew.
        forget_source_sql: Stops replication for good.
        logs_updates: The variable that says whether a replica logs what it applies.
        upstream_gtid_sql: xbvault_applied: the GTID position up to which a snapshot that is open has
            what was replicated.
        lsn_sql: The log sequence number of now; `read_lsn` takes the answer's row.
        tells_gtid_at: Whether the server tells the GTID state at a place of its binary log.
    """

    source_word: str
    replica_word: str
    takes_password_hash: bool
    tables_sql: str
    columns_sql: str
    summary_sql: str
    encryption_sql: str
    tablespaces_sql: str
    keyring_sql: str
    replicas_sql: str
    unquoted_sql: str
    datafiles_sql: str
    events_sql: str
    position_sql: str
    binlog_sql: str
    applied_sql: str
    disable_event: str
    cascades_sql: str
    fresh_logs_sql: str
    forget_source_sql: str
    logs_updates: str
    upstream_gtid_sql: str
    lsn_sql: str
    tells_gtid_at: ClassVar[bool]

    @property
    def status_sql(self) -> str:
        """The state of replication, one row a source."""
        return f"SHOW {self.replica_word.upper()} STATUS"

    @property
    def sources_sql(self) -> str:
        """The state of replication, one row for each channel."""
        return self.status_sql

    @property
    def stop_sql(self) -> str:
        """Stops replication."""
        return f"STOP {self.replica_word.upper()}"

    @property
    def start_sql(self) -> str:
        """Starts replication."""
        return f"START {self.replica_word.upper()}"

    @property
    def stop_applier_sql(self) -> str:
        """Stops applying, and goes on fetching."""
        return f"STOP {self.replica_word.upper()} SQL_THREAD"

    @abc.abstractmethod
    def read_position(self, row: Mapping[str, str]) -> str:
        """Return the donor's position from the answer to `position_sql`."""

    @abc.abstractmethod
    def read_lsn(self, row: Mapping[str, str]) -> int:
        """Return the log sequence number from the answer to `lsn_sql`.

        Raises:
            VerificationError: It tells none.
        """

    def count_transactions(self, _earlier: str, _later: str) -> int | None:
        """Return how many transactions lie between two GTID positions; None where they do not tell."""
        return None

    @abc.abstractmethod
    def list_outside(self, paths: Iterable[str], *, datadir: str) -> tuple[str, ...]:
        """Return the data files, of those that `datafiles_sql` tells, that lie outside."""

    @abc.abstractmethod
    def wait_sql(self, position: str) -> str:
        """Return the query that waits a second for a position; ``reached`` is 0 when it is."""

    @abc.abstractmethod
    def until_sql(self, file: str, position: int) -> str:
        """Return the statement that applies events up to a position of the source."""

    @abc.abstractmethod
    def until_gtid_sql(self, gtid: str) -> str:
        """Return the statement that applies events up to a GTID position; both threads must stand."""

    @abc.abstractmethod
    def reach_sql(self, position: Coordinates) -> str:
        """Return the query that waits a second until a replica has applied a source's position.

        It goes by GTID where the position has one; ``reached`` is 0 when it is.
        """

    def upstream_snapshot_sql(self, *, by_gtid: bool) -> tuple[str, ...]:
        """Return the statements that open a replica's snapshot and say where it stands.

        Args:
            by_gtid: Whether that is to be a GTID; otherwise it is a position of its source, which
                belongs to the snapshot only under a lock.
        """
        if by_gtid:
            return ("START TRANSACTION WITH CONSISTENT SNAPSHOT", self.upstream_gtid_sql)
        return locked_snapshot_sql(self.status_sql)

    def read_upstream_snapshot(self, text: str, *, by_gtid: bool) -> Coordinates:
        """Return the position in the client's output; an empty one if it is not there."""
        lines = text.split("\n")
        for head, line in itertools.pairwise(lines):
            if by_gtid and head == APPLIED_COLUMN:
                return Coordinates(file="", position=0, gtid="" if line == "NULL" else line)
            row = dict(zip(head.split("\t"), line.split("\t"), strict=False))
            file = row.get(f"Relay_{self.source_word}_Log_File", "")
            position = row.get(f"Exec_{self.source_word}_Log_Pos", "")
            if not by_gtid and file and numerals.is_whole(position):
                return Coordinates(file=file, position=numerals.parse_whole(position), gtid="")
        return Coordinates(file="", position=0, gtid="")

    @abc.abstractmethod
    def snapshot_sql(self) -> tuple[str, ...]:
        """Return the statements that open a consistent snapshot and say its position."""

    @abc.abstractmethod
    def read_snapshot(self, text: str) -> tuple[str, int]:
        """Return file and position from the client's output; empty and 0 if they are not there."""

    @abc.abstractmethod
    def open_sql(self, statement: str) -> str:
        """Return one line that runs a statement given as text, whatever is in its names."""

    @abc.abstractmethod
    def account_sql(self, user: str, host: str) -> tuple[str, str]:
        """Return the statements that make a replica's account, before and after its password."""

    @abc.abstractmethod
    def change_source_sql(
        self, plan: Plan, coordinates: Coordinates, *, use_gtid: bool, user: str, ca_file: str
    ) -> tuple[str, str]:
        """Return the statements that wire replication, before and after the password."""

    @abc.abstractmethod
    def uses_gtid(self, row: Mapping[str, str]) -> bool:
        """Return whether a row of `status_sql` says that GTIDs are asked for."""

    def read_status(self, row: Mapping[str, str]) -> ReplicationStatus:
        """Return what a row of the answer to `status_sql` says.

        Raises:
            VerificationError: It is no such row.
        """
        source, replica = self.source_word, self.replica_word
        behind = row.get(f"Seconds_Behind_{source}", "NULL")
        delay = row.get("SQL_Delay", "0")
        return ReplicationStatus(
            host=row[f"{source}_Host"],
            port=row[f"{source}_Port"],
            user=row[f"{source}_User"],
            io=row.get(f"{replica}_IO_Running", ""),
            sql=row.get(f"{replica}_SQL_Running", ""),
            io_errno=row.get("Last_IO_Errno", "0"),
            io_error=row.get("Last_IO_Error", ""),
            sql_error=row.get("Last_SQL_Error", ""),
            seconds_behind=numerals.parse_whole(behind) if numerals.is_whole(behind) else -1,
            uses_gtid=self.uses_gtid(row),
            uses_tls=row.get(f"{source}_SSL_Allowed") == "Yes"
            and row.get(f"{source}_SSL_Verify_Server_Cert") == "Yes",
            applied_file=row.get(f"Relay_{source}_Log_File", ""),
            applied_position=row.get(f"Exec_{source}_Log_Pos", ""),
            channel=row.get("Channel_Name") or row.get("Connection_name") or "",
            source_id=row.get(f"{source}_Server_Id", ""),
            source_uuid=row.get(f"{source}_UUID", ""),
            delay_seconds=numerals.parse_whole(delay) if numerals.is_whole(delay) else 0,
        )


class Flavor(abc.ABC):
    """A kind of server, with its backup tool.

    Attributes:
        name: As the configuration says it.
        label: As its users say it.
        own: Its programs, where a host names no others.
        config_dir: Where its drop-ins lie, if the host does not say.
        unit: Its systemd unit, if the host does not say.
        packages: What brings the programs.
        keyrings: What can give the server its keys.
        option_groups: Groups of option files that every server reads.
        series_groups: Prefixes of the groups that only servers of a series read.
        client_groups: Groups of option files that the client reads.
        socket_environment: What is set for the client where it connects by socket.
        carries_keys: Whether the backup tool carries the tablespace keys itself, sealed under the
            transition key; otherwise they travel in a bundle of ours.
        prepared_types: What a prepared set may call itself.
        default_event_scheduler: Whether it runs where no option says so: ``ON`` or ``OFF``.
        accounts_table: Where User and Host of every account stand.
        variables_sql: name and value of the variables that preflight looks at.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    own: ClassVar[Programs]
    config_dir: ClassVar[str]
    unit: ClassVar[str]
    packages: ClassVar[str]
    keyrings: ClassVar[str]
    option_groups: ClassVar[tuple[str, ...]]
    series_groups: ClassVar[tuple[str, ...]]
    client_groups: ClassVar[tuple[str, ...]]
    socket_environment: ClassVar[tuple[str, ...]]
    carries_keys: ClassVar[bool]
    prepared_types: ClassVar[tuple[str, ...]]
    default_event_scheduler: ClassVar[str]
    accounts_table: ClassVar[str]
    variables_sql: ClassVar[str]

    def programs(self, host: HostConfig) -> Programs:
        """Return the programs of a host."""
        named = host.programs
        return Programs(
            client=named.client or self.own.client,
            server=named.server or self.own.server,
            backup=named.backup or self.own.backup,
            stream=named.stream or self.own.stream,
            print_defaults=named.print_defaults or self.own.print_defaults,
            binlog=named.binlog or self.own.binlog,
        )

    @abc.abstractmethod
    def trust_options(self, version: str, ca_file: str) -> list[str]:
        """Return the client's options for TLS that trusts whom a replica would trust.

        Args:
            version: Of the server that the replica will be.
            ca_file: What the source's certificate is checked with; empty where the host names none.
        """

    @abc.abstractmethod
    def dialect(self, version: str) -> Dialect:
        """Return the SQL that a server of this version speaks."""

    @abc.abstractmethod
    def list_file_sets(self, values: Mapping[str, str], *, datadir: str) -> tuple[FileSet, ...]:
        """Return the kinds of files that can lie outside of the data directory.

        Args:
            values: A running server's variables, or the options of its option files.
            datadir: Where relative paths begin.
        """

    @abc.abstractmethod
    def list_unlogged(self, options: Mapping[str, str], version: str) -> list[str]:
        """Return the options that keep a server from logging what it replicates."""

    @abc.abstractmethod
    def has_gtid(self, variables: Mapping[str, str]) -> bool:
        """Return whether a running server's variables say that its sets will have a GTID position."""

    @abc.abstractmethod
    def read_server_version(self, text: str) -> str:
        """Return the version that the server's ``--version`` names; empty if none."""

    @abc.abstractmethod
    def read_tool_version(self, text: str) -> str:
        """Return the version that the backup tool's ``--version`` names; empty if none."""

    @abc.abstractmethod
    def judge_tool(self, server_version: str, tool_version: str) -> str:
        """Return why this backup tool does not fit this server; empty if it does."""

    @abc.abstractmethod
    def judge_versions(self, donor: str, recipient: str) -> str:
        """Return why the recipient's server cannot take the donor's data; empty if it can."""

    @abc.abstractmethod
    def judge_tools(self, donor: str, recipient: str) -> str:
        """Return why the recipient's backup tool cannot take the set of the donor's; empty if it can."""

    @abc.abstractmethod
    def set_files(self, version: str) -> SetFiles:
        """Return the names of a set's metadata files, by the server's version."""

    @abc.abstractmethod
    def read_coordinates(self, text: str) -> Coordinates:
        """Return the coordinates in the set's file of them.

        Raises:
            VerificationError: It is not of this form, or was cut.
        """

    @abc.abstractmethod
    def read_upstreams(self, text: str) -> tuple[Upstream, ...]:
        """Return what the set's file of them says of the donor's own sources.

        Raises:
            VerificationError: It is not of this form, was cut, or names no source.
        """

    @abc.abstractmethod
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
        """Return the command that writes a backup as a stream to stdout.

        Args:
            programs: The donor's.
            parallel: Copy threads.
            tmp_dir: Where it may put what it needs in between.
            socket: The server's socket; empty for the tool's own default.
            defaults_file: The administrator's client options; empty for none.
            options_file: Options that a run has written, with the transition key; empty where the
                tool takes none.
            slave_info: Whether to record what the donor itself replicates from, and up to where.
            extra_dir: Where it leaves a copy of the set's checkpoints and information; empty:
                nowhere.
            from_lsn: Log sequence number from which the changes are wanted; 0 for everything.
            is_shared: Whether several recipients share the reading, which takes longer then.
        """

    @abc.abstractmethod
    def extract_command(
        self, programs: Programs, *, parallel: int, staging_dir: str
    ) -> tuple[str, ...]:
        """Return the command that extracts a stream from stdin."""

    @abc.abstractmethod
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
        """Return the command that makes a set consistent.

        Args:
            programs: The recipient's.
            staging_dir: The set.
            memory_bytes: What it may use.
            options_file: Options that a run has written; empty where the tool takes none.
            increment_dir: An incremental set that is put into it, once it is consistent itself;
                empty for none.
            has_more: Whether another one comes behind this one.
        """

    @abc.abstractmethod
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
        """Return the command that puts a prepared set into a new data directory.

        Args:
            programs: The recipient's.
            staging_dir: The set.
            new_datadir: An empty directory.
            parallel: Copy threads.
            rekey: Whether the tool makes a new master key, so that the set must stay whole.
            options_file: Options that a run has written; empty where the tool takes none.
        """

    def read_prepare_progress(self, words: str) -> dict[str, int]:
        """Return how far a prepare says that it is; where it is not known to tell, nothing.

        Args:
            words: The last lines that the tool wrote to stderr.
        """
        return {}

    def find_contradictions(self, words: str) -> tuple[str, ...]:
        """Return what the tool wrote that belies its own good end; where none is known, nothing."""
        return ()

    @abc.abstractmethod
    def read_failed_start(self, text: str) -> FailedStart:
        """Return what the last start in a server's log says."""

    @abc.abstractmethod
    def quiet_drop_in(
        self,
        *,
        run_id: str,
        version: str,
        vault_url: str = "",
        ignored_directories: tuple[str, ...] = (),
    ) -> str:
        """Return the option file of a new replica that must stay quiet.

        Args:
            run_id: For the reader of the file.
            version: The server's.
            vault_url: Where its keys are, while that is not the host's own mount.
            ignored_directories: Names in the data directory that are no schemas, although the
                server (and the backup tool, which reads this file too) would take them for such.
        """

    @abc.abstractmethod
    def released_drop_in(
        self,
        *,
        run_id: str,
        version: str,
        read_only: bool,
        is_replica: bool = True,
        ignored_directories: tuple[str, ...] = (),
    ) -> str:
        """Return the option file that a released server keeps.

        Args:
            run_id: The run, for the reader.
            version: Of the server.
            read_only: Whether it refuses writes of ordinary accounts.
            is_replica: Whether it replicates; one that does not and is read-only runs no events.
            ignored_directories: As of a quiet one.
        """
