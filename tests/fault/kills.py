"""Killing the orchestrator at every point of a playbook, one point a process."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import act_kills

from orchestrator import steps
from orchestrator.playbook import load_playbook

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from clone_lab import CloneLab
    from warm_cli import WarmCli
    from warm_process import Finished

Point = tuple[str, str]


SAMPLE = 12
"""Of so many acts one is the end of a process, where not all of them are asked for."""
MOST_ACTS = 1000
"""More would be a loop that never ends."""


def is_full() -> bool:
    """Whether all of a long suite is asked for, as ``make fault`` does, or a sample of it."""
    return os.environ.get("XBVAULT_FAULT") == "full"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Acts:
    """What came of kills inside the steps.

    Attributes:
        steps: The step of every act on a host or in Vault that was met, in their order.
        acts: The acts themselves.
        kills: How many processes were killed.
        breaches: Laws that were broken between two kills.
        last: How the process ended that came through.
    """

    steps: Sequence[str]
    acts: Sequence[str]
    kills: int
    breaches: list[str]
    last: Finished


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kills:
    """What came of it.

    Attributes:
        points: The points, in the order in which the engine comes to them.
        exits: How each process ended.
        breaches: Laws that were broken between two kills.
        last: How the process ended that was not to be killed.
    """

    points: Sequence[Point]
    exits: dict[Point, int]
    breaches: list[str]
    last: Finished

    @property
    def phases(self) -> list[str]:
        """The points as the table of faults shows them."""
        return [f"{moment} {step}" for step, moment in self.points]

    @property
    def all_killed(self) -> bool:
        """Whether every process was ended by SIGKILL at its point."""
        return self.exits == dict.fromkeys(self.points, -signal.SIGKILL)


def list_points(name: str) -> list[Point]:
    """Return the points to kill at: all, those of the step that is asked for, or a sample.

    The sample has each second of the points where an act is done and not journalled yet, and the
    seams at the end of a flow.
    """
    points = [point for point in list_all_points(name) if read_point() in ("", point[0])]
    if is_full():
        return points
    afters = [point for point in points if point[1] == "after"][::2]
    return [point for point in points if point in afters or point[1] in ("committed", "ended")]


def list_all_points(name: str) -> list[Point]:
    """Return every point of a playbook and its clean-up, as the engine comes to them.

    After a step that is journalled the next one begins, so ``committed`` is a point of its own only
    where none follows: at the seam to the clean-up, and at the very end. The last point is after
    the last word in the journal, while the recipient is still held.
    """
    steps.load()
    playbook = load_playbook(name)
    points = []
    for flow in (playbook.steps, playbook.cleanup):
        for step in flow:
            points += [(step.use, "before"), (step.use, "after")]
        points += [(flow[-1].use, "committed")] if flow else []
    return [*points, ("run", "ended")]


def read_point() -> str:
    """Return the one step that is asked for, as by ``make fault POINT=…``; empty for all."""
    return os.environ.get("XBVAULT_FAULT_POINT", "")


def kill_at_each(
    cli: WarmCli,
    points: Sequence[Point],
    command: Callable[[], Sequence[str]],
    judge: Callable[[], list[str]],
) -> Kills:
    """Give every point its kill, and then let the command end.

    Args:
        cli: Runs the commands.
        points: Where to kill.
        command: Returns what to run next: it begins the run, or goes on with it.
        judge: Returns the laws that are broken; asked after every kill.
    """
    exits, breaches = {}, []
    for point in points:
        where = ":".join(point)
        killed = cli.call(*command(), env={"XBVAULT_CRASH_AT": where})
        exits[point] = killed.returncode
        breaches += [f"{where}: {breach}" for breach in judge()]
        if killed.returncode != -signal.SIGKILL:
            # the points that follow would only hide why this one was not reached
            breaches.append(f"{where} was not reached: {killed.stdout}{killed.stderr}")
            break
    return Kills(points=points, exits=exits, breaches=breaches, last=cli.call(*command()))


def kill_in_acts(
    cli: WarmCli,
    record: Path,
    command: Callable[[], Sequence[str]],
    judge: Callable[[], list[str]],
    *,
    every: int = 1 if is_full() else SAMPLE,
    variable: str = act_kills.VARIABLE,
) -> Acts:
    """Kill inside the steps: amid every long act and after every act, or some of them.

    Args:
        cli: Runs the commands.
        record: A file that is not there yet, for the acts that were met.
        command: Returns what to run next: it begins the run, or goes on with it.
        judge: Returns the laws that are broken; asked after every kill.
        every: Of so many acts, one kills.
        variable: `act_kills.COMMAND_VARIABLE` for a command that is no run, and has no steps.
    """
    breaches: list[str] = []
    crash = {variable: f"{every}:{record}"}
    killed = 0
    while killed < MOST_ACTS:
        ended = cli.call(*command(), env=crash)
        met = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
        if ended.returncode != -signal.SIGKILL:
            return Acts(
                steps=[step for step, _ in met],
                acts=[act for _, act in met],
                kills=killed,
                breaches=breaches,
                last=ended,
            )
        killed += 1
        breaches += [f"{met[-1]}: {breach}" for breach in judge()]
    raise AssertionError(f"no end after {killed} kills, the last ones at {met[-5:]}")


def list_steps(name: str) -> set[str]:
    """Return the steps of a playbook and its clean-up."""
    steps.load()
    playbook = load_playbook(name)
    return {step.use for step in (*playbook.steps, *playbook.cleanup)}


def read_newest(lab: CloneLab) -> str:
    """Return the newest run, empty before the first; logs are named after them, and sort by time."""
    logs = lab.directory / "state/logs"
    return max((path.stem for path in logs.glob("*.jsonl")), default="")


def read_events(state: Path, run_id: str) -> list[dict[str, Any]]:
    """Return what a run has logged."""
    text = (state / "logs" / f"{run_id}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def check_steps(
    events: Sequence[dict[str, Any]],
    name: str,
    flow: str,
    points: Sequence[Point] | None = None,
) -> None:
    """See that each step began for each kill and its end, and never after it was journalled.

    Args:
        events: The run's log.
        name: Name of the playbook.
        flow: What the log calls its main part.
        points: Where it was killed; else at each of `list_points`.
    """
    playbook = load_playbook(name)
    names = [(flow, step.use) for step in playbook.steps]
    names += [("cleanup", step.use) for step in playbook.cleanup]
    begun: Counter[tuple[str, str]] = Counter()
    ended: Counter[tuple[str, str]] = Counter()
    for event in events:
        step = (event.get("flow", ""), event.get("step", ""))
        if event["event"] == "step.began":
            assert not ended[step], f"{step} was done again"
            begun[step] += 1
        elif event["event"] == "step.ended":
            ended[step] += 1
    points = list_points(name) if points is None else points
    killed = Counter(step for step, moment in points if moment in ("before", "after"))
    wanted = {(part, step): killed[step] + 1 for part, step in names}
    assert begun == wanted, [(step, begun[step]) for step in wanted if begun[step] != wanted[step]]
    assert ended == dict.fromkeys(names, 1)
