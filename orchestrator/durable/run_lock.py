"""The run lock: one process works on a run at a time.

It is an flock, so it ends with the process however that dies, and nobody has to judge whether a
pid is still the same process. The file holds the pid for the reader, and is removed while it is
held, so that nobody can hold one that is no longer there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

from orchestrator.durable import files
from orchestrator.errors import LockHeldError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator.config import Config

_walked: set[str] = set()


@contextlib.contextmanager
def hold_run(
    config: Config,
    run_id: str,
    *,
    seconds: float = 0.5,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Hold the run lock inside the block.

    Args:
        config: The configuration, which says where the locks are.
        run_id: The run.
        seconds: How long to wait for another holder. A reader that looks at the lock holds it for
            a moment, hence the short wait.
        meanwhile: Called after each try in vain.

    Raises:
        LockHeldError: Another process holds it.
        JournalError: The lock's directory cannot be written.
    """
    path = _lock_path(config, run_id)
    deadline = time.monotonic() + seconds
    with files.translate_errors(path):
        files.make_private_directory(config.state_directory)
        files.make_private_directory(path.parent)
    while True:
        with files.translate_errors(path):
            descriptor = take_lock(path)
        if descriptor is not None:
            break
        meanwhile()
        if time.monotonic() > deadline:
            raise LockHeldError(
                f"run {run_id} is held by process {find_holder(config, run_id) or '?'}",
                hint=f"xbvault runs watch {run_id}, or end that process",
            )
        time.sleep(0.05)
    try:
        yield
    finally:
        # After a Ctrl-C that nobody handled, a step is still at work in its thread: then the lock
        # stays with the process.
        if run_id not in _walked:
            with contextlib.suppress(OSError):  # a file that nobody has locked does no harm
                path.unlink()
            os.close(descriptor)


@contextlib.contextmanager
def walked(run_id: str) -> Iterator[None]:
    """Keep the lock with this process while a thread is inside the block."""
    _walked.add(run_id)
    try:
        yield
    finally:
        _walked.discard(run_id)


def list_left(config: Config) -> list[str]:
    """Return the runs whose process died while it held them."""
    folder = _lock_path(config, "")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in names if find_holder(config, name) is None]


def find_holder(config: Config, run_id: str) -> int | None:
    """Return the pid of the process that holds a run (0 if it is not known), or None."""
    try:
        descriptor = os.open(_lock_path(config, run_id), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.pread(descriptor, 20, 0).strip()
        return int(written) if written.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


def take_lock(path: Path) -> int | None:
    """Return the descriptor that holds the lock, or None if another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not lock_descriptor(descriptor, path):
        os.close(descriptor)
        return None
    with contextlib.suppress(OSError):  # only a reader wants it; the disk may be full
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def lock_descriptor(descriptor: int, path: Path) -> bool:
    """Lock an open file; false if another has it, or removed it since it was opened."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _lock_path(config: Config, run_id: str) -> Path:
    return config.state_directory / "locks" / run_id
