from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from local_remote import LocalRemote

from orchestrator import jobs, lock, wire
from orchestrator.errors import CommandError, LockHeldError, PreconditionError
from orchestrator.host import script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(120)

F_GETPIPE_SZ = 1032
AUTOGROUP = Path("/proc/self/autogroup")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[LocalRemote]:
    """This machine, with jobs below the test's folder; none outlives the test."""
    remote = LocalRemote(root=tmp_path)
    yield remote
    folder = jobs_folder(remote)
    for found in folder.glob("[!.]*"):
        jobs.remove_job(remote, found.name)


def jobs_folder(host: LocalRemote) -> Path:
    """Return where the jobs of this host are."""
    return Path(host.place(jobs.BASE)) / "jobs"


def make_spec(*stages: tuple[str, ...], **values: Any) -> jobs.JobSpec:
    """Return a job of these commands."""
    return jobs.JobSpec(
        **{
            "name": "run1.step",
            "stages": tuple(jobs.Stage(argv=argv) for argv in stages),
            **values,
        }
    )


def run_job(host: LocalRemote, spec: jobs.JobSpec) -> jobs.JobState:
    """Start a job and return how it ended."""
    assert jobs.start_job(host, spec)
    return jobs.wait_for_job(host, spec.name, deadline_seconds=30)


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something that is going to happen."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.02)


def wrapper_pid(host: LocalRemote, name: str = "run1.step") -> int:
    """Return the pid of a job's wrapper."""
    return int((jobs_folder(host) / name / "begun").read_text().split()[0])


def session_of(pid: int) -> list[tuple[int, str]]:
    """Return pid and command of the living processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            if int(fields[3]) == pid and fields[0] not in "ZX":
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append((int(entry.name), command.strip()))
    return found


def kill_in_session(pid: int, command: str, number: int) -> None:
    """Send a signal to the one process of a session that runs a command."""
    wait_until(lambda: [p for p, line in session_of(pid) if line.startswith(command)])
    (victim,) = [p for p, line in session_of(pid) if line.startswith(command)]
    os.kill(victim, number)


def test_every_stage_is_recorded(host: LocalRemote) -> None:
    """Statuses and stderr are kept stage by stage, and the bytes between them are exact."""
    state = run_job(
        host,
        make_spec(
            ("sh", "-c", "head -c 3333333 /dev/zero; echo one >&2; exit 3"),
            ("sh", "-c", "cat >/dev/null; echo two >&2"),
            ("sh", "-c", "cat; exit 5"),
            count_after=0,
        ),
    )
    assert (state.statuses, state.bytes) == ((3, 0, 5), 3333333)
    assert (state.ended, state.running, state.died, state.is_ok) == (True, False, False, False)
    assert state.stderr.splitlines() == ["one", "two"]
    assert jobs.read_job_stderr(host, "run1.step", 0) == "one\n"
    assert jobs.read_job_stderr(host, "run1.step", 1) == "two\n"


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 50_000_001])
@pytest.mark.parametrize("count_after", [jobs.COUNT_INPUT, 0, 1])
def test_bytes_are_exact(host: LocalRemote, tmp_path: Path, size: int, count_after: int) -> None:
    """The total is right to the byte wherever it is counted, and the data is not changed."""
    given, got = tmp_path / "given", tmp_path / "got"
    with given.open("wb") as stream:
        stream.truncate(size)
    state = run_job(
        host,
        make_spec(
            ("cat",),
            ("cat",),
            count_after=count_after,
            stdin_file=str(given),
            stdout_file=str(got),
        ),
    )
    assert state.is_ok
    assert state.bytes == got.stat().st_size == size
    assert got.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("count_after", [jobs.COUNT_NONE, 0])
def test_the_pipe_that_a_stage_reads_is_wide(host: LocalRemote, count_after: int) -> None:
    """In a narrow one the stages before and after it wait for each other."""
    look = f"import fcntl; print(fcntl.fcntl(0, {F_GETPIPE_SZ}))"
    stages = (("sleep", "0.1"), ("sh", "-c", f"{sys.executable} -c '{look}' >&2; exec cat"))
    state = run_job(host, make_spec(*stages, count_after=count_after))
    assert (state.statuses, state.stderr) == ((0, 0), f"{1 << 20}")


def test_progress_grows_in_a_file_that_does_not(host: LocalRemote) -> None:
    """Bytes are told while the job runs, in a file of fixed size."""
    jobs.start_job(
        host,
        make_spec(
            ("sh", "-c", "for i in 1 2 3; do head -c 1000 /dev/zero; sleep 0.7; done"),
            ("cat",),
            count_after=0,
        ),
    )
    seen = set()
    while not (state := jobs.read_job(host, "run1.step")).ended:
        assert (jobs_folder(host) / "run1.step" / "bytes").stat().st_size == 21
        seen.add(state.bytes)
        time.sleep(0.05)
    assert {1000, 2000} <= seen
    assert state.bytes == 3000


def test_a_throttle_holds(host: LocalRemote) -> None:
    """No moment sees more bytes than the rate allows, although the tool could write them at once."""
    rate, size = 4_000_000, 10_000_000
    spec = make_spec(("head", "-c", str(size), "/dev/zero"), ("cat",), count_after=0, throttle=rate)
    began = time.monotonic()
    assert jobs.start_job(host, spec)
    rates = []
    while not (state := jobs.read_job(host, spec.name)).ended:
        rates.append(state.bytes / (time.monotonic() - began))
        time.sleep(0.05)
    assert (state.is_ok, state.bytes) == (True, size)
    assert max(rates) < 1.2 * rate
    assert 0.9 * size / rate < state.seconds < 3 * size / rate


def test_settings_of_an_earlier_version_are_taken(host: LocalRemote) -> None:
    """A process that began before an upgrade knows of no throttle and no niceness."""
    spec = make_spec(("head", "-c", "5000", "/dev/zero"), ("cat",), count_after=0)
    lines = jobs._write_job(spec).splitlines(keepends=True)
    of_today = [line for line in lines if line.startswith(("throttle=", "niceness="))]
    assert len(of_today) == 2
    before = "".join(line for line in lines if line not in of_today)
    answer = host.run(
        ["sh", "-s", "--", "start", jobs.BASE, spec.name], stdin=before + script("job.sh")
    )
    assert answer.text.strip() == "started"
    state = jobs.wait_for_job(host, spec.name, deadline_seconds=30)
    assert (state.is_ok, state.bytes) == (True, 5000)


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no autogroups")
@pytest.mark.parametrize("niceness", [0, 10])
def test_a_job_is_nice_to_other_sessions(host: LocalRemote, niceness: int) -> None:
    """By its stages' own niceness alone it would not be, where sessions come first."""
    look = "nice; ionice; sed 's/.* nice//' /proc/self/autogroup"
    polite = wire.POLITE if niceness else ()
    state = run_job(host, make_spec((*polite, "sh", "-c", f"{{ {look}; }} >&2"), niceness=niceness))
    ours, disk, group = state.stderr.splitlines()
    assert (int(ours), int(group)) == (min(os.nice(0) + niceness, 19), niceness)
    assert (disk == "best-effort: prio 7") is bool(niceness)


