from __future__ import annotations

import io
from typing import Any

import pytest
from cli_lab import FakeBackend, make_record
from rich.console import Console

from orchestrator.cli import follow, output, view
from orchestrator.cli.call import Call
from orchestrator.cli.view import LineView, LiveView, RunView, StepView

AT = "2026-11-21T21:05:{:02d}.000000Z"


def event(kind: str, step: str = "", second: int = 0, **more: Any) -> dict[str, Any]:
    """Return an event as the log hands it out."""
    return {"event": kind, "step": step, "timestamp": AT.format(second), "flow": "run", **more}


def make_steps(*names: str) -> list[StepView]:
    """Return pending lines."""
    return [StepView(name) for name in names]


def draw(shown: LiveView) -> str:
    """Return what a live view shows, as text."""
    console = Console(file=io.StringIO(), width=100, height=40)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def make_live(*names: str, height: int = 40) -> LiveView:
    """Return a live view on a terminal of that height."""
    return LiveView(make_steps(*names), Console(file=io.StringIO(), width=100, height=height))


def test_time_of_a_step_is_its_own_or_from_the_events() -> None:
    """`seconds` of the event counts; without it the two moments do."""
    run = RunView(make_steps("a", "b"))
    run.feed(event("step.began", "a", 1))
    run.feed(event("step.ended", "a", 9, seconds=4.2))
    run.feed(event("step.began", "b", 10))
    run.feed(event("step.failed", "b", 13))
    assert [(s.status, s.seconds) for s in run.steps] == [("succeeded", 4.2), ("failed", 3.0)]


def test_a_run_that_goes_back_shows_its_steps_as_pending_again() -> None:
    """From the step it goes back to up to the one that sent it back."""
    run = RunView(make_steps("a", "b", "c"))
    for name in ("a", "b"):
        run.feed(event("step.began", name))
        run.feed(event("step.ended", name, seconds=1.0))
    run.feed(event("step.began", "c"))
    run.feed(event("step.went_back", "c", back_to="b"))
    assert [s.status for s in run.steps] == ["succeeded", "pending", "pending"]
    assert run.steps[2].note == "went back to b"


def test_a_step_of_the_clean_up_is_another_line_than_that_of_the_run() -> None:
    """Both may have a step of the same name."""
    run = RunView([StepView("a"), StepView("a", "cleanup")])
    run.feed(event("step.began", "a"))
    run.feed({**event("step.began", "a"), "flow": "cleanup"})
    run.feed({**event("step.ended", "a", seconds=2.0), "flow": "cleanup"})
    assert [(s.flow, s.status) for s in run.steps] == [("run", "running"), ("cleanup", "succeeded")]


def test_an_unknown_step_gets_a_line() -> None:
    """Nothing that happens is left out."""
    run = RunView(make_steps("a"))
    run.feed(event("step.began", "surprise"))
    assert [s.name for s in run.steps] == ["a", "surprise"]


def test_progress_has_bytes_rate_and_time_left() -> None:
    """With an expected size the time left is told."""
    step = StepView("a", done_bytes=1 << 30, expected_bytes=3 << 30, rate=float(128 << 20))
    assert step.describe_progress() == "1.0 GiB of 3.0 GiB 128 MiB/s 16.0 s left"
    assert StepView("a", done_bytes=1 << 20).describe_progress() == "1 MiB"
    begun = StepView("a", done_bytes=132, expected_bytes=1 << 20, rate=51.0)
    assert begun.describe_progress() == "132 B of 1 MiB 51 B/s"
    assert StepView("a").describe_progress() == ""


def test_progress_is_told_of_what_a_step_counts() -> None:
    """Tablespaces, tables, pages and seconds are told where a step knows them, and no time left."""
    run = RunView(make_steps("a"))
    said = []
    for more in (
        {"tablespaces": 12, "expected_tablespaces": 40},
        {"tables": 0, "expected_tables": 7},
        {"bytes": 0, "expected_bytes": 0, "bytes_per_second": 0, "pages_left": 660},
        {"bytes": 0, "expected_bytes": 0, "bytes_per_second": 0},
        {"seconds_behind": 65},
    ):
        step = run.feed(event("job.progress", "a", **more))
        assert step is not None
        said.append((step.describe_progress(), step.measure()))
    assert said == [
        ("12 of 40 tablespaces", (12, 40)),
        ("0 of 7 tables", (0, 7)),
        ("660 pages to recover", (0, 0)),
        ("", (0, 0)),
        ("1:05 behind", (0, 0)),
    ]


@pytest.mark.parametrize(
    ("limit", "evidence", "line"),
    [
        ("encrypt", "ssh used 97% of a core", "; limited by encrypt (ssh used 97% of a core)"),
        ("", "no `ss`", "; what limited it is not known (no `ss`)"),
        ("", "", ""),
    ],
)
def test_a_transfer_is_one_line(limit: str, evidence: str, line: str) -> None:
    """Bytes, seconds, rate, and what limited it as far as it is known."""
    transfer = {"bytes": 2373007216, "seconds": 4.1, "bytes_per_second": 578782247}
    told = output.format_transfer({**transfer, "bottleneck": limit, "evidence": evidence})
    assert told == f"transfer: 2.2 GiB in 4.1 s, 552 MiB/s{line}"


def test_lines_tell_of_progress_now_and_then() -> None:
    """A job that reports each second does not fill the log."""
    now = [0.0]
    stream = io.StringIO()
    lines = LineView(make_steps("a"), stream, clock=lambda: now[0])
    lines.feed(event("step.began", "a"))
    for second in range(11):
        now[0] = float(second)
        lines.feed(event("job.progress", "a", bytes=1 << 20, bytes_per_second=0))
        lines.feed(event("lock.taken", "a"))
    assert stream.getvalue().splitlines() == ["[1/1] a …", *["[1/1] a … 1 MiB"] * 3]


