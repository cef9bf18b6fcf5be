"""What the server says of itself."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

from orchestrator.errors import SecretError
from orchestrator.vault.answers import take_whole
from orchestrator.vault.connection import Connection
from orchestrator.vault.errors import FAILURES, translate

_HEALTH_QUERY = {
    "standbyok": "true",
    "perfstandbyok": "true",
    "sealedcode": "200",
    "uninitcode": "200",
    "drsecondarycode": "200",
}
"""Each state is an answer with status 200."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Health:
    """What Vault says of itself to anybody.

    Attributes:
        initialized: It was initialized once.
        sealed: It cannot read its own storage until it is unsealed.
        standby: It answers for another node that is active.
        version: Such as ``2.7.2``.
        server_time: Its clock, to the second.
    """

    initialized: bool
    sealed: bool
    standby: bool
    version: str
    server_time: datetime


class Server(Connection):
    """Requests about the server."""

    def read_health(self) -> Health:
        """Return what Vault says of itself; sealed and standby are answers, not errors."""
        path = "sys/health"
        try:
            answer = self._send(self._anonymous, "get", path, None, _HEALTH_QUERY)
        except FAILURES as error:
            raise translate(error, method="get", path=path, address=self.address) from error
        if "sealed" not in answer:
            raise SecretError(f"{self.address} is no Vault", hint="check vault.address")
        try:
            server_time = datetime.fromtimestamp(take_whole(answer, "server_time_utc"), UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise SecretError(f"{self.address} has no clock that can be read") from error
        return Health(
            initialized=bool(answer.get("initialized")),
            sealed=bool(answer.get("sealed")),
            standby=bool(answer.get("standby")),
            version=str(answer.get("version", "")),
            server_time=server_time,
        )
