"""An error by itself; what every class must do is in ``tests/contract/test_errors.py``."""

from __future__ import annotations

from orchestrator import errors
from orchestrator.errors import CommandError, LockHeldError, PreconditionError, VerificationError


def test_document_of_an_error() -> None:
    """What the journal and --json carry: class, message, and all that helps."""
    error = VerificationError("2 tables differ", host="db2", hint="do not use it", problems=["a"])
    assert error.as_json() == {
        "error": "VerificationError",
        "message": "2 tables differ",
        "host": "db2",
        "hint": "do not use it",
        "problems": ["a"],
    }


def test_document_of_a_command_error() -> None:
    """Status and last words go along; a command that was killed has no status."""
    document = CommandError("it failed", status=1, stderr="no space").as_json()
    assert (document["status"], document["stderr"]) == (1, "no space")
    assert CommandError("it was killed").as_json()["status"] is None


def test_keys_of_another_class_are_left_out() -> None:
    """A document with a key that the class does not know makes the error all the same."""
    found = errors.from_json({"error": "PreconditionError", "message": "m", "status": 1})
    assert type(found) is PreconditionError
    assert "status" not in found.as_json()


def test_lock_is_a_precondition() -> None:
    """Who handles preconditions handles a held lock, with the same exit status."""
    assert issubclass(LockHeldError, PreconditionError)
    assert LockHeldError("held").exit_status == 3


def test_problems_cannot_be_altered_from_outside() -> None:
    """The list that was given may change; the error does not."""
    problems = ["a"]
    error = PreconditionError("two", problems=problems)
    problems.append("b")
    assert error.problems == ("a",)
