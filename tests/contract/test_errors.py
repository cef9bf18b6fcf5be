"""The error classes: one shape, one tree, one exit status each, and all of them cross the journal."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from orchestrator import durable, errors
from orchestrator.errors import OrchestratorError

CLASSES = errors.classes()
LINE = re.compile(r"^ {4}( *)(\w+Error) +exit (\d+) ", re.MULTILINE)
"""A line of the docstring's tree: depth, class, exit status."""
TREE = {
    name: (len(indent) // 2, int(status))
    for indent, name, status in LINE.findall(errors.__doc__ or "")
}
VALUES: dict[str, Any] = {
    "host": "db1",
    "hint": "mend it, then `xbvault runs resume`",
    "problems": ["a: wrong", "b: ü ✓ \n two"],
    "status": 75,
    "stderr": "last\nwords",
}
DISTINCT = {
    "ConfigError": 2,
    "PreconditionError": 3,
    "RemoteError": 4,
    "SecretError": 5,
    "VerificationError": 6,
    "InterruptedWorkError": 7,
    "JournalError": 8,
    "PartialError": 9,
    "CancelledError": 130,
}
TRANSIENT = {"HostUnreachableError", "SecretStoreUnavailableError", "ConnectionLostError"}


def make(cls: type[OrchestratorError]) -> OrchestratorError:
    """Make an error with a value in everything that it can carry."""
    parameters = inspect.signature(cls).parameters.values()
    names = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return cls("no backup set in /backup/b1", **{name: VALUES[name] for name in names})


@pytest.mark.parametrize("cls", CLASSES.values())
def test_it_crosses_the_journal_and_comes_back_equal(cls: type[OrchestratorError]) -> None:
    """Class, message and all context are the same behind the journal's door."""
    error = make(cls)
    serializer = durable.JournalSerializer()
    found = serializer.deserialize(serializer.serialize(error))
    assert type(found) is cls
    assert vars(found) == vars(error)
    assert str(found) == str(error) == error.message
    assert found.exit_status == error.exit_status
    assert found.transient == error.transient


@pytest.mark.parametrize("cls", CLASSES.values())
def test_it_survives_pickle_and_copy(cls: type[OrchestratorError]) -> None:
    """A process pool or a copy loses nothing of it."""
    error = make(cls)
    for found in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(found) is cls
        assert vars(found) == vars(error)


@pytest.mark.parametrize("cls", CLASSES.values())
def test_it_takes_one_message_and_the_rest_by_name(cls: type[OrchestratorError]) -> None:
    """A message alone is enough, and nothing else is taken by position."""
    error = cls("it broke")
    assert (error.message, error.host, error.hint, error.problems) == ("it broke", "", "", ())
    by_position: Any = cls
    with pytest.raises(TypeError):
        by_position("it broke", "db1")


def test_the_docstring_draws_every_class() -> None:
    """The tree in the module's docstring has each class at its depth, with its exit status."""
    drawn = {
        name: (len(cls.__mro__) - len(OrchestratorError.__mro__), cls.exit_status)
        for name, cls in CLASSES.items()
    }
    assert drawn == TREE


def test_every_class_of_the_module_is_in_the_tree() -> None:
    """No exception class of the module stands outside the tree."""
    own = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert own == set(CLASSES)


def test_exit_statuses_are_the_documented_ones() -> None:
    """Each branch has a status of its own, which its children share."""
    for name, cls in CLASSES.items():
        wanted = next(
            (DISTINCT[base.__name__] for base in cls.__mro__ if base.__name__ in DISTINCT), 1
        )
        assert cls.exit_status == wanted, name
    assert len(set(DISTINCT.values())) == len(DISTINCT)


def test_only_what_may_pass_by_itself_is_transient() -> None:
    """Nothing is retried but a connection that failed or broke and a Vault that is away."""
    assert {name for name, cls in CLASSES.items() if cls.transient} == TRANSIENT


def test_unknown_class_comes_back_as_the_base() -> None:
    """A journal written by a later version can still be shown."""
    found = errors.from_json({"error": "NewError", "message": "m", "host": "h", "colour": "red"})
    assert type(found) is OrchestratorError
    assert (found.message, found.host, found.exit_status) == ("m", "h", 1)
