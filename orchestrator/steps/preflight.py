"""Steps that look before anything is changed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import log
from orchestrator.errors import VerificationError
from orchestrator.facts import bases, binlogs, preflight, stores, survey
from orchestrator.models import ARCHIVE, BACKUP, CLONES, COPY, RESTORES, BackupPlan, DrillPlan
from orchestrator.repository import deployment, store
from orchestrator.steps import recorded_sums
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import (
        ArchivePlan,
        Check,
        CopyPlan,
        Plan,
        RestorePlan,
        StoringPlan,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preflight:
    """What preflight found.

    Attributes:
        findings: Every finding; all of them good.
        seconds_ago: How long before that they were asked for, by the process that began the run; 0
            where the step asked for them itself.
    """

    findings: tuple[Check, ...]
    seconds_ago: float = 0.0


@step("check-preconditions", role="both", repeat=Repeat.SAFE, needs_lock=False, forms=CLONES)
def check_preconditions(tools: Tools, plan: Plan) -> Preflight:
    """Find everything that would stop the clone, before anything is changed.

    What the process that begins the run has found in the seconds before is taken as it is, if servers,
    the recipient's data directory, its lock and the token are as they were.

    Args:
        tools: The doors to both hosts and to Vault.
        plan: The clone.

    Returns:
        All findings.

    Raises:
        RemoteError: A host cannot be read.
        SecretError: Vault refuses or lacks something.
        PreconditionError: A host is not in the state that a clone needs; all of it is listed.

    Repeat:
        Changes nothing, ever.
    """
    look = tools.look
    if look is not None and look.still_holds(tools.vault, tools.donor, tools.recipient):
        seconds = round(look.seconds_ago, 1)
        log.get().info("step.unchanged", reason=f"all of it was found {seconds} s ago")
        return Preflight(findings=look.findings, seconds_ago=seconds)
    request = preflight.Request(
        donor=plan.donor,
        recipient=plan.recipient,
        run_id=plan.run_id,
        backup_id=plan.backup_id,
        replace=plan.replace,
        require_encryption=plan.require_encryption,
        source=plan.source,
        coordinates=plan.coordinates,
        compress=plan.compress,
        throttle=plan.throttle,
        nice=plan.nice,
        relay=plan.relay,
        group_runs=plan.group_runs,
    )
    seen = survey.read_survey(
        tools.config,
        tools.vault,
        tools.donor,
        tools.recipient,
        run_id=plan.run_id,
        backup_id=plan.backup_id,
        source=tools.upstream,
    )
    findings = preflight.judge(seen, tools.config, request)
    preflight.raise_for(findings, seen.errors)
    return Preflight(findings=findings)


@step(
    "check-backup-preconditions",
    role="both",
    repeat=Repeat.SAFE,
    needs_lock=False,
    forms=(BACKUP,),
)
def check_backup_preconditions(tools: Tools, plan: BackupPlan) -> Preflight:
    """Find everything that would stop the backup, before anything is changed.

    Args:
        tools: The doors to the donor, to the repository's host and to Vault.
        plan: The backup.

    Returns:
        All findings.

    Raises:
        RemoteError: A host cannot be read.
        SecretError: Vault refuses or lacks something.
        PreconditionError: A host is not in the state that a backup needs; all of it is listed.

    Repeat:
        Changes nothing, ever.
    """
    seen = stores.read_store_survey(
        tools.config,
        tools.vault,
        tools.donor,
        tools.recipient,
        lock_dir=plan.lock_dir,
        backup_id=plan.backup_id,
    )
    base = None
    if plan.base_backup_id and seen.donor.instance:
        made = deployment.need_deployment(tools.vault, tools.config)
        directory = plan.set_dir.rpartition("/")[0]
        document = store.read_manifest(tools.recipient, directory, plan.base_backup_id, made)
        base = bases.read_base(tools.config, tools.donor, document)
    findings = preflight.judge_backup(seen, tools.config, _storing_request(plan), base=base)
    preflight.raise_for(findings, seen.errors)
    return Preflight(findings=findings)


def _storing_request(plan: StoringPlan) -> preflight.Request:
    return preflight.Request(
        form=plan.form,
        donor=plan.donor,
        recipient=plan.recipient,
        run_id=plan.run_id,
        backup_id=plan.backup_id,
        replace=False,
        require_encryption=False,
        compress=plan.compress,
        throttle=plan.throttle,
        nice=plan.nice,
        relay=plan.relay,
        checksums=plan.checksums if isinstance(plan, BackupPlan) else recorded_sums.NONE,
        is_incremental=isinstance(plan, BackupPlan) and bool(plan.base_backup_id),
    )


@step(
    "check-archive-preconditions",
    role="both",
    repeat=Repeat.SAFE,
    needs_lock=False,
    forms=(ARCHIVE,),
)
def check_archive_preconditions(tools: Tools, plan: ArchivePlan) -> Preflight:
    """Find everything that would stop the archive of binary logs, before anything is changed.

    Args:
        tools: The doors to the donor, to the repository's host and to Vault.
        plan: The archive.

    Returns:
        All findings.

    Raises:
        RemoteError: A host cannot be read.
        SecretError: Vault refuses or lacks something.
        PreconditionError: A host is not in the state that an archive needs, or the first log is not
            there any more; all of it is listed.

    Repeat:
        Changes nothing, ever.
    """
    seen = stores.read_store_survey(
        tools.config,
        tools.vault,
        tools.donor,
        tools.recipient,
        lock_dir=plan.lock_dir,
        backup_id=plan.backup_id,
    )
    logs, problem = None, ""
    if seen.donor.instance:
        logs = binlogs.read_binlogs(tools.donor, tools.config.host(plan.donor))
        if plan.first_log not in logs.names:
            problem = f"binary log {plan.first_log} is not on {plan.donor} any more"
    findings = preflight.judge_archive(
        seen,
        tools.config,
        _storing_request(plan),
        logs=logs,
        first_log=plan.first_log,
        problem=problem,
    )
    preflight.raise_for(findings, seen.errors)
    return Preflight(findings=findings)


@step(
    "check-restore-preconditions",
    role="both",
    repeat=Repeat.SAFE,
    needs_lock=False,
    forms=RESTORES,
)
def check_restore_preconditions(tools: Tools, plan: RestorePlan) -> Preflight:
    """Find everything that would stop the restore, before anything is changed.

    Args:
        tools: The doors to the repository's host, to the recipient and to Vault.
        plan: The restore.

    Returns:
        All findings.

    Raises:
        RemoteError: A host cannot be read.
        SecretError: Vault refuses, or has no keys of the set any more.
        PreconditionError: A host or the set is not in the state that a restore needs; all of it is
            listed.
        VerificationError: The manifest of the set is not ours any more; of a drill, too, that the set
            is not whole.

    Repeat:
        Changes nothing, ever.
    """
    request = preflight.Request(
        form=plan.form,
        donor=plan.donor,
        recipient=plan.recipient,
        run_id=plan.run_id,
        backup_id=plan.backup_id,
        replace=plan.replace,
        require_encryption=False,
        source=plan.source,
        coordinates=plan.coordinates,
        throttle=plan.throttle,
        set_host=plan.set_host,
        flavor=tools.config.host(plan.recipient).flavor,
    )
    report = stores.read_report(tools.config, tools.vault, tools.donor, plan.backup_id)
    if report.manifest is None:
        raise VerificationError(
            f"backup set {plan.backup_id} cannot be restored: {report.problems[0]}",
            host=plan.donor,
            hint="`xbvault backups list` shows those that can",
        )
    if isinstance(plan, DrillPlan) and not report.state.is_restorable:
        # Of a drill it is not a refusal but the answer.
        raise VerificationError(
            f"backup set {plan.backup_id} is not whole: {report.problems[0]}",
            host=plan.donor,
            hint="do not rely on it: take another backup, or bring back what is missing",
            problems=report.problems,
        )
    seen = stores.read_restore_survey(
        tools.config,
        tools.vault,
        tools.donor,
        tools.recipient,
        run_id=plan.run_id,
        backup_id=plan.backup_id,
        source=tools.upstream if plan.makes_account else None,
    )
    findings = preflight.judge_restore(
        seen,
        tools.config,
        request,
        document=report.manifest,
        report=report,
        key_problem=stores.read_key_problem(
            tools.config, tools.vault, *(each.backup_id for each in plan.chain)
        ),
        bases=plan.bases,
        replay=plan.replay,
    )
    preflight.raise_for(findings, seen.errors)
    return Preflight(findings=findings)


@step("check-copy-preconditions", role="both", repeat=Repeat.SAFE, needs_lock=False, forms=(COPY,))
def check_copy_preconditions(tools: Tools, plan: CopyPlan) -> Preflight:
    """Find everything that would stop the copy, before anything is changed.

    Args:
        tools: The doors to the hosts of both repositories and to Vault.
        plan: The copy.

    Returns:
        All findings.

    Raises:
        RemoteError: A host cannot be read.
        SecretError: Vault refuses or lacks something.
        PreconditionError: A host or the set is not in the state that a copy needs.

    Repeat:
        Changes nothing, ever.
    """
    request = preflight.Request(
        form=plan.form,
        donor=plan.donor,
        recipient=plan.recipient,
        run_id=plan.run_id,
        backup_id=plan.backup_id,
        replace=False,
        require_encryption=False,
        throttle=plan.throttle,
    )
    report = stores.read_report(tools.config, tools.vault, tools.donor, plan.backup_id)
    seen = stores.read_copy_survey(
        tools.config,
        tools.vault,
        tools.donor,
        tools.recipient,
        lock_dir=plan.lock_dir,
        backup_id=plan.backup_id,
    )
    is_there = tools.recipient.run(["test", "-e", plan.set_dir], check=False).status == 0
    directory = plan.set_dir.rpartition("/")[0]
    findings = preflight.judge_copy(
        seen,
        tools.config,
        request,
        report=report,
        is_there=is_there,
        lacks=stores.find_lacking_base(tools.recipient, directory, report),
    )
    preflight.raise_for(findings, seen.errors)
    return Preflight(findings=findings)