def test_start_returns_at_once(host: LocalRemote) -> None:
    """The job holds nothing of the command that started it, so a connection can close."""
    began = time.monotonic()
    assert jobs.start_job(host, make_spec(("sleep", "30"), ("cat",), count_after=0))
    assert time.monotonic() - began < 5
    state = jobs.read_job(host, "run1.step")
    assert (state.exists, state.running, state.ended, state.died) == (True, True, False, False)
    pid = wrapper_pid(host)
    wait_until(lambda: {"sleep 30", "cat"} <= {command for _, command in session_of(pid)})
    for member, command in session_of(pid):
        for descriptor in Path(f"/proc/{member}/fd").iterdir():
            number = int(descriptor.name)
            assert number <= 3 or number >= 10, (command, descriptor.readlink())
    assert os.getsid(pid) == pid != os.getsid(0)


def test_a_job_found_again_is_not_started_twice(host: LocalRemote, tmp_path: Path) -> None:
    """Running or ended, the same name attaches."""
    spec = make_spec(("sh", "-c", f"echo ran >>{tmp_path}/log; sleep 0.5"))
    assert jobs.start_job(host, spec)
    assert not jobs.start_job(host, spec)
    jobs.wait_for_job(host, spec.name, deadline_seconds=30)
    assert not jobs.start_job(host, spec)
    jobs.arm_job(host, spec)
    assert jobs.read_job(host, spec.name).is_ok
    assert (tmp_path / "log").read_text() == "ran\n"


def test_of_many_starters_one_wins(host: LocalRemote, tmp_path: Path) -> None:
    """However many start the same job at once, it runs once, and one is told so."""
    with ThreadPoolExecutor(6) as pool:
        for number in range(15):
            gate = threading.Barrier(6)
            spec = make_spec(
                ("sh", "-c", f"echo ran >>{tmp_path}/log.{number}"), name=f"run1.step.{number}"
            )

            def start(spec: jobs.JobSpec = spec, gate: threading.Barrier = gate) -> bool:
                gate.wait()
                return jobs.start_job(host, spec)

            answers = [future.result() for future in [pool.submit(start) for _ in range(6)]]
            assert answers.count(True) == 1
            jobs.wait_for_job(host, spec.name, deadline_seconds=30)
            assert (tmp_path / f"log.{number}").read_text() == "ran\n"


def test_a_job_that_never_began_is_replaced(host: LocalRemote, tmp_path: Path) -> None:
    """A starter that was killed between files and start does not block the name."""
    folder = jobs_folder(host) / "run1.step"
    folder.mkdir(parents=True)
    (folder / "settings").write_text("")
    state = jobs.read_job(host, "run1.step")
    assert (state.exists, state.running, state.died, state.ended) == (True, False, False, False)
    assert run_job(host, make_spec(("true",))).is_ok


def test_a_cut_command_does_nothing(host: LocalRemote) -> None:
    """Wherever the connection breaks while the script is sent, nothing is started."""
    spec = make_spec(("sleep", "30"))
    text = jobs._write_job(spec) + script("job.sh")
    cuts = [*range(0, len(text) - 20, 1499), *range(len(text) - 20, len(text) - 6)]
    for cut in cuts:
        host.run(["sh", "-s", "--", "start", jobs.BASE, spec.name], stdin=text[:cut], check=False)
        assert not jobs_folder(host).exists(), text[:cut][-40:]


def test_a_killed_wrapper_is_a_death(host: LocalRemote) -> None:
    """SIGKILL of the wrapper is seen, and stop still finds the stages that outlived it."""
    spec = make_spec(("sleep", "97"), ("cat",), count_after=0)
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    wait_until(lambda: any("sleep 97" in line for _, line in session_of(pid)))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: jobs.read_job(host, spec.name).died)
    state = jobs.read_job(host, spec.name)
    assert (state.running, state.ended, state.statuses) == (False, False, ())
    assert session_of(pid)
    assert not jobs.start_job(host, spec)
    assert jobs.wait_for_job(host, spec.name, deadline_seconds=30).died
    assert session_of(pid) == []


