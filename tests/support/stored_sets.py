"""Stored backup sets to look at: manifests, folders, and the key that they are authenticated with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.models import Check, Coordinates, Secret
from orchestrator.repository import names
from orchestrator.repository.manifest import (
    FULL,
    INCREMENTAL,
    Manifest,
    StoredFile,
    TableChecksum,
)
from orchestrator.repository.sets import Entry, Folder

KEY = Secret("0123456789abcdef" * 4)
OTHER_KEY = Secret("fedcba9876543210" * 4)
DEPLOYMENT = "d1c2b3a4" * 4
OTHER_DEPLOYMENT = "fedcba9876543210" * 2
BACKUP_ID = "20261121T210500Z-db1-6f2c09ab"
OTHER_ID = "20261121T210500Z-db1-6f2c09ac"
AGE_RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
BEGAN = datetime(2026, 11, 21, 21, 5, tzinfo=UTC)
PART_BYTES = 1 << 20


def make_manifest(**changes: Any) -> Manifest:
    """Return a manifest with something in every field, and with these changes."""
    fields: dict[str, Any] = {
        "xbvault_version": "0.1.0",
        "backup_id": BACKUP_ID,
        "deployment": DEPLOYMENT,
        "host": "db1",
        "flavor": "mariadb",
        "server_version": "10.11.19-MariaDB-0+deb12u1-log",
        "tool_version": "10.11.19",
        "kind": FULL,
        "to_lsn": 12512819,
        "began_at": "2026-11-21T21:05:00Z",
        "ended_at": "2026-11-21T21:25:00.125Z",
        "coordinates": Coordinates(file="bin.000002", position=5878450, gtid="0-1-2"),
        "compress": "zstd:1",
        "stream_bytes": 2 * PART_BYTES,
        "part_bytes": PART_BYTES,
        "parts": (
            StoredFile(name="part-000001.age", bytes=PART_BYTES, sha256="a1" * 32),
            StoredFile(name="part-000002.age", bytes=PART_BYTES, sha256="a2" * 32),
            StoredFile(name="part-000003.age", bytes=712, sha256="a3" * 32),
        ),
        "files": (StoredFile(name="key-bundle.json", bytes=400, sha256="b1" * 32),),
        "age_recipient": AGE_RECIPIENT,
        "key_path": f"transition-keys/{BACKUP_ID}",
        "has_keyring": True,
        "key_versions": {"1": 7, "2": 1},
        "data_bytes": 5 * PART_BYTES,
        "layout": {"datadir": "/var/lib/mysql", "innodb_undo_directory": "/srv/undo é"},
        "checks": (Check(name="backup-completed", ok=True, evidence="completed OK!", host="db1"),),
        "checksums": (TableChecksum(schema="shop", name="a.b `c` é", checksum="12/7/99"),),
    }
    return Manifest(**(fields | changes))


def make_set(
    number: int, *, host: str = "db1", base: Manifest | None = None, days: float | None = None
) -> Manifest:
    """Return the manifest of one set of several.

    Args:
        number: Makes its name and its log sequence number.
        host: The host that it is of.
        base: The set that it builds on; None for a full one.
        days: How long after the others' begin it ended; else as many as its number.
    """
    ended = BEGAN + timedelta(days=number if days is None else days)
    return make_manifest(
        backup_id=f"{ended:%Y%m%dT%H%M%SZ}-{host}-{number:08x}",
        host=host,
        kind=INCREMENTAL if base else FULL,
        base_backup_id=base.backup_id if base else "",
        from_lsn=base.to_lsn if base else 0,
        to_lsn=1000 * number,
        ended_at=names.format_moment(ended),
    )


def make_folder(manifest: Manifest) -> Folder:
    """Return the folder of a set with all that belongs there."""
    entries = (Entry(name=file.name, bytes=file.bytes) for file in manifest.stored_files)
    return Folder(
        name=manifest.backup_id,
        entries=(*entries, Entry(name=names.MANIFEST, bytes=2000)),
        manifest=manifest,
    )
