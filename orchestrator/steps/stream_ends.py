"""The ends of a stream: its remote jobs as they were found, and what came of them."""

from __future__ import annotations

import dataclasses
import signal
import time
from typing import TYPE_CHECKING

from orchestrator import jobs, wire
from orchestrator.errors import CommandError, VerificationError
from orchestrator.steps import bottleneck, fan_out, outcomes, stream_jobs, together, tokens

if TYPE_CHECKING:
    from orchestrator.jobs import JobState
    from orchestrator.models import RunPlan
    from orchestrator.steps.registry import Tools

RECEIVER_SECONDS = 120
"""Longest time from the end of a whole stream to the end of its extraction."""
BROKEN_SECONDS = 5.0
"""The same, of a stream that broke."""
AGAIN = "`xbvault runs resume` streams again; the recipient's data was not touched"
_BROKEN_PIPE = 128 + signal.SIGPIPE
_ANOTHER_PART = 65
"""What looks at the parts of a set ends with when one of them is not the one that was stored."""
_NO_CONNECTION = 255
"""What ssh ends with when it has no connection, or lost it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ends:
    """The remote jobs of a stream, as they were found.

    Attributes:
        read: With the backup tool; the sender's own, unless the donor is read for several.
        sent: That sends to this recipient.
        received: The recipient's.
    """

    read: JobState
    sent: JobState
    received: JobState

    @property
    def named(self) -> tuple[tuple[str, JobState], ...]:
        """The jobs by what they are called in evidence."""
        both = (("donor", self.sent), ("recipient", self.received))
        return both if self.read is self.sent else (("read", self.read), *both)

    @property
    def states(self) -> tuple[JobState, ...]:
        """The jobs."""
        return tuple(state for _, state in self.named)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """A stream that has ended.

    Attributes:
        bytes: As counted on the donor.
        seconds: From the start of the backup tool to its end.
        bottleneck: What limited it, as in `bottleneck.Verdict`.
        evidence: What that was concluded from.
        cpu_seconds: Processor time by what a stage is for.
        held_up_share: Share of the looks at which the backup tool waited to be rid of its data;
            None if it was not looked at.
        connection: The kernel's account of the connection; None where ``ss`` told nothing.
    """

    bytes: int
    seconds: float
    bottleneck: str = ""
    evidence: str = ""
    cpu_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    held_up_share: float | None = None
    connection: jobs.Connection | None = None


def reader_name(tools: Tools, plan: RunPlan) -> str:
    """Return the job, on the donor, whose first stage is the backup tool."""
    if fan_out.is_alone(tools, plan):
        return plan.job_name(fan_out.SEND, tools.attempt)
    return fan_out.job_name(plan)


def read_ends(tools: Tools, plan: RunPlan) -> Ends:
    """Return the jobs of the stream of this attempt, as they are found."""
    send = plan.job_name(fan_out.SEND, tools.attempt)
    receive = plan.job_name(fan_out.RECEIVE, tools.attempt)
    reader = reader_name(tools, plan)
    sent, received = read_jobs(tools, send, receive)
    read = sent if reader == send else jobs.read_job(tools.donor, reader)
    return Ends(read=read, sent=sent, received=received)


def read_jobs(tools: Tools, send: str, receive: str) -> tuple[JobState, JobState]:
    """Return the jobs that send and receive, as they are found."""
    return together.do_both(
        lambda: jobs.read_job(tools.donor, send), lambda: jobs.read_job(tools.recipient, receive)
    )


def wait_for_receiver(tools: Tools, receive: str, *, is_whole: bool) -> JobState:
    """Wait for the recipient's end; of a stream that broke, only as long as it takes to say why.

    A dead connection may stand for minutes at the recipient, with an extraction that waits on it.
    """
    if is_whole:
        return jobs.wait_for_job(
            tools.recipient,
            receive,
            deadline_seconds=RECEIVER_SECONDS,
            fence=tools.fence,
            check=tools.check_cancelled,
        )
    end = time.monotonic() + BROKEN_SECONDS
    while (state := jobs.read_job(tools.recipient, receive)).running and time.monotonic() < end:
        tools.check_cancelled()
        time.sleep(0.2)
    if state.running:
        jobs.stop_job(tools.recipient, receive, fence=tools.fence)
    return state


def describe_statuses(state: JobState) -> str:
    """Return the exit statuses of a job's stages for a reader."""
    return " ".join(str(status) for status in state.statuses) or "none"


