"""Steps that bring the backup set to the recipient, and judge it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING

from orchestrator import flavors, jobs, log
from orchestrator.errors import (
    InterruptedWorkError,
    OrchestratorError,
    RemoteError,
    VerificationError,
)
from orchestrator.flavors import backup_sets
from orchestrator.models import CLONES, Check, Coordinates, RestorePlan
from orchestrator.repository import store
from orchestrator.steps import (
    bottleneck,
    fan_out,
    places,
    stream_ends,
    stream_jobs,
    together,
    tool_keys,
)
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orchestrator.flavors.interface import SetFiles
    from orchestrator.jobs import JobState
    from orchestrator.models import CopyPlan, Plan, RunPlan

CONNECT_SECONDS = 60
_LIST_FILLED = """
cd -- "$1" || exit
shift
for name do [ ! -s "$name" ] || printf '%s\\n' "$name"; done
"""
"""Prints which of some files of a directory are there and hold something."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackupSet:
    """A backup set that was received whole.

    Attributes:
        backup_id: Its name.
        coordinates: Where replication begins.
        bytes: As counted on both ends.
        checks: What it was judged by.
    """

    backup_id: str
    coordinates: Coordinates
    bytes: int
    checks: tuple[Check, ...]


@step("stream-backup", role="both", repeat=Repeat.RESTART, deadline_seconds=7 * 86400, forms=CLONES)
def stream_backup(tools: Tools, plan: Plan) -> stream_ends.Stream:
    """Stream a physical backup from the donor into the recipient's staging directory.

    The one step that acts on two hosts. Both ends are remote jobs that survive the orchestrator.
    The bytes do not pass through it.

    Args:
        tools: The doors to both hosts, and to Vault's SSH CA.
        plan: The clone.

    Returns:
        Bytes and seconds, and what limited them.

    Raises:
        CommandError: A process of the pipe failed, or the stream stalled.
        SecretError: Vault does not sign the credential, or gives the backup tool no keys.

    Repeat:
        Jobs that still run, or have ended well, are attached to. Anything else, such as jobs whose
        lease ran out, is thrown away and begun again.
    """
    send, receive = (
        plan.job_name(fan_out.SEND, tools.attempt),
        plan.job_name(fan_out.RECEIVE, tools.attempt),
    )
    try:
        if not is_worth_attaching(tools, plan, send, receive):
            throw_away(tools, plan, send, receive)
            joins = fan_out.choose(tools, plan)
            before, _ = together.do_both(
                lambda: _make_ready_to_send(tools, plan, joins=joins),
                lambda: _make_ready_to_receive(tools, plan, receive),
            )
            with stream_jobs.open_way(tools, plan) as address:
                stream_jobs.start_sender(tools, plan, send, before, address=address, joins=joins)
                wait_for_connection(tools, plan, send, receive, reads=not joins)
        else:
            joins = not fan_out.is_alone(tools, plan)
            log.get().info("job.attached", job=send, host=plan.donor)
        if joins:
            _begin_reading(tools, plan)
    except OrchestratorError:
        if plan.group:
            with contextlib.suppress(RemoteError):
                fan_out.leave(tools, plan)
        raise
    finally:
        tools.donor.run(["rm", "-rf", "--", plan.secret_dir])
    ends = _wait_for_ends(
        tools,
        plan,
        send,
        receive,
        wait_for_reading=lambda: fan_out.wait_for_reading(tools, plan) if joins else None,
    )
    tool_keys.drop_carried_configs(tools, plan)
    stream_ends.check_stages(tools, plan, ends, joins=joins)
    begin_flush(tools, plan)
    return stream_ends.describe_stream(plan, ends)


def _make_ready_to_send(tools: Tools, plan: Plan, *, joins: bool) -> tuple[jobs.Stage, ...]:
    """Make what the donor's end needs; return what gives it the stream, a pipe's stage each."""
    stream_jobs.make_credential(tools, plan)
    return (
        (fan_out.branch_stage(plan),)
        if joins
        else stream_jobs.make_reader(tools, plan, plan.run_dir)
    )


