"""The recipient's new server, which must run while it becomes a replica."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import log, service, sql
from orchestrator.facts import hosts, instances
from orchestrator.flavors import mariadb
from orchestrator.steps import records, tokens

if TYPE_CHECKING:
    from orchestrator.models import Plan
    from orchestrator.steps.registry import Tools


def start_again(tools: Tools, plan: Plan) -> bool:
    """Start the new server again if it does not run, as its options in place want it.

    A host that was restarted has lost the transition token, which lay on its tmpfs: nobody but the
    run can start its server. Replication goes on if it had begun.

    Returns:
        Whether it had to be started.

    Raises:
        CommandError: It does not start; its last words are shown.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    if hosts.read_host(remote, host).is_running:
        return False
    log.get().warning(
        "notice", message=f"the server on {plan.recipient} did not run; it is started again"
    )
    options = remote.run(["cat", "--", f"{host.server.config_dir}/{mariadb.DROP_IN}"], check=False)
    transition = records.read_transition(tools, plan)
    if transition and transition.mount in options.text:
        service.give_environment(remote, host, tokens.ensure_transition_token(tools, plan))
    service.start_server(remote, host, timeout_seconds=tools.seconds_left())
    if instances.read_replication(remote, host):
        sql.execute(remote, host.server, "START SLAVE")
    return True
