"""Several clones of one donor, killed with SIGKILL: the command, one of its processes, all of them.

One laboratory with two replicas for the whole file; each clone sets aside what the one before it has
left. By default a sample is killed; all of it with ``XBVAULT_FAULT=full``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import act_kills
import kills
import laws
import pytest
import table
from clone_lab import CloneLab, running_lab
from lab.commands import wait_until
from replicas import check_arrival
from stand import COMES_SECONDS, ENDS_SECONDS, Command, Stand, wait_for
from vault_root import VaultRoot
from warm_cli import warm_cli

from orchestrator import steps
from orchestrator.playbook import load_playbook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kills import Point
    from warm_cli import WarmCli

    Record = Callable[[str, object], None]

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(900 if kills.is_full() else 420),
]

FIRST, SECOND = RECIPIENTS = ("replica", "replica2")
PATIENT_SECONDS = 300
"""So long runs wait for each other that are to meet, however often one is killed."""
SHORT_SECONDS = 3
"""So long where nobody is to come."""
READER = "master:mariadb-backup"
HELD_BYTES = 500_000
SEALED = "seal-key-bundle"
"""The last step of a run that has to do with the others, but for the clean-up."""
KILLED = -signal.SIGKILL
PARTIAL, INTERRUPTED, HELD = 9, 7, 3
long_loop = pytest.mark.skipif(not kills.is_full(), reason="a long loop: XBVAULT_FAULT=full")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What the tests play on.

    Attributes:
        stand: The laboratory.
        cli: The command line, for runs of one recipient.
        folder: For files of a test.
        patient: A configuration in which runs wait long for each other.
        short: One in which they do not.
    """

    stand: Stand
    cli: WarmCli
    folder: Path
    patient: Path
    short: Path

    @property
    def lab(self) -> CloneLab:
        """The lab."""
        return self.stand.lab

    def start(
        self, *arguments: str, config: Path | None = None, env: dict[str, str] | None = None
    ) -> Command:
        """Start a command in the background."""
        found = {"XBVAULT_CONFIG": str(config or self.patient), **(env or {})}
        return self.stand.start(*arguments, "--json", environment=found)

    def clone(self, config: Path | None = None, **env: str) -> Command:
        """Start a clone to both recipients."""
        arguments = ("clone", laws.DONOR, *RECIPIENTS, "--replace", "--yes")
        return self.start(*arguments, config=config, env=env)

    def list_runs(self) -> dict[str, dict[str, Any]]:
        """Return the newest entry of ``runs list`` for each recipient."""
        found = json.loads(self.cli.call("runs", "list", "--json").stdout)
        return {item["recipient"]: item for item in reversed(found)}

    def read_statuses(self) -> list[str]:
        """Return the status of the newest run of each recipient."""
        found = self.list_runs()
        return [str(found[name]["status"]) for name in RECIPIENTS if name in found]

    def wait_for_statuses(self, *statuses: str) -> None:
        """Wait until the newest runs stand so; seldom, for each look costs a process."""
        wait_until(
            lambda: self.read_statuses() == [*statuses],
            " and ".join(statuses),
            timeout_seconds=ENDS_SECONDS,
            pause_seconds=1,
        )

    def find_process(self, run: str) -> int:
        """Return the process that holds a run; 0 if none does."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.stand.state / "locks" / run).read_text(encoding="ascii"))
            if "orchestrator" in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8"):
                return pid
        return 0

    def is_halted(self, run: str) -> bool:
        """Whether the process that holds a run was stopped by a signal."""
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self.find_process(run)}/stat").read_text(encoding="utf-8")
            return stat.rpartition(")")[2].split()[0] == "T"
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Two clones that began together.

    Attributes:
        stage: What they are played on.
        name: Their common name.
        runs: The runs by their recipients.
        befores: What they must not change.
    """

    stage: Stage
    name: str
    runs: dict[str, str]
    befores: dict[str, laws.Before]

    def judge(self) -> list[str]:
        """Return the laws that are broken, of those that hold at every moment."""
        lab = self.stage.lab
        breaches = laws.check_donor_runs(lab, self.befores[FIRST])
        for name, before in self.befores.items():
            breaches += [f"{name}: {breach}" for breach in laws.check_earlier_data(lab, before)]
        return breaches

    def check_end(self, **ends: str) -> None:
        """Judge the laws when both runs have ended.

        Args:
            ends: How each did.
        """
        lab = self.stage.lab
        clones = [name for name, end in ends.items() if end == "succeeded"]
        accounts = {f"xbvault_{self.runs[name].rpartition('-')[2]}" for name in clones}
        laws.check_donor_is_as_it_was(lab, self.befores[FIRST], accounts=accounts)
        assert self.judge() == []
        laws.check_nothing_outlives_group(lab, self.name, self.runs)
        for name, end in ends.items():
            laws.check_ended(lab, self.runs[name], end, name)
        for name in clones:
            laws.check_repeat_changes_nothing(lab, self.runs[name], name)
            check_arrival(lab, target=name)
        if clones:
            laws.check_recipient_equals_donor(lab, *clones)
            lab.lab("writer", "start")

    def read_events(self) -> list[dict[str, Any]]:
        """Return what both runs have logged."""
        state = self.stage.stand.state
        return [event for run in self.runs.values() for event in kills.read_events(state, run)]

    def check_one_reading(self) -> None:
        """See that the donor was read once for several recipients, and no step has failed."""
        events = self.read_events()
        assert [e for e in events if e["event"] in ("step.failed", "step.went_back")] == []
        begun = [e["job"] for e in events if e["event"] == "job.started"]
        assert begun.count(f"{self.name}.read-donor") == 1, begun

    def has_key(self) -> bool:
        """Whether the common key can be read."""
        root = VaultRoot(self.stage.lab.directory)
        path = f"transition-keys/{self.name}"
        names = root.list_secrets("xbvault", "transition-keys")
        return self.name in names and root.live_versions("xbvault", path) != []


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Bring the laboratory up, with servers and data on the replicas."""
    folder = tmp_path_factory.mktemp("groups")
    with running_lab(folder / "lab", "--replicas", "2", "--replica-server", size=0.03) as lab:
        stand = Stand(lab, folder)
        configs = {}
        for name, seconds in (("patient", PATIENT_SECONDS), ("short", SHORT_SECONDS)):
            configs[name] = folder / f"{name}.toml"
            text = lab.config_file.read_text(encoding="utf-8")
            configs[name].write_text(f"{text}\n[clone]\ngather_seconds = {seconds}\n", "utf-8")
        with warm_cli(configs["patient"]) as cli:
            yield Stage(stand=stand, cli=cli, folder=folder, **configs)


def note(stage: Stage) -> dict[str, laws.Before]:
    """Note what runs must not change."""
    return {name: laws.note(stage.lab, name) for name in RECIPIENTS}


def find_group(stage: Stage, befores: dict[str, laws.Before]) -> Group:
    """Return the newest group."""
    runs = {name: str(item["run_id"]) for name, item in stage.list_runs().items()}
    shown = json.loads(stage.cli.call("runs", "show", runs[FIRST], "--json").stdout)
    return Group(stage=stage, name=shown["backup_id"], runs=runs, befores=befores)


def begin_halted(stage: Stage, at: str, config: Path) -> tuple[Command, Group]:
    """Clone to both, and halt the process of each at a point."""
    befores, earlier = note(stage), stage.list_runs()
    command = stage.clone(config, XBVAULT_HALT_AT=at)
    wait_until(
        lambda: command.has_ended or stage.list_runs() != earlier,
        "the runs",
        timeout_seconds=COMES_SECONDS,
        pause_seconds=0.5,
    )
    assert not command.has_ended, command.wait()
    group = find_group(stage, befores)
    for run in group.runs.values():
        wait_for(lambda run=run: stage.is_halted(run), "the halt")
    return command, group


def kill(stage: Stage, run: str) -> None:
    """Kill the process that holds a run."""
    os.kill(stage.find_process(run), signal.SIGKILL)


def list_points() -> list[Point]:
    """Return the points at which runs of a group depend on each other: up to the keys, and the end."""
    steps.load()
    book = load_playbook("clone")
    names = [step.use for step in book.steps]
    common = {*names[: names.index(SEALED) + 1], *(step.use for step in book.cleanup), "run"}
    return [point for point in kills.list_all_points("clone") if point[0] in common]


def split_points() -> tuple[list[Point], list[Point], list[Point]]:
    """Return those points in three: before the stream, from its end to the keys, and the clean-up."""
    points = list_points()
    streamed = points.index(("stream-backup", "after"))
    sealed = points.index((SEALED, "after")) + 1
    return points[:streamed], points[streamed:sealed], points[sealed:]


def kill_at(group: Group, run: str, points: list[Point]) -> list[str]:
    """Resume a run by itself to each of these points, and kill it there; return the breaches."""
    breaches = []
    for point in points:
        where = ":".join(point)
        env = {"XBVAULT_CRASH_AT": where}
        killed = group.stage.cli.call("runs", "resume", run, "--json", env=env)
        assert killed.returncode == KILLED, f"{where}: {killed.stdout}{killed.stderr}"
        breaches += [f"{where}: {breach}" for breach in group.judge()]
    return breaches


def kill_in_stream(group: Group, run: str, record: Path) -> list[str]:
    """Resume a run by itself, and kill it inside its stream at each act; return the breaches."""
    env = {act_kills.VARIABLE: f"1:{record}", "XBVAULT_CRASH_AT": "stream-backup:after"}
    breaches: list[str] = []
    met: list[str] = []
    while True:
        killed = group.stage.cli.call("runs", "resume", run, "--json", env=env)
        assert killed.returncode == KILLED, f"{met[-3:]}: {killed.stdout}{killed.stderr}"
        breaches += [f"{met[-1:]}: {breach}" for breach in group.judge()]
        now = record.read_text(encoding="utf-8").splitlines()
        if now == met:  # no act has killed it, but the end of the step
            assert len(met) > 20, met
            return breaches
        met = now


def write_rows(record_property: Record, phases: list[str]) -> None:
    """Write down where a loop has killed."""
    for row in table.list_kills("group", phases, "succeeded"):
        record_property(table.PROPERTY, row.as_json())


def test_a_killed_command_leaves_every_run_to_be_resumed(
    stage: Stage, record_property: Record
) -> None:
    """Killed before, amid and after the start of its processes: nothing is lost, nor begun twice."""
    befores = note(stage)
    assert stage.clone(XBVAULT_CRASH_AT="group:recorded").wait().status == KILLED
    assert stage.read_statuses() == ["interrupted", "interrupted"]
    group = find_group(stage, befores)
    assert not group.has_key()

    resume = ("runs", "resume", group.name)
    killed = stage.start(*resume, env={"XBVAULT_CRASH_AT": "group:started"}).wait()
    assert killed.status == KILLED
    wait_for(lambda: stage.find_process(group.runs[FIRST]), "the process that was started")
    assert stage.read_statuses() == ["running", "interrupted"]

    with stage.stand.gate(READER, after_bytes=HELD_BYTES) as gate:
        command = stage.start(*resume)
        wait_for(lambda: gate.is_reached or command.has_ended, "the stream")
        assert not command.has_ended, command.wait()
        command.end()
        assert group.judge() == []
        refused = stage.start(*resume).wait()
        assert refused.status == HELD, refused.talk
        assert refused.error["error"] == "LockHeldError"
        with pytest.raises(AssertionError, match="version 1 of the transition key can be read"):
            laws.check_nothing_outlives_group(stage.lab, group.name, group.runs)
        gate.open()
        stage.wait_for_statuses("succeeded", "succeeded")
    ended = stage.start(*resume).wait()
    assert (ended.status, ended.document["status"]) == (0, "succeeded")
    group.check_one_reading()
    group.check_end(replica="succeeded", replica2="succeeded")
    phases = ("before the first process", "after the first process", "in stream-backup")
    write_rows(record_property, [f"{phase}, of the command" for phase in phases])


@long_loop
def test_what_a_killed_command_did_not_begin_can_be_cancelled(stage: Stage) -> None:
    """Before any process nothing is anywhere; of two, the one that went on needs no other one."""
    befores = note(stage)
    assert stage.clone(XBVAULT_CRASH_AT="group:recorded").wait().status == KILLED
    group = find_group(stage, befores)
    for run in group.runs.values():
        assert stage.start("runs", "cancel", run, "--yes").wait().status == 0
    group.check_end(replica="cancelled", replica2="cancelled")

    killed = stage.clone(stage.short, XBVAULT_CRASH_AT="group:started").wait()
    assert killed.status == KILLED
    group = find_group(stage, befores)
    stage.wait_for_statuses("succeeded", "interrupted")
    assert group.has_key()
    assert stage.start("runs", "cancel", group.runs[SECOND], "--yes").wait().status == 0
    assert not group.has_key()
    undone = stage.start("runs", "undo", group.runs[FIRST], "--yes").wait()
    assert undone.status == 0, undone.talk
    group.check_end(replica="undone", replica2="cancelled")


@long_loop
def test_one_that_is_killed_all_along_takes_part(stage: Stage, record_property: Record) -> None:
    """Killed at every point and act, one gets the common stream; the other one does not notice."""
    before_stream, to_keys, to_end = split_points()
    command, group = begin_halted(stage, "check-preconditions:before", stage.patient)
    other, run = group.runs[FIRST], group.runs[SECOND]
    kill(stage, run)
    os.kill(stage.find_process(other), signal.SIGCONT)
    breaches = kill_at(group, run, before_stream[1:])
    breaches += kill_in_stream(group, run, stage.folder / "acts")
    breaches += kill_at(group, run, to_keys[1:])
    ended = command.wait()
    assert ended.status == PARTIAL, ended.talk
    assert stage.read_statuses() == ["succeeded", "interrupted"]
    assert group.has_key()
    breaches += kill_at(group, run, to_end)
    assert breaches == []
    ended = stage.start("runs", "resume", group.name).wait()
    assert (ended.status, ended.document["status"]) == (0, "succeeded")
    group.check_one_reading()
    group.check_end(replica="succeeded", replica2="succeeded")
    phases = [f"{moment} {step}" for step, moment in list_points()]
    write_rows(record_property, [f"{phase}, of one" for phase in ("inside stream-backup", *phases)])


@long_loop
def test_one_that_is_killed_before_the_stream_is_streamed_to_alone(
    stage: Stage, record_property: Record
) -> None:
    """The other one does not wait for it for long, and keeps the key for it."""
    command, group = begin_halted(stage, "stream-backup:before", stage.short)
    kill(stage, group.runs[FIRST])
    os.kill(stage.find_process(group.runs[SECOND]), signal.SIGCONT)
    ended = command.wait()
    assert ended.status == PARTIAL, ended.talk
    assert ended.error["message"] == f"1 of 2 recipients failed: {FIRST}"
    assert stage.read_statuses() == ["interrupted", "succeeded"]
    assert group.has_key()
    assert group.judge() == []
    ended = stage.start("runs", "resume", group.name, config=stage.short).wait()
    assert (ended.status, ended.document["status"]) == (0, "succeeded")
    group.check_one_reading()
    group.check_end(replica="succeeded", replica2="succeeded")
    write_rows(record_property, ["before stream-backup, of one that is not resumed in time"])


@long_loop
def test_one_that_stood_ready_and_is_cancelled_does_not_hold_up_the_other(stage: Stage) -> None:
    """Its process was killed, so it could not say that it is out: the cancel does."""
    command, group = begin_halted(stage, "create-transition-key:before", stage.patient)
    for run in group.runs.values():
        kill(stage, run)
    assert command.wait().status == INTERRUPTED
    # its name comes last, so it would be the end of the pipe
    alone = stage.start("runs", "resume", group.runs[SECOND])
    folder = stage.stand.host(laws.DONOR).root / "var/lib/xbvault/runs" / group.name
    wait_for((folder / f"ready.{group.runs[SECOND]}").exists, "the mark")
    alone.end()
    cancelled = stage.start("runs", "cancel", group.runs[SECOND], "--yes").wait()
    assert cancelled.status == 0, cancelled.talk
    began = time.monotonic()
    ended = stage.start("runs", "resume", group.runs[FIRST]).wait()
    assert ended.status == 0, ended.talk
    assert time.monotonic() - began < PATIENT_SECONDS / 2
    group.check_end(replica="succeeded", replica2="cancelled")


@long_loop
def test_all_are_killed_at_every_step(stage: Stage, record_property: Record) -> None:
    """Both are killed at once, at the end of each step in turn, and resumed by their common name."""
    befores, earlier = note(stage), stage.list_runs()
    # A step that has not begun leaves all as the one before it did.
    points = [point for point in list_points() if point[1] != "before"]
    breaches: list[str] = []
    group: Group | None = None
    for point in points:
        where = ":".join(point)
        env = {"XBVAULT_CRASH_AT": where}
        if group is None:
            ended = stage.clone(stage.patient, **env).wait()
            assert stage.list_runs() != earlier
            group = find_group(stage, befores)
        else:
            ended = stage.start("runs", "resume", group.name, env=env).wait()
        # after the last word in the journal there is nothing to be interrupted
        expected = 0 if point == ("run", "ended") else INTERRUPTED
        assert ended.status == expected, f"{where}: {ended.talk}"
        breaches += [f"{where}: {breach}" for breach in group.judge()]
    assert breaches == []
    assert group is not None
    ended = stage.start("runs", "resume", group.name).wait()
    assert (ended.status, ended.document["status"]) == (0, "succeeded")
    group.check_one_reading()
    for run in group.runs.values():
        kills.check_steps(kills.read_events(stage.stand.state, run), "clone", "run", points)
    group.check_end(replica="succeeded", replica2="succeeded")
    write_rows(record_property, [f"{moment} {step}, of all" for step, moment in points])
