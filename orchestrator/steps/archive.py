"""Steps of an archive of binary logs: the newest one is closed, and all new ones are stored."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from orchestrator import jobs, models, numerals, sql, version
from orchestrator.errors import PreconditionError, VerificationError
from orchestrator.facts import binlogs
from orchestrator.host import script
from orchestrator.models import ARCHIVE, ArchivePlan, Check, Coordinates
from orchestrator.repository import deployment, manifest, names, set_keys, store
from orchestrator.steps import backup, bottleneck, records, stream, stream_ends, stream_jobs
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.repository.manifest import ArchivedLog

SCRATCH = "scratch"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedLog:
    """A binary log that the server writes no more.

    Attributes:
        name: The server's name for it.
        bytes: Its size as a replica gets it.
        gtid_before: GTID state with which it begins; empty where the server keeps none.
    """

    name: str
    bytes: int
    gtid_before: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedLogs:
    """The binary logs that an archive stores.

    Attributes:
        logs: In order.
        until: The donor's clock just before the last one was closed, ISO 8601 in UTC.
        coordinates: Where the next archive goes on.
    """

    logs: tuple[ClosedLog, ...]
    until: str
    coordinates: Coordinates


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredLogs:
    """Binary logs that were stored whole.

    Attributes:
        backup_id: Name of their set.
        logs: How many.
        bytes: Of the stream, as counted on both ends, and found in the parts.
        parts: How many parts the set has.
        until: Up to when transactions of the donor are in them, ISO 8601 in UTC.
        coordinates: Where the next archive goes on.
        checks: What they were judged by.
    """

    backup_id: str
    logs: int
    bytes: int
    parts: int
    until: str
    coordinates: Coordinates
    checks: tuple[Check, ...]


@step("close-binlog", role="donor", repeat=Repeat.SAFE, forms=(ARCHIVE,))
def close_binlog(tools: Tools, plan: ArchivePlan) -> ClosedLogs:
    """Let the donor begin another binary log, and write down which ones are to be stored.

    Args:
        tools: The door to the donor.
        plan: The archive.

    Returns:
        The logs that are closed now, from the first that is wanted on.

    Raises:
        PreconditionError: The first one is not there any more.
        CommandError: The donor's server refuses.

    Repeat:
        What was written down stands: no other log is begun.
    """
    path = f"{plan.run_dir}/closed.json"
    tools.donor.run(["install", "-d", "-m", "0700", records.RUNS, plan.run_dir])
    if tools.donor.run(["test", "-s", path], check=False).status != 0:
        host = tools.config.host(plan.donor)
        moment = binlogs.read_binlogs(tools.donor, host).moment
        binlogs.close_binlog(tools.donor, host)
        *closed, following = binlogs.read_binlogs(tools.donor, host).logs
        wanted = _take_from(closed, plan)
        found = ClosedLogs(
            logs=tuple(
                ClosedLog(
                    name=log.name,
                    bytes=log.bytes,
                    gtid_before=binlogs.read_state(tools.donor, host, log.name),
                )
                for log in wanted
            ),
            until=_format_seconds(moment),
            coordinates=Coordinates(
                file=following.name,
                position=FIRST_POSITION,
                gtid=binlogs.read_state(tools.donor, host, following.name),
            ),
        )
        tools.donor.write_file(path, json.dumps(models.as_json(found)))
    return read_closed(tools, plan)


FIRST_POSITION = 4
"""Behind the magic number with which a binary log begins."""


def _take_from(closed: list[binlogs.Binlog], plan: ArchivePlan) -> list[binlogs.Binlog]:
    listed = [log.name for log in closed]
    if plan.first_log not in listed:
        raise PreconditionError(
            f"binary log {plan.first_log} is not on {plan.donor} any more: it was removed before it "
            "was archived",
            host=plan.donor,
            hint=f"`xbvault runs cancel {plan.run_id}`, then `xbvault binlogs archive {plan.donor} "
            "--new-chain`, and take a full backup: what was lost is in neither",
        )
    return closed[listed.index(plan.first_log) :]


def read_closed(tools: Tools, plan: ArchivePlan) -> ClosedLogs:
    """Return the binary logs that this run is to store, as the donor has them written down.

    Raises:
        VerificationError: They are not to be understood.
    """
    text = tools.donor.read_file(f"{plan.run_dir}/closed.json")
    try:
        return models.from_json(ClosedLogs, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise VerificationError(
            f"the list of binary logs in {plan.run_dir} is not to be understood", host=plan.donor
        ) from error


@step("store-binlogs", role="both", repeat=Repeat.RESTART, deadline_seconds=86400, forms=(ARCHIVE,))
def store_binlogs(tools: Tools, plan: ArchivePlan) -> stream_ends.Stream:
    """Stream the closed binary logs, encrypted on the donor, into the folder of their set.

    The donor's server sends them as it would to a replica, decrypted; they go through pipes only.

    Args:
        tools: The doors to both hosts, and to Vault's SSH CA.
        plan: The archive.

    Returns:
        Bytes and seconds, and what limited them.

    Raises:
        CommandError: A process of the pipe failed, or the stream stalled.
        SecretError: Vault does not sign the credential.

    Repeat:
        Jobs that still run, or have ended well, are attached to. Anything else is thrown away, with
        the folder, and begun again.
    """
    return backup.store_stream(tools, plan, lambda: _make_reader(tools, plan), reads=False)


def read_command(plan: ArchivePlan, command: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that writes the closed binary logs to its output.

    Args:
        plan: The archive.
        command: From `sql.binlog_command`.
    """
    files = (f"{plan.run_dir}/{name}" for name in ("logs", "logs.read", SCRATCH))
    return ("sh", "-c", script("binlogs.sh"), "binlogs", *files, *command)


