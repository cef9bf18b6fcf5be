"""Steps that bring a stored backup set to the recipient of a restore, and end such a restore."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from typing import TYPE_CHECKING

from orchestrator import flavors, jobs, sql, wire
from orchestrator.errors import SecretError, VerificationError
from orchestrator.facts import instances
from orchestrator.host import script
from orchestrator.models import RESTORE, RESTORES, Check, Coordinates, Secret
from orchestrator.repository import deployment, set_keys, store
from orchestrator.steps import (
    bottleneck,
    places,
    records,
    restore,
    stream,
    stream_ends,
    stream_jobs,
    tool_keys,
    transition,
)
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.models import RestorePlan
    from orchestrator.repository.manifest import Manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class FetchedSet:
    """A backup set that came to its recipient whole.

    Attributes:
        backup_id: Its name.
        coordinates: Place in the binary log of the host that it was made of.
        bytes: Size of its parts, as counted on both ends.
        checks: What it was judged by.
    """

    backup_id: str
    coordinates: Coordinates
    bytes: int
    checks: tuple[Check, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleasedServer:
    """The restored server as it was handed over.

    Attributes:
        read_only: Whether it refuses writes of ordinary accounts.
        event_scheduler: Whether its event scheduler runs.
        checks: That it answers.
    """

    read_only: bool
    event_scheduler: bool
    checks: tuple[Check, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedRecord:
    """The record of a restore that has ended.

    Attributes:
        path: Its path in Vault.
    """

    path: str


@step(
    "fetch-backup-set",
    role="both",
    repeat=Repeat.RESTART,
    deadline_seconds=7 * 86400,
    forms=RESTORES,
)
def fetch_backup_set(tools: Tools, plan: RestorePlan) -> stream_ends.Stream:
    """Stream a stored set from its repository into the recipient's staging directory.

    The recipient compares each part with the manifest, and decrypts; the repository's host sees no
    key. Before an incremental set come those that it builds on, and each goes to a directory of its
    own. Archives of binary logs that are replayed come last, and are kept as they are. Both ends are
    remote jobs that survive the orchestrator.

    Args:
        tools: The doors to both hosts, to Vault and its SSH CA.
        plan: The restore.

    Returns:
        Bytes and seconds, and what limited them.

    Raises:
        CommandError: A process of the pipe failed.
        SecretError: The set's keys were destroyed, or Vault refuses.
        VerificationError: The manifest is not ours any more, or a file of the set differs.

    Repeat:
        Jobs that still run, or have ended well, are attached to. Anything else, such as jobs whose
        lease ran out, is thrown away and begun again.
    """

    def begin(send: str, receive: str) -> None:
        stream.throw_away(tools, plan, send, receive)
        places.make_vaults(tools, plan)
        tools.recipient.run(["install", "-d", "-m", "0700", records.RUNS, plan.run_dir])
        chain = need_chain(tools, plan)
        documents = (*chain, *need_archives(tools, plan))
        for document in chain:
            _take_other_files(tools, plan, document)
        checkers = (_make_checker(tools, plan, documents), *_list_keepers(plan))
        if plan.bases:
            listed = _write_unpacking(tools, plan)
            stream_jobs.arm_unpacker(tools, plan, receive, checkers, listed)
        else:
            opener = _make_opener(tools, plan)
            stream_jobs.arm_receiver(tools, plan, receive, (*checkers, opener))
        sets = [(each.backup_id, len(each.parts)) for each in documents]
        stream.send_stored_sets(tools, plan, plan.repository_dir, sets)

    try:
        send, receive = stream.attach_or_begin(tools, plan, begin)
        streamed = stream.wait_for_stream(tools, plan, send, receive)
        tool_keys.drop_carried_configs(tools, plan)
        stream.begin_flush(tools, plan)
    finally:
        _remove_secrets(tools, plan)
    return streamed


def _remove_secrets(tools: Tools, plan: RestorePlan) -> None:
    """Remove the secrets of the stream: the recipient's first, for it has what opens the set.

    Those of the repository's host must not keep them, if that one does not answer any more.
    """
    for remote in (tools.recipient, tools.donor):
        remote.run(["rm", "-rf", "--", plan.secret_dir])


@step(
    "verify-fetched-set",
    role="recipient",
    repeat=Repeat.BACK,
    back_to="fetch-backup-set",
    forms=RESTORES,
)
def verify_fetched_set(tools: Tools, plan: RestorePlan) -> FetchedSet:
    """Judge the fetched set by evidence, before anything of the recipient's is touched.

    Args:
        tools: The doors to both hosts and to Vault.
        plan: The restore.

    Returns:
        The coordinates and what the set was judged by.

    Raises:
        VerificationError: The set is not whole; all findings are listed.
        InterruptedWorkError: It was found so before; whoever resumes wants it fetched again.

    Repeat:
        Looks again; a set that was found not whole sends the run back to the fetching.
    """
    stream.refuse_judged(tools, plan, "the fetched backup set was not whole; it is fetched again")
    ends = stream_ends.read_ends(tools, plan)
    files = flavors.of(plan).set_files(plan.server_version)
    checks = [
        stream.judge_statuses(ends),
        stream.judge_counts(ends),
        Check(
            name="stored-parts",
            host=plan.recipient,
            ok=ends.received.bytes == plan.fetched_bytes,
            evidence=f"{plan.fetched_parts} parts with {plan.fetched_bytes} bytes in the manifests, "
            f"received {ends.received.bytes}",
        ),
        stream.judge_closing_files(tools, plan),
        *stream.compare_sets(tools, plan, files),
        *_judge_increments(tools, plan),
        *_judge_bundle(tools, plan),
        *tool_keys.judge_set(tools, plan),
    ]
    stream.need_whole(
        tools,
        plan,
        checks,
        what="the fetched backup set",
        hint="`xbvault runs resume` fetches it again; the recipient's data was not touched",
    )
    coordinates = stream.read_set_coordinates(tools, plan)
    told = stream.describe_coordinates(plan, coordinates)
    return FetchedSet(
        backup_id=plan.backup_id,
        coordinates=coordinates,
        bytes=ends.received.bytes,
        checks=(*checks, Check(name="coordinates", ok=True, evidence=told)),
    )


@step("release-server", role="recipient", repeat=Repeat.SAFE, needs_server=True, forms=(RESTORE,))
def release_server(tools: Tools, plan: RestorePlan) -> ReleasedServer:
    """Hand the restored server over: it takes writes, and its events run, unless that is not wanted.

    Args:
        tools: The door to the recipient.
        plan: The restore.

    Returns:
        How it was handed over.

    Raises:
        CommandError: The server refuses.

    Repeat:
        It is set once more, and the option file is written again.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    wants_events = restore.wants_event_scheduler(tools, plan) and not plan.read_only
    statements = (
        "SET SESSION sql_log_bin = 0",
        f"SET GLOBAL event_scheduler = {'ON' if wants_events else 'OFF'}",
        f"SET GLOBAL read_only = {'ON' if plan.read_only else 'OFF'}",
    )
    sql.execute(remote, host, ";\n".join(statements))
    restore.write_drop_in(
        tools,
        plan,
        flavors.of(plan).released_drop_in(
            run_id=plan.run_id,
            version=plan.server_version,
            read_only=plan.read_only,
            is_replica=False,
            ignored_directories=places.ignored_directories(plan),
        ),
    )
    facts = instances.read_instance(remote, host)
    return ReleasedServer(
        read_only=facts.is_on("read_only"),
        event_scheduler=wants_events,
        checks=(
            Check(
                name="server-answers",
                host=plan.recipient,
                ok=True,
                evidence=f"{facts.user_schemas} schemas; "
                f"{'refuses' if facts.is_on('read_only') else 'takes'} writes",
            ),
        ),
    )


