"""A clone whose orchestrator is killed in mid-stream sends its bytes once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import kills
import pytest
from clone_lab import CloneLab, running_lab
from stand import Stand, wait_for
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(900),
]

SIZE_GB = 1.0 if kills.is_full() else 0.1
AWAY_SECONDS = 10 if kills.is_full() else 3
MOST_RATIO = 1.05


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Bring a laboratory up in which nobody writes, so that nothing else is on the wire."""
    folder = tmp_path_factory.mktemp("wire")
    with running_lab(folder / "lab", "--no-writer", size=SIZE_GB) as lab:
        yield Stand(lab, folder)


def read_sent(stand: Stand) -> int:
    """Return the bytes that the donor has sent, as its cable's end on this machine counts them."""
    link = stand.host("master").link
    return int(Path(f"/sys/class/net/{link}/statistics/rx_bytes").read_text())


def test_killed_in_mid_stream_and_resumed(stand: Stand) -> None:
    """In all, at most 1.05 of what an undisturbed clone sends leaves the donor's interface."""
    lab: CloneLab = stand.lab
    before = read_sent(stand)
    first = lab.clone()
    undisturbed = read_sent(stand) - before
    stand.start("runs", "undo", first["run_id"], "--yes", "--json").wait()
    whole = int(first["bytes_streamed"])

    before = read_sent(stand)
    with stand.gate(OURS.backup_gate, after_bytes=whole // 2) as gate:
        killed = stand.start("clone", "master", "replica", "--yes", "--json")
        wait_for(lambda: gate.is_reached or killed.has_ended, "half of the stream")
        killed.end()
        gate.open()
        time.sleep(AWAY_SECONDS)
        resumed = stand.start("runs", "resume", stand.read_newest_run(), "--json").wait()
    disturbed = read_sent(stand) - before

    assert resumed.status == 0, resumed.talk
    assert undisturbed > whole > SIZE_GB * 1e9 / 2
    assert disturbed <= MOST_RATIO * undisturbed, (disturbed, undisturbed)
