"""The catalogue: the backup sets of all repositories, what they are worth, and proof of it.

Nothing is changed. A set's manifest is proved with the deployment's key, its files are summed up
on the repository's host, and its stream is decrypted here, to nowhere: no repository's host ever
sees an identity.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from orchestrator import key_uses, keys
from orchestrator.errors import (
    ConfigError,
    OrchestratorError,
    PreconditionError,
    RemoteError,
    SecretError,
    SecretStoreUnavailableError,
    VerificationError,
)
from orchestrator.models import Check
from orchestrator.remote import SshRemote
from orchestrator.repository import chains, deployment, names, set_keys, store
from orchestrator.repository.sets import State, judge_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from orchestrator.config import Config
    from orchestrator.models import Secret
    from orchestrator.remote import Output, Remote
    from orchestrator.repository.manifest import Manifest, StoredFile
    from orchestrator.repository.sets import SetReport
    from orchestrator.vault import Vault

LATEST: Final = "latest"
ACTIVE: Final = "active"
MISSING: Final = "missing"
UNKNOWN: Final = "unknown"
NO_SETS: Final = (State.FOREIGN, State.EXPIRED, State.NO_MANIFEST)
"""Folders that are no backup set, so that there is nothing to verify."""
_STEP_BYTES: Final = 256 << 20
"""Files are summed up in steps of about this size, so that it can be told how far it is."""
_STEP_FILES: Final = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyState:
    """Whether the keys of a set can still be read.

    Attributes:
        state: ``active``, ``destroyed``, ``missing``, or ``unknown`` where no manifest names them.
        destroyed_at: When; empty if they are not, or nobody wrote it down.
        destroyed_by: The run, or the person, that did it; likewise.
        reason: Why.
        proved_at: When the set was tried after that, and could not be read.
        created_at: When they were made.
    """

    state: str
    destroyed_at: str = ""
    destroyed_by: str = ""
    reason: str = ""
    proved_at: str = ""
    created_at: str = ""

    @property
    def shown(self) -> str:
        """For a reader."""
        when = f" on {self.destroyed_at}" if self.destroyed_at else ""
        by = f" by {self.destroyed_by}" if self.destroyed_by else ""
        return f"{self.state}{when}{by}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredSet:
    """A folder of a repository.

    Attributes:
        repository: Its name in the configuration.
        report: What the folder is worth by its listing.
        keys: Whether its keys can still be read.
    """

    repository: str
    report: SetReport
    keys: KeyState

    @property
    def host(self) -> str:
        """The donor, as the folder's name says; empty of a foreign folder."""
        return names.find_host(self.report.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a verification is.

    Attributes:
        backup_id: The set.
        doing: ``sums`` or ``decrypts``.
        bytes: Done.
        expected_bytes: In all.
    """

    backup_id: str
    doing: str
    bytes: int
    expected_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of verifying a set.

    Attributes:
        stored: The set.
        checks: What was proved, up to the first that does not hold.
        seconds: How long it took.
        error: Why it is not verified; None if it is.
    """

    stored: StoredSet
    checks: tuple[Check, ...]
    seconds: float
    error: OrchestratorError | None = None


def choose_repositories(config: Config, name: str) -> tuple[str, ...]:
    """Return the repositories that are meant: the one that is named, else all.

    Raises:
        ConfigError: There is none of that name, or none at all.
    """
    if name:
        config.repository(name)
        return (name,)
    if not config.repositories:
        raise ConfigError(
            "no repository is configured",
            hint="add [repositories.NAME] to xbvault.toml, see `xbvault config example`",
        )
    return tuple(config.repositories)


def list_sets(
    config: Config,
    repository: str = "",
    host: str = "",
    *,
    failed: list[OrchestratorError] | None = None,
) -> tuple[StoredSet, ...]:
    """Return every folder of the repositories, the newest set first.

    Args:
        config: The configuration.
        repository: Only this one; empty for all.
        host: Only sets of this host; empty for all. It need not be configured any more.
        failed: Takes the errors of repositories that cannot be read, so that the others are listed;
            None where all of them are needed.

    Raises:
        ConfigError: There is no such repository.
        RemoteError: A repository's host cannot be used.
        PreconditionError: A repository's directory is not there.
        SecretError: Vault refuses.
    """
    chosen = choose_repositories(config, repository)
    vault = key_uses.open_vault(config)
    ours = deployment.read_deployment(vault, config)
    found: list[StoredSet] = []
    for name in chosen:
        try:
            with closing(open_repository(config, name)) as remote:
                folders = store.list_folders(remote, config.repository(name).path, ours)
        except (RemoteError, PreconditionError) as error:
            if failed is None:
                raise
            failed.append(error)
            continue
        found += [
            StoredSet(repository=name, report=report, keys=read_keys(vault, config, report))
            for report in judge_repository(folders)
        ]
    wanted = [each for each in found if not host or each.host == host]
    return tuple(sorted(wanted, key=_age_of, reverse=True))


def find_sets(config: Config, wanted: str, repository: str = "") -> tuple[StoredSet, ...]:
    """Return the set that is meant, from each repository that has it.

    Args:
        config: The configuration.
        wanted: A ``backup_id``; ``latest`` or ``latest:HOST`` for the newest set that is whole and
            whose keys can be read.
        repository: Only this one; empty for all.

    Raises:
        ConfigError: It is no name of a set, there is no such repository, or ``latest`` of which
            host is not said.
        PreconditionError: There is no such set.
    """
    word, colon, host = wanted.partition(":")
    is_latest = word == LATEST and (bool(host) or not colon)
    if not is_latest and not names.is_backup_id(wanted):
        raise ConfigError(
            f"{wanted[:80]!r} is no name of a backup set",
            hint="name one that `xbvault backups list` shows, or latest, or latest:HOST",
        )
    listed = list_sets(config, repository)
    name = _find_latest(listed, host) if is_latest else wanted
    found = tuple(each for each in listed if each.report.name == name)
    if not found:
        of = f" of {host}" if host else ""
        raise PreconditionError(
            f"no backup set{of} can be restored" if is_latest else f"no backup set {wanted}",
            hint="`xbvault backups list` shows what there is",
        )
    return found


def find_chains(config: Config, wanted: str, repository: str = "") -> tuple[StoredSet, ...]:
    """Return the set that is meant, from each repository, each behind all that it builds on.

    Args:
        config: The configuration.
        wanted: As of `find_sets`.
        repository: Only this one; empty for all.

    Raises:
        ConfigError: As of `find_sets`.
        PreconditionError: There is no such set.
    """
    found = find_sets(config, wanted, repository)
    if not any(each.report.manifest and each.report.manifest.base_backup_id for each in found):
        return found
    listed = {(each.repository, each.report.name): each for each in list_sets(config, repository)}
    chains_of: list[StoredSet] = []
    for stored in found:
        chain: list[StoredSet] = []
        each: StoredSet | None = stored
        while each and each not in chain:
            chain.append(each)
            base = each.report.manifest.base_backup_id if each.report.manifest else ""
            each = listed.get((stored.repository, base))
        chains_of += reversed(chain)
    return tuple(chains_of)


def _list_hosts(listed: Sequence[StoredSet]) -> tuple[str, ...]:
    return tuple(sorted({each.host for each in listed if each.report.manifest}))


def find_only_host(listed: Sequence[StoredSet]) -> str:
    """Return the one host that there are sets of; empty if there are none.

    Raises:
        ConfigError: There are several.
    """
    hosts = _list_hosts(listed)
    if len(hosts) > 1:
        named = ", ".join(f"{LATEST}:{name}" for name in hosts)
        raise ConfigError(
            f"there are backup sets of {len(hosts)} hosts, and none was named",
            hint=f"say which: {named}",
        )
    return hosts[0] if hosts else ""


def _find_latest(listed: Sequence[StoredSet], host: str) -> str:
    newest = find_newest(listed, host or find_only_host(listed))
    return newest.backup_id if newest else ""


def find_newest(listed: Iterable[StoredSet], host: str = "") -> Manifest | None:
    """Return the newest set that can be restored; None if there is none.

    Args:
        listed: Folders of repositories.
        host: Only sets of this host; empty for all.
    """
    usable = {
        each.report.name: each.report.manifest
        for each in listed
        if each.report.manifest and each.report.state.is_restorable and each.keys.state == ACTIVE
    }
    newest = (
        chains.find_newest_whole(name, usable)
        for name in {manifest.host for manifest in usable.values()}
        if not host or name == host
    )
    return next(iter(chains.sort_by_age(manifest for manifest in newest if manifest)), None)


def _age_of(each: StoredSet) -> tuple[str, str]:
    # A name begins with the moment of its set; a foreign one may begin with anything.
    return (each.report.name if each.host else "", each.repository)


def open_repository(config: Config, repository: str) -> SshRemote:
    """Return the door to the host of a repository."""
    return SshRemote(repository, config.repository(repository), config.ssh)


def read_keys(vault: Vault, config: Config, report: SetReport) -> KeyState:
    """Return whether the keys of a set can still be read.

    Raises:
        SecretError: Vault refuses.
    """
    if report.manifest is None:
        return KeyState(state=UNKNOWN)
    return read_keys_of(vault, config, report.name)


def read_keys_of(vault: Vault, config: Config, backup_id: str) -> KeyState:
    """Return whether the keys of a set can still be read, whatever its repositories say.

    Raises:
        SecretError: Vault refuses.
    """
    metadata = vault.read_metadata(config.vault.mount, set_keys.path_of(backup_id))
    if metadata is None or not metadata.current_version:
        return KeyState(state=MISSING)
    newest = metadata.versions.get(metadata.current_version)
    created = metadata.custom.get("created", "")
    if newest and not newest.destroyed and not newest.deleted:
        return KeyState(state=ACTIVE, created_at=created)
    return KeyState(
        state=set_keys.DESTROYED,
        destroyed_at=metadata.custom.get("destroyed", ""),
        destroyed_by=metadata.custom.get("destroyed_by", ""),
        reason=metadata.custom.get("reason", ""),
        proved_at=metadata.custom.get("proved", ""),
        created_at=created,
    )


# --- verification ---


def verify_sets(
    config: Config, wanted: Sequence[StoredSet], say: Callable[[Progress], None]
) -> Iterator[Verdict]:
    """Verify sets one after the other; see `verify_set`.

    Args:
        config: The configuration.
        wanted: From `find_sets`, or all of `list_sets` that are sets.
        say: Is told how far it is.

    Yields:
        What came of each.

    Raises:
        RemoteError: A repository's host cannot be used.
        SecretStoreUnavailableError: Vault is sealed or cannot be reached.
    """
    vault = key_uses.open_vault(config)
    for stored in wanted:
        with closing(open_repository(config, stored.repository)) as remote:
            yield verify_set(config, vault, remote, stored, say)


def verify_set(
    config: Config,
    vault: Vault,
    remote: Remote,
    stored: StoredSet,
    say: Callable[[Progress], None],
) -> Verdict:
    """Prove that a set is what its backup stored, and that its stream decrypts.

    Args:
        config: The configuration.
        vault: The door to Vault.
        remote: The door to the repository's host.
        stored: The set.
        say: Is told how far it is.

    Returns:
        What was proved, and why the rest was not.

    Raises:
        RemoteError: The repository's host cannot be used.
        SecretStoreUnavailableError: Vault is sealed or cannot be reached.
    """
    began = time.monotonic()
    checks: list[Check] = []
    error: OrchestratorError | None = None
    try:
        for name, evidence in _prove(config, vault, remote, stored, say):
            checks.append(Check(name=name, ok=True, evidence=evidence, host=remote.name))
    except SecretStoreUnavailableError:
        raise
    except (VerificationError, PreconditionError, SecretError) as found:
        error = found
    return Verdict(
        stored=stored,
        checks=tuple(checks),
        seconds=round(time.monotonic() - began, 3),
        error=error,
    )


def _prove(
    config: Config,
    vault: Vault,
    remote: Remote,
    stored: StoredSet,
    say: Callable[[Progress], None],
) -> Iterator[tuple[str, str]]:
    manifest = _need_whole(stored)
    yield "stored-manifest", f"its MAC fits, under deployment {manifest.deployment}"
    count = len(manifest.stored_files)
    yield "stored-files", f"{count} files of the sizes that it names"
    path = store.join_path(config.repository(stored.repository).path, manifest.backup_id)
    _sum_up(remote, path, manifest, say)
    yield "stored-sums", f"SHA-256 of {count} files, {manifest.stored_bytes} bytes read back"
    identity = _need_identity(vault, config, manifest)
    size = _decrypt(remote, path, manifest, identity, say)
    yield "stored-decrypts", f"{size} bytes, as the backup tool wrote them"


def _need_whole(stored: StoredSet) -> Manifest:
    report = stored.report
    if report.manifest is None or not report.state.is_restorable:
        raise VerificationError(
            f"backup set {report.name} in {stored.repository} is not whole: {report.state.value}",
            hint="do not rely on it: take another backup, or bring back what is missing",
            problems=report.problems,
        )
    return report.manifest


def _sum_up(remote: Remote, path: str, manifest: Manifest, say: Callable[[Progress], None]) -> None:
    done = 0
    for some in _cut_steps(manifest.stored_files):
        say(_progress(manifest, "sums", done, manifest.stored_bytes))
        found = store.sum_files(remote, path, some)
        wrong = [wanted for wanted, there in zip(some, found, strict=True) if wanted != there]
        if wrong:
            raise VerificationError(
                f"{wrong[0].name} of {manifest.backup_id} is not what the backup stored",
                host=remote.name,
                hint="it was altered or the disk has lost it: do not use this set",
                problems=[f"{file.name}: SHA-256 or size differs" for file in wrong],
            )
        done += sum(file.bytes for file in some)
    say(_progress(manifest, "sums", done, manifest.stored_bytes))


def _cut_steps(files: Sequence[StoredFile]) -> Iterator[tuple[StoredFile, ...]]:
    some: list[StoredFile] = []
    for file in files:
        some.append(file)
        if len(some) >= _STEP_FILES or sum(each.bytes for each in some) >= _STEP_BYTES:
            yield tuple(some)
            some = []
    if some:
        yield tuple(some)


def _need_identity(vault: Vault, config: Config, manifest: Manifest) -> Secret:
    """Return the set's identity, which is the one of the public key that its manifest names."""
    identity = set_keys.need_identity(vault, config, manifest.backup_id)
    if keys.find_age_recipient(identity) != manifest.age_recipient:
        raise SecretError(
            f"{config.vault.mount}/{manifest.key_path} does not hold the identity of "
            f"{manifest.backup_id}",
            hint="it was altered; an earlier version of that secret may be the right one",
        )
    return identity


def _decrypt(
    remote: Remote,
    path: str,
    manifest: Manifest,
    identity: Secret,
    say: Callable[[Progress], None],
) -> int:
    seconds = 60 + manifest.stored_bytes / store.SLOWEST_BYTES_PER_SECOND
    command = store.read_command(path, last=len(manifest.parts))
    counted = _Counted(manifest, say)
    with remote.open_output(command, timeout_seconds=seconds) as output:
        counted.output = output
        try:
            keys.decrypt_age(counted, counted, identity)
        except VerificationError as error:
            raise VerificationError(
                f"{manifest.backup_id}: {error.message}", host=remote.name, hint=error.hint
            ) from error
    if counted.clear_bytes != manifest.stream_bytes:
        raise VerificationError(
            f"the stream of {manifest.backup_id} has {counted.clear_bytes} bytes, "
            f"not {manifest.stream_bytes}",
            hint="do not use this set",
        )
    return counted.clear_bytes


class _Counted:
    """The encrypted stream on its way in, and the clear one on its way to nowhere."""

    output: Output

    def __init__(self, manifest: Manifest, say: Callable[[Progress], None]) -> None:
        self._manifest = manifest
        self._say = say
        self._bytes = 0
        self._said = 0
        self._buffer = memoryview(b"")
        self.clear_bytes = 0

    def read(self, size: int) -> bytes:
        if not self._buffer:
            self._buffer = memoryview(self.output.read(1 << 20))
            self._bytes += len(self._buffer)
            if self._bytes - self._said >= _STEP_BYTES or not self._buffer:
                self._said = self._bytes
                total = sum(part.bytes for part in self._manifest.parts)
                self._say(_progress(self._manifest, "decrypts", self._bytes, total))
        block, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(block)

    def write(self, data: bytes) -> int:
        self.clear_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def _progress(manifest: Manifest, doing: str, done: int, total: int) -> Progress:
    return Progress(backup_id=manifest.backup_id, doing=doing, bytes=done, expected_bytes=total)
