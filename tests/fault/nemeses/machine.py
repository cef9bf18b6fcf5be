"""What breaks on the orchestrator's own machine."""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from nemesis import GOES_ON, before, before_each, in_stream, nemesis
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stand import Stand

_LATEST = 60
"""Events of a log among which those of the latest step are."""
_NEAR_SECONDS = 240
EVERYWHERE = [*before_each(), *in_stream(OURS.backup_gate)]
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), Path("/no/faketime"))
CLOCK = (
    ("LD_PRELOAD", str(FAKETIME)),
    ("FAKETIME_TIMESTAMP_FILE", "{folder}/clock"),
    ("FAKETIME_NO_CACHE", "1"),
    ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ("PYTHONPATH", str(Path(__file__).parents[1] / "clock")),
)
"""What gives the orchestrator's processes a clock of their own, by Debian's ``faketime``."""


@contextlib.contextmanager
def _hold_lock(stand: Stand) -> Iterator[None]:
    """Hold the journal's write lock: at once, or as soon as the halted process lets go of it."""
    held = sqlite3.connect(stand.journal, isolation_level=None, timeout=30, check_same_thread=False)
    with contextlib.closing(held):
        waits = threading.Thread(target=held.execute, args=("BEGIN EXCLUSIVE",))
        waits.start()
        waits.join(1)
        try:
            yield
        finally:
            waits.join()
            held.execute("ROLLBACK")


@nemesis("journal-locked-for-a-moment", moments=EVERYWHERE, comes=[GOES_ON], mends_after_seconds=2)
def _locked_for_a_moment(stand: Stand) -> Iterator[None]:
    """Another process holds the journal's write lock for two seconds."""
    with _hold_lock(stand):
        yield


@nemesis(
    "journal-locked",
    moments=before("create-transition-key", "stream-backup", "swap-datadir", "remove-job-files"),
    comes=["JournalError"],
    says=["journal"],
)
def _locked(stand: Stand) -> Iterator[None]:
    """Another process holds the journal's write lock until the run has given up."""
    with _hold_lock(stand):
        yield


@nemesis("journal-disk-full", moments=before_each(), comes=["JournalError"], says=["space", "full"])
def _disk_full(stand: Stand) -> Iterator[None]:
    """The filesystem of the journal and the logs is full."""
    filler = stand.state / "fills-the-disk"
    with filler.open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(65536)):
                pass
        except OSError:
            pass
    yield
    filler.unlink()


@nemesis(
    "journal-unreadable", moments=before_each(), comes=[GOES_ON, "JournalError"], says=["journal"]
)
def _unreadable(stand: Stand) -> Iterator[None]:
    """The journal is moved away, and back; a process that has it open may not see it in time."""
    hidden = stand.state / "hidden"
    stand.journal.rename(hidden)
    stand.journal.mkdir()
    yield
    stand.journal.rmdir()
    hidden.rename(stand.journal)


@contextlib.contextmanager
def _stepped(stand: Stand, offset: str, *, seconds: float) -> Iterator[None]:
    """Step the clock, and see in the run's log that the orchestrator went by it."""
    assert FAKETIME.is_file(), "faketime is not installed"
    clock = stand.folder / "clock"
    clock.write_text(offset, encoding="utf-8")
    try:
        yield
    finally:
        clock.write_text("+0", encoding="utf-8")
    now = dt.datetime.now(dt.UTC)
    events = stand.read_events(stand.read_newest_run())
    offsets = [dt.datetime.fromisoformat(event["timestamp"]) - now for event in events[-_LATEST:]]
    assert any(abs(found.total_seconds() - seconds) < _NEAR_SECONDS for found in offsets), offsets


@nemesis(
    "clock-stepped-forward",
    moments=EVERYWHERE,
    comes=[GOES_ON, "PreconditionError"],
    says=["clock"],
    environment=CLOCK,
)
def _forward(stand: Stand) -> Iterator[None]:
    """The orchestrator's clock is stepped two hours ahead, and back when the run goes on."""
    with _stepped(stand, "+2h", seconds=7200):
        yield


@nemesis(
    "clock-stepped-back",
    moments=EVERYWHERE,
    comes=[GOES_ON, "PreconditionError", "SecretError"],
    says=["clock"],
    environment=CLOCK,
)
def _back(stand: Stand) -> Iterator[None]:
    """The orchestrator's clock is stepped back by ten minutes, and forward when the run goes on."""
    # Vault's certificate is not valid yet, then, if it is younger than that.
    with _stepped(stand, "-10m", seconds=-600):
        yield
