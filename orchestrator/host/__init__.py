"""Scripts that run on hosts; sent by stdin, or installed (``receive.sh``).

They are POSIX sh, and need coreutils, util-linux and pv; stored backups need perl as well. What else
they ask for (zstd, ip, find and awk for a sample) may be missing.
"""

from __future__ import annotations

from importlib import resources


def script(name: str) -> str:
    """Return the text of a script, such as ``job.sh``, with its final newline."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")
