"""How the stream's two jobs are made, and which of their processes a failure is told of."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any, cast

import engine_lab
import pytest
from fake_remote import FakeRemote

from orchestrator import config as config_module
from orchestrator import wire
from orchestrator.errors import CommandError
from orchestrator.jobs import JobState
from orchestrator.remote import Result
from orchestrator.steps import fan_out, restarts, stream_ends, stream_jobs
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fake_remote import Call

    from orchestrator.models import Plan

BACKUP, ZSTD, STREAM, SSH = "mariadb-backup", "zstd", "mbstream", "ssh"
BROKEN = "[00] FATAL ERROR: failed to copy datafile.\nmbstream: Error 32: Broken pipe\n"
FULL = "mbstream: Error writing file 'a.ibd' (Errcode: 28 \"No space left on device\")\n"


def make_plan(**changes: Any) -> Plan:
    """Return the plan of a clone from master to replica."""
    return dataclasses.replace(engine_lab.make_plan("r1"), **changes)


def make_tools(words: Mapping[tuple[str, int], str] | None = None) -> Tools:
    """Return the doors to two hosts, with what the stages of their jobs wrote to stderr."""
    hosts = {
        name: {"vault_mount": name, "address": f"{name}.example"} for name in ("master", "replica")
    }
    found = Tools(
        config=config_module.parse({"hosts": hosts}),
        vault=cast("Any", None),
        donor=FakeRemote("master"),
        recipient=FakeRemote("replica"),
    )
    for remote in (found.donor, found.recipient):
        answers = cast("FakeRemote", remote)
        for program in ("install", "rm", "test", "ssh-keygen"):
            answers.answer(program)
        answers.answer("sh", "-c", restarts.MAKE_FOLDERS)

        def tell(call: Call, name: str = remote.name) -> Result:
            text = (words or {}).get((name, int(call.argv[6])), "")
            return Result(status=0, stdout=text.encode())

        answers.answers["sh", "-s", "--", "stderr"] = tell
        answers.answer("sh", "-s", "--", "start", stdout="started\n")
        answers.answer("sh", "-s", "--", "arm", stdout="armed\n")
    return found


def read_job(remote: Any, verb: str) -> dict[str, str]:
    """Return the files of the one job that was made, by name; ``write_job`` is data to us."""
    (call,) = remote.ran("sh", "-s", "--", verb)
    body = call.stdin.decode().partition("write_job() {\n")[2].partition("\n}\n#!/bin/sh\n")[0]
    words = shlex.split(body)
    at = [i for i, word in enumerate(words) if word == "printf"]
    return {words[i + 3].removeprefix(">"): words[i + 2] for i in at}


def make_state(*statuses: int, bytes_: int = 7) -> JobState:
    """Return a job that has ended."""
    return JobState(
        exists=True,
        running=False,
        statuses=statuses,
        bytes=bytes_,
        stderr="",
        ended=True,
        seconds=1.0,
        died=False,
    )


def check(tools: Any, plan: Plan, sent: JobState, received: JobState) -> None:
    """Check the ends of a stream that a clone has for itself."""
    ends = stream_ends.Ends(read=sent, sent=sent, received=received)
    stream_ends.check_stages(tools, plan, ends, joins=False)


def send_and_receive(tools: Any, plan: Plan) -> None:
    """Make both jobs of a stream."""
    read = stream_jobs.make_reader(tools, plan, plan.run_dir)
    stream_jobs.start_sender(tools, plan, "r1.send-backup", read, address=("192.0.2.2", 22))
    stream_jobs.arm_receiver(tools, plan, "r1.receive-backup")


def test_a_plain_stream_has_the_stages_that_it_always_had() -> None:
    """As of a plan of an earlier version: nothing stands before the tool, and the counter is free."""
    tools, plan = make_tools(), make_plan()
    send_and_receive(tools, plan)
    sent, received = read_job(tools.donor, "start"), read_job(tools.recipient, "arm")
    assert sent["flow"] == "element 0 | count | element 1\n"
    assert received["flow"] == "count | element 0\n"
    assert "\nexec mariadb-backup --backup" in sent["stage.0"]
    assert f"Ciphers={wire.AES_FIRST}" in sent["stage.1"]
    assert received["stage.0"].startswith("exec mbstream -x")
    assert {"throttle=''", "niceness=''"} <= set(sent["settings"].splitlines())


def test_a_stream_with_everything_asked_for() -> None:
    """Compressed before the counter and after it, throttled in it, and behind the donor's server."""
    tools = make_tools()
    plan = make_plan(throttle=52_428_800, nice=True, compress="zstd:3", ciphers=wire.CHACHA_FIRST)
    send_and_receive(tools, plan)
    sent, received = read_job(tools.donor, "start"), read_job(tools.recipient, "arm")
    assert sent["flow"] == "element 0 | element 1 | count | element 2\n"
    assert received["flow"] == "count | element 0 | element 1\n"
    polite = shlex.join(wire.POLITE)
    assert f"\nexec {polite} mariadb-backup --backup" in sent["stage.0"]
    assert sent["stage.1"] == f"exec {polite} zstd -3 -T1 -q -c\n"
    assert "load_environment" not in sent["stage.1"] + sent["stage.2"]
    assert f"Ciphers={wire.CHACHA_FIRST}" in sent["stage.2"]
    assert received["stage.0"] == "exec zstd -d -q -c\n"
    assert received["stage.1"].startswith("exec mbstream -x")
    settings = set(sent["settings"].splitlines())
    assert {"throttle=52428800", "niceness=10", "counted=1"} <= settings
    assert {"throttle=''", "niceness=''", "counted=0"} <= set(received["settings"].splitlines())


