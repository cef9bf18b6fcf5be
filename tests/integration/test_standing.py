"""What a step reads of a swap, by the real scripts on real directories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cli_lab import make_plan
from local_remote import LocalRemote

from orchestrator.errors import CommandError, InterruptedWorkError, VerificationError
from orchestrator.steps import places, records, restarts, restore
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from orchestrator.models import Plan
    from orchestrator.remote import Remote


def make_tools(remote: Remote) -> Tools:
    """Return what a step works with; only the recipient is asked."""
    nobody: Any = None
    return Tools(config=nobody, vault=nobody, donor=remote, recipient=remote)


def make_world(root: Path) -> tuple[Tools, Plan, Path]:
    """Return a recipient below a folder, with a run that has not begun, and the run's folder."""
    plan = make_plan(
        datadir=f"{root}/data dir", old_datadir=f"{root}/data dir.old", new_datadir=f"{root}/new"
    )
    remote = LocalRemote(root=root)
    run_dir = root / plan.run_dir.removeprefix("/")
    run_dir.mkdir(parents=True)
    return make_tools(remote), plan, run_dir


def identity(tools: Tools, path: Path) -> str:
    """Return the identity of a directory."""
    return restore.read_identity(tools, str(path))


def test_before_anything(tmp_path: Path) -> None:
    """Nothing is recorded, and there is no datadir."""
    tools, plan, _ = make_world(tmp_path)
    found = restore.read_standing(tools, plan)
    assert (found.recorded, found.phase, found.was_running, found.in_place) == ("",) * 4
    assert (found.has_datadir, found.has_old, found.is_swapped) == (False, False, False)


def test_swapped(tmp_path: Path) -> None:
    """It is the identity that tells, and the phase: each by itself does not."""
    tools, plan, run_dir = make_world(tmp_path)
    datadir = tmp_path / "data dir"
    datadir.mkdir()
    (tmp_path / "data dir.old").mkdir()
    (run_dir / restore.WAS_RUNNING).write_text("yes\n")
    (run_dir / "swap.phase").write_text(f"{places.SWAPPED}\n")
    assert not restore.is_swapped(tools, plan)
    (run_dir / places.IDENTITY).write_text(f"{identity(tools, datadir)}\n")
    found = restore.read_standing(tools, plan)
    assert found.is_swapped
    assert found.has_datadir
    assert found.has_old
    assert restore.was_running(tools, plan)
    (run_dir / "swap.phase").write_text("in\n")
    assert not restore.is_swapped(tools, plan)
    (run_dir / "swap.phase").write_text(places.SWAPPED)  # a line without its end is one
    assert restore.is_swapped(tools, plan)
    (run_dir / places.IDENTITY).write_text("1.1\n")
    assert not restore.is_swapped(tools, plan)


def test_what_cannot_be_read_is_not_empty(tmp_path: Path) -> None:
    """A record that is there and cannot be read is an error: nobody takes it for none."""
    tools, plan, run_dir = make_world(tmp_path)
    (run_dir / restore.WAS_RUNNING).symlink_to("/proc/self/mem")  # opens, and gives an error
    with pytest.raises((CommandError, VerificationError)):
        restore.read_standing(tools, plan)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "end\n",
        "a\nb\nc\nd\nyes\nno\ne\ne\n",
        "a\nb\nc\nd\nyes\nno\ne\ne\nend",
        "a\nb\nc\nend\n",
    ],
)
def test_an_answer_that_was_cut(text: str) -> None:
    """It is not taken for a swap that has not begun."""
    with pytest.raises(VerificationError):
        restore.parse_standing(text)


def test_a_set_of_an_earlier_boot(tmp_path: Path) -> None:
    """It may not have reached the disk until the swap begins, which sees to that."""
    tools, plan, run_dir = make_world(tmp_path)
    (tmp_path / records.RUNS.removeprefix("/")).mkdir(parents=True, exist_ok=True)
    restarts.need_same_boot(tools, plan)  # of a run that began before boots were noted
    restarts.make_folders(tools, plan, plan.run_dir)
    noted = run_dir / restarts.BOOT_FILE
    assert noted.read_text() == Path(restarts.BOOT_ID).read_text()
    restarts.need_same_boot(tools, plan)
    assert not restore.read_standing(tools, plan).may_be_lost
    noted.write_text("11111111-2222-3333-4444-555555555555\n")
    with pytest.raises(InterruptedWorkError, match="was restarted"):
        restarts.need_same_boot(tools, plan)
    assert restore.read_standing(tools, plan).may_be_lost
    (run_dir / "swap.phase").write_text("in\n")
    assert not restore.read_standing(tools, plan).may_be_lost
    restarts.make_folders(tools, plan, plan.run_dir)
    restarts.need_same_boot(tools, plan)


def test_the_run_that_made_the_datadir(tmp_path: Path) -> None:
    """It is found among all that the host remembers; without a datadir there is none."""
    tools, plan, run_dir = make_world(tmp_path)
    assert restore.find_run_in_place(tools, plan) == ""
    datadir = tmp_path / "data dir"
    datadir.mkdir()
    assert restore.find_run_in_place(tools, plan) == ""
    for name, text in {"r0": "", "r1": "1.1\n", "r2 odd": f"{identity(tools, datadir)}\n"}.items():
        folder = run_dir.parent / name
        folder.mkdir()
        (folder / places.IDENTITY).write_text(text)
    (run_dir.parent / "no run").touch()
    assert restore.find_run_in_place(tools, plan) == "r2 odd"
    assert str(run_dir.parent).endswith(records.RUNS)
