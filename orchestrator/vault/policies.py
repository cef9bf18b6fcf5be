"""Policies and token roles, which an administrator writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.vault.answers import take_part
from orchestrator.vault.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Mapping


class Policies(Connection):
    """Requests about policies and token roles."""

    def read_policy(self, name: str) -> str | None:
        """Return the text of a policy; None if there is none."""
        answer = self._find("get", f"sys/policies/acl/{name}")
        return str(take_part(answer, "data").get("policy", "")) if answer else None

    def write_policy(self, name: str, text: str) -> None:
        """Write a policy."""
        self._call("post", f"sys/policies/acl/{name}", body={"policy": text})

    def read_token_role(self, role: str) -> dict[str, Any] | None:
        """Return a token role; None if there is none."""
        answer = self._find("get", f"auth/token/roles/{role}")
        return take_part(answer, "data") if answer else None

    def write_token_role(self, role: str, settings: Mapping[str, Any]) -> None:
        """Write a token role."""
        self._call("post", f"auth/token/roles/{role}", body=settings)
