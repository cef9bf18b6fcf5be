"""Steps that replay archived binary logs on a restored server, up to a moment or a transaction.

The archives lie on the recipient as they were stored, encrypted. What is in them goes through pipes
only, from ``age`` to the server's own client; what the reader of binary logs puts into temporary
files goes to tmpfs.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from orchestrator import jobs, log, models, numerals, sql, wire
from orchestrator.errors import (
    CommandError,
    InterruptedWorkError,
    PreconditionError,
    VerificationError,
)
from orchestrator.host import script
from orchestrator.models import RESTORE, Check, Secret
from orchestrator.repository import binlogs, set_keys
from orchestrator.steps import outcomes
from orchestrator.steps.archive import FIRST_POSITION
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.models import LogSet, Replay, RestorePlan

FOUND = "replay-end.json"
SCRATCH = "replay"
_NOT_UNDERSTOOD = 65


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplayEnd:
    """Where a replay ends.

    Attributes:
        log: Binary log in which that is.
        stop: Byte of it at which the first transaction begins that is not wanted; 0 for its end.
        transactions: How many of this log are wanted; of one that was not looked into, 0.
        gtid: The last one that is wanted, if this log has it.
    """

    log: str
    stop: int
    transactions: int
    gtid: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replayed:
    """What was replayed.

    Attributes:
        at: Up to where it was wanted.
        gtid: The last transaction, if its binary log tells.
        logs: How many binary logs.
        seconds: How long it took.
        checks: What it was judged by.
    """

    at: str
    gtid: str
    logs: int
    seconds: float
    checks: tuple[Check, ...]


@step(
    "find-replay-end",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=86400,
    forms=(RESTORE,),
)
def find_replay_end(tools: Tools, plan: RestorePlan) -> ReplayEnd:
    """Look for the end of the replay in its binary log, before the recipient's data is touched.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The restore.

    Returns:
        Where the replay ends.

    Raises:
        PreconditionError: The binary log does not have the transaction that was named.
        VerificationError: The binary log is not to be understood.
        SecretError: Vault does not give the identity of an archive.
        CommandError: A program failed.

    Repeat:
        Looks again.
    """
    wanted, remote = _need_replay(plan), tools.recipient
    target = binlogs.parse_target(wanted.at)
    if target.moment is None and not target.gtid:
        found = ReplayEnd(log=wanted.last, stop=0, transactions=0, gtid="")
        remote.write_file(f"{plan.run_dir}/{FOUND}", json.dumps(models.as_json(found)))
        return found
    kind = "time" if target.moment else "gtid"
    told = f"{target.moment:%y%m%d%H%M%S}" if target.moment else target.gtid
    start = wanted.position if wanted.last == wanted.first else FIRST_POSITION
    name, answer = plan.job_name("find-replay-end", tools.attempt), f"{plan.run_dir}/replay.found"
    jobs.remove_job(remote, name, fence=tools.fence)
    try:
        lines = _describe_last(tools, plan, wanted)
        command = _make_command(tools, plan, "find", lines, str(start), kind, told)
        jobs.start_job(
            remote,
            jobs.JobSpec(
                name=name,
                stages=(jobs.Stage(argv=command),),
                stdout_file=answer,
                fence=tools.fence,
                lease_seconds=tools.config.clone.job_lease_seconds,
            ),
        )
        state = jobs.wait_for_job(
            remote, name, deadline_seconds=tools.seconds_left(), check=tools.check_cancelled
        )
    finally:
        remote.run(["rm", "-rf", "--", plan.secret_dir])
    _check_job(state, plan, f"binary log {wanted.last} could not be looked into")
    found, is_there = parse_found(remote.read_file(answer).decode("utf-8", "replace"), wanted.last)
    if target.gtid and not is_there:
        raise PreconditionError(
            f"transaction {target.gtid} is not in binary log {wanted.last} behind the end of "
            f"{plan.backup_id}",
            host=plan.recipient,
            hint=f"`xbvault runs cancel {plan.run_id}`; the recipient's data was not touched. Name a "
            "transaction of that host, or a moment",
        )
    remote.write_file(f"{plan.run_dir}/{FOUND}", json.dumps(models.as_json(found)))
    return found


@step(
    "replay-binlogs",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=7 * 86400,
    needs_server=True,
    forms=(RESTORE,),
)
def replay_binlogs(tools: Tools, plan: RestorePlan) -> Replayed:
    """Replay the archived binary logs on the restored server, up to the end that was found.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The restore.

    Returns:
        What was replayed.

    Raises:
        InterruptedWorkError: A replay was cut off; a second one would do some of it twice.
        CommandError: The server refused a statement, or a program failed.
        SecretError: Vault does not give the identity of an archive.

    Repeat:
        A replay that goes on, or has ended well, is attached to. One that was cut off, or has failed,
        cannot go on: it raises, and says what to do.
    """
    wanted, remote = _need_replay(plan), tools.recipient
    name = plan.job_name("replay-binlogs", tools.attempt)
    end = read_end(tools, plan)
    if not jobs.read_job(remote, name).exists:
        lines = _describe_all(tools, plan, wanted, end)
        command = _make_command(tools, plan, "play", lines)
        client = tuple(sql.client_command(tools.config.host(plan.recipient)))
        jobs.start_job(
            remote,
            jobs.JobSpec(
                name=name,
                stages=(jobs.Stage(argv=command), jobs.Stage(argv=client)),
                count_after=0,
                fence=tools.fence,
                lease_seconds=tools.config.clone.job_lease_seconds,
            ),
        )
    try:
        state = jobs.wait_for_job(
            remote, name, deadline_seconds=tools.seconds_left(), check=tools.check_cancelled
        )
        played = remote.run(["cat", "--", f"{plan.run_dir}/{SCRATCH}/played"], check=False).text
    finally:
        if not jobs.read_job(remote, name).running:
            remote.run(["rm", "-rf", "--", plan.secret_dir, plan.logs_file])
    begin_anew = (
        f"`xbvault runs cancel {plan.run_id}` gives the earlier data back; then begin a new restore"
    )
    if state.is_cut:
        raise InterruptedWorkError(
            "the replay of the binary logs was cut off, and cannot be begun twice",
            host=plan.recipient,
            hint=begin_anew,
        )
    _check_job(state, plan, "the replay of the binary logs failed", hint=begin_anew)
    through = played.split()
    expected = [each.name for each in _list_wanted(wanted)]
    check = Check(
        name="binlogs-replayed",
        host=plan.recipient,
        ok=through == expected,
        evidence=f"{len(through)} of {len(expected)}, from {wanted.first}:{wanted.position} to "
        f"{end.log}:{end.stop or 'its end'}" + (f", transaction {end.gtid}" if end.gtid else ""),
    )
    if not check.ok:
        raise VerificationError(
            f"not every binary log was replayed: {check.evidence}",
            host=plan.recipient,
            hint=begin_anew,
        )
    return Replayed(
        at=wanted.at,
        gtid=end.gtid,
        logs=len(through),
        seconds=round(state.seconds, 3),
        checks=(check,),
    )


def parse_found(text: str, name: str) -> tuple[ReplayEnd, bool]:
    """Return what was found out of a binary log, and whether it has the GTID that was looked for.

    Args:
        text: What ``replay.sh find`` printed.
        name: The log.

    Raises:
        VerificationError: It is not to be understood.
    """
    told = dict(line.partition(" ")[::2] for line in text.split("\n"))
    try:
        found = ReplayEnd(
            log=name,
            stop=numerals.parse_whole(told["stop"]),
            transactions=numerals.parse_whole(told["transactions"]),
            gtid=told["last"],
        )
        return found, numerals.parse_whole(told["found"]) > 0
    except (KeyError, VerificationError) as error:
        raise VerificationError(f"what was found in {name} is not to be understood") from error


def read_end(tools: Tools, plan: RestorePlan) -> ReplayEnd:
    """Return where the replay ends, as an earlier step has written it down.

    Raises:
        VerificationError: That is not to be understood.
    """
    text = tools.recipient.read_file(f"{plan.run_dir}/{FOUND}")
    try:
        return models.from_json(ReplayEnd, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise VerificationError(
            f"{plan.run_dir}/{FOUND} is not to be understood", host=plan.recipient
        ) from error


def _need_replay(plan: RestorePlan) -> Replay:
    if plan.replay is None:
        raise PreconditionError(
            f"run {plan.run_id} was planned without --at",
            hint="begin a new restore; its playbook is `restore`",
        )
    return plan.replay


def _list_wanted(wanted: Replay) -> list[models.StoredLog]:
    logs = [each for found in wanted.sets for each in found.logs]
    listed = [each.name for each in logs]
    return logs[listed.index(wanted.first) : listed.index(wanted.last) + 1]


def _describe_last(tools: Tools, plan: RestorePlan, wanted: Replay) -> Iterator[str]:
    """Yield the lines that name the log in which the end is, as ``replay.sh`` reads them."""
    identities = _write_identities(tools, plan, wanted)
    offset = 0
    for found in wanted.sets:
        listed = [each.name for each in found.logs]
        if wanted.last in listed:
            before = sum(each.bytes for each in found.logs[: listed.index(wanted.last)])
            yield _describe_set(found, offset, identities[found.backup_id])
            if before:
                yield f"skip {before}"
            yield f"log {wanted.last} {found.logs[listed.index(wanted.last)].bytes} - -"
            yield "end"
        offset += found.stored_bytes


def _describe_all(tools: Tools, plan: RestorePlan, wanted: Replay, end: ReplayEnd) -> Iterator[str]:
    """Yield the lines that name all logs that are replayed."""
    identities = _write_identities(tools, plan, wanted)
    chosen = {each.name for each in _list_wanted(wanted)}
    offset = 0
    for found in wanted.sets:
        if any(each.name in chosen for each in found.logs):
            yield _describe_set(found, offset, identities[found.backup_id])
            for each in found.logs:
                if each.name in chosen:
                    start = wanted.position if each.name == wanted.first else "-"
                    stop = end.stop if each.name == end.log and end.stop else "-"
                    yield f"log {each.name} {each.bytes} {start} {stop}"
                else:
                    yield f"skip {each.bytes}"
            yield "end"
        offset += found.stored_bytes


def _describe_set(found: LogSet, offset: int, identity: str) -> str:
    unpack = wire.ZSTD if found.compress != wire.NONE else "none"
    return f"set {offset} {found.stored_bytes} {identity} {unpack}"


def _write_identities(tools: Tools, plan: RestorePlan, wanted: Replay) -> dict[str, str]:
    """Write what opens the archives to the recipient's tmpfs; return the files by archive."""
    remote = tools.recipient
    remote.run(["install", "-d", "-m", "0700", "/run/xbvault", plan.secret_dir])
    files = {}
    for number, each in enumerate(wanted.sets):
        found = set_keys.need_identity(tools.vault, tools.config, each.backup_id)
        files[each.backup_id] = f"{plan.secret_dir}/identity.{number}"
        remote.write_file(files[each.backup_id], Secret.join(found, "\n"))
    return files


