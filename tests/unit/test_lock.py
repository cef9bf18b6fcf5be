from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from local_remote import LocalRemote

from orchestrator import lock
from orchestrator.errors import CommandError, LockHeldError
from orchestrator.remote import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.models import Secret

HELD = "run=other\nholder=j2\nfence=4\nlive=1\nleft=30\nchanged_by=old\nchanged_fence=2\n"  # as printed


@dataclasses.dataclass
class Host(LocalRemote):
    """Answers every command alike, and remembers them."""

    answer: Result = dataclasses.field(default_factory=lambda: Result(status=0))
    calls: list[list[str]] = dataclasses.field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | Secret = b"",
        check: bool = True,
        timeout_seconds: float = 60.0,
    ) -> Result:
        """Answer."""
        self.calls.append(list(argv))
        return self.answer


def test_the_state_is_read() -> None:
    """Every value that the host prints is in the state."""
    host = Host(answer=Result(status=0, stdout=HELD.encode()))
    assert lock.read_lock(host) == lock.LockState(
        run="other",
        holder="j2",
        fence=4,
        live=True,
        changed_by="old",
        changed_fence=2,
        seconds_left=30,
    )


def test_a_held_lock_names_its_run() -> None:
    """Who is refused learns which run holds the host, and for how long."""
    host = Host(answer=Result(status=75, stdout=HELD.encode()), name="db2")
    with pytest.raises(LockHeldError, match="run other holds db2, for 30 seconds") as caught:
        lock.take_lock(host, run="mine", holder="j1", lease_seconds=60)
    assert caught.value.host == "db2"
    assert "other" in caught.value.hint


@pytest.mark.parametrize("run", ["", "a b", "a\nrun=x", "$(id)", "a" * 201, "é"])
def test_odd_words_are_refused(run: str) -> None:
    """A word that could break the file's lines never reaches the host."""
    host = Host()
    with pytest.raises(ValueError, match="word of the lock"):
        lock.take_lock(host, run=run, holder="j1", lease_seconds=60)
    assert host.calls == []


def test_a_lease_of_nothing_is_refused() -> None:
    """A lock that is over at once protects nobody."""
    with pytest.raises(ValueError, match="lease"):
        lock.take_lock(Host(), run="mine", holder="j1", lease_seconds=0)


def test_a_failure_is_no_verdict() -> None:
    """A lock that cannot be read is an error, not free and not held."""
    host = Host(answer=Result(status=74, stderr="xbvault lock: damaged\n"))
    with pytest.raises(CommandError, match="damaged") as caught:
        lock.read_lock(host)
    assert caught.value.status == 74
