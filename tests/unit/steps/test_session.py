"""A session's look at the recipient lock, with which every step begins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import pytest
from engine_lab import make_config, make_plan
from fake_remote import FakeRemote

from orchestrator.errors import LockHeldError
from orchestrator.remote import Result
from orchestrator.steps import session as sessions
from orchestrator.steps.registry import REGISTRY

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.steps.session import Session

STATE = "run={run}\nholder=h\nfence=3\nlive=1\nleft=60\nchanged_by=\nchanged_fence=0\n"


class FakeDoors:
    """Doors to hosts made of dictionaries."""

    def __init__(self) -> None:
        self.hosts: dict[str, FakeRemote] = {}

    def open(self, name: str) -> FakeRemote:
        """Return a host, the same each time."""
        return self.hosts.setdefault(name, FakeRemote(name))


def make_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Session, FakeRemote]:
    """Return a session that holds the lock of its recipient, and has renewed it just now."""
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example:8200")
    monkeypatch.setenv("VAULT_TOKEN", "s.tokenOfTheTests0000001")
    doors, plan = FakeDoors(), make_plan("r1")
    session = sessions.Session(make_config(tmp_path), plan, cast("Any", doors))
    session._fence, session._renewed_at = 3, time.monotonic()
    recipient = doors.open(plan.recipient)
    recipient.answer("true")
    recipient.answer("sh", "-s", "--", "renew", stdout=STATE.format(run="r1"))
    return session, recipient


def begin_step(session: Session) -> None:
    """Let a step begin."""
    session.tools(REGISTRY["stop-server"], 1, lambda: None, lambda: 60.0)


def test_a_lock_renewed_just_now_is_only_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later it is renewed, and from then on looked at again."""
    session, recipient = make_session(tmp_path, monkeypatch)
    begin_step(session)
    assert [call.argv for call in recipient.calls] == [("true",)]
    session._renewed_at -= sessions.RENEW_SECONDS + 1
    begin_step(session)
    begin_step(session)
    assert [call.argv[:4] for call in recipient.calls[1:]] == [
        ("sh", "-s", "--", "renew"),
        ("true",),
    ]


def test_a_fence_that_let_a_command_through_just_now_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a second later it is, although the lock was renewed since."""
    session, recipient = make_session(tmp_path, monkeypatch)
    recipient.let_through_at = time.monotonic()
    begin_step(session)
    assert recipient.calls == []
    recipient.let_through_at -= sessions.FENCE_SECONDS + 0.1
    begin_step(session)
    assert [call.argv for call in recipient.calls] == [("true",)]


def test_a_lock_that_was_lost_ends_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is looked at: by the fence before the command, or by renewing."""
    session, recipient = make_session(tmp_path, monkeypatch)
    recipient.answers[("true",)] = LockHeldError("the lock names nobody")
    with pytest.raises(LockHeldError):
        begin_step(session)
    session._renewed_at -= sessions.RENEW_SECONDS + 1
    recipient.answers[("sh", "-s", "--", "renew")] = Result(
        status=75, stdout=STATE.format(run="r2").encode()
    )
    with pytest.raises(LockHeldError, match="run r2 holds it"):
        begin_step(session)
