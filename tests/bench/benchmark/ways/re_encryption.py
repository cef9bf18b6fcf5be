"""Re-encryption by hand: how fast the server can, with one setting a round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.hands import MariaDBHands, need_completed, start_server
from benchmark.registry import way
from benchmark.results import Outcome

if TYPE_CHECKING:
    from benchmark.stand import Stand

SETTINGS = ((4, 20_000), (8, 20_000), (2, 20_000), (4, 100), (8, 100), (2, 100))
"""Threads, and their I/O operations a second; each round takes the next."""
_LEFT = """
SELECT COUNT(*) FROM information_schema.INNODB_TABLESPACES_ENCRYPTION
WHERE ENCRYPTION_SCHEME <> 0 AND (ROTATING_OR_FLUSHING OR MIN_KEY_VERSION < {version})
"""


@way("re-encryption", "re-encryption by hand", flavors=("mariadb",))
def measure(stand: Stand) -> Outcome:
    """Bring up a copy that rotates nothing yet, let it go, and wait for the last tablespace."""
    hands = MariaDBHands(stand)
    mount, version = hands.make_transition_mount()
    hands.lend_keys(mount, "innodb_encryption_threads = 0")
    stand.run(stand.donor, f"{hands.backup()} | {stand.ssh(hands.extract())}")
    need_completed(stand)
    hands.retarget(mount)
    hands.prepare()
    hands.restore()
    start_server(stand)
    threads, iops = SETTINGS[(stand.round - 1) % len(SETTINGS)]
    clock = stand.start_clock()
    stand.execute(
        stand.recipient,
        "SET GLOBAL innodb_encryption_rotate_key_age = 1;\n"
        f"SET GLOBAL innodb_encryption_rotation_iops = {iops};\n"
        f"SET GLOBAL innodb_encryption_threads = {threads}",
    )
    ask = f"{stand.programs.client} -BNe '{' '.join(_LEFT.format(version=version).split())}'"
    stand.run(stand.recipient, f'until [ "$({ask})" = 0 ]; do sleep 0.05; done')
    clock.end_phase("re-encryption")
    return Outcome(
        values={**clock.seconds, "threads": threads, "iops": iops},
        note=f"{threads} threads, {iops} iops",
    )
