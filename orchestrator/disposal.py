"""Backup sets that are given up: by the retention, or by destroying what they can be read with.

Both can be cut off anywhere and are done again: what is gone is no error, and what is left shows in
the catalogue. The keys go first. So what is left of a set that was being removed is of no use to
anybody, and the record of its keys says by whom and why.

An expiry is no run that is resumed; what it holds on a repository's host is noted beside the
journal. So the next one gives back what a killed one held, and no backup waits for a lease.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import getpass
import os
import re
import secrets
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Final

from orchestrator import catalogue, key_uses, keys, lock, log
from orchestrator.catalogue import StoredSet
from orchestrator.errors import (
    ConfigError,
    JournalError,
    LockHeldError,
    OrchestratorError,
    SecretStoreUnavailableError,
)
from orchestrator.models import Check, backup_lock_dir
from orchestrator.repository import chains, names, retention, set_keys, store, trial
from orchestrator.repository.sets import SetReport, State
from orchestrator.steps import backup
from orchestrator.steps.transition import BUNDLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from orchestrator.config import Config
    from orchestrator.remote import Remote
    from orchestrator.repository.retention import Decision
    from orchestrator.vault import Vault

LEASE_SECONDS: Final = 900
"""Of the lock on a host's backups; it is renewed before each set, whose removal takes less."""
EXPIRED: Final = "expired: no rule of the retention keeps it"
CLAIMS: Final = "expiries"
"""Beside the journal: a file for each host's backups that an expiry holds, with its name."""
_CLAIM: Final = re.compile(r"expire-[0-9a-f]{8}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fate:
    """What the retention says of a set.

    Attributes:
        stored: The set.
        decision: Whether it stays, and why.
        elsewhere: The other repositories whose listing has it.
    """

    stored: StoredSet
    decision: Decision
    elsewhere: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Removal:
    """What came of removing a set.

    Attributes:
        fate: The set, and why it goes.
        error: Why it is still there; None if it is gone.
        kept_keys: Whether its keys were left as they are: another repository has the set as well,
            or they had been seen to before.
    """

    fate: Fate
    error: OrchestratorError | None = None
    kept_keys: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """Sets whose keys are to be destroyed.

    Attributes:
        sets: They.
        dependents: Names of other sets, which build on one of them and cannot be restored without it.
    """

    sets: tuple[StoredSet, ...]
    dependents: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Revocation:
    """What came of making a set unreadable.

    Attributes:
        stored: The set, with its keys as they are afterwards.
        is_new: Whether its keys were still there.
        checks: What was tried, to prove that nobody can read it.
    """

    stored: StoredSet
    is_new: bool
    checks: tuple[Check, ...]


def describe_caller() -> str:
    """Return who runs this program, for the record."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


# --- expiry ---


def plan_expiry(config: Config, repository: str = "", host: str = "") -> tuple[Fate, ...]:
    """Return what the retention of each repository says of its sets.

    A set whose keys are destroyed cannot be restored: it counts for no rule.

    Args:
        config: The configuration.
        repository: Only this one; empty for all.
        host: Only sets of this host; empty for all.

    Raises:
        ConfigError: There is no such repository, or one has no retention.
        RemoteError: A repository's host cannot be used.
        SecretError: Vault refuses.
    """
    everywhere = catalogue.list_sets(config)
    fates: list[Fate] = []
    for name in catalogue.choose_repositories(config, repository):
        policy = _read_policy(config, name)
        if policy.is_empty and not repository and len(config.repositories) > 1:
            continue  # it keeps all
        here = {each.report.name: each for each in everywhere if each.repository == name}
        candidates = [
            dataclasses.replace(
                candidate,
                is_good=candidate.is_good
                and here[candidate.backup_id].keys.state == catalogue.ACTIVE,
            )
            for candidate in retention.list_candidates(each.report for each in here.values())
        ]
        try:
            decisions = retention.plan_expiry(candidates, policy)
        except ConfigError as error:
            raise ConfigError(
                f"repository {name}: {error.message}",
                hint=f"{error.hint}, in [repositories.{name}.retention]",
            ) from error
        fates += [
            Fate(
                stored=here[decision.backup_id],
                decision=_finish_removals(here[decision.backup_id], decision),
                elsewhere=_find_elsewhere(decision.backup_id, name, everywhere),
            )
            for decision in decisions
            if not host or decision.host == host
        ]
        fates += [
            _finish_folder(each)
            for each in here.values()
            if each.report.state is State.EXPIRED and (not host or each.host == host)
        ]
    return tuple(fates)


def _read_policy(config: Config, repository: str) -> retention.Policy:
    wanted = config.repository(repository).retention
    return retention.Policy(
        last=wanted.last,
        daily=wanted.daily,
        weekly=wanted.weekly,
        monthly=wanted.monthly,
        yearly=wanted.yearly,
        minimum=wanted.minimum,
    )


def _finish_removals(stored: StoredSet, decision: Decision) -> Decision:
    """Let a set go whose removal was cut off: its keys were destroyed for that."""
    if stored.keys.state == set_keys.DESTROYED and stored.keys.reason == EXPIRED:
        return dataclasses.replace(decision, keep=False, reasons=("its removal was cut off",))
    return decision


def _finish_folder(stored: StoredSet) -> Fate:
    """Let a folder go whose manifest an expiry has renamed; its keys were seen to before that."""
    decision = retention.Decision(
        backup_id=stored.report.name,
        host=stored.host,
        keep=False,
        reasons=("its removal was cut off",),
    )
    return Fate(stored=stored, decision=decision)


def _find_elsewhere(
    backup_id: str, repository: str, everywhere: Iterable[StoredSet]
) -> tuple[str, ...]:
    """Return the other repositories with a folder of that name, also of a copy under way."""
    return tuple(
        each.repository
        for each in everywhere
        if each.report.name == backup_id
        and each.repository != repository
        and each.report.state is not State.EXPIRED
    )


def expire(config: Config, fates: Sequence[Fate]) -> Iterator[Removal]:
    """Remove the sets that no rule keeps, with their keys, and end what a killed expiry has held.

    Args:
        config: The configuration.
        fates: From `plan_expiry`; those that stay are passed over.

    Yields:
        What came of each that goes. One that is being read stays, and is told as an error.

    Raises:
        RemoteError: A repository's host cannot be used.
        SecretStoreUnavailableError: Vault is sealed or cannot be reached.
        JournalError: What is held cannot be noted beside the journal.
    """
    _free_left(config)
    vault = key_uses.open_vault(config)
    going = [fate for fate in fates if not fate.decision.keep]
    gone: set[tuple[str, str]] = set()
    for repository in dict.fromkeys(fate.stored.repository for fate in going):
        with closing(catalogue.open_repository(config, repository)) as remote:
            for fate in going:
                if fate.stored.repository != repository:
                    continue
                name = fate.stored.report.name
                left = tuple(other for other in fate.elsewhere if (other, name) not in gone)
                now = dataclasses.replace(fate, elsewhere=left)
                removal = _expire_one(config, vault, remote, now)
                if removal.error is None:
                    gone.add((repository, name))
                yield removal


def _expire_one(config: Config, vault: Vault, remote: Remote, fate: Fate) -> Removal:
    try:
        with _hold_backups(config, remote, fate.stored.repository, fate.decision.host):
            return _remove(config, vault, remote, fate)
    except LockHeldError as error:
        return Removal(fate=fate, error=error)


def _remove(config: Config, vault: Vault, remote: Remote, fate: Fate) -> Removal:
    name, repository = fate.stored.report.name, fate.stored.repository
    path = store.join_path(config.repository(repository).path, name)
    try:
        store.need_unread(remote, path)
        # Asked now: a copy may have been begun since the plan was made, and a repository whose
        # filesystem is not mounted lists nothing.
        others = {*fate.elsewhere, *set_keys.list_others(vault, config, name, repository)}
        is_last = not others and fate.stored.keys.state in (catalogue.ACTIVE, set_keys.DESTROYED)
        if is_last:
            set_keys.destroy(vault, config, name, by=describe_caller(), reason=EXPIRED)
        set_keys.let_go(vault, config, name, repository)
        store.remove_set(remote, path, backup.OTHER_FILES)
    except SecretStoreUnavailableError:
        raise
    except OrchestratorError as error:
        return Removal(fate=fate, error=error)
    return Removal(fate=fate, kept_keys=not is_last)


@contextlib.contextmanager
def _hold_backups(config: Config, remote: Remote, repository: str, host: str) -> Iterator[None]:
    """Hold the lock on the backups of a host inside the block."""
    base = backup_lock_dir(host)
    with _claim(config, repository, host) as run:
        lock.take_lock(remote, run=run, holder=run, lease_seconds=LEASE_SECONDS, base=base)
        try:
            yield
        finally:
            lock.release_lock(remote, run=run, holder=run, base=base)


@contextlib.contextmanager
def _claim(config: Config, repository: str, host: str) -> Iterator[str]:
    """Yield the name by which one expiry holds the backups of a host, a killed one's where one is left.

    The file is locked by flock, which ends with the process however that dies. It stays if the
    block fails, for then nobody knows what is held; the next expiry gives it back.

    Raises:
        LockHeldError: Another process has it.
        JournalError: It cannot be written.
    """
    path = config.state_directory / CLAIMS / f"{repository}:{host}"
    try:
        descriptor = _open_claim(path)
    except OSError as error:
        raise JournalError(
            f"cannot write {path}: {error.strerror}",
            hint="give the account that runs xbvault the directory of its journal, and room there",
        ) from error
    if descriptor is None:
        raise LockHeldError(
            f"another expiry of the backups of {host} in {repository} goes on",
            host=repository,
            hint="wait for its end, then try again",
        )
    try:
        yield _read_claim(descriptor)
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _open_claim(path: Path) -> int | None:
    """Return the descriptor that holds a claim's file; None if another process has it."""
    path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(descriptor).st_ino:  # else removed since it was opened
            if not _CLAIM.fullmatch(_read_claim(descriptor)):
                # Nothing that one expiry holds can be taken for another's.
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"expire-{secrets.token_hex(4)}".encode(), 0)
            return descriptor
    os.close(descriptor)
    return None


