"""The journal's tables, read directly.

Importing the workflow library takes longer than `runs list` may, so questions go to SQLite. The
tables are those of the library's pinned version; a test compares the answers with its client's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
import sqlite3
from typing import TYPE_CHECKING, Any

from orchestrator.durable import files, flows, serial
from orchestrator.errors import JournalError, OrchestratorError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.config import Config
    from orchestrator.durable.flows import Spec

LIVE = ("PENDING", "ENQUEUED", "DELAYED")
"""Statuses of a flow that has not ended, whether or not a process works on it."""
LOCKED_SECONDS = 10.0
"""How long to wait for a journal that another program holds."""

_ROWS = """
    SELECT s.workflow_uuid, s.status, s.application_version, s.created_at, s.completed_at,
        s.serialization, coalesce(i.inputs, s.inputs), coalesce(o.error, s.error)
    FROM workflow_status AS s
    LEFT JOIN workflow_input AS i ON i.workflow_uuid = s.workflow_uuid
    LEFT JOIN workflow_output AS o ON o.workflow_uuid = s.workflow_uuid
    WHERE s.workflow_uuid IN (SELECT value FROM json_each(?))
"""
_STEPS = """
    SELECT function_id, function_name, output, error, started_at_epoch_ms, serialization,
        completed_at_epoch_ms
    FROM operation_outputs WHERE workflow_uuid = ? ORDER BY function_id
"""
_LATEST = """
    SELECT workflow_uuid FROM workflow_status
    WHERE name = 'run' ORDER BY created_at DESC, workflow_uuid DESC LIMIT ?
"""
_FIND = """
    SELECT workflow_uuid FROM workflow_status
    WHERE name = 'run' AND substr(workflow_uuid, 1, ?) = ?
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A flow as the journal has it; moments in milliseconds."""

    name: str
    status: str
    version: str
    created_at: int
    ended_at: int
    spec: Spec
    error: OrchestratorError | None

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return self.status in LIVE

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a process to walk it, as one does that was only written down."""
        return self.status == "ENQUEUED"

    @property
    def has_succeeded(self) -> bool:
        """Whether its work is done."""
        return self.status == "SUCCESS"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JournalledStep:
    """A step as the journal has it; moments in milliseconds."""

    number: int
    name: str
    output: Any
    error: OrchestratorError | None
    began_at: int
    ended_at: int

    @property
    def went_back(self) -> bool:
        """Whether it sent the run back."""
        return flows.is_return(self.output)


class Journal:
    """Questions to a journal; one that is not there, or is still empty, has no runs.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def status(self, name: str) -> str:
        """Return the status of a flow that exists."""
        query = "SELECT status FROM workflow_status WHERE workflow_uuid = ?"
        return str(self._ask(query, [name])[0][0])

    def rows(self, names: Sequence[str]) -> dict[str, Row]:
        """Return flows by name; unknown ones are left out."""
        if not self._has_tables():
            return {}
        return {
            name: Row(
                name=name,
                status=status,
                version=version or "",
                created_at=created_at,
                ended_at=completed_at or created_at,
                spec=self._spec(name, serialization, stored),
                error=self._error(serialization, error),
            )
            for (
                name,
                status,
                version,
                created_at,
                completed_at,
                serialization,
                stored,
                error,
            ) in self._ask(_ROWS, [json.dumps(list(names))])
        }

    def latest(self, limit: int) -> list[str]:
        """Return the names of the latest runs, newest first."""
        return self._names(_LATEST, [limit])

    def find(self, prefix: str) -> list[str]:
        """Return the runs whose names begin so; only the one that is named exactly, if it is."""
        names = self._names(_FIND, [len(prefix), prefix])
        return [prefix] if prefix in names else names

    def steps(self, name: str) -> list[JournalledStep]:
        """Return the journalled steps of a flow in their order."""
        return [
            JournalledStep(
                number=number,
                name=step,
                output=self._value(serialization, output),
                error=self._error(serialization, error),
                began_at=began_at or 0,
                ended_at=ended_at or began_at or 0,
            )
            for number, step, output, error, began_at, serialization, ended_at in self._ask(
                _STEPS, [name]
            )
        ]

    def first_undone(self, name: str) -> int:
        """Return the number of the step that a failed flow goes on with."""
        steps = self.steps(name)
        last = max((step.number for step in steps), default=0)
        return min((step.number for step in steps if step.error is not None), default=last + 1)

    def _ask(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """Ask on a connection of its own, for threads ask too; reads the file without changing it."""
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        with (
            files.translate_errors(self.path),
            contextlib.closing(sqlite3.connect(uri, uri=True, timeout=LOCKED_SECONDS)) as opened,
        ):
            return opened.execute(query, values).fetchall()

    def _has_tables(self) -> bool:
        """Say whether a run was ever begun; a process may have died before it came to that."""
        query = "SELECT 1 FROM sqlite_master WHERE name = 'workflow_status'"
        return self.path.exists() and bool(self._ask(query))

    def _names(self, query: str, values: Sequence[object]) -> list[str]:
        return [str(row[0]) for row in self._ask(query, values)] if self._has_tables() else []

    def _value(self, serialization: str | None, text: str | None) -> Any:
        """Return a stored value; what another serializer wrote is refused unread."""
        if text is None:
            return None
        if serialization != serial.SERIALIZATION:
            reason = f"holds a value written as {serialization!r}, not read"
            raise files.journal_error(self.path, reason)
        try:
            return serial.JournalSerializer().deserialize(text)
        except JournalError as error:
            raise files.journal_error(self.path, error.message) from error

    def _error(self, serialization: str | None, text: str | None) -> OrchestratorError | None:
        found = self._value(serialization, text)
        return None if found is None else serial.as_error(found)

    def _spec(self, name: str, serialization: str | None, text: str | None) -> Spec:
        stored = self._value(serialization, text)
        arguments = stored.get("args") if isinstance(stored, dict) else None
        if not isinstance(arguments, list) or not arguments:
            raise files.journal_error(self.path, f"the input of {name} is not ours")
        try:
            return flows.check_spec(arguments[0])
        except ValueError as error:
            reason = f"the input of {name} is not ours: {error}"
            raise files.journal_error(self.path, reason) from error


def create_journal(config: Config) -> Journal:
    """Return the journal for work; make it first, private and with a write-ahead log.

    Raises:
        JournalError: It cannot be made, or another program holds it.
    """
    path = files.journal_path(config)
    with files.translate_errors(path):
        files.make_private_directory(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        with contextlib.closing(sqlite3.connect(path, timeout=LOCKED_SECONDS)) as connection:
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                connection.execute("PRAGMA journal_mode = WAL")
            # The library waits for ever on a locked journal; we would rather say so.
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    return Journal(path)


def as_moment(milliseconds: float) -> str:
    """Return a moment of the journal in ISO 8601, in UTC."""
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
