"""The commands that read and write files, run here, and secrets in files."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import PreconditionError
from orchestrator.remote.files import find_secret, make_write_command, parse_environment_file

if TYPE_CHECKING:
    from pathlib import Path


def test_environment_file() -> None:
    """Names and values are read as systemd does: comments, spaces and quotes around values."""
    text = "#A=1\n;B=2\n C = 3 \nD=\"a 'b' = c\"\nE='x\"'\nF=\nno equals\nG='\nH=\"a'\n"
    assert parse_environment_file(text) == {
        "C": "3",
        "D": "a 'b' = c",
        "E": 'x"',
        "F": "",
        "G": "'",
        "H": "\"a'",
    }


def test_empty_value_is_no_secret() -> None:
    """A name without a value is as good as missing."""
    with pytest.raises(PreconditionError, match="no TOKEN in /env") as caught:
        find_secret(b"TOKEN=\n", "/env", "TOKEN", "db1")
    assert caught.value.host == "db1"


def write(path: Path, content: bytes, *, size: int) -> subprocess.CompletedProcess[bytes]:
    """Run the command that writes files, as a host would."""
    return subprocess.run(
        make_write_command(str(path), size_bytes=size, mode=0o600, owner=""),
        input=content,
        capture_output=True,
        check=False,
    )


def test_content_that_was_cut_off_is_not_put_in_place(tmp_path: Path) -> None:
    """A connection that breaks in the middle leaves the old content and no temporary file."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    ended = write(path, b"only a pa", size=20)
    assert (ended.returncode, ended.stderr) == (65, b"the content was cut off\n")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert write(path, b"new", size=3).returncode == 0
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_is_replaced(tmp_path: Path) -> None:
    """A symbolic link is replaced by the file; what it pointed to stays as it is."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    assert write(link, b"new", size=3).returncode == 0
    assert not link.is_symlink()
    assert (link.read_bytes(), target.read_bytes()) == (b"new", b"old")
