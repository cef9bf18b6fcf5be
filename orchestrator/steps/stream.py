"""Steps that bring the backup set to the recipient, and judge it."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from typing import TYPE_CHECKING

from orchestrator import flavors, jobs, log, wire
from orchestrator.errors import (
    CommandError,
    InterruptedWorkError,
    OrchestratorError,
    RemoteError,
    VerificationError,
)
from orchestrator.flavors import backup_sets
from orchestrator.models import Check, Coordinates
from orchestrator.steps import bottleneck, fan_out, outcomes, places, tokens, tool_keys
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.flavors.interface import SetFiles
    from orchestrator.jobs import JobState
    from orchestrator.models import Plan

SEND = "send-backup"
RECEIVE = "receive-backup"
CREDENTIAL_SECONDS = 120
"""Checked at login only, so a short life suits a long stream."""
CONNECT_SECONDS = 60
RECEIVER_SECONDS = 120
"""Longest time from the end of a whole stream to the end of its extraction."""
BROKEN_SECONDS = 5.0
"""The same, of a stream that broke."""
_AGAIN = "`xbvault runs resume` streams again; the recipient's data was not touched"
_BROKEN_PIPE = 128 + signal.SIGPIPE
_NO_CONNECTION = 255
"""What ssh ends with when it has no connection, or lost it."""


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


@step("stream-backup", role="both", repeat=Repeat.RESTART, deadline_seconds=7 * 86400)
def stream_backup(tools: Tools, plan: Plan) -> Stream:
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
    send, receive = plan.job_name(SEND, tools.attempt), plan.job_name(RECEIVE, tools.attempt)
    try:
        if not _is_worth_attaching(tools, plan, send, receive):
            _throw_away(tools, plan, send, receive)
            joins = fan_out.choose(tools, plan)
            _arm_receiver(tools, plan, receive)
            tool_keys.record_set(tools, plan)
            _make_credential(tools, plan)
            _start_sender(tools, plan, send, joins=joins)
            _wait_for_connection(tools, plan, send, receive, reads=not joins)
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
    sent = jobs.wait_for_job(
        tools.donor,
        send,
        deadline_seconds=min(tools.seconds_left(), tools.config.clone.stream_seconds),
        stall_seconds=tools.config.clone.stall_seconds,
        expected_bytes=plan.expected_stream_bytes or plan.expected_bytes,
        fence=tools.fence,
        check=tools.check_cancelled,
    )
    read = fan_out.wait_for_reading(tools, plan) if joins else sent
    received = _wait_for_receiver(tools, receive, is_whole=sent.is_ok and read.is_ok)
    tool_keys.drop_carried_configs(tools, plan)
    ends = Ends(read=read, sent=sent, received=received)
    _check_stages(tools, plan, ends, joins=joins)
    return describe_stream(plan, ends)


def describe_stream(plan: Plan, ends: Ends) -> Stream:
    """Return what came of a stream, from its jobs on both ends.

    Args:
        plan: The clone.
        ends: The jobs.
    """
    own, sent = flavors.of(plan).own, ends.sent
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
            bottleneck.READ: own.backup,
            bottleneck.COMPRESS: wire.ZSTD,
            bottleneck.ENCRYPT: "ssh",
            bottleneck.DECOMPRESS: wire.ZSTD,
            bottleneck.WRITE: own.stream,
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


@step("verify-backup-set", role="recipient", repeat=Repeat.BACK, back_to="stream-backup")
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
    mark = f"{plan.run_dir}/not-whole.{tools.attempt}"
    if tools.recipient.run(["test", "-e", mark], check=False).status == 0:
        raise InterruptedWorkError(
            "the received backup set was not whole; it is streamed again", host=plan.recipient
        )
    files = flavors.of(plan).set_files(plan.server_version)
    ends = _read_ends(tools, plan)
    words = jobs.read_job_stderr(tools.donor, _reader_name(tools, plan), 0)
    belied = flavors.of(plan).find_contradictions(words)
    there = [
        name
        for name in (files.info, files.checkpoints, backup_sets.OPTIONS)
        if tools.recipient.run(["test", "-s", f"{plan.staging_dir}/{name}"], check=False).status
        == 0
    ]
    checks = [
        Check(
            name="stream-exit-statuses",
            ok=all(state.statuses and not any(state.statuses) for state in ends.states),
            evidence=", ".join(f"{where} {_statuses(state)}" for where, state in ends.named),
        ),
        Check(
            name="backup-completed",
            host=plan.donor,
            ok=backup_sets.is_completed(words) and not belied,
            evidence=belied[0]
            if belied
            else (words.strip().splitlines() or ["nothing written"])[-1][-120:],
        ),
        Check(
            name="stream-bytes",
            ok=ends.sent.bytes == ends.received.bytes == ends.read.bytes > 0,
            evidence=f"sent {ends.sent.bytes}, received {ends.received.bytes}",
        ),
        Check(
            name="closing-files",
            host=plan.recipient,
            ok=len(there) == 3,  # noqa: PLR2004 - all of the three
            evidence=f"found {', '.join(there) or 'none'}",
        ),
    ]
    checks += _compare_sets(tools, plan, files)
    checks += tool_keys.judge_set(tools, plan)
    bad = [check for check in checks if not check.ok]
    if bad:
        tools.recipient.write_file(mark, "")
        raise VerificationError(
            f"the received backup set is not whole: {bad[0].name}, {bad[0].evidence}",
            host=plan.recipient,
            hint="`xbvault runs resume` streams it again; the recipient's data was not touched",
            problems=[f"{check.name}: {check.evidence}" for check in bad],
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
                evidence=_describe_coordinates(plan, coordinates),
            ),
        ),
    )


def read_set_coordinates(tools: Tools, plan: Plan) -> Coordinates:
    """Read the coordinates, from the set or from the copy that outlives the move.

    They are positions of the host that the replica follows: of the donor, or of its source.

    Raises:
        VerificationError: They do not parse, or the donor has several sources.
    """
    flavor = flavors.of(plan)
    files = flavor.set_files(plan.server_version)
    kept = _coordinates_copy(tools, plan)
    source = f"{plan.staging_dir}/{files.slave_info if plan.is_sibling else files.binlog_info}"
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


def _compare_sets(tools: Tools, plan: Plan, files: SetFiles) -> list[Check]:
    result = tools.recipient.run(
        ["cat", "--", f"{plan.staging_dir}/{files.checkpoints}"], check=False
    )
    ok, evidence = judge_checkpoints(result.text, flavors.of(plan).prepared_types)
    return [Check(name="checkpoints", host=plan.recipient, ok=ok, evidence=evidence)]


def judge_checkpoints(text: str, prepared_types: tuple[str, ...]) -> tuple[bool, str]:
    """Return whether a received set's checkpoints are those of a whole set, and what they say.

    Args:
        text: The file.
        prepared_types: What the set calls itself when it has been prepared since.
    """
    try:
        values = backup_sets.parse_checkpoints(text)
        kind = values.get("backup_type", "")
        last, to = (
            backup_sets.parse_lsn(values, "last_lsn"),
            backup_sets.parse_lsn(values, "to_lsn"),
        )
    except VerificationError as error:
        return False, f"checkpoints: {error.message}"
    ok = kind in (backup_sets.RECEIVED_TYPE, *prepared_types) and last >= to > 0
    return ok, f"backup_type={kind or '?'}, to_lsn={to}, last_lsn={last}"


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


def _reader_name(tools: Tools, plan: Plan) -> str:
    """Return the job, on the donor, whose first stage is the backup tool."""
    if fan_out.is_alone(tools, plan):
        return plan.job_name(SEND, tools.attempt)
    return fan_out.job_name(plan)


def _read_ends(tools: Tools, plan: Plan) -> Ends:
    send = plan.job_name(SEND, tools.attempt)
    reader = _reader_name(tools, plan)
    sent = jobs.read_job(tools.donor, send)
    return Ends(
        read=sent if reader == send else jobs.read_job(tools.donor, reader),
        sent=sent,
        received=jobs.read_job(tools.recipient, plan.job_name(RECEIVE, tools.attempt)),
    )


def _is_worth_attaching(tools: Tools, plan: Plan, send: str, receive: str) -> bool:
    if not fan_out.is_alone(tools, plan) and not fan_out.is_alive(tools, plan):
        return False
    sender = jobs.read_job(tools.donor, send)
    receiver = jobs.read_job(tools.recipient, receive)
    if any(job.is_cut or any(job.statuses) for job in (sender, receiver)):
        return False
    return (sender.running or sender.ended) and (receiver.running or receiver.ended)


def _throw_away(tools: Tools, plan: Plan, send: str, receive: str) -> None:
    for remote, name in ((tools.donor, send), (tools.recipient, receive)):
        jobs.remove_job(remote, name, fence=tools.fence)
    tools.recipient.run(["rm", "-rf", "--", plan.staging_dir], timeout_seconds=600)
    tools.recipient.run(["rm", "-f", "--", _coordinates_copy(tools, plan)])


def _arm_receiver(tools: Tools, plan: Plan, receive: str) -> None:
    flavor = flavors.of(plan)
    places.make_vaults(tools, plan)
    tools.recipient.run(
        ["install", "-d", "-m", "0700", "/var/lib/xbvault/runs", plan.run_dir, plan.staging_dir]
    )
    extract = flavor.extract_command(
        flavor.programs(tools.config.host(plan.recipient)),
        parallel=plan.parallel,
        staging_dir=plan.staging_dir,
    )
    jobs.arm_job(
        tools.recipient,
        jobs.JobSpec(
            name=receive,
            stages=tuple(
                jobs.Stage(argv=argv, role=role)
                for argv, role in zip(
                    receive_commands(plan, extract),
                    _receive_roles(plan),
                    strict=True,
                )
            ),
            count_after=jobs.COUNT_INPUT,
            fence=tools.fence,
            lease_seconds=tools.config.clone.job_lease_seconds,
        ),
    )
    tools.recipient.write_file(f"{plan.run_dir}/receive", f"{receive}\n")


def _make_credential(tools: Tools, plan: Plan) -> None:
    """Make a key pair on the donor's tmpfs, and have Vault sign it for this recipient alone."""
    recipient = tools.config.host(plan.recipient)
    address, port = recipient.address or plan.recipient, recipient.ssh_port or 22
    key = f"{plan.secret_dir}/id"
    tools.donor.run(["rm", "-rf", "--", plan.secret_dir])
    tools.donor.run(["install", "-d", "-m", "0700", "/run/xbvault", plan.secret_dir])
    tools.donor.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", plan.run_id, "-f", key])
    public = tools.donor.read_file(f"{key}.pub").decode().strip()
    certificate = tools.vault.sign_ssh_key(
        tools.config.vault.ssh_mount,
        f"xbvault-receive-{plan.recipient}",
        public,
        principal=f"xbvault-receive-{plan.recipient}",
        ttl_seconds=CREDENTIAL_SECONDS,
    )
    known = tools.recipient.host_key_lines(
        [address if port == 22 else f"[{address}]:{port}"]  # noqa: PLR2004 - SSH's own port
    )
    tools.donor.write_file(f"{key}-cert.pub", certificate.strip() + "\n")
    tools.donor.write_file(f"{plan.secret_dir}/known_hosts", "\n".join(known) + "\n")


