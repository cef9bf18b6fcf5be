"""The bare tools by hand, with the product's flags: the floor that it is compared with.

No key is handled: the recipient may read the donor's keys, or has the transition key, beforehand.
Nothing is checked, counted or journalled, and no login is waited for but that of the stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.hands import choose_hands, need_completed, start_server
from benchmark.registry import way
from benchmark.results import Outcome

if TYPE_CHECKING:
    from benchmark.hands import Hands
    from benchmark.stand import Stand
    from benchmark.timing import Clock


@way("bare", "the bare tools by hand", has_cold=True)
def measure(stand: Stand) -> Outcome:
    """Stream, prepare, move back, start, wire, and wait until the replica is there."""
    hands = choose_hands(stand)
    hands.lend_keys()
    clock = stand.start_clock()
    stand.run(stand.donor, f"{hands.backup()} | {stand.ssh(hands.extract())}")
    need_completed(stand)
    clock.end_phase("transfer")
    finish(stand, hands, clock)
    return Outcome(values=clock.seconds)


def finish(stand: Stand, hands: Hands, clock: Clock, *, copy: bool = False) -> None:
    """Make a replica of the set that has landed, by hand.

    Args:
        stand: The laboratory.
        hands: Of its flavor.
        clock: Gets the phases and the whole.
        copy: Whether the set is copied into the datadir where it could be moved.
    """
    hands.prepare()
    clock.end_phase("prepare")
    hands.restore(copy=copy)
    clock.end_phase("restore")
    start_server(stand)
    clock.end_phase("start")
    stand.wire(hands.read_coordinates())
    stand.start_replication()
    clock.end_phase("replication")
    clock.end_whole("replicating")
    stand.check_replica()
