"""Runs the test doubles of xtrabackup and xbstream, and makes small backup sets for them."""

from __future__ import annotations

import dataclasses
import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from simulators import metadata
from simulators.keysfile import TablespaceKey, seal_keys
from simulators.tablespaces import PAGE_BYTES, rewrite_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIMULATORS = Path(__file__).parents[2] / "fixtures" / "simulators"
TRANSITION_KEY = "0123456789abcdef0123456789abcdef"
DONOR_UUID = "11111111-2222-3333-4444-555555555555"
DONOR_KEY = b"d" * 32
SPACE_KEY = TablespaceKey(key=b"k" * 32, iv=b"i" * 32)
SPACE_ID = 25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """How a call of a tool ended."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def is_ok(self) -> bool:
        """Whether it succeeded by its own words as well."""
        return self.status == 0 and self.stderr.endswith("completed OK!\n")


def run_tool(
    name: str,
    *words: str | Path,
    stdin: bytes = b"",
    settings: Mapping[str, str | Path] | None = None,
    timeout_seconds: float = 120,
) -> Done:
    """Run a double in a session of its own, so that it asks on stdin.

    Args:
        name: `xtrabackup` or `xbstream`.
        words: Its command line.
        stdin: What it reads.
        settings: Knobs, as their keys in the file.
        timeout_seconds: Longest time that it may take.
    """
    knobs = {f"XBSIM_{key.upper()}": str(value) for key, value in (settings or {}).items()}
    done = subprocess.run(
        [SIMULATORS / name, *words],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=timeout_seconds,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **knobs},
    )
    return Done(status=done.returncode, stdout=done.stdout, stderr=done.stderr.decode())


def write_tablespace(path: Path, *, number: int = 1) -> Path:
    """Write the first page of an encrypted tablespace, under the donor's master key."""
    page = bytearray(PAGE_BYTES)
    struct.pack_into(">I", page, 34, SPACE_ID)
    struct.pack_into(">I", page, 54, 0x6021)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page)
    rewrite_header(path, SPACE_KEY, server_uuid=DONOR_UUID, number=number, master_key=DONOR_KEY)
    return path


def write_set(
    directory: Path, *, state: str = "full-backuped", has_keys: bool = True, number: int = 1
) -> Path:
    """Write a backup set with one encrypted table, `shop/customer`, and a plain file."""
    write_tablespace(directory / "shop" / "customer.ibd", number=number)
    (directory / "ib_buffer_pool").write_text("1,2\n")
    checkpoints = f"backup_type = {state}\nfrom_lsn = 0\nto_lsn = 1\nlast_lsn = 2\n"
    (directory / "xtrabackup_checkpoints").write_text(checkpoints)
    (directory / metadata.TABLESPACES).write_text(metadata.tablespaces())
    (directory / "xtrabackup_logfile").write_text("redo")
    (directory / "xtrabackup_binlog_info").write_text("binlog.000001\t4\n")
    (directory / "xtrabackup_info").write_text("server_version = 9.7.4\n")
    config = f"[mysqld]\nserver_id=1\nserver_uuid={DONOR_UUID}\nmaster_key_id={number}\n"
    (directory / "backup-my.cnf").write_text(config)
    if has_keys:
        sealed = seal_keys(TRANSITION_KEY, {SPACE_ID: SPACE_KEY})
        (directory / "xtrabackup_keys").write_bytes(sealed)
    return directory


def write_key_file(path: Path, *lines: str, key: str = TRANSITION_KEY) -> Path:
    """Write an option file with the transition key, and further lines below [xtrabackup]."""
    path.write_text("\n".join(["[xtrabackup]", f'transition-key="{key}"', *lines, ""]))
    path.chmod(0o600)
    return path


def prepare(directory: Path, settings: Mapping[str, str | Path] | None = None) -> Done:
    """Prepare a set, with the transition key on stdin."""
    words: Sequence[str] = ("--prepare", f"--target-dir={directory}", "--transition-key")
    return run_tool("xtrabackup", *words, stdin=f"{TRANSITION_KEY}\n".encode(), settings=settings)