def _make_reader(tools: Tools, plan: ArchivePlan) -> tuple[jobs.Stage, ...]:
    scratch = f"{plan.run_dir}/{SCRATCH}"
    tools.donor.run(["rm", "-rf", "--", scratch])
    tools.donor.run(["install", "-d", "-m", "0700", records.RUNS, plan.run_dir, scratch])
    lines = (f"{log.name} {log.bytes}\n" for log in read_closed(tools, plan).logs)
    tools.donor.write_file(f"{plan.run_dir}/logs", "".join(lines))
    host = tools.config.host(plan.donor)
    command = read_command(plan, sql.binlog_command(host, connects=True))
    seal = stream_jobs.seal_command(records.need_age_recipient(tools, plan))
    commands = stream_jobs.read_commands(plan, command, seal)
    roles = (bottleneck.READ, *([bottleneck.COMPRESS] * (len(commands) - 2)), bottleneck.SEAL)
    return tuple(
        jobs.Stage(argv=argv, role=role) for argv, role in zip(commands, roles, strict=True)
    )


@step(
    "verify-stored-binlogs",
    role="both",
    repeat=Repeat.BACK,
    back_to="store-binlogs",
    forms=(ARCHIVE,),
)
def verify_stored_binlogs(tools: Tools, plan: ArchivePlan) -> StoredLogs:
    """Judge the stored binary logs by evidence of both ends.

    Args:
        tools: The doors to both hosts.
        plan: The archive.

    Returns:
        What was stored, and what it was judged by.

    Raises:
        VerificationError: They are not whole; all findings are listed.
        InterruptedWorkError: They were found so before; whoever resumes wants them streamed again.

    Repeat:
        Looks again; logs that were found not whole send the run back to the stream.
    """
    stream.refuse_judged(
        tools, plan, "the stored binary logs were not whole; they are streamed again"
    )
    found = _judge(tools, plan)
    stream.need_whole(
        tools,
        plan,
        found.checks,
        what="the archive of binary logs",
        hint="`xbvault runs resume` streams it again",
    )
    return found


