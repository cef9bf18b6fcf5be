"""What each token may do in Vault, and the policies that say so.

The rights of the orchestrator are put together from what a clone does in each place, so that
preflight asks for the same as the policy grants.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator.repository.names import DEPLOYMENT_PATH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.config import Config

ORCHESTRATOR = "xbvault-orchestrator"
SELF_RIGHTS = {
    "auth/token/lookup-self": ("read",),
    "auth/token/renew-self": ("update",),
    "sys/capabilities-self": ("update",),
}
"""What a token that lives for long may do with itself."""

Rights = dict[str, tuple[str, ...]]
"""Paths with their capabilities."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Names:
    """What stands where a policy has a pattern.

    Attributes:
        recipient: Part of the path of a transition mount.
        run_id: Its last part.
        transition_key: Below ``transition-keys/``.
        account: Below ``replication/``.
        key_id: Name of a page key.
    """

    recipient: str = "+"
    run_id: str = "+"
    transition_key: str = "*"
    account: str = "*"
    key_id: str = "*"


PATTERNS = Names()


def host_role(host: str) -> str:
    """Return the name of the policy and token role of a host's own token."""
    return f"xbvault-host-{host}"


def transition_role(host: str) -> str:
    """Return the name of the policy and token role for transition mounts of a recipient."""
    return f"xbvault-transition-{host}"


def receive_role(host: str) -> str:
    """Return the name of the SSH role, and of the one principal, for streams to a host.

    Args:
        host: A recipient, or the host of a repository.
    """
    return f"xbvault-receive-{host}"


def policy_name(role: str) -> str:
    """Return the name of a role's policy; Vault keeps policy names in lower case."""
    return role.lower()


def needs_transition(config: Config, host: str) -> bool:
    """Return whether keys come to a host through a transition mount, which a MariaDB reads."""
    return config.host(host).flavor == "mariadb"


def host_rights(config: Config, host: str, names: Names = PATTERNS) -> Rights:
    """Return what a host's own token may in its own mount, and nowhere else.

    The key plugin of MariaDB reads keys. A keyring of MySQL makes them as well, removes them, and
    asks for their names; it looks at the configuration of a version 2 mount to know it as one.
    """
    found = config.host(host)
    mount = found.key_mount
    if not mount:
        return dict(SELF_RIGHTS)
    if found.flavor == "mariadb":
        own: Rights = {
            f"{mount}/data/{names.key_id}": ("read",),
            f"sys/mounts/{mount}/tune": ("read",),
        }
    elif found.kv_version == 1:
        own = {f"{mount}/{names.key_id}": ("create", "read", "update", "delete", "list")}
    else:
        own = {
            f"{mount}/data/{names.key_id}": ("create", "read", "update", "delete"),
            f"{mount}/metadata/{names.key_id}": ("delete", "list"),
            f"{mount}/config": ("read",),
        }
    return {**own, **SELF_RIGHTS}


def transition_rights(config: Config, host: str, names: Names = PATTERNS) -> Rights:
    """Return what a transition token may: read the recipient's own transition mounts.

    With a bare ``+`` for the recipient, one could read another's (tried). The orchestrator renews
    and revokes it by its accessor, so it has no right on itself.
    """
    mount = f"{config.vault.transition_mount}/{host}/{names.run_id}"
    return {f"{mount}/data/{names.key_id}": ("read",), f"sys/mounts/{mount}/tune": ("read",)}


def donor_rights(config: Config, host: str, names: Names = PATTERNS) -> Rights:
    """Return what the orchestrator needs on the mount of a host whose data it copies.

    Nothing of MySQL, whose backup tool carries the keys itself.
    """
    mount = config.host(host).key_mount
    if not needs_transition(config, host):
        return {}
    return {
        f"{mount}/data/{names.key_id}": ("read",),
        f"{mount}/metadata/{names.key_id}": ("read", "list"),
    }


def recipient_rights(config: Config, host: str, names: Names = PATTERNS) -> Rights:
    """Return what the orchestrator needs for a host that it clones to.

    In the host's own mount it adds versions and deletes nothing. It can destroy single versions,
    because `runs forget` destroys those that no datadir needs any more; nothing else does. Where a
    keyring of MySQL keeps its keys, it sees their names and nothing more.
    """
    found = config.host(host)
    mount = found.key_mount
    sign: Rights = {f"{config.vault.ssh_mount}/sign/{receive_role(host)}": ("update",)}
    if not mount:
        return sign
    if not needs_transition(config, host):
        return {f"{mount}/{'' if found.kv_version == 1 else 'metadata/'}": ("list",), **sign}
    return {
        f"{mount}/data/{names.key_id}": ("create", "read", "update"),
        f"{mount}/destroy/{names.key_id}": ("update",),
        f"{mount}/metadata/{names.key_id}": ("read", "list"),
        f"{mount}/config": ("read",),
        f"auth/token/create/{transition_role(host)}": ("update",),
        **sign,
    }


