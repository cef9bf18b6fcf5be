"""The documents of ``clone --json`` and ``runs show --json``, built from a run's record. Pure.

Nothing here asks a host: what a run found out stands in the results of its steps.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from orchestrator import errors, models, report, version
from orchestrator.errors import SecretError, VerificationError
from orchestrator.models import (
    AnyDrill,
    BackupPlan,
    Check,
    DrillPlan,
    Plan,
    RestorePlan,
    StoringPlan,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.config import Config
    from orchestrator.durable import PartRecord, RunRecord, StepRecord
    from orchestrator.models import RunPlan

STREAM_STEPS = ("stream-backup", "store-backup", "fetch-backup-set", "copy-stored-set")
SET_STEP = "verify-backup-set"
STORED_STEPS = ("verify-stored-set", "verify-copied-set", "verify-stored-binlogs")
FETCHED_STEP = "verify-fetched-set"
MANIFEST_STEPS = ("write-manifest", "publish-copied-set", "write-archive-manifest")
REPLAY_STEP = "replay-binlogs"
REPLICATION_STEP = "verify-replication"
POINT_STEP = "measure-recovery-point"
SUMS_STEP = "sum-up-tables"
WATCH_STEP = "watch-replication"
COMPARED_STEP = "compare-recorded-tables"
REPORT_STEP = "write-drill-report"
TEAR_DOWN_STEP = "restore-datadir"
PHASES = {
    "look": ("check-restore-preconditions",),
    "fetch": ("fetch-backup-set", "verify-fetched-set"),
    "prepare": ("create-transition-mount", "prepare-backup-set"),
    "move": ("move-backup-set", "stop-server", "swap-datadir"),
    "start": ("start-server",),
    "re-encrypt": ("re-encrypt-tablespaces", "rebuild-aria-tables", "restart-on-own-mount"),
    "verify": (
        "verify-isolation",
        "verify-encryption",
        COMPARED_STEP,
        "verify-key-separation",
        "try-wrong-keys",
        POINT_STEP,
    ),
    "replicate": (
        "create-replication-account",
        "start-replication",
        WATCH_STEP,
        "end-replication",
        "drop-replication-account",
    ),
    "tear down": ("check-latest-swap", TEAR_DOWN_STEP),
}
"""What the steps of a drill are for; with the end of ``start``, the server answers SQL."""
CLONE_PHASES = PHASES | {
    "look": ("check-preconditions",),
    "fetch": (
        "create-transition-key",
        "stream-backup",
        SET_STEP,
        "seal-key-bundle",
    ),
}
"""The same of the drill of a clone."""
ANSWERS, PROVED = "start", "verify"
ON_REQUEST = ("replicate",)
"""Phases that only some drills have, and only their documents tell of."""
ALWAYS = tuple(name for name in PHASES if name not in ON_REQUEST)
"""Those of every drill."""
TIMED_STEPS = ("fetch-backup-set", "stream-backup", "prepare-backup-set", "re-encrypt-tablespaces")
"""Steps whose result says how long their work took, under ``seconds``. After a resume that is more
than the journal's time: the work went on by itself, and the journal has the last try alone."""
DONE, NOT_REACHED = "done", "not reached"

CHECKS = (
    "stream-exit-statuses",
    "backup-completed",
    "stream-bytes",
    "binlogs-whole",
    "closing-files",
    "checkpoints",
    "stored-parts",
    "increments",
    "sealed-keys",
    "encrypted-files",
    "coordinates",
    "tables-open",
    "tablespaces-encrypted",
    "tablespaces-own-key",
    "server-on-own-mount",
    "tables-equal",
    "replication-running",
    "replication-advancing",
    "replication-encrypted",
    "donor-mount-refused",
    "keys-not-shared",
    "server-answers",
    "binlogs-replayed",
    "server-isolated",
    "wrong-identity-refused",
    "wrong-key-refused",
    "tables-summed",
)
"""The checks of clones, backups, restores and drills in their order. Scripts rely on the names: none is
changed or taken away, and ``docs/reference/checks.md`` says what each means."""


def build_empty_document() -> dict[str, Any]:
    """Return the document of a run that did not begin; every key is there."""
    return {
        "run_id": "",
        "backup_id": "",
        "status": "",
        "seconds": {"total": 0.0},
        "bytes_streamed": 0,
        "transfer": None,
        "coordinates": None,
        "replication": None,
        "checks": [],
        "error": None,
    }


