"""One clone, killed with SIGKILL before and after every step and resumed each time."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import kills
import laws
import pytest
from clone_lab import CloneLab, running_lab
from warm_cli import warm_cli

from orchestrator import steps
from orchestrator.playbook import list_playbooks
from orchestrator.steps.registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    with running_lab(tmp_path_factory.mktemp("kills") / "lab") as lab:
        first = lab.clone()
        undisturbed = laws.read_state(lab, first["run_id"])
        before = laws.note(lab)

        def command() -> Sequence[str]:
            run_id = read_newest(lab)
            if run_id == first["run_id"]:
                return "clone", "master", "replica", "--replace", "--yes", "--json"
            return "runs", "resume", run_id, "--json"

        def judge() -> list[str]:
            return laws.check_donor_runs(lab, before) + laws.check_earlier_data(lab, before)

        with warm_cli(lab.config_file) as cli:
            killed = kills.kill_at_each(cli, kills.list_points("clone"), command, judge)
        run_id = read_newest(lab)
        yield Story(
            lab=lab,
            before=before,
            undisturbed=undisturbed,
            undisturbed_checks=list_checks(first),
            kills=killed,
            run_id=run_id,
            state=laws.read_state(lab, run_id),
        )


def read_newest(lab: CloneLab) -> str:
    """Return the newest run; every run has its log, and their names sort by time."""
    return max(path.stem for path in (lab.directory / "state/logs").iterdir())


def list_checks(document: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Return a document's checks without their evidence."""
    return [(check["name"], check["host"], check["ok"]) for check in document["checks"]]


def test_every_step_has_its_kill_points() -> None:
    """Each step of the registry is in a shipped playbook, so none is out of reach of the loops."""
    steps.load()
    used = {step.use for book in list_playbooks() for step in (*book.steps, *book.cleanup)}
    assert used == set(REGISTRY)
    assert len(kills.list_points("clone")) > 50


def test_each_kill_happened(story: Story) -> None:
    """Every process was ended by SIGKILL at its point, and no law was broken between."""
    assert story.kills.breaches == []
    assert story.kills.all_killed, story.kills.exits


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
