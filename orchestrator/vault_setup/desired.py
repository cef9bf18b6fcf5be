"""What Vault must hold for the hosts and repositories of the configuration, beside its policies: the roles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.privileges.vault import (
    ORCHESTRATOR,
    host_role,
    needs_transition,
    policy_name,
    receive_role,
    transition_role,
)

if TYPE_CHECKING:
    from orchestrator.config import Config

TOKEN_PERIOD_SECONDS = 768 * 3600
"""Period of host and orchestrator tokens: Vault's default for the longest lease."""
RECEIVE_SECONDS = 300
"""Life of a stream certificate. It is checked at login only, so it need not outlive the stream."""


def token_roles(config: Config) -> dict[str, dict[str, Any]]:
    """Return the settings of every token role by its name; each is fixed to its one policy."""
    roles = {ORCHESTRATOR: _token_role(ORCHESTRATOR, TOKEN_PERIOD_SECONDS)}
    for host in config.hosts:
        roles[host_role(host)] = _token_role(policy_name(host_role(host)), TOKEN_PERIOD_SECONDS)
        if needs_transition(config, host):
            roles[transition_role(host)] = _token_role(
                policy_name(transition_role(host)), config.clone.transition_token_seconds
            )
    return roles


def _token_role(policy: str, period_seconds: int) -> dict[str, Any]:
    return {
        "allowed_policies": [policy],
        "allowed_policies_glob": [],
        "disallowed_policies": [],
        "disallowed_policies_glob": [],
        "token_no_default_policy": True,
        "token_type": "service",
        "orphan": True,
        "renewable": True,
        "token_period": period_seconds,
        "token_explicit_max_ttl": 0,
    }


def ssh_roles(config: Config) -> dict[str, dict[str, Any]]:
    """Return the settings of every SSH role by its name; each signs its one principal."""
    return {receive_role(door): _ssh_role(receive_role(door)) for door in config.doors}


def _ssh_role(principal: str) -> dict[str, Any]:
    # What a certificate can do is bounded on the recipient: its principals file says
    # `restrict,command="…"`. The role gives no extension, so that no other host would grant more.
    return {
        "key_type": "ca",
        "allow_user_certificates": True,
        "allow_host_certificates": False,
        "allowed_users": principal,
        "default_user": principal,
        "allowed_users_template": False,
        "allow_user_key_ids": False,
        "allowed_extensions": "",
        "default_extensions": {},
        "ttl": RECEIVE_SECONDS,
        "max_ttl": RECEIVE_SECONDS,
    }
