"""How a stream goes over the wire: how fast at most, compressed or not, under which cipher. Pure.

What can be asked for is parsed here, and what nobody asked for is chosen from what was measured.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

NONE: Final = "none"
"""No bound on the rate; no compression."""
AUTO: Final = "auto"
ZSTD: Final = "zstd"

_SIZE: Final = re.compile(r"([0-9]{1,15})([KMGkmg]?)")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_LARGEST_SIZE: Final = 1 << 50
_COMPRESSION: Final = re.compile(r"zstd(?::([0-9]{1,2}))?")
_LEVELS: Final = range(1, 20)
"""Those that zstd takes without ``--ultra``, which wants more memory on the recipient too."""
SAMPLE_LEVEL: Final = 1
"""Measured on pages of InnoDB: levels 3 to 9 took two to twelve times as long, for no less bytes."""

LEAST_SAMPLE_BYTES: Final = 4 << 20
"""The processor's time is told in hundredths of a second: of less data it says nothing."""
LEAST_GAIN: Final = 1.2
"""How much faster the stream must get to be worth a processor of the donor."""

NICENESS: Final = 10
POLITE: Final = ("nice", "-n", str(NICENESS), "ionice", "-c", "2", "-n", "7")
"""Put before the donor's backup tool and compressor, for the donor's server to come first.

Ten leaves them about a tenth of a processor that everybody wants (measured). Nineteen leaves one or
two hundredths: the tool holds the backup lock at its end, and copies the redo log before the server
overwrites it, so a tool that starves stops the writers that it is to spare, or fails. For the same
reason it is the last priority of the class *best effort*, and not the class *idle*, which gets
nothing at all as long as anybody else reads.
"""
POLITE_PROGRAMS: Final = ("nice", "ionice")

AES_FIRST: Final = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com"
"""Measured: 3.5 s with ChaCha20 against 2.3 s with AES for 2 GB, where the processor has AES."""
CHACHA_FIRST: Final = "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes256-gcm@openssh.com"


def parse_rate(text: str) -> int:
    """Return the bytes per second that a text such as ``50M`` says; 0 for ``none``.

    K, M and G are binary, as for pv.

    Raises:
        ValueError: It says none, or less than one byte.
    """
    if text == NONE:
        return 0
    try:
        return parse_size(text)
    except ValueError as error:
        raise ValueError("must be bytes per second above 0, such as 50M or 1G, or none") from error


def parse_size(text: str) -> int:
    """Return the bytes that a text such as ``256M`` says; K, M and G are binary.

    Raises:
        ValueError: It says none, or less than one byte.
    """
    found = _SIZE.fullmatch(text)
    size = int(found.group(1)) * _UNITS[found.group(2).lower()] if found else 0
    if not 0 < size <= _LARGEST_SIZE:
        raise ValueError("must be a size above 0, such as 256M or 1G")
    return size


def parse_compression(text: str) -> str:
    """Return ``auto``, ``none`` or ``zstd:LEVEL``; without a level, the lowest is meant.

    Raises:
        ValueError: It is none of these.
    """
    if text in (AUTO, NONE):
        return text
    found = _COMPRESSION.fullmatch(text)
    level = int(found.group(1) or SAMPLE_LEVEL) if found else 0
    if level not in _LEVELS:
        raise ValueError(
            f"must be auto, none, zstd or zstd:LEVEL, of {_LEVELS[0]} to {_LEVELS[-1]}"
        )
    return f"{ZSTD}:{level}"


def compress_command(compress: str) -> tuple[str, ...]:
    """Return the command that compresses stdin to stdout; empty for ``none``.

    With one thread: the donor's other processors are its server's.

    Raises:
        ValueError: It is no compression.
    """
    _, _, level = parse_compression(compress).partition(":")
    return (ZSTD, f"-{level}", "-T1", "-q", "-c") if level else ()


def decompress_command(compress: str) -> tuple[str, ...]:
    """Return the command that undoes `compress_command`; empty for ``none``.

    Raises:
        ValueError: It is no compression.
    """
    return (ZSTD, "-d", "-q", "-c") if compress_command(compress) else ()


def choose_ciphers(*, has_aes: bool) -> str:
    """Return the ciphers for OpenSSH, the best first.

    Args:
        has_aes: Whether the processors of both ends have instructions for AES.
    """
    return AES_FIRST if has_aes else CHACHA_FIRST


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """What came of a part of the donor's data when it was compressed to nowhere.

    Attributes:
        bytes: Size of the part.
        compressed_bytes: What it came to.
        seconds: Of a processor, that zstd took.
    """

    bytes: int
    compressed_bytes: int
    seconds: float

    @property
    def ratio(self) -> float:
        """How many times smaller it became."""
        return self.bytes / max(self.compressed_bytes, 1)

    @property
    def bytes_per_second(self) -> float:
        """How fast zstd takes such data in."""
        return self.bytes / max(self.seconds, 0.01)

    @property
    def shown(self) -> str:
        """For a reader."""
        return (
            f"a sample of {self.bytes / 1e6:.0f} MB came to {100 / self.ratio:.0f} % of its size, "
            f"at {self.bytes_per_second / 1e6:.0f} MB/s"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
    """Something that the wire cannot be faster than.

    Attributes:
        bytes_per_second: How fast.
        what: What it is, for a reader.
    """

    bytes_per_second: float
    what: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Whether a stream is compressed, and why.

    Attributes:
        compress: ``none`` or ``zstd:LEVEL``.
        reason: What it was concluded from.
        ratio: How many times smaller the stream gets; 1 where that is not known.
    """

    compress: str
    reason: str
    ratio: float = 1.0


def choose_compression(sample: Sample | None, bounds: tuple[Bound, ...]) -> Choice:
    """Choose whether to compress, where nobody has said it.

    A wire can be slower than what is known of it: then compression pays all the more. So the lowest
    bound is enough to say yes, and no bound at all is a no.

    Args:
        sample: Of the donor's data; None if it could not be taken.
        bounds: What is known of the wire.
    """
    if sample is None or sample.bytes < LEAST_SAMPLE_BYTES:
        return Choice(compress=NONE, reason="there is too little data to take a sample of")
    if sample.ratio < LEAST_GAIN:
        # so do the pages of an encrypted server
        return Choice(compress=NONE, reason=f"{sample.shown}: such data does not compress")
    if not bounds:
        reason = f"how fast the wire is could not be found out; {sample.shown}"
        return Choice(compress=NONE, reason=reason)
    wire = min(bounds, key=lambda bound: bound.bytes_per_second)
    with_it = min(sample.bytes_per_second, wire.bytes_per_second * sample.ratio)
    pays = with_it >= LEAST_GAIN * wire.bytes_per_second
    reason = f"{sample.shown}; {wire.what} lets {wire.bytes_per_second / 1e6:.0f} MB/s through"
    if not pays:
        return Choice(compress=NONE, reason=f"it would not be faster: {reason}")
    return Choice(compress=f"{ZSTD}:{SAMPLE_LEVEL}", reason=reason, ratio=sample.ratio)
