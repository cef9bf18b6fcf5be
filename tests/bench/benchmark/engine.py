"""What the engine costs a step: flows of steps that do nothing, on a journal of their own.

Run as a script, ``python -m benchmark.engine FOLDER``, it prints seconds for a flow of a few steps
and for one of many; what both have in common, such as the start of the library, is in neither's
difference.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import engine_lab

from benchmark.errors import WayFailedError
from benchmark.results import Sample
from orchestrator import durable, log, playbook
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import Plan

NAME = "engine"
FEW, MANY = 20, 220
ROUNDS = 3


def measure(folder: Path) -> list[Sample]:
    """Measure the engine some times, each in a process of its own.

    Args:
        folder: An empty folder, for the journals.
    """
    samples = []
    for number in range(1, ROUNDS + 1):
        own = folder / str(number)
        own.mkdir(parents=True)
        done = subprocess.run(
            [sys.executable, "-P", "-m", "benchmark.engine", str(own)],
            env={**os.environ, "ENGINE_WORLD": str(own), "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if done.returncode != 0:
            raise WayFailedError(f"the engine: {done.stderr.strip()[-500:]}")
        few, many = json.loads(done.stdout)
        cost = 1000 * (many - few) / (MANY - FEW)
        samples.append(Sample(way=NAME, round=number, values={"milliseconds-a-step": cost}))
    return samples


def time_flow(state: Path, count: int) -> float:
    """Return how long a flow of so many steps takes."""
    lines = ["name: nothing", "summary: Nothing.", "version: 1", "steps:"]
    lines += [f"  - {{use: nothing-{number}, on: recipient}}" for number in range(count)]
    found = playbook.parse_playbook("\n".join(lines) + "\n")
    plan = engine_lab.make_plan(f"nothing-{count}")
    began = time.monotonic()
    durable.begin_run(engine_lab.make_config(state), plan, found, engine_lab.EngineSession)
    return time.monotonic() - began


def register_steps(count: int) -> None:
    """Register steps that do nothing."""
    for number in range(count):

        def nothing(tools: Tools, plan: Plan) -> None:
            """Do nothing."""

        nothing.__name__ = f"nothing_{number}"
        step(f"nothing-{number}", role="recipient", repeat=Repeat.SAFE)(nothing)


def main() -> int:
    """Time a flow of few steps and one of many, and print both; a first one makes the journal."""
    log.configure()
    register_steps(MANY)
    state = Path(sys.argv[1]) / "state"
    time_flow(state, 1)
    sys.stdout.write(json.dumps([time_flow(state, FEW), time_flow(state, MANY)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
