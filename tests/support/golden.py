"""Texts that a person has read, beside the tests that make them.

``make golden`` writes them anew. What has changed is to be read, in ``git diff``, before it is
committed: a text is right because somebody found it so.
"""

from __future__ import annotations

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
DIRECTORY = TESTS / "unit" / "flavors" / "golden"
PLANS = TESTS / "contract" / "golden"
IS_WRITING = os.environ.get("XBVAULT_GOLDEN") == "write"


def read(name: str, *, made: str = "", directory: Path = DIRECTORY) -> str:
    """Return a text such as ``mysql-sql-8.4``.

    Args:
        name: Its name, without the ending.
        made: What it is compared with, and becomes with ``make golden``.
        directory: Where it lies.
    """
    path = directory / f"{name}.txt"
    if made and IS_WRITING:
        path.write_text(made, "utf-8")
    return path.read_text("utf-8")


def format_sections(sections: dict[str, str]) -> str:
    """Return texts under their names, as the files have them."""
    return "\n".join(f"[{name}]\n{text.rstrip()}\n" for name, text in sections.items())
