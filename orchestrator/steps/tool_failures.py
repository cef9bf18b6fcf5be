"""What a failure of a backup tool means that carries the keys itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import flavors, log
from orchestrator.errors import (
    CommandError,
    OrchestratorError,
    PreconditionError,
    SecretError,
    SecretStoreUnavailableError,
    VerificationError,
)
from orchestrator.facts import hosts
from orchestrator.flavors import mysql_output
from orchestrator.flavors.mysql_output import Phase, ToolCause

if TYPE_CHECKING:
    from orchestrator.jobs import JobState
    from orchestrator.models import Plan
    from orchestrator.steps.registry import Tools

FULL_BYTES = 4_000_000
"""A filesystem with less room than that is full: the tool writes pages of many kilobytes."""
_CLASSES: dict[ToolCause, type[OrchestratorError]] = {
    ToolCause.WRONG_TRANSITION_KEY: VerificationError,
    ToolCause.NO_TRANSITION_KEY: VerificationError,
    ToolCause.NO_KEYS_FILE: VerificationError,
    ToolCause.CRASHED: VerificationError,
    ToolCause.STREAM_CUT: VerificationError,
    ToolCause.VAULT_UNAVAILABLE: SecretStoreUnavailableError,
    ToolCause.VAULT_CERTIFICATE: SecretError,
    ToolCause.VAULT_DENIES: SecretError,
    ToolCause.KEY_NOT_IN_KEYRING: SecretError,
    ToolCause.KEYRING_CONFIG: PreconditionError,
    ToolCause.KEYRING_MISSING: PreconditionError,
    ToolCause.WRONG_TOOL: PreconditionError,
}
"""Causes that are not the host's: who must act is told by the exit status."""
_BAD_SETS = (
    ToolCause.WRONG_TRANSITION_KEY,
    ToolCause.NO_TRANSITION_KEY,
    ToolCause.NO_KEYS_FILE,
    ToolCause.STREAM_CUT,
)
"""Causes that are in the set, so that the same set will never do."""

NEW_RUN = "`xbvault runs cancel`, then begin a new run; the earlier data was not touched"


def explain_failure(
    tools: Tools, plan: Plan, state: JobState, phase: Phase
) -> OrchestratorError | None:
    """Return what a tool's failure on the recipient means; None where its words do not tell it.

    On a full disk it may say anything, such as that there is no key, so the room is looked at.
    """
    if not flavors.of(plan).carries_keys or not any(state.statuses):
        return None
    found = mysql_output.explain_tool_failure(state.stderr, phase)
    message = f"{flavors.of(plan).own.backup} failed: {log.redact_text(found.words)}"
    facts = hosts.read_host(tools.recipient, tools.config.host(plan.recipient))
    if facts.parent_free_bytes < FULL_BYTES:
        return CommandError(
            message,
            host=plan.recipient,
            hint=f"free space on {plan.recipient}'s filesystem, then `xbvault runs resume`",
            status=next(status for status in state.statuses if status),
            stderr=log.redact_text(state.stderr),
        )
    cls = _CLASSES.get(found.cause)
    if cls is None:
        return None
    then = NEW_RUN if found.cause in _BAD_SETS else "then `xbvault runs resume`"
    return cls(message, host=plan.recipient, hint=f"{found.hint}; {then}")
