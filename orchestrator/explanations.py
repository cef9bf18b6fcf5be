"""What ``xbvault explain`` says: for every error class, what happened, what was kept, what to do.

One table, so that the command, the reference page and the test that compares them agree.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import errors
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
    """One error class, for the person who met it.

    Attributes:
        name: The class.
        exit_status: What the command ends with.
        happened: What it means.
        kept: What is as it was, and what the run keeps.
        to_do: What to do next.
    """

    name: str
    exit_status: int
    happened: str
    kept: str
    to_do: str


_NOTHING = "Nothing was contacted and nothing was changed."
_FAILED_RUN = (
    "The run keeps its staging directory, its transition mount and its journal, because it can be "
    "resumed. The recipient's earlier datadir is in place, or set aside beside the new one."
)

_TEXTS: dict[str, tuple[str, str, str]] = {
    "OrchestratorError": (
        "Something went wrong that xbvault has no name for: a fault of ours.",
        _FAILED_RUN,
        "Keep the output and the run's log, and report them. `xbvault runs resume RUN` may go on.",
    ),
    "ConfigError": (
        "The configuration, a playbook or an argument is wrong. Every problem is listed.",
        _NOTHING,
        "Mend what is listed; `xbvault config check` and `xbvault playbook check FILE` look again.",
    ),
    "PreconditionError": (
        "A host, Vault or a run is not in the state that the step needs. Preflight lists all of "
        "it at once.",
        "The step that says so has changed nothing.",
        "Follow the hints, then begin again, or `xbvault runs resume RUN` if a run exists.",
    ),
    "LockHeldError": (
        "Another run holds the recipient, or another process holds this run.",
        "Nothing was changed by this one.",
        "Wait for the run that is named, or cancel it where it was started. The lock of a dead "
        "holder runs out by itself (clone.lock_lease_seconds).",
    ),
    "RemoteError": (
        "A host could not be used: the login was refused, or the connection is not as it must be.",
        _FAILED_RUN,
        "Try `ssh HOST true` with the same configuration, then `xbvault hosts check HOST`.",
    ),
    "HostUnreachableError": (
        "The connection to a host failed before the command started. It was tried several times.",
        _FAILED_RUN + " Remote jobs go on without the orchestrator while their lease lasts.",
        "See to it that the host and its SSH port answer, then `xbvault runs resume RUN`.",
    ),
    "HostKeyError": (
        "The host's key is not in known_hosts, or is another than the one there. Nothing was sent.",
        _FAILED_RUN,
        "Compare the fingerprint with the host's own (`ssh-keygen -lf` there) before you add it.",
    ),
    "CommandError": (
        "A command ran on a host and failed, was killed, or took longer than it may.",
        _FAILED_RUN,
        "Read the last words of the command in the message and in the run's log; mend the cause, "
        "then `xbvault runs resume RUN`.",
    ),
    "ConnectionLostError": (
        "The connection to a host broke while a command ran there. The step was tried several times.",
        _FAILED_RUN + " Whether the command did its work, the step finds out when it is resumed.",
        "See to it that the host and its SSH port answer, then `xbvault runs resume RUN`.",
    ),
    "SecretError": (
        "Vault refused, or what it holds is not what was expected. The path and the capability "
        "are named.",
        _FAILED_RUN + " No key was destroyed.",
        "`xbvault vault check` shows what the token may do; `xbvault vault init` writes the "
        "policies again.",
    ),
    "SecretStoreUnavailableError": (
        "Vault is sealed, on standby, or does not answer. It was tried for some seconds.",
        _FAILED_RUN + " A donor whose key caches are as preflight wants them goes on serving.",
        "Unseal Vault or mend the way to it, then `xbvault runs resume RUN`.",
    ),
    "VerificationError": (
        "The work ended, but its result is not right: evidence speaks against it.",
        _FAILED_RUN,
        "Do not use the replica. If the message names a cause, mend it and resume; otherwise "
        "`xbvault runs cancel RUN` gives the earlier data back.",
    ),
    "InterruptedWorkError": (
        "Partial work was found that cannot be trusted, and no step of the run can mend it.",
        _FAILED_RUN,
        "Look at the host that is named. `xbvault runs cancel RUN` takes everything back.",
    ),
    "JournalError": (
        "The journal of runs cannot be read or written: locked, full, damaged or not ours.",
        "What stands on the hosts and in Vault is untouched by this.",
        "Look at the path that is named: space, owner, mode. Then `xbvault runs resume RUN`.",
    ),
    "PartialError": (
        "Some recipients failed, others succeeded. Each one's outcome is listed.",
        "The replicas that succeeded are ready; those that failed are as their own run says.",
        "Resume or begin again the clones that failed, one by one.",
    ),
    "CancelledError": (
        "The run was cancelled, and that is final.",
        "The recipient has its earlier datadir back, and what the run made is removed.",
        "Begin a new run when you want one. If the clean-up was cut off, "
        "`xbvault runs cancel RUN` goes on with it.",
    ),
}


def list_explanations() -> tuple[Explanation, ...]:
    """Return one explanation per error class, by exit status."""
    found = [
        Explanation(name=name, exit_status=cls.exit_status, happened=a, kept=b, to_do=c)
        for name, cls in errors.classes().items()
        for a, b, c in [_TEXTS[name]]
    ]
    return tuple(sorted(found, key=lambda e: e.exit_status))


def explain(code: str) -> tuple[Explanation, ...]:
    """Return what is known of a code: a class's name, or an exit status.

    Raises:
        ConfigError: There is no such code.
    """
    wanted = code.strip().lower()
    found = tuple(e for e in list_explanations() if wanted in (e.name.lower(), str(e.exit_status)))
    if not found:
        raise ConfigError(
            f"no such code: {code!r}", hint=f"one of {', '.join(_names(list_explanations()))}"
        )
    return found


def _names(explanations: Iterable[Explanation]) -> list[str]:
    return [f"{e.name} ({e.exit_status})" for e in explanations]
