"""Five defects to plant in a copy of the product, and what is to see each.

A defect is a change of one line or two.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections import Counter
from typing import TYPE_CHECKING

import laws
from clone_lab import REPOSITORY
from nemesis import NEMESES
from play import CLONE, play
from stand import Stand, note, wait_for
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defect:
    """A defect.

    Attributes:
        name: What the product does wrong.
        changes: File in the product, what stands there, and what is put there instead.
        seen_by: What sees it.
        says: What the failure says.
    """

    name: str
    changes: tuple[tuple[str, str, str], ...]
    seen_by: Callable[[Stand], None]
    says: str


def strike(name: str) -> Callable[[Stand], None]:
    """Return the playing of a nemesis."""

    def see(stand: Stand) -> None:
        play(stand, NEMESES[name])

    see.__name__ = name
    return see


def second_machine_is_refused(stand: Stand) -> None:
    """A clone of another journal to the same recipient is told who holds it (exit 3).

    Raises:
        AssertionError: It is not.
    """
    before = note(stand)
    first = stand.start(*CLONE, environment={"XBVAULT_HALT_AT": "verify-backup-set:before"})
    try:
        wait_for(lambda: first.is_halted or first.has_ended, "the first clone")
        text = stand.lab.config_file.read_text(encoding="utf-8")
        other = stand.folder / "other.toml"
        elsewhere = stand.folder / "elsewhere"
        other.write_text(text.replace(str(stand.state), str(elsewhere)), encoding="utf-8")
        halts = {"XBVAULT_CONFIG": str(other), "XBVAULT_HALT_AT": "stream-backup:before"}
        second = stand.start(*CLONE, environment=halts)
        wait_for(lambda: second.is_halted or second.has_ended, "the second clone")
        ended = second.wait() if second.has_ended else None
        second.end()
        first.go_on()
        outcome = first.wait()
    finally:
        first.end()
        take_back(stand, before)
    assert ended is not None, "the second one was let in"
    assert ended.error.get("error") == "LockHeldError", ended
    assert outcome.status == 0, outcome.talk


def stream_goes_on_without_us(stand: Stand) -> None:
    """An orchestrator that is killed in mid-stream and resumed attaches to the stream.

    Raises:
        AssertionError: It streamed again.
    """
    before = note(stand)
    try:
        with stand.gate(OURS.backup_gate, after_bytes=4_000_000) as gate:
            killed = stand.start(*CLONE)
            wait_for(lambda: gate.is_reached or killed.has_ended, "the stream")
            killed.end()
            gate.open()
            run_id = stand.read_newest_run()
            outcome = stand.start("runs", "resume", run_id, "--json").wait()
    finally:
        take_back(stand, before)
    assert outcome.status == 0, outcome.talk
    began = Counter(e["job"] for e in stand.read_events(run_id) if e["event"] == "job.started")
    streams = [count for job, count in began.items() if "send-backup" in job]
    assert streams == [1], f"the stream was begun again: {began}"


def take_back(stand: Stand, before: laws.Before) -> None:
    """Give the recipient its earlier data back, whatever came of the run."""
    newest = stand.read_newest_run()
    for verb in ("cancel", "undo"):
        stand.start("runs", verb, newest, "--yes", "--json").wait()
    assert laws.check_earlier_data(stand.lab, before) == []


DEFECTS = [
    Defect(
        name="a step that ignores the exit status of the extraction",
        changes=(
            (
                "steps/stream_ends.py",
                "    if all(state.is_ok for state in found.states):\n        return\n",
                "    if sent.ended:\n        return\n",
            ),
        ),
        seen_by=strike("byte-flipped-in-the-stream"),
        says="what came was VerificationError",
    ),
    Defect(
        name="a lock that is only local",
        changes=(
            (
                "host/lock.sh",
                """if [ "$live" = 1 ] && [ "$run $holder" != "$1 $2" ]; then refuse; fi""",
                ":",
            ),
            # preflight would see the lock as well, and refuse before it is taken
            (
                "facts/preflight/recipient.py",
                "    state = survey.lock\n",
                "    state = None\n",
            ),
        ),
        seen_by=second_machine_is_refused,
        says="the second one was let in",
    ),
    Defect(
        name="a clean-up that forgets the transition mount",
        changes=(
            (
                "steps/cleanup.py",
                "    for mount in mounts:\n        if tools.vault.has_mount(mount):\n",
                "    for mount in ():\n        if tools.vault.has_mount(mount):\n",
            ),
        ),
        seen_by=strike("backup-tool-slowed"),
        says="the mount xbvault-transition/",
    ),
    Defect(
        name="a resume that streams again",
        changes=(
            (
                "steps/stream.py",
                "        if not is_worth_attaching(tools, plan, send, receive):\n",
                "        if True:\n",
            ),
        ),
        seen_by=stream_goes_on_without_us,
        says="the stream was begun again",
    ),
    # The last one: it leaves a recipient without its earlier data.
    Defect(
        name="a swap that deletes instead of renames",
        changes=(
            (
                "host/swap.sh",
                """    mv -T -- "$1" "$2" || die "cannot rename $1 to $2\"""",
                """    case $2 in *-old-*) rm -rf -- "$1" ;; *) mv -T -- "$1" "$2" ;; esac""",
            ),
        ),
        seen_by=strike("backup-tool-slowed"),
        says="the recipient's earlier datadir stands at",
    ),
]


def plant(defect: Defect, folder: Path) -> list[str]:
    """Make a copy of the product with the defect in it; return the command that runs it."""
    package = folder / "orchestrator"
    shutil.copytree(REPOSITORY / "orchestrator", package)
    shutil.copytree(REPOSITORY / "playbooks", package / "playbooks", dirs_exist_ok=True)
    for name, there, instead in defect.changes:
        path = package / name
        text = path.read_text(encoding="utf-8")
        assert text.count(there) == 1, f"{name} has changed: {there!r}"
        path.write_text(text.replace(there, instead), encoding="utf-8")
    # -P: else the checkout, which the commands run in, would come first.
    return ["env", f"PYTHONPATH={folder}", sys.executable, "-P", "-m", "orchestrator"]
