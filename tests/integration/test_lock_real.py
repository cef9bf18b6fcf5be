from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from local_remote import LocalRemote

from orchestrator import lock
from orchestrator.errors import CommandError, LockHeldError
from orchestrator.host import script
from orchestrator.models import STATE_DIR
from orchestrator.remote import Result

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def host(tmp_path: Path) -> LocalRemote:
    """This machine, with the lock below the test's folder."""
    return LocalRemote(root=tmp_path)


def lock_path(host: LocalRemote) -> Path:
    """Return where the lock of this host is."""
    return Path(host.place(STATE_DIR)) / "lock"


def take(host: LocalRemote, run: str, *, holder: str = "j1", lease_seconds: int = 60) -> int:
    """Take the lock."""
    return lock.take_lock(host, run=run, holder=holder, lease_seconds=lease_seconds)


def test_a_host_without_a_file_is_free(host: LocalRemote) -> None:
    """Reading makes nothing."""
    state = lock.read_lock(host)
    assert (state.run, state.fence, state.live) == ("", 0, False)
    assert not lock_path(host).exists()


def test_a_lock_is_taken_and_given_back(host: LocalRemote) -> None:
    """The file says who holds it; after the release it is free, and the fence stays."""
    assert take(host, "run1") == 1
    state = lock.read_lock(host)
    assert (state.run, state.holder, state.fence, state.live) == ("run1", "j1", 1, True)
    assert 55 <= state.seconds_left <= 60
    lock.release_lock(host, run="run1", holder="j1")
    state = lock.read_lock(host)
    assert (state.run, state.holder, state.fence, state.live) == ("", "", 1, False)
    lock.release_lock(host, run="run1", holder="j1")
    assert take(host, "run2") == 2
    assert lock_path(host).stat().st_mode & 0o777 == 0o600
    assert lock_path(host).parent.stat().st_mode & 0o777 == 0o700


def test_another_run_is_refused(host: LocalRemote) -> None:
    """While the lease lives, no other run, and no other journal, gets it or gives it back."""
    fence = take(host, "run1")
    for run, holder in (
        ("run2", "j1"),
        ("run1", "j2"),
        ("run11", "j1"),
        ("run", "1"),
        ("ru", "n1"),
    ):
        with pytest.raises(LockHeldError, match="run run1 holds"):
            take(host, run, holder=holder)
        lock.release_lock(host, run=run, holder=holder)
    state = lock.read_lock(host)
    assert (state.run, state.fence, state.live) == ("run1", fence, True)


def test_the_same_run_takes_over_at_once(host: LocalRemote) -> None:
    """A resumed run does not wait for its own lease, and the process before it has lost."""
    first = take(host, "run1")
    second = take(host, "run1")
    assert second == first + 1
    with pytest.raises(LockHeldError, match="lost the lock"):
        lock.renew_lock(host, run="run1", holder="j1", fence=first, lease_seconds=60)
    with pytest.raises(LockHeldError, match="lost the lock"):
        lock.mark_change(host, run="run1", fence=first)
    lock.renew_lock(host, run="run1", holder="j1", fence=second, lease_seconds=60)


def test_a_lease_runs_out(host: LocalRemote) -> None:
    """A holder that does not renew is followed by another; then it is too late for it."""
    fence = take(host, "run1", lease_seconds=1)
    time.sleep(1.2)
    assert not lock.read_lock(host).live
    lock.renew_lock(host, run="run1", holder="j1", fence=fence, lease_seconds=1)
    assert lock.read_lock(host).live
    time.sleep(1.2)
    assert take(host, "run2") == fence + 1
    with pytest.raises(LockHeldError, match="run run2 holds it"):
        lock.renew_lock(host, run="run1", holder="j1", fence=fence, lease_seconds=60)


def test_a_reboot_ends_a_lease(host: LocalRemote) -> None:
    """A lease of another boot is over, whatever the uptime says."""
    take(host, "run1", lease_seconds=100000)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    path = lock_path(host)
    other = "00000000-0000-0000-0000-000000000000"
    path.write_text(path.read_text().replace(boot, other))
    assert not lock.read_lock(host).live
    assert take(host, "run2") == 2