def build_empty_backup_document() -> dict[str, Any]:
    """Return the document of a backup that did not begin; every key is there."""
    return {
        "run_id": "",
        "backup_id": "",
        "status": "",
        "seconds": {"total": 0.0},
        "repository": "",
        "folder": "",
        "base_backup_id": None,
        "bytes_streamed": 0,
        "stored_bytes": 0,
        "part_count": 0,
        "transfer": None,
        "coordinates": None,
        "tables_summed": None,
        "checks": [],
        "error": None,
    }


def build_empty_restore_document() -> dict[str, Any]:
    """Return the document of a restore that did not begin; every key is there."""
    return {
        "run_id": "",
        "backup_id": "",
        "status": "",
        "seconds": {"total": 0.0},
        "repository": "",
        "set_host": "",
        "set_ended_at": "",
        "base_backup_ids": [],
        "bytes_streamed": 0,
        "transfer": None,
        "coordinates": None,
        "replayed": None,
        "replication": None,
        "tables_compared": None,
        "checks": [],
        "error": None,
    }


def build_empty_drill_document() -> dict[str, Any]:
    """Return the document of a drill that did not begin; every key is there."""
    return {
        "run_id": "",
        "backup_id": "",
        "status": "",
        "verdict": "",
        "seconds": {"total": 0.0},
        "repository": "",
        "set_host": "",
        "set_ended_at": "",
        "host": "",
        "flavor": "",
        "server_version": "",
        "xbvault_version": version(),
        "began_at": "",
        "ended_at": "",
        "kept": False,
        "torn_down": False,
        "bytes_streamed": 0,
        "transfer": None,
        "coordinates": None,
        "phases": describe_phases(()),
        "recovery_time": {"answers_sql_seconds": None, "proved_seconds": None},
        "recovery_point": None,
        "tables_compared": None,
        "replication": None,
        "checks": [],
        "trend": [],
        "report": None,
        "error": None,
    }


def build_drill_document(record: RunRecord) -> dict[str, Any]:
    """Return what ``drill --json`` ends with; the report has the same, but for itself."""
    plan = record.plan
    if not isinstance(plan, AnyDrill):
        raise TypeError(f"run {record.run_id} is no drill")
    is_of_set = isinstance(plan, DrillPlan)
    phases = describe_phases(record.steps, PHASES if is_of_set else CLONE_PHASES)
    point = _find_result(record.steps, POINT_STEP)
    written = find_report(record) or {}
    torn_down = (*record.steps, *(step for part in record.parts for step in part.steps))
    ends = [step.ended_at for step in torn_down if step.name != REPORT_STEP]
    return {
        "run_id": record.run_id,
        "backup_id": plan.backup_id,
        "status": record.status,
        "verdict": judge_drill(record),
        "seconds": read_seconds(record),
        "repository": plan.donor if is_of_set else "",
        "set_host": plan.set_host,
        "set_ended_at": plan.ended_at
        if isinstance(plan, DrillPlan)
        else (point or {}).get("set_ended_at", ""),
        "host": plan.recipient,
        "flavor": plan.flavor,
        "server_version": plan.server_version,
        "xbvault_version": version(),
        "began_at": record.began_at,
        "ended_at": max(ends, default=""),
        "kept": plan.keep,
        "torn_down": any(
            step.name == TEAR_DOWN_STEP and step.status == "succeeded" for step in torn_down
        ),
        "bytes_streamed": read_streamed_bytes(record.steps),
        "transfer": read_transfer(record.steps),
        "coordinates": _find_any(record.steps, (FETCHED_STEP, SET_STEP), "coordinates"),
        "phases": phases,
        "recovery_time": {
            "answers_sql_seconds": _find_phase_end(phases, ANSWERS),
            "proved_seconds": _find_phase_end(phases, PROVED),
        },
        "recovery_point": point,
        "tables_compared": _describe_compared(record.steps),
        "replication": _describe_watched(record.steps),
        "checks": [models.as_json(check) for check in collect_checks(record.steps)],
        "trend": written.get("trend", []),
        "report": {key: written[key] for key in ("directory", "files")} if written else None,
        "error": record.error,
    }


def build_evidence(record: RunRecord) -> dict[str, Any]:
    """Return what the report of a drill tells: all of its document but the report and the trend."""
    document = build_drill_document(record)
    return {key: value for key, value in document.items() if key not in ("trend", "report")}


def build_past_drill(record: RunRecord) -> report.PastDrill:
    """Return a drill as the trend of a later one shows it."""
    document = build_drill_document(record)
    return report.PastDrill(
        run_id=record.run_id,
        backup_id=document["backup_id"],
        set_host=document["set_host"],
        began_at=record.began_at,
        verdict=document["verdict"],
        answers_sql_seconds=document["recovery_time"]["answers_sql_seconds"],
        recovery_point_seconds=(document["recovery_point"] or {}).get("seconds"),
    )


