"""Steps of a stored backup: its keys, its stream into the repository, its manifest."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import re
from typing import TYPE_CHECKING

from orchestrator import flavors, keys, numerals, version
from orchestrator.errors import (
    PreconditionError,
    SecretError,
    VerificationError,
)
from orchestrator.flavors import backup_sets
from orchestrator.models import ARCHIVE, BACKUP, STORING, BackupPlan, Check, Coordinates, CopyPlan
from orchestrator.repository import deployment, manifest, names, set_keys, store
from orchestrator.steps import (
    recorded_sums,
    records,
    stream,
    stream_ends,
    stream_jobs,
    tool_keys,
    transition,
)
from orchestrator.steps.cleanup import Removed
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator import jobs
    from orchestrator.models import ArchivePlan, Secret, StoringPlan
    from orchestrator.repository.manifest import Manifest, StoredFile

MADE = "made"
"""A copy's record has the folder under this name, before it is made."""
OTHER_FILES = (transition.BUNDLE, tool_keys.TABLESPACES)
"""What a set may have beside its parts and its manifest."""
_POSITION = re.compile(
    r"^binlog_pos = filename '([^']+)', position '([0-9]+)'(?:, GTID of the last change '([^']*)')?$",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetKeys:
    """The keys of a stored set, by where they are and how they can be recognised.

    Attributes:
        path: Their path in Vault.
        fingerprint: Of the transition key.
        age_recipient: The public key that the stream is encrypted to.
        deployment: Id of the store in Vault.
    """

    path: str
    fingerprint: str
    age_recipient: str
    deployment: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredSet:
    """A backup set that was stored whole.

    Attributes:
        backup_id: Its name.
        coordinates: Place in the donor's binary log; None where there is none.
        bytes: As counted on both ends, and found in the parts.
        parts: How many parts it has.
        to_lsn: Log sequence number up to which it goes.
        checks: What it was judged by.
    """

    backup_id: str
    coordinates: Coordinates | None
    bytes: int
    parts: int
    to_lsn: int
    checks: tuple[Check, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedSet:
    """A backup set with its manifest.

    Attributes:
        folder: Where it lies on the repository's host.
        stored_bytes: What it takes there, but for the manifest itself.
    """

    folder: str
    stored_bytes: int


@step("create-set-keys", role="recipient", repeat=Repeat.SAFE, forms=(BACKUP, ARCHIVE))
def create_set_keys(tools: Tools, plan: StoringPlan) -> SetKeys:
    """Make the keys of a set, store them in Vault, and compare what Vault gives back.

    Transition key and ``age`` identity are one secret, so that one act destroys both. The key that
    manifests are authenticated with belongs to the deployment, and outlives every set.

    Args:
        tools: The door to Vault.
        plan: The backup, or the archive of binary logs.

    Returns:
        Where the keys are, and how to recognise them.

    Raises:
        SecretError: Vault refuses, or another run has used this ``backup_id``.
        VerificationError: Vault gives back something else.

    Repeat:
        Keys of this run are there: they are compared with the record and kept.
    """
    mount = tools.config.vault.mount
    made = deployment.make_deployment(tools.vault, tools.config)
    metadata = tools.vault.read_metadata(mount, plan.key_path)
    if metadata and metadata.custom.get("run", plan.run_id) != plan.run_id:
        raise SecretError(
            f"{mount}/{plan.key_path} belongs to run {metadata.custom['run']}",
            hint="begin a new run: a backup_id is never used twice",
        )
    if metadata is None or metadata.current_version == 0:
        key = _read_shared_key(tools, plan) or keys.new_transition_key()
        identity, recipient = keys.new_age_identity()
        record = {
            "kind": BACKUP,
            "donor": plan.donor,
            "repository": plan.recipient,
            "run": plan.run_id,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "state": "active",
            "fingerprint": keys.fingerprint(key),
            set_keys.AGE_RECIPIENT: recipient,
        }
        records.update_record(tools, plan, record)
        tools.vault.write_secret(
            mount,
            plan.key_path,
            {set_keys.TRANSITION_KEY: key, set_keys.AGE_IDENTITY: identity},
            cas=0,
        )
    set_keys.hold(tools.vault, tools.config, plan.backup_id, plan.recipient)
    record = records.read_record(tools, plan)
    fingerprint = keys.fingerprint(records.read_transition_key(tools, plan))
    stored = tools.vault.read_secret(mount, plan.key_path) or {}
    recipient = (
        keys.find_age_recipient(stored[set_keys.AGE_IDENTITY])
        if set_keys.AGE_IDENTITY in stored
        else ""
    )
    found = (record.get("fingerprint"), record.get(set_keys.AGE_RECIPIENT))
    if found != (fingerprint, recipient):
        raise VerificationError(
            f"the keys at {mount}/{plan.key_path} do not fit their record",
            hint="somebody changed them; begin a new run",
        )
    return SetKeys(
        path=f"{mount}/{plan.key_path}",
        fingerprint=fingerprint,
        age_recipient=recipient,
        deployment=made.id,
    )


def _read_shared_key(tools: Tools, plan: StoringPlan) -> Secret | None:
    """Return the transition key of the set that a new one builds on; None where it makes one.

    A tool that carries the keys itself opens all sets of a chain with one transition key. What each
    is decrypted with is its own all the same.

    Raises:
        SecretError: It was destroyed, or is not there.
    """
    base = plan.base_backup_id if isinstance(plan, BackupPlan) else ""
    if not base or not flavors.of(plan).carries_keys:
        return None
    return set_keys.need_transition_key(tools.vault, tools.config, base)


@step(
    "store-backup",
    role="both",
    repeat=Repeat.RESTART,
    deadline_seconds=7 * 86400,
    forms=(BACKUP,),
)
def store_backup(tools: Tools, plan: BackupPlan) -> stream_ends.Stream:
    """Stream a physical backup, encrypted on the donor, into the folder of its set.

    Both ends are remote jobs that survive the orchestrator. The bytes do not pass through it.

    Args:
        tools: The doors to both hosts, and to Vault's SSH CA.
        plan: The backup.

    Returns:
        Bytes and seconds, and what limited them.

    Raises:
        CommandError: A process of the pipe failed, the stream stalled, or the repository is not
            there.
        SecretError: Vault does not sign the credential, or gives the backup tool no keys.

    Repeat:
        Jobs that still run, or have ended well, are attached to. Anything else is thrown away, with
        the folder, and begun again.
    """

    def make_reader() -> tuple[jobs.Stage, ...]:
        tool_keys.record_set(tools, plan)
        return stream_jobs.make_reader(tools, plan, plan.run_dir)

    return store_stream(tools, plan, make_reader, reads=True)


def store_stream(
    tools: Tools,
    plan: BackupPlan | ArchivePlan,
    make_reader: Callable[[], tuple[jobs.Stage, ...]],
    *,
    reads: bool,
) -> stream_ends.Stream:
    """Stream what a donor gives into the folder of a set, or attach to the jobs that do.

    Args:
        tools: The doors to both hosts, and to Vault's SSH CA.
        plan: The run's plan.
        make_reader: Returns what gives the stream on the donor, once what it needs is there.
        reads: Whether that is the backup tool, and options of ours have to wait for it.

    Raises:
        CommandError: A process of the pipe failed, the stream stalled, or the repository is not
            there.
        SecretError: Vault does not sign the credential, or gives the backup tool no keys.
    """

    def begin(send: str, receive: str) -> None:
        stream.remove_jobs(tools, send, receive)
        tools.recipient.run(["rm", "-rf", "--", plan.set_dir, plan.ledger], timeout_seconds=600)
        stream_jobs.arm_store(tools, plan, receive)
        stream_jobs.make_credential(tools, plan)
        with stream_jobs.open_way(tools, plan) as address:
            before = make_reader()
            stream_jobs.start_sender(tools, plan, send, before, address=address)
            stream.wait_for_connection(tools, plan, send, receive, reads=reads)

    try:
        send, receive = stream.attach_or_begin(tools, plan, begin)
    finally:
        tools.donor.run(["rm", "-rf", "--", plan.secret_dir])
    return stream.wait_for_stream(tools, plan, send, receive)


@step(
    "verify-stored-set",
    role="recipient",
    repeat=Repeat.BACK,
    back_to="store-backup",
    forms=(BACKUP,),
)
def verify_stored_set(tools: Tools, plan: BackupPlan) -> StoredSet:
    """Judge the stored set by evidence of both ends.

    Args:
        tools: The doors to both hosts.
        plan: The backup.

    Returns:
        The coordinates and what the set was judged by.

    Raises:
        VerificationError: The set is not whole; all findings are listed.
        InterruptedWorkError: It was found so before; whoever resumes wants it streamed again.

    Repeat:
        Looks again; a set that was found not whole sends the run back to the stream.
    """
    stream.refuse_judged(tools, plan, "the stored backup set was not whole; it is streamed again")
    found = _judge(tools, plan)
    stream.need_whole(
        tools,
        plan,
        found.checks,
        what="the stored backup set",
        hint="`xbvault runs resume` streams it again",
    )
    return found


@step("write-manifest", role="recipient", repeat=Repeat.SAFE, forms=(BACKUP,))
def write_manifest(tools: Tools, plan: BackupPlan) -> PublishedSet:
    """Write the manifest of the set, authenticated, as the last of its files.

    Args:
        tools: The doors to both hosts and to Vault.
        plan: The backup.

    Returns:
        Where the set lies.

    Raises:
        VerificationError: The set is not whole any more, or the sums of its tables are gone.
        SecretError: Vault does not give the key of manifests, or the set's keys were destroyed
            meanwhile.

    Repeat:
        It is written again, and says the same.
    """
    found = _judge(tools, plan)
    bad = [check for check in found.checks if not check.ok]
    if bad:
        raise VerificationError(
            f"the stored backup set is not whole: {bad[0].name}, {bad[0].evidence}",
            host=plan.recipient,
            hint=f"`xbvault runs cancel {plan.run_id}`, and take another backup",
        )
    made = deployment.need_deployment(tools.vault, tools.config)
    record = records.read_record(tools, plan)
    parts = store.read_ledger(tools.recipient, plan.ledger)
    document = manifest.Manifest(
        xbvault_version=version(),
        backup_id=plan.backup_id,
        deployment=made.id,
        host=plan.donor,
        flavor=plan.flavor,
        server_version=plan.server_version,
        tool_version=plan.tool_version,
        kind=manifest.INCREMENTAL if plan.base_backup_id else manifest.FULL,
        base_backup_id=plan.base_backup_id,
        from_lsn=plan.from_lsn,
        to_lsn=found.to_lsn,
        began_at=names.format_moment(dt.datetime.fromisoformat(record["created"])),
        ended_at=_read_end(tools, plan),
        coordinates=found.coordinates,
        compress=plan.compress,
        stream_bytes=count_clear_bytes(found.bytes),
        part_bytes=plan.part_bytes,
        parts=parts,
        files=_read_other_files(tools, plan),
        age_recipient=record[set_keys.AGE_RECIPIENT],
        key_path=plan.key_path,
        has_keyring=plan.has_keyring,
        keyring=plan.keyring,
        key_versions=_read_key_versions(tools, plan),
        data_bytes=plan.expected_bytes,
        layout=plan.layout,
        checks=found.checks,
        checksums=recorded_sums.read_sums(tools, plan, found.coordinates),
    )
    return publish(tools, plan, document, made.manifest_key)


@step(
    "remove-stored-set",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=7200,
    after_others=True,
    forms=STORING,
)
def remove_stored_set(tools: Tools, plan: StoringPlan) -> Removed:
    """Remove the set from its repository, its manifest first.

    Args:
        tools: The door to the repository's host.
        plan: The run's plan.

    Returns:
        The folder.

    Raises:
        CommandError: It cannot be removed, or holds a file that is none of ours.
        LockHeldError: Another run reads it.
        PreconditionError: An incremental set builds on it.

    Repeat:
        What is gone is no error.
    """
    is_copy = isinstance(plan, CopyPlan)
    if is_copy and records.read_record(tools, plan).get(MADE) != plan.set_dir:
        return Removed(names=())  # the run never came to it, and another may have
    store.need_unread(tools.recipient, plan.set_dir, run_id=plan.run_id)
    _need_no_increment(tools, plan)
    set_keys.let_go(tools.vault, tools.config, plan.backup_id, plan.recipient)
    store.remove_set(tools.recipient, plan.set_dir, OTHER_FILES)
    return Removed(names=(plan.set_dir,))


def _need_no_increment(tools: Tools, plan: StoringPlan) -> None:
    """Refuse to remove a set that another one builds on.

    Raises:
        PreconditionError: One does.
    """
    made = deployment.read_deployment(tools.vault, tools.config)
    folders = store.list_folders(tools.recipient, plan.set_dir.rpartition("/")[0], made)
    for folder in folders:
        if folder.manifest and folder.manifest.base_backup_id == plan.backup_id:
            raise PreconditionError(
                f"{folder.manifest.backup_id} builds on {plan.backup_id}, and could not be restored "
                "without it",
                host=plan.recipient,
                hint="undo the run that made that one first, or let `xbvault backups expire` decide",
            )


def publish(tools: Tools, plan: StoringPlan, document: Manifest, key: Secret) -> PublishedSet:
    """Write a manifest as the last file of its set, if nobody has destroyed the set's keys meanwhile.

    Raises:
        SecretError: They were.
        VerificationError: The manifest says what cannot be.
    """
    if not set_keys.hold(tools.vault, tools.config, plan.backup_id, plan.recipient):
        raise set_keys.explain_missing(tools.vault, tools.config, plan.backup_id)
    store.publish_manifest(tools.recipient, plan.set_dir, manifest.seal_manifest(document, key))
    return PublishedSet(folder=plan.set_dir, stored_bytes=document.stored_bytes)


def _judge(tools: Tools, plan: BackupPlan) -> StoredSet:
    """Judge the set that the jobs of this attempt have stored."""
    flavor = flavors.of(plan)
    files = flavor.set_files(plan.server_version)
    ends = stream_ends.read_ends(tools, plan)
    parts = store.read_ledger(tools.recipient, plan.ledger)
    told = {name: _read_told(tools, plan, name) for name in (files.info, files.checkpoints)}
    closing = [name for name, text in told.items() if text]
    is_set, evidence = stream.judge_checkpoints(told[files.checkpoints], (), from_lsn=plan.from_lsn)
    try:
        coordinates, at = read_position(plan, told[files.info]), ""
    except VerificationError as error:
        coordinates, at = None, error.message
    stored = sum(part.bytes for part in parts)
    checks = (
        *stream.judge_jobs(tools, plan, ends),
        Check(
            name="closing-files",
            host=plan.donor,
            ok=len(closing) == len(told),
            evidence=f"found {', '.join(closing) or 'none'}",
        ),
        Check(name="checkpoints", host=plan.donor, ok=is_set, evidence=evidence),
        judge_parts(plan, parts, ends.received.bytes),
        Check(
            name="coordinates",
            host=plan.donor,
            ok=not at,
            evidence=at
            or (stream.describe_coordinates(plan, coordinates) if coordinates else "none"),
        ),
    )
    to_lsn = (
        backup_sets.parse_lsn(backup_sets.parse_checkpoints(told[files.checkpoints]), "to_lsn")
        if is_set
        else 0
    )
    return StoredSet(
        backup_id=plan.backup_id,
        coordinates=coordinates,
        bytes=stored,
        parts=len(parts),
        to_lsn=to_lsn,
        checks=checks,
    )


def read_told_coordinates(tools: Tools, plan: BackupPlan) -> Coordinates | None:
    """Return the coordinates that the backup tool has left on the donor; None where it has none.

    Raises:
        VerificationError: They do not parse.
    """
    files = flavors.of(plan).set_files(plan.server_version)
    return read_position(plan, _read_told(tools, plan, files.info))


def _read_told(tools: Tools, plan: BackupPlan, name: str) -> str:
    """Return one of the files that the backup tool has left on the donor beside the stream."""
    path = f"{plan.run_dir}/{stream_jobs.INFORMATION}/{name}"
    return tools.donor.run(["cat", "--", path], check=False).text


def judge_parts(plan: StoringPlan, parts: tuple[StoredFile, ...], received: int) -> Check:
    """Judge whether the parts are all of the stream: in order, of their size, nothing between."""
    stored = sum(part.bytes for part in parts)
    in_order = [part.name for part in parts] == [
        names.name_part(number) for number in range(1, len(parts) + 1)
    ]
    whole = all(part.bytes == plan.part_bytes for part in parts[:-1])
    return Check(
        name="stored-parts",
        host=plan.recipient,
        ok=in_order and whole and stored == received > 0,
        evidence=f"{len(parts)} parts with {stored} bytes, received {received}"
        + ("" if in_order and whole else "; they are not in order, or not of their size"),
    )


def read_position(plan: BackupPlan, info: str) -> Coordinates | None:
    """Return the coordinates that a set's information tells; None where the donor has none.

    Raises:
        VerificationError: They do not parse.
    """
    found = _POSITION.search(info)
    if found is None:
        if "\nbinlog_pos = \n" in f"\n{info}":
            return None
        raise VerificationError("the set's information names no coordinates")
    text = "\t".join((found[1], found[2], found[3] or ""))
    return flavors.of(plan).read_coordinates(f"{text}\n")


def count_clear_bytes(sealed: int) -> int:
    """Return the size of a stream from the size that ``age`` has given it, for one public key.

    In format v1 a header of 168 bytes and a nonce of 16 come first, and then 16 bytes more for each
    block of 64 KiB; the last one may be smaller.

    Raises:
        VerificationError: It is less than ``age`` writes.
    """
    body = sealed - _AGE_HEADER_BYTES
    if body < _AGE_TAG_BYTES:
        raise VerificationError(f"{sealed} bytes are no stream that age has encrypted")
    blocks = -(-body // (_AGE_BLOCK_BYTES + _AGE_TAG_BYTES))
    return body - blocks * _AGE_TAG_BYTES


_AGE_HEADER_BYTES = 168 + 16
_AGE_BLOCK_BYTES = 64 << 10
_AGE_TAG_BYTES = 16


def _read_end(tools: Tools, plan: BackupPlan) -> str:
    """Return when the last part was whole, by the clock of the repository's host."""
    told = tools.recipient.run(["stat", "-c", "%Y", "--", plan.ledger]).text
    moment = dt.datetime.fromtimestamp(numerals.parse_whole(told.strip()), dt.UTC)
    return names.format_moment(moment)


def _read_other_files(tools: Tools, plan: BackupPlan) -> tuple[StoredFile, ...]:
    """Return what the set has beside its parts."""
    wanted = []
    if flavors.needs_transition_mount(plan):
        wanted.append(transition.BUNDLE)
    if plan.has_keyring:
        wanted.append(tool_keys.TABLESPACES)
    return tuple(
        manifest.StoredFile(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name in wanted
        for data in (tools.recipient.read_file(f"{plan.set_dir}/{name}"),)
    )


def _read_key_versions(tools: Tools, plan: BackupPlan) -> dict[str, int]:
    if not flavors.needs_transition_mount(plan):
        return {}
    table = transition.open_key_bundle(tools, plan)
    return {key_id: max(versions) for key_id, versions in sorted(table.items())}
