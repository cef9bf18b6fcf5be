"""What is read from a run of the product."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from benchmark.errors import WayFailedError
from benchmark.timing import Process
from benchmark.ways import ours

BEGAN = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def step(name: str, begin: float, end: float, **result: object) -> dict[str, Any]:
    """Return a step as ``runs show`` tells it, from seconds after the command's start."""
    moments = [
        (BEGAN + dt.timedelta(seconds=s)).isoformat().replace("+00:00", "Z") for s in (begin, end)
    ]
    return {
        "name": name,
        "began_at": moments[0],
        "ended_at": moments[1],
        "seconds": end - begin,
        "result": result,
    }


def process(stdout: str = "", status: int = 0) -> Process:
    """Return a process that took twenty seconds."""
    return Process(
        status=status,
        began_at=BEGAN.timestamp(),
        seconds=20.0,
        cpu_seconds=1.0,
        peak_bytes=120_000_000,
        stdout=stdout,
        stderr="what it said",
    )


SHOWN: dict[str, Any] = {
    "bytes_streamed": 1000,
    "steps": [
        step("check-preconditions", 1.0, 2.0),
        step("stream-backup", 2.0, 5.0),
        step("start-server", 6.0, 7.0),
        step("wait-for-replication", 8.0, 9.0),
        step("re-encrypt-tablespaces", 9.0, 11.0, tablespaces=4),
    ],
    "parts": [{"steps": [step("remove-staging", 18.0, 19.0)]}],
}


def test_a_runs_moments_are_told_from_the_start_of_the_process() -> None:
    """What a user waits for before the first step is part of it."""
    values = ours.read_values(process(), SHOWN)
    assert values["replicating"] == pytest.approx(9.0)
    assert values["verified"] == 20.0
    assert values["transfer"] == 3.0
    assert values["re-encryption"] == 2.0
    assert values["re-encryption-from-start"] == pytest.approx(4.0)
    assert values["memory"] == 120.0
    assert (values["cpu"], values["cpu-seconds"]) == (5.0, 1.0)


def test_steps_and_what_is_between_them_add_up_to_the_whole() -> None:
    """Nothing is hidden."""
    values = ours.read_values(process(), SHOWN)
    steps = {name: seconds for name, seconds in values.items() if name.startswith("step ")}
    assert sum(steps.values()) == pytest.approx(20.0)
    assert steps["step (before the first)"] == pytest.approx(1.0)
    assert steps["step remove-staging"] == pytest.approx(1.0)
    assert steps["step (between and after)"] == pytest.approx(10.0)


def test_a_run_that_re_encrypts_nothing_has_no_time_of_it() -> None:
    """MySQL's keys are new with the restore."""
    other = [one for one in SHOWN["steps"] if one["name"] != "re-encrypt-tablespaces"]
    shown = {**SHOWN, "steps": [*other, step("re-encrypt-tablespaces", 9.0, 9.1, tablespaces=0)]}
    assert "re-encryption" not in ours.read_values(process(), shown)


def test_what_is_no_document_is_told_with_its_words() -> None:
    """As a command that broke prints it."""
    with pytest.raises(WayFailedError, match="exit status 1: what it said"):
        ours.read_document(process("Traceback", status=1))
