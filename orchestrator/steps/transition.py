"""Steps around the transition key, the key bundle and the transition mount.

The rules stand in ``docs/explanation/how-a-clone-stays-encrypted.md``; each of them was broken
once by hand.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING

from orchestrator import bundle, flavors, keys, log
from orchestrator.errors import PreconditionError, SecretError, VerificationError
from orchestrator.models import (
    BACKUP,
    CLONES,
    COPIES,
    BackupPlan,
    KeyVersions,
    Plan,
    RestorePlan,
    Secret,
)
from orchestrator.repository import set_keys
from orchestrator.steps import records, tool_keys
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import RunPlan

KeyTable = dict[str, dict[int, Secret]]

BUNDLE = "key-bundle.json"
"""The sealed key bundle, in the folder of a stored set."""
VALUE = "data"
"""The field in which the key plugin looks for a key."""
NEW_VERSIONS = 2
"""One new version rotates nothing: pages are re-encrypted if their version + 1 < the newest."""
KEPT_BY_DEFAULT = 10
TRANSITION_MAX_VERSIONS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransitionKey:
    """A transition key, by where it is and how it can be recognised.

    Attributes:
        path: Its path in Vault.
        fingerprint: Tells keys apart, and tells nothing about them.
    """

    path: str
    fingerprint: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SealedBundle:
    """The sealed key bundle.

    Attributes:
        path: Where it lies on the recipient.
        key_ids: How many keys it holds.
        versions: How many versions in all.
    """

    path: str
    key_ids: int
    versions: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransitionMount:
    """A transition mount, filled.

    Attributes:
        mount: Its path in Vault.
        versions: The counts, by key id.
    """

    mount: str
    versions: tuple[KeyVersions, ...]


@step("create-transition-key", role="recipient", repeat=Repeat.SAFE, forms=CLONES)
def create_transition_key(tools: Tools, plan: Plan) -> TransitionKey:
    """Make a transition key, store it in Vault, and compare what Vault gives back.

    Args:
        tools: The door to Vault.
        plan: The clone.

    Returns:
        Where the key is, and its fingerprint.

    Raises:
        SecretError: Vault refuses, or another run has used this ``backup_id``.
        VerificationError: Vault gives back something else.

    Repeat:
        A key of this run is there: it is compared with its fingerprint and kept.
    """
    mount = tools.config.vault.mount
    metadata = tools.vault.read_metadata(mount, plan.key_path)
    owner = plan.group or plan.run_id
    if metadata and metadata.custom.get("run", owner) != owner:
        raise SecretError(
            f"{mount}/{plan.key_path} belongs to run {metadata.custom['run']}",
            hint="begin a new run: a backup_id is never used twice",
        )
    record = {
        "donor": plan.donor,
        "recipient": plan.recipient,
        "run": plan.run_id,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "state": "active",
    }
    if plan.group:
        _share_transition_key(tools, plan, record)
    elif metadata is None or metadata.current_version == 0:
        key = keys.new_transition_key()
        records.update_record(tools, plan, {**record, "fingerprint": keys.fingerprint(key)})
        tools.vault.write_secret(mount, plan.key_path, {"key": key}, cas=0)
    stored = records.read_transition_key(tools, plan)
    fingerprint = keys.fingerprint(stored)
    if records.read_record(tools, plan).get("fingerprint") != fingerprint:
        raise VerificationError(
            f"the transition key at {mount}/{plan.key_path} does not fit its fingerprint",
            hint="somebody changed it; begin a new run",
        )
    return TransitionKey(path=f"{mount}/{plan.key_path}", fingerprint=fingerprint)


@step("seal-key-bundle", role="recipient", repeat=Repeat.SAFE, forms=(*CLONES, BACKUP))
def seal_key_bundle(tools: Tools, plan: RunPlan) -> SealedBundle:
    """Read every version of the donor's keys once, and seal them under the transition key.

    It comes after the stream has ended: with keys read before, a rotation during the stream would
    collide with the recipient's own versions.

    Args:
        tools: The doors to Vault and to the recipient.
        plan: The clone.

    Returns:
        Where the bundle lies on the recipient.

    Raises:
        SecretError: The donor's mount cannot be read.
        PreconditionError: It holds no keys, although the donor has a keyring.
        VerificationError: The bundle does not open with the key that Vault gives back.

    Repeat:
        A bundle of this attempt that opens is kept: the donor's mount is not read again.
    """
    path = bundle_path(tools, plan)
    transition_key = records.read_transition_key(tools, plan)
    if isinstance(plan, BackupPlan) and not flavors.needs_transition_mount(plan):
        return SealedBundle(path="", key_ids=0, versions=0)  # the stream has them, if there are any
    if isinstance(plan, Plan) and flavors.tool_carries_keys(plan):
        carried = tool_keys.read_keys_file(tools, plan)
        return SealedBundle(path=carried.path, key_ids=carried.count, versions=carried.count)
    if not flavors.needs_transition_mount(plan):
        return SealedBundle(path="", key_ids=0, versions=0)
    if tools.recipient.run(["test", "-f", path], check=False).status == 0:
        table = open_key_bundle(tools, plan)
        log.get().info("step.unchanged", reason="the bundle is sealed")
    else:
        table = _read_donor_keys(tools, plan)
        if not table:
            raise PreconditionError(
                f"no keys in the donor's mount {plan.donor_mount}",
                host=plan.donor,
                hint="is hosts.*.vault_mount the mount that the donor's server uses?",
            )
        _check_base_keys(tools, plan, table)
        sealed = bundle.seal_bundle(table, transition_key, plan.backup_id)
        tools.recipient.write_file(path, sealed)
        table = open_key_bundle(tools, plan)
    return SealedBundle(
        path=path, key_ids=len(table), versions=sum(len(versions) for versions in table.values())
    )


@step("create-transition-mount", role="recipient", repeat=Repeat.SAFE, forms=COPIES)
def create_transition_mount(tools: Tools, plan: Plan) -> TransitionMount:
    """Fill the transition mount from the bundle, and give both mounts two new key versions.

    The counts are recorded before the first write and every write is check-and-set, so that a
    repeated step reaches the same end. The pair in the own mount is copied from the transition
    mount.

    Args:
        tools: The doors to Vault and to the recipient.
        plan: The clone.

    Returns:
        The mount and the counts.

    Raises:
        SecretError: Vault refuses, or somebody wrote to the recipient's mount meanwhile.
        PreconditionError: The recipient's mount keeps too few versions.
        VerificationError: What stands in Vault afterwards is not what was written.

    Repeat:
        Goes on where it was cut off.
    """
    if not flavors.needs_transition_mount(plan):
        return TransitionMount(mount="", versions=())
    table = open_key_bundle(tools, plan)
    transition = records.read_transition(tools, plan)
    if transition is None:
        transition = records.Transition(
            mount=records.transition_path(tools, plan),
            versions=tuple(
                KeyVersions(
                    key_id=key_id,
                    donor=max(versions),
                    own=_current_version(tools, plan.own_mount, key_id),
                )
                for key_id, versions in sorted(table.items())
            ),
        )
        records.record_transition(tools, plan, transition)
    if not tools.vault.has_mount(transition.mount):
        tools.vault.create_kv_mount(
            transition.mount, description=f"xbvault run {plan.run_id}, removed at its end"
        )
    tools.vault.write_mount_config(transition.mount, max_versions=TRANSITION_MAX_VERSIONS)
    for counts in transition.versions:
        tools.check_cancelled()
        _check_room(tools, plan, counts)
        _fill_transition(tools, transition.mount, counts, table[counts.key_id])
        _fill_own(tools, plan, transition.mount, counts)
        _check_pair(tools, plan, transition.mount, counts)
    return TransitionMount(mount=transition.mount, versions=transition.versions)


def _share_transition_key(tools: Tools, plan: Plan, record: dict[str, str]) -> None:
    """Make the key of a group, unless another run of it has; and a record of this run's own.

    Raises:
        SecretError: Vault refuses.
    """
    mount = tools.config.vault.mount
    if records.read_record_at(tools, plan.key_path).get("run") != plan.group:
        tools.vault.write_custom_metadata(
            mount,
            plan.key_path,
            {name: record[name] for name in ("donor", "created", "state")} | {"run": plan.group},
        )
    if tools.vault.read_secret(mount, plan.key_path) is None:
        try:
            tools.vault.write_secret(
                mount, plan.key_path, {"key": keys.new_transition_key()}, cas=0
            )
        except SecretError:
            # Another run of the group was faster; or its end has come.
            if tools.vault.read_secret(mount, plan.key_path) is None:
                raise
    if "fingerprint" not in records.read_record(tools, plan):
        key = records.read_transition_key(tools, plan)
        records.update_record(tools, plan, {**record, "fingerprint": keys.fingerprint(key)})


def bundle_path(tools: Tools, plan: RunPlan, backup_id: str = "") -> str:
    """Return where the bundle of this attempt lies on the recipient.

    Args:
        tools: The run's.
        plan: The run's plan.
        backup_id: A set that the restored one builds on; empty for that itself.
    """
    if isinstance(plan, BackupPlan):
        return f"{plan.set_dir}/{BUNDLE}"
    of_base = f".{backup_id}" if backup_id not in ("", plan.backup_id) else ""
    return f"{plan.run_dir}/keys.{tools.attempt}{of_base}.bundle"


def open_key_bundle(tools: Tools, plan: RunPlan) -> KeyTable:
    """Open the bundle with the transition key, fetched from Vault again.

    That of a chain has the keys of all its sets: a version may have been destroyed since the first.

    Raises:
        VerificationError: The key does not fit the bundle, the bundle was changed, or two sets of a
            chain have different keys of one version.
    """
    sealed = tools.recipient.read_file(bundle_path(tools, plan))
    table = bundle.open_bundle(sealed, records.read_transition_key(tools, plan), plan.backup_id)
    for base in plan.bases if isinstance(plan, RestorePlan) else ():
        of_base = tools.recipient.read_file(bundle_path(tools, plan, base.backup_id))
        add_keys(table, _open_stored(tools, of_base, base.backup_id), base.backup_id)
    return table


def add_keys(table: KeyTable, of_base: KeyTable, backup_id: str) -> None:
    """Add the keys of a set to those of one that builds on it.

    Args:
        table: The keys of that one.
        of_base: The set's.
        backup_id: The set.

    Raises:
        VerificationError: They have different keys of one version, so one of the two sets cannot be
            read on the same server as the other.
    """
    for key_id, versions in of_base.items():
        known = table.setdefault(key_id, {})
        for version, value in versions.items():
            if known.setdefault(version, value) != value:
                raise VerificationError(
                    f"version {version} of key {key_id} was another one when {backup_id} was made: "
                    "somebody has replaced the keys of its host",
                    hint="take a full backup: an incremental one on that set cannot be restored",
                )


def _open_stored(tools: Tools, sealed: bytes, backup_id: str) -> KeyTable:
    """Open the bundle of a stored set that another one builds on.

    Raises:
        SecretError: Its keys were destroyed.
        VerificationError: The bundle was changed.
    """
    key = set_keys.need_transition_key(tools.vault, tools.config, backup_id)
    return bundle.open_bundle(sealed, key, backup_id)


def _check_base_keys(tools: Tools, plan: RunPlan, table: KeyTable) -> None:
    """See that an incremental set can be read with the keys of the one that it builds on.

    Raises:
        VerificationError: The donor's keys are others now, or the bundle of that set was changed.
        SecretError: The keys of that set were destroyed.
    """
    if isinstance(plan, BackupPlan) and plan.base_backup_id:
        folder = f"{plan.set_dir.rpartition('/')[0]}/{plan.base_backup_id}"
        sealed = tools.recipient.read_file(f"{folder}/{BUNDLE}")
        both = {key_id: dict(versions) for key_id, versions in table.items()}
        add_keys(both, _open_stored(tools, sealed, plan.base_backup_id), plan.base_backup_id)


def _read_donor_keys(tools: Tools, plan: RunPlan) -> KeyTable:
    table: KeyTable = {}
    for key_id in tools.vault.list_secrets(plan.donor_mount):
        metadata = tools.vault.read_metadata(plan.donor_mount, key_id)
        if not key_id.isdecimal() or metadata is None:
            continue
        for version in range(1, metadata.current_version + 1):
            tools.check_cancelled()
            found = tools.vault.read_secret(plan.donor_mount, key_id, version=version)
            if found and VALUE in found:  # a destroyed version gets a placeholder later
                table.setdefault(key_id, {})[version] = found[VALUE]
        if metadata.current_version not in table.get(key_id, {}):
            raise PreconditionError(
                f"the newest version of key {key_id} in {plan.donor_mount} cannot be read",
                host=plan.donor,
                hint="the donor would not survive its next restart; write a new version first",
            )
    return table


def _current_version(tools: Tools, mount: str, key_id: str) -> int:
    metadata = tools.vault.read_metadata(mount, key_id)
    return metadata.current_version if metadata else 0


def _check_room(tools: Tools, plan: Plan, counts: KeyVersions) -> None:
    metadata = tools.vault.read_metadata(plan.own_mount, counts.key_id)
    of_key = metadata.max_versions if metadata else 0
    kept = of_key or tools.vault.read_mount_config(plan.own_mount) or KEPT_BY_DEFAULT
    if counts.padded + NEW_VERSIONS > kept:
        raise PreconditionError(
            f"{plan.own_mount} keeps {kept} versions of key {counts.key_id}, "
            f"{counts.padded + NEW_VERSIONS} are needed",
            host=plan.recipient,
            hint="raise max_versions: Vault would prune keys that pages still need",
        )


def _fill_transition(
    tools: Tools, mount: str, counts: KeyVersions, versions: dict[int, Secret]
) -> None:
    present = _current_version(tools, mount, counts.key_id)
    for version in range(present + 1, counts.padded + NEW_VERSIONS + 1):
        value = versions.get(version) if version <= counts.donor else None
        tools.vault.write_secret(
            mount, counts.key_id, {VALUE: value or keys.new_page_key()}, cas=version - 1
        )


def _fill_own(tools: Tools, plan: Plan, mount: str, counts: KeyVersions) -> None:
    present = _current_version(tools, plan.own_mount, counts.key_id)
    if present < counts.own:
        raise SecretError(
            f"key {counts.key_id} in {plan.own_mount} lost versions while the run went on",
            hint="somebody removed keys of the recipient; nothing of ours does",
        )
    for version in range(present + 1, counts.padded + NEW_VERSIONS + 1):
        value = (
            _read_key(tools, mount, counts.key_id, version)
            if version >= counts.first_new
            else keys.new_page_key()
        )
        tools.vault.write_secret(plan.own_mount, counts.key_id, {VALUE: value}, cas=version - 1)


def _check_pair(tools: Tools, plan: Plan, mount: str, counts: KeyVersions) -> None:
    newest = counts.padded + NEW_VERSIONS
    for where in (mount, plan.own_mount):
        if _current_version(tools, where, counts.key_id) != newest:
            raise VerificationError(
                f"key {counts.key_id} in {where} is not at version {newest}",
                hint="somebody else writes to it; begin a new run",
            )
    for version in range(counts.first_new, newest + 1):
        ours = _read_key(tools, plan.own_mount, counts.key_id, version)
        if ours != _read_key(tools, mount, counts.key_id, version):
            raise VerificationError(
                f"version {version} of key {counts.key_id} differs between {mount} and "
                f"{plan.own_mount}",
                hint="somebody else wrote to the recipient's mount; begin a new run",
            )


def _read_key(tools: Tools, mount: str, key_id: str, version: int) -> Secret:
    found = tools.vault.read_secret(mount, key_id, version=version)
    if not found or VALUE not in found:
        raise SecretError(f"version {version} of key {key_id} in {mount} is not there")
    return found[VALUE]