def test_changes_are_remembered(host: LocalRemote) -> None:
    """Who last swapped or wrote keys is kept over releases and other holders."""
    fence = take(host, "run1")
    lock.mark_change(host, run="run1", fence=fence)
    lock.release_lock(host, run="run1", holder="j1")
    take(host, "run2")
    state = lock.read_lock(host)
    assert (state.run, state.changed_by, state.changed_fence) == ("run2", "run1", fence)
    with pytest.raises(LockHeldError):
        lock.mark_change(host, run="run1", fence=fence)


def test_a_fence_lets_only_its_holder_act(host: LocalRemote, tmp_path: Path) -> None:
    """Behind a fence a command runs as it is while the lock is ours, and never afterwards."""
    act = ("sh", "-c", 'cat; echo "$1" >&2; exit 7', "sh", "it's *")

    def run_behind(fence: int, run: str = "run1") -> Result:
        guard = lock.fence_command(run=run, fence=fence)
        return host.run([*guard, *act], stdin=b"in\0put", check=False)

    first = take(host, "run1")
    for _ in range(4):
        assert run_behind(first) == Result(status=7, stdout=b"in\0put", stderr="it's *\n")
        lock.renew_lock(host, run="run1", holder="j1", fence=first, lease_seconds=60)
    assert (
        host.run([*lock.fence_command(run="run1", fence=first), "none"], check=False).status == 127
    )
    second = take(host, "run1")
    for refused in (run_behind(first), run_behind(second, "run"), run_behind(second, "run11")):
        assert (refused.status, refused.stdout) == (75, b"")
        assert refused.stderr == f"xbvault fence: the lock names run=run1 fence={second}\n"
    assert run_behind(second).status == 7
    lock.release_lock(host, run="run1", holder="j1")
    assert run_behind(second).status == 75
    lock_path(host).unlink()
    assert run_behind(second).status == 75


def test_a_fence_reads_past_a_cut_write(host: LocalRemote) -> None:
    """Of two slots of which one is half written, the whole one counts, as for the lock itself."""
    fence = take(host, "run1")
    guard = lock.fence_command(run="run1", fence=fence)
    take(host, "run1")
    content = lock_path(host).read_bytes()
    assert host.run([*guard, "true"], check=False).status == 75
    lock_path(host).write_bytes(content[:1024] + content[1024:1040].ljust(1023) + b"\n")
    assert host.run([*guard, "true"], check=False).status == 0


def test_the_fence_only_rises(host: LocalRemote) -> None:
    """Over takes, releases, leases and refusals the fence never falls or repeats."""
    fences = []
    for number in range(8):
        fences.append(take(host, f"run{number}"))
        with pytest.raises(LockHeldError):
            take(host, "stranger")
        if number % 2:
            lock.release_lock(host, run=f"run{number}", holder="j1")
        else:
            lock.renew_lock(
                host, run=f"run{number}", holder="j1", fence=fences[-1], lease_seconds=1
            )
            time.sleep(1.1)
    assert fences == list(range(1, 9))


def test_of_two_takers_one_wins(host: LocalRemote) -> None:
    """Fifty times two processes want a free host at once: exactly one of them gets it."""
    with ThreadPoolExecutor(2) as pool:
        for number in range(50):
            gate = threading.Barrier(2)

            def attempt(run: str, gate: threading.Barrier = gate) -> int:
                gate.wait()
                try:
                    return take(host, run)
                except LockHeldError:
                    return 0

            runs = (f"a{number}", f"b{number}")
            futures = [pool.submit(attempt, run) for run in runs]
            fences = [future.result() for future in futures]
            assert sorted(fences) == [0, number + 1]
            winner = runs[fences.index(number + 1)]
            assert lock.read_lock(host).run == winner
            lock.release_lock(host, run=winner, holder="j1")


def test_readers_never_see_half_a_change(host: LocalRemote) -> None:
    """While the lock is renewed without a pause, every reader gets a whole state."""
    fence = take(host, "run1")
    over = threading.Event()

    def renew() -> None:
        while not over.is_set():
            lock.renew_lock(host, run="run1", holder="j1", fence=fence, lease_seconds=60)

    with ThreadPoolExecutor(2) as pool:
        writer = pool.submit(renew)
        states = [lock.read_lock(host) for _ in range(40)]
        over.set()
        writer.result()
    assert {(s.run, s.fence, s.live) for s in states} == {("run1", fence, True)}