def _make_ready_to_receive(tools: Tools, plan: Plan, receive: str) -> None:
    stream_jobs.arm_receiver(tools, plan, receive)
    tool_keys.record_set(tools, plan)


@step(
    "verify-backup-set", role="recipient", repeat=Repeat.BACK, back_to="stream-backup", forms=CLONES
)
def verify_backup_set(tools: Tools, plan: Plan) -> BackupSet:
    """Judge the received set by evidence, before anything of the recipient's is touched.

    Args:
        tools: The doors to both hosts.
        plan: The clone.

    Returns:
        The coordinates and what the set was judged by.

    Raises:
        VerificationError: The set is not whole; all findings are listed.
        InterruptedWorkError: It was found so before; whoever resumes wants it streamed again.

    Repeat:
        Looks again; a set that was found not whole sends the run back to the stream.
    """
    refuse_judged(tools, plan, "the received backup set was not whole; it is streamed again")
    files = flavors.of(plan).set_files(plan.server_version)
    ends = stream_ends.read_ends(tools, plan)
    checks = [
        *judge_jobs(tools, plan, ends),
        judge_closing_files(tools, plan),
    ]
    checks += compare_sets(tools, plan, files)
    checks += tool_keys.judge_set(tools, plan)
    need_whole(
        tools,
        plan,
        checks,
        what="the received backup set",
        hint="`xbvault runs resume` streams it again; the recipient's data was not touched",
    )
    coordinates = read_set_coordinates(tools, plan)
    return BackupSet(
        backup_id=plan.backup_id,
        coordinates=coordinates,
        bytes=ends.received.bytes,
        checks=(
            *checks,
            Check(
                name="coordinates",
                ok=True,
                evidence=describe_coordinates(plan, coordinates),
            ),
        ),
    )


def refuse_judged(tools: Tools, plan: RunPlan, again: str) -> None:
    """Send a run back to its stream, whose set this attempt has found not whole before.

    Raises:
        InterruptedWorkError: So it was.
    """
    if tools.recipient.run(["test", "-e", _mark(tools, plan)], check=False).status == 0:
        raise InterruptedWorkError(again, host=plan.recipient)


def need_whole(
    tools: Tools, plan: RunPlan, checks: Sequence[Check], *, what: str, hint: str
) -> None:
    """Refuse a set that is not whole, and note that for `refuse_judged`.

    Raises:
        VerificationError: A check does not hold; all findings are listed.
    """
    bad = [check for check in checks if not check.ok]
    if bad:
        tools.recipient.write_file(_mark(tools, plan), "")
        raise VerificationError(
            f"{what} is not whole: {bad[0].name}, {bad[0].evidence}",
            host=plan.recipient,
            hint=hint,
            problems=[f"{check.name}: {check.evidence}" for check in bad],
        )


def _mark(tools: Tools, plan: RunPlan) -> str:
    return f"{plan.run_dir}/not-whole.{tools.attempt}"


def read_set_coordinates(tools: Tools, plan: Plan) -> Coordinates:
    """Read the coordinates, from the set or from the copy that outlives the move.

    They are positions of the host that the replica follows: of the donor, or of its source.

    Raises:
        VerificationError: They do not parse, or the donor has several sources.
    """
    flavor = flavors.of(plan)
    files = flavor.set_files(plan.server_version)
    kept = _coordinates_copy(tools, plan)
    source = f"{plan.newest_dir}/{files.slave_info if plan.is_sibling else files.binlog_info}"
    if tools.recipient.run(["test", "-s", kept], check=False).status != 0:
        text = tools.recipient.read_file(source)
        tools.recipient.write_file(kept, text)
    told = tools.recipient.read_file(kept).decode("utf-8", "replace")
    if not plan.is_sibling:
        return flavor.read_coordinates(told)
    upstreams = flavor.read_upstreams(told)
    if len(upstreams) > 1:
        raise VerificationError(
            f"the donor replicates from {len(upstreams)} sources, so a position does not tell "
            f"which is {plan.source}",
            host=plan.donor,
            hint=f"`xbvault runs cancel {plan.run_id}`, and clone from a donor with one source",
        )
    return upstreams[0].coordinates


