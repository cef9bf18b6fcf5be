"""Who has read keys: our own notes against what an audit log says, which others may have written."""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator import config, key_uses
from orchestrator.errors import ConfigError
from orchestrator.repository import set_keys

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.config import Config

pytestmark = pytest.mark.timeout(30)

BACKUP_ID = "20261122T225314Z-db1-2124ab0d"
PATH = f"xbvault/data/transition-keys/{BACKUP_ID}"


@pytest.fixture
def loaded(tmp_path: Path) -> Config:
    """Return a configuration whose journal is in the test's folder."""
    return config.Config.model_validate(
        {
            "hosts": {"db1": {"vault_mount": "keys/db1"}},
            "journal": {"directory": str(tmp_path / "state")},
        }
    )


def make_entry(number: str, /, **changed: Any) -> dict[str, Any]:
    """Return an answer as OpenBao 2.x writes it, without what nobody reads here."""
    asked = {
        "id": number,
        "operation": "read",
        "namespace": {"id": "root"},
        "path": PATH,
        "remote_address": "192.0.2.7",
    }
    return {
        "time": "2026-11-22T23:57:03.898073038Z",
        "type": "response",
        "auth": {"display_name": "token", "policies": ["xbvault-orchestrator"]},
        "request": asked | changed.pop("request", {}),
        "response": {"data": {"data": {"key": "hmac-sha256:00"}, "metadata": {"version": 1}}},
    } | changed


def write_log(path: Path, *entries: dict[str, Any]) -> Path:
    """Write an audit log."""
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def note(loaded: Config, request: str, run_id: str = "", path: str = PATH) -> None:
    """Note a read as the door to Vault does."""
    key_uses._make_witness(loaded, run_id)(request, path)


def test_a_read_that_was_noted_is_ours(loaded: Config, tmp_path: Path) -> None:
    """With the run that made it; any other read of keys is somebody else's."""
    note(loaded, "r-1", "run-1")
    note(loaded, "r-2")
    log = write_log(tmp_path / "audit.log", *map(make_entry, ("r-1", "r-2", "r-3")))
    uses = key_uses.read_audit(loaded, [log])
    assert [(use.request, use.is_ours, use.run_id) for use in uses] == [
        ("r-1", True, "run-1"),
        ("r-2", True, ""),
        ("r-3", False, ""),
    ]
    assert [use.is_foreign for use in uses] == [False, False, True]
    assert (uses[2].backup_id, uses[2].user, uses[2].address) == (BACKUP_ID, "token", "192.0.2.7")
    assert uses[2].at.isoformat() == "2026-11-22T23:57:03.898073+00:00"


def test_only_reads_of_keys_are_noted(loaded: Config) -> None:
    """Nothing of the hosts' own mounts; and the file is closed to others."""
    note(loaded, "r-1", path="mariadb-db1/data/1")
    assert not (loaded.state_directory / key_uses.NOTES).exists()
    note(loaded, "r-2")
    assert (loaded.state_directory / key_uses.NOTES).stat().st_mode & 0o777 == 0o600
    assert key_uses.read_notes(loaded) == {"r-2": ""}


def test_keys_are_where_the_notes_look_for_them() -> None:
    """The folder of the notes is that of the keys."""
    assert PATH.endswith(set_keys.path_of(BACKUP_ID))


def test_a_note_that_cannot_be_written_stops_no_read(loaded: Config) -> None:
    """It is missing afterwards, which an audit points out."""
    loaded.state_directory.parent.mkdir(parents=True, exist_ok=True)
    loaded.state_directory.write_text("a file where the directory should be", encoding="utf-8")
    note(loaded, "r-1")


