"""Donor and recipient whose SSH servers do not see each other: the stream goes through this machine.

One laboratory for the whole file. The command is killed in the middle of such a stream, and resumed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import CloneLab, running_lab
from lab import product
from replicas import check_arrival, list_leftovers, list_tables, read_newest_run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(300),
]

SLOWLY = ("--throttle", "12M", "--compress", "none", "--checksums", "sample")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring a laboratory up in which the donor comes to no SSH server of the recipient's."""
    folder = tmp_path_factory.mktemp("relay")
    with running_lab(folder / "lab", "--no-writer", size=0.02) as found:
        found.on(
            "master",
            "ip rule add ipproto tcp dport 22 to $(getent hosts replica | cut -d' ' -f1) prohibit",
        )
        yield found


def list_relays(lab: CloneLab) -> list[str]:
    """Return the processes of this machine that are a way between hosts of this laboratory."""
    found = subprocess.run(
        ["pgrep", "-af", f"ssh -F {lab.directory}.* -R "],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.splitlines()


@pytest.fixture(scope="module")
def story(lab: CloneLab) -> dict[str, Any]:
    """Clone through this machine; the command is killed in mid-stream, and another resumes it."""
    words = [*product.command(), "clone", "master", "replica", "--yes", "--relay", *SLOWLY]
    environment = {**os.environ, "XBVAULT_CONFIG": str(lab.config_file)}
    command = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    staging = "du -s /var/lib/mysql.xbvault-staging-* 2>/dev/null | cut -f1"
    end = time.monotonic() + 60
    while time.monotonic() < end and int(lab.on("replica", staging).strip() or 0) < 10_000:
        assert command.poll() is None, "the clone ended before its stream was killed"
        time.sleep(0.2)
    command.send_signal(signal.SIGKILL)
    command.wait(30)
    orphans = list_relays(lab)
    run_id = read_newest_run(lab)["run_id"]
    ended = lab.xbvault("runs", "resume", run_id, "--json", check=False)
    assert ended.returncode == 0, ended.stderr
    return {"run_id": run_id, "orphans": orphans, "said": ended.stderr, **json.loads(ended.stdout)}


def test_without_a_relay_nothing_is_begun(lab: CloneLab) -> None:
    """What the donor does not reach is named, and the option that helps."""
    refused = lab.clone(check=False)
    assert refused["exit"] == 3
    (problem,) = [found for found in refused["checks"] if not found["ok"]]
    assert problem["name"] == "stream-way"
    assert "master does not reach replica" in problem["evidence"]
    assert "--relay" in problem["hint"]


def test_the_plan_says_that_the_stream_goes_through_this_machine(lab: CloneLab) -> None:
    """In the plan, in its commands, and in what was found."""
    planned = json.loads(
        lab.xbvault("clone", "master", "replica", "--plan", "--relay", "--json").stdout
    )
    (found,) = [check for check in planned["checks"] if check["name"] == "stream-way"]
    assert planned["plan"]["relay"]
    assert "goes through this machine, and begins again where" in found["evidence"]
    assert any(
        line.startswith("this machine: ssh -R ")
        for line in planned["plan"]["commands"]["stream-backup"]
    )


def test_a_donor_that_lets_nobody_relay_is_found_before(lab: CloneLab) -> None:
    """By the settings of its SSH server."""
    config = "/etc/ssh/sshd_config"
    lab.on("master", f"cp {config} {config}.kept; sed -i '1i AllowTcpForwarding no' {config}")
    try:
        refused = lab.clone("--relay", check=False)
    finally:
        lab.on("master", f"mv {config}.kept {config}")
    assert refused["exit"] == 3
    assert "allowtcpforwarding no" in refused["error"]["message"]


def test_a_relayed_stream_outlives_the_command(story: dict[str, Any]) -> None:
    """One way stood when the command was killed; whoever resumed went on with its stream."""
    assert len(story["orphans"]) == 1
    assert story["status"] == "succeeded"


def test_the_replica_is_right_and_nothing_is_left(lab: CloneLab, story: dict[str, Any]) -> None:
    """No process, no file and no way stays."""
    assert len(list_tables(lab, "replica")) == len(list_tables(lab, "master"))
    check_arrival(lab)
    assert list_leftovers(lab, story["run_id"]) == []
    assert list_relays(lab) == []
