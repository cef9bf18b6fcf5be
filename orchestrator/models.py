"""The nouns, as frozen dataclasses, and `Secret`.

Nothing here reaches out. What a step needs from the outside is read by `facts/`.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, NoReturn, Self, TypeVar

if typing.TYPE_CHECKING:
    import re

T = TypeVar("T")

CLONE = "clone"
BACKUP = "backup"
RESTORE = "restore"
COPY = "copy"
DRILL = "drill"
DRILL_CLONE = "drill-clone"
ARCHIVE = "archive"
"""Forms of runs."""
RESTORES = (RESTORE, DRILL)
"""Those that bring a stored backup set back."""
DRILLS = (DRILL, DRILL_CLONE)
"""Those that give the host back what it had."""
CLONES = (CLONE, DRILL_CLONE)
"""Those that stream from a donor to a recipient."""
COPIES = (*CLONES, *RESTORES)
"""Those that give a recipient another datadir."""
STORING = (BACKUP, COPY, ARCHIVE)
"""Those that store a set in a repository."""
STATE_DIR = "/var/lib/xbvault"
"""Root-owned folder on a host with what runs must remember there."""

_KNOWN_VALUES: set[str] = set()
MASK = "***"
_SHORTEST_KNOWN = 6
"""Shorter values are not redacted by value: they would blot out ordinary words."""


class Secret:
    """A value that must not be printed, logged, journalled or put on a command line.

    `repr`, `str` and `format` give ``Secret(***)`` and pickling raises. Only `remote`,
    `vault`, `bundle` and `keys` call `reveal`; a contract test looks for it. Every value is
    remembered (in memory only), so that the log can blot it out wherever it shows up.

    Args:
        value: The clear value.
    """

    __slots__ = ("_masked", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._masked = MASK
        if len(value) >= _SHORTEST_KNOWN:
            _KNOWN_VALUES.add(value)

    def reveal(self) -> str:
        """Return the clear value."""
        return self._value

    def is_made_of(self, pattern: re.Pattern[str]) -> bool:
        """Return whether a pattern matches the whole value, for it must stand in a file."""
        return pattern.fullmatch(self._value) is not None

    @classmethod
    def join(cls, *parts: str | Secret) -> Self:
        """Put clear text and secrets together to one secret, such as an SQL statement.

        The whole is not remembered for redaction, for its parts already are.
        """
        whole = cls("")
        whole._value = "".join(p.reveal() if isinstance(p, Secret) else p for p in parts)
        whole._masked = "".join(p.masked if isinstance(p, Secret) else p for p in parts)
        return whole

    @property
    def masked(self) -> str:
        """For a reader: the clear text that it was joined of, and ``***`` for each secret."""
        return self._masked

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")


def known_secret_values() -> frozenset[str]:
    """Return every clear value that this process has met, for redaction and leak tests."""
    return frozenset(_KNOWN_VALUES)


def forget_secret_values(*, keep: frozenset[str]) -> None:
    """Forget the values of secrets but those of an earlier `known_secret_values`; for tests."""
    _KNOWN_VALUES.intersection_update(keep)


def as_json(value: Any) -> Any:
    """Return a frozen dataclass (or a collection of them) as plain JSON values.

    Raises:
        TypeError: It holds a `Secret`, or something that JSON has no form for.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"not a JSON value: {type(value).__name__}")


def from_json(cls: type[T], document: Any) -> T:
    """Return the frozen dataclass that `as_json` described; what it does not know is left out.

    Raises:
        ValueError: The document does not describe one.
    """
    made: T = _build(cls, document)
    return made


def _build(hint: Any, document: Any) -> Any:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        given = _need(dict, document)
        found = {
            f.name: _build(hints[f.name], given[f.name])
            for f in dataclasses.fields(hint)
            if f.name in given
        }
        try:
            return hint(**found)
        except TypeError as error:  # a field is missing
            raise ValueError(f"no {hint.__name__}: {error}") from error
    if origin in (typing.Union, types.UnionType):
        if document is None:
            return None
        return _build(next(a for a in arguments if a is not type(None)), document)
    if origin is tuple:
        return tuple(_build(arguments[0], item) for item in _need(list, document))
    if origin is dict:
        return {key: _build(arguments[1], item) for key, item in _need(dict, document).items()}
    is_plain = hint in (str, int, bool, float)
    return _need((int, float) if hint is float else hint, document) if is_plain else document


