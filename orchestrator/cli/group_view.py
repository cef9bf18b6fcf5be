"""What a person sees of several runs side by side: a line for each recipient, or plain lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol, TextIO

from orchestrator.cli import view

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console, RenderableType
    from rich.live import Live


class GroupView(Protocol):
    """Something that shows the events of several runs."""

    def feed(self, run: str, event: view.Event) -> None:
        """Take one event of a run in."""

    def open(self) -> None:
        """Begin to show."""

    def close(self) -> None:
        """Show the last state and leave the terminal as it was."""


class SeparateViews:
    """A view of its own for each run, such as lines that begin with the recipient.

    Args:
        views: Of each run.
    """

    def __init__(self, views: Mapping[str, view.View]) -> None:
        self._views = views

    def feed(self, run: str, event: view.Event) -> None:
        """Take one event of a run in."""
        self._views[run].feed(event)

    def open(self) -> None:
        """Begin to show."""
        for shown in self._views.values():
            shown.open()

    def close(self) -> None:
        """End; what was written stays."""
        for shown in self._views.values():
            shown.close()


class LiveGroupView:
    """One line a recipient, redrawn in place: its step, and how far that is.

    Args:
        recipients: Of each run.
        steps: The steps of each run.
        console: Where to draw; rich's, on stderr.
    """

    def __init__(
        self, recipients: Mapping[str, str], steps: Sequence[view.StepView], console: Console
    ) -> None:
        self._recipients = recipients
        self._runs = {run: view.RunView(steps) for run in recipients}
        self._console = console
        self._live: Live | None = None

    def open(self) -> None:
        """Begin to show."""
        self._live = view.start_live(self, self._console)

    def close(self) -> None:
        """Draw the last state and leave the terminal as it was."""
        if self._live is not None:
            view.stop_live(self._live)
            self._live = None

    def feed(self, run: str, event: view.Event) -> None:
        """Take one event in; the next refresh draws it."""
        self._runs[run].feed(event)

    def __rich__(self) -> RenderableType:
        """Draw a line for each recipient."""
        from rich.table import Table  # noqa: PLC0415 - rich costs start-up time
        from rich.text import Text  # noqa: PLC0415 - rich costs start-up time

        table = Table.grid(padding=(0, 1))
        for _column in range(5):
            table.add_column(no_wrap=True)
        for run, recipient in self._recipients.items():
            seen = self._runs[run]
            with seen.guard:
                steps = list(seen.steps)
                done = sum(step.status == "succeeded" for step in steps)
                at = next(
                    (step for step in steps if step.status in ("running", "failed")),
                    next((step for step in steps if step.status == "pending"), steps[-1]),
                )
                count = Text(f"{done}/{len(steps)}", style="dim")
                table.add_row(Text(recipient), count, *view.draw_step(at))
        return table


class PrefixedStream:
    """Writes each line with a word in front of it.

    Args:
        stream: Where to write.
        prefix: The word.
    """

    def __init__(self, stream: TextIO, prefix: str) -> None:
        self._stream = stream
        self._prefix = prefix

    def write(self, text: str) -> int:
        """Write a whole line."""
        return self._stream.write(f"{self._prefix}{text}")

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()


def choose_view(
    recipients: Mapping[str, str],
    steps: Sequence[view.StepView],
    *,
    as_json: bool,
    verbose: bool,
) -> GroupView:
    """Return the view that fits stderr and the options.

    Args:
        recipients: Of each run.
        steps: The steps of each run.
        as_json: No talk.
        verbose: Every event as a line.
    """
    if as_json or verbose:
        made = view.choose_view((), as_json=as_json, verbose=verbose)
        return SeparateViews(dict.fromkeys(recipients, made))
    if view.has_live_terminal(sys.stderr):
        from rich.console import Console  # noqa: PLC0415 - rich costs start-up time

        return LiveGroupView(recipients, steps, Console(stderr=True))
    width = max(map(len, recipients.values()))
    return SeparateViews(
        {
            run: view.LineView(steps, PrefixedStream(sys.stderr, f"{recipient.ljust(width)}  "))
            for run, recipient in recipients.items()
        }
    )
