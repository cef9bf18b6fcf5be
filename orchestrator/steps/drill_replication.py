"""Steps of a drill that lets the restored server follow the live host for a while."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from orchestrator import flavors, log, sql
from orchestrator.errors import CommandError, VerificationError
from orchestrator.facts import instances
from orchestrator.models import DRILLS, Check
from orchestrator.steps import drill, replication, stream
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.flavors.interface import ReplicationStatus
    from orchestrator.models import AnyDrill

POLL_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchedReplication:
    """How replication from the live host went.

    Attributes:
        source: The host that was followed.
        seconds: For how long.
        looks: How often both threads were looked at; they ran each time.
        began_at_position: The set's, as its flavor says it.
        reached_position: What was applied last at the end.
        source_position: Where the live host was then.
        applied_transactions: How many were applied; None where that is not known.
        missing_transactions: How many were not yet; None where that is not known.
        seconds_behind: Delay at the end, as the replica says it; None where it does not.
        checks: The verdict.
    """

    source: str
    seconds: float
    looks: int
    began_at_position: str
    reached_position: str
    source_position: str
    applied_transactions: int | None
    missing_transactions: int | None
    seconds_behind: int | None
    checks: tuple[Check, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndedReplication:
    """A server that follows nobody any more.

    Attributes:
        source: The host that it had followed; empty if it did not.
    """

    source: str


@step(
    "watch-replication",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=7 * 86400,
    needs_server=True,
    forms=DRILLS,
)
def watch_replication(tools: Tools, plan: AnyDrill) -> WatchedReplication:
    """Look at both threads of replication for as long as was asked for, and how far they come.

    What the restored server cannot apply speaks against the set. A connection that breaks does not:
    the drill goes no further then, and proves nothing.

    Args:
        tools: The doors to the live host and to the recipient.
        plan: The drill.

    Returns:
        How long it was watched, and how far it came.

    Raises:
        VerificationError: An event of the live host cannot be applied, or it comes in the clear.
        CommandError: The connection to the live host broke, or nothing was applied at all.

    Repeat:
        Watches again, for the whole time.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    dialect, theirs = flavors.dialect_of(plan), flavors.source_dialect_of(plan)
    replication.wait_until_connected(tools, plan)
    began, looks = time.monotonic(), 0
    while True:
        tools.check_cancelled()
        status = replication.read_status(tools, plan)
        _need_both_running(plan, status, time.monotonic() - began)
        looks += 1
        passed = time.monotonic() - began
        log.get().info(
            "job.progress",
            job="watch-replication",
            host=plan.recipient,
            seconds_behind=max(status.seconds_behind, 0),
        )
        if passed >= plan.replicate_seconds:
            break
        time.sleep(min(POLL_SECONDS, plan.replicate_seconds - passed))
    coordinates = stream.read_set_coordinates(tools, plan)
    applied = "".join(sql.query_row(remote, host, dialect.applied_sql)["pos"].split())
    position = theirs.read_position(
        sql.query_row(tools.source, tools.config.host(plan.source_host), theirs.position_sql)
    )
    reached = applied if status.uses_gtid else f"{status.applied_file}:{status.applied_position}"
    start = coordinates.gtid if status.uses_gtid else f"{coordinates.file}:{coordinates.position}"
    if reached == start:
        raise CommandError(
            f"nothing of {plan.source_host} was applied in {passed:.0f} s",
            host=plan.recipient,
            hint="a large transaction takes longer: give --replicate more seconds",
        )
    checks = _judge(plan, status, looks=looks, seconds=passed, reached=reached, start=start)
    return WatchedReplication(
        source=plan.source_host,
        seconds=round(passed, 3),
        looks=looks,
        began_at_position=start,
        reached_position=reached,
        source_position=position,
        applied_transactions=dialect.count_transactions(coordinates.gtid, applied),
        missing_transactions=dialect.count_transactions(applied, position),
        seconds_behind=status.seconds_behind if status.seconds_behind >= 0 else None,
        checks=drill.all_good(plan.recipient, checks),
    )


@step("end-replication", role="recipient", repeat=Repeat.SAFE, needs_server=True, forms=DRILLS)
def end_replication(tools: Tools, plan: AnyDrill) -> EndedReplication:
    """Stop replication on the restored server, and let it forget the live host.

    Args:
        tools: The door to the recipient.
        plan: The drill.

    Returns:
        Whom it had followed.

    Raises:
        CommandError: The server refuses.
        VerificationError: It still knows of a source.

    Repeat:
        It follows nobody any more: changes nothing.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    dialect = flavors.dialect_of(plan)
    if instances.read_replication(remote, host, dialect) is None:
        log.get().info("step.unchanged", reason="it follows nobody")
        return EndedReplication(source="")
    sql.execute(remote, host, dialect.forget_source_sql)
    if instances.read_replication(remote, host, dialect) is not None:
        raise VerificationError("the restored server still knows of a source", host=plan.recipient)
    return EndedReplication(source=plan.source_host)


def _need_both_running(plan: AnyDrill, status: ReplicationStatus, passed: float) -> None:
    """Raise where one of both threads does not run.

    Raises:
        VerificationError: The one that applies.
        CommandError: The one that fetches.
    """
    if status.sql != "Yes":
        raise VerificationError(
            f"replication stopped after {passed:.0f} s: {status.sql_error[:300] or 'no error told'}",
            host=plan.recipient,
            hint=f"the set does not go on from its coordinates as {plan.source_host} did; do not rely "
            "on it for a replica before that is understood",
        )
    if status.io != "Yes":
        raise CommandError(
            f"the connection to {plan.source_host} broke after {passed:.0f} s: "
            f"{status.io_error[:300] or status.io}",
            host=plan.recipient,
            hint=f"`xbvault runs resume {plan.run_id}` watches again, for the whole time",
        )


def _judge(
    plan: AnyDrill,
    status: ReplicationStatus,
    *,
    looks: int,
    seconds: float,
    reached: str,
    start: str,
) -> list[Check]:
    behind = (
        f"{status.seconds_behind} s behind" if status.seconds_behind >= 0 else "delay not known"
    )
    return [
        Check(
            name="replication-running",
            host=plan.recipient,
            ok=True,
            evidence=f"from {plan.source_host}, both threads at {looks} looks in {seconds:.0f} s; "
            f"{behind} at the end",
        ),
        Check(
            name="replication-advancing",
            host=plan.recipient,
            ok=True,
            evidence=f"from {start} to {reached}",
        ),
        Check(
            name="replication-encrypted",
            host=plan.recipient,
            ok=status.uses_tls,
            evidence="TLS, certificate verified" if status.uses_tls else "no TLS",
        ),
    ]
