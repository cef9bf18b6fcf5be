"""The benchmark's command line: ``python -m benchmark``."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from lab import setup
from lab.errors import LabError
from lab.flavors import FLAVORS
from rich.console import Console

from benchmark import engine, figures, machine, registry, report, schedule, start_up
from benchmark.errors import WayFailedError
from benchmark.results import STEP, Results, Sample
from benchmark.stand import Stand
from benchmark.ways import limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.model import Lab

    from benchmark.registry import Way

OTHERS = {
    start_up.NAME: "start-up of `xbvault`",
    engine.NAME: "the engine, steps that do nothing",
}
"""What is measured beside the ways."""
_WIDTH = 150


@click.command()
@click.option("--size", type=click.FloatRange(0.01, 1000), default=2.0, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--flavor", type=click.Choice(list(FLAVORS)), default="mariadb", show_default=True)
@click.option(
    "--way",
    "names",
    type=click.Choice(registry.list_names()),
    multiple=True,
    help="Only this one; may be repeated.",
)
@click.option("--writer", is_flag=True, help="Write to the donor all the while.")
@click.option(
    "--cold/--no-cold",
    default=None,
    help="Measure some with the page cache dropped as well; by default unless a way is named.",
)
@click.option(
    "--slow-rounds",
    type=click.IntRange(0, 100),
    default=1,
    show_default=True,
    help="Rounds of what takes long: the logical peers, three recipients, a dropped page cache.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path(".bench"), show_default=True)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=Path(".lab-bench"),
    show_default=True,
    help="Folder of the laboratory.",
)
def main(
    *,
    size: float,
    rounds: int,
    flavor: str,
    names: tuple[str, ...],
    slow_rounds: int,
    out: Path,
    directory: Path,
    writer: bool,
    cold: bool | None,
) -> None:
    """Measure the product and its peers, round by round, in one laboratory."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    chosen = registry.choose_ways(flavor, names, cold=cold)
    if not chosen:
        raise click.UsageError(f"{flavor} has none of these ways")
    began, load = time.monotonic(), machine.read_load()
    say(f"a laboratory of {size:g} GB with {flavor} comes up")
    with (
        told_failures(),
        laboratory(
            directory,
            flavor=flavor,
            replicas=max(way.recipients for way in chosen),
            stores=int(any(way.needs_store for way in chosen)),
            size=size,
            writer=writer,
        ) as lab,
    ):
        stand = Stand(lab)
        stand.make_ready()
        stand.reset()
        limits.keep_stream(stand)
        described = machine.describe(stand)
        samples = measure_rounds(stand, chosen, rounds=rounds, slow_rounds=slow_rounds)
        samples += measure_other(start_up.NAME, lambda: start_up.measure(stand))
    with tempfile.TemporaryDirectory() as folder:
        samples += measure_other(engine.NAME, lambda: engine.measure(Path(folder)))
    results = Results(samples=tuple(samples))
    found = report.Report(
        machine=described,
        settings={
            "flavor": flavor,
            "size": f"{size:g} GB, a stream of {stand.stream_bytes / 1e9:.2f} GB",
            "rounds": describe_rounds(chosen, rounds=rounds, slow_rounds=slow_rounds),
            "writer": "writing all the while" if writer else "none",
            "load": f"{load} before, {machine.read_load()} after",
            "minutes in all": f"{(time.monotonic() - began) / 60:.1f}",
        },
        labels={**{way.name: way.label for way in chosen}, **OTHERS},
        results=results,
        judgements=figures.judge(results),
    )
    publish(found, out, f"{flavor}-{size:g}")
    if results.list_failures():
        sys.exit(1)


@contextlib.contextmanager
def laboratory(
    directory: Path, *, flavor: str, replicas: int, stores: int, size: float, writer: bool
) -> Iterator[Lab]:
    """Bring a laboratory up, and take it down whatever happens.

    One that a benchmark has left which was killed goes down first.
    """
    setup.take_down(directory)
    try:
        yield setup.bring_up(
            "auto",
            directory,
            flavor=flavor,
            replicas=replicas,
            stores=stores,
            size=size,
            writer=writer,
            replica_server=False,
        )
    finally:
        say("the laboratory goes down")
        setup.take_down(directory)


@contextlib.contextmanager
def told_failures() -> Iterator[None]:
    """Tell in words what keeps the laboratory from being measured in."""
    try:
        yield
    except (LabError, WayFailedError) as error:
        raise click.ClickException(error.message) from error


def measure_rounds(
    stand: Stand, chosen: list[Way], *, rounds: int, slow_rounds: int
) -> list[Sample]:
    """Measure every way in every round that is its, each from the same start."""
    samples = []
    for number in range(1, rounds + 1):
        stand.round = number
        for way in schedule.order_round(
            chosen, number, is_slow=lambda way: way.is_slow, slow_rounds=slow_rounds
        ):
            sample = measure_way(stand, way)
            samples.append(sample)
            shown = ", ".join(
                f"{name} {report.format_number(value)}"
                for name, value in sample.values.items()
                if not name.startswith(STEP)
            )
            say(f"round {number} of {rounds}: {way.name}: {sample.failure or shown}")
    return samples


def describe_rounds(chosen: list[Way], *, rounds: int, slow_rounds: int) -> str:
    """Return how often was measured, for the reader."""
    fewer = slow_rounds < rounds and any(way.is_slow for way in chosen)
    return f"{rounds}, {slow_rounds} of what takes long" if fewer else str(rounds)


def measure_way(stand: Stand, way: Way) -> Sample:
    """Measure a way; if it does not work, keep the words of what went wrong."""
    stand.is_cold = way.is_cold
    try:
        stand.reset()
        outcome = way.measure(stand)
    except Exception as error:  # noqa: BLE001 - the other ways go on, whatever it was
        return Sample(way=way.name, round=stand.round, failure=f"{type(error).__name__}: {error}")
    return Sample(way=way.name, round=stand.round, values=outcome.values, note=outcome.note)


def measure_other(name: str, measure: Callable[[], list[Sample]]) -> list[Sample]:
    """Measure what is not a way; if it does not work, keep the words of what went wrong."""
    say(f"{name}: {OTHERS[name]}")
    try:
        return measure()
    except Exception as error:  # noqa: BLE001 - what was measured before is not lost by it
        return [Sample(way=name, round=1, failure=f"{type(error).__name__}: {error}")]


def publish(found: report.Report, out: Path, name: str) -> None:
    """Print the tables, and write them as Markdown and JSON into a folder."""
    sheets = report.make_sheets(found)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    for sheet in sheets:
        console.print(report.make_table(sheet))
    out.mkdir(parents=True, exist_ok=True)
    document = json.dumps(report.make_document(found), indent=2, ensure_ascii=False)
    (out / f"{name}.json").write_text(document + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(report.format_markdown(sheets), encoding="utf-8")
    console.print(f"written to {out}/{name}.md and {out}/{name}.json")


def say(text: str) -> None:
    """Tell how far it is."""
    click.echo(f"== {text}", err=True)
