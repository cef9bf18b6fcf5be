"""What breaks on the orchestrator's own machine."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from nemesis import GOES_ON, before, before_each, in_stream, nemesis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stand import Stand

EVERYWHERE = [*before_each(), *in_stream("master:mariadb-backup")]
CLOCK = (
    ("LD_PRELOAD", "libfaketimeMT.so.1"),
    ("LD_LIBRARY_PATH", ":".join(str(path) for path in Path("/usr/lib").glob("*/faketime"))),
    ("FAKETIME_TIMESTAMP_FILE", "{folder}/clock"),
    ("FAKETIME_NO_CACHE", "1"),
    ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
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


def _step_clock(stand: Stand, offset: str) -> None:
    (stand.folder / "clock").write_text(offset, encoding="utf-8")


@nemesis(
    "clock-stepped-forward",
    moments=EVERYWHERE,
    comes=[GOES_ON, "PreconditionError"],
    says=["clock"],
    environment=CLOCK,
)
def _forward(stand: Stand) -> Iterator[None]:
    """The orchestrator's clock is stepped two hours ahead, and back when the run goes on."""
    _step_clock(stand, "+2h")
    yield
    _step_clock(stand, "+0")


@nemesis(
    "clock-stepped-back",
    moments=EVERYWHERE,
    comes=[GOES_ON, "PreconditionError"],
    says=["clock"],
    environment=CLOCK,
)
def _back(stand: Stand) -> Iterator[None]:
    """The orchestrator's clock is stepped back by a minute, and forward when the run goes on."""
    _step_clock(stand, "-1m")
    yield
    _step_clock(stand, "+0")