def _read_claim(descriptor: int) -> str:
    return os.pread(descriptor, 100, 0).decode("utf-8", "replace")


def _free_left(config: Config) -> None:
    """Give back what expiries held that were killed; where that fails, the lease ends by itself."""
    folder = config.state_directory / CLAIMS
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        repository, _, host = path.name.partition(":")
        base = backup_lock_dir(host)
        try:
            with (
                _claim(config, repository, host) as run,
                closing(catalogue.open_repository(config, repository)) as remote,
            ):
                lock.release_lock(remote, run=run, holder=run, base=base)
        except OrchestratorError as error:
            log.get().warning("expiry.still_held", file=str(path), reason=error.message)


# --- revocation ---


def choose_revoked(
    config: Config, wanted: str, host: str, *, failed: list[OrchestratorError]
) -> Chosen:
    """Return the sets whose keys are to be destroyed: one, or all of a host.

    A named set's keys are found in Vault, whatever the repositories say: who has taken one away,
    or removed a manifest, must not keep the keys alive by it.

    Args:
        config: The configuration.
        wanted: Name of a set; empty where a host is given.
        host: Host whose sets are meant, all of them that repositories have a folder of.
        failed: Takes the errors of repositories that cannot be read.

    Raises:
        ConfigError: It is no name of a set, or is ``latest``, which says it of another one tomorrow.
        SecretError: Vault has never had keys of that set, or refuses.
    """
    if wanted.partition(":")[0] == catalogue.LATEST:
        raise ConfigError(
            "latest is no name to destroy keys by",
            hint="name the set: `xbvault backups list` shows them",
        )
    if wanted and not names.is_backup_id(wanted):
        raise ConfigError(
            f"{wanted[:80]!r} is no name of a backup set",
            hint="name one that `xbvault backups list` shows",
        )
    listed = catalogue.list_sets(config, host=host, failed=failed) if config.repositories else ()
    vault = key_uses.open_vault(config)
    if wanted:
        set_keys.need_record(vault, config, wanted)
    found = [
        dataclasses.replace(each, keys=catalogue.read_keys_of(vault, config, each.report.name))
        for each in listed
        if each.host and (not wanted or each.report.name == wanted)
    ]
    if wanted and not found:
        state = catalogue.read_keys_of(vault, config, wanted)
        report = SetReport(name=wanted, state=State.NO_MANIFEST)
        found = [StoredSet(repository="", report=report, keys=state)]
    # The keys are those of the set, wherever it lies; what a manifest tells can be tried, too.
    proved = sorted(found, key=lambda each: each.report.manifest is not None)
    chosen = {each.report.name: each for each in proved}
    if host:  # a folder may have any name, also that of a clone
        chosen = {
            name: each for name, each in chosen.items() if set_keys.is_recorded(vault, config, name)
        }
    manifests = [each.report.manifest for each in listed if each.report.manifest]
    return Chosen(
        sets=tuple(sorted(chosen.values(), key=lambda each: each.report.name, reverse=True)),
        dependents=chains.list_dependents(chosen, manifests),
    )