def test_a_killed_stage_is_recorded(host: LocalRemote) -> None:
    """SIGKILL of a stage shows as 137, and the others end by their own rules."""
    spec = make_spec(("sleep", "96"), ("cat",))
    jobs.start_job(host, spec)
    kill_in_session(wrapper_pid(host), "sleep 96", signal.SIGKILL)
    state = jobs.wait_for_job(host, spec.name, deadline_seconds=30)
    assert state.statuses == (137, 0)
    assert not state.is_ok


def test_a_killed_recorder_is_no_success(host: LocalRemote) -> None:
    """A stage whose status nobody could write down has failed."""
    spec = make_spec(("sleep", "0.5"), ("cat",))
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    wait_until(lambda: any("sleep 0.5" in line for _, line in session_of(pid)))
    for member, line in session_of(pid):
        if member != pid and "job.sh" in line:
            os.kill(member, signal.SIGKILL)
    state = jobs.wait_for_job(host, spec.name, deadline_seconds=30)
    assert state.statuses == (137, 137)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, 137), (signal.SIGTERM, 143)])
def test_a_killed_counter_is_no_success(host: LocalRemote, number: int, status: int) -> None:
    """What pv lost is a failure of the stage that it counted, though all stages ended well."""
    spec = make_spec(
        ("sh", "-c", "echo data; sleep 1; exit 0"), ("sh", "-c", "cat; exit 0"), count_after=0
    )
    jobs.start_job(host, spec)
    kill_in_session(wrapper_pid(host), "pv ", number)
    state = jobs.wait_for_job(host, spec.name, deadline_seconds=30)
    assert state.statuses == (status, 0)


def test_a_counter_that_cannot_write_is_no_success(host: LocalRemote) -> None:
    """A failure of pv itself is one of the job, and its message is kept."""
    state = run_job(
        host,
        make_spec(("head", "-c", "100000", "/dev/zero"), count_after=0, stdout_file="/dev/full"),
    )
    assert not state.is_ok
    assert "No space left" in state.stderr


