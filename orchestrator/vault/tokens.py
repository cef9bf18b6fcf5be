"""Tokens: our own, and those that we make for others."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import hvac.exceptions

from orchestrator.errors import SecretError
from orchestrator.models import Secret
from orchestrator.vault.answers import (
    Answer,
    take_moment,
    take_part,
    take_text,
    take_whole,
    take_words,
)
from orchestrator.vault.connection import Connection
from orchestrator.vault.errors import says

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_GONE_ACCESSOR = "invalid accessor"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenInfo:
    """A token, without its value.

    Attributes:
        ttl_seconds: What is left of its life; 0 with `expires` 0: it never ends.
        period_seconds: Each renewal makes it live this long again; 0 if it is not periodic. Of
            a token that a token role made, Vault does not tell; then it is its life at creation.
        renewable: Whether it can be renewed.
        accessor: Handle that can look up, renew and revoke it, and nothing else.
        policies: Names of its policies.
        expires: When it ends, in seconds since 1970; 0 = never.
    """

    ttl_seconds: int
    period_seconds: int
    renewable: bool
    accessor: str
    policies: tuple[str, ...]
    expires: float


class Tokens(Connection):
    """Requests about tokens."""

    def lookup_token(self) -> TokenInfo:
        """Return what Vault knows of our own token."""
        return _token_info(self._call("get", "auth/token/lookup-self"))

    def renew_token(self) -> int:
        """Renew our own token and return its new TTL in seconds."""
        answer = self._call("post", "auth/token/renew-self", body={})
        return take_whole(take_part(answer, "auth"), "lease_duration")

    def read_capabilities(self, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return what our token may do at each path; ``("deny",)`` where nothing."""
        if not paths:
            return {}
        answer = self._call("post", "sys/capabilities-self", body={"paths": list(paths)})
        data = take_part(answer, "data")
        return {path: take_words(data, path) or ("deny",) for path in paths}

    def read_path(self, path: str) -> None:
        """Read a path for the sake of the right to it; what stands there is left alone.

        Raises:
            SecretError: Vault refuses it, or there is nothing.
        """
        self._call("get", path)

    def can_read(self, path: str) -> bool:
        """Tell whether Vault lets our token read a path, by reading it.

        Args:
            path: As in a policy, such as ``MOUNT/data/1``; there need not be anything.

        Raises:
            SecretError: The token itself is refused, so that nothing can be said.
        """
        try:
            self.read_path(path)
        except SecretError as error:
            if isinstance(error.__cause__, hvac.exceptions.InvalidPath):
                return True
            if isinstance(error.__cause__, hvac.exceptions.Forbidden) and self._is_token_known():
                return False
            raise
        return True

    def create_token(
        self, role: str, *, meta: Mapping[str, str] | None = None
    ) -> tuple[Secret, str]:
        """Make a token from a token role.

        Args:
            role: Name of the role; it says the policies and the life.
            meta: Notes for Vault's audit log, such as the run.

        Returns:
            The token and its accessor.
        """
        path = f"auth/token/create/{role}"
        body = {"meta": dict(meta)} if meta else {}
        auth = take_part(self._call("post", path, body=body, repeatable=False), "auth")
        token, accessor = take_text(auth, "client_token"), take_text(auth, "accessor")
        if not token or not accessor:
            raise SecretError(f"Vault made no token from the token role {role}")
        return Secret(token), accessor

    def lookup_accessor(self, accessor: str) -> TokenInfo | None:
        """Return what Vault knows of a token; None if it is gone."""
        try:
            answer = self._call("post", "auth/token/lookup-accessor", body={"accessor": accessor})
        except SecretError as error:
            if says(error.__cause__, _GONE_ACCESSOR):
                return None
            raise
        return _token_info(answer)

    def renew_accessor(self, accessor: str) -> int:
        """Renew a token and return its new TTL in seconds.

        Raises:
            SecretError: It is gone, or cannot be renewed.
        """
        answer = self._call("post", "auth/token/renew-accessor", body={"accessor": accessor})
        return take_whole(take_part(answer, "auth"), "lease_duration")

    def revoke_accessor(self, accessor: str) -> None:
        """Revoke a token; one that is gone already is as good."""
        try:
            self._call("post", "auth/token/revoke-accessor", body={"accessor": accessor})
        except SecretError as error:
            if not says(error.__cause__, _GONE_ACCESSOR):
                raise


def _token_info(answer: Answer) -> TokenInfo:
    data = take_part(answer, "data")
    expires = take_moment(data, "expire_time")
    # A role's period stands in the role alone, so that a change of it reaches its tokens.
    life = take_whole(data, "creation_ttl") if data.get("role") else 0
    return TokenInfo(
        ttl_seconds=take_whole(data, "ttl"),
        period_seconds=take_whole(data, "period") or life,
        renewable=bool(data.get("renewable")),
        accessor=take_text(data, "accessor"),
        policies=(*take_words(data, "policies"), *take_words(data, "identity_policies")),
        expires=expires.timestamp() if expires else 0.0,
    )
