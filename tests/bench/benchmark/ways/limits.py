"""The physical limits: reading alone, the wire alone, writing alone, each with the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import servers

from benchmark.errors import WayFailedError
from benchmark.hands import choose_hands, need_completed
from benchmark.registry import way
from benchmark.results import Outcome
from benchmark.stand import WORK

if TYPE_CHECKING:
    from benchmark.stand import Stand

STREAM = f"{WORK}/stream"
"""The bytes, on the donor, from one backup at the beginning."""
_LANDED = f"{WORK}/landed"


def keep_stream(stand: Stand) -> None:
    """Keep the stream of one backup on the donor; the donor's data is in the page cache then.

    Its server is restarted before: the redo log of the data's loading would go with this one alone.
    """
    stand.run(stand.donor, f"{servers.SERVER} stop; {servers.SERVER} start")
    hands = choose_hands(stand)
    hands.lend_keys()
    stand.run(stand.donor, f"{hands.backup()} >{STREAM}")
    need_completed(stand)
    stand.stream_bytes = int(stand.run(stand.donor, f"stat -c %s {STREAM}"))


@way("limit-read", "limit: the backup tool to /dev/null")
def measure_reading(stand: Stand) -> Outcome:
    """Write a backup to where nothing is kept."""
    hands = choose_hands(stand)
    hands.lend_keys()
    clock = stand.start_clock()
    stand.run(stand.donor, f"{hands.backup()} >/dev/null")
    clock.end_phase("transfer")
    need_completed(stand)
    return Outcome(values=clock.seconds)


@way("limit-wire", "limit: cat, ssh, cat into a file")
def measure_wire(stand: Stand) -> Outcome:
    """Send the bytes of a backup over SSH into one file."""
    clock = stand.start_clock()
    stand.run(stand.donor, f"cat {STREAM} | {stand.ssh(f'cat >{_LANDED}')}")
    clock.end_phase("transfer")
    _need_whole(stand)
    return Outcome(values=clock.seconds)


@way("limit-write", "limit: dd onto the recipient's disk")
def measure_writing(stand: Stand) -> Outcome:
    """Write as many bytes to the recipient's filesystem, and wait until they are on the disk."""
    count = f"bs=1M count={stand.stream_bytes} iflag=count_bytes conv=fsync status=none"
    clock = stand.start_clock()
    stand.run(stand.recipient, f"dd if=/dev/zero of={_LANDED} {count}")
    clock.end_phase("transfer")
    _need_whole(stand)
    return Outcome(values=clock.seconds)


def _need_whole(stand: Stand) -> None:
    landed = int(stand.run(stand.recipient, f"stat -c %s {_LANDED}"))
    if landed != stand.stream_bytes:
        raise WayFailedError(f"{landed} of {stand.stream_bytes} bytes have landed")