@pytest.mark.parametrize(
    ("last", "line"),
    [
        (event("step.failed", "b", 3), "[2/2] b failed after 3.0 s"),
        (event("step.retried", "b"), "[2/2] b tried again"),
        (event("step.went_back", "b", back_to="a"), "[2/2] b went back to a"),
        (event("notice", "b", about="the donor rests"), "note: the donor rests"),
    ],
)
def test_lines_tell_what_went_otherwise(last: dict[str, Any], line: str) -> None:
    """Failures, further attempts, returns and notices are lines."""
    stream = io.StringIO()
    lines = LineView(make_steps("a", "b"), stream)
    lines.feed(event("step.began", "b"))
    lines.feed(last)
    assert stream.getvalue().splitlines()[-1] == line


def test_an_unchanged_step_says_so() -> None:
    """A step that found its work done is told apart."""
    stream = io.StringIO()
    lines = LineView(make_steps("a"), stream)
    for found in (
        event("step.began", "a"),
        event("step.unchanged", "a"),
        event("step.ended", "a", seconds=0.1),
    ):
        lines.feed(found)
    assert stream.getvalue().splitlines()[-1] == "[1/1] a done 0.1 s (unchanged)"


def test_a_closed_pipe_does_not_end_the_run() -> None:
    """Showing may fail; what is shown goes on."""
    stream = io.StringIO()
    lines = LineView(make_steps("a"), stream)
    stream.close()
    lines.feed(event("step.began", "a"))
    events = view.EventView(stream)
    events.open()
    events.feed(event("step.began", "a"))


def test_live_view_draws_done_running_and_pending() -> None:
    """✓ with seconds, the running one with its progress, the rest as pending."""
    live = make_live("a", "b", "c")
    live.feed(event("step.began", "a"))
    live.feed(event("step.ended", "a", seconds=4.2))
    live.feed(event("step.began", "b"))
    live.feed(event("job.progress", "b", bytes=1 << 20, expected_bytes=4 << 20, bytes_per_second=0))
    first, second, third = draw(live).splitlines()
    assert first.split() == ["✓", "a", "4.2", "s"]
    assert second.split()[1] == "b"
    assert "1 MiB of 4 MiB" in second
    assert "━" in second
    live.feed(event("job.progress", "b", tablespaces=12, expected_tablespaces=40))
    assert "12 of 40 tablespaces" in draw(live)
    assert "━" in draw(live)
    assert third.split() == ["·", "c"]


def test_live_view_keeps_the_running_step_on_a_low_terminal() -> None:
    """Steps that ended are counted in one line when there is no room for all."""
    names = [f"s{n:02d}" for n in range(30)]
    live = make_live(*names, height=10)
    for name in names[:20]:
        live.feed(event("step.began", name))
        live.feed(event("step.ended", name, seconds=1.0))
    live.feed(event("step.began", "s20"))
    drawn = draw(live)
    assert len(drawn.splitlines()) <= 8
    assert "20 steps done" in drawn
    assert "s20" in drawn


def test_live_view_leaves_all_steps_when_it_ends() -> None:
    """The last picture is whole, and the terminal gets its cursor back."""
    stream = io.StringIO()
    console = Console(file=stream, width=80, height=6, force_terminal=True)
    live = LiveView(make_steps(*"abcdefghij"), console)
    live.open()
    for name in "abcdefghij":
        live.feed(event("step.began", name))
        live.feed(event("step.ended", name, seconds=1.0))
    live.close()
    assert all(f" {name} " in stream.getvalue() for name in "abcdefghij")
    assert stream.getvalue().rstrip("\n").endswith("\x1b[?25h")


def test_view_fits_terminal_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that can be redrawn gets the live view, a dumb one plain lines."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]  # a stand-in
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(view.choose_view([], as_json=False, verbose=False), LiveView)
    assert isinstance(view.choose_view([], as_json=True, verbose=False), view.SilentView)
    assert isinstance(view.choose_view([], as_json=True, verbose=True), view.EventView)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(view.choose_view([], as_json=False, verbose=False), LineView)


def test_a_resumed_run_begins_with_what_is_done() -> None:
    """Steps of an earlier process are shown as done, for they send no events any more."""
    record = make_record(status="interrupted")
    steps = follow.list_done_steps(Call(backend=FakeBackend()), record)
    assert [(s.name, s.status) for s in steps][:1] == [("stream-backup", "succeeded")]
    assert steps[0].seconds == 4.2
    assert (steps[-1].name, steps[-1].flow) == ("remove-staging", "cleanup")


def test_a_run_of_another_version_is_shown_without_its_clean_up() -> None:
    """A playbook that this version cannot read does not keep a run from being watched."""
    record = make_record(playbook_text="unreadable")
    steps = follow.list_done_steps(Call(backend=FakeBackend()), record)
    assert {s.flow for s in steps} == {"run"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (4.23, "4.2 s"), (125, "2:05"), (3723, "1:02:03")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    """Seconds below a minute, then the clock's form."""
    assert output.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (123_731_968, "118 MiB"), (1 << 31, "2.0 GiB"), (3 << 40, "3.0 TiB")],
)
def test_sizes_are_readable(size: int, text: str) -> None:
    """Binary units, a decimal from GiB on."""
    assert output.format_bytes(size) == text