def _need(kind: type | tuple[type, ...], document: Any) -> Any:
    is_truth = isinstance(document, bool) and kind is not bool
    if is_truth or not isinstance(document, kind):
        raise ValueError(f"a value is of kind {type(document).__name__}")
    return document


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One finding, with what it was concluded from.

    Attributes:
        name: From the fixed list in ``docs/reference/checks.md``.
        ok: Whether it holds.
        evidence: What was seen, in one line.
        host: Where, when on one host.
        hint: What to do when it does not hold.
    """

    name: str
    ok: bool
    evidence: str
    host: str = ""
    hint: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coordinates:
    """A position in the donor's binary log, as the backup tool recorded it.

    Attributes:
        file: Name of the binary log file.
        position: Offset in bytes.
        gtid: GTID position (MariaDB) or set (MySQL); empty where there is none.
    """

    file: str
    position: int
    gtid: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyVersions:
    """What a run knows of one key id in three mounts (design, "key by key", 3).

    Attributes:
        key_id: Name of the secret, a decimal number.
        donor: Newest version in the donor's mount (n).
        own: Newest version in the recipient's own mount before the run (m); 0 if none.
    """

    key_id: str
    donor: int
    own: int

    @property
    def padded(self) -> int:
        """Both mounts are filled up to here with random placeholders."""
        return max(self.donor, self.own)

    @property
    def first_new(self) -> int:
        """The first of the two new versions; pages below it are still under older keys."""
        return self.padded + 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """A directory that gets new content at the swap.

    Attributes:
        what: For the reader, such as ``binary logs``.
        path: Where the server wants its files; no part of it is a symbolic link.
        old: Where the earlier ones are set aside.
        new: Where the new ones wait for the swap.
        is_whole: The directory itself is renamed; otherwise what lies in it is.
        patterns: Of the entries that are the server's, in the form of `fnmatch`.
        left_alone: Names of entries that stay whatever the patterns say.
    """

    what: str
    path: str
    old: str
    new: str
    is_whole: bool
    patterns: tuple[str, ...] = ("*",)
    left_alone: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What every run needs to know, fixed before anything is touched. It holds no secret.

    Attributes:
        form: Kind of run: which class of plan it is, and which steps take it.
        run_id: Name of the run; sortable; fit for file names, Vault paths and SQL comments.
        backup_id: Name of the backup set and of its transition key.
        donor: Host that the data comes from.
        recipient: Host that gets it.
        flavor: ``mariadb`` or ``mysql``.
        server_version: The donor's, such as ``10.11.19``.
        tool_version: The donor's backup tool's.
        keyring: Of those that a backup tool writes to; empty for none. The recipient's in a clone.
        donor_mount: The donor's KV mount.
        has_keyring: Whether the donor has keys to carry over.
        parallel: Copy threads.
        expected_bytes: Size of the donor's data, for progress; an estimate.
        expected_stream_bytes: The same of the stream, where it is compressed; 0 where it is not.
        throttle: Most bytes per second of the stream; 0 for no bound.
        nice: Whether the donor's server comes before its backup tool and compressor.
        compress: How the stream is compressed: ``none`` or ``zstd:LEVEL``.
        compress_reason: What that was concluded from.
        relay: Whether the stream goes through the orchestrator's machine.
        ciphers: For OpenSSH, the best first; empty for those that a run takes by itself.
        commands: For the reader: the commands that will run, by step.
        group_runs: The runs that share one reading of the donor, and one transition key, this one
            included; empty for a run alone.
    """

    form: str
    run_id: str
    backup_id: str
    donor: str
    recipient: str
    flavor: str
    server_version: str
    donor_mount: str
    parallel: int
    tool_version: str = ""
    keyring: str = ""
    has_keyring: bool = True
    expected_bytes: int = 0
    expected_stream_bytes: int = 0
    throttle: int = 0
    nice: bool = False
    compress: str = "none"
    compress_reason: str = ""
    relay: bool = False
    ciphers: str = ""
    commands: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    group_runs: tuple[str, ...] = ()

    @property
    def source_host(self) -> str:
        """The host that a replica follows: the donor, where it is no other."""
        return self.donor

    @property
    def is_sibling(self) -> bool:
        """Whether the replica follows what its donor follows."""
        return False

    @property
    def lock_dir(self) -> str:
        """Folder on the recipient with the lock that this run must hold there."""
        return STATE_DIR

    @property
    def run_dir(self) -> str:
        """Root-owned folder on the recipient with what the run must remember there."""
        return f"{STATE_DIR}/runs/{self.run_id}"

    @property
    def group_dir(self) -> str:
        """Folder on the donor with what the runs of a group agree on."""
        return f"{STATE_DIR}/runs/{self.group}"

    @property
    def secret_dir(self) -> str:
        """Root-owned folder on tmpfs, on either host, for secrets in use."""
        return f"/run/xbvault/{self.run_id}"

    @property
    def key_path(self) -> str:
        """Path of the transition key, below the mount of our own records."""
        return f"transition-keys/{self.backup_id}"

    @property
    def group(self) -> str:
        """Name of what the runs of a group share; empty for a run alone."""
        return self.backup_id if self.group_runs else ""

    @property
    def record_path(self) -> str:
        """Path of the run's record, below the same mount: beside the key, unless it is shared."""
        return self.record_path_of(self.run_id)

    def record_path_of(self, run_id: str) -> str:
        """Return the path of the record of a run of the group."""
        return f"{self.key_path}.{run_id}" if self.group else self.key_path

    def job_name(self, step: str, attempt: int = 1) -> str:
        """Return the name of the remote job of a step."""
        return f"{self.run_id}.{step}" + (f".{attempt}" if attempt > 1 else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(RunPlan):
    """The plan of a clone.

    Attributes:
        datadir: The recipient's data directory, symbolic links resolved.
        staging_dir: Where the stream lands, on the datadir's filesystem.
        new_datadir: Where the prepared set is moved to.
        old_datadir: Where the recipient's earlier datadir stands after the swap.
        own_mount: The recipient's KV mount.
        source: Host that the replica follows, where that is the donor's own source; empty where it
            is the donor.
        source_version: That host's version, where it is not the donor.
        source_is_replica: Whether the host that the replica follows replicates itself.
        source_address: Name or address that the replica connects to.
        source_port: Port that the replica connects to.
        replace: Set aside whatever datadir the recipient has.
        require_encryption: Refuse a donor without a keyring.
        coordinates: ``gtid`` or ``position`` or ``auto``.
        checksums: ``all``, ``sample`` or ``none``.
        places: What the swap exchanges, the data directory first; empty where that is all, and is
            renamed as a whole.
        subfolders: Places inside the data directory; they go with it.
        server_id: The recipient's replication id.
    """

    form: str = CLONE
    datadir: str
    staging_dir: str
    new_datadir: str
    old_datadir: str
    own_mount: str
    source_address: str
    source_port: int
    replace: bool
    require_encryption: bool
    coordinates: str
    checksums: str
    places: tuple[Place, ...] = ()
    subfolders: tuple[Place, ...] = ()
    source: str = ""
    source_version: str = ""
    source_is_replica: bool = False
    server_id: str = ""

    @property
    def source_host(self) -> str:
        """The host that the replica follows: the donor, or the donor's own source."""
        return self.source or self.donor

    @property
    def is_sibling(self) -> bool:
        """Whether the replica follows what its donor follows."""
        return bool(self.source)

    @property
    def replicates(self) -> bool:
        """Whether the recipient becomes a replica."""
        return True

    @property
    def makes_account(self) -> bool:
        """Whether the run makes an account on the host that is followed."""
        return self.replicates

    @property
    def swap_places(self) -> tuple[Place, ...]:
        """What the swap exchanges, the data directory first."""
        return self.places or (
            Place(
                what="datadir",
                path=self.datadir,
                old=self.old_datadir,
                new=self.new_datadir,
                is_whole=True,
            ),
        )

    @property
    def increment_dirs(self) -> tuple[str, ...]:
        """Directories on the recipient for the incremental sets of a chain, in its order."""
        return ()

    @property
    def newest_dir(self) -> str:
        """Directory of the set that says up to where the data goes."""
        return (self.staging_dir, *self.increment_dirs)[-1]

    @property
    def account_path(self) -> str:
        """Path of the replication account of this run, below the mount of our own records."""
        return f"replication/{self.source_host}/{self.recipient}/{self.run_id}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoringPlan(RunPlan):
    """What every run needs to know that stores a set; its recipient is the repository.

    Attributes:
        set_dir: Folder of the backup set on the repository's host.
        part_bytes: Size of every part of the set but its last.
    """

    set_dir: str
    part_bytes: int

    @property
    def set_host(self) -> str:
        """Host that the set is of."""
        return self.donor

    @property
    def lock_dir(self) -> str:
        """Folder on the repository's host with the lock that is held for one host at a time."""
        return backup_lock_dir(self.set_host)

    @property
    def ledger(self) -> str:
        """File on the repository's host that says which parts are whole."""
        return f"{self.run_dir}/parts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackupPlan(StoringPlan):
    """The plan of a stored backup.

    Attributes:
        layout: The donor's directories, by the names of the server's variables; of MySQL with its
            ``server_uuid``.
        base_backup_id: The set that an incremental one builds on; empty of a full one.
        from_lsn: Log sequence number up to which that one goes; 0 of a full one.
        checksums: Tables that are summed up for the manifest: ``all``, ``sample`` or ``none``.
    """

    form: str = BACKUP
    layout: dict[str, str] = dataclasses.field(default_factory=dict)
    base_backup_id: str = ""
    from_lsn: int = 0
    checksums: str = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchivePlan(StoringPlan):
    """The plan of an archive of binary logs: those that were closed since the one before.

    Attributes:
        first_log: The oldest binary log that is to be stored.
        follows: The archive that it goes on from; empty where a new chain begins.
    """

    form: str = ARCHIVE
    first_log: str
    follows: str = ""

    @property
    def lock_dir(self) -> str:
        """Folder with a lock of its own: a long backup does not hold up the archives."""
        return archive_lock_dir(self.donor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopyPlan(StoringPlan):
    """The plan of a copy of a stored set; its donor is the repository that has it.

    Attributes:
        source_dir: Folder of the set on that repository's host.
        made_of: Host that the set was made of.
        parts: How many parts it has.
        stored_bytes: Size of all parts.
        to_lsn: Log sequence number up to which it goes.
    """

    form: str = COPY
    source_dir: str
    made_of: str
    parts: int
    stored_bytes: int
    to_lsn: int

    @property
    def set_host(self) -> str:
        """Host that the set is of."""
        return self.made_of

    def record_path_of(self, run_id: str) -> str:
        """Return the path of the record of a run: beside that of the set, which outlives it."""
        return f"{self.key_path}.{run_id}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSet:
    """An archive of binary logs that a restore replays.

    Attributes:
        backup_id: Its name.
        parts: How many parts it has.
        stored_bytes: Size of all parts.
        compress: Of its stream, before it was encrypted: ``none`` or ``zstd:LEVEL``.
        logs: Its binary logs and their sizes in bytes, in order.
    """

    backup_id: str
    parts: int
    stored_bytes: int
    compress: str
    logs: tuple[StoredLog, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredLog:
    """A binary log in an archive.

    Attributes:
        name: The server's name for it.
        bytes: Its size.
    """

    name: str
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """What a restore replays on top of its set.

    Attributes:
        at: Up to where: a moment in ISO 8601, a GTID, or ``latest``.
        sets: The archives, in order.
        first: Binary log that the set's coordinates name.
        position: Theirs, in bytes.
        last: Binary log in which the end is.
    """

    at: str
    sets: tuple[LogSet, ...]
    first: str
    position: int
    last: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseSet:
    """A backup set that the restored one builds on.

    Attributes:
        backup_id: Its name.
        parts: How many parts it has.
        stored_bytes: Size of all parts.
        compress: Of its stream, before it was encrypted: ``none`` or ``zstd:LEVEL``.
        from_lsn: Log sequence number from which it has the changes; 0 of the full one.
        to_lsn: Log sequence number up to which it goes.
    """

    backup_id: str
    parts: int
    stored_bytes: int
    compress: str
    from_lsn: int
    to_lsn: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestorePlan(Plan):
    """The plan of a restore: its donor is the repository, and its set was there before.

    Attributes:
        set_dir: Folder of the backup set on the repository's host.
        set_host: Host that the set was made of.
        part_bytes: Size of every part of the set but its last.
        parts: How many parts the set has.
        stored_bytes: Size of all parts.
        to_lsn: Log sequence number up to which the set goes.
        ended_at: The moment whose state it has, ISO 8601 in UTC.
        read_only: Whether the restored server refuses writes of ordinary accounts.
        replay: What is replayed on top of the set; None for the set alone.
        from_lsn: Log sequence number from which an incremental set has the changes; 0 of a full one.
        bases: The sets that an incremental one builds on, the full one first; empty of a full one.
    """

    form: str = RESTORE
    set_dir: str
    set_host: str
    part_bytes: int
    parts: int
    stored_bytes: int
    to_lsn: int
    ended_at: str
    read_only: bool = False
    replay: Replay | None = None
    from_lsn: int = 0
    bases: tuple[BaseSet, ...] = ()

    @property
    def chain(self) -> tuple[BaseSet, ...]:
        """What the data comes from: the full set first, the restored one last."""
        own = BaseSet(
            backup_id=self.backup_id,
            parts=self.parts,
            stored_bytes=self.stored_bytes,
            compress=self.compress,
            from_lsn=self.from_lsn,
            to_lsn=self.to_lsn,
        )
        return (*self.bases, own)

    @property
    def chain_bytes(self) -> int:
        """Size of all parts of the chain."""
        return sum(each.stored_bytes for each in self.chain)

    @property
    def fetched_bytes(self) -> int:
        """Size of all parts that come over: those of the chain, then those of the archives."""
        return self.chain_bytes + sum(each.stored_bytes for each in self.log_sets)

    @property
    def fetched_parts(self) -> int:
        """Number of these parts."""
        of_chain = sum(each.parts for each in self.chain)
        return of_chain + sum(each.parts for each in self.log_sets)

    @property
    def increment_dirs(self) -> tuple[str, ...]:
        """Directories on the recipient for the incremental sets of the chain, in its order."""
        return tuple(f"{self.staging_dir}-increment-{n}" for n in range(1, len(self.chain)))

    @property
    def repository_dir(self) -> str:
        """Directory of the repository on its host."""
        return self.set_dir.rpartition("/")[0]

    @property
    def log_sets(self) -> tuple[LogSet, ...]:
        """The archives that are replayed."""
        return self.replay.sets if self.replay else ()

    @property
    def logs_file(self) -> str:
        """File on the recipient that keeps the parts of the archives, encrypted as they are."""
        return f"{self.staging_dir}-binlogs.age"

    @property
    def is_sibling(self) -> bool:
        """Whether the replica follows what its donor follows: not that of a set."""
        return False

    @property
    def replicates(self) -> bool:
        """Whether the recipient becomes a replica: only where a source was named."""
        return bool(self.source)

    @property
    def is_homecoming(self) -> bool:
        """Whether the set goes back to the host that it was made of."""
        return self.set_host == self.recipient

    def record_path_of(self, run_id: str) -> str:
        """Return the path of the record of a run: beside that of the set, which outlives it."""
        return f"{self.key_path}.{run_id}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrillPlan(RestorePlan):
    """The plan of a drill: a restore to a scratch host that nobody is to use.

    Attributes:
        live_host: Host that the set was made of, to be asked how far it has come since; empty where
            it is not configured, or is the scratch host.
        keep: Whether the restored server stays; else the host gets back what it had.
        report_dir: Directory on the orchestrator's machine that the report goes to.
        replicate_seconds: How long the restored server follows the live host once all else is proved;
            0 for not at all.
    """

    form: str = DRILL
    live_host: str
    keep: bool
    report_dir: str
    replicate_seconds: int = 0

    @property
    def source_host(self) -> str:
        """The host that the set was made of, which a step asks, and which may be followed for a while."""
        return self.live_host or self.donor

    @property
    def replicates(self) -> bool:
        """Whether the recipient becomes a replica: not to stay one."""
        return False

    @property
    def makes_account(self) -> bool:
        """Whether the run makes an account on the host that is followed."""
        return self.replicate_seconds > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloneDrillPlan(Plan):
    """The plan of the drill of a clone: onto a scratch host that nobody is to use.

    Attributes:
        report_dir: Directory on the orchestrator's machine that the report goes to.
        replicate_seconds: How long the clone follows its donor once all else is proved; 0 for not at
            all.
    """

    form: str = DRILL_CLONE
    report_dir: str
    replicate_seconds: int = 0

    @property
    def keep(self) -> bool:
        """Whether the clone stays: it never does."""
        return False

    @property
    def set_host(self) -> str:
        """Host that the backup set is made of."""
        return self.donor

    @property
    def replicates(self) -> bool:
        """Whether the recipient becomes a replica: not to stay one."""
        return False

    @property
    def makes_account(self) -> bool:
        """Whether the run makes an account on the donor."""
        return self.replicate_seconds > 0


AnyDrill = DrillPlan | CloneDrillPlan
"""Of either."""


def backup_lock_dir(donor: str) -> str:
    """Return the folder on a repository's host with the lock on the backups of a donor."""
    return f"{STATE_DIR}/backups-of/{donor}"


def archive_lock_dir(donor: str) -> str:
    """Return the folder on a repository's host with the lock on the archives of a donor."""
    return f"{STATE_DIR}/archives-of/{donor}"


_PLANS: dict[str, type[RunPlan]] = {
    CLONE: Plan,
    BACKUP: BackupPlan,
    RESTORE: RestorePlan,
    COPY: CopyPlan,
    ARCHIVE: ArchivePlan,
    DRILL: DrillPlan,
    DRILL_CLONE: CloneDrillPlan,
}


def read_plan(document: Any) -> RunPlan:
    """Return the plan that `as_json` described; one of before there were forms is a clone's.

    Raises:
        ValueError: The document does not describe one.
    """
    form = _need(dict, document).get("form", CLONE)
    if form not in _PLANS:
        raise ValueError(f"no plan has the form {str(form)[:80]!r}")
    return from_json(_PLANS[form], document)
