"""Work on several hosts at the same time."""

from __future__ import annotations

import threading

import pytest
import structlog

from orchestrator.steps import together


def test_both_are_done_at_once_and_know_the_run() -> None:
    """Each waits for the other, so neither would end if they took turns."""
    meeting = threading.Barrier(2, timeout=10)

    def meet(answer: str) -> tuple[str, object]:
        meeting.wait()
        return answer, structlog.contextvars.get_contextvars().get("run_id")

    with structlog.contextvars.bound_contextvars(run_id="r1"):
        assert together.do_both(lambda: meet("a"), lambda: meet("b")) == (("a", "r1"), ("b", "r1"))


def test_an_error_is_raised_when_both_have_ended() -> None:
    """The first one's, if there are two."""
    ended = threading.Event()

    def fail() -> None:
        raise ValueError("first")

    def end() -> None:
        ended.set()
        raise ValueError("second")

    with pytest.raises(ValueError, match="first"):
        together.do_both(fail, end)
    assert ended.is_set()
    with pytest.raises(ValueError, match="second"):
        together.do_both(lambda: None, end)