def find_report(record: RunRecord) -> dict[str, Any] | None:
    """Return what the journal says of a drill's report; None if none was written."""
    steps = [step for part in record.parts for step in part.steps if step.name == REPORT_STEP]
    return _find_result(steps, REPORT_STEP)


def is_verdict(error: dict[str, Any] | None) -> bool:
    """Return whether an error says something against a set or its keys, which no retry mends."""
    found = errors.from_json(error) if error else None
    return isinstance(found, VerificationError | SecretError) and not found.transient


def judge_drill(record: RunRecord) -> str:
    """Return the verdict of a drill: empty while it is under way."""
    checks = collect_checks(record.steps)
    if is_verdict(record.error) or not all(check.ok for check in checks):
        return report.FAILED
    if checks and all(step.status == "succeeded" for step in _latest(record.steps)):
        return report.PASSED
    return report.INCOMPLETE if record.status in ("failed", "cancelled") else ""


def describe_phases(
    steps: Sequence[StepRecord], wanted: dict[str, tuple[str, ...]] = PHASES
) -> list[dict[str, Any]]:
    """Return the phases of a drill with the time at work in each, and before it.

    Of a step that a resume did again, that is the time of its last try, or that of its work if it is
    longer; every round of a step that the run went back to counts.
    """
    phases: list[dict[str, Any]] = []
    latest = {step.name: step.status for step in steps}
    offset = 0.0
    for name, parts in wanted.items():
        if name in ON_REQUEST and not any(step.name in parts for step in steps):
            continue
        begun = [step for step in steps if step.name in parts and step.status != "pending"]
        seconds = round(sum(_read_work(step) for step in begun), 3)
        named = [latest[part] for part in parts if part in latest]
        status = DONE if named and set(named) == {"succeeded"} else "failed"
        if not begun:
            status = NOT_REACHED
        elif {"running", "pending"} & set(named) and "failed" not in named:
            status = "running"
        phases.append(
            {
                "name": name,
                "status": status,
                "began_at": begun[0].began_at if begun else "",
                "offset_seconds": round(offset, 3),
                "seconds": seconds,
            }
        )
        offset += seconds
    return phases


def _read_work(step: StepRecord) -> float:
    """Return how long a step was at work, by the journal or by its own result."""
    told = (step.result or {}).get("seconds") if step.name in TIMED_STEPS else None
    return max(step.seconds, float(told or 0.0))


def _find_phase_end(phases: Sequence[dict[str, Any]], name: str) -> float | None:
    for phase in phases:
        if phase["name"] == name and phase["status"] == DONE:
            end: float = phase["offset_seconds"] + phase["seconds"]
            return round(end, 3)
    return None


def _latest(steps: Sequence[StepRecord]) -> Iterable[StepRecord]:
    """Return the last round of each step."""
    return {step.name: step for step in steps}.values()


def build_document(record: RunRecord) -> dict[str, Any]:
    """Return what ``--json`` of a clone, a backup, a restore or a drill ends with."""
    if isinstance(record.plan, AnyDrill):
        return build_drill_document(record)
    if isinstance(record.plan, RestorePlan):
        return {
            "run_id": record.run_id,
            "backup_id": record.plan.backup_id,
            "status": record.status,
            "seconds": read_seconds(record),
            "repository": record.plan.donor,
            "set_host": record.plan.set_host,
            "set_ended_at": record.plan.ended_at,
            "base_backup_ids": [each.backup_id for each in record.plan.bases],
            "bytes_streamed": read_streamed_bytes(record.steps),
            "transfer": read_transfer(record.steps),
            "coordinates": _find(record.steps, FETCHED_STEP, "coordinates"),
            "replayed": _describe_replay(record.steps),
            "replication": _find(record.steps, REPLICATION_STEP, "replication"),
            "tables_compared": _describe_compared(record.steps),
            "checks": [models.as_json(check) for check in collect_checks(record.steps)],
            "error": record.error,
        }
    if isinstance(record.plan, StoringPlan):
        return {
            "run_id": record.run_id,
            "backup_id": record.plan.backup_id,
            "status": record.status,
            "seconds": read_seconds(record),
            "repository": record.plan.recipient,
            "folder": record.plan.set_dir,
            "base_backup_id": (record.plan.base_backup_id or None)
            if isinstance(record.plan, BackupPlan)
            else None,
            "bytes_streamed": read_streamed_bytes(record.steps),
            "stored_bytes": int(_find_any(record.steps, MANIFEST_STEPS, "stored_bytes") or 0),
            "part_count": int(_find_any(record.steps, STORED_STEPS, "parts") or 0),
            "transfer": read_transfer(record.steps),
            "coordinates": _find_any(record.steps, STORED_STEPS, "coordinates"),
            "tables_summed": _describe_sums(record.steps),
            "checks": [models.as_json(check) for check in collect_checks(record.steps)],
            "error": record.error,
        }
    return {
        "run_id": record.run_id,
        "backup_id": record.plan.backup_id,
        "status": record.status,
        "seconds": read_seconds(record),
        "bytes_streamed": read_streamed_bytes(record.steps),
        "transfer": read_transfer(record.steps),
        "coordinates": _find(record.steps, SET_STEP, "coordinates"),
        "replication": _find(record.steps, REPLICATION_STEP, "replication"),
        "checks": [models.as_json(check) for check in collect_checks(record.steps)],
        "error": record.error,
    }


