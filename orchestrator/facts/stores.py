"""All that a stored backup, or its restore, must know beforehand: hosts, repository, Vault."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from orchestrator import lock
from orchestrator.errors import (
    OrchestratorError,
    PreconditionError,
    SecretError,
    SecretStoreUnavailableError,
)
from orchestrator.facts import hosts, ways
from orchestrator.facts.survey import (
    A_KEY,
    HostSurvey,
    Survey,
    VaultSurvey,
    Wires,
    add_wire,
    keeps_versions,
    needed_for_restore,
    read_host_survey,
    read_vault,
    try_connection,
)
from orchestrator.privileges import vault as vault_rights
from orchestrator.repository import deployment, names, set_keys, sets
from orchestrator.repository import store as repository

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.remote import Remote
    from orchestrator.repository.sets import SetReport
    from orchestrator.vault import Vault


def needed_capabilities(
    config: Config, donor: str, repository: str, backup_id: str
) -> dict[str, tuple[str, ...]]:
    """Return the rights in Vault that a stored backup needs, by path."""
    wanted = vault_rights.Names(transition_key=backup_id, key_id=A_KEY)
    return vault_rights.backup_rights(config, donor, repository, wanted)


def read_store_survey(
    config: Config,
    vault: Vault,
    donor: Remote,
    store: Remote,
    *,
    lock_dir: str,
    backup_id: str,
    with_sample: bool = False,
) -> Survey:
    """Ask the donor, the repository's host and Vault; see `survey.read_survey`.

    Args:
        config: The configuration.
        vault: The door to Vault.
        donor: The door to the donor.
        store: The door to the repository's host, which stands in the place of a recipient.
        lock_dir: Folder of the lock that the backup takes there.
        backup_id: Name of the backup set.
        with_sample: Whether to find out what compression would gain.
    """
    at = config.door(store.name).find_stream_address(store.name)
    # A sample takes as long as all other questions, and nothing waits for it but the end.
    with ThreadPoolExecutor(2) as samplers, ThreadPoolExecutor(3) as pool:
        wires = Wires(samplers, with_sample_of=donor.name) if with_sample else None
        asked = pool.submit(read_host_survey, donor, config, peer=store.name, wires=wires)
        stored = pool.submit(_read_store, store, config)
        told = pool.submit(
            _read_backup_vault,
            config,
            vault,
            donor.name,
            needed_capabilities(config, donor.name, store.name, backup_id),
        )
        on_donor, on_store = asked.result(), stored.result()
        errors = list(on_store.errors)
        way = state = None
        try:
            if not on_donor.errors and not on_store.errors:
                way = ways.read_way(donor, store, *at)
            if not on_store.errors:
                state = lock.read_lock(store, base=lock_dir)
                _need_writable(config, store, on_store)
        except OrchestratorError as error:
            errors.append(error)
        return Survey(
            donor=add_wire(on_donor, wires, donor.name),
            recipient=dataclasses.replace(on_store, errors=tuple(errors)),
            vault=told.result(),
            lock=state,
            way=way,
        )


def read_report(config: Config, vault: Vault, store: Remote, backup_id: str) -> SetReport:
    """Return what a set is worth, by the listing of its repository.

    Raises:
        PreconditionError: There is no such set, or the repository is not there.
        RemoteError: It cannot be read.
        SecretError: Vault does not give the key of manifests.
    """
    made = deployment.read_deployment(vault, config)
    path = config.repository(store.name).path
    for report in sets.judge_repository(repository.list_folders(store, path, made)):
        if report.name == backup_id:
            return report
    raise PreconditionError(
        f"no backup set {backup_id!r} in {store.name}",
        host=store.name,
        hint="`xbvault backups list` shows what is there",
    )


def read_key_problem(config: Config, vault: Vault, *backup_ids: str) -> str:
    """Return why the keys of a set, or of one of several, cannot be had from Vault; empty if they can."""
    for backup_id in backup_ids:
        try:
            set_keys.need_identity(vault, config, backup_id)
        except SecretError as error:
            return error.message
    return ""


def find_lacking_base(store: Remote, path: str, report: SetReport) -> str:
    """Return the set that another one builds on, if a repository does not have it; else nothing.

    Args:
        store: The door to the repository's host.
        path: Its directory.
        report: What the other one is worth where it lies.
    """
    base = report.manifest.base_backup_id if report.manifest else ""
    if not base:
        return ""
    there = f"{repository.join_path(path, base)}/{names.MANIFEST}"
    return base if store.run(["test", "-e", there], check=False).status else ""


def needed_for_copy(config: Config, repository: str, backup_id: str) -> dict[str, tuple[str, ...]]:
    """Return the rights in Vault that a copy needs, by path."""
    wanted = vault_rights.Names(transition_key=backup_id, key_id=A_KEY)
    return vault_rights.copy_rights(config, repository, wanted)


def read_copy_survey(
    config: Config, vault: Vault, source: Remote, store: Remote, *, lock_dir: str, backup_id: str
) -> Survey:
    """Ask the hosts of both repositories and Vault; see `survey.read_survey`.

    Args:
        config: The configuration.
        vault: The door to Vault.
        source: The door to the host of the repository that has the set; it stands as the donor.
        store: The door to the other's, which stands as the recipient.
        lock_dir: Folder of the lock that the copy takes there.
        backup_id: Name of the set.
    """
    at = config.door(store.name).find_stream_address(store.name)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(_read_store, door, config) for door in (source, store)]
        needed = needed_for_copy(config, store.name, backup_id)
        told = pool.submit(_read_backup_vault, config, vault, "", needed)
        on_source, on_store = (each.result() for each in asked)
        errors = list(on_store.errors)
        way = state = None
        try:
            if not on_source.errors and not on_store.errors:
                way = ways.read_way(source, store, *at)
            if not on_store.errors:
                state = lock.read_lock(store, base=lock_dir)
        except OrchestratorError as error:
            errors.append(error)
        return Survey(
            donor=on_source,
            recipient=dataclasses.replace(on_store, errors=tuple(errors)),
            vault=told.result(),
            lock=state,
            way=way,
        )


def read_restore_survey(
    config: Config,
    vault: Vault,
    store: Remote,
    recipient: Remote,
    *,
    run_id: str,
    backup_id: str,
    source: Remote | None = None,
) -> Survey:
    """Ask the repository's host, the recipient and Vault; see `survey.read_survey`.

    Args:
        config: The configuration.
        vault: The door to Vault.
        store: The door to the repository's host, which stands in the place of a donor.
        recipient: The door to the recipient.
        run_id: Name of the run.
        backup_id: Name of the backup set.
        source: The door to the host that the restored server is to follow, if it is.
    """
    at = config.host(recipient.name).find_stream_address(recipient.name)
    with ThreadPoolExecutor(3) as pool:
        stored = pool.submit(_read_store, store, config)
        asked = pool.submit(read_host_survey, recipient, config, peer=store.name)
        followed = source and pool.submit(read_host_survey, source, config, peer=recipient.name)
        on_store, on_recipient = stored.result(), asked.result()
        on_source = followed.result() if followed else None
        told = read_vault(
            config,
            vault,
            {recipient.name: asked},
            donor="",
            recipient=recipient.name,
            needed=needed_for_restore(config, recipient.name, run_id, backup_id),
        )
    errors = list(on_recipient.errors)
    way = state = connection = None
    try:
        if not on_recipient.errors:
            state = lock.read_lock(recipient)
            if source is not None:
                connection = try_connection(recipient, config, source.name, on_recipient)
        if not on_recipient.errors and not on_store.errors:
            way = ways.read_way(store, recipient, *at)
    except OrchestratorError as error:
        errors.append(error)
    return Survey(
        donor=on_store,
        recipient=dataclasses.replace(on_recipient, errors=tuple(errors)),
        vault=told,
        lock=state,
        source=on_source,
        connection=connection,
        way=way,
    )


def _need_writable(config: Config, store: Remote, found: HostSurvey) -> None:
    """Refuse a repository that is there and takes no folder; one that is not there is judged later.

    Raises:
        PreconditionError: It takes none.
    """
    path = config.repository(store.name).path
    if found.host is None or not found.host.datadir_inode or found.host.is_symlink:
        return
    if not repository.read_space(store, path).is_writable:
        raise PreconditionError(
            f"no folder can be made in {path}: is its filesystem read-only?",
            host=store.name,
            hint=f"see `findmnt -T {path}` there",
        )


def _read_store(store: Remote, config: Config) -> HostSurvey:
    host = None
    errors: tuple[OrchestratorError, ...] = ()
    try:
        host = hosts.read_store(store, config.repository(store.name))
    except OrchestratorError as error:
        errors = (error,)
    return HostSurvey(host=host, instance=None, token=None, peer_address="", errors=errors)


def _read_backup_vault(
    config: Config, vault: Vault, donor: str, needed: dict[str, tuple[str, ...]]
) -> VaultSurvey:
    found = VaultSurvey(
        health=None,
        token=None,
        capabilities={},
        kv_versions={},
        max_versions={},
        host_tokens={},
        reads_own={},
        recipient_reads_donor=False,
        ssh_ca="",
        donor_key_ids=(),
        errors=(),
    )
    try:
        found = dataclasses.replace(found, health=vault.read_health())
        if found.health is not None and found.health.sealed:
            raise SecretStoreUnavailableError(
                f"Vault at {vault.address} is sealed", hint="unseal it, then try again"
            )
        mounts = [config.vault.mount]
        if donor and keeps_versions(config, donor):
            mounts.append(config.host(donor).key_mount)
        versions = {
            mount: vault.read_kv_version(mount) if vault.has_mount(mount) else 0 for mount in mounts
        }
        found = dataclasses.replace(
            found,
            token=vault.lookup_token(),
            capabilities=vault.read_capabilities(list(needed)),
            kv_versions=versions,
            ssh_ca=vault.read_ssh_ca(config.vault.ssh_mount),
        )
        if len(mounts) > 1 and versions[mounts[1]]:
            found = dataclasses.replace(found, donor_key_ids=vault.list_secrets(mounts[1]))
    except OrchestratorError as error:
        found = dataclasses.replace(found, errors=(error,))
    return found
