"""What Vault must hold for the hosts of the configuration: mounts, policies, roles, SSH CA.

`plan_setup` compares it with what is there, `apply_setup` writes the difference with an
administrator's token, and `check_setup` tells with the orchestrator's own token what it finds.
No run ever writes any of this: with a right on policies or token roles, the orchestrator could
give itself the donor's keys.
"""

from orchestrator.privileges.vault import (
    ORCHESTRATOR,
    SELF_RIGHTS,
    host_rights,
    host_role,
    orchestrator_rights,
    policies,
    policy_text,
    receive_role,
    transition_rights,
    transition_role,
)
from orchestrator.vault_setup.check import check_setup
from orchestrator.vault_setup.desired import (
    RECEIVE_SECONDS,
    TOKEN_PERIOD_SECONDS,
    ssh_roles,
    token_roles,
)
from orchestrator.vault_setup.difference import Change, apply_setup, plan_setup
from orchestrator.vault_setup.layout import MAX_VERSIONS, check_config
from orchestrator.vault_setup.renewal import RENEW_SCRIPT, render_renewal
from orchestrator.vault_setup.tokens import issue_host_token, issue_orchestrator_token

__all__ = [
    "MAX_VERSIONS",
    "ORCHESTRATOR",
    "RECEIVE_SECONDS",
    "RENEW_SCRIPT",
    "SELF_RIGHTS",
    "TOKEN_PERIOD_SECONDS",
    "Change",
    "apply_setup",
    "check_config",
    "check_setup",
    "host_rights",
    "host_role",
    "issue_host_token",
    "issue_orchestrator_token",
    "orchestrator_rights",
    "plan_setup",
    "policies",
    "policy_text",
    "receive_role",
    "render_renewal",
    "ssh_roles",
    "token_roles",
    "transition_rights",
    "transition_role",
]
