"""The commands of a plan, where they are not those that the approved plans show."""

from __future__ import annotations

import dataclasses

from engine_lab import make_plan

from orchestrator import recipe
from orchestrator.steps import fan_out

READ = ["mariadb-backup --backup", "pv"]


def test_a_clone_alone_sends_what_it_reads() -> None:
    """One pipe."""
    assert recipe._send(make_plan("r1"), READ, "ssh replica r1") == [
        "master: mariadb-backup --backup | pv | ssh replica r1"
    ]


def test_a_group_reads_once_and_sends_from_a_buffer() -> None:
    """Every FIFO of the group is in the reading pipe; the other pipe is this recipient's own."""
    plan = dataclasses.replace(make_plan("r1"), backup_id="b1", group_runs=("r1", "r2"))
    read, sent = recipe._send(plan, READ, "ssh replica r1")
    for run in plan.group_runs:
        assert f"/var/lib/xbvault/runs/{run}/stream" in read
    assert read.startswith("master: mariadb-backup --backup | pv | tee -p -- ")
    assert sent.startswith(f"master: {fan_out.BUFFER} -q")
    assert fan_out.fifo_path(plan) in sent
    assert sent.endswith("| pv | ssh replica r1")
