"""A process that has imported everything before: each call of the command line is a fork of it.

Most commands spend a second on importing, and a suite that gives hundreds of them would do little
else. What a fork runs is the command line itself, from its arguments to its exit status, in the
environment that it is given; killing it kills only the fork.

Run as a script, this is that process: a call in JSON a line on stdin, the fork's pid and then its
exit status a line on stdout. It ends with its stdin.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import act_kills
from lab import model, product

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Finished = subprocess.CompletedProcess[str]


class WarmProcess:
    """The door to such a process; one call at a time.

    Args:
        process: The process.
        folder: Where the calls' output goes.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def reserve(self) -> Iterator[bool]:
        """Tell whether it is free for this block's calls."""
        is_free = self._guard.acquire(blocking=False)
        try:
            yield is_free
        finally:
            if is_free:
                self._guard.release()

    def call(self, arguments: Sequence[str], *, env: Mapping[str, str], timeout: float) -> Finished:
        """Run ``xbvault`` with these arguments; its exit status is negative if it was killed.

        Raises:
            TimeoutExpired: It took too long, and was killed.
        """
        out, err = self._folder / "stdout", self._folder / "stderr"
        wanted = {
            "arguments": arguments,
            "env": dict(env),
            "out": str(out),
            "err": str(err),
        }
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("no pipe to the warm process")
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        pid = self._read_number()
        is_over = not select.select([self._process.stdout], [], [], timeout)[0]
        if is_over:
            os.kill(pid, signal.SIGKILL)
        status = self._read_number()
        # Not as text: that would make a newline of every carriage return.
        texts = [path.read_bytes().decode() for path in (out, err)]
        if is_over:
            raise subprocess.TimeoutExpired(list(arguments), timeout, *texts)
        return Finished(arguments, status, *texts)

    def _read_number(self) -> int:
        answer = self._process.stdout.readline() if self._process.stdout else ""
        if not answer:
            raise AssertionError("the warm process has ended")
        return int(answer)


@contextlib.contextmanager
def start_process() -> Iterator[WarmProcess]:
    """Start such a process for the ``xbvault`` that the laboratory uses, and end it."""
    is_installed = len(product.command()) == 1
    path = [str(model.REPOSITORY / "fixtures"), *([] if is_installed else [str(model.REPOSITORY)])]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": ":".join(path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=model.REPOSITORY,
        ) as process,
    ):
        try:
            yield WarmProcess(process, Path(folder))
        finally:
            process.kill()


@functools.cache
def get_process() -> WarmProcess:
    """Return the one that all laboratories of this test process share; it ends with that."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(start_process())


def _serve() -> None:
    # In this process alone: who imports this module to reach it, the tests, needs none of them.
    from orchestrator import __main__ as command  # noqa: PLC0415 - see above
    from orchestrator import durable, log, plan, steps  # noqa: PLC0415 - see above
    from orchestrator.durable import engine  # noqa: PLC0415 - see above
    from orchestrator.steps import session  # noqa: PLC0415 - see above

    steps.load()
    log.configure()
    engine.load_library()
    warm = (durable, plan, session)
    gc.freeze()  # so that no fork copies all of it, by looking through it
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(wanted)
            command.main()
        _tell(pid)
        _, status = os.waitpid(pid, 0)
        _tell(os.waitstatus_to_exitcode(status))
    del warm


def _tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _become(wanted: dict[str, str | list[str] | dict[str, str]]) -> None:
    """Make a fresh fork what a process started with these arguments would be."""
    for name, descriptor in ((os.devnull, 0), (wanted["out"], 1), (wanted["err"], 2)):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = os.open(str(name), flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(dict(wanted["env"]))  # type: ignore[arg-type]  # made by us
    if act_kills.VARIABLE in os.environ:
        act_kills.install()
    if act_kills.COMMAND_VARIABLE in os.environ:
        act_kills.install_for_commands()
    sys.argv = ["xbvault", *wanted["arguments"]]
    random.seed()  # else every fork would draw the same


if __name__ == "__main__":
    _serve()
