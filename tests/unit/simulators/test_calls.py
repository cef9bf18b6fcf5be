"""How the double is called: versions, log, prompts, hidden secrets, knobs; all without a server."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from simulators import metadata
from simulators.console import Console
from simulators.errors import Failure
from simulators.keysfile import seal_keys
from simulators.settings import read_settings
from simulators.versions import parse_version
from xtrabackup_double import SIMULATORS, SPACE_ID, SPACE_KEY, run_tool, write_key_file, write_set

POSITION = metadata.Position(
    binlog_file="b.1", binlog_position="4", gtids="u:1-5,v:1", checkpoint="10", last="20"
)
VARIABLES = {
    "innodb_data_file_path": "ibdata1:12M:autoextend",
    "innodb_page_size": "16384",
    "server_id": "7",
    "server_uuid": "u-u",
    "innodb_redo_log_encrypt": "ON",
    "innodb_undo_log_encrypt": "ON",
}


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


@pytest.mark.parametrize(
    ("version", "server", "is_supported"),
    [
        ("2.4.29", "5.7.44-48", True),
        ("2.4.29", "8.0.35", False),
        ("2.4.29", "5.5.5-10.1.48-MariaDB", False),
        ("8.0.35-34", "8.0.46", True),
        ("8.0.30-23", "8.0.31", False),
        ("8.0.30-23", "8.0.29", True),
        ("8.0.35-34", "8.4.0", False),
        ("8.4.0-5", "8.4.9", True),
        ("8.4.0-5", "9.7.0", False),
        ("9.7.1", "9.7.4-2", True),
        ("9.7.1", "9.6.0", False),
        ("9.7.1", "nonsense", False),
    ],
)
def test_a_series_of_servers_is_supported(version: str, server: str, *, is_supported: bool) -> None:
    """The table of the tool's documentation."""
    parsed = parse_version(version)
    assert parsed.supports_server(server, is_later_allowed=False) == is_supported


def test_a_later_server_may_be_allowed() -> None:
    """--no-server-version-check counts before 8.0.34, and inside of 8.0 only."""
    parsed = parse_version("8.0.30-23")
    assert parsed.supports_server("8.0.31", is_later_allowed=True)
    assert not parsed.supports_server("8.4.0", is_later_allowed=True)


def test_a_version_has_a_form() -> None:
    """Anything else is refused."""
    assert run_tool("xtrabackup", "--version", settings={"version": "9"}).status == 1