@pytest.mark.parametrize(
    ("sent", "received", "words", "blamed", "says"),
    [
        ((9, 0, 1), (1, 1), {}, (BACKUP, "master"), "ended with status 9"),
        ((137, 0, 1), (1, 1), {}, (BACKUP, "master"), "was killed by signal 9"),
        ((141, 137, 1), (1, 1), {}, (ZSTD, "master"), "was killed by signal 9"),
        (
            (1, 70, 1),
            (1, 1),
            {("master", 0): BROKEN, ("master", 1): "zstd: error 70 : Write error\n"},
            (ZSTD, "master"),
            "zstd: error 70 : Write error",
        ),
        (
            (141, 127, 1),
            (1, 1),
            {("master", 1): "zstd: not found"},
            (ZSTD, "master"),
            "zstd: not found",
        ),
        (
            (141, 141, 1),
            (1, 1),
            {("replica", 0): "/*stdin*\\ : Decoding error (36)\n"},
            (ZSTD, "replica"),
            "Decoding error",
        ),
        ((141, 141, 1), (141, 1), {("replica", 1): FULL}, (STREAM, "replica"), "No space left"),
        (
            (1, 70, 1),
            (70, 1),
            {
                ("master", 0): BROKEN,
                ("master", 1): "zstd: error 70 : Write error : Broken pipe\n",
                ("replica", 0): "zstd: error 70 : Write error : Broken pipe\n",
            },
            (STREAM, "replica"),
            "ended with status 1",
        ),
        ((141, 141, 255), (1, 1), {("master", 2): "Timeout"}, (SSH, "master"), "Timeout"),
        ((0, 0, 255), (0, 0), {}, (SSH, "master"), "ended with status 255"),
    ],
)
def test_the_process_that_failed_first_is_named(
    sent: tuple[int, ...],
    received: tuple[int, ...],
    words: dict[tuple[str, int], str],
    blamed: tuple[str, str],
    says: str,
) -> None:
    """However the others failed in its wake; with its host and its own words."""
    tools, plan = make_tools(words), make_plan(compress="zstd:1")
    with pytest.raises(CommandError) as caught:
        check(tools, plan, make_state(*sent), make_state(*received))
    assert caught.value.message.startswith(f"the stream failed: {blamed[0]} ")
    assert says in caught.value.message
    assert caught.value.host == blamed[1]
    assert "runs resume" in caught.value.hint


@pytest.mark.parametrize(
    ("sent", "received", "words", "tool"),
    [
        ((141, 1), (1,), {("replica", 0): FULL}, STREAM),
        ((9, 1), (1,), {}, BACKUP),
        ((141, 255), (1,), {}, SSH),
    ],
)
def test_without_compression_there_is_no_such_stage(
    sent: tuple[int, ...], received: tuple[int, ...], words: Any, tool: str
) -> None:
    """The second stage of the donor is ssh."""
    with pytest.raises(CommandError, match=f"the stream failed: {tool} "):
        check(make_tools(words), make_plan(), make_state(*sent), make_state(*received))


def test_a_stream_that_went_well_raises_nothing() -> None:
    """All of its processes ended with 0."""
    plan = make_plan(compress="zstd:1")
    check(make_tools(), plan, make_state(0, 0, 0), make_state(0, 0))


def test_a_killed_host_is_no_process_that_failed() -> None:
    """Its job has no statuses at all."""
    died = dataclasses.replace(make_state(), ended=False, died=True)
    plan = make_plan(compress="zstd:1")
    for sent, received in ((died, died), (make_state(0, 0, 0), died)):
        with pytest.raises(CommandError, match="its job was killed"):
            check(make_tools(), plan, sent, received)


@pytest.mark.parametrize(
    ("read", "sent", "received", "blamed", "says"),
    [
        ((9, 0), (0, 0), (1,), (BACKUP, "master"), "ended with status 9"),
        ((0, 0), (0, 255), (1,), (SSH, "master"), "ended with status 255"),
        ((0, 0), (141, 1), (1,), (STREAM, "replica"), "ended with status 1"),
        ((0, 0), (137, 0), (0,), (fan_out.BUFFER, "master"), "was killed by signal 9"),
    ],
)
def test_the_process_of_a_common_stream_that_failed_is_named(
    read: tuple[int, ...],
    sent: tuple[int, ...],
    received: tuple[int, ...],
    blamed: tuple[str, str],
    says: str,
) -> None:
    """The backup tool is in the job that reads for all, ssh in this recipient's own."""
    plan = make_plan(backup_id="b1", group_runs=("r1", "r2"))
    tools = make_tools()
    cast("FakeRemote", tools.donor).answer("test", "-e", status=1)
    ends = stream_ends.Ends(
        read=make_state(*read), sent=make_state(*sent), received=make_state(*received)
    )
    with pytest.raises(CommandError, match=f"the stream failed: {blamed[0]} ") as caught:
        stream_ends.check_stages(tools, plan, ends, joins=True)
    assert says in caught.value.message
    assert caught.value.host == blamed[1]


def test_a_recipient_that_was_dropped_is_told() -> None:
    """Whatever its processes ended with."""
    plan = make_plan(backup_id="b1", group_runs=("r1", "r2"))
    tools = make_tools()
    ends = stream_ends.Ends(
        read=make_state(0, 0), sent=make_state(143, 255), received=make_state(1)
    )
    with pytest.raises(CommandError, match="was dropped from the stream") as caught:
        stream_ends.check_stages(tools, plan, ends, joins=True)
    assert plan.run_id in caught.value.hint


def test_a_plan_that_was_spoiled_starts_nothing() -> None:
    """A level that zstd does not have never becomes a command."""
    with pytest.raises(ValueError, match="must be auto"):
        stream_jobs.read_commands(make_plan(compress="zstd:1 --rm"), ("true",))