def _coordinates_copy(tools: Tools, plan: Plan) -> str:
    """Return the file on the recipient that keeps the coordinates when the set has moved."""
    name = "slave_info" if plan.is_sibling else "binlog_info"
    return f"{plan.run_dir}/{name}.{tools.attempt}"


def judge_jobs(tools: Tools, plan: RunPlan, ends: stream_ends.Ends) -> tuple[Check, ...]:
    """Judge a stream by its jobs: how their processes ended, their words, and what they counted."""
    return (judge_statuses(ends), _judge_words(tools, plan), judge_counts(ends))


def judge_statuses(ends: stream_ends.Ends) -> Check:
    """Judge whether every process at both ends ended well."""
    return Check(
        name="stream-exit-statuses",
        ok=all(state.statuses and not any(state.statuses) for state in ends.states),
        evidence=", ".join(
            f"{where} {stream_ends.describe_statuses(state)}" for where, state in ends.named
        ),
    )


def judge_counts(ends: stream_ends.Ends) -> Check:
    """Judge whether both ends counted the same."""
    return Check(
        name="stream-bytes",
        ok=ends.sent.bytes == ends.received.bytes == ends.read.bytes > 0,
        evidence=f"sent {ends.sent.bytes}, received {ends.received.bytes}",
    )


def _judge_words(tools: Tools, plan: RunPlan) -> Check:
    """Judge whether the backup tool says that it completed, and nothing to the contrary."""
    words = jobs.read_job_stderr(tools.donor, stream_ends.reader_name(tools, plan), 0)
    belied = flavors.of(plan).find_contradictions(words)
    return Check(
        name="backup-completed",
        host=plan.donor,
        ok=backup_sets.is_completed(words) and not belied,
        evidence=belied[0]
        if belied
        else (words.strip().splitlines() or ["nothing written"])[-1][-120:],
    )


def judge_closing_files(tools: Tools, plan: Plan, folder: str = "") -> Check:
    """Judge whether the files are there that the backup tool writes last.

    Args:
        tools: The door to the recipient.
        plan: The run's plan.
        folder: Where the set is; empty for the staging directory.
    """
    files = flavors.of(plan).set_files(plan.server_version)
    wanted = (files.info, files.checkpoints, backup_sets.OPTIONS)
    argv = ["sh", "-c", _LIST_FILLED, "list-filled", folder or plan.staging_dir, *wanted]
    there = tools.recipient.run(argv, check=False).text.split()
    return Check(
        name="closing-files",
        host=plan.recipient,
        ok=len(there) == len(wanted),
        evidence=f"found {', '.join(there) or 'none'}",
    )


def compare_sets(tools: Tools, plan: Plan, files: SetFiles) -> list[Check]:
    """Judge the checkpoints of a received set."""
    result = tools.recipient.run(
        ["cat", "--", f"{plan.staging_dir}/{files.checkpoints}"], check=False
    )
    ok, evidence = judge_checkpoints(result.text, flavors.of(plan).prepared_types)
    return [Check(name="checkpoints", host=plan.recipient, ok=ok, evidence=evidence)]


def judge_checkpoints(
    text: str, prepared_types: tuple[str, ...], *, from_lsn: int = 0
) -> tuple[bool, str]:
    """Return whether a received set's checkpoints are those of a whole set, and what they say.

    Args:
        text: The file.
        prepared_types: What the set calls itself when it has been prepared since.
        from_lsn: Where an incremental set must begin; 0 of a full one.
    """
    try:
        values = backup_sets.parse_checkpoints(text)
        kind = values.get("backup_type", "")
        last, to = (
            backup_sets.parse_lsn(values, "last_lsn"),
            backup_sets.parse_lsn(values, "to_lsn"),
        )
        begin = backup_sets.parse_lsn(values, "from_lsn") if from_lsn else 0
    except VerificationError as error:
        return False, f"checkpoints: {error.message}"
    if from_lsn:
        ok = kind == backup_sets.INCREMENTAL_TYPE and last >= to >= begin == from_lsn
        wanted = f", {from_lsn} wanted" if begin != from_lsn else ""
        told = f"backup_type={kind or '?'}, from_lsn={begin}{wanted}"
        return ok, f"{told}, to_lsn={to}, last_lsn={last}"
    ok = kind in (backup_sets.RECEIVED_TYPE, *prepared_types) and last >= to > 0
    return ok, f"backup_type={kind or '?'}, to_lsn={to}, last_lsn={last}"


