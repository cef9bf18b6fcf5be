"""What the double writes in each version: its log, its files, its knobs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from simulators import metadata
from simulators.console import Console
from simulators.errors import Failure
from simulators.settings import read_settings
from simulators.versions import parse_version

if TYPE_CHECKING:
    from pathlib import Path

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
