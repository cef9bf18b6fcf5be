"""What is asked beforehand is asked once more where a connection broke."""

from __future__ import annotations

import pytest

from orchestrator.errors import CommandError, ConnectionLostError
from orchestrator.facts import survey


class Host:
    """Answers, after it has failed in these ways.

    Args:
        failures: In their order.
    """

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.calls = 0

    def ask(self, word: str) -> str:
        """Fail, or say the word."""
        self.calls += 1
        if self._failures:
            raise self._failures.pop(0)
        return word


def test_a_broken_connection_is_tried_once_more() -> None:
    """It changes nothing to look twice; a third time nobody looks."""
    broken = ConnectionLostError("broke", host="db1", hint="look")
    host = Host(broken)
    assert survey.look_twice(host.ask, "free") == "free"
    assert host.calls == 2
    host = Host(broken, broken)
    with pytest.raises(ConnectionLostError):
        survey.look_twice(host.ask, "free")
    assert host.calls == 2


def test_an_answer_is_an_answer() -> None:
    """Also one that is a refusal."""
    host = Host(CommandError("refused", host="db1", hint="look"))
    with pytest.raises(CommandError, match="refused"):
        survey.look_twice(host.ask, "free")
    assert host.calls == 1