def revoke(config: Config, chosen: Sequence[StoredSet], *, reason: str) -> Iterator[Revocation]:
    """Destroy the keys of sets, and prove that nobody can read them any more.

    All keys go before the first proof: none of them waits for a repository.

    Args:
        config: The configuration.
        chosen: From `choose_revoked`.
        reason: Why, for the record.

    Yields:
        What came of each. What cannot be tried is a check that does not hold.

    Raises:
        SecretError: Vault refuses.
    """
    vault = key_uses.open_vault(config)
    by = describe_caller()
    destroyed = [
        set_keys.destroy(vault, config, each.report.name, by=by, reason=reason) for each in chosen
    ]
    for stored, is_new in zip(chosen, destroyed, strict=True):
        name = stored.report.name
        checks = (_prove_destroyed(config, vault, name), *_prove_unreadable(config, stored))
        if all(check.ok for check in checks):
            set_keys.record_proof(vault, config, name)
        state = catalogue.read_keys_of(vault, config, name)
        yield Revocation(
            stored=dataclasses.replace(stored, keys=state), is_new=is_new, checks=checks
        )


def _prove_destroyed(config: Config, vault: Vault, name: str) -> Check:
    metadata = vault.read_metadata(config.vault.mount, set_keys.path_of(name))
    versions = metadata.versions if metadata else {}
    left = [number for number, version in versions.items() if not version.destroyed]
    return Check(
        name="keys-destroyed",
        ok=not left and vault.read_secret(config.vault.mount, set_keys.path_of(name)) is None,
        evidence=f"versions that can be read: {', '.join(map(str, left))}"
        if left
        else f"all {len(versions)} versions of transition key and identity",
    )


