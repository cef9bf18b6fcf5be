"""Steps that look before anything is changed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator.facts import preflight, survey
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import Check, Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preflight:
    """What preflight found.

    Attributes:
        findings: Every finding; all of them good.
    """

    findings: tuple[Check, ...]


@step("check-preconditions", role="both", repeat=Repeat.SAFE, needs_lock=False)
def check_preconditions(tools: Tools, plan: Plan) -> Preflight:
    """Find everything that would stop the clone, before anything is changed.

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
