"""Clone, undo and forget, killed with SIGKILL inside their steps: amid long acts, and after each act.

By default a sample of the acts kills; all of them with ``XBVAULT_FAULT=full``.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import kills
import laws
import pytest
import table
from clone_lab import CloneLab, running_lab
from replicas import check_arrival, restart, show_run
from warm_cli import warm_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kills import Acts
    from warm_cli import WarmCli

    Record = Callable[[str, object], None]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(1500 if kills.is_full() else 420),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """A lab whose replica was cloned once."""
    with running_lab(tmp_path_factory.mktemp("acts") / "lab", size=0.02) as made:
        made.clone()
        yield made


@pytest.fixture(scope="module")
def cli(lab: CloneLab) -> Iterator[WarmCli]:
    """The command line."""
    with warm_cli(lab.config_file) as made:
        yield made


def kill_clone(lab: CloneLab, cli: WarmCli, before: laws.Before, record: Path) -> Acts:
    """Clone again, killed in its acts and resumed."""
    first = kills.read_newest(lab)

    def command() -> tuple[str, ...]:
        run_id = kills.read_newest(lab)
        if run_id == first:
            return "clone", "master", "replica", "--replace", "--yes", "--json"
        return "runs", "resume", run_id, "--json"

    return kills.kill_in_acts(cli, record, command, lambda: judge(lab, before))


def judge(lab: CloneLab, before: laws.Before) -> list[str]:
    """Return the laws that are broken, of those that hold at every moment."""
    return laws.check_donor_runs(lab, before) + laws.check_earlier_data(lab, before)


def check_kills(acts: Acts, name: str) -> None:
    """See that every step can be cut inside, no law was broken, and the last process came through."""
    assert acts.breaches == []
    assert acts.last.returncode == 0, acts.last.stdout + acts.last.stderr
    assert set(acts.steps) == kills.list_steps(name), "a step has no act to be killed at"
    every = 1 if kills.is_full() else kills.SAMPLE
    assert acts.kills == len(acts.acts) // every > 0


def record(record_property: Record, acts: Acts, verb: str, ends: str) -> None:
    """Write down where the loop has killed; a sample has not been everywhere."""
    if not kills.is_full():
        return
    phases = [f"inside {step}" for step in dict.fromkeys(acts.steps)]
    for row in table.list_kills(verb, phases, ends):
        record_property(table.PROPERTY, row.as_json())


def test_clone_killed_inside_every_step_comes_to_the_same_end(
    lab: CloneLab, cli: WarmCli, tmp_path: Path, record_property: Record
) -> None:
    """However often it is cut inside a step, a clone ends as one does that nobody disturbed."""
    undisturbed = laws.read_state(lab, kills.read_newest(lab))
    before = laws.note(lab)
    acts = kill_clone(lab, cli, before, tmp_path / "acts")
    check_kills(acts, "clone")
    document = json.loads(acts.last.stdout)
    run_id = document["run_id"]
    assert document["status"] == "succeeded"
    assert all(check["ok"] for check in document["checks"])
    assert laws.revoke_lost_tokens(lab) <= sum("vault create_token" in act for act in acts.acts)
    assert laws.read_state(lab, run_id) == undisturbed
    laws.check_ended(lab, run_id, "succeeded")
    record(record_property, acts, "clone", "succeeded")
    account = f"xbvault_{run_id.rpartition('-')[2]}"
    laws.check_donor_is_as_it_was(lab, before, accounts={account})
    assert laws.check_earlier_data(lab, before) == []
    laws.check_nothing_outlives(lab, document["backup_id"])
    laws.check_repeat_changes_nothing(lab, run_id)


@pytest.mark.skipif(not kills.is_full(), reason="a long loop: XBVAULT_FAULT=full")
@pytest.mark.parametrize("verb", ["undo", "cancel"])
def test_taken_back_while_killed_inside_every_step(
    lab: CloneLab, cli: WarmCli, tmp_path: Path, record_property: Record, verb: str
) -> None:
    """However often it is cut inside a step, an undo or cancel ends with the earlier replica."""
    end = {"undo": "undone", "cancel": "cancelled"}[verb]
    before, earlier = laws.note(lab), laws.read_replication(lab)
    crash = {"XBVAULT_CRASH_AT": "compare-tables:before"} if verb == "cancel" else {}
    cli.call("clone", "master", "replica", "--replace", "--yes", "--json", env=crash)
    run_id = kills.read_newest(lab)
    datadir = lab.directory / "hosts/replica/fs/var/lib/mysql"
    assert datadir.stat().st_ino != before.datadir_inode
    command = ("runs", verb, run_id, "--yes", "--json")
    acts = kills.kill_in_acts(cli, tmp_path / "acts", lambda: command, lambda: judge(lab, before))
    check_kills(acts, "undo")
    laws.check_ended(lab, run_id, end)
    record(record_property, acts, verb, end)
    laws.check_donor_is_as_it_was(lab, before, accounts=set())
    laws.check_nothing_outlives(lab, show_run(lab, run_id)["backup_id"])
    assert datadir.stat().st_ino == before.datadir_inode
    assert not list(datadir.parent.rglob(f"*{run_id}*"))
    laws.wait_until_caught_up(lab)
    assert laws.read_replication(lab)["Master_User"] == earlier["Master_User"]


@pytest.mark.skipif(not kills.is_full(), reason="a long loop: XBVAULT_FAULT=full")
def test_forget_killed_inside_every_step_keeps_what_is_in_place(
    lab: CloneLab, cli: WarmCli, tmp_path: Path, record_property: Record
) -> None:
    """However often it is cut inside a step, a forget ends with the clone alone, and that lives."""
    run_id = lab.clone("--replace")["run_id"]
    before = laws.note(lab)
    forget = ("runs", "forget", run_id, "--yes", "--json")
    acts = kills.kill_in_acts(
        cli, tmp_path / "acts", lambda: forget, lambda: laws.check_donor_runs(lab, before)
    )
    check_kills(acts, "forget")
    laws.check_ended(lab, run_id, "forgotten")
    record(record_property, acts, "forget", "forgotten")
    laws.check_donor_is_as_it_was(lab, before, accounts=set())
    laws.check_forgotten(lab, before, run_id)
    restart(lab, "replica")
    check_arrival(lab)
    laws.check_recipient_equals_donor(lab)
