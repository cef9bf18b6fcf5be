"""The laboratory of the nemeses, and the table of what came of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import nemeses
import pytest
import table
from clone_lab import running_lab
from stand import Stand, make_stand
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

nemeses.load()


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Bring a laboratory up, with a server and data of its own on the replica, and small disks."""
    folder = tmp_path_factory.mktemp("nemeses")
    with running_lab(folder / "lab", "--replica-server", size=0.03, flavor=OURS.flavor) as lab:
        yield make_stand(lab, folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the rows; write the page where ``XBVAULT_FAULT_PAGE`` says, if every test passed."""
    stats = terminalreporter.stats
    rows = table.collect(stats.get("passed", []))
    if not rows:
        return
    terminalreporter.write_sep("=", "faults")
    terminalreporter.write_line(table.show(rows))
    page = os.environ.get("XBVAULT_FAULT_PAGE")
    if page and not stats.get("failed") and not stats.get("error"):
        Path(page).write_text(table.write_page(rows), encoding="utf-8")
