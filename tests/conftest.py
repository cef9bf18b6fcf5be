"""What holds for every test."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import hypothesis
import pytest
from mysql_tree import CANNOT_BE_HAD

from orchestrator import models

if TYPE_CHECKING:
    from collections.abc import Iterator

# The same examples each time, so that a push is judged by what it changes. To look for others:
# XBVAULT_EXAMPLES=random.
hypothesis.settings.register_profile(
    "xbvault", derandomize=os.environ.get("XBVAULT_EXAMPLES") != "random"
)
hypothesis.settings.load_profile("xbvault")


@pytest.fixture(autouse=True)
def forget_secrets() -> Iterator[None]:
    """Forget the secrets that a test has made: a word among them would be blotted out in others."""
    before = models.known_secret_values()
    yield
    models.forget_secret_values(keep=before)


def pytest_collection_finish() -> None:
    """Have the collector of garbage pass over what stays: some thousands of tests."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in the last lines how many tests have not seen the MySQL that they are for."""
    skipped = terminalreporter.getreports("skipped")
    count = sum(CANNOT_BE_HAD in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_line(f"MySQL: {count} tests skipped, {CANNOT_BE_HAD}", yellow=True)
