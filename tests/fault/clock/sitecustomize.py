"""What Python needs under ``libfaketime`` 0.9.10, which refuses to sleep until a moment.

Python's own `time.sleep` does that (``clock_nanosleep`` with ``TIMER_ABSTIME``) and gets EINVAL.
"""

import select
import time


def _sleep(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        select.select([], [], [], left)


time.sleep = _sleep  # type: ignore[assignment]  # mypy wants SupportsIndex too, which nobody gives
