"""A drill that has ended, as the journal has it."""

from __future__ import annotations

import dataclasses
from typing import Any

from cli_lab import make_plan

from orchestrator import report, summary
from orchestrator.durable import PartRecord, RunRecord, StepRecord
from orchestrator.models import CloneDrillPlan, DrillPlan

RUN_ID = "20261122T040000Z-replica-1a2b3c4d"
BACKUP_ID = "20261121T210500Z-master-9f8e7d6c"
DIGEST = "ab" * 32
POINT = {
    "host": "master",
    "reached": True,
    "reason": "",
    "at": "2026-11-22T04:00:20.000Z",
    "position": "0-11-800",
    "set_position": "0-11-700",
    "set_ended_at": "2026-11-21T21:10:00.000Z",
    "seconds": 24620.0,
    "transactions": 100,
}
RESULTS: dict[str, dict[str, Any]] = {
    "fetch-backup-set": {"bytes": 4200, "seconds": 1.0},
    "verify-fetched-set": {
        "coordinates": {"file": "bin.000002", "position": 4711, "gtid": "0-11-700"},
        "checks": [
            {
                "name": "stored-parts",
                "ok": True,
                "evidence": "3 parts, 4200 bytes",
                "host": "replica",
            }
        ],
    },
    "verify-backup-set": {
        "coordinates": {"file": "bin.000002", "position": 4711, "gtid": "0-11-700"},
        "checks": [],
    },
    "verify-isolation": {
        "checks": [
            {
                "name": "server-isolated",
                "ok": True,
                "evidence": "read_only=ON, event_scheduler=OFF, no replication runs",
                "host": "replica",
            }
        ]
    },
    "compare-recorded-tables": {
        "recorded": 15,
        "compared": 15,
        "reason": "",
        "checks": [
            {
                "name": "tables-equal",
                "ok": True,
                "evidence": "15 tables equal to the sums in the manifest",
                "host": "replica",
            }
        ],
    },
    "try-wrong-keys": {
        "checks": [
            {
                "name": "wrong-identity-refused",
                "ok": True,
                "evidence": "a new identity opens none",
                "host": "store",
            }
        ]
    },
    "measure-recovery-point": POINT,
    "watch-replication": {
        "source": "master",
        "seconds": 60.2,
        "looks": 61,
        "began_at_position": "0-11-700",
        "reached_position": "0-11-820",
        "source_position": "0-11-821",
        "applied_transactions": 120,
        "missing_transactions": 1,
        "seconds_behind": 0,
        "checks": [
            {
                "name": "replication-running",
                "ok": True,
                "evidence": "from master, both threads at 61 looks in 60 s; 0 s behind at the end",
                "host": "replica",
            }
        ],
    },
}


def make_drill_plan(**changes: Any) -> DrillPlan:
    """Return the plan of a drill on the host replica."""
    plan = make_plan(
        form="drill", run_id=RUN_ID, backup_id=BACKUP_ID, donor="store", replace=True, commands={}
    )
    fields = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    of_set: dict[str, Any] = {
        "set_dir": f"/srv/backups/{BACKUP_ID}",
        "set_host": "master",
        "part_bytes": 4096,
        "parts": 2,
        "stored_bytes": 4200,
        "to_lsn": 4711,
        "ended_at": "2026-11-21T21:10:00.000Z",
        "read_only": True,
        "live_host": "master",
        "keep": False,
        "report_dir": "/var/lib/xbvault/drills/run",
    }
    return DrillPlan(**(fields | of_set | changes))


def make_clone_drill_plan(**changes: Any) -> CloneDrillPlan:
    """Return the plan of the drill of a clone on the host replica."""
    plan = make_plan(
        form="drill-clone", run_id=RUN_ID, backup_id=BACKUP_ID, replace=True, commands={}
    )
    fields = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    return CloneDrillPlan(**(fields | {"report_dir": "/var/lib/xbvault/drills/run"} | changes))


def make_steps(
    until: str = "",
    error: dict[str, Any] | None = None,
    *,
    replicates: bool = False,
    phases: dict[str, tuple[str, ...]] = summary.PHASES,
) -> tuple[StepRecord, ...]:
    """Return the steps of a drill, each a second long.

    Args:
        until: The step that has failed; those behind it were not reached. Empty for none.
        error: Why it failed.
        replicates: Whether it follows the live host for a while.
        phases: What the steps are for.
    """
    names = [
        name
        for phase, steps in phases.items()
        if replicates or phase not in summary.ON_REQUEST
        for name in steps
    ]
    last = names.index(until) if until else len(names)
    return tuple(
        StepRecord(
            index=index,
            name=name,
            status="succeeded" if index < last else "failed" if index == last else "pending",
            began_at=f"2026-11-22T04:00:{index:02d}.000Z" if index <= last else "",
            ended_at=f"2026-11-22T04:00:{index + 1:02d}.000Z" if index <= last else "",
            seconds=1.0 if index <= last else 0.0,
            result=RESULTS.get(name, {}) if index < last else None,
            error=error if index == last else None,
        )
        for index, name in enumerate(names)
    )


def make_report_part(*trend: report.PastDrill) -> PartRecord:
    """Return what the journal has of a report."""
    written = StepRecord(
        index=0,
        name=summary.REPORT_STEP,
        status="succeeded",
        ended_at="2026-11-22T04:01:00.000Z",
        result={
            "directory": "/var/lib/xbvault/drills/run",
            "files": dict.fromkeys(report.FILES, DIGEST),
            "trend": [dataclasses.asdict(past) for past in trend],
        },
    )
    return PartRecord(
        name=f"report:{RUN_ID}",
        kind="report",
        status="succeeded",
        began_at="2026-11-22T04:01:00.000Z",
        ended_at="2026-11-22T04:01:00.000Z",
        steps=(written,),
    )


def make_drill_record(**changes: Any) -> RunRecord:
    """Return the record of a drill that has passed."""
    record = RunRecord(
        run_id=RUN_ID,
        playbook="drill",
        status="succeeded",
        plan=make_drill_plan(),
        playbook_text="name: drill\n",
        flow_version="flow-1",
        began_at="2026-11-22T04:00:00.000Z",
        ended_at="2026-11-22T04:00:30.000Z",
        steps=make_steps(),
    )
    return dataclasses.replace(record, **changes)


PAST = (
    report.PastDrill(
        run_id="20261108T040000Z-replica-00000001",
        backup_id="20261107T210500Z-master-00000001",
        set_host="master",
        began_at="2026-11-08T04:00:00.000Z",
        verdict=report.PASSED,
        answers_sql_seconds=14.5,
        recovery_point_seconds=24000.0,
    ),
    report.PastDrill(
        run_id="20261115T040000Z-replica-00000002",
        backup_id="20261114T210500Z-master-00000002",
        set_host="master",
        began_at="2026-11-15T04:00:00.000Z",
        verdict=report.FAILED,
    ),
)
