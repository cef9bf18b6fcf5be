"""One clone, killed with SIGKILL before and after every step and resumed each time."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import laws
import pytest
from clone_lab import CloneLab, running_lab
from warm_cli import warm_cli

from orchestrator import steps
from orchestrator.playbook import load_playbook
from orchestrator.steps.registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(900)


def list_points() -> list[tuple[str, str]]:
    """Return every point of a clone, as the engine comes to them.

    After a step that is journalled the next one begins, so ``committed`` is a point of its own only
    where none follows: at the seam to the clean-up, and at the very end.
    """
    steps.load()
    playbook = load_playbook("clone")
    points = []
    for flow in (playbook.steps, playbook.cleanup):
        for step in flow:
            points += [(step.use, "before"), (step.use, "after")]
        points.append((flow[-1].use, "committed"))
    return points


@dataclasses.dataclass(frozen=True, kw_only=True)
class Story:
    """What happened.

    Attributes:
        lab: The lab, as the killed clone left it.
        before: What was noted before the killed clone.
        undisturbed: State after a clone that nobody disturbed.
        undisturbed_checks: Its checks, name and whether it holds.
        killed: State after the killed clone.
        run_id: The killed clone.
        exits: How each process ended that was to be killed, by its point.
        breaches: Laws broken between the kills.
        document: What the last resume printed.
        events: The run's log.
    """

    lab: CloneLab
    before: laws.Before
    undisturbed: dict[str, Any]
    undisturbed_checks: list[tuple[str, str, bool]]
    killed: dict[str, Any]
    run_id: str
    exits: dict[tuple[str, str], int]
    breaches: list[str]
    document: dict[str, Any]
    events: list[dict[str, Any]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Two clones of one donor to one recipient: the first undisturbed, the second killed."""
    with running_lab(tmp_path_factory.mktemp("kills") / "lab") as lab:
        first = lab.clone()
        undisturbed = laws.read_state(lab, first["run_id"])
        before = laws.note(lab)
        run_id, exits, breaches = kill_everywhere(lab, before)
        command = ["runs", "resume", run_id, "--json"]
        document = json.loads(lab.xbvault(*command).stdout)
        log_file = lab.directory / "state/logs" / f"{run_id}.jsonl"
        yield Story(
            lab=lab,
            before=before,
            undisturbed=undisturbed,
            undisturbed_checks=list_checks(first),
            killed=laws.read_state(lab, run_id),
            run_id=run_id,
            exits=exits,
            breaches=breaches,
            document=document,
            events=[json.loads(line) for line in log_file.read_text().splitlines()],
        )


def kill_everywhere(
    lab: CloneLab, before: laws.Before
) -> tuple[str, dict[tuple[str, str], int], list[str]]:
    """Begin a clone, and resume it whenever it was killed, until every point has had its turn.

    Returns:
        The run, how each process ended, and the laws that were broken between.
    """
    exits: dict[tuple[str, str], int] = {}
    breaches: list[str] = []
    run_id = ""
    command = ["clone", "master", "replica", "--replace", "--yes", "--json"]
    with warm_cli(lab.config_file) as cli:
        for point in list_points():
            finished = cli.call(*command, env={"XBVAULT_CRASH_AT": ":".join(point)})
            exits[point] = finished.returncode
            if finished.returncode != -signal.SIGKILL:
                # what follows would only hide it
                pytest.fail(f"{point} was not reached: {finished.stdout}{finished.stderr}")
            if not run_id:
                run_id = json.loads(lab.xbvault("runs", "list", "--json").stdout)[0]["run_id"]
                command = ["runs", "resume", run_id, "--json"]
            found = laws.check_donor_runs(lab, before) + laws.check_earlier_data(lab, before)
            breaches += [f"{':'.join(point)}: {breach}" for breach in found]
    return run_id, exits, breaches


def list_checks(document: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Return a document's checks without their evidence."""
    return [(check["name"], check["host"], check["ok"]) for check in document["checks"]]


def test_every_step_has_its_kill_points() -> None:
    """Each step of the registry is in a shipped playbook, so no step escapes the loops."""
    steps.load()
    used = {
        step.use
        for name in ("clone", "undo", "forget")
        for step in (*load_playbook(name).steps, *load_playbook(name).cleanup)
    }
    assert used == set(REGISTRY)
    assert len(list_points()) > 50


def test_each_kill_happened(story: Story) -> None:
    """Every process was ended by SIGKILL at its point, and no law was broken between."""
    assert set(story.exits.values()) == {-signal.SIGKILL}
    assert list(story.exits) == list_points()
    assert story.breaches == []


def test_end_is_that_of_an_undisturbed_clone(story: Story) -> None:
    """The killed clone has the checks, files, settings and Vault of one that nobody disturbed."""
    assert story.document["status"] == "succeeded"
    assert list_checks(story.document) == story.undisturbed_checks
    assert all(ok for _, _, ok in story.undisturbed_checks)
    assert len(story.undisturbed_checks) > 10
    assert story.killed == story.undisturbed
    assert story.killed["follows with the run's account"]


def test_no_finished_step_is_done_again(story: Story) -> None:
    """A step begins once for each of its kills and once to end; journalled, it never begins again."""
    begun: Counter[tuple[str, str]] = Counter()
    ended: Counter[tuple[str, str]] = Counter()
    for event in story.events:
        name = (event.get("flow", ""), event.get("step", ""))
        if event["event"] == "step.began":
            assert not ended[name], f"{name} was done again"
            begun[name] += 1
        elif event["event"] == "step.ended":
            ended[name] += 1
    playbook = load_playbook("clone")
    names = [("run", step.use) for step in playbook.steps]
    names += [("cleanup", step.use) for step in playbook.cleanup]
    assert begun == dict.fromkeys(names, 3), "killed before, killed after, done"
    assert ended == dict.fromkeys(names, 1)


def test_work_that_was_done_is_found_and_kept(story: Story) -> None:
    """No remote job was started twice, the run never went back, and keys were written once."""
    jobs = Counter(e["job"] for e in story.events if e["event"] == "job.started")
    assert jobs
    assert set(jobs.values()) == {1}, jobs
    assert not [e for e in story.events if e["event"] in ("step.went_back", "step.failed")]
    for key_id, versions in story.before.own_versions.items():
        now = laws.note(story.lab).own_versions[key_id]
        assert len(now - versions) == 2, f"key {key_id} went from {versions} to {now}"


def test_laws_hold(story: Story) -> None:
    """After the last resume the donor is as it was, the data equal, and nothing is left over."""
    lab, backup_id = story.lab, story.document["backup_id"]
    account = f"xbvault_{story.run_id.rpartition('-')[2]}"
    laws.check_donor_is_as_it_was(lab, story.before, accounts={account})
    assert laws.check_earlier_data(lab, story.before) == []
    laws.check_nothing_outlives(lab, backup_id)
    laws.check_ended(lab, story.run_id, "succeeded")
    laws.check_repeat_changes_nothing(lab, story.run_id)
    laws.check_recipient_equals_donor(lab)
