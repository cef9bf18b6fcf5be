"""Spoils an mbstream that passes from stdin to stdout, and always ends with 0.

``stream_filter.py cut-in-chunk | cut-at-file | flip | drop NAME``. Runs on a host of the laboratory, with
nothing but the standard library. A chunk is: the magic, a byte of flags, a byte of type, the length
of the path (4 bytes, little-endian) and the path; with type P also the payload's length and offset
(8 bytes each), its CRC-32 and the payload; with type E, the end of that file, nothing more.
"""

from __future__ import annotations

import struct
import sys
from typing import BinaryIO, NamedTuple

MAGIC = b"XBSTCK01"
SPOILS_AFTER = 4_000_000
"""Bytes that pass unspoiled."""


class Chunk(NamedTuple):
    """One chunk: what stands before the payload, the payload, and whether a file ends with it."""

    head: bytes
    payload: bytes
    is_end: bool
    name: bytes


def read_chunk(stream: BinaryIO) -> Chunk | None:
    """Return the next chunk; None at the end.

    Raises:
        ValueError: That is no chunk.
    """
    head = stream.read(14)
    if not head:
        return None
    if not head.startswith(MAGIC):
        raise ValueError("no chunk begins here")
    kind = head[9:10]
    name = stream.read(struct.unpack("<I", head[10:14])[0])
    head += name
    if kind == b"E":
        return Chunk(head, b"", is_end=True, name=name)
    sizes = stream.read(20)
    payload = stream.read(struct.unpack("<Q", sizes[:8])[0])
    return Chunk(head + sizes, payload, is_end=False, name=name)


def spoil(source: BinaryIO, target: BinaryIO, how: str, name: str = "") -> None:
    """Copy the stream, spoiled once, or without a file."""
    passed, is_spoiled = 0, False
    while chunk := read_chunk(source):
        is_due = passed >= SPOILS_AFTER and not is_spoiled
        payload = chunk.payload
        if how == "drop" and chunk.name == name.encode():
            continue
        if how == "cut-at-file" and is_due and chunk.is_end:
            target.write(chunk.head)
            break
        if is_due and payload and how == "cut-in-chunk":
            target.write(chunk.head + payload[: len(payload) // 2])
            break
        if is_due and payload and how == "flip":
            middle = len(payload) // 2
            payload = payload[:middle] + bytes([payload[middle] ^ 1]) + payload[middle + 1 :]
            is_spoiled = True
        target.write(chunk.head + payload)
        passed += len(payload)
    while source.read(1 << 20):  # the tool before us must not notice
        pass


if __name__ == "__main__":
    spoil(sys.stdin.buffer, sys.stdout.buffer, *sys.argv[1:])
    sys.stdout.flush()