def is_worth_attaching(tools: Tools, plan: RunPlan, send: str, receive: str) -> bool:
    """Return whether the jobs of a stream go on or have ended well, at both ends."""
    if not fan_out.is_alone(tools, plan) and not fan_out.is_alive(tools, plan):
        return False
    sender, receiver = stream_ends.read_jobs(tools, send, receive)
    if any(job.is_cut or any(job.statuses) for job in (sender, receiver)):
        return False
    return (sender.running or sender.ended) and (receiver.running or receiver.ended)


def attach_or_begin(
    tools: Tools, plan: RunPlan, begin: Callable[[str, str], None]
) -> tuple[str, str]:
    """Attach to the jobs of a stream that go on or have ended well; else begin it anew.

    Args:
        tools: The doors to both hosts.
        plan: A run that streams alone.
        begin: Begins it, with the names of the job that sends and of the one that receives.

    Returns:
        These names.
    """
    send = plan.job_name(fan_out.SEND, tools.attempt)
    receive = plan.job_name(fan_out.RECEIVE, tools.attempt)
    if is_worth_attaching(tools, plan, send, receive):
        log.get().info("job.attached", job=send, host=plan.donor)
    else:
        begin(send, receive)
    return send, receive


def send_stored_sets(
    tools: Tools, plan: CopyPlan | RestorePlan, repository: str, sets: Iterable[tuple[str, int]]
) -> None:
    """Begin to send the parts of stored sets as they are; their receiver is armed already.

    Args:
        tools: The doors to both hosts, and to Vault's SSH CA.
        plan: The copy or restore.
        repository: Directory of the sets, on the host that sends.
        sets: Name of each, and how many parts it has.

    Raises:
        SecretError: Vault does not sign the credential.
        CommandError: The receiver was not reached.
    """
    send = plan.job_name(fan_out.SEND, tools.attempt)
    receive = plan.job_name(fan_out.RECEIVE, tools.attempt)
    stream_jobs.make_credential(tools, plan)
    with stream_jobs.open_way(tools, plan) as address:
        argv = store.read_all_command(repository, sets)
        read = jobs.Stage(argv=argv, role=bottleneck.READ)
        stream_jobs.start_sender(tools, plan, send, (read,), address=address)
        wait_for_connection(tools, plan, send, receive, reads=False)


def wait_for_stream(tools: Tools, plan: RunPlan, send: str, receive: str) -> stream_ends.Stream:
    """Wait until the stream of a run that streams alone has ended, and return what came of it.

    Raises:
        CommandError: A process of the pipe failed, or the stream stalled.
        SecretError: The backup tool got no keys.
    """
    ends = _wait_for_ends(tools, plan, send, receive, wait_for_reading=lambda: None)
    stream_ends.check_stages(tools, plan, ends, joins=False)
    return stream_ends.describe_stream(plan, ends)


def _wait_for_ends(
    tools: Tools,
    plan: RunPlan,
    send: str,
    receive: str,
    *,
    wait_for_reading: Callable[[], JobState | None],
) -> stream_ends.Ends:
    sent = jobs.wait_for_job(
        tools.donor,
        send,
        deadline_seconds=min(tools.seconds_left(), tools.config.clone.stream_seconds),
        stall_seconds=tools.config.clone.stall_seconds,
        expected_bytes=plan.expected_stream_bytes or plan.expected_bytes,
        fence=tools.fence,
        check=tools.check_cancelled,
    )
    read = wait_for_reading() or sent
    received = stream_ends.wait_for_receiver(tools, receive, is_whole=sent.is_ok and read.is_ok)
    return stream_ends.Ends(read=read, sent=sent, received=received)


