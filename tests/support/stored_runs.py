"""Records of backups and restores, as the journal would have them, and their plans."""

from __future__ import annotations

import dataclasses
from typing import Any

from cli_lab import make_plan

from orchestrator.durable import RunRecord, StepRecord
from orchestrator.models import BackupPlan, RestorePlan

CHECK = {"name": "tables-open", "ok": True, "evidence": "all", "host": "db1"}


def make_backup_plan(run_id: str, *, host: str = "db1", repository: str = "store") -> BackupPlan:
    """Return the plan of a backup."""
    return BackupPlan(
        run_id=run_id,
        backup_id=f"set-of-{run_id}",
        donor=host,
        recipient=repository,
        flavor="mariadb",
        server_version="10.11.19",
        donor_mount="keys/db1",
        parallel=2,
        set_dir=f"/srv/xbvault/set-of-{run_id}",
        part_bytes=1 << 20,
    )


def make_restore_plan(run_id: str, *, host: str = "db2", repository: str = "store") -> RestorePlan:
    """Return the plan of a restore."""
    fields = {
        field.name: getattr(make_plan(), field.name)
        for field in dataclasses.fields(make_plan())
        if field.name != "form"
    }
    fields |= {"run_id": run_id, "donor": repository, "recipient": host, "set_host": "db1"}
    more: dict[str, Any] = {"set_dir": "/srv/xbvault/set", "part_bytes": 1, "parts": 1}
    more |= {"stored_bytes": 9, "to_lsn": 1, "ended_at": "2026-11-20T00:00:00Z"}
    return RestorePlan(**(fields | more))


def make_backup(run_id: str, at: str, **changes: Any) -> RunRecord:
    """Return the record of a backup that succeeded, and ended a minute after a moment's begin.

    Args:
        run_id: The run.
        at: Hour of the day, such as ``02``.
        changes: Fields of the record that differ.
    """
    steps = (
        StepRecord(
            index=0,
            name="store-backup",
            status="succeeded",
            seconds=40.5,
            result={"bytes": 1234, "seconds": 40.0},
        ),
        StepRecord(
            index=1,
            name="write-manifest",
            status="succeeded",
            seconds=2.0,
            result={"stored_bytes": 1300},
        ),
    )
    record = RunRecord(
        run_id=run_id,
        playbook="backup",
        status="succeeded",
        plan=make_backup_plan(run_id),
        playbook_text="name: backup\n",
        flow_version="flow-1",
        began_at=f"2026-11-21T{at}:00:00.000Z",
        ended_at=f"2026-11-21T{at}:01:00.000Z",
        steps=steps,
    )
    return dataclasses.replace(record, **changes)


def make_restore(run_id: str, at: str, **changes: Any) -> RunRecord:
    """Return the record of a restore that succeeded."""
    steps = (
        StepRecord(
            index=0,
            name="fetch-backup-set",
            status="succeeded",
            seconds=30.0,
            result={"bytes": 1234, "checks": [CHECK]},
        ),
        StepRecord(index=1, name="swap-datadir", status="succeeded", seconds=1.0),
    )
    made = {"playbook": "restore", "plan": make_restore_plan(run_id), "steps": steps}
    return make_backup(run_id, at, **(made | changes))