@pytest.mark.parametrize(
    "changed",
    [
        {"type": "request"},
        {"request": {"operation": "update"}},
        {"request": {"path": f"xbvault/metadata/transition-keys/{BACKUP_ID}"}},
        {"request": {"path": f"other/data/transition-keys/{BACKUP_ID}"}},
        {"request": {"namespace": {"id": "Xy", "path": "team/"}}},
    ],
)
def test_what_reads_no_key_of_ours_is_left_out(
    loaded: Config, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """Other requests, other mounts, other namespaces."""
    log = write_log(tmp_path / "audit.log", make_entry("r-1", **changed))
    assert key_uses.read_audit(loaded, [log]) == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"error": "1 error occurred:\n\t* permission denied\n\n"},
        {"response": {"data": {"http_status_code": 404, "http_raw_body": "hmac-sha256:00"}}},
    ],
)
def test_a_refused_read_is_told_and_is_no_use(
    loaded: Config, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """Somebody tried; nobody has the keys by it."""
    log = write_log(tmp_path / "audit.log", make_entry("r-1", **changed))
    (use,) = key_uses.read_audit(loaded, [log])
    assert not use.was_read
    assert not use.is_foreign


def test_a_wrapped_answer_is_a_use(loaded: Config, tmp_path: Path) -> None:
    """It hides what it holds, and was given out."""
    wrapped = {"response": {"wrap_info": {"ttl": 60, "token": "hmac-sha256:00"}}}
    (use,) = key_uses.read_audit(
        loaded, [write_log(tmp_path / "audit.log", make_entry("r-1", **wrapped))]
    )
    assert use.is_foreign


def test_several_files_are_one_history(loaded: Config, tmp_path: Path) -> None:
    """Rotated and gzipped ones; what stands in two of them counts once; the oldest comes first."""
    late = make_entry("r-2", time="2026-11-23T01:00:00Z")
    new = write_log(tmp_path / "audit.log", late)
    old = tmp_path / "audit.log.1.gz"
    old.write_bytes(gzip.compress((json.dumps(make_entry("r-1")) + "\n").encode()))
    uses = key_uses.read_audit(loaded, [new, old, new])
    assert [use.request for use in uses] == ["r-1", "r-2"]
    assert key_uses.read_audit(loaded, [new, old], since=uses[1].at) == uses[1:]


def test_a_last_line_in_the_making_is_left_for_the_next_time(
    loaded: Config, tmp_path: Path
) -> None:
    """Vault writes on while we read; a broken line before the last is another thing."""
    log = write_log(tmp_path / "audit.log", make_entry("r-1"))
    whole = log.read_bytes()
    log.write_bytes(whole + whole[:40])
    assert len(key_uses.read_audit(loaded, [log])) == 1
    log.write_bytes(whole + whole[:40] + b"\n" + whole)
    with pytest.raises(ConfigError, match="no audit log"):
        key_uses.read_audit(loaded, [log])


@pytest.mark.parametrize("content", [b"not one\n", b"[1]\n", b"{}\n", b"\xff\xfe\n", b"cut"])
def test_a_file_that_is_no_audit_log_is_refused(
    loaded: Config, tmp_path: Path, content: bytes
) -> None:
    """Not taken for one in which nobody has read anything."""
    file = tmp_path / "other.log"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="no audit log"):
        key_uses.read_audit(loaded, [file])


def test_a_file_that_cannot_be_read_is_named(loaded: Config, tmp_path: Path) -> None:
    """One that is not there, a directory, and a gzip that was cut."""
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(os.urandom(9000))[:4000])
    for file in (tmp_path / "none", tmp_path, cut):
        with pytest.raises(ConfigError, match=file.name):
            key_uses.read_audit(loaded, [file])


@pytest.mark.parametrize("value", [None, "x", 3, [1], {"data": 3}, {"policies": 3}])
@pytest.mark.parametrize("name", ["time", "auth", "response"])
def test_an_odd_entry_hides_no_read(
    loaded: Config, tmp_path: Path, name: str, value: object
) -> None:
    """Whatever stands in its other fields, a read of keys is told of."""
    log = write_log(tmp_path / "odd.log", make_entry("r-1", **{name: value}))
    (use,) = key_uses.read_audit(loaded, [log])
    assert use.is_foreign


def test_notes_that_a_kill_has_cut_are_read_as_far_as_they_go(loaded: Config) -> None:
    """A half line names no request."""
    note(loaded, "r-1")
    with (loaded.state_directory / key_uses.NOTES).open("a", encoding="utf-8") as file:
        file.write('{"at": "2026-11-22T23:57:03+00:00", "requ\n[]\n3\n')
    note(loaded, "r-2", "run-2")
    assert key_uses.read_notes(loaded) == {"r-1": "", "r-2": "run-2"}


def test_the_last_use_is_told_by_vault_where_it_can(loaded: Config, tmp_path: Path) -> None:
    """A foreign one by the name of its token, ours by its run; a refused read is none."""
    note(loaded, "r-1", "run-1")
    refused = make_entry("r-3", time="2026-11-24T00:00:00Z", error="permission denied")
    entries = [make_entry("r-1"), make_entry("r-2", time="2026-11-23T00:00:00Z"), refused]
    log = write_log(tmp_path / "audit.log", *entries)
    found = key_uses.read_last_uses(loaded, [log])
    assert found == {BACKUP_ID: key_uses.LastUse(at="2026-11-23T00:00:00+00:00", by="token")}
    (own,) = key_uses.read_last_uses(loaded, []).values()
    assert own.by == "run-1"
    note(loaded, "r-4")
    (own,) = key_uses.read_last_uses(loaded, []).values()
    assert own.by == "xbvault"


def test_notes_that_a_kill_has_cut_are_passed_over(loaded: Config) -> None:
    """Half a line, and one of another form."""
    note(loaded, "r-1", "run-1")
    file = loaded.state_directory / key_uses.NOTES
    with file.open("a", encoding="utf-8") as notes:
        notes.write('[]\n{"request": "r-2"}\n{"at": "2026')
    assert key_uses.read_notes(loaded) == {"r-1": "run-1"}
