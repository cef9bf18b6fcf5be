"""The command line from a process that has imported everything before: each call is a fork of it.

A loop of sixty calls would spend most of its time on importing. What a fork runs is the command
line itself, from its arguments to its exit status, and killing it kills only the fork.

Run as a script, this is that process: a call in JSON a line on stdin, its exit status a line on
stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import act_kills
from clone_lab import REPOSITORY
from lab import product

if TYPE_CHECKING:
    from collections.abc import Iterator

Finished = subprocess.CompletedProcess[str]


class WarmCli:
    """The door to such a process.

    Args:
        process: The process.
        folder: Where the calls' output goes.
        config_file: The configuration of every call.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path, config_file: Path) -> None:
        self._process = process
        self._folder = folder
        self._config_file = config_file

    def call(self, *arguments: str, env: dict[str, str] | None = None) -> Finished:
        """Run ``xbvault`` with these arguments; its exit status is negative if it was killed."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("no pipe to the warm process")
        out, err = self._folder / "stdout", self._folder / "stderr"
        wanted = {
            "arguments": arguments,
            "env": {"XBVAULT_CONFIG": str(self._config_file), **(env or {})},
            "out": str(out),
            "err": str(err),
        }
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError("the warm process has ended")
        status = int(answer)
        return subprocess.CompletedProcess(arguments, status, out.read_text(), err.read_text())


@contextlib.contextmanager
def warm_cli(config_file: Path) -> Iterator[WarmCli]:
    """Start such a process for the ``xbvault`` that the lab uses, and end it."""
    command = product.command()
    is_installed = len(command) == 1
    path = [str(REPOSITORY / "fixtures"), *([] if is_installed else [str(REPOSITORY)])]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": ":".join(path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            yield WarmCli(process, Path(folder), config_file)
        finally:
            process.kill()


def _serve() -> None:
    from orchestrator import durable, log, plan, steps  # noqa: PLC0415 - in this process alone
    from orchestrator.cli import main  # noqa: PLC0415
    from orchestrator.durable import engine  # noqa: PLC0415
    from orchestrator.steps import session  # noqa: PLC0415

    steps.load()
    log.configure()
    engine.load_library()
    warm = (durable, plan, session)
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(wanted)
            main.app(prog_name="xbvault")
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
    del warm


def _become(wanted: dict[str, str | list[str] | dict[str, str]]) -> None:
    """Make a fresh fork what a process started with these arguments would be."""
    for name, descriptor in ((os.devnull, 0), (wanted["out"], 1), (wanted["err"], 2)):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = os.open(str(name), flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.update(dict(wanted["env"]))  # type: ignore[arg-type]  # made by us
    if act_kills.VARIABLE in os.environ:
        act_kills.install()
    if act_kills.COMMAND_VARIABLE in os.environ:
        act_kills.install_for_commands()
    sys.argv = ["xbvault", *wanted["arguments"]]
    random.seed()  # else every fork would draw the same


if __name__ == "__main__":
    _serve()