def _send_command(tools: Tools, plan: Plan) -> tuple[str, ...]:
    recipient = tools.config.host(plan.recipient)
    options = {
        "CertificateFile": f"{plan.secret_dir}/id-cert.pub",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f"{plan.secret_dir}/known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "Ciphers": plan.ciphers or wire.AES_FIRST,
        "Compression": "no",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
        "ConnectTimeout": "20",
        "ControlPath": "none",
    }
    return (
        "ssh",
        "-F",
        "none",
        "-T",
        "-i",
        f"{plan.secret_dir}/id",
        *(part for name, value in options.items() for part in ("-o", f"{name}={value}")),
        "-p",
        str(recipient.ssh_port or 22),
        "-l",
        recipient.receive_user,
        "--",
        recipient.address or plan.recipient,
        plan.run_id,
    )


def _make_reader(tools: Tools, plan: Plan) -> tuple[jobs.Stage, ...]:
    """Return what reads the donor, a pipe's stage each, once what it needs is there."""
    donor = tools.config.host(plan.donor)
    tmp_dir = f"{plan.run_dir}/scratch"
    tools.donor.run(["install", "-d", "-m", "0700", "/var/lib/xbvault/runs", plan.run_dir, tmp_dir])
    flavor = flavors.of(plan)
    backup = flavor.backup_command(
        flavor.programs(donor),
        parallel=plan.parallel,
        tmp_dir=tmp_dir,
        socket=donor.server.socket,
        defaults_file=donor.server.defaults_file,
        options_file=tool_keys.write_backup_options(tools, plan),
        slave_info=plan.is_sibling,
    )
    made, *compressed = read_commands(plan, backup)
    return (
        jobs.Stage(argv=made, environment_file=donor.vault_env_file, role=bottleneck.READ),
        *(jobs.Stage(argv=argv, role=bottleneck.COMPRESS) for argv in compressed),
    )


