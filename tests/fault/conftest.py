"""The laboratory of the nemeses, and the table of what came of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import nemeses
import pytest
import table
from clone_lab import REPOSITORY, running_lab
from ledger import Ledger, read_digest
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


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode, config: pytest.Config
) -> None:
    """Print the rows; write the page where ``XBVAULT_FAULT_PAGE`` says, once every test has passed."""
    if hasattr(config, "workerinput"):
        return  # a worker knows of its own tests alone
    stats = terminalreporter.stats
    passed = {report.nodeid: table.read_rows(report) for report in stats.get("passed", [])}
    rows = table.arrange(row for found in passed.values() for row in found)
    if rows:
        terminalreporter.write_sep("=", "faults")
        terminalreporter.write_line(table.show(rows))
    page = os.environ.get("XBVAULT_FAULT_PAGE")
    if not page or config.cache is None:
        return
    product = read_digest([REPOSITORY / "orchestrator", REPOSITORY / "playbooks"])
    ledger = Ledger(config.cache.mkdir("faults") / "rows.json", product)
    failed = [report.nodeid for name in ("failed", "error") for report in stats.get(name, [])]
    ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    chosen = (
        config.getoption("keyword")
        or config.getoption("lf")
        or os.environ.get("XBVAULT_FAULT_NEMESIS")
    )
    ledger.note(passed, failed, is_whole=ended and not chosen)
    if ledger.rows is not None:
        text = table.write_page(table.arrange(ledger.rows))
        Path(page).write_text(text, encoding="utf-8")
