"""What the steps ask of a kind of server. Pure.

A `Flavor` has what holds for every version: programs, option groups, commands, file names. Its
`Dialect` has the SQL of one version.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from typing import TYPE_CHECKING, ClassVar

from orchestrator import numerals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.config import HostConfig
    from orchestrator.flavors.file_sets import FileSet
    from orchestrator.models import Coordinates, Plan

DROP_IN = "zz-xbvault.cnf"
"""Read last, because drop-ins are read in alphabetical order."""
COMMON_PROGRAMS = ("pv", "flock")
DONOR_PROGRAMS = ("ssh", "ssh-keygen")
SYSTEM_SCHEMAS = ("mysql", "sys", "information_schema", "performance_schema")


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
    """

    client: str
    server: str
    backup: str
    stream: str
    print_defaults: str

    @property
    def names(self) -> tuple[str, ...]:
        """All that a recipient must have."""
        return (*dataclasses.astuple(self), *COMMON_PROGRAMS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetFiles:
    """Names of the metadata files in a backup set.

    Attributes:
        info: Written last, so a stream without it was cut.
        checkpoints: Kind of the set and its log sequence numbers.
        binlog_info: Binary log coordinates.
        keys: Keys that the tool has sealed under the transition key; empty where it has none.
    """

    info: str
    checkpoints: str
    binlog_info: str
    keys: str = ""


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
    """What a replica says of its one source.

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
        applied_sql: pos: what the replica has applied.
        disable_event: What disables an event on a replica.
        fresh_logs_sql: Stops replication and begins the binary logs anew.
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
    applied_sql: str
    disable_event: str
    fresh_logs_sql: str

    @property
    def status_sql(self) -> str:
        """The state of replication, one row a source."""
        return f"SHOW {self.replica_word.upper()} STATUS"

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
    def list_outside(self, paths: Iterable[str], *, datadir: str) -> tuple[str, ...]:
        """Return the data files, of those that `datafiles_sql` tells, that lie outside."""

    @abc.abstractmethod
    def wait_sql(self, position: str) -> str:
        """Return the query that waits a second for a position; ``reached`` is 0 when it is."""

    @abc.abstractmethod
    def until_sql(self, file: str, position: int) -> str:
        """Return the statement that applies events up to a position of the source."""

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
        carries_keys: Whether the backup tool carries the tablespace keys itself, sealed under the
            transition key; otherwise they travel in a bundle of ours.
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
    carries_keys: ClassVar[bool]
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
        )

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
    def backup_command(
        self,
        programs: Programs,
        *,
        parallel: int,
        tmp_dir: str,
        socket: str,
        defaults_file: str,
        options_file: str,
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
        """

    @abc.abstractmethod
    def extract_command(
        self, programs: Programs, *, parallel: int, staging_dir: str
    ) -> tuple[str, ...]:
        """Return the command that extracts a stream from stdin."""

    @abc.abstractmethod
    def prepare_command(
        self, programs: Programs, *, staging_dir: str, memory_bytes: int, options_file: str
    ) -> tuple[str, ...]:
        """Return the command that makes a set consistent."""

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
        ignored_directories: tuple[str, ...] = (),
    ) -> str:
        """Return the option file that a released replica keeps."""
