"""Stored backups: what is concluded from the tool's own files, and from the size of a stream."""

from __future__ import annotations

import io

import pyrage
import pytest

from orchestrator.errors import VerificationError
from orchestrator.models import BackupPlan, Coordinates
from orchestrator.repository.manifest import StoredFile
from orchestrator.steps import backup

PLAN = BackupPlan(
    run_id="20261121T210500Z-store-1d4e77c0",
    backup_id="20261121T210500Z-db1-6f2c09ab",
    donor="db1",
    recipient="store",
    flavor="mariadb",
    server_version="10.11.19",
    donor_mount="keys/db1",
    parallel=2,
    set_dir="/srv/xbvault/20261121T210500Z-db1-6f2c09ab",
    part_bytes=100,
)
INFO = "tool_name = mariadb-backup\n{}\ninnodb_from_lsn = 0\n"
POSITION = "binlog_pos = filename 'bin.000002', position '13092596', GTID of the last change '{}'"


def test_coordinates_are_read_from_the_tools_information() -> None:
    """As the file of coordinates in the set has them, which is inside the encrypted stream."""
    text = INFO.format(POSITION.format("0-11-5884"))
    assert backup.read_position(PLAN, text) == Coordinates(
        file="bin.000002", position=13092596, gtid="0-11-5884"
    )
    bare = INFO.format("binlog_pos = filename 'bin.000002', position '400'")
    assert backup.read_position(PLAN, bare) == Coordinates(file="bin.000002", position=400)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "binlog_pos = filename 'bin.000002'",
        "binlog_pos = filename 'bin.000002', position 'x'",
        "binlog_pos = filename 'bin', position '400'",
        "x binlog_pos = filename 'bin.000002', position '400'",
        POSITION.format("no gtid"),
    ],
)
def test_information_without_coordinates_is_refused(line: str) -> None:
    """A position that nobody can read is none to go on from."""
    with pytest.raises(VerificationError):
        backup.read_position(PLAN, INFO.format(line))


def test_a_donor_without_a_binary_log_has_no_coordinates() -> None:
    """The tool says so by an empty line."""
    assert backup.read_position(PLAN, INFO.format("binlog_pos = ")) is None


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072, 200_000])
def test_the_size_before_age_is_known_from_the_size_after_it(size: int) -> None:
    """By the format; an implementation of it has to agree."""
    identity = pyrage.x25519.Identity.generate()
    sealed = io.BytesIO()
    pyrage.encrypt_io(io.BytesIO(b"x" * size), sealed, [identity.to_public()])
    grease = len(sealed.getvalue()) - size - 16 * max(1, -(-size // 65536)) - 184
    assert backup.count_clear_bytes(len(sealed.getvalue()) - grease) == size


def test_less_than_age_writes_is_no_stream() -> None:
    """Not even of nothing."""
    assert backup.count_clear_bytes(200) == 0
    with pytest.raises(VerificationError, match="199 bytes are no stream"):
        backup.count_clear_bytes(199)


def part(number: int, size: int = 100) -> StoredFile:
    """Return a part of the ledger."""
    return StoredFile(name=f"part-{number:06}.age", bytes=size, sha256="a" * 64)


@pytest.mark.parametrize(
    ("parts", "received", "ok"),
    [
        ((part(1), part(2), part(3, 7)), 207, True),
        ((part(1),), 100, True),
        ((part(1), part(2, 7)), 108, False),
        ((part(1, 99), part(2, 7)), 106, False),
        ((part(2), part(1, 7)), 107, False),
        ((part(1), part(3, 7)), 107, False),
        ((), 0, False),
    ],
)
def test_parts_that_are_not_the_whole_stream(
    parts: tuple[StoredFile, ...],
    received: int,
    ok: bool,  # noqa: FBT001 - of a table
) -> None:
    """One missing, one in another place, one of another size, or none at all."""
    found = backup.judge_parts(PLAN, parts, received)
    assert found.ok is ok
    assert str(received) in found.evidence
