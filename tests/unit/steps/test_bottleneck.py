"""What limited a stream, judged from figures."""

from __future__ import annotations

import dataclasses

import pytest
from cli_lab import make_plan

from orchestrator import jobs, models, summary
from orchestrator.durable import StepRecord
from orchestrator.steps import bottleneck, stream_ends

GIB = 1 << 30


def make_connection(*, busy: float = 0.0, receiver: float = 0.0) -> jobs.Connection:
    """Return the account of a connection over ten seconds, in shares of them."""
    return jobs.Connection(
        seconds=10.0, busy_seconds=10 * busy, receiver_seconds=10 * receiver, buffer_seconds=0.0
    )


def make_figures(**changes: object) -> bottleneck.Figures:
    """Return the figures of ten seconds in which nothing was at its limit."""
    figures = bottleneck.Figures(
        bytes=GIB,
        seconds=10.0,
        cpu_seconds={"read": 3.0, "encrypt": 4.0, "write": 2.0},
        programs={"read": "mariadb-backup", "encrypt": "ssh", "write": "mbstream"},
        threads=4,
        looks=20,
        held_up=18,
        connection=make_connection(busy=0.3),
    )
    return dataclasses.replace(figures, **changes)  # type: ignore[arg-type]  # any field


def with_cpu(**seconds: float) -> dict[str, float]:
    """Return processor times, those of the ordinary figures but for these."""
    return {**make_figures().cpu_seconds, **seconds}


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({"held_up": 2}, "read", "mariadb-backup used 30% of a core"),
        ({"held_up": 2}, "read", "at 2 of 20 looks"),
        ({"held_up": 2, "cpu_seconds": with_cpu(encrypt=9.7)}, "read", "30%"),
        ({"cpu_seconds": with_cpu(encrypt=9.7)}, "encrypt", "ssh used 97% of a core"),
        ({"cpu_seconds": with_cpu(encrypt=9.0, write=9.9)}, "write", "mbstream used 99%"),
        ({"cpu_seconds": with_cpu(compress=9.5)}, "compress", "compress used 95% of a core"),
        ({"cpu_seconds": with_cpu(read=36)}, "write", "idle for 70%"),
        ({"connection": make_connection(busy=0.99)}, "wire", "busy for 99%"),
        ({"connection": make_connection(busy=0.99, receiver=0.6)}, "write", "no more for 60%"),
        ({"connection": make_connection(busy=0.1)}, "write", "at 18 of 20 looks"),
        ({"connection": make_connection(busy=0.1)}, "write", "idle for 90%"),
        ({"connection": None}, "", "`ss` told nothing"),
        ({"connection": None, "cpu_seconds": with_cpu(encrypt=9.7)}, "encrypt", "97%"),
        ({"looks": 2, "held_up": 0}, "", "busy for 30%"),
        ({"looks": 0, "held_up": 0, "cpu_seconds": with_cpu(read=36)}, "read", "360%"),
        ({"looks": 0, "held_up": 0, "cpu_seconds": with_cpu(read=9)}, "", "busy"),
        ({"looks": 0, "held_up": 0, "connection": make_connection(busy=0.9)}, "wire", "90%"),
        ({"allowed_rate": GIB / 10.0}, "throttle", "100% of the rate"),
        ({"allowed_rate": GIB / 2.0, "held_up": 1}, "read", "at 1 of 20"),
    ],
)
def test_a_verdict_follows_from_the_figures(
    changes: dict[str, object], verdict: str, words: str
) -> None:
    """Looks, processor time and the connection's account decide, in this order."""
    found = bottleneck.judge_stream(make_figures(**changes))
    assert (found.bottleneck, words in found.evidence) == (verdict, True), found


@pytest.mark.parametrize(
    "changes",
    [{"cpu_seconds": {}}, {"bytes": 0}, {"seconds": 0.0}, {"cpu_seconds": {}, "looks": 0}],
)
def test_without_figures_nothing_is_said(changes: dict[str, object]) -> None:
    """A job of an older version, or one that moved nothing, gets no verdict."""
    found = bottleneck.judge_stream(make_figures(**changes))
    assert found == bottleneck.Verdict(bottleneck="", evidence="")


def make_state(**changes: object) -> jobs.JobState:
    """Return a job that ended well."""
    state = jobs.JobState(
        exists=True,
        running=False,
        statuses=(0,),
        bytes=GIB,
        stderr="",
        ended=True,
        seconds=10.0,
        died=False,
    )
    return dataclasses.replace(state, **changes)  # type: ignore[arg-type]  # any field


def test_the_result_of_the_step_is_what_a_document_tells() -> None:
    """The figures of both ends stand in the journal, and come out of it as `transfer`."""
    sent = make_state(
        cpu_seconds={"read": 3.0, "encrypt": 9.7},
        looks=20,
        held_up=18,
        connection=make_connection(busy=0.5),
    )
    received = make_state(cpu_seconds={"write": 2.0})
    result = models.as_json(
        stream_ends.describe_stream(
            make_plan(), stream_ends.Ends(read=sent, sent=sent, received=received)
        )
    )
    record = StepRecord(index=0, name="stream-backup", status="succeeded", result=result)
    assert summary.read_transfer([record]) == {
        "bytes": GIB,
        "seconds": 10.0,
        "bytes_per_second": round(GIB / 10),
        "bottleneck": "encrypt",
        "evidence": "ssh used 97% of a core",
        "cpu_seconds": {"read": 3.0, "encrypt": 9.7, "write": 2.0},
        "held_up_share": 0.9,
        "connection": {
            "seconds": 10.0,
            "busy_seconds": 5.0,
            "receiver_seconds": 0.0,
            "buffer_seconds": 0.0,
        },
    }


def test_jobs_of_an_older_version_have_a_result_all_the_same() -> None:
    """A stream that an earlier version began is told by bytes and seconds."""
    state = make_state()
    ends = stream_ends.Ends(read=state, sent=state, received=make_state())
    found = stream_ends.describe_stream(make_plan(), ends)
    assert found == stream_ends.Stream(bytes=GIB, seconds=10.0)
