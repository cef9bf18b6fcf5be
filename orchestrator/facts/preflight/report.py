"""Findings as the error that a run ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import LockHeldError, OrchestratorError, PreconditionError, SecretError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.models import Check


def raise_for(checks: tuple[Check, ...], errors: Iterable[OrchestratorError] = ()) -> None:
    """Raise when a finding is bad, with all bad ones listed.

    Raises:
        RemoteError: A host could not be read (the class of the first such error).
        SecretError: Vault refused or lacks something.
        LockHeldError: Another run holds the recipient.
        PreconditionError: Anything else.
    """
    bad = [check for check in checks if not check.ok]
    if not bad:
        return
    problems = [describe(check) for check in bad]
    first = next(iter(errors), None)
    if first is not None:
        raise type(first)(
            first.message, host=first.host, hint=first.hint, problems=problems
        ) from first
    kinds: type[OrchestratorError] = PreconditionError
    # Of one machine under two names, all that Vault says of the pair only follows from that.
    is_pair = all(check.name != "different-hosts" for check in bad)
    if is_pair and any(check.name.startswith("vault-") for check in bad):
        kinds = SecretError
    if bad[0].name == "recipient-lock" and len(bad) == 1:
        kinds = LockHeldError
    count = len(bad)
    raise kinds(
        f"{bad[0].name}: {bad[0].evidence}" if count == 1 else f"{count} preconditions do not hold",
        host=bad[0].host if count == 1 else "",
        hint=bad[0].hint if count == 1 else "nothing was changed; mend these and begin again",
        problems=problems if count > 1 else (),
    )


def describe(check: Check) -> str:
    """Return a bad finding as one line with its hint."""
    where = f"{check.host}: " if check.host else ""
    hint = f" (hint: {check.hint})" if check.hint else ""
    return f"{where}{check.name}: {check.evidence}{hint}"
