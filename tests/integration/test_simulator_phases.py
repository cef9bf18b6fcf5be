"""Prepare and copy-back of a small set without a server: refusals, states, files, headers."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from simulators.keyring import KeyringFile
from simulators.keysfile import seal_keys
from simulators.tablespaces import master_key_id, read_header
from xtrabackup_double import (
    DONOR_KEY,
    DONOR_UUID,
    SPACE_KEY,
    Done,
    prepare,
    run_tool,
    write_key_file,
    write_set,
)

if TYPE_CHECKING:
    from pathlib import Path

OLD = {"version": "2.4.29"}
WRONG_KEY = "failed to decrypt key and iv for tablespace 25. Wrong transition key?"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A set that was received and not prepared."""
    return write_set(tmp_path / "set")


def state(directory: Path) -> str:
    """Return a set's state."""
    text = (directory / "xtrabackup_checkpoints").read_text()
    match = re.search(r"backup_type = (.*)", text)
    assert match
    return match[1]


def keyring_config(directory: Path, **values: object) -> Path:
    """Write the configuration of the recipient's keyring component."""
    path = directory / "component_keyring_file.cnf"
    content = {"path": str(directory / "keys"), "read_only": False, **values}
    path.write_text(json.dumps(content))
    return path


def copy_back(
    backup: Path, *words: str | Path, key: str = "", mode: str = "--copy-back", **settings: str
) -> Done:
    """Copy a set back, with a new master key in the component's keyring."""
    directory = backup.parent
    own = write_key_file(directory / "key.cnf", **({"key": key} if key else {}))
    return run_tool(
        "xtrabackup",
        *(f"--defaults-file={own}", mode, f"--target-dir={backup}"),
        *("--generate-new-master-key", f"--datadir={directory}/data"),
        *(words or (f"--component-keyring-config={keyring_config(directory)}",)),
        settings=settings,
    )


@pytest.mark.parametrize("version", ["2.4.29", "8.0.35-34", "8.4.0-5", "9.7.1"])
def test_prepare_marks_the_set(backup: Path, version: str) -> None:
    """Each version does it, says so in its last line, and does it again harmlessly."""
    (backup / "xtrabackup_info").write_text(f"server_version = {version.partition('-')[0]}\n")
    done = prepare(backup, {"version": version})
    assert done.is_ok, done.stderr
    assert state(backup) == "full-prepared"
    assert (backup / "#innodb_redo").is_dir()
    assert prepare(backup, {"version": version}).is_ok


def test_prepare_of_2_4_writes_the_master_keys_number(tmp_path: Path) -> None:
    """The highest that it saw, in decimal; and the position of InnoDB."""
    backup = write_set(tmp_path / "set", number=12)
    assert prepare(backup, OLD).is_ok
    assert (backup / "xtrabackup_master_key_id").read_text() == "12"
    assert (backup / "xtrabackup_binlog_pos_innodb").read_text() == "binlog.000001\t4\n"


def test_prepare_may_leave_the_last_step_out(backup: Path) -> None:
    """--apply-log-only leaves a set that copy-back refuses and prepare takes again."""
    words = ("--prepare", "--apply-log-only", f"--target-dir={backup}", "--transition-key")
    key = b"0123456789abcdef0123456789abcdef\n"
    assert run_tool("xtrabackup", *words, stdin=key).is_ok
    assert state(backup) == "log-applied"
    assert "not fully prepared" in copy_back(backup).stderr
    assert prepare(backup).is_ok


@pytest.mark.parametrize("version", ["2.4.29", "9.7.1"])
def test_prepare_with_a_wrong_key_can_be_repeated(backup: Path, version: str) -> None:
    """The tool names the first tablespace, exits 1, and leaves the set as it is."""
    words = ("--prepare", f"--target-dir={backup}", "--transition-key")
    done = run_tool("xtrabackup", *words, stdin=b"wrong\n", settings={"version": version})
    assert done.status == 1
    assert f"Error reading xtrabackup_keys: {WRONG_KEY}" in done.stderr
    assert done.stderr.strip().endswith("failed to load tablespace keys")
    assert state(backup) == "full-backuped"
    assert prepare(backup).is_ok


def test_prepare_of_truncated_keys_crashes(backup: Path) -> None:
    """The record that is cut is dropped, and its tablespace looks corrupt: signal 6, status 2."""
    keys = backup / "xtrabackup_keys"
    keys.write_bytes(keys.read_bytes()[:-1])
    done = prepare(backup)
    assert done.status == 2
    assert "signal 6" in done.stderr
    assert state(backup) == "full-backuped"


def test_a_set_without_encrypted_tables_takes_any_key(backup: Path) -> None:
    """There is no record that a wrong key would not open, and a new master key is made."""
    (backup / "shop" / "customer.ibd").unlink()
    (backup / "xtrabackup_keys").write_bytes(seal_keys("another key", {}))
    assert prepare(backup).is_ok
    done = copy_back(backup, key="a third key")
    assert done.is_ok
    assert "Generated new master key" in done.stderr
    assert "Encrypting" not in done.stderr


