"""A clone whose stream hangs: without an orchestrator both ends end themselves, with one they live.

The stream is made to hang by stopping the extraction with SIGSTOP, so that neither end can tell.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import laws
import pytest
from clone_lab import CloneLab, running_lab
from lab import product

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)

LEASE_SECONDS = 10
SLOWEST_SECONDS = 30
"""The lease, the watchdog's pauses, TERM and KILL, on a busy machine."""
FREEZE = "for i in $(seq 2000); do pkill -STOP -x mbstream && exit; sleep 0.02; done; exit 1"
PROCESSES = "ps -e -o args= | grep -E '^(mariadb-backup|mbstream|pv|sh .*job[.]sh) ' || :"
ENDS = "cat /var/lib/xbvault/jobs/*/ended 2>/dev/null || :"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """A lab with an empty replica."""
    with running_lab(tmp_path_factory.mktemp("leases") / "lab") as made:
        yield made


@pytest.fixture(scope="module")
def config(lab: CloneLab) -> Path:
    """The lab's configuration, with a short lease of jobs."""
    text = lab.config_file.read_text()
    key = f"job_lease_seconds = {LEASE_SECONDS}\n"
    assert "job_lease_seconds" not in text
    if "[clone]\n" in text:
        text = text.replace("[clone]\n", f"[clone]\n{key}")
    else:
        text += f"\n[clone]\n{key}"
    path = lab.directory / "short-lease.toml"
    path.write_text(text)
    return path


def begin_clone(config: Path, *options: str) -> subprocess.Popen[str]:
    """Begin a clone in a process of its own."""
    return subprocess.Popen(
        [*product.command(), "clone", "master", "replica", "--yes", "--json", *options],
        env={**os.environ, "XBVAULT_CONFIG": str(config)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    """Wait for something that is going to happen."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.3)


def list_processes(lab: CloneLab) -> list[str]:
    """Return the commands of remote jobs that live on the two hosts."""
    return [line for host in ("master", "replica") for line in lab.on(host, PROCESSES).splitlines()]


def read_events(lab: CloneLab, run_id: str) -> list[dict[str, Any]]:
    """Return what the run logged."""
    path = lab.directory / "state/logs" / f"{run_id}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def list_starts(lab: CloneLab, run_id: str) -> Counter[str]:
    """Return how often each remote job was started, by its name without the run."""
    events = read_events(lab, run_id)
    return Counter(
        e["job"].removeprefix(f"{run_id}.") for e in events if e["event"] == "job.started"
    )


def test_a_stream_that_nobody_comes_back_to_ends_and_the_run_is_resumed(
    lab: CloneLab, config: Path
) -> None:
    """Both ends are gone after the lease and say so; `runs resume` streams again and succeeds."""
    before = laws.note(lab)
    process = begin_clone(config)
    try:
        lab.on("replica", FREEZE)
        assert any(line.startswith("mariadb-backup") for line in list_processes(lab))
    finally:
        process.kill()
        process.communicate()
    began = time.monotonic()
    wait_until(lambda: not list_processes(lab), SLOWEST_SECONDS)
    assert time.monotonic() - began > LEASE_SECONDS / 2
    ends = {host: lab.on(host, ENDS).split()[1:] for host in ("master", "replica")}
    # The end that comes first may take the other one with it.
    assert "expired" in ends["replica"]
    assert ends["replica"] == ["124", "expired"]
    assert ends["master"][-1:] == ["expired"] or re.fullmatch(r"\d+ \d+", " ".join(ends["master"]))
    assert laws.check_donor_runs(lab, before) == []

    run_id = json.loads(lab.xbvault("runs", "list", "--json").stdout)[0]["run_id"]
    finished = lab.xbvault("runs", "resume", run_id, "--json", config=config)
    document = json.loads(finished.stdout)
    assert document["status"] == "succeeded"
    assert list_starts(lab, run_id)["send-backup"] == 2
    laws.check_recipient_equals_donor(lab)
    laws.check_nothing_outlives(lab, document["backup_id"])


def test_a_stream_that_hangs_lives_while_somebody_waits(lab: CloneLab, config: Path) -> None:
    """Beyond its lease, a job is kept by the step that waits, or by the keeper thread, alone."""
    process = begin_clone(config, "--replace")
    try:
        lab.on("replica", FREEZE)
        end = time.monotonic() + 2.5 * LEASE_SECONDS
        while time.monotonic() < end:
            # The step asks only after the sender, until it has ended.
            assert any(line.startswith("mbstream") for line in list_processes(lab))
            time.sleep(1)
        lab.on("replica", "pkill -CONT -x mbstream")
        document = json.loads(process.communicate(timeout=240)[0])
    finally:
        process.kill()
        process.communicate()
    assert document["status"] == "succeeded"
    assert set(list_starts(lab, document["run_id"]).values()) == {1}
