"""``xbvault drill``, and what the other commands do with drills."""

# ruff: noqa: D102 - the methods of the fake are described where `Backend` has them

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from cli_lab import TOML, CommandLine, FakeBackend
from drilled import (
    BACKUP_ID,
    DIGEST,
    RUN_ID,
    make_clone_drill_plan,
    make_drill_plan,
    make_drill_record,
    make_report_part,
    make_steps,
)

from orchestrator import summary
from orchestrator.errors import (
    CommandError,
    LockHeldError,
    OrchestratorError,
    PreconditionError,
    SecretError,
    SecretStoreUnavailableError,
    VerificationError,
)
from orchestrator.models import Check

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.config import Config
    from orchestrator.durable import RunRecord
    from orchestrator.models import CloneDrillPlan, DrillPlan
    from orchestrator.playbook import Playbook

DRILL = ("drill", "latest:master", "replica")
REPOSITORIES = '[repositories.store]\npath = "/srv/backups"\n'
ALTERED = VerificationError("part-000007.age is another one", host="store")


class DrillBackend(FakeBackend):
    """A fake whose one run is a drill."""

    def __init__(self) -> None:
        super().__init__()
        self.drill = make_drill_plan()
        self.records = {RUN_ID: make_drill_record()}
        self.cancel_failure: OrchestratorError | None = None
        self.report_failure: OrchestratorError | None = None

    def fail(self, error: OrchestratorError, status: str = "failed", **plan: Any) -> None:
        """Let the drill fail in its fetch."""
        self.failure = error
        self.drill = make_drill_plan(**plan)
        steps = make_steps("fetch-backup-set", error.as_json())
        self.records[RUN_ID] = make_drill_record(
            status=status, steps=steps, error=error.as_json(), plan=self.drill
        )

    def make_drill_plan(
        self, config: Config, backup: str, host: str, repository: str, **options: Any
    ) -> tuple[DrillPlan, Sequence[Check]]:
        self.asked.append(f"make_drill_plan {backup} {host} {repository}".rstrip())
        self.options = options
        return self.drill, self.checks

    def make_clone_drill_plan(
        self, config: Config, donor: str, host: str, **options: Any
    ) -> tuple[CloneDrillPlan, Sequence[Check]]:
        self.asked.append(f"make_clone_drill_plan {donor} {host}")
        self.options = options
        return make_clone_drill_plan(), self.checks

    def cancel_run(self, config: Config, run_id: str, playbook: Playbook) -> RunRecord:
        self.asked.append(f"cancel_run by {playbook.name}")
        if self.cancel_failure is not None:
            raise self.cancel_failure
        self.records[run_id] = dataclasses.replace(self.records[run_id], status="cancelled")
        return self.records[run_id]

    def write_drill_report(self, config: Config, run_id: str) -> RunRecord:
        self.asked.append("write_drill_report")
        if self.report_failure is not None:
            raise self.report_failure
        found = dataclasses.replace(self.records[run_id], parts=(make_report_part(),))
        self.records[run_id] = found
        return found

    @property
    def done(self) -> list[str]:
        """What was done, without what was read."""
        return [asked for asked in self.asked if not asked.startswith(("load_", "make_"))]


@pytest.fixture
def backend() -> DrillBackend:
    """The rooms below."""
    return DrillBackend()


