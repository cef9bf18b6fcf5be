"""A clone that is throttled, compressed and behind the donor's server; and its compressor fails.

One laboratory and one run for the whole file. The compressor fails on the donor, and is killed on the
recipient, both in the middle of the stream; each time the run is resumed, at last with the real one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import MARIADB_CHECKS, CloneLab, running_lab
from replicas import check_arrival, list_leftovers, list_tables, read_newest_run, show_run

from orchestrator import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

RATE = 8 << 20
OPTIONS = ("--throttle", "8M", "--nice", "--compress", "zstd:3")
PROGRAM = "/usr/local/sbin/zstd"
SEEN = "/var/log/priority-of-zstd"
REAL = "/usr/bin/zstd"
FAILS = f"""#!/bin/sh
head -c 8000000 | {REAL} "$@"
echo 'zstd: error 31 : out of luck' >&2
exit 31
"""
DIES = f"""#!/bin/sh
head -c 8000000 | {REAL} "$@"
kill -KILL $$
"""
TELLS = f"""#!/bin/sh
{{ nice; ionice; cat /proc/self/autogroup; }} >{SEEN} 2>/dev/null
exec {REAL} "$@"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Story:
    """What came of the run.

    Attributes:
        failures: The errors that it ended with, in order.
        document: What it ended with at last.
    """

    failures: tuple[dict[str, Any], ...]
    document: dict[str, Any]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring a laboratory up in which nobody writes."""
    folder = tmp_path_factory.mktemp("gentle")
    with running_lab(folder / "lab", "--no-writer", size=0.02) as found:
        yield found


def put(lab: CloneLab, host: str, text: str) -> None:
    """Put a program before a host's zstd; nothing takes it away."""
    lab.on(host, f"rm -f {PROGRAM}")
    if text:
        lab.on(host, f"cat >{PROGRAM} <<'END'\n{text}END\nchmod 755 {PROGRAM}")


@pytest.fixture(scope="module")
def story(lab: CloneLab) -> Story:
    """Clone, and resume after each failure."""
    put(lab, "master", FAILS)
    failures = [lab.clone(*OPTIONS, check=False)]
    run_id = read_newest_run(lab)["run_id"]
    put(lab, "master", TELLS)
    put(lab, "replica", DIES)
    ended = lab.xbvault("runs", "resume", run_id, "--json", check=False)
    failures.append({**json.loads(ended.stdout), "exit": ended.returncode})
    put(lab, "replica", "")
    ended = lab.xbvault("runs", "resume", run_id, "--json", check=False)
    assert ended.returncode == 0, ended.stderr
    return Story(failures=tuple(failures), document=json.loads(ended.stdout))


def test_a_plan_takes_a_sample_of_the_donor(lab: CloneLab) -> None:
    """The laboratory's interfaces do not say how fast they are, so the stream is left as it is."""
    planned = json.loads(lab.xbvault("clone", "master", "replica", "--plan", "--json").stdout)
    found = {check["name"]: check["evidence"] for check in planned["checks"]}
    assert planned["plan"]["compress"] == "none"
    assert re.search(r"a sample of \d+ MB came to \d+ % of its size", found["compression"])
    assert found["compression"] == f"none: {planned['plan']['compress_reason']}"


def test_a_compressor_that_fails_is_named(story: Story) -> None:
    """With its host and its own words; the run can be resumed, and streams again."""
    errors = [document["error"] for document in story.failures]
    assert [document["exit"] for document in story.failures] == [4, 4]
    assert [(error["error"], error["host"]) for error in errors] == [
        ("CommandError", "master"),
        ("CommandError", "replica"),
    ]
    assert "zstd ended with status 31; zstd: error 31 : out of luck" in errors[0]["message"]
    assert "zstd was killed by signal 9" in errors[1]["message"]
    assert all("runs resume" in error["hint"] for error in errors)


def test_a_compressed_stream_arrives_whole(lab: CloneLab, story: Story) -> None:
    """Every check holds, bytes are equal on both ends, and so are the tables."""
    checks = {check["name"]: check for check in story.document["checks"]}
    assert story.document["status"] == "succeeded"
    assert list(checks) == MARIADB_CHECKS
    assert all(check["ok"] for check in checks.values())
    assert checks["stream-exit-statuses"]["evidence"] == "donor 0 0 0, recipient 0 0"
    assert list_tables(lab, "replica") == list_tables(lab, "master")
    assert list_leftovers(lab, story.document["run_id"]) == []
    check_arrival(lab)


def test_a_throttle_holds_on_the_wire(lab: CloneLab, story: Story) -> None:
    """The whole stream took at least the time that its bytes take at this rate."""
    steps = show_run(lab, story.document["run_id"])["steps"]
    (result,) = [s["result"] for s in steps if s["name"] == "stream-backup" and s["result"]]
    assert result["bytes"] > 2 * RATE
    assert result["bytes"] <= 1.05 * RATE * result["seconds"]


def test_the_donor_comes_first(lab: CloneLab, story: Story) -> None:
    """The compressor was behind the server, in its session and towards others."""
    nice, disk, *group = lab.on("master", f"cat {SEEN}").splitlines()
    assert int(nice) == min(19, os.nice(0) + wire.NICENESS)
    assert disk == "best-effort: prio 7"
    assert all(line.endswith(f" nice {wire.NICENESS}") for line in group)
    assert story.document["status"] == "succeeded"