def _start_sender(tools: Tools, plan: Plan, send: str, *, joins: bool) -> None:
    before = (fan_out.branch_stage(plan),) if joins else _make_reader(tools, plan)
    jobs.start_job(
        tools.donor,
        jobs.JobSpec(
            name=send,
            stages=(
                *before,
                jobs.Stage(
                    argv=_send_command(tools, plan),
                    role=bottleneck.ENCRYPT,
                    port=tools.config.host(plan.recipient).ssh_port or 22,
                ),
            ),
            count_after=len(before) - 1,
            throttle=0 if joins else plan.throttle,
            niceness=wire.NICENESS if plan.nice else 0,
            lease_seconds=tools.config.clone.job_lease_seconds,
            owner=tools.fence,
        ),
    )


def read_commands(plan: Plan, backup: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return what runs on the donor before the bytes are counted, a pipe's stage each."""
    stages = (backup, wire.compress_command(plan.compress))
    return tuple((*(wire.POLITE if plan.nice else ()), *argv) for argv in stages if argv)


def receive_commands(plan: Plan, extract: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Return what runs on the recipient after the bytes are counted, a pipe's stage each."""
    return tuple(argv for argv in (wire.decompress_command(plan.compress), extract) if argv)


def _receive_roles(plan: Plan) -> tuple[str, ...]:
    """Return what each of the commands on the recipient is for."""
    before = (bottleneck.DECOMPRESS,) if wire.decompress_command(plan.compress) else ()
    return (*before, bottleneck.WRITE)


def _begin_reading(tools: Tools, plan: Plan) -> None:
    """See that the donor is read for all recipients together."""
    began = fan_out.join(
        tools,
        plan,
        _make_reader(tools, plan),
        lease_seconds=tools.config.clone.job_lease_seconds,
    )
    end = time.monotonic() + CONNECT_SECONDS
    while began and not _has_spoken(tools, plan, fan_out.job_name(plan)):
        tools.check_cancelled()
        if time.monotonic() > end or not jobs.read_job(tools.donor, fan_out.job_name(plan)).running:
            return  # the caller reads how it ended
        time.sleep(0.1)


def _has_spoken(tools: Tools, plan: Plan, reader: str) -> bool:
    """Return whether the backup tool has read the options that we gave it; then it speaks."""
    return not flavors.of(plan).carries_keys or bool(jobs.read_job_stderr(tools.donor, reader, 0))


def _wait_for_connection(tools: Tools, plan: Plan, send: str, receive: str, *, reads: bool) -> None:
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
        hint="can the donor reach the recipient's SSH port? see the receiver's log there",
    )


def _wait_for_receiver(tools: Tools, receive: str, *, is_whole: bool) -> JobState:
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


def _check_stages(tools: Tools, plan: Plan, found: Ends, *, joins: bool) -> None:
    """Raise if a process of the pipe failed, naming the one that failed first.

    When one part of a pipe breaks down, all others fail as well: what writes into it by SIGPIPE, what
    reads from it for want of an end, ssh with its receiver's status.

    Raises:
        SecretError: It is the backup tool, for want of its keys.
        CommandError: With that process's last words.
    """
    send, receive = plan.job_name(SEND, tools.attempt), plan.job_name(RECEIVE, tools.attempt)
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
    backup_tool, stream_tool = flavors.of(plan).own.backup, flavors.of(plan).own.stream
    zstd = [wire.ZSTD] if wire.compress_command(plan.compress) else []
    readers, receivers = [backup_tool, *zstd], [*zstd, stream_tool]
    reader, buffers = (fan_out.job_name(plan), [fan_out.BUFFER]) if joins else (send, readers)
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
        writes_on = tool not in (stream_tool, "ssh", fan_out.BUFFER)
        if status == 0 or (writes_on and status == _BROKEN_PIPE):
            continue
        if name == receive and sent.statuses[len(buffers) :] == (_NO_CONNECTION,):
            continue  # its input ended with the connection
        words = jobs.read_job_stderr(remote, name, stage)
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
            hint=_way_hint(plan)
            if tool == "ssh"
            else outcomes.explain_failure(words, host=remote.name, otherwise=_AGAIN),
            status=status,
            stderr="\n".join(words.splitlines()[-20:]),
        )
    lost = plan.donor if not (sent.is_ok and found.read.is_ok) else plan.recipient
    raise CommandError(
        "the stream failed: its job was killed, or its host was restarted",
        host=lost,
        hint=_AGAIN,
    )


def _describe_coordinates(plan: Plan, coordinates: Coordinates) -> str:
    at = f"{coordinates.file}:{coordinates.position}" if coordinates.file else ""
    whose = f"of {plan.source}" if plan.is_sibling else ""
    return " ".join(filter(None, (at, coordinates.gtid, whose)))


def _statuses(state: JobState) -> str:
    return " ".join(str(status) for status in state.statuses) or "none"


def _way_hint(plan: Plan) -> str:
    return (
        f"see the way from {plan.donor} to the SSH port of {plan.recipient}, then `xbvault runs "
        "resume`; the recipient's data was not touched"
    )
