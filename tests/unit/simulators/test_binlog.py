"""The binlog in a backup: its header, its cut and its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators import binlog
from simulators.errors import Failure
from simulators.keysfile import TablespaceKey

ENTRY = TablespaceKey(key=b"p" * 32, iv=bytes(32))
OLD = binlog.rewrite_header(
    bytes(512) + b"events",
    ENTRY,
    key_name="MySQLReplicationKey_u_1",
    master_key=b"a" * 32,
    vector=b"v" * 16,
)


def test_a_header_is_read_back() -> None:
    """Name, password and the events behind it."""
    header = binlog.parse_header(OLD)
    assert header
    assert header.key_name == "MySQLReplicationKey_u_1"
    assert header.open_with(b"a" * 32) == ENTRY
    assert header.open_with(b"b" * 32) != ENTRY
    assert (len(OLD), OLD[512:]) == (518, b"events")


@given(name=st.text("ab-_", min_size=1, max_size=80), key=st.binary(min_size=32, max_size=32))
def test_a_header_is_put_under_any_key(name: str, key: bytes) -> None:
    """The password stays what it was, and so do the events."""
    new = binlog.rewrite_header(OLD, ENTRY, key_name=name, master_key=key, vector=b"w" * 16)
    header = binlog.parse_header(new)
    assert header
    assert (header.key_name, header.open_with(key), new[512:]) == (name, ENTRY, b"events")


def test_a_plain_binlog_has_no_header() -> None:
    """Nor has an empty file."""
    assert binlog.parse_header(b"\xfebin....") is None
    assert binlog.parse_header(b"") is None


def test_half_a_header_is_refused() -> None:
    """A field that is missing is no header."""
    with pytest.raises(Failure, match="not complete"):
        binlog.parse_header(b"\xfdbin\x01".ljust(512, b"\0"))


def test_a_binlog_is_cut_at_the_position(tmp_path: Path) -> None:
    """The header of an encrypted one does not count."""
    path = tmp_path / "binlog.000003"
    path.write_bytes(b"\xfebin0123456789")
    assert binlog.read_binlog(path, 6) == b"\xfebin01"
    path.write_bytes(OLD)
    assert binlog.read_binlog(path, 3) == OLD[:515]


@pytest.mark.parametrize(
    ("log_bin", "file", "index", "line"),
    [
        ("", "/d/b.000003", "/d/b.index", "./b.000003\n"),
        ("new", "/d/new.000003", "/d/new.index", "./new.000003\n"),
        ("logs/new.log", "/d/logs/new.000003", "/d/logs/new.index", "./logs/new.000003\n"),
        ("/l/new", "/l/new.000003", "/l/new.index", "/l/new.000003\n"),
    ],
)
def test_a_binlog_goes_where_the_server_looks(
    log_bin: str, file: str, index: str, line: str
) -> None:
    """By the name and the directory of --log-bin; the index says the same."""
    found = binlog.place_of(Path("/d"), log_bin, "b.000003")
    assert found == (Path(file), Path(index), line)
