"""What compares the parts of a set with its manifest, on real pipes, whoever breaks them first."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator.host import script

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

PARTS = [
    random.Random(seed).randbytes(size) for seed, size in enumerate((900_000, 900_000, 12_345))
]
ANOTHER, GONE = 65, 74


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """How the script ended.

    Attributes:
        status: Its exit status.
        words: What it said.
        passed: What came through.
    """

    status: int
    words: str
    passed: bytes


def compare(folder: Path, stream: bytes, takes: int | None = None) -> Ended:
    """Send a stream through, for something that takes all of it, or so many bytes."""
    ledger = folder / "parts"
    ledger.write_text(
        "".join(
            f"{hashlib.sha256(part).hexdigest()} {len(part)} part-{number:06d}.age\n"
            for number, part in enumerate(PARTS, 1)
        )
    )
    command = ["sh", "-c", script("parts.sh"), "parts", str(ledger), script("double.pl")]
    reader = ["cat"] if takes is None else ["head", "-c", str(takes)]
    (folder / "stream").write_bytes(stream)
    with (
        (folder / "stream").open("rb") as source,
        subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as parts,
        subprocess.Popen(reader, stdin=parts.stdout, stdout=subprocess.PIPE) as taker,
    ):
        assert parts.stdout
        parts.stdout.close()
        passed, _ = taker.communicate(timeout=30)
        assert parts.stderr
        words = parts.stderr.read().decode()
        return Ended(status=parts.wait(timeout=30), words=words, passed=passed)


def flip(at: int) -> bytes:
    """Return the stream with a byte altered."""
    stream = bytearray(b"".join(PARTS))
    stream[at] ^= 1
    return bytes(stream)


def test_a_whole_stream_passes_as_it_is(tmp_path: Path) -> None:
    """Byte for byte, and nothing is said."""
    stream = b"".join(PARTS)
    assert compare(tmp_path, stream) == Ended(status=0, words="", passed=stream)


@pytest.mark.parametrize("takes", [None, 1, 300_000, 1_000_000])
@pytest.mark.parametrize(("at", "name"), [(4096, "part-000001"), (899_999, "part-000001")])
def test_an_altered_part_is_named_although_its_reader_has_gone(
    tmp_path: Path, takes: int | None, at: int, name: str
) -> None:
    """What decrypts ends at an altered byte, long before its part has."""
    ended = compare(tmp_path, flip(at), takes)
    assert ended.status == ANOTHER
    assert ended.words.endswith(
        f"xbvault parts: {name}.age is not the part that the manifest names: its SHA-256 differs\n"
    )


def test_a_reader_that_goes_of_its_own_accord_is_told_from_that(tmp_path: Path) -> None:
    """No part is blamed for it."""
    ended = compare(tmp_path, b"".join(PARTS), takes=100)
    assert ended.status == GONE
    assert ended.words.endswith("xbvault parts: Broken pipe: what reads the stream has gone\n")


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"".join(PARTS)[:-1], "part-000003.age is not the part"),
        (b"".join(PARTS[:2]), "part-000003.age is not the part"),
        (b"".join([*PARTS, b"x"]), "there is more than the manifest names"),
        (b"".join([PARTS[1], PARTS[0], PARTS[2]]), "part-000001.age is not the part"),
    ],
)
def test_a_stream_of_another_length_or_order_is_refused(
    tmp_path: Path, stream: bytes, words: str
) -> None:
    """Not a byte less, not a byte more."""
    ended = compare(tmp_path, stream)
    assert ended.status == ANOTHER
    assert words in ended.words