def _make_command(
    tools: Tools, plan: RestorePlan, verb: str, lines: Iterator[str], *words: str
) -> tuple[str, ...]:
    """Return the command that reads the archives, once all that it needs is there."""
    remote, scratch = tools.recipient, f"{plan.run_dir}/{SCRATCH}"
    temporary = f"{plan.secret_dir}/spill"
    text = "".join(f"{line}\n" for line in lines)
    remote.run(["install", "-d", "-m", "0700", scratch, temporary])
    remote.run(["rm", "-f", "--", f"{scratch}/played"])
    remote.write_file(f"{scratch}/list", text)
    return (
        "env",
        f"TMPDIR={temporary}",
        "sh",
        "-c",
        script("replay.sh"),
        "replay",
        verb,
        f"{scratch}/list",
        plan.logs_file,
        scratch,
        *words,
        *sql.binlog_command(tools.config.host(plan.recipient), connects=False),
    )


def _check_job(state: jobs.JobState, plan: RestorePlan, what: str, *, hint: str = "") -> None:
    """Raise if a job did not end well.

    Raises:
        VerificationError: A binary log is not to be understood.
        CommandError: With the last words of its programs.
    """
    if state.is_ok:
        return
    status = next((status for status in state.statuses if status), 0)
    ended = outcomes.describe_end(status, state.stderr) if status else "was killed"
    hint = hint or f"`xbvault runs resume {plan.run_id}` tries again"
    if status == _NOT_UNDERSTOOD:
        raise VerificationError(f"{what}: {ended}", host=plan.recipient, hint=hint)
    raise CommandError(
        f"{what}: it {ended}",
        host=plan.recipient,
        hint=hint,
        status=status,
        stderr=log.redact_text(state.stderr),
    )