def test_a_stopped_stage_is_a_stall(host: LocalRemote) -> None:
    """SIGSTOP of a stage stops the bytes; the job is ended, the frozen process with it."""
    spec = make_spec(("yes",), ("cat",), count_after=0)
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    wait_until(lambda: jobs.read_job(host, spec.name).bytes > 0)
    kill_in_session(pid, "yes", signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(CommandError, match="stalled"):
        jobs.wait_for_job(host, spec.name, deadline_seconds=60, stall_seconds=2)
    assert time.monotonic() - began < 10
    assert session_of(pid) == []


def test_a_deadline_ends_the_job(host: LocalRemote) -> None:
    """After the deadline nothing of the job is left."""
    spec = make_spec(("sleep", "95"))
    jobs.start_job(host, spec)
    with pytest.raises(CommandError, match="within 1 seconds"):
        jobs.wait_for_job(host, spec.name, deadline_seconds=1)
    assert session_of(wrapper_pid(host)) == []


def test_stop_keeps_the_statuses(host: LocalRemote) -> None:
    """A job that is stopped has ended, and its statuses tell by which signal."""
    spec = make_spec(("sleep", "94"), ("cat",), count_after=0)
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    jobs.stop_job(host, spec.name)
    state = jobs.read_job(host, spec.name)
    assert state.ended
    assert state.statuses[0] == 143
    assert session_of(pid) == []
    jobs.stop_job(host, spec.name)
    assert jobs.read_job(host, spec.name).statuses == state.statuses


def test_stop_ends_what_ignores_it(host: LocalRemote) -> None:
    """A stage that ignores TERM, and what it started, are killed within five seconds."""
    spec = make_spec(("sh", "-c", "trap '' TERM; sleep 93 & sleep 92; sleep 91"))
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    wait_until(lambda: any("sleep 92" in line for _, line in session_of(pid)))
    began = time.monotonic()
    jobs.stop_job(host, spec.name)
    assert time.monotonic() - began < 5
    assert session_of(pid) == []
    assert jobs.read_job(host, spec.name).statuses == (137,)


def test_stop_ends_a_frozen_wrapper(host: LocalRemote) -> None:
    """SIGSTOP of the wrapper does not protect the job."""
    spec = make_spec(("sleep", "90"))
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    os.kill(pid, signal.SIGSTOP)
    jobs.stop_job(host, spec.name)
    assert session_of(pid) == []


def test_nothing_to_stop(host: LocalRemote) -> None:
    """Stop and remove are safe on a job that is not there."""
    jobs.stop_job(host, "run1.none")
    jobs.remove_job(host, "run1.none")
    assert not jobs.read_job(host, "run1.none").exists
    with pytest.raises(PreconditionError):
        jobs.wait_for_job(host, "run1.none", deadline_seconds=1)


def test_remove_leaves_nothing(host: LocalRemote) -> None:
    """A running job is stopped and its files are gone; its name can be used again."""
    spec = make_spec(("sleep", "89"))
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    jobs.remove_job(host, spec.name)
    assert session_of(pid) == []
    assert [p.name for p in jobs_folder(host).iterdir()] == [".guard"]
    assert run_job(host, make_spec(("true",))).is_ok


def test_many_may_remove_a_job_at_once(host: LocalRemote) -> None:
    """Runs that have a job in common end at one moment: it goes, and none of them fails."""
    with ThreadPoolExecutor(6) as pool:
        for number in range(15):
            gate = threading.Barrier(6)
            spec = make_spec(("sleep", "89"), name=f"run1.step.{number}")
            jobs.start_job(host, spec)

            def remove(name: str = spec.name, gate: threading.Barrier = gate) -> None:
                gate.wait()
                jobs.remove_job(host, name)

            for future in [pool.submit(remove) for _ in range(6)]:
                future.result()
            assert [p.name for p in jobs_folder(host).iterdir()] == [".guard"]


@pytest.mark.parametrize("has_marker", [True, False])
def test_another_process_with_the_pid_is_left_alone(host: LocalRemote, *, has_marker: bool) -> None:
    """A pid that was given to somebody else is neither taken for the wrapper nor killed."""
    assert run_job(host, make_spec(("true",))).is_ok
    folder = jobs_folder(host) / "run1.step"
    (folder / "ended").unlink()
    environment = {**os.environ, **({"XBVAULT_JOB": "run1.other"} if has_marker else {})}
    other = subprocess.Popen(["sleep", "88"], start_new_session=True, env=environment)
    try:
        words = (folder / "begun").read_text().split()
        (folder / "begun").write_text(f"{other.pid} {' '.join(words[1:])}\n")
        assert jobs.read_job(host, "run1.step").died
        jobs.stop_job(host, "run1.step")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_reboot_is_a_death(host: LocalRemote) -> None:
    """Under another boot id the job is dead, whatever has its pid now; nothing is killed."""
    spec = make_spec(("sleep", "87"))
    jobs.start_job(host, spec)
    begun = jobs_folder(host) / "run1.step" / "begun"
    text = begun.read_text()
    words = text.split()
    begun.write_text(f"{words[0]} {words[1]} 00000000-0000-0000-0000-000000000000 {words[3]}\n")
    assert jobs.read_job(host, spec.name).died
    jobs.stop_job(host, spec.name)
    assert session_of(int(words[0]))
    begun.write_text(text)
    assert jobs.read_job(host, spec.name).running


@pytest.fixture
def small_disk(host: LocalRemote) -> Iterator[Path]:
    """Our folder on the host is a filesystem of 512 kB."""
    base = Path(host.place(jobs.BASE))
    base.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(base)], check=True
    )
    yield base
    for found in (base / "jobs").glob("[!.]*"):
        (base / "filler").unlink(missing_ok=True)
        jobs.remove_job(host, found.name)
    subprocess.run(["umount", str(base)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    result = subprocess.run(["cp", "/dev/zero", path], check=False, capture_output=True)
    assert b"No space left" in result.stderr


def test_a_full_disk_is_told(host: LocalRemote, small_disk: Path) -> None:
    """A job that cannot be written is refused with the reason, and nothing of it is left."""
    (small_disk / "jobs").mkdir()
    fill(small_disk / "filler")
    for function in (jobs.start_job, jobs.arm_job):
        with pytest.raises(CommandError, match=r"no space left.*free: 0 blocks"):
            function(host, make_spec(("true",)))
        assert not jobs.read_job(host, "run1.step").exists
    (small_disk / "filler").unlink()
    assert run_job(host, make_spec(("true",))).is_ok


def test_a_job_that_fills_the_disk_says_how_it_ended(host: LocalRemote, small_disk: Path) -> None:
    """Statuses, bytes and message need no new room on a disk that the job itself filled."""
    state = run_job(
        host,
        make_spec(
            ("head", "-c", "3000000", "/dev/zero"),
            ("dd", f"of={small_disk}/filler", "bs=4096"),
            count_after=0,
        ),
    )
    assert state.ended
    assert state.statuses[1] == 1
    assert state.bytes > 0
    assert "No space left" in state.stderr


def test_an_environment_file_is_data(host: LocalRemote, tmp_path: Path) -> None:
    """Its values reach that stage only, are never run, and stand in no command line."""
    trap = tmp_path / "trap"
    (tmp_path / "token").write_text(
        f"# a comment\n\n; another\n  PLAIN=a b  \nQUOTED=\"c d \"\nSINGLE='e=f'\n"
        f"CODE=$(touch {trap}) `touch {trap}`; touch {trap}\nEMPTY=\nLAST=g"
    )
    show = 'printf \'%s|\' "$PLAIN" "$QUOTED" "$SINGLE" "$CODE" "${EMPTY-unset}" "$LAST"'
    spec = jobs.JobSpec(
        name="run1.step",
        stages=(
            jobs.Stage(argv=("sh", "-c", show), environment_file=str(tmp_path / "token")),
            jobs.Stage(argv=("sh", "-c", 'cat; echo "${LAST-unset}"; sleep 1')),
        ),
        stdout_file=str(tmp_path / "out"),
    )
    jobs.start_job(host, spec)
    time.sleep(0.3)
    assert all("a b" not in line for _, line in session_of(wrapper_pid(host)))
    assert jobs.wait_for_job(host, spec.name, deadline_seconds=30).is_ok
    code = f"$(touch {trap}) `touch {trap}`; touch {trap}"
    assert (tmp_path / "out").read_text() == f"a b|c d |e=f|{code}||g|unset\n"
    assert not trap.exists()


@pytest.mark.parametrize(
    "content", ['A="b\\\nc"\n', "A=\\\n", "no equals\n", "1A=b\n", "A B=c\n", "=x\n", None]
)
def test_an_environment_file_that_is_not_understood_is_refused(
    host: LocalRemote, tmp_path: Path, content: str | None
) -> None:
    """Nothing is guessed: the stage does not start, with status 78 and the file's name."""
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    spec = jobs.JobSpec(
        name="run1.step",
        stages=(jobs.Stage(argv=("touch", str(tmp_path / "started")), environment_file=str(path)),),
    )
    state = run_job(host, spec)
    assert state.statuses == (78,)
    assert str(path) in state.stderr
    assert not (tmp_path / "started").exists()


def test_words_arrive_as_they_are(host: LocalRemote, tmp_path: Path) -> None:
    """Whatever a word, a path or a folder holds, it is never code."""
    words = ("a'b", "$(id)", "`id`", "x\ny", "", "é", "*", "\\", '"', "-n", "%s", "a;b", "\t ")
    folder = tmp_path / "it's $(a) folder;"
    folder.mkdir()
    state = run_job(
        host,
        make_spec(
            ("printf", "%s|", *words), stdout_file=f"{folder}/out 'put'", directory=str(folder)
        ),
    )
    assert state.is_ok, state.stderr
    assert (folder / "out 'put'").read_text() == "".join(f"{word}|" for word in words)


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"directory": "/no/such/folder"}, 66),
        ({"stdin_file": "/no/such/file"}, 66),
        ({"stdout_file": "/no/such/file"}, 66),
    ],
)
def test_a_place_that_is_not_there_is_recorded(
    host: LocalRemote, values: dict[str, Any], status: int
) -> None:
    """The job ends with a status for every stage and says what is missing; nothing has run."""
    state = run_job(host, make_spec(("true",), ("true",), **values))
    assert state.statuses == (status, status)
    assert "cannot" in state.stderr


