"""Undo and forget, killed with SIGKILL before and after every step and begun again each time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import kills
import laws
import pytest
import table
from clone_lab import CloneLab, running_lab
from replicas import check_arrival, restart
from warm_cli import warm_cli
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """A lab whose replica was cloned once."""
    with running_lab(
        tmp_path_factory.mktemp("undo") / "lab", size=0.02, flavor=OURS.flavor
    ) as made:
        made.clone()
        yield made


def test_undo_killed_everywhere_gives_the_earlier_replica_back(
    lab: CloneLab, record_property: Callable[[str, object], None]
) -> None:
    """However often it is cut off, an undo ends with the earlier replica, and leaves nothing."""
    before, earlier = laws.note(lab), laws.read_replication(lab)
    second = lab.clone("--replace")
    run_id = second["run_id"]
    assert (lab.directory / "hosts/replica/fs/var/lib/mysql").stat().st_ino != (
        before.datadir_inode
    )

    def judge() -> list[str]:
        return laws.check_donor_runs(lab, before) + laws.check_earlier_data(lab, before)

    undo = ("runs", "undo", run_id, "--yes", "--json")
    with warm_cli(lab.config_file) as cli:
        killed = kills.kill_at_each(cli, kills.list_points("undo"), lambda: undo, judge)
    assert killed.breaches == []
    assert killed.all_killed, killed.exits
    assert killed.last.returncode == 0, killed.last.stderr
    undone = kills.read_events(lab.directory / "state", run_id)
    first = next(i for i, event in enumerate(undone) if event.get("flow") == "undo")
    kills.check_steps(undone[first:], "undo", "undo")

    laws.check_ended(lab, run_id, "undone")
    for row in table.list_kills("undo", killed.phases, "undone"):
        record_property(table.PROPERTY, row.as_json())
    laws.check_donor_is_as_it_was(lab, before, accounts=set())
    laws.check_nothing_outlives(lab, second["backup_id"])
    datadir = lab.directory / "hosts/replica/fs/var/lib/mysql"
    assert datadir.stat().st_ino == before.datadir_inode
    assert not list(datadir.parent.glob(f"*{run_id}*"))

    # Law (f) for an undo: a second one says the same and does nothing.
    fence = laws.read_lock(lab)["fence"]
    again = lab.xbvault(*undo)
    assert again.stdout == killed.last.stdout
    assert laws.read_lock(lab)["fence"] == fence

    restart(lab, "replica")
    user = f"{OURS.source_word}_User"
    assert laws.read_replication(lab)[user] == earlier[user]
    check_arrival(lab)
    laws.check_recipient_equals_donor(lab)
    lab.lab("writer", "start")


def test_forget_killed_everywhere_leaves_the_clone_alone(
    lab: CloneLab, record_property: Callable[[str, object], None]
) -> None:
    """However often it is cut off, a forget ends with the clone in place, its keys and no more."""
    run_id = lab.clone("--replace")["run_id"]
    before = laws.note(lab)
    forget = ("runs", "forget", run_id, "--yes", "--json")
    with warm_cli(lab.config_file) as cli:
        killed = kills.kill_at_each(
            cli,
            kills.list_points("forget"),
            lambda: forget,
            lambda: laws.check_donor_runs(lab, before),
        )
    assert killed.breaches == []
    assert killed.all_killed, killed.exits
    assert killed.last.returncode == 0, killed.last.stderr
    forgotten = kills.read_events(lab.directory / "state", run_id)
    first = next(i for i, event in enumerate(forgotten) if event.get("flow") == "forget")
    kills.check_steps(forgotten[first:], "forget", "forget")
    laws.check_ended(lab, run_id, "forgotten")
    for row in table.list_kills("forget", killed.phases, "forgotten"):
        record_property(table.PROPERTY, row.as_json())
    laws.check_donor_is_as_it_was(lab, before, accounts=set())
    laws.check_forgotten(lab, before, run_id)
    restart(lab, "replica")
    check_arrival(lab)
    laws.check_recipient_equals_donor(lab)
