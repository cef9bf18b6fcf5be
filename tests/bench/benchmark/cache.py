"""The page cache: emptied before a way that begins cold, and looked at afterwards."""

from __future__ import annotations

from pathlib import Path

from benchmark.errors import WayFailedError

DROP = Path("/proc/sys/vm/drop_caches")
MOST_SHARE = 0.1
"""Of the data that may be left; a server that runs keeps some of its files there."""
LOOK = "find {folder} -type f -exec fincore --bytes --noheadings --output RES,SIZE {{}} + || true"
"""Shell text that tells of every file how many bytes are in the cache, and how many it has."""


def drop(path: Path = DROP) -> None:
    """Empty the page cache of the whole machine, but for what is not written yet.

    Args:
        path: Where the kernel is told to.

    Raises:
        WayFailedError: It cannot be told, as in most containers.
    """
    try:
        path.write_text("3\n", encoding="ascii")
    except OSError as error:
        raise WayFailedError(
            f"the page cache cannot be dropped on this machine: {error.strerror}: {path}"
        ) from error


def need_dropped(text: str) -> None:
    """See that files have left the page cache.

    Args:
        text: What `LOOK` has printed of them.

    Raises:
        WayFailedError: They have not, or nothing tells of them.
    """
    found = [[int(word) for word in line.split()] for line in text.splitlines()]
    cached, size = sum(one[0] for one in found), sum(one[1] for one in found)
    if size == 0:
        raise WayFailedError("fincore does not tell what is in the page cache")
    if cached > MOST_SHARE * size:
        raise WayFailedError(
            f"the page cache was dropped, and {cached:,} of {size:,} bytes are still in it"
        )