def test_a_missing_program_is_recorded(host: LocalRemote) -> None:
    """A tool that is not installed shows as 127."""
    state = run_job(host, make_spec(("no-such-tool", "--x"), ("cat",)))
    assert state.statuses == (127, 0)
    assert "no-such-tool" in state.stderr


def test_signals_are_as_a_tool_expects(host: LocalRemote) -> None:
    """A reader that leaves ends the writer by SIGPIPE, and a hang-up does nothing."""
    state = run_job(host, make_spec(("yes",), ("head", "-n", "1")))
    assert state.statuses == (141, 0)
    spec = make_spec(("sleep", "1"), name="run1.other")
    jobs.start_job(host, spec)
    for member, _ in session_of(wrapper_pid(host, spec.name)):
        os.kill(member, signal.SIGHUP)
    assert jobs.wait_for_job(host, spec.name, deadline_seconds=30).is_ok


def test_all_of_stderr_is_kept(host: LocalRemote) -> None:
    """The state carries the end of stderr, and the whole can be read."""
    state = run_job(host, make_spec(("sh", "-c", "seq 1 5000 >&2; printf '\\377' >&2")))
    assert state.stderr.splitlines()[0] == "4962"
    assert len(state.stderr.splitlines()) == 40
    assert len(jobs.read_job_stderr(host, "run1.step", 0).splitlines()) == 5001
    with pytest.raises(CommandError, match="no stage 1"):
        jobs.read_job_stderr(host, "run1.step", 1)


def test_a_job_of_another_fence_does_not_act(host: LocalRemote, tmp_path: Path) -> None:
    """The wrapper compares run and fence with the lock before it does anything."""
    act = ("touch", str(tmp_path / "acted"))
    missing = run_job(host, make_spec(act, name="run1.a", fence=1))
    fence = lock.take_lock(host, run="run1", holder="j1", lease_seconds=60)
    older = run_job(host, make_spec(act, ("cat",), name="run1.b", fence=fence + 1))
    other = run_job(host, make_spec(act, name="run2.c", fence=fence))
    alike = run_job(host, make_spec(act, name="run12.c", fence=fence))
    assert [s.statuses for s in (missing, older, other, alike)] == [(75,), (75, 75), (75,), (75,)]
    assert "fence" in older.stderr
    assert "run1" in other.stderr
    assert not (tmp_path / "acted").exists()
    assert run_job(host, make_spec(act, name="run1.d", fence=fence)).is_ok
    assert (tmp_path / "acted").exists()


def gone(pid: int) -> bool:
    """Return whether nobody is left in a session."""
    return session_of(pid) == []


def read_quietly(host: LocalRemote, name: str = "run1.step") -> str:
    """Return the line of the job's end without renewing anything."""
    ended = jobs_folder(host) / name / "ended"
    return ended.read_text().split(" ", 1)[1].strip() if ended.exists() else ""


def test_a_job_that_nobody_asks_after_ends_itself(host: LocalRemote) -> None:
    """When its lease has run out, no process of the job is left, and it says why."""
    # `exec`: a shell that outlives its child says "Terminated".
    spec = make_spec(("yes",), ("sh", "-c", "exec cat >/dev/null"), count_after=0, lease_seconds=2)
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    began = time.monotonic()
    wait_until(lambda: gone(pid))
    assert 2 <= time.monotonic() - began < 7
    state = jobs.wait_for_job(host, spec.name, deadline_seconds=1)
    assert (state.statuses, state.ended, state.expired) == ((124, 124), True, True)
    assert (state.is_cut, state.is_ok, state.died, state.running) == (True, False, False, False)
    assert state.stderr.splitlines() == [
        "xbvault job: the job ends itself: nobody has renewed the lease of 2 seconds"
    ]
    assert not jobs.start_job(host, spec)


