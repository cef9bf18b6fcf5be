"""The events of a run, read from its file while another process writes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.config import Config


class RunFile:
    """A run's file, read on from where it was read to.

    Args:
        config: The configuration, which says where the files are.
        run_id: The run.
        last_bytes: Of what is there already, read the end only, from so many bytes on.
    """

    def __init__(self, config: Config, run_id: str, *, last_bytes: int | None = None) -> None:
        self._path = config.state_directory / "logs" / f"{run_id}.jsonl"
        size = self._path.stat().st_size if self._path.is_file() else 0
        self._position = 0 if last_bytes is None else max(0, size - last_bytes)
        self._rest = b""

    def read_events(self) -> list[dict[str, Any]]:
        """Return what has been written since; nothing while the file is not there."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._position)
            chunk = stream.read()
        self._position += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [event for event in map(parse_event, lines) if event]


def parse_event(line: bytes) -> dict[str, Any] | None:
    """Return the event on a line of a run's log; None where there is none that can be read.

    A host that lost its power can leave a line of zero bytes.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
