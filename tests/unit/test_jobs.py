from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from local_remote import LocalRemote

from orchestrator import jobs, log
from orchestrator.errors import (
    CancelledError,
    CommandError,
    HostUnreachableError,
    PreconditionError,
)
from orchestrator.remote import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.models import Secret

RUNNING = "exists=1\nuptime=20.50\nbegun=10.00\nalive=1\nbytes=0000000042\nstderr\nworking\n"
ENDED = "exists=1\nuptime=99.00\nbegun=10.00\nalive=0\nbytes=7\nended=12.25 0 3   \nstderr\n"
DIED = "exists=1\nuptime=20.50\nbegun=10.00\nalive=0\nbytes=7\nstderr\nlast words\n"
NONE = "exists=0\n"


@dataclasses.dataclass
class Host(LocalRemote):
    """Answers each report with the next text, the last one for ever; remembers the verbs."""

    reports: list[str | Exception] = dataclasses.field(default_factory=list)
    verbs: list[str] = dataclasses.field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | Secret = b"",
        check: bool = True,
        timeout_seconds: float = 60.0,
    ) -> Result:
        """Answer."""
        verb = argv[3]
        self.verbs.append(verb)
        if verb == "stop":
            return Result(status=0, stdout=b"stopped\n")
        assert verb in ("report", "renew")
        report = self.reports.pop(0) if len(self.reports) > 1 else self.reports[0]
        if isinstance(report, Exception):
            raise report
        return Result(status=0, stdout=report.encode())


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """Every event that is logged."""
    log.configure()
    seen: list[dict[str, Any]] = []
    end = log.subscribe(lambda event: seen.append(dict(event)))
    yield seen
    end()


def make_spec(*stages: tuple[str, ...], **values: Any) -> jobs.JobSpec:
    """Return a job of these commands."""
    return jobs.JobSpec(
        **{
            "name": "run.step",
            "stages": tuple(jobs.Stage(argv=argv) for argv in stages or (("true",),)),
            **values,
        }
    )


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "-rf", "a/b", "a b", "a\n", "a;b", "$(id)", "é", "a" * 201, "a\0"],
)
def test_odd_names_are_refused(name: str) -> None:
    """A name that could be a path, an option or code never reaches a host."""
    with pytest.raises(ValueError, match="job name"):
        make_spec(name=name)
    host = Host(reports=[RUNNING])
    for function in (jobs.read_job, jobs.stop_job, jobs.remove_job):
        with pytest.raises(ValueError, match="job name"):
            function(host, name)
    assert host.verbs == []


@pytest.mark.parametrize(
    "values",
    [
        {"stages": ()},
        {"stages": (jobs.Stage(argv=("true",)),) * 17},
        {"count_after": 1},
        {"count_after": -4},
        {"fence": -1},
        {"lease_seconds": 0},
        {"directory": "relative"},
        {"stdin_file": "relative"},
        {"stdout_file": "/two\nlines"},
        {"count_after": 0, "throttle": -1},
        {"throttle": 1},
        {"niceness": -1},
        {"niceness": 20},
    ],
)
def test_wrong_specs_are_refused(values: dict[str, Any]) -> None:
    """A spec that the wrapper could not carry out cannot be made."""
    with pytest.raises(ValueError, match=r"job|count_after|fence|lease|niceness"):
        make_spec(**values)


@pytest.mark.parametrize("argv", [(), ("",), ("-c",), ("echo", "a\0b")])
def test_wrong_commands_are_refused(argv: tuple[str, ...]) -> None:
    """A stage is a program and words that a process can take."""
    with pytest.raises(ValueError, match="command"):
        jobs.Stage(argv=argv)


@pytest.mark.parametrize(
    ("count_after", "flow"),
    [
        (jobs.COUNT_NONE, "element 0 | element 1\n"),
        (jobs.COUNT_INPUT, "count | element 0 | element 1\n"),
        (0, "element 0 | count | element 1\n"),
        (1, "element 0 | element 1 | count\n"),
    ],
)
def test_the_counter_stands_where_it_is_asked_for(count_after: int, flow: str) -> None:
    """`count_after` places pv before the first stage, after a stage, or nowhere."""
    assert jobs._flow(make_spec(("a",), ("b",), count_after=count_after)) == flow


def test_words_are_quoted() -> None:
    """The stage script is the quoted words, whatever they hold."""
    argv = ("echo", "a'b", "$(id)", "x\ny", "`id`", "", "é", "*")
    assert shlex.split(jobs._stage(jobs.Stage(argv=argv))) == ["exec", *argv]


def test_a_running_job_is_read() -> None:
    """A job whose wrapper lives runs, has no statuses, and lasts until now."""
    state = jobs.read_job(Host(reports=[RUNNING]), "run.step")
    assert state == jobs.JobState(
        exists=True,
        running=True,
        statuses=(),
        bytes=42,
        stderr="working",
        ended=False,
        seconds=10.5,
        died=False,
    )
    assert not state.is_ok