def _prove_unreadable(config: Config, stored: StoredSet) -> tuple[Check, ...]:
    """Try what is left of a set in its repository; without a manifest there is no set to try."""
    if stored.report.manifest is None:
        return ()
    try:
        with closing(catalogue.open_repository(config, stored.repository)) as remote:
            return tuple(_try_wrong_keys(config, remote, stored))
    except OrchestratorError as error:
        tried = f"it could not be tried: {error.message}"
        return (Check(name="stream-unreadable", host=stored.repository, ok=False, evidence=tried),)


def _try_wrong_keys(config: Config, remote: Remote, stored: StoredSet) -> Iterator[Check]:
    name = stored.report.name
    path = store.join_path(config.repository(stored.repository).path, name)
    identity, _recipient = keys.new_age_identity()
    yield Check(
        name="stream-unreadable",
        host=remote.name,
        ok=not trial.count_opened(trial.read_beginning(remote, path), identity),
        evidence="its first part does not decrypt with another identity",
    )
    manifest = stored.report.manifest
    if manifest and any(file.name == BUNDLE for file in manifest.files):
        sealed = remote.read_file(f"{path}/{BUNDLE}")
        yield Check(
            name="bundle-unreadable",
            host=remote.name,
            ok=not trial.opens_bundle(sealed, keys.new_transition_key(), name),
            evidence="its key bundle does not open with another transition key",
        )
