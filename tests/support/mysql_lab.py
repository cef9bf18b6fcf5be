"""A laboratory with MySQL for a test, and what is asked of its servers and keyrings."""

from __future__ import annotations

import json
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clone_lab import CloneLab, running_lab
from lab import model
from mysql_tree import require_mysql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYRING = "/var/lib/mysql-keyring"
SHARED_KINDS = (
    *("schemas", "tables", "columns", "indexes", "foreign keys", "partitions"),
    *("views", "routines", "triggers", "events", "grants"),
)
"""Of `replicas.OBJECTS`, what MySQL tells in the same words."""
_KEYS = "SELECT KEY_ID FROM performance_schema.keyring_keys WHERE KEY_ID LIKE 'INNODBKey%'"


@contextmanager
def mysql_lab(directory: Path, *options: str, size: float = 0.02) -> Iterator[CloneLab]:
    """Bring a laboratory with MySQL up, and take it down; skip the test where there is no MySQL."""
    require_mysql()
    with running_lab(directory, *options, size=size, flavor="mysql") as lab:
        yield lab


def list_master_keys(lab: CloneLab, host: str) -> set[str]:
    """Return the names of the InnoDB master keys that a host's server has loaded."""
    return {row[0] for row in lab.sql(host, _KEYS)}


def list_keys_in_file(lab: CloneLab, host: str, path: str = f"{KEYRING}/keyring") -> set[str]:
    """Return the names of the keys in a keyring's file."""
    document = json.loads(lab.on(host, f"cat {shlex.quote(path)}"))
    return {element["data_id"] for element in document["elements"]}


def read_source(lab: CloneLab, host: str = "replica") -> dict[str, str]:
    """Return what a replica says of its replication; empty where there is none."""
    text = lab.on(host, "mysql -E -e 'SHOW REPLICA STATUS'")
    pairs = (line.strip().partition(": ") for line in text.splitlines() if ": " in line)
    return {name: value for name, _, value in pairs}


@contextmanager
def knobs(lab: CloneLab, host: str, **settings: Any) -> Iterator[None]:
    """Set the knobs of a host's double of XtraBackup."""
    path = model.load(lab.directory).host(host).root / "etc/mysql/xbsim.json"
    kept = path.read_text(encoding="utf-8")
    path.write_text(json.dumps({**json.loads(kept), **settings}), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(kept, encoding="utf-8")


@contextmanager
def program(lab: CloneLab, host: str, name: str, text: str) -> Iterator[None]:
    """Put a program in the place of one of a host's."""
    path = model.load(lab.directory).host(host).root / "usr/local/sbin" / name
    kept = path.readlink()
    path.unlink()
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    try:
        yield
    finally:
        path.unlink()
        path.symlink_to(kept)
