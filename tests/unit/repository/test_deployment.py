"""The deployment: made once, read by all, and never replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import stored_sets

from orchestrator import config
from orchestrator.errors import SecretError, SecretStoreUnavailableError
from orchestrator.models import Secret
from orchestrator.repository.deployment import (
    Deployment,
    make_deployment,
    need_deployment,
    read_deployment,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from orchestrator.vault import Vault

CONFIG = config.parse({"hosts": {"db1": {"vault_mount": "keys/db1"}}})
PLACE = ("xbvault", "backups/deployment")
OURS: dict[str, str | Secret] = {"id": stored_sets.DEPLOYMENT, "manifest_key": stored_sets.KEY}


class Store:
    """A Vault with one secret, for a token that may create and read it, and not update it.

    Args:
        held: What stands there.
        meanwhile: What another one writes just before we do.
        refusal: What a write is refused with.
    """

    def __init__(
        self,
        held: Mapping[str, str | Secret] | None = None,
        *,
        meanwhile: Mapping[str, str | Secret] | None = None,
        refusal: SecretError | None = None,
    ) -> None:
        self.held = dict(held) if held else None
        self.meanwhile = meanwhile
        self.refusal = refusal

    def read_secret(
        self, mount: str, path: str, *, plain: Collection[str] = ()
    ) -> dict[str, Secret] | None:
        """Return the secret."""
        assert (mount, path) == PLACE
        if self.held is None:
            return None
        return {
            name: Secret.join(value) if name in plain else Secret(str(value))
            for name, value in self.held.items()
            if isinstance(value, str)
        } | {name: value for name, value in self.held.items() if isinstance(value, Secret)}

    def write_secret(self, mount: str, path: str, data: Mapping[str, Any], *, cas: int) -> int:
        """Write it, if it is not there."""
        assert (mount, path, cas) == (*PLACE, 0)
        if self.meanwhile:
            self.held = dict(self.meanwhile)
        if self.refusal or self.held:
            raise self.refusal or SecretError("denied")
        self.held = dict(data)
        return 1


def as_vault(store: Store) -> Vault:
    """Return the double as what the functions take."""
    return cast("Vault", store)


def test_the_first_makes_it_and_the_next_find_it() -> None:
    """With a new id and a new key, which are then the same for all."""
    store = Store()
    assert read_deployment(as_vault(store), CONFIG) is None
    made = make_deployment(as_vault(store), CONFIG)
    assert made == make_deployment(as_vault(store), CONFIG)
    assert made == need_deployment(as_vault(store), CONFIG)
    assert made != make_deployment(as_vault(Store()), CONFIG)


def test_of_two_at_once_both_end_with_the_same() -> None:
    """The second one is refused, and takes what the first one wrote."""
    store = Store(meanwhile=OURS)
    found = make_deployment(as_vault(store), CONFIG)
    assert found == Deployment(id=stored_sets.DEPLOYMENT, manifest_key=stored_sets.KEY)


@pytest.mark.parametrize(
    "refusal", [SecretError("denied"), SecretStoreUnavailableError("sealed")], ids=["no", "sealed"]
)
def test_a_refusal_is_told_where_nothing_was_written(refusal: SecretError) -> None:
    """It is not taken for another one's work."""
    with pytest.raises(type(refusal), match=refusal.message):
        make_deployment(as_vault(Store(refusal=refusal)), CONFIG)


def test_where_it_is_needed_and_is_not_there() -> None:
    """The words name the path."""
    with pytest.raises(SecretError, match="no deployment at xbvault/backups/deployment") as caught:
        need_deployment(as_vault(Store()), CONFIG)
    assert caught.value.hint


@pytest.mark.parametrize(
    "held",
    [{"id": "x", "manifest_key": "k"}, {"id": stored_sets.DEPLOYMENT}, {"key": "k"}],
    ids=str,
)
def test_something_else_in_its_place_is_no_deployment(held: dict[str, str]) -> None:
    """It is neither used nor replaced."""
    store = Store(held)
    for act in (read_deployment, need_deployment, make_deployment):
        with pytest.raises(SecretError, match="holds no deployment"):
            act(as_vault(store), CONFIG)
    assert store.held == held
