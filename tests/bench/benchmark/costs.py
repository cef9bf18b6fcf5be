"""What clones cost the donor and the machine, from outside of the product: read from the kernel."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lab import hosts

from benchmark import machine
from benchmark.errors import WayFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmark.stand import Stand

PAUSE_SECONDS = 0.02
"""Between two looks: what a tool reads after the last one is missing, and it ends with writing."""
_SERVER_BYTES = "SHOW GLOBAL STATUS LIKE 'Innodb_data_read'"


class Reading:
    """Adds up what backups read, as the kernel counts it for their processes, from files or cache.

    Args:
        folder: The ``/proc`` of the host.
        tool: Name of the backup tool.
    """

    def __init__(self, folder: Path, tool: str) -> None:
        self._folder = folder
        self._tool = tool
        self._read: dict[str, int] = {}

    @property
    def total_bytes(self) -> int:
        """What all of them have read up to the last look."""
        return sum(self._read.values())

    def look(self) -> None:
        """Read the counts of the backups that run."""
        for entry in self._folder.iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it ended while we looked
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if is_backup(words, self._tool):
                    text = (entry / "io").read_text(encoding="ascii")
                    self._read[entry.name] = parse_read(text)


def is_backup(words: Sequence[str], tool: str) -> bool:
    """Return whether a process is the tool, or an interpreter that runs it, and backs up."""
    return tool in {Path(word).name for word in words[:2]} and "--backup" in words


def parse_read(text: str) -> int:
    """Return the bytes that a process has read, by its ``/proc/PID/io``."""
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("rchar:"))


class Costs:
    """Is open while clones are made, and has their costs then.

    Args:
        stand: The laboratory.

    Attributes:
        values: By measure, once it is closed.
    """

    def __init__(self, stand: Stand) -> None:
        self.values: dict[str, float] = {}
        self._stand = stand
        first = hosts.find_first_process(stand.lab, stand.donor)
        self._reading = Reading(Path(f"/proc/{first}/root/proc"), stand.programs.backup)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._server_bytes = self._read_server()
        self._time = machine.read_time()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End it, and take the sums.

        Raises:
            WayFailedError: No backup was seen.
        """
        self._ended.set()
        self._thread.join()
        if kind is not None:
            return
        now = machine.read_time()
        read = self._reading.total_bytes
        if read == 0:
            raise WayFailedError(f"no {self._stand.programs.backup} was seen on the donor")
        self.values = {
            "donor-bytes": read,
            "donor-server-bytes": self._read_server() - self._server_bytes,
            "processors": 100 * now.busy_share_since(self._time),
        }

    def _watch(self) -> None:
        while not self._ended.wait(PAUSE_SECONDS):
            self._reading.look()

    def _read_server(self) -> int:
        return int(self._stand.query(self._stand.donor, _SERVER_BYTES)[0]["Value"])