def test_prepare_without_the_key_of_a_sealed_set(backup: Path) -> None:
    """The file of keys is there, and no key for it was given."""
    done = run_tool("xtrabackup", "--prepare", f"--target-dir={backup}", settings=OLD)
    assert done.status == 1
    assert "Error reading xtrabackup_keys: failed to derive encryption key." in done.stderr


def test_prepare_with_a_key_for_nothing(tmp_path: Path) -> None:
    """A key was given, and the set has no file of keys."""
    done = prepare(write_set(tmp_path / "set", has_keys=False), OLD)
    assert done.status == 1
    assert done.stderr.endswith(
        "xtrabackup: Error: --transition-key specified, but xtrabackup_keys is not found.\n"
    )


def test_prepare_without_keys_needs_the_donors_keyring(tmp_path: Path) -> None:
    """It is found through the configuration in the set, and must hold the master key."""
    backup = write_set(tmp_path / "set", has_keys=False)
    words = ("--prepare", f"--target-dir={backup}")
    assert run_tool("xtrabackup", *words).status == 1
    keyring_config(backup, path=str(tmp_path / "keys"))
    keyring = KeyringFile(path=tmp_path / "keys")
    keyring.store_key(master_key_id(DONOR_UUID, 1), b"w" * 32)
    refused = run_tool("xtrabackup", *words)
    assert (refused.status, "can't find master key" in refused.stderr) == (1, True)
    keyring.store_key(master_key_id(DONOR_UUID, 1), DONOR_KEY)
    assert run_tool("xtrabackup", *words).is_ok


def test_prepare_reads_no_other_option_file(backup: Path, tmp_path: Path) -> None:
    """The key in --defaults-file is not seen, and the same file with the target in it is."""
    own = write_key_file(tmp_path / "k.cnf")
    words = (f"--defaults-file={own}", "--prepare", f"--target-dir={backup}")
    assert "failed to derive encryption key" in run_tool("xtrabackup", *words).stderr
    own = write_key_file(tmp_path / "k.cnf", f"target-dir={backup}")
    assert run_tool("xtrabackup", f"--defaults-file={own}", "--prepare").is_ok


def test_prepare_checks_the_series_again(backup: Path) -> None:
    """A set of another series is refused, but not by 2.4."""
    assert "Unsupported server version: '9.7.4'" in prepare(backup, {"version": "8.4.0-5"}).stderr


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("xtrabackup_checkpoints", "cannot open"),
        ("xtrabackup_logfile", "xtrabackup_logfile does not exist"),
    ],
)
def test_prepare_refuses_what_is_no_set(backup: Path, broken: str, words: str) -> None:
    """Without the state or the redo there is nothing to prepare."""
    (backup / broken).unlink()
    done = prepare(backup)
    assert (done.status, words in done.stderr) == (1, True)


@pytest.mark.parametrize("mode", ["--copy-back", "--move-back"])
def test_copy_back_puts_the_set_under_a_new_key(backup: Path, mode: str) -> None:
    """The header names the new key, which is in the recipient's keyring and opens it."""
    prepare(backup)
    done = copy_back(backup, mode=mode)
    assert done.is_ok, done.stderr
    table = backup.parent / "data" / "shop" / "customer.ibd"
    header = read_header(table)
    assert header
    assert header.server_uuid != DONOR_UUID
    assert f"Generated new master key with ID '{header.server_uuid}-2'." in done.stderr
    assert f"Encrypting {table} tablespace header with new master key." in done.stderr
    key = KeyringFile(path=backup.parent / "keys").read_key(header.master_key_id)
    assert key
    assert header.open_with(key) == SPACE_KEY
    assert header.open_with(DONOR_KEY) is None
    assert (backup / "shop" / "customer.ibd").exists() == (mode == "--copy-back")


def test_copy_back_leaves_some_files_out_and_some_in(backup: Path) -> None:
    """xtrabackup_info and xtrabackup_keys land in the datadir; the others do not."""
    prepare(backup)
    (backup / "t.ibd.qp").write_text("packed")
    keyring_config(backup)
    assert copy_back(backup).is_ok
    datadir = backup.parent / "data"
    found = {path.name for path in datadir.rglob("*") if path.is_file()}
    assert found == {"customer.ibd", "ib_buffer_pool", "xtrabackup_info", "xtrabackup_keys"}


def test_copy_back_refuses_a_filled_datadir(backup: Path) -> None:
    """Before any key is made; lost+found does not count."""
    prepare(backup)
    datadir = backup.parent / "data"
    (datadir / "lost+found").mkdir(parents=True)
    (datadir / "mine").write_text("x")
    done = copy_back(backup)
    assert done.status == 1
    assert done.stderr.endswith(f"Original data directory {datadir} is not empty!\n")
    assert not (backup.parent / "keys").exists()
    (datadir / "mine").unlink()
    assert copy_back(backup).is_ok


