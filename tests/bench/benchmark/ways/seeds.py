"""The recipe that the project began with, as it was written down.

The stream goes through netcat (ncat on both sides, as another's options differ) into a file; it is
extracted from there, prepared, copied back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.hands import SET, choose_hands, need_completed
from benchmark.registry import way
from benchmark.results import Outcome
from benchmark.stand import WORK
from benchmark.ways import bare

if TYPE_CHECKING:
    from benchmark.stand import Stand

PORT = 9999


@way("seeds", "the seeds' recipe", has_cold=True)
def measure(stand: Stand) -> Outcome:
    """Follow the recipe, and wire replication as it tells to in the end."""
    hands = choose_hands(stand)
    hands.lend_keys()
    listener = stand.listen(f"cd {WORK}\nncat -l {PORT} | cat - >backup.stream", PORT)
    try:
        clock = stand.start_clock()
        send = f"{hands.backup(quick=False)} | ncat {stand.recipient.address} {PORT}"
        stand.run(stand.donor, f"cd {WORK}\n{send}")
        need_completed(stand)
        listener.wait()
    finally:
        listener.stop()
    clock.end_phase("transfer")
    stand.run(stand.recipient, f"{hands.extract(quick=False)} <{WORK}/backup.stream")
    clock.end_phase("extraction")
    bare.finish(stand, hands, clock, copy=True)
    stand.run(stand.recipient, f"rm -rf {SET}")
    return Outcome(values=clock.seconds)
