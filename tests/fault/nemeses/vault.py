"""What breaks in Vault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import bao, product, servers
from nemesis import GOES_ON, Moment, before, before_each, in_stream, nemesis
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stand import Stand

UNAVAILABLE = "SecretStoreUnavailableError"
LONG = [
    *in_stream(OURS.backup_gate),
    Moment(step="prepare-backup-set", gate=OURS.prepare_gate),
]
"""While a tool is at its work; the donor's, and the recipient's in the prepare."""


@nemesis(
    "vault-sealed-for-a-moment",
    moments=[*before("start-server", "restart-on-own-mount", "destroy-transition-key"), *LONG],
    comes=[GOES_ON],
    mends_after_seconds=1,
    sample=True,
)
def _sealed_for_a_moment(stand: Stand) -> Iterator[None]:
    """Vault is sealed, and unsealed a second later."""
    bao.seal(stand.model)
    yield
    bao.unseal(stand.model)


@nemesis("vault-restarted", moments=[*before_each(), *LONG], comes=[GOES_ON])
def _restarted(stand: Stand) -> Iterator[None]:
    """Vault is stopped, started and unsealed."""
    bao.restart(stand.model)
    yield


@nemesis(
    "vault-sealed",
    moments=[
        *before("check-preconditions", "move-backup-set", "stop-server"),
        *LONG,
    ],
    comes=[GOES_ON, UNAVAILABLE],
    says=["sealed"],
)
def _sealed(stand: Stand) -> Iterator[None]:
    """Vault is sealed until the run has given up."""
    bao.seal(stand.model)
    yield
    bao.unseal(stand.model)


@nemesis(
    "vault-gone",
    moments=before(
        "start-server",
        "restart-on-own-mount",
        "remove-transition-mount",
    ),
    comes=[UNAVAILABLE],
    says=["cannot be reached"],
)
def _gone(stand: Stand) -> Iterator[None]:
    """Vault is stopped until the run has given up."""
    bao.stop(stand.model)
    yield
    bao.start(stand.model)
    bao.unseal(stand.model)


def _revoke(stand: Stand, path: Path, *, prefix: str = "") -> str:
    """Revoke the token in a file; return what the file held."""
    kept = path.read_text(encoding="utf-8")
    token = kept.strip().removeprefix(prefix)
    stand.vault("POST", "auth/token/revoke", {"token": token})
    return kept


def _issue_again(stand: Stand, path: Path, kept: str, policy: str, *, prefix: str = "") -> None:
    made = stand.vault("POST", "auth/token/create-orphan", {"policies": [policy], "period": "24h"})
    path.write_text(f"{prefix}{made['auth']['client_token']}\n", encoding="utf-8")
    assert path.read_text(encoding="utf-8") != kept


@nemesis(
    "orchestrator-token-revoked",
    moments=[*before_each(), *in_stream(OURS.backup_gate)],
    comes=[GOES_ON, "SecretError"],
    says=["/orchestrator.token"],
)
def _orchestrator_token(stand: Stand) -> Iterator[None]:
    """The orchestrator's token is revoked; it gets another when the run has given up."""
    path = product.orchestrator_token_file(stand.model)
    kept = _revoke(stand, path)
    yield
    _issue_again(stand, path, kept, "xbvault-orchestrator")


@nemesis(
    "recipient-token-revoked",
    moments=before("start-server", "restart-on-own-mount"),
    comes=[GOES_ON, "SecretError"],
    says=["the Vault token of host replica"],
)
def _recipient_token(stand: Stand) -> Iterator[None]:
    """The recipient's own token is revoked; it gets another when the run has given up."""
    path = stand.host("replica").root / servers.VAULT_ENV.lstrip("/")
    kept = _revoke(stand, path, prefix="VAULT_TOKEN=")
    yield
    _issue_again(stand, path, kept, "xbvault-host-replica", prefix="VAULT_TOKEN=")


@nemesis(
    "transition-token-revoked",
    moments=before(
        "prepare-backup-set",
        "start-server",
        "re-encrypt-tablespaces",
        "restart-on-own-mount",
        "revoke-transition-token",
    ),
    comes=[GOES_ON],
)
def _transition_token(stand: Stand) -> Iterator[None]:
    """The transition token is revoked by somebody."""
    for accessor in stand.vault("LIST", "auth/token/accessors")["data"]["keys"]:
        found = stand.vault("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
        if any(name.startswith("xbvault-transition") for name in found["policies"]):
            stand.vault("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    yield
