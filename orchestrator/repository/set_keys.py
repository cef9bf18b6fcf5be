"""The keys of a stored set in Vault, and why they are not there.

Transition key and ``age`` identity are one secret at ``transition-keys/<backup_id>``, so that one act
destroys both. Its custom metadata is the record of the set's keys, which outlives them.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from orchestrator import key_uses
from orchestrator.errors import SecretError, VerificationError
from orchestrator.models import BACKUP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.config import Config
    from orchestrator.models import Secret
    from orchestrator.vault import Vault

TRANSITION_KEY: Final = "key"
"""The field that holds what its keys are sealed under."""
AGE_IDENTITY: Final = "age_identity"
"""The field that holds what a stored set is decrypted with."""
AGE_RECIPIENT: Final = "age_recipient"
"""The record's name for the public key of it."""
DESTROYED: Final = "destroyed"
"""The record's state when no version of the keys can be read any more."""
_LONGEST: Final = 200
"""Of a text in the record; Vault takes 512 bytes."""
_HELD: Final = "held-by."
"""The record's name for each repository that has, or is to have, the set: so that keys are not
destroyed on the word of a listing, which misses what is not mounted or still on its way."""


def path_of(backup_id: str) -> str:
    """Return the path of a set's keys, below the mount of our own records."""
    return f"{key_uses.FOLDER}/{backup_id}"


def need_identity(vault: Vault, config: Config, backup_id: str) -> Secret:
    """Return what a set is decrypted with.

    Raises:
        SecretError: It was destroyed, or is not there.
    """
    return _need(vault, config, backup_id, AGE_IDENTITY)


def need_transition_key(vault: Vault, config: Config, backup_id: str) -> Secret:
    """Return what the keys of a set are sealed under.

    Raises:
        SecretError: It was destroyed, or is not there.
    """
    return _need(vault, config, backup_id, TRANSITION_KEY)


def _need(vault: Vault, config: Config, backup_id: str, field: str) -> Secret:
    found = vault.read_secret(config.vault.mount, path_of(backup_id))
    if found and field in found:
        return found[field]
    raise explain_missing(vault, config, backup_id)


def hold(vault: Vault, config: Config, backup_id: str, repository: str) -> bool:
    """Write down that a repository has a set, or is about to; return whether its keys are there."""
    mount, path = config.vault.mount, path_of(backup_id)
    metadata = vault.read_metadata(mount, path)
    newest = metadata.versions.get(metadata.current_version) if metadata else None
    if metadata and _HELD + repository not in metadata.custom:
        held = {_HELD + repository: dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
        vault.write_custom_metadata(mount, path, {**metadata.custom, **held})
    return newest is not None and not newest.destroyed and not newest.deleted


def let_go(vault: Vault, config: Config, backup_id: str, repository: str) -> None:
    """Write down that a repository has a set no more."""
    mount, path = config.vault.mount, path_of(backup_id)
    metadata = vault.read_metadata(mount, path)
    if metadata and _HELD + repository in metadata.custom:
        left = {name: text for name, text in metadata.custom.items() if name != _HELD + repository}
        vault.write_custom_metadata(mount, path, left)


def list_others(vault: Vault, config: Config, backup_id: str, repository: str) -> tuple[str, ...]:
    """Return the repositories beside this one that have a set, by its record."""
    metadata = vault.read_metadata(config.vault.mount, path_of(backup_id))
    return find_others(metadata.custom if metadata else {}, repository)


def find_others(record: Mapping[str, str], repository: str) -> tuple[str, ...]:
    """Return the repositories beside this one that a record names."""
    held = (name.removeprefix(_HELD) for name in sorted(record) if name.startswith(_HELD))
    return tuple(name for name in held if name != repository)


def explain_missing(vault: Vault, config: Config, backup_id: str) -> SecretError:
    """Return why Vault has no keys of a set: who destroyed them and when, if that is known."""
    metadata = vault.read_metadata(config.vault.mount, path_of(backup_id))
    record = metadata.custom if metadata else {}
    if record.get("state") == DESTROYED:
        return SecretError(
            f"the keys of backup set {backup_id} were destroyed on {record.get('destroyed', '?')} by "
            f"{record.get('destroyed_by', '?')}",
            hint="nobody can read this set any more; take another one",
        )
    return SecretError(
        f"no keys of backup set {backup_id} at {config.vault.mount}/{path_of(backup_id)}",
        hint="are they in another Vault, or under another vault.mount?",
    )


def is_recorded(vault: Vault, config: Config, backup_id: str) -> bool:
    """Return whether Vault has on record a stored set of that name, and not a clone."""
    metadata = vault.read_metadata(config.vault.mount, path_of(backup_id))
    return bool(metadata and metadata.versions and metadata.custom.get("kind") == BACKUP)


def need_record(vault: Vault, config: Config, backup_id: str) -> None:
    """See that Vault has on record a stored set, and no clone: whose key its own run looks after.

    Raises:
        SecretError: It has none, or that of a clone.
    """
    if is_recorded(vault, config, backup_id):
        return
    metadata = vault.read_metadata(config.vault.mount, path_of(backup_id))
    if metadata is None or not metadata.versions:
        raise explain_missing(vault, config, backup_id)
    raise SecretError(
        f"the key of {backup_id} is that of a clone, not of a stored backup",
        hint="its run destroys it: `xbvault runs list`",
    )


def destroy(vault: Vault, config: Config, backup_id: str, *, by: str, reason: str) -> bool:
    """Destroy every version of a set's keys, and keep the record of them, with who, when and why.

    That it will be done is written down first, so that who is cut off in between leaves no keys
    that went without a word. Keys that are destroyed already keep their first record.

    Args:
        vault: The door to Vault.
        config: The configuration.
        backup_id: The set.
        by: Who does it.
        reason: Why.

    Returns:
        Whether there were keys to destroy.

    Raises:
        SecretError: There never were any, or Vault refuses.
        VerificationError: They can still be read afterwards.
    """
    mount, path = config.vault.mount, path_of(backup_id)
    metadata = vault.read_metadata(mount, path)
    if metadata is None or not metadata.versions:
        raise explain_missing(vault, config, backup_id)
    alive = [number for number, version in metadata.versions.items() if not version.destroyed]
    if metadata.custom.get("state") != DESTROYED:
        record = {
            "destroyed": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "destroyed_by": by[:_LONGEST],
            "reason": reason[:_LONGEST],
            "state": DESTROYED,
        }
        told = {name: text for name, text in record.items() if text}  # Vault takes no empty one
        vault.write_custom_metadata(mount, path, {**metadata.custom, **told})
    if alive:
        vault.destroy_versions(mount, path, alive)
    if vault.read_secret(mount, path) is not None:
        raise VerificationError(f"the keys at {mount}/{path} can still be read")
    return bool(alive)


def record_proof(vault: Vault, config: Config, backup_id: str) -> str:
    """Write down that a set whose keys were destroyed was tried and could not be read.

    Returns:
        When that was.

    Raises:
        SecretError: Vault refuses.
    """
    mount, path = config.vault.mount, path_of(backup_id)
    metadata = vault.read_metadata(mount, path)
    proved = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    custom = dict(metadata.custom) if metadata else {}
    vault.write_custom_metadata(mount, path, {**custom, "proved": proved})
    return proved