@step(
    "close-restore-record",
    role="recipient",
    repeat=Repeat.SAFE,
    after_others=True,
    forms=RESTORES,
)
def close_restore_record(tools: Tools, plan: RestorePlan) -> ClosedRecord:
    """Write down that the restore has ended. The keys of the set stay: others need them.

    Args:
        tools: The door to Vault.
        plan: The run's plan.

    Returns:
        Where that stands.

    Raises:
        SecretError: Vault refuses.

    Repeat:
        Written already: changes nothing.
    """
    if records.read_record(tools, plan).get("state") != records.DESTROYED:
        ended = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        changes = {"state": records.DESTROYED, "destroyed": ended, "run": plan.run_id}
        records.update_record(tools, plan, changes)
    return ClosedRecord(path=f"{tools.config.vault.mount}/{plan.record_path}")


def need_chain(tools: Tools, plan: RestorePlan) -> tuple[Manifest, ...]:
    """Return the manifests of the chain, proved once more, and seen to be those that were planned with.

    Raises:
        VerificationError: One is another one.
        SecretError: Vault does not give the key of manifests.
    """
    made = deployment.need_deployment(tools.vault, tools.config)
    found = []
    for each in plan.chain:
        document = store.read_manifest(tools.donor, plan.repository_dir, each.backup_id, made)
        stored = sum(part.bytes for part in document.parts)
        planned = (each.parts, each.stored_bytes, each.from_lsn, each.to_lsn)
        if (len(document.parts), stored, document.from_lsn, document.to_lsn) != planned:
            raise VerificationError(
                f"the manifest of {each.backup_id} is not the one that this restore was planned with",
                host=plan.donor,
                hint="begin a new restore",
            )
        found.append(document)
    return tuple(found)


