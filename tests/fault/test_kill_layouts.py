"""Clone and undo, killed again and again, where datadirs are as in the wild; a long loop.

The laboratory is that of ``tests/e2e/test_layouts.py``.
"""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING

import kills
import laws
import pytest
from layouts import ARIA, DATADIR, LOGS, OUTSIDE, REAL, REDO, SYSTEM, UNDO, list_places, spread_lab
from replicas import check_arrival, read_inode
from warm_cli import warm_cli

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clone_lab import CloneLab
    from warm_cli import WarmCli

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.skipif(not kills.is_full(), reason="a long loop: XBVAULT_FAULT=full"),
    pytest.mark.timeout(1200),
]

KEPT = (
    f"{DATADIR}/mysql",
    f"{DATADIR}/kept@0020@0027here@0027",
    f"{SYSTEM}/ibdata1",
    f"{REDO}/ib_logfile0",
    f"{UNDO}/undo001",
    f"{UNDO}/undo003",
    f"{ARIA}/aria_log_control",
    f"{LOGS}/mysql-bin.000001",
)
"""Of the earlier server, one file or folder of each kind."""
FIND = "find {} -maxdepth 1 -printf '%i %p\\n'; find {}/.xbvault -mindepth 2 -maxdepth 2 -printf '%i %p\\n'"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    with spread_lab(tmp_path_factory.mktemp("layouts") / "lab") as found:
        yield found


@pytest.fixture(scope="module")
def cli(lab: CloneLab) -> Iterator[WarmCli]:
    """The command line."""
    with warm_cli(lab.config_file) as made:
        yield made


def find_inodes(lab: CloneLab) -> dict[str, str]:
    """Return what lies in the places of ``replica``, or is set aside in them, by its inode."""
    script = "; ".join(
        FIND.format(shlex.quote(path), shlex.quote(path)) for path in (DATADIR, *OUTSIDE)
    )
    lines = lab.on("replica", f"{{ {script}; }} 2>/dev/null || :").splitlines()
    return {inode: path for inode, _, path in (line.partition(" ") for line in lines)}


def check_kept(lab: CloneLab, earlier: dict[str, str]) -> list[str]:
    """Return what of the earlier server is neither in its place nor set aside there."""
    now = find_inodes(lab)
    breaches = []
    for path, inode in earlier.items():
        place, _, name = path.rpartition("/")
        at = now.get(inode, "")
        if at != path and not (at.startswith(f"{place}/.xbvault/old-") and at.endswith(name)):
            breaches.append(f"{path} is at {at or 'no place'}")
    return breaches


def go_on(lab: CloneLab, recipient: str, before: str) -> Sequence[str]:
    """Return the command that begins a clone, or goes on with the one that was begun."""
    run_id = kills.read_newest(lab)
    if run_id == before:
        return "clone", "master", recipient, "--replace", "--yes", "--json"
    return "runs", "resume", run_id, "--json"


def test_a_spread_datadir_survives_kills_in_clone_and_undo(
    lab: CloneLab, cli: WarmCli, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every kind of file is in its place or set aside whenever a clone or its undo is cut off."""
    places = list_places(lab)
    inodes = {path: inode for inode, path in find_inodes(lab).items()}
    earlier = {path: inodes[path] for path in KEPT}
    before = laws.note(lab)
    records = tmp_path_factory.mktemp("acts")

    def judge() -> list[str]:
        return laws.check_donor_runs(lab, before) + check_kept(lab, earlier)

    cloned = kills.kill_in_acts(
        cli, records / "clone", lambda: go_on(lab, "replica", ""), judge, every=3
    )
    assert cloned.breaches == []
    assert cloned.last.returncode == 0, cloned.last.stdout + cloned.last.stderr
    document = json.loads(cloned.last.stdout)
    assert document["status"] == "succeeded"
    assert all(check["ok"] for check in document["checks"])
    check_arrival(lab)
    laws.revoke_lost_tokens(lab)

    undo = ("runs", "undo", document["run_id"], "--yes", "--json")
    undone = kills.kill_in_acts(cli, records / "undo", lambda: undo, judge, every=1)
    assert undone.breaches == []
    assert undone.last.returncode == 0, undone.last.stdout + undone.last.stderr
    assert undone.kills > len(kills.list_steps("undo"))
    now = list_places(lab)
    assert not any(".xbvault" in names for names in now.values())
    assert {path: set(names) - set(now[path]) for path, names in places.items()} == {
        path: set() for path in places
    }
    assert lab.sql("replica", "SELECT a FROM `kept 'here'`.t ORDER BY a") == [["1"], ["2"]]
    laws.check_ended(lab, document["run_id"], "undone")
    laws.check_nothing_outlives(lab, document["backup_id"])
    laws.check_donor_is_as_it_was(lab, before, accounts=set())


def test_a_linked_datadir_survives_kills_in_clone_and_undo(lab: CloneLab, cli: WarmCli) -> None:
    """The directory that the link leads to is in its place or beside it, and the link stays."""
    inode, first = read_inode(lab, f"'{REAL}'", "replica2"), kills.read_newest(lab)

    def judge() -> list[str]:
        script = f"stat -c %i '{REAL}' '{REAL}'.xbvault-old-* 2>/dev/null; readlink {DATADIR}"
        found = lab.on("replica2", script).splitlines()
        return [] if inode in found and REAL in found else [f"found {found}, not {inode}"]

    def command() -> Sequence[str]:
        return go_on(lab, "replica2", first)

    cloned = kills.kill_at_each(cli, kills.list_points("clone"), command, judge)
    assert cloned.breaches == []
    assert cloned.all_killed, cloned.exits
    document = json.loads(cloned.last.stdout)
    assert document["status"] == "succeeded"
    check_arrival(lab, target="replica2")

    undo = ("runs", "undo", document["run_id"], "--yes", "--json")
    undone = kills.kill_at_each(cli, kills.list_points("undo"), lambda: undo, judge)
    assert undone.breaches == []
    assert undone.all_killed, undone.exits
    assert read_inode(lab, f"'{REAL}'", "replica2") == inode
    assert lab.on("replica2", "ls '/var/lib/a disk'").split() == ["data"]
    assert lab.sql("replica2", "SELECT COUNT(*) FROM `kept 'here'`.t") == [["2"]]
