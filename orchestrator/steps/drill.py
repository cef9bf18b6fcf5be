"""Steps of a drill alone: the isolation, the wrong keys, the distance to the live host, the report."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import flavors, jobs, keys, log, numerals, report, sql
from orchestrator.errors import (
    CancelledError,
    LockHeldError,
    OrchestratorError,
    PreconditionError,
    VerificationError,
)
from orchestrator.facts import instances
from orchestrator.models import DRILL, DRILLS, Check, DrillPlan, from_json
from orchestrator.repository import names, set_keys, trial
from orchestrator.steps import fan_out, records, stream, transition, wrong_key
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import AnyDrill, Coordinates, Secret


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What a drill found; every one of them is good.

    Attributes:
        checks: By name.
    """

    checks: tuple[Check, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecoveryPoint:
    """How far the live host is from the set.

    Attributes:
        host: The host that the set was made of.
        reached: Whether it was asked.
        reason: Why it was not; empty if it was.
        at: Its clock, ISO 8601 in UTC; empty if it was not reached.
        position: Its position then, as its flavor says it.
        set_position: The set's, likewise.
        set_ended_at: The moment whose state the set has.
        seconds: From that moment to the host's clock; None if it was not reached.
        transactions: How many transactions the set does not have; None where that is not known.
    """

    host: str
    reached: bool
    reason: str
    at: str
    position: str
    set_position: str
    set_ended_at: str
    seconds: float | None = None
    transactions: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """The report of a drill, as it was filed.

    Attributes:
        directory: Where its files are, on the orchestrator's machine.
        files: SHA-256 of each, by name.
        trend: The drills before this one, as they stand in it.
    """

    directory: str
    files: dict[str, str]
    trend: tuple[report.PastDrill, ...]


@step("verify-isolation", role="recipient", repeat=Repeat.SAFE, needs_server=True, forms=DRILLS)
def verify_isolation(tools: Tools, plan: AnyDrill) -> Findings:
    """See that the restored server does nothing by itself: read-only, no events, no replication.

    Args:
        tools: The door to the recipient.
        plan: The drill.

    Returns:
        The finding.

    Raises:
        VerificationError: It takes writes, runs events, or replicates.

    Repeat:
        Looks again.
    """
    host = tools.config.host(plan.recipient)
    facts = instances.read_instance(tools.recipient, host)
    scheduler = sql.query_row(
        tools.recipient, host, "SELECT @@GLOBAL.event_scheduler AS event_scheduler"
    )["event_scheduler"]
    is_quiet = facts.is_on("read_only") and scheduler != "ON" and not facts.replicates
    return Findings(
        checks=all_good(
            plan.recipient,
            [
                Check(
                    name="server-isolated",
                    host=plan.recipient,
                    ok=is_quiet,
                    evidence=f"read_only={'ON' if facts.is_on('read_only') else 'OFF'}, "
                    f"event_scheduler={scheduler}, "
                    f"{'replicates' if facts.replicates else 'no replication runs'}",
                )
            ],
        )
    )


@step("try-wrong-keys", role="donor", repeat=Repeat.SAFE, forms=(DRILL,))
def try_wrong_keys(tools: Tools, plan: DrillPlan) -> Findings:
    """Try to open the beginning of the set with keys that are not its own, which must fail.

    Its own keys are tried on the same bytes, so that a refusal can have no other reason. All of it
    happens in the orchestrator's memory; the repository's host sees no key. A tool that carries the
    keys itself is let prepare them on the recipient, with a transition key made for this.

    Args:
        tools: The doors to both hosts and to Vault.
        plan: The drill.

    Returns:
        The refusals.

    Raises:
        VerificationError: A wrong key opens it, or the right one does not.
        SecretError: The set's keys were destroyed, or Vault refuses.

    Repeat:
        Makes other wrong keys, and tries again.
    """
    beginning = trial.read_beginning(tools.donor, plan.set_dir)
    own = set_keys.need_identity(tools.vault, tools.config, plan.backup_id)
    checks = [_judge_identity(plan, beginning, own)]
    if flavors.needs_transition_mount(plan):
        sealed = tools.donor.read_file(f"{plan.set_dir}/{transition.BUNDLE}")
        checks.append(_judge_key(plan, sealed, records.read_transition_key(tools, plan)))
    if flavors.tool_carries_keys(plan) and (tried := wrong_key.try_prepare(tools, plan)):
        checks.append(tried)
    return Findings(checks=all_good(plan.donor, checks))


@step("measure-recovery-point", role="source", repeat=Repeat.SAFE, forms=DRILLS)
def measure_recovery_point(tools: Tools, plan: AnyDrill) -> RecoveryPoint:
    """Ask the host that the set was made of how far it has come since.

    A host that is gone is what a drill prepares for: that it cannot be asked is no failure.

    Args:
        tools: The doors to that host and to the recipient.
        plan: The drill.

    Returns:
        The distance in time and transactions.

    Raises:
        VerificationError: The set's own position is not to be understood.
        CommandError: When the stream of a clone ended is not to be read on its donor.

    Repeat:
        Asks again.
    """
    coordinates = stream.read_set_coordinates(tools, plan)
    found = RecoveryPoint(
        host=plan.set_host,
        reached=False,
        reason=f"{plan.set_host} is not configured, or is the scratch host",
        at="",
        position="",
        set_position=_show(coordinates),
        set_ended_at=_read_end(tools, plan),
    )
    if isinstance(plan, DrillPlan) and (not plan.live_host or tools.upstream is None):
        return found
    try:
        return _ask_live_host(tools, plan, found, coordinates)
    except (CancelledError, LockHeldError):
        raise
    except OrchestratorError as error:
        log.get().info("notice", message=f"the donor could not be reached: {error.message}")
        return dataclasses.replace(
            found, reason=f"the donor could not be reached: {log.redact_text(error.message)}"
        )


@step("write-drill-report", role="recipient", repeat=Repeat.SAFE, needs_lock=False,
      values={"evidence": str, "trend": str}, forms=DRILLS)  # fmt: skip
def write_drill_report(
    tools: Tools, plan: AnyDrill, evidence: str = "", trend: str = ""
) -> WrittenReport:
    """Write the report of a drill on the orchestrator's machine, and sum its files up.

    The playbook does not give it its values: they are taken from the journal when the drill has
    ended, and stored with this step, so that the report says what the journal says.

    Args:
        tools: Nothing of it is used; no host is asked.
        plan: The drill.
        evidence: What the drill found, as JSON.
        trend: The drills before it, as JSON.

    Returns:
        Where it is, and the SHA-256 of each file.

    Raises:
        PreconditionError: The directory cannot be written to or has the report of another drill, or
            there is no evidence.
        VerificationError: What stands on disk is not what was written.

    Repeat:
        Writes the same bytes again.
    """
    del tools
    if not evidence or not trend:
        raise PreconditionError(
            "the report of a drill has nothing to tell",
            hint=f"xbvault runs resume {plan.run_id} writes it",
        )
    past = tuple(from_json(report.PastDrill, item) for item in json.loads(trend))
    files = report.render(json.loads(evidence), past)
    directory = Path(plan.report_dir)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_filed(directory, plan)
        for name, content in files.items():
            new = directory / f"{name}.new"
            new.write_bytes(content)
            new.replace(directory / name)
        found = {
            name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in files
        }
    except OSError as error:
        raise PreconditionError(
            f"the report cannot be written to {directory}: {error.strerror}",
            hint=f"mend that, then `xbvault runs resume {plan.run_id}`",
        ) from error
    if found != {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}:
        raise VerificationError(f"what stands in {directory} is not what was written there")
    return WrittenReport(directory=str(directory), files=found, trend=past)


def _refuse_filed(directory: Path, plan: AnyDrill) -> None:
    """Refuse a directory where another drill has filed its report, which nothing may overwrite."""
    filed = directory / report.JSON
    if filed.exists() and (run_id := report.read_run_id(filed.read_bytes())) != plan.run_id:
        raise PreconditionError(
            f"{filed} is the report of {run_id or 'something else'}, and is not overwritten",
            hint=f"move it elsewhere, then `xbvault runs resume {plan.run_id}`",
        )


def _judge_identity(plan: DrillPlan, beginning: bytes, own: Secret) -> Check:
    """Judge whether the beginning of the stream opens with the set's identity, and with no other."""
    wrong, _recipient = keys.new_age_identity()
    by_wrong, by_own = (trial.count_opened(beginning, identity) for identity in (wrong, own))
    return Check(
        name="wrong-identity-refused",
        host=plan.donor,
        ok=not by_wrong and bool(by_own),
        evidence=f"of the first {len(beginning)} bytes, a new identity opens "
        f"{by_wrong or 'none'}, that of the set {by_own or 'none'}",
    )


def _judge_key(plan: DrillPlan, sealed: bytes, own: Secret) -> Check:
    """Judge whether the key bundle opens with the set's transition key, and with no other."""
    by_wrong, by_own = (
        trial.opens_bundle(sealed, key, plan.backup_id) for key in (keys.new_transition_key(), own)
    )
    return Check(
        name="wrong-key-refused",
        host=plan.donor,
        ok=by_own and not by_wrong,
        evidence=f"the key bundle {'opens' if by_wrong else 'does not open'} with a new transition "
        f"key, and {'opens' if by_own else 'does not open'} with that of the set",
    )


def _ask_live_host(
    tools: Tools, plan: AnyDrill, found: RecoveryPoint, coordinates: Coordinates
) -> RecoveryPoint:
    dialect = flavors.dialect_of(plan)
    told = sql.query_all(
        tools.source,
        tools.config.host(plan.source_host),
        {"position": dialect.position_sql, "now": "SELECT UTC_TIMESTAMP(3) AS now"},
    )
    position = dialect.read_position(sql.take_one(told["position"], plan.source_host))
    now = dt.datetime.fromisoformat(sql.take_one(told["now"], plan.source_host)["now"])
    now = now.replace(tzinfo=dt.UTC)
    ended = dt.datetime.fromisoformat(found.set_ended_at)
    return dataclasses.replace(
        found,
        reached=True,
        reason="",
        at=names.format_moment(now),
        position=position,
        seconds=round((now - ended).total_seconds(), 3),
        transactions=dialect.count_transactions(coordinates.gtid, position),
    )


def _read_end(tools: Tools, plan: AnyDrill) -> str:
    """Return the moment whose state the set has: of a clone, when its stream had ended there."""
    if isinstance(plan, DrillPlan):
        return plan.ended_at
    name = plan.job_name(fan_out.SEND, tools.attempt)
    told = tools.donor.run(["stat", "-c", "%Y", "--", f"{jobs.BASE}/jobs/{name}/ended"]).text
    moment = dt.datetime.fromtimestamp(numerals.parse_whole(told.strip()), dt.UTC)
    return names.format_moment(moment)


def _show(coordinates: Coordinates) -> str:
    return coordinates.gtid or f"{coordinates.file}:{coordinates.position}"


def all_good(host: str, checks: list[Check]) -> tuple[Check, ...]:
    """Return the findings of a drill.

    Raises:
        VerificationError: One does not hold.
    """
    bad = [check for check in checks if not check.ok]
    if bad:
        raise VerificationError(
            f"{bad[0].name}: {bad[0].evidence}",
            host=host,
            hint="the drill has failed; do not rely on this set before that is understood",
            problems=[f"{check.name}: {check.evidence}" for check in bad] if len(bad) > 1 else (),
        )
    return tuple(checks)
