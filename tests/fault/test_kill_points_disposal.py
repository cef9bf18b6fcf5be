"""Stored backups copied, expired and revoked, killed with SIGKILL wherever something changes.

A copy is a run, and is resumed. An expiry and a revocation are none: they are killed after every act
on a repository's host or in Vault, and the same command is given again. ``make fault`` kills
everywhere; ``make test`` at a sample of the points.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import act_kills
import kills
import laws
import pytest
import set_laws
from clone_lab import CloneLab, running_lab
from set_kills import cancel, check_kills, kill_once
from small_sets import store_set
from warm_cli import WarmCli, warm_cli

from orchestrator import disposal
from orchestrator.playbook import load_playbook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(900),
]

FROM, TO = set_laws.STORE, "store2"
STORES = (FROM, TO)
RETENTION = "\n[repositories.{}.retention]\nlast = 1\nminimum = 1\n"
SAMPLED_POINTS = {("copy-stored-set", "after"), ("publish-copied-set", "after"), ("run", "ended")}
SAMPLED_CANCELS = {"publish-copied-set"}
EVERY = 1 if kills.is_full() else 7
"""Of so many acts of an expiry or a revocation, one kills."""
long_loop = pytest.mark.skipif(not kills.is_full(), reason="only in make fault")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """A lab with two repositories, each of which keeps the last set of a host."""
    folder = tmp_path_factory.mktemp("disposals") / "lab"
    with running_lab(folder, "--stores", "2", "--no-writer", size=0.02) as made:
        text = made.config_file.read_text(encoding="utf-8")
        rules = "".join(RETENTION.format(store) for store in STORES)
        made.config_file.write_text(text + rules, encoding="utf-8")
        yield made


@pytest.fixture(scope="module")
def cli(lab: CloneLab) -> Iterator[WarmCli]:
    """The command line, warm."""
    with warm_cli(lab.config_file) as found:
        yield found


@pytest.fixture(scope="module")
def last(lab: CloneLab, cli: WarmCli) -> str:
    """The last good set of the host, a real backup, in both repositories."""
    name: str = lab.backup("master", "--to", FROM)["backup_id"]
    copy(cli, name)
    return name


def make_sets(lab: CloneLab, count: int) -> list[str]:
    """Store small sets that are older than any other, and return their names."""
    moment = datetime.now(UTC) - timedelta(days=30)
    return [store_set(lab, moment + timedelta(hours=n), parts=3) for n in range(count)]


def copy(cli: WarmCli, name: str) -> dict[str, Any]:
    """Copy a set to the other repository; return the document."""
    ended = cli.call("backups", "copy", name, "--to", TO, "--yes", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def note_all(lab: CloneLab) -> dict[str, set_laws.Sets]:
    """Note the sets of both repositories."""
    return {store: set_laws.note_sets(lab, store) for store in STORES}


def kill_command(
    cli: WarmCli, record: Path, judge: Callable[[], list[str]], *command: str
) -> dict[str, Any]:
    """Give a command that is no run again and again, killed after each act; return its last document."""
    acts = kills.kill_in_acts(
        cli,
        record,
        lambda: (*command, "--yes", "--json"),
        judge,
        every=EVERY,
        variable=act_kills.COMMAND_VARIABLE,
    )
    assert acts.breaches == []
    assert acts.last.returncode == 0, acts.last.stdout + acts.last.stderr
    assert acts.kills == len(acts.acts) // EVERY > 0
    document: dict[str, Any] = json.loads(acts.last.stdout)
    return document


def check_nothing_is_held(lab: CloneLab) -> None:
    """See that no lock, no note of one, and nothing of a run is left."""
    set_laws.check_nothing_outlives(lab, STORES)
    for store in STORES:
        assert not laws.read_lock_holder(lab, store, lock_dir=set_laws.lock_dir())
    for folder in ("locks", disposal.CLAIMS):
        path = lab.directory / "state" / folder
        assert not path.is_dir() or not list(path.iterdir())


def check_verified(cli: WarmCli, *names: str) -> None:
    """See that sets can be read back and decrypted, in every repository that has them."""
    for name in names:
        ended = cli.call("backups", "verify", name, "--json")
        assert ended.returncode == 0, ended.stdout + ended.stderr


# Copies.


def list_steps(playbook: str) -> list[Any]:
    """Return the steps of a playbook as parameters; those of the sample run always."""
    names = [step.use for step in load_playbook(playbook).steps]
    return [
        pytest.param(name, marks=() if name in SAMPLED_CANCELS else long_loop) for name in names
    ]


def choose(points: Sequence[kills.Point]) -> list[kills.Point]:
    """Return the points to kill at: all, or a sample."""
    return [point for point in points if kills.is_full() or point in SAMPLED_POINTS]


def judge_copy(lab: CloneLab, before: dict[str, set_laws.Sets]) -> list[str]:
    """Return what is wrong with the sets of both repositories; one that has come is whole."""
    return [breach for store in STORES for breach in set_laws.check_sets(lab, before[store], store)]


def check_copied(lab: CloneLab, cli: WarmCli, name: str) -> None:
    """See that a set stands in both repositories, and is the same one there."""
    noted = note_all(lab)
    assert noted[FROM].digests[name] == noted[TO].digests[name]
    assert f"held-by.{TO}" in set_laws.read_record(lab, name)
    check_verified(cli, name)


def test_copy_killed_everywhere_is_the_same_set(lab: CloneLab, cli: WarmCli, last: str) -> None:
    """However often it is cut off, a copy ends as the same set, and is none before its end."""
    (name,) = make_sets(lab, 1)
    before, newest = note_all(lab), kills.read_newest(lab)

    def command() -> Sequence[str]:
        run_id = kills.read_newest(lab)
        if run_id != newest:
            return "runs", "resume", run_id, "--json"
        return "backups", "copy", name, "--to", TO, "--yes", "--json"

    points = choose(kills.list_all_points("copy"))
    killed = kills.kill_at_each(cli, points, command, lambda: judge_copy(lab, before))
    run_id = kills.read_newest(lab)
    check_kills(lab, killed, run_id, "copy")
    check_copied(lab, cli, name)
    laws.check_ended(lab, run_id, "succeeded", TO, lock_dir=set_laws.lock_dir())
    check_nothing_is_held(lab)
    sets = note_all(lab)
    again = cli.call("runs", "resume", run_id, "--json")
    assert json.loads(again.stdout)["status"] == "succeeded"
    assert note_all(lab) == sets


def test_undo_of_a_copy_killed_everywhere_leaves_the_set(
    lab: CloneLab, cli: WarmCli, last: str
) -> None:
    """However often it is cut off, an undo ends with no copy, and the set and its keys stay."""
    (name,) = make_sets(lab, 1)
    before = note_all(lab)
    made = copy(cli, name)
    undo = ("runs", "undo", made["run_id"], "--yes", "--json")

    def judge() -> list[str]:
        return [
            breach for store in STORES for breach in set_laws.check_kept(lab, before[store], store)
        ]

    points = kills.list_all_points("undo-copy")
    points = points if kills.is_full() else [("remove-stored-set", "after")]
    killed = kills.kill_at_each(cli, points, lambda: undo, judge)
    check_kills(lab, killed, made["run_id"], "undo-copy", "undo")
    laws.check_ended(lab, made["run_id"], "undone", TO, lock_dir=set_laws.lock_dir())
    check_copy_is_gone(lab, cli, name, before)


def check_copy_is_gone(
    lab: CloneLab, cli: WarmCli, name: str, before: dict[str, set_laws.Sets]
) -> None:
    """See that both repositories have what they had before, and the set its keys."""
    assert name not in set_laws.list_folders(lab, TO)
    assert note_all(lab) == before
    assert set_laws.read_keys_state(lab, name) == "alive"
    assert f"held-by.{TO}" not in set_laws.read_record(lab, name)
    check_verified(cli, name)
    check_nothing_is_held(lab)


@pytest.mark.parametrize("step", list_steps("copy"))
def test_copy_cancelled_after_a_step_leaves_the_set(
    lab: CloneLab, cli: WarmCli, last: str, step: str
) -> None:
    """After a cancel there is no copy, and the set that it was made of stands with its keys."""
    (name,) = make_sets(lab, 1)
    before = note_all(lab)
    run_id = kill_once(lab, cli, f"{step}:after", "backups", "copy", name, "--to", TO)
    cancel(cli, run_id)
    laws.check_ended(lab, run_id, "cancelled", TO, lock_dir=set_laws.lock_dir())
    check_copy_is_gone(lab, cli, name, before)


@long_loop
def test_copy_killed_in_every_act_is_the_same_set(
    lab: CloneLab, cli: WarmCli, last: str, tmp_path: Path
) -> None:
    """Killed after each act on a host or in Vault, and amid the long ones, it succeeds in the end."""
    (name,) = make_sets(lab, 1)
    before, newest = note_all(lab), kills.read_newest(lab)

    def command() -> Sequence[str]:
        run_id = kills.read_newest(lab)
        if run_id != newest:
            return "runs", "resume", run_id, "--json"
        return "backups", "copy", name, "--to", TO, "--yes", "--json"

    acts = kills.kill_in_acts(cli, tmp_path / "acts", command, lambda: judge_copy(lab, before))
    assert acts.breaches == []
    assert acts.last.returncode == 0, acts.last.stdout + acts.last.stderr
    assert acts.kills > 10
    check_copied(lab, cli, name)
    check_nothing_is_held(lab)


# Expiries. What the retention keeps is the real backup, in both repositories.


@pytest.mark.parametrize(
    "options",
    [pytest.param(("--repo", FROM), id="one", marks=long_loop), pytest.param((), id="both")],
)
def test_expiry_killed_everywhere_leaves_what_the_retention_keeps(
    lab: CloneLab, cli: WarmCli, last: str, options: Sequence[str], tmp_path: Path
) -> None:
    """However often it is cut off, sets and keys go together, and a copy elsewhere keeps its keys."""
    call_expire = ("backups", "expire", *options)
    cli.call("backups", "expire", "--yes", "--json")  # what other tests have left
    alone, copied = make_sets(lab, 2)
    copy(cli, copied)
    noted = note_all(lab)
    stays = {FROM: {last}, TO: {last, copied} if options else {last}}
    kept = {store: set_laws.choose_sets(noted[store], stays[store]) for store in STORES}

    def judge() -> list[str]:
        breaches = [
            breach for store in STORES for breach in set_laws.check_kept(lab, kept[store], store)
        ]
        for name in (alone, copied):
            held = [store for store in STORES if name in set_laws.list_folders(lab, store)]
            if not held and set_laws.read_keys_state(lab, name) == "alive":
                breaches.append(f"the set {name} is gone, and its keys are alive")
        return breaches

    kill_command(cli, tmp_path / "acts", judge, *call_expire)
    for store in STORES:
        assert set_laws.list_folders(lab, store) == sorted(stays[store])
        assert set_laws.check_kept(lab, kept[store], store) == []
    gone = {alone} if options else {alone, copied}
    for name in gone:
        assert set_laws.read_keys_state(lab, name) == "destroyed"
        record = set_laws.read_record(lab, name)
        assert record["reason"] == disposal.EXPIRED
        assert not [word for word in record if word.startswith("held-by.")]
    if copied not in gone:
        record = set_laws.read_record(lab, copied)
        assert [word for word in record if word.startswith("held-by.")] == [f"held-by.{TO}"]
    check_verified(cli, last, *{copied} - gone)
    check_nothing_is_held(lab)
    again = cli.call(*call_expire, "--yes", "--json")
    assert all(item["keep"] for item in json.loads(again.stdout)["sets"])


# Revocations.


def check_revoked(lab: CloneLab, cli: WarmCli, names: Sequence[str]) -> None:
    """See that the keys of sets are gone for good, and that the record and `verify` say why."""
    for name in names:
        assert set_laws.read_keys_state(lab, name) == "destroyed"
        record = set_laws.read_record(lab, name)
        assert record["reason"] == "asked for"
        assert record["proved"]
        ended = cli.call("backups", "verify", name, "--repo", FROM, "--json")
        assert ended.returncode == 5
        assert "were destroyed on" in json.loads(ended.stdout)["error"]["message"]


def test_revocation_killed_everywhere_is_told_and_proved(
    lab: CloneLab, cli: WarmCli, last: str, tmp_path: Path
) -> None:
    """However often it is cut off, the keys of a set are gone and told of, and no other's are."""
    other, name = make_sets(lab, 2)
    copy(cli, name)
    noted = note_all(lab)
    kept = {
        store: set_laws.choose_sets(noted[store], noted[store].digests.keys() & {last, other})
        for store in STORES
    }

    def judge() -> list[str]:
        return [
            breach for store in STORES for breach in set_laws.check_kept(lab, kept[store], store)
        ]

    command = ("keys", "revoke", name, "--reason", "asked for")
    done = kill_command(cli, tmp_path / "acts", judge, *command)
    assert done["status"] == "revoked"
    check_revoked(lab, cli, [name])
    assert judge() == []
    assert note_all(lab) == noted
    check_verified(cli, last, other)
    check_nothing_is_held(lab)
    again = json.loads(cli.call(*command, "--yes", "--json").stdout)
    assert [item["is_new"] for item in again["sets"]] == [False]
    check_revoked(lab, cli, [name])