@pytest.mark.parametrize(
    "stage",
    [
        "trap '' TERM INT HUP; sleep 83 & sleep 82; sleep 81",
        "trap 'exit 0' TERM; sleep 83 & wait",
        "kill -STOP $PPID; sleep 83",
        "kill -STOP $$",
        "kill -STOP $(cut -d ' ' -f 1 begun); sleep 83",
        "nohup sleep 83 >/dev/null 2>&1 & sleep 82",
    ],
)
def test_nothing_holds_out_against_the_lease(host: LocalRemote, stage: str) -> None:
    """Whatever a stage ignores, freezes or starts, it ends, and is never taken for success."""
    spec = make_spec(("sh", "-c", stage), lease_seconds=1)
    folder = jobs_folder(host) / spec.name
    jobs.start_job(
        host, dataclasses.replace(spec, directory=str(folder)) if "begun" in stage else spec
    )
    pid = wrapper_pid(host)
    wait_until(lambda: gone(pid), 12)
    assert read_quietly(host) == "124 expired"
    assert jobs.read_job(host, spec.name).expired


def test_a_fifo_holds_up_no_end(host: LocalRemote, tmp_path: Path) -> None:
    """A job that waits for its input to be opened ends with its lease as well."""
    os.mkfifo(tmp_path / "fifo")
    jobs.start_job(host, make_spec(("cat",), stdin_file=str(tmp_path / "fifo"), lease_seconds=1))
    pid = wrapper_pid(host)
    wait_until(lambda: gone(pid), 12)
    assert read_quietly(host) == "124 expired"


@pytest.mark.parametrize("how", ["read", "renew"])
def test_a_job_that_is_asked_after_lives(host: LocalRemote, how: str) -> None:
    """A look at the job, or the renewal of all of its run, keeps it alive beyond its lease."""
    spec = make_spec(("sleep", "80"), lease_seconds=2)
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    end = time.monotonic() + 6
    while time.monotonic() < end:
        if how == "read":
            assert jobs.read_job(host, spec.name).running
        else:
            assert jobs.renew_jobs(host, "run1") == 1
        time.sleep(0.3)
    assert any("sleep 80" in line for _, line in session_of(pid))
    wait_until(lambda: gone(pid))
    assert read_quietly(host) == "124 expired"


def test_a_renewal_is_for_the_jobs_of_one_run(host: LocalRemote) -> None:
    """Ended and armed jobs, and those of a run whose name begins alike, are left alone."""
    assert jobs.renew_jobs(host, "run1") == 0
    for name in ("run1.a", "run1.b.2", "run12.a"):
        jobs.start_job(host, make_spec(("sleep", "79"), name=name))
    assert run_job(host, make_spec(("true",), name="run1.ended")).is_ok
    jobs.arm_job(host, make_spec(("true",), name="run1.armed"))
    leases = {path.parent.name: path.read_text() for path in jobs_folder(host).glob("*/lease")}
    time.sleep(1.1)
    assert jobs.renew_jobs(host, "run1") == 2
    now = {path.parent.name: path.read_text() for path in jobs_folder(host).glob("*/lease")}
    assert {name for name in now if now[name] != leases[name]} == {"run1.a", "run1.b.2"}
    assert {len(text) for text in now.values()} == {40}


@pytest.mark.parametrize("content", ["", "rubbish", "\0" * 40, None])
def test_a_broken_lease_does_not_last_for_ever(host: LocalRemote, content: str | None) -> None:
    """A lease that cannot be read counts as the one before it."""
    spec = make_spec(("sleep", "78"), lease_seconds=2)
    jobs.start_job(host, spec)
    lease = jobs_folder(host) / spec.name / "lease"
    if content is None:
        lease.unlink()
    else:
        lease.write_text(content)
    pid = wrapper_pid(host)
    wait_until(lambda: gone(pid))
    assert read_quietly(host) == "124 expired"


def test_the_watchdog_ends_with_the_job(host: LocalRemote) -> None:
    """It is in the job's session, holds nothing of its data, and is gone as soon as the job is."""
    spec = make_spec(("sleep", "1"), ("cat",), count_after=0)
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    wait_until(lambda: any(line.startswith("sleep 5") for _, line in session_of(pid)))
    assert jobs.wait_for_job(host, spec.name, deadline_seconds=30).is_ok
    wait_until(lambda: gone(pid), 0.5)
    assert jobs.read_job(host, spec.name).stderr == ""


def test_the_watchdog_costs_next_to_nothing(host: LocalRemote) -> None:
    """Over many looks, locks read included, it takes less than a hundredth of a core."""
    fence = lock.take_lock(host, run="run1", holder="j1", lease_seconds=60)
    spec = make_spec(("sleep", "77"), fence=fence)
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    wait_until(lambda: any(line.startswith("sleep 5") for _, line in session_of(pid)))
    ticker = next(m for m, line in session_of(pid) if line.startswith("sleep 5"))
    watchdog = int(Path(f"/proc/{ticker}/stat").read_text().rpartition(") ")[2].split()[1])
    time.sleep(11)
    fields = Path(f"/proc/{watchdog}/stat").read_text().rpartition(") ")[2].split()
    spent = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    assert spent < 0.11


def test_orphans_of_a_killed_wrapper_end(host: LocalRemote) -> None:
    """Nobody asks after a job whose wrapper was killed; its stages end all the same."""
    spec = make_spec(("sleep", "76"), ("cat",), lease_seconds=900)
    jobs.start_job(host, spec)
    pid = wrapper_pid(host)
    wait_until(lambda: any("sleep 76" in line for _, line in session_of(pid)))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(pid), 12)
    state = jobs.read_job(host, spec.name)
    assert (state.died, state.ended, state.expired) == (True, False, False)


