"""The recipient lock, on the recipient.

One file, ``/var/lib/xbvault/lock``, or one in another folder where a run holds less than the host,
changed only under ``flock`` on itself and never renamed or
removed. It says which run holds the host, which journal that run belongs to, until when (boot id
and uptime, so a clock that is set changes nothing, and a restarted host is free), a fencing
number that only rises, and which run last swapped or wrote keys.

Two slots of fixed size are written in turn, each a line that repeats its serial number at the end;
the reader takes the newest whole one. So a write that is cut leaves the state before it, which is
right, because its writer had not been answered yet, and a full disk does not stop a renewal. The
shell side is ``host/lock.sh``.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from orchestrator import log, numerals
from orchestrator.errors import CommandError, LockHeldError, VerificationError
from orchestrator.host import script
from orchestrator.models import STATE_DIR

if TYPE_CHECKING:
    from orchestrator.remote import Remote

_WORD: Final = re.compile(r"[A-Za-z0-9._:@+-]{1,200}")
_HELD: Final = 75


@dataclasses.dataclass(frozen=True, kw_only=True)
class LockState:
    """The lock, as it was found.

    Attributes:
        run: The run that holds it; empty: it is free.
        holder: Id of the journal that the run belongs to.
        fence: Rises by one each time that the lock is taken, and never falls.
        live: The lease has not run out.
        changed_by: The run that last swapped or wrote keys; empty: none did.
        changed_fence: The fence that it had.
        seconds_left: Of the lease; 0 if it is not live.
    """

    run: str
    holder: str
    fence: int
    live: bool
    changed_by: str
    changed_fence: int
    seconds_left: int = 0


def read_lock(remote: Remote, *, base: str = STATE_DIR) -> LockState:
    """Read the lock in a folder.

    Raises:
        CommandError: Its file is damaged or cannot be read.
        VerificationError: What the host answered is not its state.
    """
    return _call(remote, base, "read")[0]


def take_lock(
    remote: Remote, *, run: str, holder: str, lease_seconds: int, base: str = STATE_DIR
) -> int:
    """Take the lock, or take it over from the same run of the same journal.

    Returns:
        The fence, one higher than before.

    Raises:
        LockHeldError: Another run, or this run of another journal, holds it, and its lease is live.
    """
    state, is_ours = _call(remote, base, "take", run, holder, _whole_seconds(lease_seconds))
    if not is_ours:
        raise LockHeldError(
            f"run {state.run} holds {remote.name}, for {state.seconds_left} seconds more at least",
            host=remote.name,
            hint=f"wait for run {state.run}, or cancel it where it was started",
        )
    log.get().info("lock.taken", host=remote.name, fence=state.fence)
    return state.fence


def renew_lock(
    remote: Remote,
    *,
    run: str,
    holder: str,
    fence: int,
    lease_seconds: int,
    base: str = STATE_DIR,
) -> None:
    """Let the lease begin again. One that ran out is still ours if nobody came.

    Raises:
        LockHeldError: It is not ours any more.
    """
    state, is_ours = _call(
        remote, base, "renew", run, holder, str(fence), _whole_seconds(lease_seconds)
    )
    if not is_ours:
        raise _lost(remote, state, run)


def mark_change(remote: Remote, *, run: str, fence: int) -> None:
    """Record that this run swaps or writes keys; call it before doing so.

    Raises:
        LockHeldError: It is not ours any more.
    """
    state, is_ours = _call(remote, STATE_DIR, "mark", run, str(fence))
    if not is_ours:
        raise _lost(remote, state, run)


def release_lock(remote: Remote, *, run: str, holder: str, base: str = STATE_DIR) -> None:
    """Give the lock back; one that is not ours is left alone."""
    state, _ = _call(remote, base, "release", run, holder)
    if not state.run:
        log.get().info("lock.released", host=remote.name, fence=state.fence)


def fence_command(*, run: str, fence: int, base: str = STATE_DIR) -> tuple[str, ...]:
    """Return what stands before a command that may run only while the lock is ours.

    The host itself looks at the lock then. So an orchestrator that was stopped, and wakes up after
    another process took over, does no more harm, wherever in a step it stands.

    Args:
        run: The run that must hold the lock.
        fence: The fence that it must have.
        base: Folder of the lock.
    """
    return ("sh", "-c", script("fence.sh"), "fence", f"{base}/lock", run, str(fence))


def _lost(remote: Remote, state: LockState, run: str) -> LockHeldError:
    log.get().info("lock.lost", host=remote.name, fence=state.fence, held_by=state.run)
    by = f"run {state.run} holds it" if state.run else "nobody holds it"
    return LockHeldError(
        f"run {run} has lost the lock of {remote.name}: {by}, with fence {state.fence}",
        host=remote.name,
        hint="look at the other run; then resume this one",
    )


def _whole_seconds(seconds: int) -> str:
    if seconds <= 0:
        raise ValueError("a lease lasts longer than nothing")
    return str(seconds)


def _call(remote: Remote, base: str, verb: str, *arguments: str) -> tuple[LockState, bool]:
    for word in arguments:
        if not _WORD.fullmatch(word):
            raise ValueError("a word of the lock has 1 to 200 of A-Z a-z 0-9 . _ : @ + -")
    result = remote.run(
        ["sh", "-s", "--", verb, base, *arguments], stdin=script("lock.sh"), check=False
    )
    if result.status not in (0, _HELD):
        reason = result.stderr.strip().rpartition("\n")[2] or f"status {result.status}"
        raise CommandError(
            f"cannot {verb} the lock of {remote.name}: {reason}",
            host=remote.name,
            hint=f"look at {base}/lock on {remote.name}",
            status=result.status,
            stderr=result.stderr,
        )
    try:
        return parse_lock(result.text), result.status == 0
    except VerificationError as error:
        error.host = remote.name
        raise


def parse_lock(text: str) -> LockState:
    """Return the state that ``host/lock.sh`` printed.

    Raises:
        VerificationError: It is not whole, or not of this form.
    """
    values = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
    try:
        if not text.endswith("\n"):
            values.clear()  # a number at the end may be a part of one
        return LockState(
            run=values["run"],
            holder=values["holder"],
            fence=numerals.parse_whole(values["fence"]),
            live=numerals.parse_whole(values["live"]) == 1,
            changed_by=values["changed_by"],
            changed_fence=numerals.parse_whole(values["changed_fence"]),
            seconds_left=numerals.parse_whole(values["left"]),
        )
    except (KeyError, VerificationError) as error:
        raise VerificationError(
            f"the state of the recipient lock is not to be understood: {error}",
            hint="look at the file `lock` there",
        ) from error
