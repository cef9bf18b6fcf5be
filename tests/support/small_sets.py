"""Small backup sets in a laboratory's repository, made as a backup makes them, with keys in Vault."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pyrage
import stored_sets
from lab import model

from orchestrator import bundle, config, keys, vault
from orchestrator.models import Secret
from orchestrator.repository import deployment, names, set_keys
from orchestrator.repository.manifest import StoredFile, seal_manifest
from orchestrator.repository.names import format_moment

if TYPE_CHECKING:
    from datetime import datetime

    from clone_lab import CloneLab

    from orchestrator.config import Config

ROWS = b"a row" * 9000
"""The stream of each."""


def load_config(lab: CloneLab) -> Config:
    """Return the configuration of the laboratory."""
    return config.load(lab.directory / "xbvault.toml")


def store_set(lab: CloneLab, moment: datetime, *, parts: int = 1) -> str:
    """Store a small set of the master in the first repository, and its keys; return its name."""
    loaded = load_config(lab)
    door = vault.Vault.from_config(loaded.vault)
    ours = deployment.make_deployment(door, loaded)
    backup_id = keys.new_backup_id("master", moment)
    transition_key, (identity, recipient) = keys.new_transition_key(), keys.new_age_identity()
    path = set_keys.path_of(backup_id)
    record = {"kind": "backup", "state": "active", "created": moment.isoformat(timespec="seconds")}
    door.write_custom_metadata(loaded.vault.mount, path, record)
    fields = {"key": transition_key, set_keys.AGE_IDENTITY: identity}
    door.write_secret(loaded.vault.mount, path, fields, cas=0)
    sealed = pyrage.encrypt(ROWS, [pyrage.x25519.Recipient.from_str(recipient)])
    size = -(-len(sealed) // parts)
    content = {
        names.name_part(number + 1): sealed[number * size : (number + 1) * size]
        for number in range(parts)
    }
    content |= {
        "key-bundle.json": bundle.seal_bundle(
            {"1": {1: Secret("a1" * 32)}}, transition_key, backup_id
        ),
    }
    *stored, other = (
        StoredFile(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in content.items()
    )
    document = stored_sets.make_manifest(
        backup_id=backup_id,
        deployment=ours.id,
        host="master",
        began_at=format_moment(moment),
        ended_at=format_moment(moment),
        stream_bytes=len(ROWS),
        part_bytes=size,
        parts=tuple(stored),
        files=(other,),
        age_recipient=recipient,
        key_path=path,
    )
    content["manifest.json"] = seal_manifest(document, ours.manifest_key)
    (root,) = [host.root for host in model.load(lab.directory).store_hosts if host.name == "store"]
    folder = root / "srv/backups" / backup_id
    folder.mkdir(mode=0o700)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return backup_id
