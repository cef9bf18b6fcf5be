"""The script that gives one stream to several branches, with real FIFOs, `tee` and `mbuffer`.

The counts that the remote jobs of a clone would keep are kept by this test's own readers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from orchestrator.host import script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)

OWN = "group.read-donor"
BUFFER = 1024 * 1024
STALL_SECONDS = 3
TOTAL = 8 * BUFFER
BLOCK = os.urandom(64 * 1024)
STOP = """\
kill -KILL "$(cat "$2/jobs/$3/pid")"
echo stopped >"$2/jobs/$3/ended"
"""
"""Stands in for the job's own script, which is called with ``stop BASE NAME FENCE``."""


class Branch:
    """A branch: `mbuffer` on a FIFO, and a reader that counts what comes through.

    Args:
        base: The folder of the jobs.
        name: Its job.
    """

    def __init__(self, base: Path, name: str) -> None:
        self.folder = base / "jobs" / name
        self.folder.mkdir(parents=True)
        self.fifo = base / f"{name}.fifo"
        os.mkfifo(self.fifo)
        (self.folder / "begun").write_text("")
        (self.folder / "job.sh").write_text(STOP)
        self.count(0)
        self.received = 0
        self.may_read = threading.Event()
        self.may_read.set()
        self.rate = 0.0
        argv = ["mbuffer", "-q", "-m", str(BUFFER), "-i", str(self.fifo)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for file in ("pid", "pid.0"):
            (self.folder / file).write_text(f"{self.process.pid}\n")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def count(self, number: int) -> None:
        """Write a count as a job does."""
        (self.folder / "bytes").write_text(f"{number:020d}\n")

    def finish(self, seconds: float = 30) -> int:
        """Wait until it has read all; return how much that was."""
        self.may_read.set()
        self._thread.join(timeout=seconds)
        assert not self._thread.is_alive()
        return self.received

    def _read(self) -> None:
        assert self.process.stdout is not None
        began = time.monotonic()
        with self.process.stdout as stream:
            while True:
                self.may_read.wait()
                block = os.read(stream.fileno(), len(BLOCK))
                if not block:
                    break
                self.received += len(block)
                if self.rate:  # by the clock, so that a busy machine makes it no slower
                    due = began + self.received / self.rate
                    time.sleep(max(0.0, due - time.monotonic()))
                self.count(self.received)
        self.process.wait()
        (self.folder / "ended").write_text("")


@pytest.fixture
def branches(tmp_path: Path) -> Iterator[list[Branch]]:
    """Start three branches, and end what is left of them."""
    made = [Branch(tmp_path, f"run{number}.send-backup") for number in (1, 2, 3)]
    yield made
    for branch in made:
        branch.may_read.set()
        with contextlib.suppress(ProcessLookupError):
            branch.process.kill()
        branch.process.wait()


@contextlib.contextmanager
def reading(base: Path, branches: list[Branch]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the script on a stream whose count is kept beside."""
    folder = base / "jobs" / OWN
    folder.mkdir(parents=True)
    (folder / "bytes").write_text(f"{0:020d}\n")
    words = [str(word) for b in branches for word in (b.folder.name, b.fifo)]
    settings = (str(base), OWN, str(BUFFER), str(STALL_SECONDS))
    process = subprocess.Popen(
        ["sh", "-c", script("fan_out.sh"), "fan-out", *settings, *words],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    stdin, process.stdin = process.stdin, None
    assert stdin is not None

    def give() -> None:
        given = 0
        with contextlib.suppress(BrokenPipeError), stdin as stream:
            while given < TOTAL:
                stream.write(BLOCK)
                given += len(BLOCK)
                (folder / "bytes").write_text(f"{given:020d}\n")

    writer = threading.Thread(target=give, daemon=True)
    writer.start()
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        writer.join(timeout=10)
        if process.stderr is not None:
            process.stderr.close()


def read_words(process: subprocess.Popen[bytes]) -> str:
    """Wait for the script's end, and return what it said."""
    _, words = process.communicate(timeout=60)
    assert process.returncode == 0
    return words.decode()


def test_each_branch_gets_all(tmp_path: Path, branches: list[Branch]) -> None:
    """Three readers, one stream; nobody is dropped."""
    with reading(tmp_path, branches) as process:
        received = [branch.finish() for branch in branches]
        process.wait(timeout=30)
    assert received == [TOTAL] * 3


def test_a_branch_that_was_gone_before_holds_nobody_up(
    tmp_path: Path, branches: list[Branch]
) -> None:
    """To open its FIFO for writing would wait for ever."""
    branches[1].process.kill()
    branches[1].process.wait()
    with reading(tmp_path, branches):
        assert [branches[0].finish(), branches[2].finish()] == [TOTAL] * 2


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_branch_whose_fifo_is_gone_is_left_out(
    tmp_path: Path, branches: list[Branch], gone: int
) -> None:
    """Whichever it is; nothing is made in its place."""
    branches[gone].process.kill()
    branches[gone].process.wait()
    branches[gone].fifo.unlink()
    with reading(tmp_path, branches) as process:
        received = [branch.finish() for n, branch in enumerate(branches) if n != gone]
        assert read_words(process) == ""
    assert received == [TOTAL] * 2
    assert not branches[gone].fifo.exists()


def test_a_branch_that_dies_half_way_does_not_end_the_others(
    tmp_path: Path, branches: list[Branch]
) -> None:
    """The stream goes on without it."""
    branches[2].may_read.clear()
    with reading(tmp_path, branches):
        deadline = time.monotonic() + 20
        while branches[0].received < BUFFER and time.monotonic() < deadline:
            time.sleep(0.02)
        branches[2].process.kill()
        assert [branches[0].finish(), branches[1].finish()] == [TOTAL] * 2


def test_a_branch_that_takes_nothing_is_dropped(tmp_path: Path, branches: list[Branch]) -> None:
    """The others get all, and the drop is marked where the run will look for it."""
    branches[0].may_read.clear()
    with reading(tmp_path, branches) as process:
        received = [branch.finish() for branch in branches[1:]]
        words = read_words(process)
    assert received == [TOTAL] * 2
    assert "run1.send-backup is dropped" in words
    assert (branches[0].folder / "dropped").exists()


def test_a_branch_that_is_only_slow_is_not_dropped(tmp_path: Path, branches: list[Branch]) -> None:
    """Its buffer is full all the time, but is emptied again and again."""
    branches[0].rate = 1.5 * BUFFER
    with reading(tmp_path, branches) as process:
        received = [branch.finish(60) for branch in branches]
        process.wait(timeout=30)
    assert received == [TOTAL] * 3
    assert not (branches[0].folder / "dropped").exists()


def test_when_none_goes_on_none_is_blamed(tmp_path: Path, branches: list[Branch]) -> None:
    """A donor whose own network is gone fills every buffer; that is for the stall to end."""
    for branch in branches:
        branch.may_read.clear()
    with reading(tmp_path, branches):
        time.sleep(2.5 * STALL_SECONDS)
        assert not [branch for branch in branches if (branch.folder / "dropped").exists()]
        for branch in branches:
            branch.may_read.set()
        assert [branch.finish() for branch in branches] == [TOTAL] * 3


def test_a_branch_that_stood_still_before_it_began_gets_all(
    tmp_path: Path, branches: list[Branch]
) -> None:
    """It has not opened its FIFO when the reading begins, and does so seconds later."""
    late = branches[1]
    os.kill(late.process.pid, signal.SIGSTOP)
    with reading(tmp_path, branches) as process:
        time.sleep(5)
        assert late.received == 0
        os.kill(late.process.pid, signal.SIGCONT)
        assert [branch.finish() for branch in branches] == [TOTAL] * 3
        assert process.wait(10) == 0


def test_a_branch_that_is_late_and_all_alone_gets_all(
    tmp_path: Path, branches: list[Branch]
) -> None:
    """The others are gone when it opens its FIFO; the reading has waited for it."""
    late = branches[1]
    os.kill(late.process.pid, signal.SIGSTOP)
    with reading(tmp_path, branches) as process:
        for branch in (branches[0], branches[2]):
            branch.process.kill()
        time.sleep(5)
        assert process.poll() is None
        os.kill(late.process.pid, signal.SIGCONT)
        assert late.finish() == TOTAL
