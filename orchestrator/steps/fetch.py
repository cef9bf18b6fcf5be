"""Steps that bring a stored backup set to the recipient of a restore, and end such a restore."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from typing import TYPE_CHECKING

from orchestrator import flavors, jobs, sql
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
    key. Archives of binary logs that are replayed come behind the set, and are kept as they are. Both
    ends are remote jobs that survive the orchestrator.

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
        document = need_manifest(tools, plan)
        archives = need_archives(tools, plan)
        _take_other_files(tools, plan, document)
        openers = _make_openers(tools, plan, (document, *archives))
        stream_jobs.arm_receiver(tools, plan, receive, openers)
        sets = [(each.backup_id, len(each.parts)) for each in (document, *archives)]
        stream.send_stored_sets(tools, plan, plan.repository_dir, sets)

    try:
        send, receive = stream.attach_or_begin(tools, plan, begin)
        streamed = stream.wait_for_stream(tools, plan, send, receive)
        tool_keys.drop_carried_configs(tools, plan)
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


def need_manifest(tools: Tools, plan: RestorePlan) -> Manifest:
    """Return the manifest of the set, proved once more, and seen to be the one that was planned with.

    Raises:
        VerificationError: It is another one.
        SecretError: Vault does not give the key of manifests.
    """
    made = deployment.need_deployment(tools.vault, tools.config)
    found = store.read_manifest(tools.donor, plan.repository_dir, plan.backup_id, made)
    planned = (plan.parts, plan.stored_bytes, plan.to_lsn)
    if (len(found.parts), sum(part.bytes for part in found.parts), found.to_lsn) != planned:
        raise VerificationError(
            f"the manifest of {plan.backup_id} is not the one that this restore was planned with",
            host=plan.donor,
            hint="begin a new restore",
        )
    return found


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


def _make_openers(
    tools: Tools, plan: RestorePlan, documents: Sequence[Manifest]
) -> tuple[jobs.Stage, ...]:
    """Return what compares the parts with the manifests, and decrypts those of the set."""
    ledger = f"{plan.run_dir}/parts"
    lines = (
        f"{part.sha256} {part.bytes} {part.name if each is documents[0] else each.backup_id}\n"
        for each in documents
        for part in each.parts
    )
    tools.recipient.write_file(ledger, "".join(lines))
    found = set_keys.need_identity(tools.vault, tools.config, plan.backup_id)
    identity = f"{plan.secret_dir}/identity"
    tools.recipient.run(["install", "-d", "-m", "0700", "/run/xbvault", plan.secret_dir])
    tools.recipient.write_file(identity, Secret.join(found, "\n"))
    return (
        jobs.Stage(argv=("sh", "-c", script("parts.sh"), "parts", ledger), role=bottleneck.CHECK),
        *_list_keepers(plan),
        jobs.Stage(argv=stream_jobs.unseal_command(identity), role=bottleneck.UNSEAL),
    )


def _list_keepers(plan: RestorePlan) -> tuple[jobs.Stage, ...]:
    """Return what keeps the archives that come behind the set."""
    if not plan.replay:
        return ()
    words = ("keep", str(plan.stored_bytes), plan.logs_file)
    return (jobs.Stage(argv=("sh", "-c", script("keep.sh"), *words), role=bottleneck.KEEP),)


def _take_other_files(tools: Tools, plan: RestorePlan, document: Manifest) -> None:
    """Bring over what a set has beside its parts, each compared with the manifest.

    Raises:
        VerificationError: One differs.
    """
    targets = {
        transition.BUNDLE: transition.bundle_path(tools, plan),
        tool_keys.TABLESPACES: tool_keys.list_path(tools, plan),
    }
    for file in document.files:
        data = tools.donor.read_file(f"{plan.set_dir}/{file.name}")
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise VerificationError(
                f"{file.name} of backup set {plan.backup_id} is not the one that was stored: its "
                "SHA-256 differs",
                host=plan.donor,
                hint="do not use this set; `xbvault backups verify` looks at all of it",
            )
        if file.name in targets:
            tools.recipient.write_file(targets[file.name], data)
    if flavors.tool_carries_keys(plan):
        record = records.read_record_at(tools, plan.key_path)
        path = tool_keys.fingerprint_path(tools, plan)
        tools.recipient.write_file(path, record.get("fingerprint", ""))


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
