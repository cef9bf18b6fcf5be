"""The SSH engine: a CA, and roles that say what it signs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.errors import SecretError
from orchestrator.vault.answers import take_part, take_text
from orchestrator.vault.connection import Connection
from orchestrator.vault.errors import says

if TYPE_CHECKING:
    from collections.abc import Mapping


class SshEngine(Connection):
    """Requests about the SSH engine."""

    def sign_ssh_key(
        self, mount: str, role: str, public_key: str, *, principal: str, ttl_seconds: int
    ) -> str:
        """Return a user certificate for a public key.

        Args:
            mount: Where the SSH engine is.
            role: Role that allows the principal.
            public_key: One line, as in ``id_ed25519.pub``.
            principal: The one name that the certificate is good for.
            ttl_seconds: How long one can log in with it.
        """
        body = {
            "public_key": public_key,
            "valid_principals": principal,
            "ttl": f"{ttl_seconds}s",
            "cert_type": "user",
        }
        answer = self._call("post", f"{mount}/sign/{role}", body=body)
        signed = take_text(take_part(answer, "data"), "signed_key")
        if not signed.strip() or "\n" in signed.strip():
            raise SecretError(f"Vault signed no key with {mount}/sign/{role}")
        return signed

    def read_ssh_ca(self, mount: str) -> str:
        """Return the CA's public key, one line; empty if it has none yet."""
        try:
            answer = self._call("get", f"{mount}/config/ca")
        except SecretError as error:
            # OpenBao "no default issuer currently configured", Vault "keys haven't been configured"
            if says(error.__cause__, "configured"):
                return ""
            raise
        return take_text(take_part(answer, "data"), "public_key").strip()

    def configure_ssh_ca(self, mount: str) -> None:
        """Let the SSH engine generate its CA key; the private half never leaves it."""
        body = {"generate_signing_key": True, "key_type": "ed25519"}
        self._call("post", f"{mount}/config/ca", body=body, repeatable=False)

    def read_ssh_role(self, mount: str, role: str) -> dict[str, Any] | None:
        """Return a role of the SSH engine; None if there is none."""
        answer = self._find("get", f"{mount}/roles/{role}")
        return take_part(answer, "data") if answer else None

    def write_ssh_role(self, mount: str, role: str, settings: Mapping[str, Any]) -> None:
        """Write a role of the SSH engine."""
        self._call("post", f"{mount}/roles/{role}", body=settings)