def remove_jobs(tools: Tools, send: str, receive: str) -> None:
    """Remove the jobs of a stream that is not worth attaching to."""
    together.do_both(
        lambda: jobs.remove_job(tools.donor, send, fence=tools.fence),
        lambda: jobs.remove_job(tools.recipient, receive, fence=tools.fence),
    )


def throw_away(tools: Tools, plan: Plan, send: str, receive: str) -> None:
    """Remove what a stream that is not worth attaching to has left."""
    remove_jobs(tools, send, receive)
    staged = (plan.staging_dir, *plan.increment_dirs, *places.list_new(plan))
    tools.recipient.run(["rm", "-rf", "--", *staged], timeout_seconds=600)
    made_of_it = (_coordinates_copy(tools, plan), places.swap_record(plan))
    tools.recipient.run(["rm", "-f", "--", *made_of_it])


def begin_flush(tools: Tools, plan: Plan) -> None:
    """Have the recipient write to its disk what it received, while the run goes on.

    The swap, before which the server is stopped, waits until all of it is there. Nobody waits for
    this command, and no job is made for it, because a disk that is slow keeps it from being stopped.
    """
    flush = 'sync -f -- "$1" </dev/null >/dev/null 2>&1 &'
    tools.recipient.run(["sh", "-c", flush, "flush", plan.staging_dir])


def _begin_reading(tools: Tools, plan: Plan) -> None:
    """See that the donor is read for all recipients together."""
    began = fan_out.join(
        tools,
        plan,
        lambda: stream_jobs.make_reader(tools, plan, plan.group_dir),
        lease_seconds=tools.config.clone.job_lease_seconds,
    )
    end = time.monotonic() + CONNECT_SECONDS
    while began and not _has_spoken(tools, plan, fan_out.job_name(plan)):
        tools.check_cancelled()
        if time.monotonic() > end or not jobs.read_job(tools.donor, fan_out.job_name(plan)).running:
            return  # the caller reads how it ended
        time.sleep(0.1)


def _has_spoken(tools: Tools, plan: RunPlan, reader: str) -> bool:
    """Return whether the backup tool has read the options that we gave it; then it speaks."""
    return not flavors.of(plan).carries_keys or bool(jobs.read_job_stderr(tools.donor, reader, 0))


def wait_for_connection(
    tools: Tools, plan: RunPlan, send: str, receive: str, *, reads: bool
) -> None:
    """Wait until the recipient takes the stream, so that the credential can be removed.

    Args:
        tools: The doors to both hosts.
        plan: The clone.
        send: The sender's job.
        receive: The receiver's.
        reads: Whether the backup tool is the sender's, and options of ours have to wait for it.
    """
    end = time.monotonic() + CONNECT_SECONDS
    while time.monotonic() < end:
        tools.check_cancelled()
        receiver = jobs.read_job(tools.recipient, receive)
        if (receiver.running or receiver.ended) and (not reads or _has_spoken(tools, plan, send)):
            return
        sender = jobs.read_job(tools.donor, send)
        if not sender.running:
            return  # it failed; the caller reads how
        time.sleep(0.1)
    jobs.stop_job(tools.donor, send, fence=tools.fence)
    raise RemoteError(
        "the donor's stream did not reach the recipient",
        host=tools.donor.name,
        hint=stream_ends.describe_way(plan),
    )


def describe_coordinates(plan: RunPlan, coordinates: Coordinates) -> str:
    """Return coordinates for a reader."""
    at = f"{coordinates.file}:{coordinates.position}" if coordinates.file else ""
    whose = f"of {plan.source_host}" if plan.is_sibling else ""
    return " ".join(filter(None, (at, coordinates.gtid, whose)))