def test_an_ended_job_is_read() -> None:
    """An ended job has a status for each stage, and lasted until its end."""
    state = jobs.read_job(Host(reports=[ENDED]), "run.step")
    assert (state.ended, state.running, state.died) == (True, False, False)
    assert (state.statuses, state.seconds, state.bytes) == ((0, 3), 2.25, 7)
    assert not state.is_ok
    assert jobs.read_job(Host(reports=[ENDED.replace(" 0 3", " 0 0")]), "run.step").is_ok


def test_an_end_that_was_lost_is_a_death() -> None:
    """A blank `ended`, as a power cut leaves it, is not taken for success."""
    for report in (DIED, ENDED.replace("12.25 0 3", "")):
        state = jobs.read_job(Host(reports=[report]), "run.step")
        assert (state.ended, state.running, state.died, state.is_ok) == (False, False, True, False)


def test_no_job_is_read() -> None:
    """A job that is not there is neither running nor dead."""
    state = jobs.read_job(Host(reports=[NONE]), "run.step")
    assert (state.exists, state.running, state.died, state.ended) == (False,) * 4


def test_a_secret_in_stderr_is_masked() -> None:
    """What a tool echoes of its Vault token is not handed on."""
    token = "hvs." + "x" * 30
    state = jobs.read_job(Host(reports=[DIED.replace("last words", token)]), "run.step")
    assert state.stderr == "***"


LOOKED = "looks=20 18 19.25 9000 4000 500   "


@pytest.mark.parametrize(
    ("line", "looks"),
    [
        (
            LOOKED,
            (
                20,
                18,
                jobs.Connection(
                    seconds=9.25, busy_seconds=9.0, receiver_seconds=4.0, buffer_seconds=0.5
                ),
            ),
        ),
        ("looks=3 0      ", (3, 0, None)),
        ("looks=      ", (0, 0, None)),
        ("looks=\0\0", (0, 0, None)),
        ("looks=1 1 9.5 7", (0, 0, None)),
        ("looks=1 1 nan 7 0 0", (0, 0, None)),
        ("", (0, 0, None)),
    ],
)
def test_what_held_a_stream_up_is_read(
    line: str, looks: tuple[int, int, jobs.Connection | None]
) -> None:
    """Looks and the connection's account are read; what is left of them after a cut is no error."""
    state = jobs.read_job(Host(reports=[ENDED.replace("bytes=", f"{line}\nbytes=")]), "run.step")
    assert (state.looks, state.held_up, state.connection) == looks
    assert state.statuses == (0, 3)


@pytest.mark.parametrize(
    ("line", "times"),
    [
        ("cpu= read:0m1.250000s:0m0.250000s -:1m0.00s:0m0.00s", {"read": 1.5}),
        ("cpu= read:1m2.500s:0m0.000s write:0m0.1s:0m0.1s", {"read": 62.5, "write": 0.2}),
        ("cpu= read:0m1.0s:0m0.0s read:0m2.0s:0m0.0s", {"read": 3.0}),
        ("cpu= read:1.2:0.1 write::", {}),
        ("cpu=", {}),
        ("", {}),
    ],
)
def test_processor_time_is_read(line: str, times: dict[str, float]) -> None:
    """User and system time of each role are summed; another form, or none, tells nothing."""
    state = jobs.read_job(Host(reports=[ENDED.replace("bytes=", f"{line}\nbytes=")]), "run.step")
    assert state.cpu_seconds == times


@pytest.mark.parametrize("role", ["Read", "a b", "x1", "-"])
def test_a_role_is_one_word(role: str) -> None:
    """It stands in the job's files between blanks."""
    with pytest.raises(ValueError, match="role"):
        jobs.Stage(argv=("true",), role=role)


def test_progress_tells_what_the_tool_says_of_itself(events: list[dict[str, Any]]) -> None:
    """What is read from the last lines of the stages stands beside the bytes."""
    host = Host(reports=[RUNNING, ENDED])
    jobs.wait_for_job(
        host, "run.step", deadline_seconds=9, read_progress=lambda words: {"words": len(words)}
    )
    assert (events[0]["words"], events[0]["bytes"]) == (len("working"), 42)


def test_waiting_ends_with_the_job(events: list[dict[str, Any]]) -> None:
    """The state at the end is returned, with events on the way and at the end."""
    host = Host(reports=[RUNNING, RUNNING, ENDED])
    state = jobs.wait_for_job(host, "run.step", deadline_seconds=9, expected_bytes=100)
    assert state.statuses == (0, 3)
    assert [event["event"] for event in events] == ["job.progress", "job.ended"]
    assert (events[0]["job"], events[0]["host"]) == ("run.step", "local")
    assert (events[0]["bytes"], events[0]["expected_bytes"]) == (42, 100)
    assert (events[1]["bytes"], events[1]["statuses"]) == (7, [0, 3])


def test_progress_is_told_at_most_twice_a_second(events: list[dict[str, Any]]) -> None:
    """Many polls make few events."""
    with pytest.raises(CommandError):
        jobs.wait_for_job(Host(reports=[RUNNING]), "run.step", deadline_seconds=1.2)
    told = [event for event in events if event["event"] == "job.progress"]
    assert 2 <= len(told) <= 3


