"""One clone, killed with SIGKILL before and after every step and resumed each time.

``make fault`` kills everywhere; ``make test`` at a sample of the points.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections import Counter
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import kills
import laws
import pytest
import table
from clone_lab import CloneLab, running_lab
from lab import bao, hosts, model
from warm_cli import warm_cli
from ways import OURS

from orchestrator import steps
from orchestrator.host import script
from orchestrator.playbook import list_playbooks
from orchestrator.steps.registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(900),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Story:
    """What happened.

    Attributes:
        lab: The lab, as the killed clone left it.
        before: What was noted before the killed clone.
        undisturbed: State after a clone that nobody disturbed.
        undisturbed_checks: Its checks, name and whether it holds.
        kills: The kills of the second clone.
        run_id: That clone.
        state: State after it.
    """

    lab: CloneLab
    before: laws.Before
    undisturbed: dict[str, Any]
    undisturbed_checks: list[tuple[str, str, bool]]
    kills: kills.Kills
    run_id: str
    state: dict[str, Any]

    @property
    def document(self) -> dict[str, Any]:
        """What the last resume printed."""
        document: dict[str, Any] = json.loads(self.kills.last.stdout)
        return document

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log of the killed clone."""
        return kills.read_events(self.lab.directory / "state", self.run_id)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Two clones of one donor to one recipient: the first undisturbed, the second killed."""
    with running_lab(
        tmp_path_factory.mktemp("kills") / "lab", size=0.02, flavor=OURS.flavor
    ) as lab:
        first = lab.clone()
        undisturbed = laws.read_state(lab, first["run_id"])
        before = laws.note(lab)

        def command() -> Sequence[str]:
            run_id = kills.read_newest(lab)
            if run_id == first["run_id"]:
                return "clone", "master", "replica", "--replace", "--yes", "--json"
            return "runs", "resume", run_id, "--json"

        def judge() -> list[str]:
            return laws.check_donor_runs(lab, before) + laws.check_earlier_data(lab, before)

        with warm_cli(lab.config_file) as cli:
            killed = kills.kill_at_each(cli, kills.list_points("clone"), command, judge)
        run_id = kills.read_newest(lab)
        yield Story(
            lab=lab,
            before=before,
            undisturbed=undisturbed,
            undisturbed_checks=list_checks(first),
            kills=killed,
            run_id=run_id,
            state=laws.read_state(lab, run_id),
        )


def list_checks(document: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Return a document's checks without their evidence."""
    return [(check["name"], check["host"], check["ok"]) for check in document["checks"]]


def test_every_step_has_its_kill_points() -> None:
    """Each step of the registry is in a shipped playbook, so none is out of reach of the loops."""
    steps.load()
    used = {step.use for book in list_playbooks() for step in (*book.steps, *book.cleanup)}
    assert used == set(REGISTRY)
    assert len(kills.list_all_points("clone")) > 50


def test_each_kill_happened(story: Story, record_property: Callable[[str, object], None]) -> None:
    """Every process was ended by SIGKILL at its point, and no law was broken between."""
    assert story.kills.breaches == []
    assert story.kills.all_killed, story.kills.exits
    for row in table.list_kills("clone", story.kills.phases, "succeeded"):
        record_property(table.PROPERTY, row.as_json())


def test_end_is_that_of_an_undisturbed_clone(story: Story) -> None:
    """The killed clone has the checks, files, settings and Vault of one that nobody disturbed."""
    assert story.kills.last.returncode == 0, story.kills.last.stderr
    assert story.document["status"] == "succeeded"
    assert list_checks(story.document) == story.undisturbed_checks
    assert all(ok for _, _, ok in story.undisturbed_checks)
    assert len(story.undisturbed_checks) > 10
    assert story.state == story.undisturbed
    assert story.state["follows with the run's account"]


def test_no_finished_step_is_done_again(story: Story) -> None:
    """A step begins once for each of its kills and once to end; journalled, it never begins again."""
    kills.check_steps(story.events, "clone", "run")


def test_work_that_was_done_is_found_and_kept(story: Story) -> None:
    """No remote job was started twice, the run never went back, and keys were written once."""
    jobs = Counter(e["job"] for e in story.events if e["event"] == "job.started")
    assert jobs
    assert set(jobs.values()) == {1}, jobs
    assert not [e for e in story.events if e["event"] in ("step.went_back", "step.failed")]
    now = laws.note(story.lab).own_versions
    for key_id, versions in story.before.own_versions.items():
        assert len(now[key_id] - versions) == 2, f"key {key_id}: {versions} became {now[key_id]}"