def test_a_job_ends_when_another_run_takes_the_recipient(host: LocalRemote) -> None:
    """A running job of a run that was overtaken ends itself, with 75 and the other run's name."""
    fence = lock.take_lock(host, run="run1", holder="j1", lease_seconds=1)
    spec = make_spec(("sh", "-c", "trap 'exit 0' TERM; sleep 75 & wait"), fence=fence)
    jobs.start_job(host, dataclasses.replace(spec, lease_seconds=10))
    other = make_spec(("sleep", "74"), name="run1.other")
    jobs.start_job(host, other)
    pid = wrapper_pid(host)
    time.sleep(2.5)
    assert session_of(pid), "a lease of the lock that ran out is no reason"
    lock.take_lock(host, run="run2", holder="j1", lease_seconds=60)
    wait_until(lambda: gone(pid))
    assert read_quietly(host) == "75 overtaken"
    state = jobs.read_job(host, spec.name)
    assert (state.expired, state.is_cut, state.is_ok) == (True, True, False)
    assert "run run2 has taken the recipient" in state.stderr
    assert jobs.read_job(host, other.name).running, (
        "a job without a fence has nothing to do with it"
    )


def test_a_successor_adopts_the_job(host: LocalRemote) -> None:
    """The same run with a higher fence, or a lock given back in between, does not end the job."""
    fence = lock.take_lock(host, run="run1", holder="j1", lease_seconds=60)
    spec = make_spec(("sleep", "4"), fence=fence, lease_seconds=10)
    assert jobs.start_job(host, spec)
    time.sleep(1.2)
    lock.release_lock(host, run="run1", holder="j1")
    time.sleep(1.2)
    again = lock.take_lock(host, run="run1", holder="j1", lease_seconds=60)
    assert again == fence + 1
    assert not jobs.start_job(host, dataclasses.replace(spec, fence=again))
    assert jobs.wait_for_job(host, spec.name, deadline_seconds=30).is_ok


def test_an_owner_is_not_robbed_of_its_job(host: LocalRemote) -> None:
    """Who has a lower fence than the process that renewed a job may neither stop nor remove it."""
    spec = make_spec(("sleep", "72"), owner=4)
    jobs.start_job(host, spec)
    with pytest.raises(LockHeldError, match="its owner has fence 4, ours is 3"):
        jobs.stop_job(host, spec.name, fence=3)
    assert jobs.renew_jobs(host, "run1", fence=6) == 1
    assert jobs.renew_jobs(host, "run1", fence=5) == 1
    for act in (jobs.stop_job, jobs.remove_job):
        with pytest.raises(LockHeldError, match="its owner has fence 6, ours is 5"):
            act(host, spec.name, fence=5)
    with pytest.raises(LockHeldError, match="its owner has fence 6"):
        jobs.wait_for_job(host, spec.name, deadline_seconds=0.2, fence=5)
    assert jobs.read_job(host, spec.name).running
    jobs.stop_job(host, spec.name, fence=6)
    assert not jobs.read_job(host, spec.name).running
    jobs.remove_job(host, spec.name, fence=7)
    assert not jobs.read_job(host, spec.name).exists
    assert jobs.renew_jobs(host, "run1", fence=8) == 0


def test_a_stage_asks_before_it_begins(host: LocalRemote, tmp_path: Path) -> None:
    """A wrapper that was paused between its own look at the lock and its stages does nothing."""
    fence = lock.take_lock(host, run="run1", holder="j1", lease_seconds=60)
    out = tmp_path / "out"
    os.mkfifo(out)
    act = ("touch", str(tmp_path / "acted"))
    # It has looked at the lock, and waits for a reader of its output.
    jobs.start_job(host, make_spec(act, ("cat",), fence=fence, stdout_file=str(out)))
    time.sleep(0.5)
    lock.release_lock(host, run="run1", holder="j1")
    lock.take_lock(host, run="run2", holder="j1", lease_seconds=60)
    assert out.read_bytes() == b""
    state = jobs.wait_for_job(host, "run1.step", deadline_seconds=30)
    assert state.statuses == (75, 75)
    assert "stage 0 was not begun: the recipient lock names run 'run2'" in state.stderr
    assert not (tmp_path / "acted").exists()


def test_an_expired_job_on_a_full_disk_says_so(host: LocalRemote, small_disk: Path) -> None:
    """The end of a lease needs no new room, nor does its renewal."""
    jobs.start_job(host, make_spec(("sleep", "73"), lease_seconds=3))
    pid = wrapper_pid(host)
    fill(small_disk / "filler")
    end = time.monotonic() + 5
    while time.monotonic() < end:
        assert jobs.renew_jobs(host, "run1") == 1
        time.sleep(0.5)
    assert session_of(pid)
    wait_until(lambda: gone(pid))
    assert read_quietly(host) == "124 expired"


def test_an_armed_job_waits_for_its_receiver(host: LocalRemote, tmp_path: Path) -> None:
    """Arming starts nothing, can be repeated with a newer fence, and can be taken back."""
    spec = make_spec(("touch", str(tmp_path / "acted")), fence=1)
    jobs.arm_job(host, spec)
    jobs.arm_job(host, make_spec(("touch", str(tmp_path / "acted")), fence=2))
    assert "fence=2" in (jobs_folder(host) / "run1.step" / "settings").read_text()
    assert not jobs.start_job(host, spec)
    state = jobs.read_job(host, spec.name)
    assert (state.exists, state.running, state.ended, state.died) == (True, False, False, False)
    with pytest.raises(CommandError, match="did not end"):
        jobs.wait_for_job(host, spec.name, deadline_seconds=0.5)
    assert (jobs_folder(host) / "run1.step" / "stopped").exists()
    assert not (tmp_path / "acted").exists()