def test_a_rate_is_told(events: list[dict[str, Any]]) -> None:
    """The rate comes from what was counted between polls."""
    reports: list[str | Exception] = [
        RUNNING.replace("0000000042", str(1000 * n)) for n in range(6)
    ]
    jobs.wait_for_job(Host(reports=[*reports, ENDED]), "run.step", deadline_seconds=9)
    assert events[0]["bytes_per_second"] == 0
    assert events[1]["bytes_per_second"] > 0


def test_a_stall_stops_the_job() -> None:
    """Bytes that do not grow end the job, and its last words are in the error."""
    host = Host(reports=[RUNNING])
    with pytest.raises(CommandError, match="stalled") as caught:
        jobs.wait_for_job(host, "run.step", deadline_seconds=9, stall_seconds=0.3)
    assert host.verbs[-1] == "stop"
    assert caught.value.stderr == "working"


def test_growth_is_no_stall() -> None:
    """A job that is slow, but moves, is left alone."""
    reports: list[str | Exception] = [RUNNING.replace("42", str(50 + n)) for n in range(6)]
    host = Host(reports=[*reports, ENDED])
    state = jobs.wait_for_job(host, "run.step", deadline_seconds=9, stall_seconds=0.6)
    assert state.ended
    assert "stop" not in host.verbs


def test_a_deadline_stops_the_job() -> None:
    """Nothing waits for ever."""
    host = Host(reports=[RUNNING])
    with pytest.raises(CommandError, match=r"within 0\.3 seconds"):
        jobs.wait_for_job(host, "run.step", deadline_seconds=0.3)
    assert host.verbs[-1] == "stop"


def test_a_dead_job_ends_the_wait_and_leaves_no_stage() -> None:
    """A wrapper that is gone says nothing about its stages, so they are stopped."""
    host = Host(reports=[RUNNING, DIED])
    state = jobs.wait_for_job(host, "run.step", deadline_seconds=9)
    assert host.verbs[-1] == "stop"
    assert (state.died, state.is_cut, state.is_ok, state.stderr) == (
        True,
        True,
        False,
        "last words",
    )


@pytest.mark.parametrize(
    ("line", "expired", "is_cut", "statuses"),
    [
        ("12.25 124 124 expired", True, True, (124, 124)),
        ("12.25 75 75 overtaken", True, True, (75, 75)),
        ("12.25 124 0", False, False, (124, 0)),
        ("12.25 75 75", False, False, (75, 75)),
        ("12.25 0 137", False, True, (0, 137)),
        ("12.25 128 255", False, False, (128, 255)),
    ],
)
def test_an_end_by_itself_is_told_from_a_status(
    line: str,
    expired: bool,  # noqa: FBT001 - a parameter of the table
    is_cut: bool,  # noqa: FBT001 - a parameter of the table
    statuses: tuple[int, ...],
) -> None:
    """A tool's own 124 or 75 is no lease that ran out; a stage that was killed cut the work off."""
    host = Host(reports=[ENDED.replace("12.25 0 3", line)])
    state = jobs.wait_for_job(host, "run.step", deadline_seconds=9)
    assert (state.ended, state.died, state.is_ok) == (True, False, False)
    assert (state.expired, state.is_cut, state.statuses) == (expired, is_cut, statuses)


def test_all_jobs_of_a_run_are_renewed() -> None:
    """One command renews them all, and says how many there were."""
    host = Host(reports=["renewed=2\n"])
    assert jobs.renew_jobs(host, "run") == 2
    assert host.verbs == ["renew"]
    with pytest.raises(ValueError, match="job name"):
        jobs.renew_jobs(host, "*")


def test_waiting_for_no_job_is_refused() -> None:
    """There is nothing to wait for."""
    with pytest.raises(PreconditionError, match=r"no remote job run\.step"):
        jobs.wait_for_job(Host(reports=[NONE]), "run.step", deadline_seconds=9)


def test_a_cancelled_wait_leaves_the_job() -> None:
    """What `check` raises goes through; what becomes of the job is decided elsewhere."""

    def check() -> None:
        raise CancelledError("cancelled")

    host = Host(reports=[RUNNING])
    with pytest.raises(CancelledError):
        jobs.wait_for_job(host, "run.step", deadline_seconds=9, check=check)
    assert host.verbs == []


@pytest.mark.parametrize("error", [HostUnreachableError("gone"), CommandError("cut")])
def test_a_short_silence_of_the_host_is_borne(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost connection does not end the wait, for the job goes on; a long one does."""
    host = Host(reports=[RUNNING, error, error, ENDED])
    assert jobs.wait_for_job(host, "run.step", deadline_seconds=9).ended
    monkeypatch.setattr(jobs, "_SILENCE_SECONDS", 0.3)
    with pytest.raises(type(error)):
        jobs.wait_for_job(Host(reports=[RUNNING, error]), "run.step", deadline_seconds=9)


def test_an_answer_that_is_an_error_is_not_borne() -> None:
    """A command that ran and failed is told at once."""
    host = Host(reports=[CommandError("no", status=74)])
    with pytest.raises(CommandError, match="no"):
        jobs.wait_for_job(host, "run.step", deadline_seconds=9)
    assert host.verbs == ["report"]
