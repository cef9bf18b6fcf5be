"""The command line of a laboratory, from a process that has imported everything before."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import warm_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from warm_process import Finished, WarmProcess

CALL_SECONDS = 900


class WarmCli:
    """Runs commands with one configuration.

    Args:
        process: What every call is a fork of.
        config_file: The configuration of every call.
    """

    def __init__(self, process: WarmProcess, config_file: Path) -> None:
        self._process = process
        self._config_file = config_file

    def call(self, *arguments: str, env: dict[str, str] | None = None) -> Finished:
        """Run ``xbvault`` with these arguments; its exit status is negative if it was killed."""
        wanted = {**os.environ, "XBVAULT_CONFIG": str(self._config_file), **(env or {})}
        return self._process.call(arguments, env=wanted, timeout=CALL_SECONDS)


@contextlib.contextmanager
def warm_cli(config_file: Path) -> Iterator[WarmCli]:
    """Start such a process for the ``xbvault`` that the lab uses, and end it."""
    with warm_process.start_process() as process:
        yield WarmCli(process, config_file)
