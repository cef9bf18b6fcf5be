"""Stored backups and restores, killed with SIGKILL at every point, cancelled after every step, undone.

One laboratory, whose replica has a server and data of its own. ``make fault`` kills everywhere;
``make test`` at a sample of the points.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import kills
import laws
import pytest
import set_laws
from clone_lab import CloneLab, running_lab
from set_kills import cancel, check_kills, kill_once
from warm_cli import WarmCli, warm_cli
from ways import OURS

from orchestrator.playbook import load_playbook

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(1500),
]

HOSTS = {"backup": (laws.DONOR, set_laws.STORE), "restore": (set_laws.STORE, laws.RECIPIENT)}
SAMPLED_POINTS = {
    ("close-binlog", "after"),
    ("store-binlogs", "after"),
    ("find-replay-end", "after"),
    ("replay-binlogs", "after"),
    ("store-backup", "after"),
    ("write-manifest", "after"),
    ("remove-stored-set", "after"),
    ("fetch-backup-set", "after"),
    ("swap-datadir", "after"),
    ("run", "ended"),
}
SAMPLED_CANCELS = {"write-manifest", "write-archive-manifest", "swap-datadir"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuietSet:
    """A set that was stored while nobody wrote to the donor.

    Attributes:
        name: The set.
        digests: Of the donor's tables then, which are those of now as well.
    """

    name: str
    digests: dict[str, str]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """A lab with a repository, and a server of its own on the replica."""
    folder = tmp_path_factory.mktemp("sets") / "lab"
    options = ("--replica-server", "--stores", "1")
    with running_lab(folder, *options, size=0.02, flavor=OURS.flavor) as made:
        yield made


@pytest.fixture(scope="module")
def cli(lab: CloneLab) -> Iterator[WarmCli]:
    """The command line, warm."""
    with warm_cli(lab.config_file) as found:
        yield found


@pytest.fixture(scope="module")
def earlier(lab: CloneLab) -> set_laws.Sets:
    """A backup that was there before, and that nothing may harm."""
    lab.backup("master")
    return set_laws.note_sets(lab)


@pytest.fixture(scope="module")
def quiet(lab: CloneLab, earlier: set_laws.Sets) -> QuietSet:
    """A set to be restored. From now on nobody writes to the donor."""
    lab.lab("writer", "stop")
    lab.sql("master", "SET GLOBAL event_scheduler = OFF")
    name = lab.backup("master")["backup_id"]
    return QuietSet(name=name, digests=laws.read_digests(lab, "master"))


@pytest.fixture(scope="module")
def increment(lab: CloneLab, quiet: QuietSet) -> QuietSet:
    """A set that builds on that one, after one more row; of MySQL, a full one."""
    options = ("--base", quiet.name) if OURS.flavor == "mariadb" else ()
    lab.sql(
        "master", "CREATE TABLE live.since (id INT PRIMARY KEY); INSERT INTO live.since VALUES (1)"
    )
    name = lab.backup("master", *options)["backup_id"]
    return QuietSet(name=name, digests=laws.read_digests(lab, "master"))


def choose(
    points: Sequence[kills.Point], sampled: Collection[kills.Point] = SAMPLED_POINTS
) -> list[kills.Point]:
    """Return the points to kill at: all, or a sample."""
    return [point for point in points if kills.is_full() or point in sampled]


def list_steps(playbook: str) -> list[Any]:
    """Return the steps of a playbook as parameters; those of the sample run always."""
    mark = pytest.mark.skipif(not kills.is_full(), reason="only in make fault")
    names = [step.use for step in load_playbook(playbook).steps]
    return [pytest.param(name, marks=() if name in SAMPLED_CANCELS else mark) for name in names]


# Backups.


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="full"),
        pytest.param(
            ("--incremental",),
            marks=pytest.mark.skipif(
                not kills.is_full() or OURS.flavor != "mariadb",
                reason="only in make fault, and of MariaDB",
            ),
            id="incremental",
        ),
    ],
)
def test_backup_killed_everywhere_is_a_whole_set(
    lab: CloneLab, cli: WarmCli, earlier: set_laws.Sets, options: Sequence[str]
) -> None:
    """However often it is cut off, a backup ends as one whole set, and is none before its end."""
    there = set_laws.list_folders(lab)
    before = laws.note(lab)
    newest = kills.read_newest(lab)

    def command() -> Sequence[str]:
        run_id = kills.read_newest(lab)
        begins = run_id == newest
        return (
            ("backup", "master", *options, "--yes", "--json")
            if begins
            else (*("runs", "resume", run_id, "--json"),)
        )

    def judge() -> list[str]:
        return laws.check_donor_runs(lab, before) + set_laws.check_sets(lab, earlier)

    points = choose(kills.list_all_points("backup"))
    killed = kills.kill_at_each(cli, points, command, judge)
    run_id = kills.read_newest(lab)
    check_kills(lab, killed, run_id, "backup")
    backup_id = json.loads(killed.last.stdout)["backup_id"]
    set_laws.check_whole(lab, backup_id)
    set_laws.check_ended(lab, run_id, "succeeded")
    assert set_laws.list_folders(lab) == sorted({*there, backup_id})
    laws.check_donor_is_as_it_was(lab, before, accounts=set())
    set_laws.check_nothing_outlives(lab, HOSTS["backup"])
    # Law (f).
    sets = set_laws.note_sets(lab)
    again = cli.call("runs", "resume", run_id, "--json")
    assert json.loads(again.stdout)["status"] == "succeeded"
    assert set_laws.note_sets(lab) == sets


def test_undo_of_a_backup_killed_everywhere_leaves_nothing(
    lab: CloneLab, cli: WarmCli, earlier: set_laws.Sets
) -> None:
    """However often it is cut off, an undo ends with no folder and no key, and harms no other set."""
    before = laws.note(lab)
    made = lab.backup("master")
    undo = ("runs", "undo", made["run_id"], "--yes", "--json")

    def judge() -> list[str]:
        # A set of which the undo has begun is none any more; the earlier ones are judged.
        left = [name for name in set_laws.list_sets(lab) if name in earlier.digests]
        breaches = [] if left == sorted(earlier.digests) else [f"of the sets, {left} are left"]
        return breaches + laws.check_donor_runs(lab, before)

    points = choose(kills.list_all_points("undo-backup"))
    killed = kills.kill_at_each(cli, points, lambda: undo, judge)
    check_kills(lab, killed, made["run_id"], "undo-backup", "undo")
    assert json.loads(killed.last.stdout)["status"] == "undone"
    set_laws.check_removed(lab, made["backup_id"])
    assert set_laws.read_keys_state(lab, made["backup_id"]) == "destroyed"
    set_laws.check_ended(lab, made["run_id"], "undone")
    assert set_laws.check_sets(lab, earlier) == []
    set_laws.check_nothing_outlives(lab, HOSTS["backup"])


@pytest.mark.parametrize("step", list_steps("backup"))
def test_backup_cancelled_after_a_step_leaves_nothing(
    lab: CloneLab, cli: WarmCli, earlier: set_laws.Sets, step: str
) -> None:
    """After a cancel there is no folder of the set, no key of it, and no trace on either host."""
    before = laws.note(lab)
    run_id = kill_once(lab, cli, f"{step}:after", "backup", "master")
    assert set_laws.check_sets(lab, earlier) == []
    document = cancel(cli, run_id)
    set_laws.check_removed(lab, document["backup_id"])
    set_laws.check_ended(lab, run_id, "cancelled")
    assert set_laws.check_sets(lab, earlier) == []
    set_laws.check_nothing_outlives(lab, HOSTS["backup"])
    laws.check_donor_is_as_it_was(lab, before, accounts=set())
    again = cli.call("runs", "resume", run_id, "--json")
    assert again.returncode == 3, again.stdout


def test_an_earlier_copy_of_the_journal_harms_no_set(
    lab: CloneLab, cli: WarmCli, earlier: set_laws.Sets
) -> None:
    """What was stored whole is neither streamed again nor removed by a journal of before its end."""
    run_id = kill_once(lab, cli, "store-backup:before", "backup", "master")
    copied = shutil.copytree(lab.directory / "state", lab.directory / "copied")
    text = lab.config_file.read_text(encoding="utf-8")
    config = lab.directory / "copied.toml"
    config.write_text(text.replace(f'"{lab.directory}/state"', f'"{copied}"'), encoding="utf-8")
    ended = cli.call("runs", "resume", run_id, "--json")
    assert json.loads(ended.stdout)["status"] == "succeeded"
    sets = set_laws.note_sets(lab)
    for verb in (("resume",), ("cancel", "--yes")):
        refused = lab.xbvault("runs", *verb, run_id, "--json", config=config, check=False)
        assert refused.returncode == 3, refused.stdout
        assert "has ended elsewhere" in json.loads(refused.stdout)["error"]["message"]
        assert set_laws.check_sets(lab, sets) == []
    set_laws.check_ended(lab, run_id, "succeeded")


# Restores.


def test_restore_killed_everywhere_is_the_set(lab: CloneLab, cli: WarmCli, quiet: QuietSet) -> None:
    """However often it is cut off, a restore ends with the rows of the set, and keeps what was there."""
    before, sets = laws.note(lab), set_laws.note_sets(lab)
    newest = kills.read_newest(lab)

    def command() -> Sequence[str]:
        run_id = kills.read_newest(lab)
        if run_id != newest:
            return "runs", "resume", run_id, "--json"
        return "restore", quiet.name, "replica", "--replace", "--read-only", "--yes", "--json"

    def judge() -> list[str]:
        breaches = laws.check_donor_runs(lab, before) + laws.check_earlier_data(lab, before)
        return breaches + set_laws.check_sets(lab, sets)

    points = choose(kills.list_all_points("restore"))
    killed = kills.kill_at_each(cli, points, command, judge)
    run_id = kills.read_newest(lab)
    check_kills(lab, killed, run_id, "restore")
    laws.check_ended(lab, run_id, "succeeded")
    assert laws.read_digests(lab, "replica") == quiet.digests
    assert laws.check_earlier_data(lab, before) == []
    assert set_laws.check_sets(lab, sets) == []
    set_laws.check_nothing_outlives(lab, HOSTS["restore"], run_dirs=True)
    laws.check_repeat_changes_nothing(lab, run_id)
    now = laws.note(lab).own_versions
    for key_id, versions in before.own_versions.items():
        assert len(now[key_id] - versions) >= 2, f"key {key_id}: {versions} became {now[key_id]}"


@pytest.mark.skipif(not kills.is_full(), reason="only in make fault")
def test_undo_of_a_restore_killed_everywhere_gives_the_earlier_data_back(
    lab: CloneLab, cli: WarmCli, quiet: QuietSet
) -> None:
    """However often it is cut off, an undo ends with the earlier datadir; set and keys stay."""
    before, sets = laws.note(lab), set_laws.note_sets(lab)
    digests = laws.read_digests(lab, "replica")
    made = lab.restore(quiet.name, "replica", "--replace", "--read-only")
    undo = ("runs", "undo", made["run_id"], "--yes", "--json")

    def judge() -> list[str]:
        breaches = laws.check_donor_runs(lab, before) + laws.check_earlier_data(lab, before)
        return breaches + set_laws.check_sets(lab, sets)

    points = choose(kills.list_all_points("undo-restore"))
    killed = kills.kill_at_each(cli, points, lambda: undo, judge)
    check_kills(lab, killed, made["run_id"], "undo-restore", "undo")
    laws.check_ended(lab, made["run_id"], "undone")
    check_given_back(lab, before, sets, made["run_id"])
    assert laws.read_digests(lab, "replica") == digests


def check_given_back(lab: CloneLab, before: laws.Before, sets: set_laws.Sets, run_id: str) -> None:
    """See that the recipient has its earlier data in place, nothing is left, and the sets stand."""
    datadir = laws.find_root(lab, "replica") / "var/lib/mysql"
    assert datadir.stat().st_ino == before.datadir_inode
    assert not list(datadir.parent.glob(f"*{run_id}*"))
    assert laws.check_earlier_data(lab, before) == []
    assert set_laws.check_sets(lab, sets) == []
    remembered = laws.find_root(lab, "replica") / f"var/lib/xbvault/runs/{run_id}"
    assert not remembered.exists()
    set_laws.check_nothing_outlives(lab, HOSTS["restore"], run_dirs=True)
    assert laws.read_server(lab, "replica")


@pytest.mark.parametrize("step", list_steps("restore"))
def test_restore_cancelled_after_a_step_gives_the_earlier_data_back(
    lab: CloneLab, cli: WarmCli, quiet: QuietSet, step: str
) -> None:
    """After a cancel the earlier datadir is in place and served, and the set can be restored."""
    before, sets = laws.note(lab), set_laws.note_sets(lab)
    run_id = kill_once(
        lab, cli, f"{step}:after", "restore", quiet.name, "replica", "--replace", "--read-only"
    )
    assert laws.check_earlier_data(lab, before) == []
    cancel(cli, run_id)
    laws.check_ended(lab, run_id, "cancelled")
    check_given_back(lab, before, sets, run_id)


# Archives of binary logs, and restores that replay them.


def test_archive_killed_everywhere_is_a_whole_set(
    lab: CloneLab, cli: WarmCli, earlier: set_laws.Sets
) -> None:
    """However often it is cut off, an archive ends as one whole set, and none has a gap before it."""
    before = laws.note(lab)
    newest = kills.read_newest(lab)

    def command() -> Sequence[str]:
        run_id = kills.read_newest(lab)
        if run_id != newest:
            return "runs", "resume", run_id, "--json"
        return "binlogs", "archive", "master", "--yes", "--json"

    def judge() -> list[str]:
        return laws.check_donor_runs(lab, before) + set_laws.check_sets(lab, earlier)

    points = choose(kills.list_all_points("archive"))
    killed = kills.kill_at_each(cli, points, command, judge)
    run_id = kills.read_newest(lab)
    check_kills(lab, killed, run_id, "archive")
    set_laws.check_whole(lab, json.loads(killed.last.stdout)["backup_id"])
    set_laws.check_ended(lab, run_id, "succeeded", locks=set_laws.ARCHIVE_LOCKS)
    laws.check_donor_is_as_it_was(lab, before, accounts=set())
    set_laws.check_nothing_outlives(lab, HOSTS["backup"])
    lab.run("binlogs", "archive", "master")
    assert cli.call("binlogs", "list").returncode == 0


@pytest.mark.parametrize("step", list_steps("archive"))
def test_archive_cancelled_after_a_step_leaves_no_gap(
    lab: CloneLab, cli: WarmCli, earlier: set_laws.Sets, step: str
) -> None:
    """After a cancel there is no folder and no key of it, and the next archive has what it had."""
    run_id = kill_once(lab, cli, f"{step}:after", "binlogs", "archive", "master")
    document = cancel(cli, run_id)
    set_laws.check_removed(lab, document["backup_id"])
    set_laws.check_ended(lab, run_id, "cancelled", locks=set_laws.ARCHIVE_LOCKS)
    assert set_laws.check_sets(lab, earlier) == []
    set_laws.check_nothing_outlives(lab, HOSTS["backup"])
    lab.run("binlogs", "archive", "master")
    assert cli.call("binlogs", "list").returncode == 0


def test_restore_to_the_end_killed_everywhere_has_every_row_once(
    lab: CloneLab, cli: WarmCli, increment: QuietSet
) -> None:
    """However often it is cut off, what was archived is replayed once, and the earlier data kept.

    It begins with an incremental set: the chain is put together anew, or not at all.
    """
    lab.sql("master", "CREATE TABLE IF NOT EXISTS live.replayed (id INT PRIMARY KEY)")
    lab.sql("master", "INSERT INTO live.replayed SELECT COUNT(*) + 1 FROM live.replayed AS others")
    lab.run("binlogs", "archive", "master")
    digests = laws.read_digests(lab, "master")
    before, sets = laws.note(lab), set_laws.note_sets(lab)
    newest = kills.read_newest(lab)

    def command() -> Sequence[str]:
        run_id = kills.read_newest(lab)
        if run_id != newest:
            return "runs", "resume", run_id, "--json"
        options = ("--at", "latest", "--replace", "--read-only", "--yes", "--json")
        return "restore", increment.name, "replica", *options

    def judge() -> list[str]:
        breaches = laws.check_donor_runs(lab, before) + laws.check_earlier_data(lab, before)
        return breaches + set_laws.check_sets(lab, sets)

    # the sample of a restore has the others
    replays = {
        point for point in SAMPLED_POINTS if point[0] in ("find-replay-end", "replay-binlogs")
    }
    points = choose(kills.list_all_points("restore-at"), {*replays, ("run", "ended")})
    killed = kills.kill_at_each(cli, points, command, judge)
    run_id = kills.read_newest(lab)
    check_kills(lab, killed, run_id, "restore-at")
    laws.check_ended(lab, run_id, "succeeded")
    assert laws.read_digests(lab, "replica") == digests
    assert set_laws.check_sets(lab, sets) == []
    set_laws.check_nothing_outlives(lab, HOSTS["restore"], run_dirs=True)
    laws.check_repeat_changes_nothing(lab, run_id)


DRILLS = {
    "drill": ("INCREMENT", "replica"),
    "drill-replicate": ("SET", "replica", "--replicate", "1"),
    "drill-clone": ("--clone", "master", "replica"),
    "drill-clone-replicate": ("--clone", "master", "replica", "--replicate", "1"),
}
"""By their playbooks."""


@pytest.mark.parametrize("playbook", DRILLS)
@pytest.mark.skipif(not kills.is_full(), reason="only in make fault")
def test_drill_killed_everywhere_passes_and_gives_the_host_back(
    lab: CloneLab, cli: WarmCli, quiet: QuietSet, increment: QuietSet, playbook: str
) -> None:
    """However often it is cut off, a drill ends with its verdict, and the host has what it had."""
    before, sets = laws.note(lab), set_laws.note_sets(lab)
    newest = kills.read_newest(lab)
    names = {"INCREMENT": increment.name, "SET": quiet.name}
    begin = [names.get(word, word) for word in DRILLS[playbook]]

    def command() -> Sequence[str]:
        run_id = kills.read_newest(lab)
        if run_id != newest:
            return "runs", "resume", run_id, "--json"
        return "drill", *begin, "--yes", "--json"

    def judge() -> list[str]:
        breaches = laws.check_donor_runs(lab, before) + laws.check_earlier_data(lab, before)
        return breaches + set_laws.check_sets(lab, sets)

    points = choose(kills.list_all_points(playbook))
    killed = kills.kill_at_each(cli, points, command, judge)
    run_id = kills.read_newest(lab)
    check_kills(lab, killed, run_id, playbook)
    assert json.loads(killed.last.stdout)["verdict"] == "passed"
    check_given_back(lab, before, sets, run_id)
    laws.check_donor_is_as_it_was(lab, before, accounts=set())


# In mid-act, and from an earlier copy of the journal.


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("backup", "master"), id="backup"),
        pytest.param(("restore", "", "replica", "--replace", "--read-only"), id="restore"),
    ],
)
@pytest.mark.skipif(not kills.is_full(), reason="only in make fault")
def test_killed_in_every_act_it_still_succeeds(
    lab: CloneLab, cli: WarmCli, quiet: QuietSet, arguments: Sequence[str], tmp_path: Path
) -> None:
    """Killed after each act on a host or in Vault, and amid the long ones, it succeeds in the end."""
    before, sets = laws.note(lab), set_laws.note_sets(lab)
    newest = kills.read_newest(lab)
    begin = [word or quiet.name for word in arguments]

    def command() -> Sequence[str]:
        run_id = kills.read_newest(lab)
        return (
            ("runs", "resume", run_id, "--json")
            if run_id != newest
            else (
                *begin,
                "--yes",
                "--json",
            )
        )

    def judge() -> list[str]:
        breaches = laws.check_donor_runs(lab, before) + laws.check_earlier_data(lab, before)
        return breaches + set_laws.check_sets(lab, sets)

    acts = kills.kill_in_acts(cli, tmp_path / "acts", command, judge)
    assert acts.breaches == []
    assert acts.last.returncode == 0, acts.last.stdout + acts.last.stderr
    assert acts.kills > 10
    laws.revoke_lost_tokens(lab)
    kind = arguments[0]
    set_laws.check_nothing_outlives(lab, HOSTS[kind], run_dirs=kind == "restore")
    if kind == "backup":
        set_laws.check_whole(lab, json.loads(acts.last.stdout)["backup_id"])
    else:
        assert laws.read_digests(lab, "replica") == quiet.digests


@contextlib.contextmanager
def planted(lab: CloneLab, name: str) -> Iterator[None]:
    """A byte of a part that is another one."""
    path = set_laws.find_repository(lab) / name / "part-000001.age"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    yield
    path.write_bytes(data)


def test_laws_see_a_breach(lab: CloneLab, earlier: set_laws.Sets) -> None:
    """The laws of sets are broken by one byte, and hold again without it."""
    name = next(iter(earlier.digests))
    with planted(lab, name):
        assert set_laws.check_sets(lab, earlier)
        with pytest.raises(AssertionError):
            set_laws.check_whole(lab, name)
    assert set_laws.check_sets(lab, earlier) == []
    set_laws.check_whole(lab, name)
