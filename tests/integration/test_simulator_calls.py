"""How the double is called: refusals, prompts, hidden secrets; without a server."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from simulators.keysfile import seal_keys
from xtrabackup_double import SIMULATORS, SPACE_ID, SPACE_KEY, run_tool, write_key_file, write_set


@pytest.mark.parametrize(
    ("version", "base"),
    [("2.4.29", "5.7.44"), ("8.0.35-34", "8.0.35"), ("8.4.0-5", "8.4.0"), ("9.7.1", "9.7.1")],
)
def test_the_version_is_told_on_stderr(version: str, base: str) -> None:
    """In the real form, and nothing on stdout."""
    done = run_tool("xtrabackup", "--version", settings={"version": version})
    assert (done.status, done.stdout) == (0, b"")
    assert done.stderr.splitlines()[-1] == (
        f"xtrabackup version {version} based on MySQL server {base} Linux (x86_64)"
        " (revision id: simulator)"
    )


def test_a_version_has_a_form() -> None:
    """Anything else is refused."""
    assert run_tool("xtrabackup", "--version", settings={"version": "9"}).status == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--backup", "--prepare"], "Only one of the following options"),
        ([], "Only one of the following options"),
        (["--backup", "stray"], "unknown argument: 'stray'"),
        (["--backup", "--transition-key", "K"], "unknown argument: 'K'"),
        (["--backup", "--compress"], "not simulated"),
        (
            ["--backup", "--transition-key=a", "--generate-transition-key"],
            "mutually exclusive",
        ),
        (["--backup", "--transition-key=a"], "set mysql_prefix"),
    ],
)
def test_bad_calls_are_refused(words: list[str], said: str) -> None:
    """With status 1 and without completed OK!."""
    done = run_tool("xtrabackup", *words)
    assert done.status == 1
    assert said in done.stderr
    assert "completed OK!" not in done.stderr


def test_unknown_options_are_only_warned_about(tmp_path: Path) -> None:
    """Unless --strict is given."""
    backup = write_set(tmp_path / "set", state="full-prepared")
    words = ("--prepare", f"--target-dir={backup}", "--no-such-thing")
    done = run_tool("xtrabackup", *words)
    assert done.is_ok
    assert "[Warning]" in done.stderr
    assert "'--no-such-thing'" in done.stderr
    assert run_tool("xtrabackup", *words, "--strict").status == 2


@pytest.mark.parametrize("typed", [b"", b"\n"])
def test_nothing_typed_is_an_empty_key(typed: bytes, tmp_path: Path) -> None:
    """The end of the input is taken for a key, which here is a wrong one."""
    backup = write_set(tmp_path / "set")
    words = ("--prepare", f"--target-dir={backup}", "--transition-key")
    assert "Wrong transition key?" in run_tool("xtrabackup", *words, stdin=typed).stderr


def test_the_prompt_goes_to_the_terminal(tmp_path: Path) -> None:
    """With a controlling terminal stdin is not read, and what is typed is not shown."""
    backup = write_set(tmp_path / "set")
    child, terminal = pty.fork()
    if child == 0:
        words = ["--prepare", f"--target-dir={backup}", "--transition-key"]
        with Path(os.devnull).open() as nothing:
            os.dup2(nothing.fileno(), 0)
        os.execv(SIMULATORS / "xtrabackup", ["xtrabackup", *words])
    shown = b""
    while b"Enter transition key: " not in shown:
        assert select.select([terminal], [], [], 30)[0], shown
        shown += os.read(terminal, 4096)
    os.write(terminal, b"0123456789abcdef0123456789abcdef\n")
    _, status = os.waitpid(child, 0)
    shown += os.read(terminal, 65536)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"completed OK!" in shown
    assert b"0123456789abcdef" not in shown


def test_secrets_are_hidden_from_ps(tmp_path: Path) -> None:
    """While the tool waits for another secret, the one in its command line is overwritten."""
    words = ["--backup", f"--target-dir={tmp_path}", "--transition-key=topsecret", "--password"]
    process = subprocess.Popen(
        [SIMULATORS / "xtrabackup", *words],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stderr
        deadline = time.monotonic() + 30
        shown = b""
        while b"Enter password: " not in shown:
            assert time.monotonic() < deadline
            shown += os.read(process.stderr.fileno(), 4096)
        seen = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    finally:
        process.communicate(b"\n", timeout=30)
    assert b"topsecret" not in seen
    assert b"--transition-key=x\0xxxxxxx\0--password\0" in seen
    assert b"--transition-key=*" in shown


@pytest.mark.parametrize(("length", "is_right"), [(79, True), (100, False)])
def test_a_typed_key_is_cut(length: int, *, is_right: bool, tmp_path: Path) -> None:
    """A long key of an option file is another one when it is typed."""
    key = "k" * length
    backup = write_set(tmp_path / "set")
    (backup / "xtrabackup_keys").write_bytes(seal_keys(key, {SPACE_ID: SPACE_KEY}))
    words = ("--prepare", f"--target-dir={backup}", "--transition-key")
    assert run_tool("xtrabackup", *words, stdin=key.encode()).is_ok == is_right
    own = write_key_file(tmp_path / "k.cnf", f"target-dir={backup}", key=key)
    assert run_tool("xtrabackup", f"--defaults-file={own}", "--prepare").is_ok


def test_a_call_is_recorded_without_its_secrets(tmp_path: Path) -> None:
    """The log of calls tells whether the key stood in the command line, and not the key."""
    log = tmp_path / "calls"
    run_tool("xtrabackup", "--backup", "--transition-key=abcdef", settings={"log": log})
    (line,) = log.read_text().splitlines()
    assert "abcdef" not in line
    assert json.loads(line) == {
        "argv": ["--backup", "--transition-key"],
        "key_in_argv": True,
        "prompted": False,
    }


def test_it_dies_with_the_thread_that_started_it(tmp_path: Path) -> None:
    """A shell that started it is killed, and it is gone at once."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = f"{SIMULATORS}/xtrabackup --backup --password <{fifo} & echo $!; wait"
    parent = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert parent.stdout
    assert parent.stderr
    child = int(parent.stdout.readline())
    with fifo.open("w"):
        assert b"recognized" in parent.stderr.readline()
        parent.send_signal(signal.SIGKILL)
        parent.wait(30)
        deadline = time.monotonic() + 30
        while Path(f"/proc/{child}/stat").exists() and is_alive(child):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    parent.stdout.close()
    parent.stderr.close()


def is_alive(pid: int) -> bool:
    """Return whether a process is more than an entry that nobody has read yet."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_it_runs_from_another_place(tmp_path: Path) -> None:
    """A copy of the folder and links to it are enough, and nothing is written into the copy."""
    copy = tmp_path / "lib" / "simulators"
    shutil.copytree(SIMULATORS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("xtrabackup", "xbstream"):
        (tmp_path / name).symlink_to(copy / name)
    version = subprocess.run(
        [tmp_path / "xtrabackup", "--version"], cwd="/", capture_output=True, check=True, timeout=30
    )
    assert b"xtrabackup version 9.7.1" in version.stderr
    subprocess.run([tmp_path / "xbstream", "-c"], check=True, timeout=30)
    assert not (copy / "__pycache__").exists()


def test_a_backup_may_fail_at_once(tmp_path: Path) -> None:
    """Before it asks for anything."""
    words = ("--backup", f"--target-dir={tmp_path}")
    done = run_tool("xtrabackup", *words, settings={"fail": "backup"})
    assert (done.status, done.stdout) == (1, b"")
    assert "set to fail in backup" in done.stderr
