"""What Vault must hold for the hosts of the configuration: policies, token roles, SSH roles.

Names and texts come from pure functions, so that the how-to and ``vault init`` print the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.config import Config

TOKEN_PERIOD_SECONDS = 768 * 3600
"""Period of host and orchestrator tokens: Vault's default for the longest lease."""
RECEIVE_SECONDS = 300
"""Life of a stream certificate. It is checked at login only, so it need not outlive the stream."""
ORCHESTRATOR = "xbvault-orchestrator"
SELF_RIGHTS = {
    "auth/token/lookup-self": ("read",),
    "auth/token/renew-self": ("update",),
    "sys/capabilities-self": ("update",),
}
"""What every token may do with itself."""

Rights = dict[str, tuple[str, ...]]
"""Paths with their capabilities."""


def host_role(host: str) -> str:
    """Return the name of the policy and token role of a host's own token."""
    return f"xbvault-host-{host}"


def transition_role(host: str) -> str:
    """Return the name of the policy and token role for transition mounts of a recipient."""
    return f"xbvault-transition-{host}"


def receive_role(host: str) -> str:
    """Return the name of the SSH role, and of the one principal, for streams to a recipient."""
    return f"xbvault-receive-{host}"


def policy_name(role: str) -> str:
    """Return the name of a role's policy; Vault keeps policy names in lower case."""
    return role.lower()


def host_rights(config: Config, host: str) -> Rights:
    """Return what a host's own token may: read its own keys, nothing else."""
    mount = config.host(host).vault_mount
    return {f"{mount}/data/*": ("read",), f"sys/mounts/{mount}/tune": ("read",), **SELF_RIGHTS}


def transition_rights(config: Config, host: str) -> Rights:
    """Return what a transition token may: read the recipient's own transition mounts.

    With a bare ``+`` for the recipient, one could read another's (tried).
    """
    prefix = f"{config.vault.transition_mount}/{host}/+"
    return {f"{prefix}/data/*": ("read",), f"sys/mounts/{prefix}/tune": ("read",), **SELF_RIGHTS}


def orchestrator_rights(config: Config) -> Rights:
    """Return what the orchestrator's token may, and nothing on policies and token roles but read.

    In a host's own mount it adds versions and can delete nothing. It can destroy single versions
    there, because `runs forget` destroys those that no datadir needs any more; nothing else does.
    """
    own, transition, ssh = (
        config.vault.mount,
        config.vault.transition_mount,
        config.vault.ssh_mount,
    )
    rights: Rights = {
        f"{own}/data/*": ("create", "read", "update", "delete"),
        f"{own}/metadata": ("list",),
        f"{own}/metadata/*": ("create", "read", "update", "delete", "list"),
        f"{own}/destroy/*": ("create", "update"),
        f"{own}/config": ("read",),
        f"{transition}/*": ("create", "read", "update", "delete", "list"),
        "sys/mounts": ("read",),
        f"sys/mounts/{transition}/*": ("create", "read", "update", "delete"),
        f"{ssh}/config/ca": ("read",),
        "auth/token/lookup-accessor": ("update",),
        "auth/token/renew-accessor": ("update",),
        "auth/token/revoke-accessor": ("update",),
        **SELF_RIGHTS,
    }
    for name, host in config.hosts.items():
        rights |= {
            f"{host.vault_mount}/data/*": ("create", "read", "update"),
            f"{host.vault_mount}/destroy/*": ("update",),
            f"{host.vault_mount}/metadata": ("list",),
            f"{host.vault_mount}/metadata/*": ("read", "list"),
            f"{host.vault_mount}/config": ("read",),
            f"sys/mounts/{host.vault_mount}/tune": ("read",),
            f"auth/token/create/{transition_role(name)}": ("create", "update"),
            f"auth/token/roles/{transition_role(name)}": ("read",),
            f"{ssh}/sign/{receive_role(name)}": ("create", "update"),
            f"{ssh}/roles/{receive_role(name)}": ("read",),
        }
    return rights


def policy_text(rights: Mapping[str, tuple[str, ...]], purpose: str) -> str:
    """Return a policy as Vault reads it."""
    blocks = [f"# xbvault: {purpose}"]
    for path, capabilities in rights.items():
        listed = ", ".join(f'"{capability}"' for capability in capabilities)
        blocks.append(f'path "{path}" {{\n  capabilities = [{listed}]\n}}')
    return "\n".join(blocks) + "\n"


def policies(config: Config) -> dict[str, str]:
    """Return the text of every policy by its name."""
    found = {
        ORCHESTRATOR: policy_text(
            orchestrator_rights(config), "the orchestrator; it writes no policy and no token role"
        )
    }
    for host in config.hosts:
        found[policy_name(host_role(host))] = policy_text(
            host_rights(config, host), f"the database server of {host}"
        )
        found[policy_name(transition_role(host))] = policy_text(
            transition_rights(config, host), f"{host} while it is being cloned"
        )
    return found


def token_roles(config: Config) -> dict[str, dict[str, Any]]:
    """Return the settings of every token role by its name; each is fixed to its one policy."""
    roles = {ORCHESTRATOR: _token_role(ORCHESTRATOR, TOKEN_PERIOD_SECONDS)}
    for host in config.hosts:
        roles[host_role(host)] = _token_role(policy_name(host_role(host)), TOKEN_PERIOD_SECONDS)
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
    return {receive_role(host): _ssh_role(receive_role(host)) for host in config.hosts}


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
