"""The format of xbstream, against itself and against the real mbstream of Debian."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from simulators import streamcli
from simulators.stream import StreamError, Writer, extract

XBSTREAM = Path(__file__).parents[3] / "fixtures" / "simulators" / "xbstream"
FILES = {"a": b"one", "db/t.ibd": os.urandom(70_000), "odd name; 'x": b"\0" * 9}


def stream_of(files: dict[str, bytes]) -> bytes:
    """Return a stream with some files."""
    out = io.BytesIO()
    for name, content in files.items():
        Writer(out).write(name, [content])
    return out.getvalue()


def contents(directory: Path) -> dict[str, bytes]:
    """Return the files below a directory."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def write_files(directory: Path) -> Path:
    """Put the files into a directory."""
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def run(argv: list[str | Path], stdin: bytes = b"", *, cwd: Path | None = None) -> bytes:
    """Run a command that must succeed, and return its stdout."""
    return subprocess.run(
        argv, input=stdin, cwd=cwd, stdout=subprocess.PIPE, check=True, timeout=60
    ).stdout


def test_a_stream_survives_the_round_trip(tmp_path: Path) -> None:
    """What was written comes out, an empty file as well."""
    files = {**FILES, "empty": b""}
    names: list[str] = []
    extract(io.BytesIO(stream_of(files)), tmp_path, on_file=names.append)
    assert contents(tmp_path) == files
    assert names == list(files)


def test_mbstream_reads_it(tmp_path: Path) -> None:
    """The real tool of the same format extracts what the double wrote."""
    source, goal = write_files(tmp_path / "from"), tmp_path / "to"
    goal.mkdir()
    stream = run([XBSTREAM, "-c", *FILES], cwd=source)
    run(["mbstream", "-x", "-C", goal], stream)
    assert contents(goal) == FILES


def test_it_reads_mbstream(tmp_path: Path) -> None:
    """The double extracts what the real tool of the same format wrote."""
    source, goal = write_files(tmp_path / "from"), tmp_path / "to"
    goal.mkdir()
    stream = run(["mbstream", "-c", *FILES], cwd=source)
    run([XBSTREAM, "-x", f"--directory={goal}", "--parallel=2"], stream)
    assert contents(goal) == FILES


def test_holes_are_filled_by_nothing(tmp_path: Path) -> None:
    """A sparse chunk is written behind the holes that it names."""
    path = b"sparse"
    head = b"XBSTCK01" + struct.pack("<BcI", 0, b"S", len(path)) + path
    body = b"abcdef"
    chunk = struct.pack("<IQQI", 2, len(body), 0, zlib.crc32(body))
    chunk += struct.pack("<II", 4, 2) + struct.pack("<II", 3, 4)
    end = b"XBSTCK01" + struct.pack("<BcI", 0, b"E", len(path)) + path
    extract(io.BytesIO(head + chunk + body + end), tmp_path)
    assert (tmp_path / "sparse").read_bytes() == b"\0\0\0\0ab\0\0\0cdef"


@pytest.mark.parametrize("cut", [1, 10, 40, 60_000])
def test_a_cut_inside_of_a_chunk_is_noticed(cut: int, tmp_path: Path) -> None:
    """The real tool's words and status, wherever in a chunk the stream ends."""
    done = subprocess.run(
        [XBSTREAM, "-x", "-C", tmp_path],
        input=stream_of({"db/t.ibd": FILES["db/t.ibd"]})[:cut],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, b"xb_stream_read_chunk(): my_read() failed.\n")


def test_a_cut_between_two_files_is_not_noticed(tmp_path: Path) -> None:
    """A stream without its last file extracts well: nothing in it says how many there are."""
    run([XBSTREAM, "-x", "-C", tmp_path], stream_of({"a": b"one"}))
    assert contents(tmp_path) == {"a": b"one"}


def test_a_cut_before_the_end_of_a_file_is_noticed(tmp_path: Path) -> None:
    """Payload without the chunk that ends its file is an error."""
    whole = stream_of({"a": b"one"})
    end = len(stream_of({"a": b""}))
    with pytest.raises(StreamError, match="ended inside of a"):
        extract(io.BytesIO(whole[:-end]), tmp_path)


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    """The checksum of a chunk is compared."""
    stream = bytearray(stream_of({"a": b"one"}))
    stream[stream.index(b"one")] ^= 1
    with pytest.raises(StreamError, match="invalid checksum"):
        extract(io.BytesIO(bytes(stream)), tmp_path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up"])
def test_paths_stay_below_the_directory(name: str, tmp_path: Path) -> None:
    """A stream cannot write elsewhere."""
    with pytest.raises(StreamError, match="refused path"):
        extract(io.BytesIO(stream_of({name: b"x"})), tmp_path)


def test_files_are_never_overwritten(tmp_path: Path) -> None:
    """A file that is there stops the extraction, and keeps what it holds."""
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(StreamError, match="Errcode: 17"):
        extract(io.BytesIO(stream_of({"a": b"one"})), tmp_path)
    assert (tmp_path / "a").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "words",
    [[], ["-x", "-c"], ["-x", "--no-such"], ["-x", "--decompress"], ["-x", "-C", "/no/such"]],
)
def test_bad_calls_are_refused(words: list[str]) -> None:
    """No mode, two modes, unknown options, and a directory that is not there."""
    assert streamcli.main(words) == 1
