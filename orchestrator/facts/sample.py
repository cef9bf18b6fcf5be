"""Facts about what compression would gain: the way to the other host, and a sample of the data.

Nothing here changes anything: what is read of the data is compressed to nowhere, on its own host.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from orchestrator import host, numerals
from orchestrator.errors import CommandError, VerificationError
from orchestrator.wire import Sample

if TYPE_CHECKING:
    from orchestrator.remote import Remote

PIECES: Final = 64
"""Of 1 MiB each: enough for the processor's time to be told within a tenth."""
_SECONDS: Final = re.compile(r"([0-9]{1,6})m([0-9]{1,2}\.[0-9]{1,9})s")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WireFacts:
    """What a host says of its way to another one.

    Attributes:
        interface: Where the way begins; empty if that is not known.
        megabits: Speed of the interface, in Mbit/s; 0 where it does not say one.
        sample: Of its server's data; None if none was taken.
    """

    interface: str = ""
    megabits: int = 0
    sample: Sample | None = None


def read_wire(remote: Remote, peer_address: str, *, datadir: str) -> WireFacts:
    """Ask a host about its way to another one, and for a sample of its server's data.

    What it does not tell is left open: nothing but a choice hangs on it.

    Args:
        remote: The host.
        peer_address: IP address of the other one; empty if it is not known.
        datadir: Directory with all links resolved; empty for no sample.

    Raises:
        HostUnreachableError: The host does not answer.
    """
    argv = ["sh", "-s", "--", peer_address, datadir, str(PIECES)]
    try:
        result = remote.run(argv, stdin=host.script("sample.sh"), check=False, timeout_seconds=30)
        return parse_wire(result.stdout.decode("utf-8", "replace"))
    except (CommandError, VerificationError):
        return WireFacts()


def parse_wire(text: str) -> WireFacts:
    """Return what the fact script wrote.

    Raises:
        VerificationError: A number in it is none.
    """
    found = dict(line.split("\t", 1) for line in text.split("\n") if "\t" in line)
    megabits = found.get("megabits", "")
    return WireFacts(
        interface=found.get("interface", ""),
        # The kernel says -1 where it does not know, as of most virtual machines' interfaces.
        megabits=numerals.parse_whole(megabits) if numerals.is_whole(megabits) else 0,
        sample=_read_sample(found["sample"]) if "sample" in found else None,
    )


def _read_sample(text: str) -> Sample | None:
    """Return a line of bytes, two times of the shell's, and bytes; None if zstd failed."""
    words = text.split(" ")
    if len(words) != 4:  # noqa: PLR2004 - as its description says
        return None
    times = [_SECONDS.fullmatch(word) for word in words[1:3]]
    return Sample(
        bytes=numerals.parse_whole(words[0]),
        compressed_bytes=numerals.parse_whole(words[3]),
        seconds=sum(
            60 * numerals.parse_whole(found.group(1)) + numerals.parse_decimal(found.group(2))
            for found in times
            if found
        ),
    )
