"""The doors of a process to its hosts, each of them one connection."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from orchestrator.remote.ssh import SshRemote

if TYPE_CHECKING:
    from orchestrator.config import Config


class Doors:
    """The doors of a process to its hosts; who makes them closes them.

    Args:
        config: The configuration.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._guard = threading.Lock()
        self._doors: dict[str, SshRemote] = {}

    def open(self, name: str) -> SshRemote:
        """Return the door to a host, the same each time; it connects when it is first used."""
        with self._guard:
            if name not in self._doors:
                config = self._config
                self._doors[name] = SshRemote(name, config.door(name), config.ssh)
            return self._doors[name]

    def close(self) -> None:
        """Close all of them; the next use of one opens it again."""
        with self._guard:
            for door in self._doors.values():
                door.close()
