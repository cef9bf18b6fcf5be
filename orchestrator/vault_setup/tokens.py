"""Tokens for those who live with Vault for long: the hosts and the orchestrator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.privileges.vault import ORCHESTRATOR, host_role

if TYPE_CHECKING:
    from orchestrator.models import Secret
    from orchestrator.vault import Vault


def issue_host_token(vault: Vault, host: str) -> Secret:
    """Return a new periodic token that reads the host's own mount and nothing else.

    Args:
        vault: A connection with an administrator's token.
        host: Name of the host.
    """
    token, _accessor = vault.create_token(host_role(host))
    return token


def issue_orchestrator_token(vault: Vault) -> Secret:
    """Return a new periodic token for the orchestrator.

    Args:
        vault: A connection with an administrator's token.
    """
    token, _accessor = vault.create_token(ORCHESTRATOR)
    return token