def need_archives(tools: Tools, plan: RestorePlan) -> tuple[Manifest, ...]:
    """Return the manifests of the archives that are replayed, likewise.

    Raises:
        VerificationError: One is another one.
        SecretError: Vault does not give the key of manifests.
    """
    made = deployment.need_deployment(tools.vault, tools.config)
    found = []
    for each in plan.log_sets:
        document = store.read_manifest(tools.donor, plan.repository_dir, each.backup_id, made)
        logs = tuple((log.name, log.bytes) for log in document.binlogs)
        stored = sum(part.bytes for part in document.parts)
        if (logs, stored) != (tuple((log.name, log.bytes) for log in each.logs), each.stored_bytes):
            raise VerificationError(
                f"the manifest of {each.backup_id} is not the one that this restore was planned with",
                host=plan.donor,
                hint="begin a new restore",
            )
        found.append(document)
    return tuple(found)


def _make_checker(tools: Tools, plan: RestorePlan, documents: Sequence[Manifest]) -> jobs.Stage:
    """Return what compares the parts with the manifests."""
    ledger = f"{plan.run_dir}/parts"
    lines = (
        f"{part.sha256} {part.bytes} "
        f"{part.name if each.backup_id == plan.backup_id else each.backup_id}\n"
        for each in documents
        for part in each.parts
    )
    tools.recipient.write_file(ledger, "".join(lines))
    argv = ("sh", "-c", script("parts.sh"), "parts", ledger, script("double.pl"))
    return jobs.Stage(argv=argv, role=bottleneck.CHECK)


def _make_opener(tools: Tools, plan: RestorePlan) -> jobs.Stage:
    """Return what decrypts the stream of a set that builds on none."""
    identity = f"{plan.secret_dir}/identity"
    _write_identity(tools, plan, plan.backup_id, identity)
    return jobs.Stage(argv=stream_jobs.unseal_command(identity), role=bottleneck.UNSEAL)


def _write_unpacking(tools: Tools, plan: RestorePlan) -> str:
    """Write how each stream of a chain is opened and where it goes; return the file."""
    lines = []
    folders = (plan.staging_dir, *plan.increment_dirs)
    for number, (each, folder) in enumerate(zip(plan.chain, folders, strict=True)):
        identity = f"{plan.secret_dir}/identity.{number}"
        _write_identity(tools, plan, each.backup_id, identity)
        packed = wire.ZSTD if each.compress != wire.NONE else wire.NONE
        lines.append(f"{each.stored_bytes} {identity} {packed} {folder}\n")
    listed = f"{plan.run_dir}/chain"
    tools.recipient.write_file(listed, "".join(lines))
    return listed


