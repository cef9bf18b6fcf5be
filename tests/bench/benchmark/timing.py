"""Watches: one for the phases of a way, and one for a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.errors import WayFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LAUNCHER = Path(__file__).with_name("launcher.py")


class Clock:
    """Runs from the moment at which it is made."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def end_phase(self, name: str) -> None:
        """Keep the time since the last phase ended."""
        now = time.monotonic()
        self.seconds[name] = now - self._last
        self._last = now

    def end_whole(self, name: str) -> None:
        """Keep the time since the beginning; phases are not touched by it."""
        self.seconds[name] = time.monotonic() - self._began


@dataclasses.dataclass(frozen=True, kw_only=True)
class Process:
    """A process that has ended.

    Attributes:
        status: Its exit status.
        began_at: When it was started, in seconds since the epoch.
        seconds: How long it ran.
        cpu_seconds: Of it and of what it has waited for.
        peak_bytes: The largest resident memory of one of them.
        stdout: What it wrote there.
        stderr: And there.
    """

    status: int
    began_at: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stdout: str
    stderr: str


def run_process(
    argv: Sequence[str], *, environment: Mapping[str, str], timeout_seconds: float
) -> Process:
    """Run a command and return what it used.

    Raises:
        WayFailedError: It took too long.
    """
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(LAUNCHER), str(writing), *argv],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[writing],
        start_new_session=True,
        text=True,
        errors="replace",
    )
    os.close(writing)
    with os.fdopen(reading, encoding="ascii") as told, process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise WayFailedError(f"{argv[0]} did not end within {timeout_seconds:g} s") from error
        finally:
            if process.returncode is None:  # the launcher and what it has launched
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        usage = json.loads(told.read() or "{}")
    if not usage:
        raise WayFailedError(f"{argv[0]} could not be started: {stderr.strip()[-300:]}")
    return Process(status=process.returncode, stdout=stdout, stderr=stderr, **usage)