def test_laws_hold(story: Story) -> None:
    """After the last resume the donor is as it was, the data equal, and nothing is left over."""
    lab = story.lab
    account = f"xbvault_{story.run_id.rpartition('-')[2]}"
    laws.check_ended(lab, story.run_id, "succeeded")
    laws.check_donor_is_as_it_was(lab, story.before, accounts={account})
    assert laws.check_earlier_data(lab, story.before) == []
    laws.check_nothing_outlives(lab, story.document["backup_id"])
    laws.check_repeat_changes_nothing(lab, story.run_id)
    laws.check_recipient_equals_donor(lab)


@contextlib.contextmanager
def planted_row(lab: CloneLab) -> Iterator[None]:
    """A row that only the recipient has so."""
    change = "SET SESSION sql_log_bin = 0; UPDATE live.balance SET changes = changes {} WHERE account = 1"
    lab.sql("replica", change.format("+ 1"))
    yield
    lab.sql("replica", change.format("- 1"))


@contextlib.contextmanager
def planted_file(lab: CloneLab) -> Iterator[None]:
    """A file that was forgotten on the donor."""
    path = lab.directory / "hosts/master/fs/var/lib/xbvault/runs/left"
    path.touch()
    yield
    path.unlink()


@contextlib.contextmanager
def planted_account(lab: CloneLab) -> Iterator[None]:
    """An account that was forgotten on the donor."""
    lab.sql("master", "CREATE USER xbvault_left@localhost")
    yield
    lab.sql("master", "DROP USER xbvault_left@localhost")


@contextlib.contextmanager
def planted_loss(lab: CloneLab) -> Iterator[None]:
    """A table of the earlier datadir that is gone."""
    library = lab.directory / "hosts/replica/fs/var/lib"
    path = max(library.glob("mysql.xbvault-old-*")) / f"live/ledger{OURS.table_files[1:]}"
    path.rename(library / "lost")
    yield
    (library / "lost").rename(path)


@contextlib.contextmanager
def planted_mount(lab: CloneLab) -> Iterator[None]:
    """A transition mount that was forgotten."""
    stand, path = model.load(lab.directory), "sys/mounts/xbvault-transition/replica/left"
    bao.request(stand, "POST", path, {"type": "kv"}, token=bao.root_token(stand))
    yield
    bao.request(stand, "DELETE", path, token=bao.root_token(stand))


@contextlib.contextmanager
def planted_token(lab: CloneLab) -> Iterator[None]:
    """A token file that was forgotten on the recipient."""
    lab.on("replica", "touch /run/xbvault/left.env")
    yield
    lab.on("replica", "rm /run/xbvault/left.env")


@contextlib.contextmanager
def planted_lock(lab: CloneLab) -> Iterator[None]:
    """A recipient lock that outlived its run."""
    stand = model.load(lab.directory)
    call = ["sh", "-s", "--", "{}", "/var/lib/xbvault", "20200101T000000Z-replica-00000000", "x:1"]
    for verb, more in (("take", ["600"]), ("release", [])):
        argv = [word.format(verb) for word in call] + more
        hosts.run_on(stand, stand.host("replica"), *argv, stdin=script("lock.sh"))
        if verb == "take":
            yield


def judge_equality(story: Story) -> None:
    """Law (a)."""
    laws.check_recipient_equals_donor(story.lab)


def judge_donor(story: Story) -> None:
    """Law (b)."""
    account = f"xbvault_{story.run_id.rpartition('-')[2]}"
    laws.check_donor_is_as_it_was(story.lab, story.before, accounts={account})


def judge_earlier_data(story: Story) -> None:
    """Law (c)."""
    assert laws.check_earlier_data(story.lab, story.before) == []


def judge_leftovers(story: Story) -> None:
    """Law (d)."""
    laws.check_nothing_outlives(story.lab, story.document["backup_id"])


def judge_end(story: Story) -> None:
    """Law (e)."""
    laws.check_ended(story.lab, story.run_id, "succeeded")


@pytest.mark.parametrize(
    ("plant", "judge"),
    [
        (planted_row, judge_equality),
        (planted_file, judge_donor),
        (planted_account, judge_donor),
        (planted_loss, judge_earlier_data),
        (planted_mount, judge_leftovers),
        (planted_token, judge_leftovers),
        (planted_lock, judge_end),
    ],
    ids=lambda part: part.__name__.removeprefix("planted_").removeprefix("judge_"),
)
def test_laws_see_a_breach(
    story: Story,
    plant: Callable[[CloneLab], AbstractContextManager[None]],
    judge: Callable[[Story], None],
) -> None:
    """Each law is broken by what is planted against it, and holds again without it."""
    with plant(story.lab), pytest.raises(AssertionError):
        judge(story)
    judge(story)