def _describe_replay(steps: Sequence[StepRecord]) -> dict[str, Any] | None:
    """Return up to where binary logs were replayed; None where none were."""
    names = ("at", "gtid", "logs")
    found = {name: _find(steps, REPLAY_STEP, name) for name in names}
    return found if found["at"] else None


def _describe_sums(steps: Sequence[StepRecord]) -> dict[str, Any] | None:
    """Return which tables a backup has summed up; None where none were asked for."""
    found = _find_result(steps, SUMS_STEP)
    if not found or not (found["recorded"] or found["reason"]):
        return None
    return {key: found[key] for key in ("recorded", "left_out", "reason")}


def _describe_compared(steps: Sequence[StepRecord]) -> dict[str, Any] | None:
    """Return how many tables were compared with the manifest; None where it did not come to that."""
    found = _find_result(steps, COMPARED_STEP)
    return {key: found[key] for key in ("recorded", "compared", "reason")} if found else None


def _describe_watched(steps: Sequence[StepRecord]) -> dict[str, Any] | None:
    """Return how replication from the live host went; None where it did not come to that."""
    found = _find_result(steps, WATCH_STEP)
    return {key: value for key, value in found.items() if key != "checks"} if found else None


def build_group_document(
    group: str, records: Sequence[RunRecord], *, status: str = ""
) -> dict[str, Any]:
    """Return what ``clone --json`` with several recipients ends with.

    Args:
        group: The name that the runs share.
        records: The runs that began.
        status: ``succeeded``, ``partial`` or ``failed``; empty before the runs begin.
    """
    return {
        "group": group,
        "backup_id": group,
        "status": status,
        "runs": [build_document(record) for record in records],
        "checks": [],
        "error": None,
    }