def test_a_report_is_quick(host: LocalRemote) -> None:
    """Asking costs the host next to nothing."""
    run_job(host, make_spec(("true",), ("true",)))
    durations = []
    for _ in range(11):
        began = time.monotonic()
        jobs.read_job(host, "run1.step")
        durations.append(time.monotonic() - began)
    assert sorted(durations)[5] < 0.1


def test_processor_time_is_told_by_role(host: LocalRemote) -> None:
    """Each stage with a role has its own time, that of its children included, and no other's."""
    burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
    spec = jobs.JobSpec(
        name="run1.step",
        stages=(
            jobs.Stage(argv=("sh", "-c", f"sh -c '{burn}'; echo"), role="read"),
            jobs.Stage(argv=("cat",)),
            jobs.Stage(argv=("sh", "-c", "cat; exit 3"), role="write"),
        ),
        count_after=0,
    )
    state = run_job(host, spec)
    assert state.statuses == (0, 0, 3)
    assert set(state.cpu_seconds) == {"read", "write"}
    assert state.cpu_seconds["read"] > 0.05 > state.cpu_seconds["write"]


def test_a_job_of_an_older_version_tells_no_processor_time(host: LocalRemote) -> None:
    """What an earlier version left, without roles, processes and times, is read as before."""
    assert run_job(host, make_spec(("true",), ("true",))).cpu_seconds == {}
    folder = jobs_folder(host) / "run1.step"
    for file in [*folder.glob("cpu.*"), *folder.glob("pid.*"), folder / "looks"]:
        file.unlink()
    settings = (folder / "settings").read_text().splitlines(keepends=True)
    later = ("roles=", "connected=", "port=")
    (folder / "settings").write_text("".join(x for x in settings if not x.startswith(later)))
    state = jobs.read_job(host, "run1.step")
    assert state.is_ok
    assert (state.cpu_seconds, state.looks, state.connection) == ({}, 0, None)


@pytest.fixture
def sink() -> Iterator[socket.socket]:
    """Listen on a port of this machine; what connects is not taken until the test does it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def make_stream(port: int, source: str) -> jobs.JobSpec:
    """Return a job whose last stage sends all that the first writes to a port of this machine."""
    send = (
        "import os, socket\n"
        f"with socket.create_connection(('127.0.0.1', {port})) as out:\n"
        "    while data := os.read(0, 1 << 16): out.sendall(data)"
    )
    return jobs.JobSpec(
        name="run1.step",
        stages=(
            jobs.Stage(argv=("sh", "-c", source), role="read"),
            jobs.Stage(argv=(sys.executable, "-c", send), role="encrypt", port=port),
        ),
        count_after=0,
    )


def look_until(
    host: LocalRemote, is_enough: Callable[[jobs.JobState], object], seconds: float = 20
) -> jobs.JobState:
    """Look at the job until it shows what is waited for."""
    limit = time.monotonic() + seconds
    while not is_enough(state := jobs.read_job(host, "run1.step")):
        assert time.monotonic() < limit, state
        time.sleep(0.05)
    return state


def test_a_stream_that_is_not_taken_is_seen_to_be_held_up(
    host: LocalRemote, sink: socket.socket
) -> None:
    """The first stage stands in a write, and the kernel accounts it to the receiver's window."""
    assert jobs.start_job(host, make_stream(sink.getsockname()[1], "exec cat /dev/zero"))
    receiver, _ = sink.accept()
    with receiver:
        state = look_until(
            host, lambda s: s.connection and s.connection.receiver_seconds > 0.5 and s.held_up > 5
        )
        assert state.held_up > 0.5 * state.looks
        assert state.connection is not None
        assert 0.5 < state.connection.receiver_seconds <= state.connection.busy_seconds
        assert state.connection.busy_seconds <= state.connection.seconds
    again = jobs.wait_for_job(host, "run1.step", deadline_seconds=30)
    assert again.connection is not None
    assert again.connection.receiver_seconds >= state.connection.receiver_seconds
    assert again.held_up >= state.held_up


def test_a_stream_that_waits_for_its_source_is_not_held_up(
    host: LocalRemote, sink: socket.socket
) -> None:
    """A first stage that does something else than write is seen not to be held up."""
    source = "for i in 1 2 3 4 5 6; do echo; sleep 0.3; done"
    assert jobs.start_job(host, make_stream(sink.getsockname()[1], source))
    receiver, _ = sink.accept()
    with receiver:
        state = look_until(host, lambda s: s.looks >= 10)
        assert state.held_up == 0
        assert state.connection is not None
        assert state.connection.receiver_seconds == 0
        while receiver.recv(1 << 16):
            pass
    assert jobs.wait_for_job(host, "run1.step", deadline_seconds=30).is_ok


def test_what_a_job_writes_can_be_counted(host: LocalRemote, tmp_path: Path) -> None:
    """The kernel's account of a stage's writes grows while it runs, and the last of it stays."""
    copy = f"for i in 1 2 3; do head -c 1000000 /dev/zero; sleep 0.6; done >{tmp_path}/copy"
    code = copy.replace("head -c 1000000 /dev/zero", "printf %01000000d 0")
    assert jobs.start_job(host, make_spec(("sh", "-c", code), count_after=jobs.COUNT_WRITES))
    seen = {0, look_until(host, lambda s: s.bytes >= 1000000).bytes}
    last = look_until(host, lambda s: s.bytes >= 3000000 or s.ended)
    assert sorted(seen)[1] < last.bytes <= 3000100
    assert jobs.wait_for_job(host, "run1.step", deadline_seconds=30).bytes == last.bytes
