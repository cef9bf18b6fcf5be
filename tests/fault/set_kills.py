"""Kills of runs on stored backup sets, and what is seen of them."""

from __future__ import annotations

import json
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import kills

if TYPE_CHECKING:
    from clone_lab import CloneLab
    from warm_cli import WarmCli

REPORT_STEP = "write-drill-report"
"""The one step of a flow of its own, which is run again after every resume."""


def read_events(lab: CloneLab, run_id: str, flow: str) -> list[dict[str, Any]]:
    """Return what a run has logged from the beginning of a flow on, but for a drill's report."""
    events = kills.read_events(lab.directory / "state", run_id)
    first = next(i for i, event in enumerate(events) if event.get("flow") == flow)
    return [event for event in events[first:] if event.get("step") != REPORT_STEP]


def check_kills(
    lab: CloneLab, killed: kills.Kills, run_id: str, playbook: str, flow: str = "run"
) -> None:
    """See that every kill came, no law was broken between, and no work was done twice."""
    assert killed.breaches == []
    assert killed.all_killed, killed.exits
    assert killed.last.returncode == 0, killed.last.stdout + killed.last.stderr
    events = read_events(lab, run_id, flow)
    kills.check_steps(events, playbook, flow, killed.points)
    jobs = Counter(e["job"] for e in events if e["event"] == "job.started")
    assert set(jobs.values()) <= {1}, jobs
    assert not [e for e in events if e["event"] in ("step.went_back", "step.failed")]


def kill_once(lab: CloneLab, cli: WarmCli, point: str, *command: str) -> str:
    """Run a command until it is killed at a point; return its run."""
    ended = cli.call(*command, "--yes", "--json", env={"XBVAULT_CRASH_AT": point})
    assert ended.returncode == -signal.SIGKILL, ended.stdout + ended.stderr
    return kills.read_newest(lab)


def cancel(cli: WarmCli, run_id: str) -> dict[str, Any]:
    """Cancel a run; return its document."""
    ended = cli.call("runs", "cancel", run_id, "--yes", "--json")
    document: dict[str, Any] = json.loads(ended.stdout)
    assert document["status"] == "cancelled", document
    return document
