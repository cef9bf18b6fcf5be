"""Where a process kills or halts itself if a test says so, as if its machine had failed.

``XBVAULT_CRASH_AT=<step>:<moment>`` is one point, at which it ends by SIGKILL. ``XBVAULT_HALT_AT``
is several, with commas between, at which it stops by SIGSTOP, and goes on with SIGCONT. Moments:

    before      the step has not begun
    inside      it has what it needs, the recipient lock as well, and has not acted
    after       it has acted, and that is not journalled
    committed   it is journalled

``run:ended`` comes after the last word in the journal, while the recipient is still held. Of runs
that begin together, ``group:before`` and ``group:recorded`` come before and after all of them are
written down, and ``group:started`` after each start of a process.
"""

from __future__ import annotations

import os
import signal


def die_at(step: str, moment: str) -> None:
    """Die or halt here if this is a point that a test has named."""
    point = f"{step}:{moment}"
    if os.environ.get("XBVAULT_CRASH_AT") == point:
        os.kill(os.getpid(), signal.SIGKILL)
    if point in os.environ.get("XBVAULT_HALT_AT", "").split(","):
        os.kill(os.getpid(), signal.SIGSTOP)
