"""What a person sees of a run while it goes on: a live view at a terminal, plain lines in a pipe.

Both are fed with the events of `log`: by the process that does the run through `log.subscribe`,
by ``runs watch`` in another process from the run's file. A view never ends a run: whatever goes
wrong while showing is swallowed here.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from orchestrator.cli.output import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rich.console import Console, RenderableType
    from rich.live import Live

    Event = Mapping[str, Any]

PROGRESS_SECONDS = 5.0
"""Plain lines tell of progress this often at most."""
LEAST_SHARE = 0.01
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAMES_PER_SECOND = 8
_BAR_WIDTH = 24
_LARGEST = 1e18
_FRAME = ("event", "level", "timestamp", "run_id", "playbook", "flow", "step", "host")
"""What stands on every event beside what it has to say."""
COUNTED = ("tablespaces", "tables")
"""What a step may count of a known number, beside bytes."""
LEFT = ("pages_left", "seconds_behind")
"""What a step may know of the rest, where it does not know of how much."""
_ENDINGS = {"step.ended": "succeeded", "step.failed": "failed"}


@dataclasses.dataclass
class StepView:
    """One line of the view.

    Attributes:
        name: The step.
        flow: Part of the run that it belongs to: ``run``, ``cleanup``, ``undo`` …
        status: ``pending``, ``running``, ``succeeded`` or ``failed``.
        began: Clock reading at which it began.
        seconds: How long it took, once it ended.
        note: A word on what happened, such as ``unchanged``.
        done_bytes: What its remote job has moved so far.
        expected_bytes: What it will move in all; 0 when unknown.
        rate: Bytes per second.
        counted: What it counts instead of bytes: done, of how many, of what.
        told: What else is known of how far it is, in words.
    """

    name: str
    flow: str = "run"
    status: str = "pending"
    began: float = 0.0
    seconds: float = 0.0
    note: str = ""
    done_bytes: int = 0
    expected_bytes: int = 0
    rate: float = 0.0
    counted: tuple[int, int, str] | None = None
    told: str = ""

    def begin(self, moment: float) -> None:
        """Take the step as begun, whatever an earlier attempt left here."""
        self.status, self.began, self.note = "running", moment, ""
        self.done_bytes, self.expected_bytes, self.rate = 0, 0, 0.0
        self.counted, self.told = None, ""

    def progress(self, event: Event) -> None:
        """Take in how far the step is."""
        self.done_bytes = int(read_number(event, "bytes"))
        self.expected_bytes = int(read_number(event, "expected_bytes"))
        self.rate = read_number(event, "bytes_per_second")
        self.counted, self.told = None, _describe_left(event)
        for what in COUNTED:
            expected = int(read_number(event, f"expected_{what}"))
            if expected > 0:
                self.counted = (int(read_number(event, what)), expected, what)

    def end(self, status: str, moment: float, seconds: float | None) -> None:
        """Take the step as ended."""
        self.status = status
        self.seconds = max(0.0, moment - self.began) if seconds is None else seconds

    def describe_progress(self) -> str:
        """Return what is known of how far the step is: bytes, rate, time left, what it counts."""
        words = []
        if self.done_bytes:
            words.append(format_bytes(self.done_bytes))
            if self.expected_bytes:
                words.append(f"of {format_bytes(self.expected_bytes)}")
            if self.rate > 0:
                words.append(f"{format_bytes(self.rate)}/s")
                left = count_seconds_left(self.done_bytes, self.expected_bytes, self.rate)
                if left is not None:
                    words.append(f"{format_seconds(left)} left")
        if self.counted:
            done, expected, what = self.counted
            words.append(f"{done} of {expected} {what}")
        return " ".join([*words, self.told]).strip()

    def measure(self) -> tuple[int, int]:
        """Return how much is done and how much there is to do, for a bar; of 0 if not known."""
        done, expected = (
            self.counted[:2] if self.counted else (self.done_bytes, self.expected_bytes)
        )
        return min(done, expected), expected


class RunView:
    """The steps of a run as its events tell them. Fed and drawn by different threads.

    Args:
        steps: The steps to show, in order; others that turn up are added at the end.
    """

    def __init__(self, steps: Iterable[StepView]) -> None:
        self.steps = [dataclasses.replace(step) for step in steps]
        self.notices: list[str] = []
        self.guard = threading.RLock()

    def feed(self, event: Event) -> StepView | None:
        """Take one event in; return the step that it is about, if any."""
        with self.guard:
            kind = str(event.get("event", ""))
            if kind == "notice":
                self.notices.append(read_notice(event))
            name = str(event.get("step", ""))
            if not name:
                return None
            step = self.find(name, str(event.get("flow") or "run"))
            self._feed_step(kind, step, event)
            return step

    def find(self, name: str, flow: str = "run") -> StepView:
        """Return the line of a step, a new one if the playbook does not name it."""
        for step in self.steps:
            if (step.name, step.flow) == (name, flow):
                return step
        self.steps.append(StepView(name, flow))
        return self.steps[-1]

    def _feed_step(self, kind: str, step: StepView, event: Event) -> None:
        moment = read_moment(event)
        if kind == "step.began":
            step.begin(moment)
        elif kind == "step.unchanged":
            step.note = "unchanged"
        elif kind == "step.retried":
            step.note = "tried again"
        elif kind == "step.went_back":
            self._go_back(step, str(event.get("back_to", "")))
        elif kind in _ENDINGS:
            seconds = read_number(event, "seconds") if "seconds" in event else None
            step.end(_ENDINGS[kind], moment, seconds)
        elif kind == "job.progress":
            step.progress(event)

    def _go_back(self, step: StepView, back_to: str) -> None:
        step.status = "pending"
        step.note = f"went back to {back_to}" if back_to else "went back"
        flow = [other for other in self.steps if other.flow == step.flow]
        names = [other.name for other in flow]
        if back_to in names:
            for other in flow[names.index(back_to) : names.index(step.name)]:
                other.status, other.note = "pending", "again"


class SupportsWrite(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> int:
        """Write a text."""

    def flush(self) -> None:
        """Let it be seen."""


class View(Protocol):
    """Something that shows the events of a run."""

    def feed(self, event: Event) -> None:
        """Take one event in."""

    def open(self) -> None:
        """Begin to show."""

    def close(self) -> None:
        """Show the last state and leave the terminal as it was."""


class SilentView:
    """Shows nothing: with ``--json`` there is no talk."""

    def feed(self, event: Event) -> None:
        """Take one event in."""

    def open(self) -> None:
        """Begin to show nothing."""

    def close(self) -> None:
        """End."""


class EventView:
    """Every event as a line: ``--verbose``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._listen: Callable[[Any], None] | None = None

    def feed(self, event: Event) -> None:
        """Take one event in."""
        if self._listen is not None:
            _shielded(self._listen, event)

    def open(self) -> None:
        """Begin to show."""
        from orchestrator.log import print_listener  # noqa: PLC0415 - structlog costs start-up

        self._listen = print_listener(self._stream)

    def close(self) -> None:
        """End; what was written stays."""


