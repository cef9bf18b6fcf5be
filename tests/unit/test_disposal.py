"""What an expiry holds, and how the next one knows of a killed one's; the rest is tried in a laboratory."""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING

import pytest
from local_remote import LocalRemote

from orchestrator import catalogue, config, disposal, key_uses, lock
from orchestrator.errors import JournalError, LockHeldError
from orchestrator.models import backup_lock_dir

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.config import Config

pytestmark = pytest.mark.timeout(30)

BASE = backup_lock_dir("db1")


@pytest.fixture
def loaded(tmp_path: Path) -> Config:
    """Return a configuration whose journal is in the test's folder."""
    return config.Config.model_validate(
        {
            "hosts": {"db1": {"vault_mount": "keys/db1"}},
            "repositories": {"store": {"path": "/srv/backups"}},
            "journal": {"directory": str(tmp_path / "state")},
        }
    )


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalRemote:
    """The repository's host, which is a folder of the test; there is no Vault."""
    (tmp_path / "host/var/lib/xbvault").mkdir(parents=True)
    found = LocalRemote(root=tmp_path / "host", name="store")
    monkeypatch.setattr(catalogue, "open_repository", lambda _config, _name: found)
    monkeypatch.setattr(key_uses, "open_vault", lambda _config: None)
    return found


def leave_claim(loaded: Config) -> Path:
    """Hold the backups of a host as an expiry does, and be gone; return the file that is left."""
    with contextlib.suppress(KeyboardInterrupt), disposal._claim(loaded, "store", "db1"):
        raise KeyboardInterrupt
    return loaded.state_directory / disposal.CLAIMS / "store:db1"


def test_a_claim_is_one_process_and_one_name(loaded: Config) -> None:
    """Nobody else gets it meanwhile; after its end nothing of it is left, and the name is another."""
    with disposal._claim(loaded, "store", "db1") as first:
        with (
            pytest.raises(LockHeldError, match="another expiry of the backups of db1 in store"),
            disposal._claim(loaded, "store", "db1"),
        ):
            pass
        with disposal._claim(loaded, "store", "db2") as other:
            assert other != first
    folder = loaded.state_directory / disposal.CLAIMS
    assert list(folder.iterdir()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with disposal._claim(loaded, "store", "db1") as again:
        assert again != first


@pytest.mark.parametrize("content", ["", "expire-", "expire-1234567", "\x00\xff"])
def test_a_name_that_was_cut_is_made_anew(loaded: Config, content: str) -> None:
    """Who was killed before the name was whole has held nothing."""
    path = leave_claim(loaded)
    path.write_text(content, encoding="latin-1")
    with disposal._claim(loaded, "store", "db1") as run:
        assert disposal._CLAIM.fullmatch(run)
        assert path.read_text("utf-8") == run


def test_what_a_killed_expiry_held_is_given_back(loaded: Config, remote: LocalRemote) -> None:
    """By the next one, also if nothing expires any more: no backup waits for the end of a lease."""
    path = leave_claim(loaded)
    run = path.read_text("utf-8")
    lock.take_lock(remote, run=run, holder=run, lease_seconds=900, base=BASE)
    with pytest.raises(LockHeldError, match=f"run {run} holds store"):
        lock.take_lock(remote, run="backup", holder="j", lease_seconds=60, base=BASE)
    assert list(disposal.expire(loaded, ())) == []
    assert not path.exists()
    assert not lock.read_lock(remote, base=BASE).run


def test_what_another_holds_is_left_to_it(loaded: Config, remote: LocalRemote) -> None:
    """The lease of a killed expiry may have run out, and a backup have come after it."""
    leave_claim(loaded)
    lock.take_lock(remote, run="backup", holder="j", lease_seconds=60, base=BASE)
    assert list(disposal.expire(loaded, ())) == []
    assert lock.read_lock(remote, base=BASE).run == "backup"


def test_a_host_that_is_away_keeps_no_expiry_waiting(loaded: Config) -> None:
    """What cannot be given back now is kept in mind, and its lease ends by itself."""
    path = leave_claim(loaded)
    gone = loaded.model_copy(update={"repositories": {}})
    disposal._free_left(gone)
    assert path.exists()


def test_a_state_that_cannot_be_written_is_told(loaded: Config) -> None:
    """Nothing is taken that would not be given back."""
    loaded.state_directory.write_text("no folder", encoding="utf-8")
    with (
        pytest.raises(JournalError, match=r"cannot write .*store:db1"),
        disposal._claim(loaded, "store", "db1"),
    ):
        pass
