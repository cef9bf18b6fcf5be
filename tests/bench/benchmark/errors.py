"""The one error of the benchmark."""

from __future__ import annotations


class WayFailedError(Exception):
    """A way did not work, so there is nothing to time.

    Args:
        message: What went wrong, in words of whoever said it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