def test_copy_back_with_a_wrong_key_makes_no_key(backup: Path) -> None:
    """The datadir is made and stays empty."""
    prepare(backup)
    done = copy_back(backup, key="wrong")
    assert (done.status, WRONG_KEY in done.stderr) == (1, True)
    assert list((backup.parent / "data").iterdir()) == []
    assert not (backup.parent / "keys").exists()


def test_copy_back_needs_a_prepared_set(backup: Path) -> None:
    """Each version has its words for it."""
    assert copy_back(backup, **OLD).stderr.endswith("xtrabackup: Error: can't read master_key_id\n")
    assert "The target is not fully prepared." in copy_back(backup).stderr


def test_copy_back_needs_keys_for_a_new_master_key(tmp_path: Path) -> None:
    """A set without the file of keys cannot be put under another key."""
    backup = write_set(tmp_path / "set", has_keys=False, state="full-prepared")
    words = "option --generate_new_master_key is specified but xtrabackup_keys is absent."
    assert words in copy_back(backup).stderr


def test_copy_back_needs_a_datadir(backup: Path) -> None:
    """It does not guess."""
    done = run_tool("xtrabackup", "--copy-back", f"--target-dir={backup}")
    assert (done.status, "datadir must be specified" in done.stderr) == (1, True)


def test_copy_back_needs_a_keyring(backup: Path) -> None:
    """None named, one of a wrong name, one of another component, and one that may not be written."""
    prepare(backup)
    directory = backup.parent
    assert "can't generate new master key" in copy_back(backup, "--strict").stderr
    other = directory / "other.cnf"
    assert (
        f"Unable to read {other}" in copy_back(backup, f"--component-keyring-config={other}").stderr
    )
    kmip = directory / "component_keyring_kmip.cnf"
    assert "simulated" in copy_back(backup, f"--component-keyring-config={kmip}").stderr
    fixed = keyring_config(directory, read_only=True)
    both = (f"--component-keyring-config={fixed}", f"--component-keyring-file-config={fixed}")
    assert "mutually exclusive" in copy_back(backup, *both).stderr
    refused = copy_back(backup, f"--component-keyring-config={fixed}")
    assert "can't generate new master key" in refused.stderr


def test_copy_back_without_a_new_key_rewrites_nothing(backup: Path) -> None:
    """The header still names the donor's key."""
    prepare(backup)
    words = ("--copy-back", f"--target-dir={backup}", f"--datadir={backup.parent}/data")
    done = run_tool("xtrabackup", *words)
    assert done.is_ok
    assert "Encrypting" not in done.stderr
    header = read_header(backup.parent / "data" / "shop" / "customer.ibd")
    assert header
    assert header.open_with(DONOR_KEY) == SPACE_KEY


def test_a_header_that_is_not_rewritten_is_not_told(backup: Path) -> None:
    """As the real tool ignores it: success, and the old key's name in the header."""
    prepare(backup)
    done = copy_back(backup, fail="header-rewrite")
    assert done.is_ok
    assert "Encrypting" not in done.stderr
    header = read_header(backup.parent / "data" / "shop" / "customer.ibd")
    assert header
    assert header.server_uuid == DONOR_UUID


def test_a_full_disk_is_met_behind_the_new_key(backup: Path) -> None:
    """The key is stored, and no file is copied."""
    prepare(backup)
    done = copy_back(backup, fail="copy-back-disk-full")
    assert (done.status, "copy_file() failed" in done.stderr) == (1, True)
    assert "INNODBKey-" in (backup.parent / "keys").read_text()
    assert list((backup.parent / "data").iterdir()) == []


@pytest.mark.parametrize("mode", ["copy-back", "move-back"])
def test_a_copy_may_end_half_way(backup: Path, mode: str) -> None:
    """Some files are in place, some are not."""
    prepare(backup)
    assert copy_back(backup, mode=f"--{mode}", fail=mode).status == 1
    assert (backup.parent / "data" / "ib_buffer_pool").exists()
    assert not (backup.parent / "data" / "xtrabackup_keys").exists()


def test_success_may_lack_its_last_line(backup: Path) -> None:
    """The work is done and the status is 0, and completed OK! is missing."""
    done = prepare(backup, {"fail": "no-ok"})
    assert (done.status, done.is_ok, state(backup)) == (0, False, "full-prepared")
    assert "completed OK!" not in done.stderr


def test_prepare_may_fail(backup: Path) -> None:
    """The set says what it said, and its redo is spoilt."""
    assert prepare(backup, {"fail": "prepare"}).status == 1
    assert state(backup) == "full-backuped"
