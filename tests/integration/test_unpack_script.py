"""What extracts the streams of a chain of sets, on real pipes, with real encryption."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator import keys
from orchestrator.host import script

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

TEXTS = (b"the full set\n" * 50_000, b"an increment\n" * 7)
MORE, FAILED = 65, 74


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """Two encrypted streams, and what says how they are opened.

    Attributes:
        streams: Each as it comes.
        listed: The list for the script.
        directories: Where each goes.
    """

    streams: tuple[bytes, ...]
    listed: Path
    directories: tuple[Path, ...]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """Return two streams with an identity of their own, the second one compressed."""
    streams, lines, directories = [], [], []
    for number, text in enumerate(TEXTS):
        identity, recipient = keys.new_age_identity()
        file, directory = tmp_path / f"identity.{number}", tmp_path / f"a set {number}"
        file.write_text(identity.reveal() + "\n")
        directory.mkdir()
        packed = "zstd" if number else "none"
        clear = run(["zstd", "-c"], text) if number else text
        streams.append(run(["age", "--encrypt", "--recipient", recipient], clear))
        lines.append(f"{len(streams[-1])} {file} {packed} {directory}\n")
        directories.append(directory)
    listed = tmp_path / "chain"
    listed.write_text("".join(lines))
    return Chain(streams=tuple(streams), listed=listed, directories=tuple(directories))


def run(command: Sequence[str], text: bytes) -> bytes:
    """Return what a program makes of a text."""
    return subprocess.run(command, input=text, capture_output=True, check=True).stdout


def unpack(chain: Chain, stream: bytes, *command: str) -> tuple[int, str]:
    """Send a stream through; return the exit status, and what was said."""
    ended = subprocess.run(
        ["sh", "-c", script("unpack.sh"), "unpack", str(chain.listed), *command],
        input=stream,
        capture_output=True,
        check=False,
        timeout=30,
    )
    return ended.returncode, ended.stderr.decode()


EXTRACT = ("sh", "-c", "cat >content")


def test_each_stream_goes_to_its_directory(chain: Chain) -> None:
    """Decrypted and decompressed, byte for byte, and nothing is said."""
    assert unpack(chain, b"".join(chain.streams), *EXTRACT) == (0, "")
    found = [(directory / "content").read_bytes() for directory in chain.directories]
    assert found == list(TEXTS)


@pytest.mark.parametrize("number", [0, 1])
def test_an_altered_stream_is_found(chain: Chain, number: int) -> None:
    """By age, and those behind it are not begun."""
    streams = [bytearray(stream) for stream in chain.streams]
    streams[number][-1] ^= 1
    status, words = unpack(chain, b"".join(streams), *EXTRACT)
    assert status == FAILED
    assert f"{chain.directories[number]}: age ended with 1" in words
    assert number or not (chain.directories[1] / "content").exists()


@pytest.mark.parametrize("cut", [1, 100])
def test_a_stream_that_was_cut_is_found(chain: Chain, cut: int) -> None:
    """However little is missing."""
    status, words = unpack(chain, b"".join(chain.streams)[:-cut], *EXTRACT)
    assert status == FAILED
    assert "age ended with 1" in words


def test_a_byte_too_many_is_found(chain: Chain) -> None:
    """Behind the last one."""
    status, words = unpack(chain, b"".join(chain.streams) + b"x", *EXTRACT)
    assert (status, "more than the chain has" in words) == (MORE, True)


def test_a_program_that_fails_to_extract_is_found(chain: Chain) -> None:
    """Also where it is not the last one, and where its directory has gone."""
    once = "cat >/dev/null; [ -e ../second ] && exit 0; touch ../second; exit 3"
    status, words = unpack(chain, b"".join(chain.streams), "sh", "-c", once)
    assert (status, "sh ended with 3" in words) == (FAILED, True)
    chain.directories[0].rmdir()
    status, words = unpack(chain, b"".join(chain.streams), *EXTRACT)
    assert status == FAILED
    assert str(chain.directories[0]) in words
