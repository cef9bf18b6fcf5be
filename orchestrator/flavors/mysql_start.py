"""What a MySQL server writes into its log when it does not start. Pure."""

from __future__ import annotations

import re
from typing import Final

from orchestrator.flavors.interface import FailedStart, StartFailure
from orchestrator.flavors.mysql_output import Phase, ToolCause, explain_tool_failure

_STARTING: Final = " starting as process "
_ERROR_LINE: Final = re.compile(r"\[ERROR\] (?:\[MY-[0-9]{6}\] \[\w+\] )?(.*)")
_CAUSES: Final = {
    ToolCause.VAULT_UNAVAILABLE: StartFailure.VAULT_UNAVAILABLE,
    ToolCause.VAULT_CERTIFICATE: StartFailure.VAULT_UNAVAILABLE,
    ToolCause.VAULT_DENIES: StartFailure.VAULT_DENIES,
}


def parse_failed_start(text: str) -> FailedStart:
    """Return what the last start in a server's log says.

    A keyring that cannot be reached speaks first; the server goes on without it, and fails at the
    first tablespace that it cannot open.
    """
    last = text[max(text.rfind(_STARTING), 0) :]
    errors = tuple(line.strip() for line in _ERROR_LINE.findall(last))
    found = explain_tool_failure(last, Phase.RESTORE)
    if found.cause in _CAUSES:
        return FailedStart(cause=_CAUSES[found.cause], reason=found.words, errors=errors)
    return FailedStart(cause=StartFailure.OTHER, reason=next(iter(errors), ""), errors=errors)
