"""How values stand in the journal: as JSON, and as nothing else."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, NoReturn

from orchestrator import errors, log
from orchestrator.errors import JournalError, OrchestratorError

SERIALIZATION = "xbvault_json"
"""What the journal keeps beside each value of ours."""


class JournalSerializer:
    """Puts inputs, results and errors into the journal as JSON.

    Moments and errors come back as what they were; an error that is not ours comes back as
    `OrchestratorError`. Errors are redacted on their way in.
    """

    def name(self) -> str:
        """Return the name that the journal keeps beside each value."""
        return SERIALIZATION

    def serialize(self, data: Any) -> str:
        """Return the JSON text of a value.

        Raises:
            TypeError: It has no JSON form.
        """
        return json.dumps(
            data, default=_encode, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )

    def deserialize(self, serialized_data: str) -> Any:
        """Return the value of a JSON text.

        Raises:
            JournalError: It is none of ours.
        """
        try:
            return json.loads(serialized_data, object_hook=_decode)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise JournalError(
                f"the journal holds a value that is not ours: {error}",
                hint="see that the disk is sound; a copy of the file can be put back",
            ) from error


def as_error(value: Any) -> OrchestratorError:
    """Return a value that was stored as an error, as one of ours."""
    if isinstance(value, OrchestratorError):
        return value
    return OrchestratorError(log.redact_text(f"the run failed: {value}"))


def refuse_pickle(_self: Any, _data: Any) -> NoReturn:
    """Stand in for the workflow library's pickling, both ways.

    Raises:
        JournalError: Always.
    """
    raise JournalError(
        "the journal holds a pickle, which is never read",
        hint="somebody else wrote to the journal; see who may write its directory",
    )


def _encode(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return {"$at": value.isoformat()}
    if isinstance(value, OrchestratorError):
        return {"$error": log.redact(value.as_json())}
    if isinstance(value, BaseException):
        name = type(value).__name__
        return {"$error": {"error": name, "message": log.redact_text(f"{name}: {value}")}}
    raise TypeError(f"not a JSON value: {type(value).__name__}")


def _decode(document: dict[str, Any]) -> Any:
    if set(document) == {"$at"}:
        return dt.datetime.fromisoformat(document["$at"])
    if set(document) == {"$error"}:
        return errors.from_json(document["$error"])
    return document
