"""Nemeses: what can break while a clone goes on, when, and what the tool must do then.

A nemesis is a generator that breaks something, yields, and mends it. It strikes at moments of one
clone: while the orchestrator is halted right before a step, so that all its connections stand; or
while a tool on a host is held at its gate, in the middle of its stream. What comes of each strike
is a row of `docs/reference/faults.md`. A run that failed is mended and resumed, the next moment
follows, and in the end the laws are judged.
"""

from __future__ import annotations

import contextlib
import dataclasses
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from orchestrator import steps
from orchestrator.playbook import load_playbook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stand import Stand

GOES_ON = ""
"""Instead of an error's class: the run went on as if nothing had happened."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """When a nemesis strikes.

    Attributes:
        step: The orchestrator is halted right before this step does anything.
        gate: The tool that is held instead, as ``host:tool``; the step is the one that waits.
        after_bytes: How much of its stream a held tool has let through.
    """

    step: str
    gate: str = ""
    after_bytes: int = 0

    @property
    def phase(self) -> str:
        """The moment as the table shows it."""
        return f"in {self.step}" if self.gate else f"before {self.step}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nemesis:
    """One way in which the world breaks.

    Attributes:
        name: As ``make fault NEMESIS=…`` takes it.
        room: The module that it is in.
        what: What happens, one line.
        breaks: Breaks it, and mends it.
        moments: When, in the order in which a clone comes to them.
        comes: Classes of the errors that may come of it, or `GOES_ON`.
        says: What the message, the hint and the problems must hold, of whatever error comes; any
            one of these.
        mends_after_seconds: Mended while the run still tries; None: when the process has ended.
        ends: Status of the run in the end.
        harms_donor: It ends the donor's server itself, so that this is no breach.
        options: What the ``[clone]`` section of the configuration says, as TOML.
        environment: What the orchestrator's processes get set besides.
        sample: Whether it belongs to ``make test``.
        flavors: Kinds of servers on which it strikes.
    """

    name: str
    room: str
    what: str
    breaks: Callable[[Stand], AbstractContextManager[None]]
    moments: Sequence[Moment]
    comes: Sequence[str]
    says: Sequence[str] = ()
    mends_after_seconds: float | None = None
    ends: str = "succeeded"
    harms_donor: bool = False
    options: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    sample: bool = False
    flavors: Sequence[str] = ("mariadb", "mysql")


NEMESES: dict[str, Nemesis] = {}


def nemesis(
    name: str,
    *,
    moments: Sequence[Moment],
    comes: Sequence[str],
    says: Sequence[str] = (),
    mends_after_seconds: float | None = None,
    ends: str = "succeeded",
    harms_donor: bool = False,
    options: str = "",
    environment: tuple[tuple[str, str], ...] = (),
    sample: bool = False,
    flavors: Sequence[str] = ("mariadb", "mysql"),
) -> Callable[[Callable[[Stand], Iterator[None]]], None]:
    """Add a nemesis; its docstring says what happens."""

    def add(breaks: Callable[[Stand], Iterator[None]]) -> None:
        if name in NEMESES:
            raise ValueError(f"two nemeses are called {name}")
        NEMESES[name] = Nemesis(
            name=name,
            room=breaks.__module__.rpartition(".")[2],
            what=(breaks.__doc__ or "").strip(),
            breaks=contextlib.contextmanager(breaks),
            moments=tuple(moments),
            comes=tuple(comes),
            says=tuple(says),
            mends_after_seconds=mends_after_seconds,
            ends=ends,
            harms_donor=harms_donor,
            options=options,
            environment=environment,
            sample=sample,
            flavors=tuple(flavors),
        )

    return add


def before_each(*, without: Sequence[str] = (), name: str = "clone") -> list[Moment]:
    """Return the moments before every step of a playbook and its clean-up."""
    steps.load()
    playbook = load_playbook(name)
    uses = [step.use for step in (*playbook.steps, *playbook.cleanup)]
    return [Moment(step=use) for use in uses if use not in without]


def before(*names: str) -> list[Moment]:
    """Return the moments before these steps."""
    return [Moment(step=name) for name in names]


def in_stream(gate: str, *, after_bytes: int = 4_000_000) -> list[Moment]:
    """Return the moment in which so much of the stream has passed a tool's gate."""
    return [Moment(step="stream-backup", gate=gate, after_bytes=after_bytes)]
