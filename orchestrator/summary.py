"""The documents of ``clone --json`` and ``runs show --json``, built from a run's record. Pure.

Nothing here asks a host: what a run found out stands in the results of its steps.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from orchestrator import models
from orchestrator.models import Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.config import Config
    from orchestrator.durable import PartRecord, RunRecord, StepRecord
    from orchestrator.models import Plan

STREAM_STEP = "stream-backup"
SET_STEP = "verify-backup-set"
REPLICATION_STEP = "verify-replication"

CHECKS = (
    "stream-exit-statuses",
    "backup-completed",
    "stream-bytes",
    "closing-files",
    "checkpoints",
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
)
"""The checks of a clone in their order. Scripts rely on the names: none is changed or taken away,
and ``docs/reference/checks.md`` says what each means."""


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


def build_document(record: RunRecord) -> dict[str, Any]:
    """Return what ``clone --json`` ends with."""
    return {
        "run_id": record.run_id,
        "backup_id": record.plan.backup_id,
        "status": record.status,
        "seconds": read_seconds(record),
        "bytes_streamed": int(_find(record.steps, STREAM_STEP, "bytes") or 0),
        "transfer": read_transfer(record.steps),
        "coordinates": _find(record.steps, SET_STEP, "coordinates"),
        "replication": _find(record.steps, REPLICATION_STEP, "replication"),
        "checks": [models.as_json(check) for check in collect_checks(record.steps)],
        "error": record.error,
    }


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
    plan: Plan,
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


def list_vault_paths(config: Config, plan: Plan) -> dict[str, str]:
    """Return the places in Vault that a run reads or writes, by what they are for."""
    vault = config.vault
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


def read_transfer(steps: Sequence[StepRecord]) -> dict[str, Any] | None:
    """Return the last stream that ended, what limited it, and the figures of that.

    A journal of an earlier version has bytes and seconds alone; every key is there all the same.
    """
    ended = [
        step.result for step in steps if step.name == STREAM_STEP and step.status == "succeeded"
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


def _find(steps: Sequence[StepRecord], name: str, key: str) -> Any:
    """Return what a step recorded last under a key; None if it did not come to that."""
    for step in reversed(steps):
        if step.name == name and key in (step.result or {}):
            return (step.result or {})[key]
    return None
