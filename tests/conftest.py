"""What holds for every test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
from mysql_tree import CANNOT_BE_HAD

if TYPE_CHECKING:
    import pytest

# The same examples each time, so that a push is judged by what it changes. To look for others:
# XBVAULT_EXAMPLES=random.
hypothesis.settings.register_profile(
    "xbvault", derandomize=os.environ.get("XBVAULT_EXAMPLES") != "random"
)
hypothesis.settings.load_profile("xbvault")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in the last lines how many tests have not seen the MySQL that they are for."""
    skipped = terminalreporter.getreports("skipped")
    count = sum(CANNOT_BE_HAD in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_line(f"MySQL: {count} tests skipped, {CANNOT_BE_HAD}", yellow=True)