def repository_rights(config: Config, repository: str) -> Rights:
    """Return what the orchestrator needs for a repository, beside what it needs for a clone.

    The deployment's key is made once. Without `update`, no run can put another in its place, after
    which no manifest could be proved any more.
    """
    return {
        f"{config.vault.mount}/data/{DEPLOYMENT_PATH}": ("create", "read"),
        f"{config.vault.ssh_mount}/sign/{receive_role(repository)}": ("update",),
    }


def check_rights(config: Config, host: str) -> Rights:
    """Return what `vault check` reads of a host's, or a repository's, roles, and no run needs."""
    ssh_role: Rights = {f"{config.vault.ssh_mount}/roles/{receive_role(host)}": ("read",)}
    if host in config.repositories or not needs_transition(config, host):
        return ssh_role
    return {f"auth/token/roles/{transition_role(host)}": ("read",), **ssh_role}


def shared_rights(config: Config, names: Names = PATTERNS) -> Rights:
    """Return what the orchestrator needs for every clone, whichever hosts it is of."""
    own, ssh = config.vault.mount, config.vault.ssh_mount
    transition = f"{config.vault.transition_mount}/{names.recipient}/{names.run_id}"
    rights: Rights = {
        # The record beside a transition key is written before the key, so the key is an update.
        f"{own}/data/transition-keys/{names.transition_key}": ("read", "update"),
        f"{own}/metadata/transition-keys/{names.transition_key}": ("create", "read", "update"),
        f"{own}/destroy/transition-keys/{names.transition_key}": ("update",),
        f"{own}/data/replication/{names.account}": ("create", "read"),
        f"{own}/metadata/replication/{names.account}": ("delete", "list"),
        f"{transition}/config": ("read", "update"),
        f"{transition}/data/{names.key_id}": ("create", "read", "update"),
        f"{transition}/metadata/{names.key_id}": ("read",),
        "sys/mounts": ("read",),
        f"sys/mounts/{transition}": ("update", "delete"),
        f"{ssh}/config/ca": ("read",),
        "auth/token/lookup-accessor": ("update",),
        "auth/token/renew-accessor": ("update",),
        "auth/token/revoke-accessor": ("update",),
        **SELF_RIGHTS,
    }
    if any(needs_transition(config, host) for host in config.hosts):
        return rights
    return {
        path: capabilities
        for path, capabilities in rights.items()
        if transition not in path and not path.endswith("-accessor")
    }


def clone_rights(config: Config, donor: str, recipient: str, names: Names = PATTERNS) -> Rights:
    """Return what the orchestrator needs for a clone, its undo and its forgetting.

    With other names than patterns, the paths come in the same order.
    """
    return {
        **shared_rights(config, names),
        **donor_rights(config, donor, names),
        **recipient_rights(config, recipient, names),
    }


def backup_rights(config: Config, donor: str, repository: str, names: Names = PATTERNS) -> Rights:
    """Return what the orchestrator needs for a backup of a donor."""
    return {
        **shared_rights(config, names),
        **donor_rights(config, donor, names),
        **repository_rights(config, repository),
    }


def copy_rights(config: Config, repository: str, names: Names = PATTERNS) -> Rights:
    """Return what the orchestrator needs for a copy of a stored set to a repository."""
    return {**shared_rights(config, names), **repository_rights(config, repository)}


def restore_rights(config: Config, recipient: str, names: Names = PATTERNS) -> Rights:
    """Return what the orchestrator needs for a restore to a recipient."""
    return {
        **shared_rights(config, names),
        **recipient_rights(config, recipient, names),
        f"{config.vault.mount}/data/{DEPLOYMENT_PATH}": ("read",),
    }


def orchestrator_rights(config: Config) -> Rights:
    """Return what the orchestrator's token may, and nothing on policies and token roles but read.

    Every host can be donor and recipient.
    """
    rights = shared_rights(config)
    for host in config.hosts:
        # all that it may on a donor's mount, it may on a recipient's
        rights |= recipient_rights(config, host) | check_rights(config, host)
    for repository in config.repositories:
        rights |= repository_rights(config, repository) | check_rights(config, repository)
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
        if needs_transition(config, host):
            found[policy_name(transition_role(host))] = policy_text(
                transition_rights(config, host), f"{host} while it is being cloned"
            )
    return found
