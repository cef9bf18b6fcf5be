"""What breaks in Vault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import bao
from nemesis import GOES_ON, before_each, nemesis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stand import Stand


@nemesis(
    "vault-sealed-for-a-moment",
    moments=before_each(),
    comes=[GOES_ON],
    mends_after_seconds=1,
    sample=True,
)
def _vault_sealed_for_a_moment(stand: Stand) -> Iterator[None]:
    """Vault is sealed, and unsealed a second later."""
    bao.seal(stand.model)
    yield
    bao.unseal(stand.model)