@pytest.fixture
def line(backend: DrillBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A command line over them, with a repository."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "xbvault.toml"
    path.write_text(TOML + REPOSITORIES)
    return CommandLine(backend, path)


def test_a_drill_that_passed_tells_verdict_times_and_sums(
    line: CommandLine, backend: DrillBackend
) -> None:
    """The report is written after the run, and its sums are printed."""
    result = line.call(*DRILL, "--yes")
    assert result.exit_code == 0
    assert backend.done == [f"begin_run {RUN_ID}", "write_drill_report"]
    for text in (
        "verdict: passed\n",
        "recovery time: 9.0 s until it answered SQL\n",
        "phases: look 1.0 s, fetch 2.0 s,",
        "recovery point: 6:50:20 behind master, 100 transactions\n",
        "report: /var/lib/xbvault/drills/run\n",
        f"  {DIGEST}  report.html\n",
        "\nsucceeded: ",
    ):
        assert text in result.stdout


def test_options_reach_the_plan(line: CommandLine, backend: DrillBackend, tmp_path: Path) -> None:
    """Absent ones leave it to the configuration; the directory is made and absolute."""
    line.call(*DRILL, "--yes")
    none = {
        "keep": False,
        "replicate": None,
        "report_dir": "",
        "parallel": None,
        "throttle": None,
    }
    assert backend.options == none
    assert "load_playbook drill" in backend.asked
    words = f"--from store --keep --report {tmp_path}/a/b --parallel 3 --throttle 50M".split()
    line.call(*DRILL, "--yes", *words)
    given = {"keep": True, "report_dir": f"{tmp_path}/a/b", "parallel": 3, "throttle": "50M"}
    assert backend.options == none | given
    assert backend.asked[-4:-2] == [
        "load_playbook drill-keep",
        "make_drill_plan latest:master replica store",
    ]
    assert (tmp_path / "a" / "b").is_dir()


def test_a_drill_that_replicates_has_a_playbook_of_its_own(
    line: CommandLine, backend: DrillBackend
) -> None:
    """And its end is its own, so that nothing of it can be kept."""
    backend.drill = make_drill_plan(replicate_seconds=60, source="master")
    result = line.call(*DRILL, "--yes", "--replicate", "60")
    assert result.exit_code == 0
    assert "load_playbook drill-replicate" in backend.asked
    assert (backend.options["replicate"], backend.options["keep"]) == (60, False)
    line.answers = "n\n"
    assert "replicates  60 s from master, and no longer" in line.call(*DRILL).stderr
    refused = line.call(*DRILL, "--yes", "--replicate", "60", "--keep")
    assert refused.exit_code == 2
    assert "--keep and --replicate do not go together" in refused.stderr
    assert line.call(*DRILL, "--yes", "--replicate", "0").exit_code == 2


def test_a_drill_of_a_clone_needs_no_set(line: CommandLine, backend: DrillBackend) -> None:
    """It is planned as a clone, has playbooks of its own, and nothing of it can be kept."""
    call = ("drill", "--clone", "master", "replica")
    result = line.call(*call, "--yes")
    assert result.exit_code == 0
    assert backend.asked[-4:-2] == [
        "load_playbook drill-clone",
        "make_clone_drill_plan master replica",
    ]
    assert backend.options == {
        "replicate": None,
        "report_dir": "",
        "parallel": None,
        "throttle": None,
    }
    line.call(*call, "--yes", "--replicate", "5")
    assert "load_playbook drill-clone-replicate" in backend.asked
    line.answers = "n\n"
    asked = line.call(*call).stderr
    assert "clone       of master (mariadb 10.11.19), only read" in asked
    assert "Drill a clone of master on replica?" in asked
    for words in (["--keep"], ["--from", "store"]):
        refused = line.call(*call, "--yes", *words)
        assert refused.exit_code == 2
        assert f"--clone and {words[0]} do not go together" in refused.stderr
    assert line.call("drill", "--clone", "master", "master", "--yes").exit_code == 3
    assert line.call("drill", "--clone", "latest", "replica", "--yes").exit_code == 2


def test_a_clone_that_failed_is_taken_back_by_its_own_undo(
    line: CommandLine, backend: DrillBackend
) -> None:
    """The error says what is not to be relied on."""
    backend.fail(ALTERED)
    record = backend.records[RUN_ID]
    backend.records[RUN_ID] = dataclasses.replace(record, plan=make_clone_drill_plan())
    result = line.call("drill", "--clone", "master", "replica", "--yes")
    assert result.exit_code == 6
    assert "cancel_run by undo" in backend.asked
    assert "do not rely on a clone as it is made now; replica has back what it had" in result.stderr


def test_the_plan_is_shown_and_nothing_done(line: CommandLine, backend: DrillBackend) -> None:
    """As of a restore."""
    result = line.call(*DRILL, "--plan")
    assert result.exit_code == 0
    assert BACKUP_ID in result.stdout
    assert backend.done == []


def test_a_person_is_told_what_happens_to_the_host(
    line: CommandLine, backend: DrillBackend
) -> None:
    """And asked; a no changes nothing."""
    line.answers = "n\n"
    result = line.call(*DRILL)
    assert result.exit_code == 130
    assert "scratch     replica, datadir /var/lib/mysql" in result.stderr
    assert "the host gets back what it had" in result.stderr
    assert backend.done == []
    backend.drill = make_drill_plan(keep=True)
    assert "the restored server stays, isolated" in line.call(*DRILL, "--keep").stderr
    line.answers = None
    assert line.call(*DRILL).exit_code == 2


@pytest.mark.parametrize(
    ("error", "status"), [(ALTERED, 6), (SecretError("the keys were destroyed"), 5)]
)
def test_what_speaks_against_the_set_gives_the_host_back_at_once(
    line: CommandLine, backend: DrillBackend, error: OrchestratorError, status: int
) -> None:
    """And is reported."""
    backend.fail(error)
    result = line.call(*DRILL, "--yes")
    assert result.exit_code == status
    assert backend.done == [
        f"begin_run {RUN_ID}",
        "cancel_run by undo-restore",
        "write_drill_report",
    ]
    assert f"error: {error.message}" in result.stderr
    assert "report: /var/lib/xbvault/drills/run" in result.stderr
    assert "hint: do not rely on this set; replica has back what it had" in result.stderr


def test_a_failure_is_told_as_a_document_with_every_key(
    line: CommandLine, backend: DrillBackend
) -> None:
    """With the report, and nothing but the document on stdout."""
    backend.fail(ALTERED)
    document = line.document(*DRILL, "--yes")
    assert list(document) == list(summary.build_empty_drill_document())
    assert (document["status"], document["verdict"]) == ("cancelled", "failed")
    assert document["report"]["files"]["report.json"] == DIGEST
    assert document["error"]["message"] == ALTERED.message


@pytest.mark.parametrize("error", [CommandError("it broke"), SecretStoreUnavailableError("sealed")])
def test_another_failure_leaves_the_run_to_be_resumed(
    line: CommandLine, backend: DrillBackend, error: OrchestratorError
) -> None:
    """It says nothing about the set; the report says that."""
    backend.fail(error)
    result = line.call(*DRILL, "--yes")
    assert result.exit_code == error.exit_status
    assert backend.done == [f"begin_run {RUN_ID}", "write_drill_report"]
    assert f"xbvault runs resume {RUN_ID}" in result.stderr


def test_a_kept_server_is_not_taken_away(line: CommandLine, backend: DrillBackend) -> None:
    """Whoever wants to look at what is wrong with it can."""
    backend.fail(ALTERED, keep=True)
    assert line.call(*DRILL, "--yes", "--keep").exit_code == 6
    assert backend.done == [f"begin_run {RUN_ID}", "write_drill_report"]


def test_a_host_that_did_not_get_its_data_back_is_named(
    line: CommandLine, backend: DrillBackend
) -> None:
    """The verdict stays what it was."""
    backend.fail(ALTERED)
    backend.cancel_failure = CommandError("the server does not start")
    result = line.call(*DRILL, "--yes")
    assert result.exit_code == 6
    assert "replica does not have back what it had (the server does not start)" in result.stderr
    assert f"xbvault runs cancel {RUN_ID}" in result.stderr
    assert backend.done[-1] == "write_drill_report"


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_a_run_that_goes_on_elsewhere_is_left_alone(
    line: CommandLine, backend: DrillBackend, status: str
) -> None:
    """Neither cancelled nor reported."""
    backend.fail(LockHeldError("held by process 7"), status=status)
    assert line.call(*DRILL, "--yes").exit_code == 3
    assert backend.done == [f"begin_run {RUN_ID}"]


def test_a_report_that_cannot_be_written_fails_the_command(
    line: CommandLine, backend: DrillBackend
) -> None:
    """Of a drill that passed; of one that failed, its own error counts."""
    backend.report_failure = PreconditionError("the report cannot be written")
    assert line.call(*DRILL, "--yes").exit_code == 3
    backend.fail(ALTERED)
    result = line.call(*DRILL, "--yes")
    assert result.exit_code == 6
    assert "report: " not in result.stderr


def test_findings_against_the_set_are_for_the_drill_to_tell(
    line: CommandLine, backend: DrillBackend
) -> None:
    """Any other stops it before it begins."""
    backend.checks = tuple(
        Check(name=name, ok=False, evidence="no") for name in ("set-complete", "vault-set-keys")
    )
    assert line.call(*DRILL, "--yes").exit_code == 0
    assert f"begin_run {RUN_ID}" in backend.done
    backend.asked.clear()
    backend.checks += (Check(name="space", ok=False, evidence="too little"),)
    result = line.call(*DRILL, "--yes")
    assert result.exit_code == 3
    assert "space: too little" in result.stderr
    assert backend.done == []


def test_a_report_needs_a_directory(line: CommandLine, tmp_path: Path) -> None:
    """It is tried before anything is done."""
    (tmp_path / "file").write_text("")
    result = line.call(*DRILL, "--yes", "--report", str(tmp_path / "file" / "a"))
    assert result.exit_code == 2
    assert "--report" in result.stderr


@pytest.mark.parametrize(
    ("content", "whose"), [('{"run_id": "earlier"}', "earlier"), ("[]", "something else")]
)
def test_a_filed_report_is_not_written_over(
    line: CommandLine, backend: DrillBackend, tmp_path: Path, content: str, whose: str
) -> None:
    """The drill does not begin; nor is it planned."""
    (tmp_path / "report.json").write_text(content)
    for how in ("--yes", "--plan"):
        result = line.call(*DRILL, how, "--report", str(tmp_path))
        assert result.exit_code == 2
        assert f"the report of {whose} is filed there" in result.stderr
        assert "another directory on this machine, or leave --report out" in result.stderr
    assert backend.done == []
    assert [asked for asked in backend.asked if asked.startswith("make_")] == []


def test_names_are_looked_up_first(line: CommandLine, backend: DrillBackend) -> None:
    """Nothing is contacted for a host or repository that is not configured."""
    assert line.call("drill", "latest", "nobody", "--yes").exit_code == 2
    assert line.call(*DRILL, "--from", "nowhere", "--yes").exit_code == 2
    assert backend.asked == []


def test_resume_and_cancel_of_a_drill_write_its_report(
    line: CommandLine, backend: DrillBackend
) -> None:
    """However it was left."""
    document = json.loads(line.call("runs", "resume", RUN_ID, "--json").stdout)
    assert document["verdict"] == "passed"
    assert backend.done == [f"resume_run {RUN_ID}", "write_drill_report"]
    backend.asked.clear()
    backend.fail(CommandError("it broke"))
    assert line.call("runs", "cancel", RUN_ID, "--yes").exit_code == 0
    assert backend.done == ["cancel_run by undo-restore", "write_drill_report"]


@pytest.mark.parametrize("verb", ["undo", "forget"])
def test_only_a_kept_server_is_undone_or_forgotten(
    line: CommandLine, backend: DrillBackend, verb: str
) -> None:
    """Otherwise nothing is left of the drill."""
    result = line.call("runs", verb, RUN_ID, "--yes")
    assert result.exit_code == 3
    assert "has given replica back what it had" in result.stderr
    assert backend.done == []
    backend.records[RUN_ID] = make_drill_record(plan=make_drill_plan(keep=True))
    line.call("runs", verb, RUN_ID, "--yes")
    playbook = "undo-restore" if verb == "undo" else "forget"
    assert backend.done == [f"{verb}_run by {playbook}"]


@pytest.mark.parametrize("verb", ["undo", "forget"])
@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_drill_without_its_tear_down_is_not_said_to_have_given_its_host_back(
    line: CommandLine, backend: DrillBackend, verb: str, status: str
) -> None:
    """It is refused as any run of its status, with the way on."""
    backend.fail(CommandError("it broke"), status=status)
    backend.failure = PreconditionError(
        f"run {RUN_ID} is {status} and cannot be undone",
        hint=f"xbvault runs resume {RUN_ID}, or xbvault runs cancel {RUN_ID}",
    )
    result = line.call("runs", verb, RUN_ID, "--yes")
    assert result.exit_code == 3
    assert "what it had" not in result.stderr
    assert f"is {status} and cannot be undone" in result.stderr
    assert f"xbvault runs cancel {RUN_ID}" in result.stderr


def test_a_drill_that_was_not_cleaned_up_has_given_its_host_back(
    line: CommandLine, backend: DrillBackend
) -> None:
    """Its tear-down is its last step."""
    backend.records[RUN_ID] = make_drill_record(status="cleaning")
    result = line.call("runs", "undo", RUN_ID, "--yes")
    assert "has given replica back what it had" in result.stderr
    assert backend.done == []


def test_a_drill_is_shown_like_any_run(line: CommandLine, backend: DrillBackend) -> None:
    """With its verdict, and the report as a part."""
    backend.write_drill_report(None, RUN_ID)  # type: ignore[arg-type]  # the fake needs none
    result = line.call("runs", "show", RUN_ID)
    assert "verdict: passed" in result.stdout
    assert f"report:{RUN_ID}: succeeded" in result.stdout
    document = line.document("runs", "show", RUN_ID)
    assert document["report"]["files"]["report.md"] == DIGEST
