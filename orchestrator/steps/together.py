"""Work of one step on several hosts at the same time."""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

First = TypeVar("First")
Second = TypeVar("Second")


def do_both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """Do two things at once; return what both returned, when both have ended.

    Raises:
        Exception: What the first raised; else what the second did.
    """
    context = contextvars.copy_context()  # lines of the log keep the run and the step
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(context.run, second)
        try:
            found = first()
        finally:
            wait([other])
        return found, other.result()
