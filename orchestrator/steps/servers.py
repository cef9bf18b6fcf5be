"""Starting the recipient's server, and saying why it did not start.

A start command says little: under systemd, that the unit failed. The cause stands in the server's
log, and where it is Vault, a person must go elsewhere than for any other cause.
"""

from __future__ import annotations

import contextlib
import posixpath
from typing import TYPE_CHECKING

from orchestrator import flavors, log, service, sql
from orchestrator.errors import (
    CommandError,
    OrchestratorError,
    SecretError,
    SecretStoreUnavailableError,
)
from orchestrator.facts import hosts, instances
from orchestrator.flavors.interface import DROP_IN, StartFailure
from orchestrator.steps import outcomes, records, tokens

if TYPE_CHECKING:
    from orchestrator.models import Plan
    from orchestrator.steps.registry import Tools

_LOG_BYTES = 65536
_JOURNAL_LINES = 100
_SHOWN_LINES = 5
_LEAST_FREE_BYTES = 16 * 1024 * 1024
"""With less than this, a server that did not start is taken to have had no space."""


def start_server(tools: Tools, plan: Plan, *, timeout_seconds: float) -> None:
    """Start the recipient's server and wait until its start command says that it runs.

    Raises:
        SecretStoreUnavailableError: It did not start, because it gets no answer from Vault.
        SecretError: It did not start, because Vault denies its token.
        CommandError: It did not start, for another reason.
    """
    try:
        service.start_server(
            tools.recipient, tools.config.host(plan.recipient), timeout_seconds=timeout_seconds
        )
    except CommandError as error:
        if error.status is None:  # the connection broke; the server may run
            raise
        raise _explain(tools, plan, error) from error


def start_again(tools: Tools, plan: Plan) -> bool:
    """Start the new server again if it does not run, as its options in place want it.

    A host that was restarted has lost the transition token, which lay on its tmpfs: nobody but the
    run can start its server. Replication goes on if it had begun, and only of a recipient that is to
    replicate: another's is what its backup has brought along.

    Returns:
        Whether it had to be started.

    Raises:
        CommandError, SecretError: As `start_server`.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    if hosts.is_server_running(remote, plan.datadir):
        return False
    log.get().warning(
        "notice", message=f"the server on {plan.recipient} did not run; it is started again"
    )
    options = remote.run(["cat", "--", f"{flavors.config_dir(host)}/{DROP_IN}"], check=False)
    transition = records.read_transition(tools, plan)
    if transition and transition.mount in options.text:
        service.give_environment(remote, host, tokens.ensure_transition_token(tools, plan))
    start_server(tools, plan, timeout_seconds=tools.seconds_left())
    dialect = flavors.dialect_of(plan)
    if plan.replicates and instances.read_replication(remote, host, dialect):
        sql.execute(remote, host, dialect.start_sql)
    return True


def _explain(tools: Tools, plan: Plan, error: CommandError) -> OrchestratorError:
    """Return the error that says what the server's own words mean."""
    words = log.redact_text(_read_log(tools, plan))
    said = flavors.of(plan).read_failed_start(words)
    begin = f"the server on {plan.recipient} did not start"
    shown = said.errors[:_SHOWN_LINES]
    match said.cause:
        case StartFailure.VAULT_UNAVAILABLE:
            return SecretStoreUnavailableError(
                f"{begin}, because it gets no keys from Vault: {said.reason}",
                host=plan.recipient,
                hint=f"see that Vault is unsealed and that {plan.recipient} reaches it",
                problems=shown,
            )
        case StartFailure.VAULT_DENIES:
            return SecretError(
                f"{begin}, because Vault denies its token: {said.reason}",
                host=plan.recipient,
                hint="`xbvault vault check` says what its token and policy lack",
                problems=shown,
            )
    if said.reason:
        message = f"{begin}: {said.reason}"
    else:
        message = (
            f"{begin}; its start command {outcomes.describe_end(error.status or 0, error.stderr)}"
        )
    mend = "mend that"
    if has_no_space(tools, plan):
        mend = f"free space on {plan.recipient}'s filesystem, which is full"
    return CommandError(
        message,
        host=plan.recipient,
        hint=f"{mend}, then `xbvault runs resume`; or `xbvault runs undo` puts the earlier data back",
        status=error.status,
        stderr="\n".join(said.errors) or error.stderr,
    )


def has_no_space(tools: Tools, plan: Plan) -> bool:
    """Return whether the filesystem of the datadir is full, which a server may tell as anything."""
    with contextlib.suppress(OrchestratorError):
        facts = hosts.read_host(tools.recipient, tools.config.host(plan.recipient))
        return facts.parent_free_bytes < _LEAST_FREE_BYTES
    return False


def _read_log(tools: Tools, plan: Plan) -> str:
    """Return the end of the server's log; empty if there is none that can be read."""
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    with contextlib.suppress(OrchestratorError):
        facts = hosts.read_host(remote, host)
        path = facts.options.get("log_error", "")
        if path not in ("", "1"):
            path = posixpath.join(facts.datadir, path)
            command = ["tail", "-c", str(_LOG_BYTES), "--", path]
        elif not host.service.start:
            unit = ["--unit", flavors.unit(host), "--lines", str(_JOURNAL_LINES)]
            command = ["journalctl", "--no-pager", "--output", "cat", *unit]
        else:
            return ""
        found = remote.run(command, check=False)
        return found.text if found.status == 0 else ""
    return ""