@pytest.mark.parametrize(
    ("version", "form"),
    [
        ("2.4.29", r"\d{6} \d\d:\d\d:\d\d completed OK!"),
        (
            "8.0.35-34",
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}-00:00 0 \[Note\] \[MY-011825\]"
            r" \[Xtrabackup\] completed OK!",
        ),
    ],
)
def test_the_log_has_its_versions_form(
    version: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The time in front in 2.4, a line of the server's error log later."""
    Console(parse_version(version)).timed("completed OK!")
    assert re.fullmatch(form, capsys.readouterr().err.strip())


def test_the_log_names_threads(capsys: pytest.CaptureFixture[str]) -> None:
    """In brackets in 2.4, as the server's own thread later."""
    Console(parse_version("2.4.29")).copied("Streaming ./ibdata1")
    first, second = capsys.readouterr().err.splitlines()
    assert first[7:].split(" ", 1)[1] == "[01] Streaming ./ibdata1"
    assert second.endswith("[01]        ...done")
    Console(parse_version("9.7.1")).copied("Streaming ./ibdata1")
    assert " 1 [Note] [MY-011825] [Xtrabackup] Streaming" in capsys.readouterr().err


def test_errors_look_as_in_each_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Behind its name in 2.4, at the level ERROR later."""
    Console(parse_version("2.4.29")).failed("no")
    assert capsys.readouterr().err == "xtrabackup: Error: no\n"
    Console(parse_version("9.7.1")).failed("no")
    assert capsys.readouterr().err.endswith("0 [ERROR] [MY-011825] [Xtrabackup] no\n")


def test_sets_of_gtids_have_their_versions_lines() -> None:
    """Several lines in 2.4, one later."""
    assert POSITION.binlog_info(parse_version("2.4.29")) == "b.1\t4\tu:1-5,\nv:1\n"
    assert POSITION.binlog_info(parse_version("9.7.1")) == "b.1\t4\tu:1-5,v:1\n"


def test_the_state_is_written_as_in_each_version() -> None:
    """The keys of xtrabackup_checkpoints, in their order."""
    found = {
        version: re.findall(
            r"^(\w+) = ",
            metadata.checkpoints(parse_version(version), "full-backuped", to_lsn="1", last_lsn="2"),
            re.MULTILINE,
        )
        for version in ("2.4.29", "9.7.1")
    }
    common = ["backup_type", "from_lsn", "to_lsn", "last_lsn"]
    assert found["2.4.29"] == [*common, "compact", "recover_binlog_info"]
    assert found["9.7.1"] == [*common, "flushed_lsn", "redo_memory", "redo_frames"]


@pytest.mark.parametrize(("version", "shown"), [("2.4.16", "abc"), ("2.4.20", "...")])
def test_old_versions_leak_the_key_into_the_set(version: str, shown: str) -> None:
    """Before 2.4.20 the command line in xtrabackup_info has it in clear; never a password."""
    words = ["--backup", "--transition-key=abc", "--password=pw"]
    command = metadata.tool_command(parse_version(version), words)
    assert command == f"--backup --transition-key={shown} --password=..."


@pytest.mark.parametrize("version", ["2.4.29", "9.7.1"])
def test_the_servers_configuration_is_read_back(version: str, tmp_path: Path) -> None:
    """What --prepare and --copy-back need of the donor stands in backup-my.cnf."""
    text = metadata.server_config(
        VARIABLES, plugin="keyring_vault.so", master_key=3, v=parse_version(version)
    )
    (tmp_path / "backup-my.cnf").write_text(text)
    found = metadata.read_server_config(tmp_path)
    assert found["server_uuid"] == "u-u"
    assert found["master_key_id"] == "3"
    assert found["plugin_load"] == "keyring_vault.so"


@pytest.mark.parametrize(
    ("version", "statement"),
    [
        ("8.0.35-34", "CHANGE MASTER TO MASTER_AUTO_POSITION=1"),
        ("9.7.1", "CHANGE REPLICATION SOURCE TO SOURCE_AUTO_POSITION=1"),
    ],
)
def test_the_donors_own_sources_are_written(version: str, statement: str) -> None:
    """The set once, then a statement a channel; group replication is skipped."""
    channels = [
        {"Channel_Name": "", "Auto_Position": "1"},
        {"Channel_Name": "c", "Auto_Position": "1"},
        {"Channel_Name": "group_replication_applier", "Auto_Position": "1"},
    ]
    text = metadata.slave_info(parse_version(version), channels, "u:1")
    assert text == (f"SET GLOBAL gtid_purged='u:1';\n{statement};\n{statement} FOR CHANNEL 'c';\n")
    with pytest.raises(Failure, match="auto-position"):
        metadata.slave_info(parse_version(version), [{"Auto_Position": "0"}], "u:1")


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


def test_knobs_come_from_the_file_and_the_environment(tmp_path: Path) -> None:
    """The environment goes first; lists are lists in the file and have commas outside."""
    path = tmp_path / "xbsim.json"
    path.write_text(json.dumps({"version": "8.4.0-5", "fail": ["no-ok", "backup"]}))
    settings = read_settings({"XBSIM_CONFIG": str(path), "XBSIM_TIMEOUT_SECONDS": "5"})
    assert (settings.version, settings.timeout_seconds) == ("8.4.0-5", 5)
    assert settings.fails("no-ok")
    other = read_settings({"XBSIM_CONFIG": str(path), "XBSIM_FAIL": "prepare, copy-back"})
    assert other.fail == {"prepare", "copy-back"}


@pytest.mark.parametrize(
    "environment", [{"XBSIM_NO_SUCH": "1"}, {"XBSIM_FAIL": "nonsense"}, {"XBSIM_FAIL": "backup,x"}]
)
def test_wrong_knobs_are_refused(environment: dict[str, str]) -> None:
    """A knob that is misspelt would otherwise test nothing."""
    with pytest.raises(Failure, match="simulator: "):
        read_settings({"XBSIM_CONFIG": "/no/such", **environment})


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