@long_loop
def test_revocation_of_a_host_killed_everywhere_leaves_no_key(
    lab: CloneLab, cli: WarmCli, last: str, tmp_path: Path
) -> None:
    """However often it is cut off, all sets of a host lose their keys, and the sets stay as they are."""
    cli.call("backups", "expire", "--yes", "--json")  # what other tests have left
    names = [*make_sets(lab, 2), lab.backup("master", "--to", FROM)["backup_id"]]
    noted = note_all(lab)
    nothing = set_laws.Sets(digests={})

    def judge() -> list[str]:
        return [breach for store in STORES for breach in set_laws.check_kept(lab, nothing, store)]

    command = ("keys", "revoke", "--host", "master", "--reason", "asked for")
    kill_command(cli, tmp_path / "acts", judge, *command)
    check_revoked(lab, cli, [*names, last])
    assert note_all(lab) == noted
    check_nothing_is_held(lab)


def test_laws_see_a_breach(lab: CloneLab) -> None:
    """Keys that went without a word, and a set that stays and has lost them, are found."""
    (name,) = make_sets(lab, 1)
    noted = set_laws.choose_sets(set_laws.note_sets(lab), [name])
    nothing = set_laws.Sets(digests={})
    path = f"transition-keys/{name}"

    def find() -> list[str]:
        found = set_laws.check_kept(lab, nothing) + set_laws.check_kept(lab, noted)
        return [breach for breach in found if name in breach]

    assert find() == []
    laws.request(lab, "PUT", f"xbvault/destroy/{path}", {"versions": [1]})
    assert len(find()) == 2
    told = {"state": "destroyed", "destroyed": "now", "destroyed_by": "us", "reason": "asked for"}
    laws.request(lab, "PUT", f"xbvault/metadata/{path}", {"custom_metadata": told})
    assert find() == [f"the keys of the set {name} are destroyed"]
    (set_laws.find_repository(lab) / name / "part-000001.age").write_bytes(b"")
    assert f"the set {name} is another one now" in find()