def test_a_killed_taker_holds_nobody_up(host: LocalRemote) -> None:
    """SIGKILL of a process that has the file locked frees it; the state before stands."""
    take(host, "run1")
    path = lock_path(host)
    holder = subprocess.Popen(
        ["flock", str(path), "sh", "-c", "echo locked; exec sleep 60"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        threading.Timer(0.5, os.killpg, (holder.pid, signal.SIGKILL)).start()
        assert take(host, "run1") == 2
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


@pytest.mark.parametrize("kept", [0, 1, 100, 500, 1023])
def test_a_cut_write_leaves_the_state_before(host: LocalRemote, kept: int) -> None:
    """Whatever part of the newest slot reached the disk, the other slot counts."""
    take(host, "run1", lease_seconds=1)
    path = lock_path(host)
    before = path.read_bytes()
    take(host, "run1")
    after = path.read_bytes()
    assert (len(before), len(after)) == (1024, 2048)
    line_end = after[1024:].index(b"end=") + 5
    if kept < line_end:
        path.write_bytes(after[: 1024 + kept])
        assert lock.read_lock(host).fence == 1
        path.write_bytes(after[: 1024 + kept].ljust(2048, b"\0"))
        assert lock.read_lock(host).fence == 1
        assert take(host, "run1") == 2
    else:
        path.write_bytes(after[: 1024 + kept])
        assert lock.read_lock(host).fence == 2


def test_a_first_write_that_was_cut_is_no_lock(host: LocalRemote) -> None:
    """Nobody was told of it, so the host is free."""
    take(host, "run1")
    path = lock_path(host)
    path.write_bytes(path.read_bytes()[:50])
    assert lock.read_lock(host).run == ""
    assert take(host, "run2") == 1


def test_a_damaged_file_is_an_error(host: LocalRemote) -> None:
    """Two slots that nobody can read are not taken for a free host."""
    take(host, "run1")
    take(host, "run1")
    lock_path(host).write_bytes(b"\0" * 2048)
    with pytest.raises(CommandError, match="damaged"):
        lock.read_lock(host)
    with pytest.raises(CommandError, match="damaged"):
        take(host, "run2")


@pytest.fixture
def small_disk(host: LocalRemote) -> Iterator[Path]:
    """Our folder on the host is a filesystem of 64 kB."""
    base = Path(host.place(STATE_DIR))
    base.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(base)], check=True)
    yield base
    subprocess.run(["umount", str(base)], check=True)


def test_a_full_disk_loses_no_lock(host: LocalRemote, small_disk: Path) -> None:
    """A lock that is held can be renewed, marked and given back on a full disk."""
    fence = take(host, "run1", lease_seconds=5)
    filler = ["cp", "/dev/zero", str(small_disk / "filler")]
    result = subprocess.run(filler, check=False, capture_output=True)
    assert b"No space left" in result.stderr
    lock.renew_lock(host, run="run1", holder="j1", fence=fence, lease_seconds=60)
    lock.mark_change(host, run="run1", fence=fence)
    assert lock.read_lock(host).seconds_left > 50
    lock.release_lock(host, run="run1", holder="j1")
    assert lock.read_lock(host).changed_by == "run1"


def test_longest_words_fit(host: LocalRemote) -> None:
    """A state of the longest words that are allowed is read back whole."""
    run, holder = "r" * 200, "h" * 200
    fence = take(host, run, holder=holder)
    lock.mark_change(host, run=run, fence=fence)
    lock.renew_lock(host, run=run, holder=holder, fence=fence, lease_seconds=60)
    state = lock.read_lock(host)
    assert (state.run, state.holder, state.changed_by) == (run, holder, run)


@pytest.mark.parametrize(
    "words",
    [
        ["take", "BASE", "a b", "j1", "60"],
        ["take", "BASE", "a\nrun=b", "j1", "60"],
        ["take", "BASE", "a", "j1", "1;id"],
        ["take", "BASE", "a", "j1"],
        ["renew", "BASE", "a", "j1", "x", "60"],
        ["steal", "BASE", "a", "j1", "60"],
        ["take"],
    ],
)
def test_the_script_checks_its_words(host: LocalRemote, words: list[str]) -> None:
    """The script on the host trusts no caller."""
    words = [STATE_DIR if word == "BASE" else word for word in words]
    result = host.run(["sh", "-s", "--", *words], stdin=script("lock.sh"), check=False)
    assert result.status == 64
    assert not lock_path(host).exists()