def check_stages(tools: Tools, plan: RunPlan, found: Ends, *, joins: bool) -> None:
    """Raise if a process of the pipe failed, naming the one that failed first.

    When one part of a pipe breaks down, all others fail as well: what writes into it by SIGPIPE, what
    reads from it for want of an end, ssh with its receiver's status.

    Raises:
        SecretError: It is the backup tool, for want of its keys.
        VerificationError: A part of a stored set is not the one that its manifest names.
        CommandError: With that process's last words.
    """
    send, receive = (
        plan.job_name(fan_out.SEND, tools.attempt),
        plan.job_name(fan_out.RECEIVE, tools.attempt),
    )
    sent = found.sent
    if all(state.is_ok for state in found.states):
        return
    if joins and fan_out.was_dropped(tools, send):
        raise CommandError(
            f"{plan.recipient} was dropped from the stream: it took nothing for "
            f"{tools.config.clone.branch_stall_seconds} s while others waited",
            host=plan.recipient,
            hint=f"`xbvault runs resume {plan.run_id}` streams to it alone",
        )
    readers, receivers = stream_jobs.list_tools(plan)
    backup_tool = readers[0]
    reader, buffers = (fan_out.job_name(plan), (fan_out.BUFFER,)) if joins else (send, readers)
    ends = (
        *((tools.donor, reader, found.read, stage, tool) for stage, tool in enumerate(readers)),
        *(
            (tools.recipient, receive, found.received, stage, tool)
            for stage, tool in enumerate(receivers)
        ),
        (tools.donor, send, sent, len(buffers), "ssh"),
        *((tools.donor, send, sent, stage, tool) for stage, tool in enumerate(buffers) if joins),
    )
    for remote, name, state, stage, tool in ends:
        status = state.statuses[stage] if stage < len(state.statuses) else 0
        writes_on = tool not in (receivers[-1], "ssh", fan_out.BUFFER)
        if status == 0 or (writes_on and status == _BROKEN_PIPE):
            continue
        if name == receive and sent.statuses[len(buffers) :] == (_NO_CONNECTION,):
            continue  # its input ended with the connection
        words = jobs.read_job_stderr(remote, name, stage)
        if tool == stream_jobs.CHECKER and status == _ANOTHER_PART:
            raise VerificationError(
                words.strip().rpartition("\n")[2].removeprefix("xbvault parts: "),
                host=plan.donor,
                hint="put that part right from a copy of the set, then `xbvault runs resume`; or "
                f"`xbvault runs cancel {plan.run_id}`, and restore another set",
            )
        if writes_on and "Broken pipe" in words:
            continue
        if tool == backup_tool and (
            error := tokens.explain_missing_keys(
                tools, plan, plan.donor, status=status, words=words
            )
        ):
            raise error
        raise CommandError(
            f"the stream failed: {tool} {outcomes.describe_end(status, words)}",
            host=remote.name,
            hint=describe_way(plan)
            if tool == "ssh"
            else outcomes.explain_failure(words, host=remote.name, otherwise=AGAIN),
            status=status,
            stderr="\n".join(words.splitlines()[-20:]),
        )
    lost = plan.donor if not (sent.is_ok and found.read.is_ok) else plan.recipient
    raise CommandError(
        "the stream failed: its job was killed, or its host was restarted",
        host=lost,
        hint=AGAIN,
    )


def describe_stream(plan: RunPlan, ends: Ends) -> Stream:
    """Return what came of a stream, from its jobs on both ends.

    Args:
        plan: The clone.
        ends: The jobs.
    """
    sent = ends.sent
    readers, receivers = stream_jobs.list_tools(plan)
    seconds, connection = ends.read.seconds, sent.connection
    if connection is not None:  # a branch stands before the reading begins
        connection = dataclasses.replace(connection, seconds=min(connection.seconds, seconds))
    figures = bottleneck.Figures(
        bytes=sent.bytes,
        seconds=seconds,
        cpu_seconds={
            **ends.read.cpu_seconds,
            **sent.cpu_seconds,
            **ends.received.cpu_seconds,
        },
        programs={
            bottleneck.READ: readers[0],
            bottleneck.COMPRESS: wire.ZSTD,
            bottleneck.SEAL: stream_jobs.SEALER,
            bottleneck.ENCRYPT: "ssh",
            bottleneck.DECOMPRESS: wire.ZSTD,
            bottleneck.WRITE: receivers[-1],
        },
        threads=plan.parallel,
        looks=sent.looks,
        held_up=sent.held_up,
        connection=connection,
        allowed_rate=plan.throttle,
    )
    verdict = bottleneck.judge_stream(figures)
    return Stream(
        bytes=sent.bytes,
        seconds=round(seconds, 3),
        bottleneck=verdict.bottleneck,
        evidence=verdict.evidence,
        cpu_seconds=figures.cpu_seconds,
        held_up_share=figures.held_up_share,
        connection=connection,
    )


def describe_way(plan: RunPlan) -> str:
    """Return where to look when a stream does not get from the donor to the recipient."""
    if plan.relay:
        return (
            f"see the ways from this machine to {plan.donor} and {plan.recipient}, then `xbvault "
            "runs resume`, which streams again; the recipient's data was not touched"
        )
    return (
        f"see the way from {plan.donor} to the SSH port of {plan.recipient}, then `xbvault runs "
        "resume`; the recipient's data was not touched"
    )