class LineView:
    """Plain lines, one when a step begins, some while it moves bytes, one when it ends.

    Args:
        steps: The steps to show, in order.
        stream: Where to write.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        steps: Iterable[StepView],
        stream: SupportsWrite,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = RunView(steps)
        self._stream = stream
        self._clock = clock
        self._told: dict[str, float] = {}

    def open(self) -> None:
        """Begin to show."""

    def close(self) -> None:
        """End; what was written stays."""

    def feed(self, event: Event) -> None:
        """Take one event in."""
        with self._run.guard:
            step = self._run.feed(event)
            text = self._describe(event, step)
            if text:
                _shielded(self._write, text)

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def _describe(self, event: Event, step: StepView | None) -> str:
        kind = str(event.get("event", ""))
        if kind == "notice":
            return f"note: {read_notice(event)}"
        if step is None:
            return ""
        said = self._say(kind, step)
        width = len(str(len(self._run.steps)))
        place = f"[{self._run.steps.index(step) + 1:{width}}/{len(self._run.steps)}]"
        return f"{place} {step.name} {said}" if said else ""

    def _say(self, kind: str, step: StepView) -> str:
        if kind == "job.progress":
            return self._say_progress(step)
        if kind == "step.began":
            self._told.pop(step.name, None)
        note = f" ({step.note})" if step.note else ""
        return {
            "step.began": "…",
            "step.ended": f"done {format_seconds(step.seconds)}{note}",
            "step.failed": f"failed after {format_seconds(step.seconds)}",
            "step.retried": step.note,
            "step.went_back": step.note,
        }.get(kind, "")

    def _say_progress(self, step: StepView) -> str:
        now = self._clock()
        progress = step.describe_progress()
        if not progress or now - self._told.get(step.name, -math.inf) < PROGRESS_SECONDS:
            return ""
        self._told[step.name] = now
        return f"… {progress}"


class LiveView:
    """One line a step, redrawn in place: the running one with progress, rate and time left.

    Args:
        steps: The steps to show, in order.
        console: Where to draw; rich's, on stderr.
    """

    def __init__(self, steps: Iterable[StepView], console: Console) -> None:
        self._run = RunView(steps)
        self._console = console
        self._live: Live | None = None
        self._is_last = False

    def open(self) -> None:
        """Begin to show."""
        self._live = start_live(self, self._console)

    def close(self) -> None:
        """Draw the last state and leave the terminal as it was."""
        if self._live is not None:
            self._is_last = True
            stop_live(self._live)
            self._live = None

    def feed(self, event: Event) -> None:
        """Take one event in; the next refresh draws it."""
        self._run.feed(event)

    def __rich__(self) -> RenderableType:
        """Draw the steps; while it goes on, as many as the terminal is high."""
        from rich.table import Table  # noqa: PLC0415 - rich costs start-up time
        from rich.text import Text  # noqa: PLC0415 - rich costs start-up time

        with self._run.guard:
            steps, notices = list(self._run.steps), self._run.notices[-3:]
            room = max(3, self._console.size.height - 2 - len(notices))
            steps, hidden = (steps, 0) if self._is_last else _choose(steps, room)
            table = Table.grid(padding=(0, 1))
            for _column in range(3):
                table.add_column(no_wrap=True)
            if hidden:
                table.add_row("✓", Text(f"{hidden} steps done", style="dim"), "")
            for step in steps:
                table.add_row(*draw_step(step))
            for notice in notices:
                table.add_row(Text("!", style="yellow"), Text("note"), Text(notice))
        return table


def start_live(drawn: RenderableType, console: Console) -> Live:
    """Begin to draw something again and again in its place."""
    from rich.live import Live  # noqa: PLC0415 - rich costs start-up time

    live = Live(
        drawn,
        console=console,
        refresh_per_second=_FRAMES_PER_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    _shielded(live.start)
    return live


def stop_live(live: Live) -> None:
    """Draw the last state and leave the terminal as it was."""
    _shielded(live.stop)


def _choose(steps: Sequence[StepView], room: int) -> tuple[list[StepView], int]:
    """Return the steps that fit, and how many at the top were left out."""
    if len(steps) <= room:
        return list(steps), 0
    first_open = next((i for i, step in enumerate(steps) if step.status != "succeeded"), len(steps))
    hidden = min(first_open, len(steps) - room + 1)
    return list(steps[hidden : hidden + room - 1]), hidden


def draw_step(step: StepView) -> tuple[RenderableType, ...]:
    """Return the cells of a step: its mark, its name, and how far it is."""
    from rich.progress_bar import ProgressBar  # noqa: PLC0415 - rich costs start-up time
    from rich.table import Table  # noqa: PLC0415 - rich costs start-up time
    from rich.text import Text  # noqa: PLC0415 - rich costs start-up time

    if step.status == "running":
        elapsed = max(0.0, time.time() - step.began)
        frame = _FRAMES[int(time.time() * _FRAMES_PER_SECOND) % len(_FRAMES)]
        words = " ".join(filter(None, (step.describe_progress(), step.note)))
        line = Table.grid(padding=(0, 1))
        cells: list[RenderableType] = [Text(format_seconds(elapsed), no_wrap=True)]
        done, expected = step.measure()
        if expected:
            cells.append(ProgressBar(expected, done, width=_BAR_WIDTH))
        line.add_row(*cells, Text(words, style="cyan", no_wrap=True))
        return Text(frame, style="cyan"), Text(step.name, style="bold"), line
    if step.status == "pending":
        return Text("·", style="dim"), Text(step.name, style="dim"), Text(step.note, style="dim")
    is_good = step.status == "succeeded"
    words = " ".join(filter(None, (format_seconds(step.seconds), step.note)))
    mark = Text("✓", style="green") if is_good else Text("✗", style="bold red")
    return mark, Text(step.name), Text(words, style="dim" if is_good else "red")


def read_moment(event: Event) -> float:
    """Return when an event happened, as seconds since the epoch; now if it does not say."""
    try:
        return dt.datetime.fromisoformat(str(event["timestamp"])).timestamp()
    except (KeyError, ValueError, OverflowError, OSError):
        return time.time()


def read_number(event: Event, name: str) -> float:
    """Return a number of an event; 0 if it has none of that name that could be shown."""
    found = event.get(name)
    is_number = isinstance(found, int | float) and abs(found) < _LARGEST
    return float(found) if is_number and found is not None else 0.0


def count_seconds_left(done: float, expected: float, rate: float) -> float | None:
    """Return how long the rest takes at this rate; None where that is not known.

    The first hundredth, in which a tool is still starting, tells nothing of the rest.
    """
    is_known = rate > 0 and done >= LEAST_SHARE * expected and expected > done
    return (expected - done) / rate if is_known else None


def describe_progress_event(event: Event) -> dict[str, Any]:
    """Return a progress event for a reader by machine: what it says, and the time left."""
    left = count_seconds_left(
        read_number(event, "bytes"),
        read_number(event, "expected_bytes"),
        read_number(event, "bytes_per_second"),
    )
    said = {key: value for key, value in event.items() if key not in _FRAME}
    return {
        "step": event.get("step", ""),
        "host": event.get("host", ""),
        "at": event.get("timestamp", ""),
        **said,
        "seconds_left": None if left is None else round(left, 1),
    }


def _describe_left(event: Event) -> str:
    """Return what an event says of the rest where it does not say of how much."""
    left = [(name, read_number(event, name)) for name in LEFT if name in event]
    return ", ".join(
        f"{number:.0f} pages to recover"
        if name == "pages_left"
        else f"{format_seconds(number)} behind"
        for name, number in left
    )


def read_notice(event: Event) -> str:
    """Return what a notice says."""
    for key in ("message", "text", "about"):
        if event.get(key):
            return str(event[key])
    return " ".join(f"{key}={value}" for key, value in event.items() if key not in _FRAME)


def has_live_terminal(stream: TextIO) -> bool:
    """Tell whether the stream is a terminal that can be redrawn."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")


def choose_view(steps: Iterable[StepView], *, as_json: bool, verbose: bool) -> View:
    """Return the view that fits stderr and the options."""
    if verbose:
        return EventView(sys.stderr)
    if as_json:
        return SilentView()
    if has_live_terminal(sys.stderr):
        from rich.console import Console  # noqa: PLC0415 - rich costs start-up time

        return LiveView(steps, Console(stderr=True))
    return LineView(steps, sys.stderr)


def _shielded(show: Callable[..., None], *arguments: Any) -> None:
    """Show something; a closed pipe or terminal must not end the run."""
    try:
        show(*arguments)
    except (OSError, ValueError):
        return
