"""What limited a stream: the verdict, from figures that both ends and the kernel have kept. Pure.

The backup tool reads, `ssh` on the donor encrypts, the wire carries, and the recipient writes: its
sshd decrypts, its stream tool extracts. What a stage of its own could do no faster shows in its
processor time. What waits shows in what the backup tool was doing when it was looked at: standing
in a write, because those behind it took no more, or working. The kernel's account of the connection
then tells wire and recipient apart, with one trap: SSH has a window of its own, so a recipient that
extracts slowly leaves the connection idle, and only a slow sshd closes the window of TCP.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.jobs import Connection

READ, COMPRESS, ENCRYPT, WIRE, WRITE = "read", "compress", "encrypt", "wire", "write"
SEAL, CHECK, UNSEAL = "seal", "check", "unseal"
KEEP = "keep"
DECOMPRESS, THROTTLE = "decompress", "throttle"
BOTTLENECKS = (
    READ,
    COMPRESS,
    SEAL,
    ENCRYPT,
    WIRE,
    CHECK,
    UNSEAL,
    DECOMPRESS,
    WRITE,
    THROTTLE,
)
FULL_CORE = 0.85
"""From this share of one core on, a process with one thread could do no more."""
MOSTLY = 0.5
ALWAYS = 0.8
"""Share of the time that a connection is busy when it is the wire that limits."""
THROTTLED = 0.9
"""Share of the allowed rate from which on it is the limit that limits."""
FEWEST_LOOKS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of a stream that has ended.

    Attributes:
        bytes: How much went through.
        seconds: How long it took.
        cpu_seconds: Processor time by the role of a stage, on both ends.
        programs: The program by the role of its stage, for the reader.
        threads: Of the backup tool.
        looks: How often the backup tool was looked at.
        held_up: How often it stood in a write then.
        connection: The kernel's account; None where there is none.
        allowed_rate: Bytes per second that a limit let through; 0 for no limit.
    """

    bytes: int
    seconds: float
    cpu_seconds: dict[str, float]
    programs: dict[str, str]
    threads: int = 1
    looks: int = 0
    held_up: int = 0
    connection: Connection | None = None
    allowed_rate: float = 0.0

    @property
    def held_up_share(self) -> float | None:
        """Share of the looks at which the backup tool stood in a write; None after too few."""
        return round(self.held_up / self.looks, 3) if self.looks >= FEWEST_LOOKS else None

    def share(self, role: str) -> float:
        """Return the processor time of a stage as a share of one core."""
        return self.cpu_seconds.get(role, 0.0) / self.seconds if self.seconds > 0 else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What limited a stream.

    Attributes:
        bottleneck: One of `BOTTLENECKS`; empty where the figures do not tell.
        evidence: What that was concluded from, in one line.
    """

    bottleneck: str
    evidence: str


def judge_stream(figures: Figures) -> Verdict:
    """Return what limited a stream, as far as its figures tell."""
    if figures.bytes <= 0 or figures.seconds <= 0 or not figures.cpu_seconds:
        return Verdict(bottleneck="", evidence="")
    rate = figures.bytes / figures.seconds
    if 0 < figures.allowed_rate * THROTTLED <= rate:
        return Verdict(
            bottleneck=THROTTLE,
            evidence=f"{rate / figures.allowed_rate:.0%} of the rate that it was allowed",
        )
    held_up = figures.held_up_share
    if held_up is not None and held_up < MOSTLY:
        return Verdict(bottleneck=READ, evidence=_describe_reader(figures))
    later = [role for role in figures.cpu_seconds if role != READ]
    busiest = max(later, key=figures.share, default="")
    if busiest and figures.share(busiest) >= FULL_CORE:
        return Verdict(bottleneck=busiest, evidence=_describe_use(figures, busiest))
    if held_up is None and figures.share(READ) >= FULL_CORE * figures.threads:
        return Verdict(bottleneck=READ, evidence=_describe_use(figures, READ))
    return _judge_connection(figures)


def _judge_connection(figures: Figures) -> Verdict:
    """Return what limited a stream in which no process was at its limit, and the reader not slow."""
    account = figures.connection
    is_held_up = figures.held_up_share is not None
    waited = f"{_describe_reader(figures)}; " if is_held_up else ""
    if account is None or account.seconds <= 0:
        evidence = f"{waited}no process used up a core, and `ss` told nothing of the connection"
        return Verdict(bottleneck="", evidence=evidence)
    busy = account.busy_seconds / account.seconds
    full = account.receiver_seconds / account.seconds
    if full >= MOSTLY:
        evidence = f"the recipient's sshd took no more for {full:.0%} of the time"
        return Verdict(bottleneck=WRITE, evidence=evidence)
    if busy >= ALWAYS:
        return Verdict(
            bottleneck=WIRE, evidence=f"the connection was busy for {busy:.0%} of the time"
        )
    if is_held_up:
        evidence = f"{waited}the connection was idle for {1 - min(1.0, busy):.0%} of the time"
        return Verdict(bottleneck=WRITE, evidence=evidence)
    evidence = f"no process used up a core, and the connection was busy for {busy:.0%} of the time"
    return Verdict(bottleneck="", evidence=evidence)


def _describe_use(figures: Figures, role: str) -> str:
    return f"{figures.programs.get(role, role)} used {figures.share(role):.0%} of a core"


def _describe_reader(figures: Figures) -> str:
    """Return what the backup tool did, from the looks at it."""
    waited = f"waited to be rid of its data at {figures.held_up} of {figures.looks} looks"
    return f"{_describe_use(figures, READ)} and {waited}"
