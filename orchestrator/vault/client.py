"""`Vault`: a connection with all requests that we make, as the configuration says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from orchestrator.config import expand_path
from orchestrator.errors import ConfigError
from orchestrator.vault.kv import Secrets
from orchestrator.vault.mounts import Mounts
from orchestrator.vault.policies import Policies
from orchestrator.vault.server import Server
from orchestrator.vault.ssh import SshEngine
from orchestrator.vault.token_files import environment_token, read_token_file
from orchestrator.vault.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.config import VaultConfig
    from orchestrator.models import Secret


class Vault(Server, Mounts, Secrets, Tokens, SshEngine, Policies):
    """A connection to Vault with one token. Safe for several threads.

    Args:
        address: URL, such as ``https://vault.example:8200``.
        token: The token to use.
        ca_file: CA certificate that Vault's own is checked with; empty: the system's.
        namespace: Vault namespace; empty: the root.
        timeout_seconds: Longest wait for one answer.
        token_origin: Where the token comes from, for a reader who must put another there.
        witness: Called with number and path of each request that gave a secret out.

    Raises:
        ConfigError: The address is no URL, or there is no such CA file.
    """

    @classmethod
    def from_config(
        cls,
        config: VaultConfig,
        *,
        token: Secret | None = None,
        witness: Callable[[str, str], None] | None = None,
    ) -> Self:
        """Return a connection as the configuration and the environment say.

        Args:
            config: The ``[vault]`` table; what it leaves out comes from VAULT_ADDR,
                VAULT_CACERT, VAULT_NAMESPACE, VAULT_TOKEN and ``~/.vault-token``.
            token: A token to use instead, such as an administrator's.
            witness: Called with number and path of each request that gave a secret out.

        Raises:
            ConfigError: No address, no token, or a file is missing.
        """
        address = config.address or os.environ.get("VAULT_ADDR", "")
        if not address:
            raise ConfigError("no Vault address", hint="set vault.address or VAULT_ADDR")
        origin = ""
        if token is None and config.token_file:
            path = expand_path(config.token_file)
            token, origin = read_token_file(path), str(path)
        elif token is None:
            token = environment_token()
            origin = (
                "VAULT_TOKEN" if os.environ.get("VAULT_TOKEN", "").strip() else "~/.vault-token"
            )
        ca_file = config.ca_file or os.environ.get("VAULT_CACERT", "")
        return cls(
            address,
            token,
            ca_file=str(expand_path(ca_file)) if ca_file else "",
            namespace=config.namespace or os.environ.get("VAULT_NAMESPACE", ""),
            token_origin=origin,
            witness=witness,
        )
