"""The watches."""

from __future__ import annotations

import sys

import pytest
from benchmark import timing
from benchmark.errors import WayFailedError

HUNDRED_MEGABYTES = "x = b'x' * 100_000_000; import time; time.sleep(0.05)"


def run(*argv: str, timeout_seconds: float = 30) -> timing.Process:
    """Run a command."""
    return timing.run_process(
        argv, environment={"BENCH_WORD": "w"}, timeout_seconds=timeout_seconds
    )


def test_a_process_is_told_with_its_status_and_words() -> None:
    """Whatever they are, and with the environment that was given."""
    done = run("sh", "-c", 'echo "$BENCH_WORD"; echo bad >&2; exit 3')
    assert (done.status, done.stdout, done.stderr) == (3, "w\n", "bad\n")
    assert done.began_at > 1_700_000_000


def test_the_peak_memory_is_the_processs_own() -> None:
    """Not that of the one which has started it."""
    ballast = b"x" * 60_000_000
    assert run("true").peak_bytes < 30_000_000 < len(ballast)
    assert run(sys.executable, "-c", HUNDRED_MEGABYTES).peak_bytes > 100_000_000


def test_what_children_use_is_counted() -> None:
    """A process that lets others work costs what they cost."""
    busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    assert run("sh", "-c", f"sh -c '{busy}'; true").cpu_seconds > 0.02


def test_what_takes_too_long_is_ended() -> None:
    """With all that it has started."""
    with pytest.raises(WayFailedError, match=r"sh did not end within 0\.5 s"):
        run("sh", "-c", "sleep 60 & wait", timeout_seconds=0.5)


def test_what_is_not_there_is_said_so() -> None:
    """A misspelt command is no time of zero."""
    with pytest.raises(WayFailedError, match="no-such-command could not be started"):
        run("no-such-command")


def test_phases_add_up_to_the_whole() -> None:
    """Each counts from the end of the one before."""
    clock = timing.Clock()
    clock.end_phase("one")
    clock.end_phase("two")
    clock.end_whole("all")
    assert list(clock.seconds) == ["one", "two", "all"]
    assert 0 <= clock.seconds["one"] + clock.seconds["two"] <= clock.seconds["all"] < 5