@step("write-archive-manifest", role="both", repeat=Repeat.SAFE, forms=(ARCHIVE,))
def write_archive_manifest(tools: Tools, plan: ArchivePlan) -> backup.PublishedSet:
    """Write the manifest of the set of binary logs, authenticated, as the last of its files.

    Args:
        tools: The doors to both hosts and to Vault.
        plan: The archive.

    Returns:
        Where the set lies.

    Raises:
        VerificationError: The set is not whole any more.
        SecretError: Vault does not give the key of manifests, or the set's keys were destroyed
            meanwhile.

    Repeat:
        It is written again, and says the same.
    """
    found, closed = _judge(tools, plan), read_closed(tools, plan)
    bad = [check for check in found.checks if not check.ok]
    if bad:
        raise VerificationError(
            f"the archive of binary logs is not whole: {bad[0].name}, {bad[0].evidence}",
            host=plan.recipient,
            hint=f"`xbvault runs cancel {plan.run_id}`, and archive again",
        )
    made = deployment.need_deployment(tools.vault, tools.config)
    record = records.read_record(tools, plan)
    document = manifest.Manifest(
        xbvault_version=version(),
        backup_id=plan.backup_id,
        deployment=made.id,
        host=plan.donor,
        flavor=plan.flavor,
        server_version=plan.server_version,
        tool_version=plan.tool_version,
        kind=manifest.BINLOGS,
        to_lsn=0,
        began_at=names.format_moment(dt.datetime.fromisoformat(record["created"])),
        ended_at=closed.until,
        coordinates=closed.coordinates,
        compress=plan.compress,
        stream_bytes=backup.count_clear_bytes(found.bytes),
        part_bytes=plan.part_bytes,
        parts=store.read_ledger(tools.recipient, plan.ledger),
        age_recipient=record[set_keys.AGE_RECIPIENT],
        key_path=plan.key_path,
        has_keyring=False,
        data_bytes=sum(log.bytes for log in closed.logs),
        checks=found.checks,
        binlogs=_read_archived(tools, plan, closed),
    )
    return backup.publish(tools, plan, document, made.manifest_key)


def _judge(tools: Tools, plan: ArchivePlan) -> StoredLogs:
    """Judge what the jobs of this attempt have stored."""
    ends = stream_ends.read_ends(tools, plan)
    parts = store.read_ledger(tools.recipient, plan.ledger)
    closed = read_closed(tools, plan)
    try:
        read, problem = len(_read_archived(tools, plan, closed)), ""
    except VerificationError as error:
        read, problem = 0, error.message
    checks = (
        stream.judge_statuses(ends),
        stream.judge_counts(ends),
        backup.judge_parts(plan, parts, ends.received.bytes),
        Check(
            name="binlogs-whole",
            host=plan.donor,
            ok=not problem,
            evidence=problem or f"{read} of {len(closed.logs)} with the sizes that the server told",
        ),
    )
    return StoredLogs(
        backup_id=plan.backup_id,
        logs=read,
        bytes=sum(part.bytes for part in parts),
        parts=len(parts),
        until=closed.until,
        coordinates=closed.coordinates,
        checks=checks,
    )


def _read_archived(tools: Tools, plan: ArchivePlan, closed: ClosedLogs) -> tuple[ArchivedLog, ...]:
    """Return the logs that went through the stream, with the moments at which they began.

    Raises:
        VerificationError: They are not those that were to be stored.
    """
    text = tools.donor.run(["cat", "--", f"{plan.run_dir}/logs.read"], check=False).text
    told: dict[str, Any] = {}
    for line in filter(None, text.split("\n")):
        name, _, rest = line.partition(" ")
        told[name] = tuple(numerals.parse_whole(word) for word in rest.split(" "))
    archived = []
    for log in closed.logs:
        size, seconds = told.get(log.name, (0, 0))
        if size != log.bytes:
            raise VerificationError(f"{log.name} has {size} bytes, not {log.bytes}")
        archived.append(
            manifest.ArchivedLog(
                name=log.name,
                bytes=log.bytes,
                began_at=_format_seconds(seconds),
                gtid_before=log.gtid_before,
            )
        )
    return tuple(archived)


def _format_seconds(seconds: int) -> str:
    return names.format_moment(dt.datetime.fromtimestamp(seconds, dt.UTC))
