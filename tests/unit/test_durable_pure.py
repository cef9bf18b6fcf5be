"""What the engine decides without the workflow library."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import engine_lab
import pytest

from orchestrator import durable, errors, models
from orchestrator.durable import files, journal, run_lock, serial
from orchestrator.errors import (
    CommandError,
    ConfigError,
    JournalError,
    LockHeldError,
    OrchestratorError,
)

if TYPE_CHECKING:
    from pathlib import Path

SERIALIZER = serial.JournalSerializer()


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"args": [{"a": [1, 2.5, "ü", True, None]}], "kwargs": {}},
        dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC),
        [{"at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}],
    ],
)
def test_value_comes_back_the_same(value: Any) -> None:
    """JSON values and moments survive the journal."""
    assert SERIALIZER.deserialize(SERIALIZER.serialize(value)) == value


@pytest.mark.parametrize("cls", errors.classes().values())
def test_error_comes_back_the_same(cls: type[OrchestratorError]) -> None:
    """Every class of ours crosses the journal with its context."""
    error = cls("it broke", host="db1", hint="mend it", problems=["a", "b"])
    found = SERIALIZER.deserialize(SERIALIZER.serialize(error))
    assert type(found) is cls
    assert found.as_json() == error.as_json()


def test_command_error_keeps_status_and_stderr() -> None:
    """What a command said is still there after the journal."""
    error = CommandError("it failed", status=7, stderr="line 1\nline 2")
    found = SERIALIZER.deserialize(SERIALIZER.serialize(error))
    assert (found.status, found.stderr) == (7, "line 1\nline 2")


def test_foreign_error_becomes_text() -> None:
    """An error that is not ours is journalled by its name and text, never as an object."""
    text = SERIALIZER.serialize(KeyError("missing"))
    assert json.loads(text) == {"$error": {"error": "KeyError", "message": "KeyError: 'missing'"}}
    found = SERIALIZER.deserialize(text)
    assert type(found) is OrchestratorError
    assert found.message == "KeyError: 'missing'"


@pytest.mark.parametrize("make", [ValueError, CommandError])
def test_error_is_redacted_on_its_way_in(make: type[Exception]) -> None:
    """A secret in an error's text does not reach the journal."""
    secret = models.Secret("hunter2-and-more")
    assert secret.reveal() not in SERIALIZER.serialize(make(f"login with {secret.reveal()}"))


@pytest.mark.parametrize(
    "value", [models.Secret("abcdefgh"), b"bytes", {1, 2}, object(), float("nan")]
)
def test_what_has_no_json_form_is_refused(value: object) -> None:
    """A secret, bytes or an object never enters the journal."""
    with pytest.raises((TypeError, ValueError)):
        SERIALIZER.serialize({"value": value})


def test_import_costs_no_workflow_library() -> None:
    """Importing the engine imports neither the library nor the logging stack."""
    code = (
        "import sys, orchestrator.durable, orchestrator.playbook;"
        "print([m for m in ('dbos', 'sqlalchemy', 'structlog', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_no_journal_means_no_runs(tmp_path: Path) -> None:
    """Asking where nothing was begun answers at once, and makes no file."""
    state = tmp_path / "state"
    config = engine_lab.make_config(state)
    assert durable.list_runs(config) == []
    with pytest.raises(ConfigError, match="unknown run 'r1'"):
        durable.read_run(config, "r1")
    assert not state.exists()


def test_empty_journal_means_no_runs(tmp_path: Path) -> None:
    """A file that was made by a process that died before its first run is no error."""
    (tmp_path / "journal.sqlite").touch(mode=0o600)
    assert durable.list_runs(engine_lab.make_config(tmp_path)) == []


def test_broken_journal_is_a_journal_error(tmp_path: Path) -> None:
    """A file that is no database is exit status 8, named by its path."""
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"no database at all " * 100)
    with pytest.raises(JournalError, match="not a database") as caught:
        durable.list_runs(engine_lab.make_config(tmp_path))
    assert caught.value.exit_status == 8
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_journal_is_private_even_where_the_umask_is_open(tmp_path: Path) -> None:
    """The directory is 0700 and the file 0600 with a write-ahead log, whatever they were before."""
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    (state / "journal.sqlite").touch(mode=0o644)
    before = os.umask(0)
    try:
        journal.create_journal(engine_lab.make_config(state))
    finally:
        os.umask(before)
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / "journal.sqlite").stat().st_mode & 0o777 == 0o600
    connection = sqlite3.connect(state / "journal.sqlite")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_directory_that_cannot_be_made_is_a_journal_error(tmp_path: Path) -> None:
    """A file where the directory should be is exit status 8, not a stack trace."""
    (tmp_path / "file").touch()
    config = engine_lab.make_config(tmp_path / "file" / "state")
    with pytest.raises(JournalError), run_lock.hold_run(config, "r1"):
        pass


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("database or disk is full", "make room"),
        (OSError(errno.ENOSPC, "No space left on device"), "make room"),
        ("database is locked", "another program"),
        (PermissionError(errno.EACCES, "Permission denied"), "may write"),
        ("database disk image is malformed", "a copy"),
    ],
)
def test_journal_error_says_what_to_do(tmp_path: Path, reason: object, hint: str) -> None:
    """The hint fits the reason."""
    assert hint in files.journal_error(tmp_path / "journal.sqlite", reason).hint


def test_run_lock_excludes_and_ends(tmp_path: Path) -> None:
    """Who asks while a run is held is told the pid; afterwards the lock is gone, file and all."""
    config = engine_lab.make_config(tmp_path)
    with run_lock.hold_run(config, "r1"):
        assert run_lock.find_holder(config, "r1") == os.getpid()
        with (
            pytest.raises(LockHeldError, match=f"held by process {os.getpid()}"),
            run_lock.hold_run(config, "r1", seconds=0),
        ):
            pass
        with run_lock.hold_run(config, "r2"):
            pass
    assert run_lock.find_holder(config, "r1") is None
    assert list((tmp_path / "locks").iterdir()) == []


def test_run_lock_file_of_a_dead_process_is_not_held(tmp_path: Path) -> None:
    """A lock file that nobody has locked is taken over, whatever pid is in it."""
    config = engine_lab.make_config(tmp_path)
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "r1").write_text("1\n")
    assert run_lock.find_holder(config, "r1") is None
    with run_lock.hold_run(config, "r1"):
        assert run_lock.find_holder(config, "r1") == os.getpid()


def test_run_lock_on_a_removed_file_does_not_count(tmp_path: Path) -> None:
    """Who opened the file before its holder removed it must not believe to hold the run."""
    path = tmp_path / "r1"
    first = run_lock.take_lock(path)
    assert first is not None
    late = os.open(path, os.O_RDWR)
    assert not run_lock.lock_descriptor(late, path)
    path.unlink()
    os.close(first)
    assert not run_lock.lock_descriptor(late, path)
    second = run_lock.take_lock(path)
    assert second is not None
    assert not run_lock.lock_descriptor(late, path)
    os.close(late)
    os.close(second)


def test_descriptor_of_the_run_lock_is_not_inherited(tmp_path: Path) -> None:
    """A child process cannot keep a run held."""
    descriptor = run_lock.take_lock(tmp_path / "r1")
    assert descriptor is not None
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_journal_directory_with_a_question_mark_is_refused(tmp_path: Path) -> None:
    """SQLite URLs end at a question mark; such a directory would put the journal elsewhere."""
    with pytest.raises(ConfigError, match=r"journal\.directory"):
        files.journal_url(tmp_path / "a?b" / "journal.sqlite")
