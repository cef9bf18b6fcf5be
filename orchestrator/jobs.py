"""Remote jobs: long commands that live on a host on their own.

A job is a pipeline. Its wrapper, ``host/job.sh``, is started detached in a session of its own and
stays the parent of the stages; exit status and stderr of each stage, the bytes that passed, and
how it ended are files in ``/var/lib/xbvault/jobs/<name>/`` on that host. So it goes on without us,
and whoever asks for the same name again attaches to it instead of starting a second one.

An armed job is made in the same way, but started by the receiver (``host/receive.sh``), which
feeds it the input that arrives over SSH.

It does not go on for ever without us: every look at a job renews its lease, as does `renew_jobs`.
When nobody has for `JobSpec.lease_seconds`, a watchdog inside the job ends it with all its
processes; likewise on the recipient when another run has taken the lock. The lease is measured in
uptime of one boot. A successor of a killed orchestrator has a higher fence, but is the same run: it
attaches to the job and renews it. So the exact fence is compared only when a job begins; while it
runs, the lock must not name another run. On the donor there is no lock to look at: there a job
remembers the highest fence that has started or renewed it, its owner's, and neither stops nor goes
for a process with a lower one.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from orchestrator import log, numerals
from orchestrator.errors import (
    CommandError,
    HostUnreachableError,
    LockHeldError,
    PreconditionError,
    VerificationError,
)
from orchestrator.host import script
from orchestrator.models import STATE_DIR

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.remote import Remote, Result

BASE: Final = STATE_DIR
COUNT_NONE: Final = -1
"""`JobSpec.count_after`: no bytes are counted."""
COUNT_INPUT: Final = -2
"""`JobSpec.count_after`: the bytes that go into the first stage are counted."""
COUNT_WRITES: Final = -3
"""`JobSpec.count_after`: the bytes that the first stage writes wherever to, by the kernel's account.
They are as of the last look at the job while it ran."""

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_PLACE: Final = re.compile(r"/[^\0\n\r]*")
_MOST_STAGES: Final = 16
_MOST_NICE: Final = 19
_SHORTEST_PAUSE_SECONDS: Final = 0.3
_LONGEST_PAUSE_SECONDS: Final = 1.0
_PAUSE_SHARE: Final = 0.04
"""How long the host waits for a job's end before it answers, as a share of the time that was waited
already: the end is told at once, and whoever watches sees how far it is."""
_PROGRESS_SECONDS: Final = 0.5
_RATE_WINDOW_SECONDS: Final = 5.0
_RATE_POINTS: Final = 2
LEASE_SECONDS: Final = 900
_RENEW_SECONDS: Final = 30.0
_SILENCE_SECONDS: Final = 60.0
"""A host that does not answer for less than this is asked again; its job goes on meanwhile."""
_TAIL_LINES: Final = 40
_LOOKS: Final = re.compile(
    r"([0-9]{1,15}) ([0-9]{1,15})"
    r"(?: ([0-9]{1,15}(?:\.[0-9]{1,9})?) ([0-9]{1,15}) ([0-9]{1,15}) ([0-9]{1,15}))? *"
)
_TIME: Final = re.compile(r"([0-9]{1,9})m([0-9]{1,2}(?:\.[0-9]{1,9})?)s")
_ROLE: Final = re.compile(r"[a-z]{1,20}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_OWNED: Final = 75
SIGNALLED: Final = range(129, 193)
"""Exit statuses by which a shell tells the end by a signal; ssh and others use 255 for more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One command of a job.

    Attributes:
        argv: The command. It must hold no secret.
        environment_file: File on the host with ``KEY=value`` lines, set for this stage only. They
            are taken as data: quotes around a value go, nothing is expanded, a backslash is
            refused.
        role: What it is for, by which its processor time is told; one word, empty for none.
        port: Above 0: it connects to this TCP port, and what holds the stream up is looked at.
    """

    argv: tuple[str, ...]
    environment_file: str = ""
    role: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        if not self.argv or any("\0" in word for word in self.argv):
            raise ValueError("a stage needs a command without NUL bytes")
        if not self.argv[0] or self.argv[0].startswith("-"):
            raise ValueError("a command does not begin with a dash")
        if self.environment_file:
            _check_place(self.environment_file)
        if self.role and not _ROLE.fullmatch(self.role):
            raise ValueError("a role is one word of small letters")


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSpec:
    """A job, as it is to be started.

    Attributes:
        name: ``<run_id>.<step>``, with ``.<attempt>`` where there are several.
        stages: Joined by pipes.
        count_after: Index of the stage whose output is counted, or one of the ``COUNT_…``.
        stdin_file: Input of the first stage; empty: nothing (an armed job: the receiver's stdin).
        stdout_file: Where the last stage's output goes (0600, truncated); empty: nowhere.
        directory: Working directory.
        fence: Above 0: before it acts, the wrapper checks that the recipient lock names this run
            and this fence; otherwise every status is 75. Each stage checks the run once more, and
            the job ends itself when the lock names another run.
        lease_seconds: When nobody has looked at it for so long, the job ends itself.
        owner: Fence of the process that starts it, for a host that has no lock to look at.
        throttle: Most bytes per second that the counter lets through, on average; 0 for no bound.
        niceness: Of the whole job towards the sessions of others, where the kernel shares the
            processors out between sessions first (autogroup): there, that of a stage counts only
            among the job's own.
        lock_dir: Folder of the lock that the fence is of.
    """

    name: str
    stages: tuple[Stage, ...]
    count_after: int = COUNT_NONE
    stdin_file: str = ""
    stdout_file: str = ""
    directory: str = "/"
    fence: int = 0
    lease_seconds: int = LEASE_SECONDS
    owner: int = 0
    throttle: int = 0
    niceness: int = 0
    lock_dir: str = BASE

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not 1 <= len(self.stages) <= _MOST_STAGES:
            raise ValueError(f"a job has 1 to {_MOST_STAGES} stages")
        if not COUNT_WRITES <= self.count_after < len(self.stages):
            raise ValueError("count_after names no stage")
        if min(self.fence, self.owner) < 0:
            raise ValueError("a fence is not negative")
        if self.throttle < 0 or (self.throttle and self.count_after == COUNT_NONE):
            raise ValueError("a job is throttled at its counter, to a rate above 0")
        if not 0 <= self.niceness <= _MOST_NICE:
            raise ValueError("the niceness of a job is 0 to 19")
        if self.lease_seconds < 1:
            raise ValueError("the lease of a job lasts longer than nothing")
        for place in (self.stdin_file, self.stdout_file):
            if place:
                _check_place(place)
        _check_place(self.directory)
        _check_place(self.lock_dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Connection:
    """The kernel's account of a TCP connection, at the last look.

    Attributes:
        seconds: From the begin of the job to that look.
        busy_seconds: Of these, how long there was something to send or to be acknowledged.
        receiver_seconds: Of those, how long the receiver's window was closed.
        buffer_seconds: Of those, how long the sender's own buffer was too small.
    """

    seconds: float
    busy_seconds: float
    receiver_seconds: float
    buffer_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobState:
    """A job, as it was found.

    Attributes:
        exists: Its files are there.
        running: Its wrapper lives.
        statuses: Exit status of every stage once it has ended, else empty. What the counter lost
            shows as a failure of the stage that it counted.
        bytes: What was counted so far; exact once it has ended.
        stderr: The last lines of all stages and of the wrapper.
        ended: It ran to its end, well or badly, and said how.
        seconds: How long it ran, or has been running.
        died: It was started, does not run, and left no statuses: killed, or the host rebooted.
        expired: It ended itself half way, for nobody renewed its lease (every status is 124), or
            another run took the recipient (75). What it was doing has to be begun again.
        cpu_seconds: Processor time of the stages that have ended, by role, with all that they
            started and waited for. Empty where the job is of an older version.
        looks: How often the first stage of a job with a connection was looked at.
        held_up: How often it was seen in a write then: those behind it took no more.
        connection: What the kernel says of the connection; None where ``ss`` is missing there.
    """

    exists: bool
    running: bool
    statuses: tuple[int, ...]
    bytes: int
    stderr: str
    ended: bool
    seconds: float
    died: bool
    expired: bool = False
    cpu_seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    looks: int = 0
    held_up: int = 0
    connection: Connection | None = None

    @property
    def is_cut(self) -> bool:
        """Whether it was cut off from outside: it died or expired, or a stage was killed."""
        return self.died or self.expired or any(s in SIGNALLED for s in self.statuses)

    @property
    def is_ok(self) -> bool:
        """Whether it ended and every stage ended with 0."""
        return self.ended and bool(self.statuses) and not any(self.statuses)


def start_job(remote: Remote, spec: JobSpec) -> bool:
    """Start a job, unless it is there already.

    Args:
        remote: The host.
        spec: The job.

    Returns:
        True if this call started it; False if it runs, has ended or is armed: attach to it.

    Raises:
        CommandError: Its files cannot be written, or its wrapper did not begin.
    """
    answer = _call(
        remote, "start", spec.name, before=_write_job(spec), doing="start"
    ).stdout.strip()
    is_new = answer == b"started"
    log.get().info("job.started" if is_new else "job.attached", job=spec.name, host=remote.name)
    return is_new


def arm_job(remote: Remote, spec: JobSpec) -> None:
    """Make a job for the receiver to start; one that has begun already is left as it is.

    One that was armed and has not begun is replaced, for its fence may be an older one.

    Raises:
        CommandError: Its files cannot be written.
    """
    _call(remote, "arm", spec.name, before=_write_job(spec), doing="arm")


def read_job(remote: Remote, name: str, *, wait_seconds: float = 0.0) -> JobState:
    """Read the state of a job, in one command, and renew its lease.

    Args:
        remote: The host.
        name: The job.
        wait_seconds: How long the host may wait for its end before it answers.

    Raises:
        CommandError: The host did not answer as it should.
        VerificationError: What it answered is not the state of a job.
    """
    hundredths = round(wait_seconds * 100)
    wait = [str(hundredths)] if hundredths > 0 else []
    return parse_report(_call(remote, "report", name, *wait, doing="read").text)


def renew_jobs(
    remote: Remote, run_id: str, *, fence: int = 0, timeout_seconds: float = _RENEW_SECONDS
) -> int:
    """Renew the lease of every job of a run that goes on, in one command, and own them all.

    Args:
        remote: The host.
        run_id: The run, with which the names of its jobs begin.
        fence: Of this process; who has a lower one may not stop or remove them any more.
        timeout_seconds: Longest time to wait for the host.

    Returns:
        How many there were.

    Raises:
        CommandError: The host did not answer as it should.
        HostUnreachableError: The host could not be reached.
        VerificationError: It did not answer with a number.
    """
    answer = _call(
        remote, "renew", run_id, str(fence), doing="renew", timeout_seconds=timeout_seconds
    ).text
    return numerals.parse_whole(answer.strip().removeprefix("renewed="))


def read_job_stderr(remote: Remote, name: str, stage: int) -> str:
    """Read all that a stage wrote to stderr, secrets masked.

    Raises:
        CommandError: There is no such job or stage.
    """
    return _clean(_call(remote, "stderr", name, str(stage), doing="read stderr of").text)


def wait_for_job(
    remote: Remote,
    name: str,
    *,
    deadline_seconds: float,
    stall_seconds: float = 0,
    expected_bytes: int = 0,
    fence: int = 0,
    check: Callable[[], None] = lambda: None,
    read_progress: Callable[[str], dict[str, int]] = lambda _words: {},
) -> JobState:
    """Wait until a job has ended, well or badly, or has died.

    Args:
        remote: The host.
        name: The job.
        deadline_seconds: Longest time to wait; then the job is stopped.
        stall_seconds: Above 0: stop the job when its bytes do not grow for this long. For jobs
            that count only.
        expected_bytes: For the progress events; 0 if unknown.
        fence: Of this process, if it must not stop a job that another has taken over.
        check: Called at every poll. What it raises goes through, and the job goes on.
        read_progress: What the last lines of its stages say of how far it is, for the progress
            events.

    Returns:
        The state at the end; whether the statuses are good, and whether it was cut off, is for the
        caller to judge.

    Raises:
        PreconditionError: There is no such job.
        CommandError: It stalled or took too long, and was stopped; or the host did not answer for a
            minute.
        LockHeldError: It was to be stopped, and another process has taken it over.
        HostUnreachableError: The host could not be reached for a minute.
    """
    watch = _Watch(remote, name, expected_bytes, read_progress)
    pause = 0.0
    while True:
        check()
        asked_at = time.monotonic()
        state = watch.poll(pause)
        if state is not None and not state.exists:
            raise PreconditionError(f"no remote job {name}", host=remote.name)
        if state is not None and state.ended:
            log.get().info(
                "job.ended",
                job=name,
                host=remote.name,
                bytes=state.bytes,
                seconds=state.seconds,
                statuses=list(state.statuses),
                expired=state.expired,
            )
            return state
        if state is not None and state.died:
            # Its wrapper is gone, but stages may have outlived it.
            stop_job(remote, name, fence=fence)
            return state
        reason = watch.reason_to_stop(deadline_seconds, stall_seconds)
        if reason:
            stop_job(remote, name, fence=fence)
            raise CommandError(
                f"remote job {name} {reason}; it was stopped",
                host=remote.name,
                stderr=watch.stderr,
            )
        # It has waited already, unless it did not answer.
        time.sleep(max(0.0, pause - (time.monotonic() - asked_at)))
        pause = max(_SHORTEST_PAUSE_SECONDS, _PAUSE_SHARE * watch.seconds())
        left = deadline_seconds - watch.seconds()
        pause = max(0.0, min(pause, _LONGEST_PAUSE_SECONDS, left))


def stop_job(remote: Remote, name: str, *, fence: int = 0) -> None:
    """End every process of a job, within five seconds; without a job, do nothing.

    An armed job that has not begun will not begin any more.

    Args:
        remote: The host.
        name: The job.
        fence: Of this process; 0: whoever owns the job.

    Raises:
        CommandError: A process is left that cannot be killed.
        LockHeldError: A process with a higher fence owns it; nothing was done.
    """
    if _call(remote, "stop", name, str(fence), doing="stop").stdout.strip() == b"stopped":
        log.get().info("job.stopped", job=name, host=remote.name)


def remove_job(remote: Remote, name: str, *, fence: int = 0) -> None:
    """Stop a job if it runs, and remove its files; without a job, do nothing. See `stop_job`."""
    if _call(remote, "remove", name, str(fence), doing="remove").stdout.strip() == b"stopped":
        log.get().info("job.stopped", job=name, host=remote.name)


class _Watch:
    """What a wait remembers from poll to poll."""

    def __init__(
        self,
        remote: Remote,
        name: str,
        expected_bytes: int,
        read_progress: Callable[[str], dict[str, int]],
    ) -> None:
        self.remote = remote
        self.name = name
        self.expected_bytes = expected_bytes
        self.read_progress = read_progress
        self.stderr = ""
        self._began_at = self._answered_at = self._grew_at = time.monotonic()
        self._said_at = 0.0
        self._bytes = -1
        self._seen: deque[tuple[float, int]] = deque()

    def seconds(self) -> float:
        return time.monotonic() - self._began_at

    def poll(self, wait_seconds: float) -> JobState | None:
        """Ask once; None if the host did not answer, and has not been silent for too long."""
        try:
            state = read_job(self.remote, self.name, wait_seconds=wait_seconds)
        except (CommandError, HostUnreachableError) as error:
            lost = isinstance(error, HostUnreachableError) or error.status is None
            if not lost or time.monotonic() - self._answered_at > _SILENCE_SECONDS:
                raise
            return None
        now = self._answered_at = time.monotonic()
        self.stderr = state.stderr
        if state.bytes != self._bytes:
            self._bytes = state.bytes
            self._grew_at = now
        self._seen.append((now, state.bytes))
        while len(self._seen) > _RATE_POINTS and now - self._seen[0][0] > _RATE_WINDOW_SECONDS:
            self._seen.popleft()
        if state.running and now - self._said_at >= _PROGRESS_SECONDS:
            self._said_at = now
            self._say(state)
        return state

    def _say(self, state: JobState) -> None:
        (first_at, first), (last_at, last) = self._seen[0], self._seen[-1]
        rate = (last - first) / (last_at - first_at) if last_at > first_at else 0.0
        log.get().info(
            "job.progress",
            job=self.name,
            host=self.remote.name,
            bytes=state.bytes,
            expected_bytes=self.expected_bytes,
            bytes_per_second=round(rate),
            **self.read_progress(state.stderr),
        )

    def reason_to_stop(self, deadline_seconds: float, stall_seconds: float) -> str:
        if self.seconds() >= deadline_seconds:
            return f"did not end within {deadline_seconds:g} seconds"
        # A silence of the host is not a stall of the job: only answers count.
        if 0 < stall_seconds <= self._answered_at - self._grew_at:
            return f"stalled: no byte for {stall_seconds:g} seconds, {max(self._bytes, 0)} in all"
        return ""


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError("a job name has 1 to 200 letters, digits, '.', '_', '-'")


def _check_place(path: str) -> None:
    if not _PLACE.fullmatch(path):
        raise ValueError("a path of a job is absolute and has no line break")


def _call(
    remote: Remote,
    verb: str,
    name: str,
    *arguments: str,
    before: str = "",
    doing: str,
    timeout_seconds: float = 60.0,
) -> Result:
    _check_name(name)
    result = remote.run(
        ["sh", "-s", "--", verb, BASE, name, *arguments],
        stdin=before + script("job.sh"),
        check=False,
        timeout_seconds=timeout_seconds,
    )
    if result.status != 0:
        stderr = _last_lines(result.stderr.strip())
        reason = stderr.rpartition("\n")[2] or f"status {result.status}"
        if result.status == _OWNED:
            raise LockHeldError(
                f"cannot {doing} remote job {name}: {reason}",
                host=remote.name,
                hint="another process has taken this run over; look there",
            )
        raise CommandError(
            f"cannot {doing} remote job {name}: {reason}",
            host=remote.name,
            status=result.status,
            stderr=stderr,
        )
    return result


def _write_job(spec: JobSpec) -> str:
    """Return the shell function that writes the job's files into the current directory.

    All that comes from outside is quoted; only integers stand in the text of `flow` as they are.
    """
    files = {
        "job.sh": script("job.sh"),
        "lock.sh": script("lock.sh"),
        "settings": _settings(spec),
        "flow": _flow(spec),
        **{f"stage.{index}": _stage(stage) for index, stage in enumerate(spec.stages)},
    }
    writes = [f"printf %s {shlex.quote(text)} >{name}" for name, text in files.items()]
    return "write_job() {\n" + " &&\n".join(writes) + "\n}\n"


def _settings(spec: JobSpec) -> str:
    counted = 0 if spec.count_after == COUNT_INPUT else spec.count_after
    connected = next((index for index, stage in enumerate(spec.stages) if stage.port), None)
    values = {
        "stages": str(len(spec.stages)),
        "counted": str(counted),
        "fence": str(spec.fence),
        "owner": str(spec.owner),
        "lock_dir": "" if spec.lock_dir == BASE else spec.lock_dir,
        "lease_seconds": str(spec.lease_seconds),
        "throttle": str(spec.throttle or ""),
        "niceness": str(spec.niceness or ""),
        "directory": spec.directory,
        "stdin_file": spec.stdin_file,
        "stdout_file": spec.stdout_file or "/dev/null",
        "roles": " ".join(stage.role or "-" for stage in spec.stages),
        "connected": "" if connected is None else str(connected),
        "port": "0" if connected is None else str(spec.stages[connected].port),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


def _flow(spec: JobSpec) -> str:
    parts = ["count"] if spec.count_after == COUNT_INPUT else []
    for index in range(len(spec.stages)):
        parts.append(f"element {index}")
        if index == spec.count_after:
            parts.append("count")
    if len(parts) == 1:
        # Without a pipe nothing would run it in a subshell of its own.
        return f"( {parts[0]} )\n"
    return " | ".join(parts) + "\n"


def _stage(stage: Stage) -> str:
    load = (
        f"load_environment {shlex.quote(stage.environment_file)}\n"
        if stage.environment_file
        else ""
    )
    return f"{load}exec {shlex.join(stage.argv)}\n"


def parse_report(text: str) -> JobState:
    """Return the state that ``host/job.sh report`` printed.

    Raises:
        VerificationError: It is not of this form.
    """
    head, marker, stderr = text.partition("stderr\n")
    values = dict(line.split("=", 1) for line in head.split("\n") if "=" in line)
    if values.get("exists") == "0":
        return JobState(
            exists=False,
            running=False,
            statuses=(),
            bytes=0,
            stderr="",
            ended=False,
            seconds=0.0,
            died=False,
        )
    if values.get("exists") != "1" or not marker:
        raise VerificationError(f"no report of a remote job: {text[:80]!r}")
    words = values.get("ended", "").split()
    mark = words.pop() if words and words[-1].isalpha() else ""
    # The line may be blank after a power cut: then it did not end as far as anyone can tell.
    ended = len(words) > 1
    is_alive = values.get("alive") == "1"
    seconds = 0.0
    if "begun" in values and (ended or is_alive):
        until = numerals.parse_decimal(words[0] if ended else values.get("uptime", ""))
        seconds = max(0.0, round(until - numerals.parse_decimal(values["begun"]), 2))
    looks, held_up, connection = _read_looks(values)
    return JobState(
        exists=True,
        running=is_alive and not ended,
        statuses=tuple(numerals.parse_whole(word) for word in words[1:]) if ended else (),
        bytes=numerals.parse_whole(values.get("bytes") or "0"),
        stderr=_last_lines(stderr),
        ended=ended,
        seconds=seconds,
        died="begun" in values and not ended and not is_alive,
        expired=ended and bool(mark),
        cpu_seconds=_read_times(values.get("cpu", "")),
        looks=looks,
        held_up=held_up,
        connection=connection,
    )


def _read_looks(values: dict[str, str]) -> tuple[int, int, Connection | None]:
    """Return how often was looked, how often it was held up, and the connection's account, if any.

    They only explain: what a power cut has left of them is no reason to take the job for unreadable.
    """
    found = _LOOKS.fullmatch(values.get("looks", ""))
    if not found:
        return 0, 0, None
    looks, held_up, at, *times = found.groups()
    if at is None:
        return int(looks), int(held_up), None
    busy, receiver, buffer = (int(time) / 1000 for time in times)
    seconds = float(at) - numerals.parse_decimal(values.get("begun", ""))
    connection = Connection(
        seconds=max(0.0, round(seconds, 2)),
        busy_seconds=busy,
        receiver_seconds=receiver,
        buffer_seconds=buffer,
    )
    return int(looks), int(held_up), connection


def _read_times(text: str) -> dict[str, float]:
    """Return the processor time by role; of a shell that tells it in another form, nothing."""
    found: dict[str, float] = {}
    for word in text.split():
        role, *times = word.split(":")
        parts = [_TIME.fullmatch(time) for time in times]
        if role != "-" and parts and all(parts):
            spent = sum(60 * int(part[1]) + float(part[2]) for part in parts if part)
            found[role] = round(found.get(role, 0.0) + spent, 3)
    return found


def _last_lines(text: str) -> str:
    # mariadb-backup echoes its Vault token in some errors.
    return _clean("\n".join(text.removesuffix("\n").split("\n")[-_TAIL_LINES:]))


def _clean(text: str) -> str:
    """Return a tool's words without secrets, and without what a terminal would act on."""
    return log.redact_text(_CONTROL.sub("", text))