def _write_identity(tools: Tools, plan: RestorePlan, backup_id: str, path: str) -> None:
    """Write what decrypts a set to the recipient's tmpfs."""
    found = set_keys.need_identity(tools.vault, tools.config, backup_id)
    tools.recipient.run(["install", "-d", "-m", "0700", "/run/xbvault", plan.secret_dir])
    tools.recipient.write_file(path, Secret.join(found, "\n"))


def _list_keepers(plan: RestorePlan) -> tuple[jobs.Stage, ...]:
    """Return what keeps the archives that come behind the chain."""
    if not plan.replay:
        return ()
    words = ("keep", str(plan.chain_bytes), plan.logs_file)
    return (jobs.Stage(argv=("sh", "-c", script("keep.sh"), *words), role=bottleneck.KEEP),)


def _take_other_files(tools: Tools, plan: RestorePlan, document: Manifest) -> None:
    """Bring over what a set of the chain has beside its parts, each compared with the manifest.

    Raises:
        VerificationError: One differs.
    """
    is_newest = document.backup_id == plan.backup_id
    targets = {transition.BUNDLE: transition.bundle_path(tools, plan, document.backup_id)}
    if is_newest:
        targets[tool_keys.TABLESPACES] = tool_keys.list_path(tools, plan)
    for file in document.files:
        path = store.join_path(plan.repository_dir, document.backup_id)
        data = tools.donor.read_file(f"{path}/{file.name}")
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise VerificationError(
                f"{file.name} of backup set {document.backup_id} is not the one that was stored: its "
                "SHA-256 differs",
                host=plan.donor,
                hint="do not use this set; `xbvault backups verify` looks at all of it",
            )
        if file.name in targets:
            tools.recipient.write_file(targets[file.name], data)
    if is_newest and flavors.tool_carries_keys(plan):
        record = records.read_record_at(tools, plan.key_path)
        path = tool_keys.fingerprint_path(tools, plan)
        tools.recipient.write_file(path, record.get("fingerprint", ""))


def _judge_increments(tools: Tools, plan: RestorePlan) -> list[Check]:
    """Judge the incremental sets of the chain: each is whole, and goes on where its manifest says."""
    files = flavors.of(plan).set_files(plan.server_version)
    good: list[str] = []
    bad: list[str] = []
    for folder, each in zip(plan.increment_dirs, plan.chain[1:], strict=True):
        told = tools.recipient.run(["cat", "--", f"{folder}/{files.checkpoints}"], check=False)
        ok, evidence = stream.judge_checkpoints(told.text, (), from_lsn=each.from_lsn)
        whole = stream.judge_closing_files(tools, plan, folder)
        is_good = ok and whole.ok and f", to_lsn={each.to_lsn}," in evidence
        words = evidence if whole.ok else f"{evidence}, {whole.evidence}"
        (good if is_good else bad).append(f"{each.backup_id}: {words}")
    if not plan.bases:
        return []
    return [
        Check(
            name="increments",
            host=plan.recipient,
            ok=not bad,
            evidence="; ".join(bad)
            or f"{len(good)}, each from where the one before it ends; the last is {good[-1]}",
        )
    ]


def _judge_bundle(tools: Tools, plan: RestorePlan) -> list[Check]:
    """Judge whether the sealed key bundle opens with the transition key of the set."""
    if not flavors.needs_transition_mount(plan):
        return []
    try:
        table = transition.open_key_bundle(tools, plan)
        problem = ""
    except VerificationError as error:
        table, problem = {}, error.message
    except SecretError:
        raise set_keys.explain_missing(tools.vault, tools.config, plan.backup_id) from None
    versions = sum(len(found) for found in table.values())
    return [
        Check(
            name="sealed-keys",
            host=plan.recipient,
            ok=bool(table),
            evidence=problem or f"{len(table)} keys in {versions} versions",
        )
    ]