def build_full_document(
    record: RunRecord, progress: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Return what ``runs show --json`` prints: the same keys, and those of a run under way.

    Args:
        record: The run.
        progress: How far the step is that runs, as its events told last, one entry for each host.
    """
    return {
        **build_document(record),
        "progress": list(progress),
        "steps": [describe_step(step) for step in record.steps],
        "parts": [describe_part(part) for part in record.parts],
    }


def build_plan_document(
    plan: RunPlan,
    vault_paths: dict[str, str],
    steps: Sequence[dict[str, Any]],
    checks: Sequence[Check],
) -> dict[str, Any]:
    """Return what ``clone --plan --json`` prints.

    Args:
        plan: The plan.
        vault_paths: Where the run will write in Vault, as `list_vault_paths` gives it.
        steps: Name, role and summary of every step.
        checks: What the preflight found.
    """
    return {
        "run_id": plan.run_id,
        "backup_id": plan.backup_id,
        "status": "planned",
        "plan": models.as_json(plan),
        "vault_paths": vault_paths,
        "steps": [
            {**step, "commands": list(plan.commands.get(step["name"], ()))} for step in steps
        ],
        "checks": [models.as_json(check) for check in checks],
        "error": None,
    }


def list_vault_paths(config: Config, plan: RunPlan) -> dict[str, str]:
    """Return the places in Vault that a run reads or writes, by what they are for."""
    vault = config.vault
    if not isinstance(plan, Plan):
        return {
            "donor_keys": plan.donor_mount,
            "set_keys": f"{vault.mount}/{plan.key_path}",
            "stream_credential": vault.ssh_mount,
        }
    return {
        "donor_keys": plan.donor_mount,
        "own_keys": plan.own_mount,
        "transition_keys": f"{vault.mount}/{plan.key_path}",
        "transition_mount": f"{vault.transition_mount}/{plan.recipient}/{plan.run_id}",
        "replication_account": f"{vault.mount}/{plan.account_path}",
        "stream_credential": vault.ssh_mount,
    }


def build_list_item(record: RunRecord) -> dict[str, Any]:
    """Return one entry of ``runs list --json``."""
    return {
        "run_id": record.run_id,
        "playbook": record.playbook,
        "donor": record.plan.donor,
        "recipient": record.plan.recipient,
        "status": record.status,
        "began_at": record.began_at,
        "ended_at": record.ended_at,
        "seconds": read_elapsed(record),
    }


def read_seconds(record: RunRecord) -> dict[str, float]:
    """Return the time of every step that began, and their sum as ``total``.

    A step that was done again after the run went back counts with all its attempts. The total is
    not the time on the clock: a run that lay interrupted overnight did not work then.
    """
    seconds: dict[str, float] = {}
    for step in record.steps:
        if step.status != "pending":
            seconds[step.name] = round(seconds.get(step.name, 0.0) + step.seconds, 3)
    return {**seconds, "total": round(sum(seconds.values()), 3)}


def read_streamed_bytes(steps: Sequence[StepRecord]) -> int:
    """Return the bytes that the last stream moved; 0 if none ended."""
    return int(_find_any(steps, STREAM_STEPS, "bytes") or 0)


def read_transfer(steps: Sequence[StepRecord]) -> dict[str, Any] | None:
    """Return the last stream that ended, what limited it, and the figures of that.

    A journal of an earlier version has bytes and seconds alone; every key is there all the same.
    """
    ended = [
        step.result for step in steps if step.name in STREAM_STEPS and step.status == "succeeded"
    ]
    found = ended[-1] if ended else None
    if not found or "bytes" not in found:
        return None
    size, seconds = int(found["bytes"]), float(found.get("seconds") or 0.0)
    return {
        "bytes": size,
        "seconds": seconds,
        "bytes_per_second": round(size / seconds) if seconds > 0 else 0,
        "bottleneck": found.get("bottleneck") or "",
        "evidence": found.get("evidence") or "",
        "cpu_seconds": found.get("cpu_seconds") or {},
        "held_up_share": found.get("held_up_share"),
        "connection": found.get("connection"),
    }


def read_elapsed(record: RunRecord) -> float | None:
    """Return the time on the clock from begin to end; None while the run has not ended."""
    if not (record.began_at and record.ended_at):
        return None
    began, ended = (dt.datetime.fromisoformat(at) for at in (record.began_at, record.ended_at))
    return round((ended - began).total_seconds(), 3)


def describe_step(step: StepRecord) -> dict[str, Any]:
    """Return a step as a document."""
    return {
        "index": step.index,
        "name": step.name,
        "status": step.status,
        "attempt": step.attempt,
        "began_at": step.began_at,
        "ended_at": step.ended_at,
        "seconds": round(step.seconds, 3),
        "result": step.result,
        "error": step.error,
    }


def describe_part(part: PartRecord) -> dict[str, Any]:
    """Return a part of a run (its clean-up, its undo) as a document."""
    return {
        "name": part.name,
        "kind": part.kind,
        "status": part.status,
        "began_at": part.began_at,
        "ended_at": part.ended_at,
        "steps": [describe_step(step) for step in part.steps],
        "error": part.error,
    }


def collect_checks(steps: Iterable[StepRecord]) -> tuple[Check, ...]:
    """Return the findings of all steps in their order.

    A later finding of the same name on the same host takes the place of the earlier one: the
    preflight's answer is out of date when a step has asked again.
    """
    found: dict[tuple[str, str], Check] = {}
    for step in steps:
        for item in (step.result or {}).get("checks") or ():
            check = models.from_json(Check, item)
            found[check.name, check.host] = check
    return tuple(found.values())


def _find_any(steps: Sequence[StepRecord], names: Sequence[str], key: str) -> Any:
    """Return what one of several steps recorded last under a key."""
    return next((found for name in names if (found := _find(steps, name, key))), None)


def _find(steps: Sequence[StepRecord], name: str, key: str) -> Any:
    """Return what a step recorded last under a key; None if it did not come to that."""
    for step in reversed(steps):
        if step.name == name and key in (step.result or {}):
            return (step.result or {})[key]
    return None


def _find_result(steps: Sequence[StepRecord], name: str) -> dict[str, Any] | None:
    """Return what a step recorded last; None if it did not end well."""
    ended = [step.result for step in steps if step.name == name and step.status == "succeeded"]
    return ended[-1] if ended else None
