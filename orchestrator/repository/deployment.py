"""This deployment of ours, that is one store in Vault: its id, and the key of its manifests.

Both stand in one secret, which is made once and never replaced. So a manifest can be proved even
after the keys of its own set were destroyed.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from orchestrator import keys, log
from orchestrator.errors import SecretError, SecretStoreUnavailableError
from orchestrator.repository.names import DEPLOYMENT_PATH

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.models import Secret
    from orchestrator.vault import Vault

_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deployment:
    """What tells our backup sets from those of others.

    Attributes:
        id: Stands in every manifest.
        manifest_key: Manifests are authenticated with it.
    """

    id: str
    manifest_key: Secret


def read_deployment(vault: Vault, config: Config) -> Deployment | None:
    """Return the deployment; None if none was made yet.

    Raises:
        SecretError: Vault refuses, or holds something else in its place.
    """
    found = vault.read_secret(config.vault.mount, DEPLOYMENT_PATH, plain=("id",))
    if found is None:
        return None
    key = found.get("manifest_key")
    name = found["id"].masked if "id" in found else ""
    if key is None or not _ID.fullmatch(name):
        raise SecretError(
            f"{config.vault.mount}/{DEPLOYMENT_PATH} holds no deployment",
            hint="it was altered: an earlier version of that secret may be the right one",
        )
    return Deployment(id=name, manifest_key=key)


def need_deployment(vault: Vault, config: Config) -> Deployment:
    """Return the deployment, which the first backup made.

    Raises:
        SecretError: There is none, or Vault refuses.
    """
    found = read_deployment(vault, config)
    if found is None:
        raise SecretError(
            f"no deployment at {config.vault.mount}/{DEPLOYMENT_PATH}: no backup was stored yet",
            hint="if there are backup sets, their keys are in another Vault: see [vault]",
        )
    return found


def make_deployment(vault: Vault, config: Config) -> Deployment:
    """Make the deployment unless it is there, and read it back.

    Of two that make it at once, one is refused, and both come back with what the other one wrote.

    Raises:
        SecretError: Vault refuses.
    """
    found = read_deployment(vault, config)
    if found is not None:
        return found
    new = Deployment(id=keys.new_deployment_id(), manifest_key=keys.new_manifest_key())
    fields: dict[str, str | Secret] = {"id": new.id, "manifest_key": new.manifest_key}
    try:
        vault.write_secret(config.vault.mount, DEPLOYMENT_PATH, fields, cas=0)
    except SecretStoreUnavailableError:
        raise
    except SecretError:
        # Without the right to update, who comes second is told that it is not allowed.
        found = read_deployment(vault, config)
        if found is None:
            raise
        return found
    log.get().info("deployment.made", id=new.id)
    return need_deployment(vault, config)
