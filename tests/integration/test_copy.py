"""Stored sets copied from one repository to another, in a laboratory."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import CloneLab, running_lab
from small_sets import load_config, store_set

from orchestrator import vault
from orchestrator.repository import set_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)

REPOSITORY = "/srv/backups"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring a laboratory with two repositories up."""
    with running_lab(
        tmp_path_factory.mktemp("copy") / "lab", "--stores", "2", "--no-writer", size=0.02
    ) as found:
        yield found


@pytest.fixture
def backup_id(lab: CloneLab) -> str:
    """Return the name of a set of three parts in the first repository; the second is empty."""
    for store in ("store", "store2"):
        lab.on(store, f"rm -rf {REPOSITORY} && mkdir -m 0700 {REPOSITORY}")
    return store_set(lab, datetime.now(UTC), parts=3)


def call(lab: CloneLab, *arguments: str) -> tuple[int, Any]:
    """Return exit status and document of a command."""
    ended = lab.xbvault(*arguments, "--json", check=False)
    return ended.returncode, json.loads(ended.stdout)


def sums(lab: CloneLab, store: str, backup_id: str) -> str:
    """Return name and checksum of every file of a set."""
    return lab.on(store, f"cd {REPOSITORY}/{backup_id} && sha256sum *")


def holders(lab: CloneLab, backup_id: str) -> tuple[str, ...]:
    """Return the repositories that the set's record in Vault names, beside the first."""
    loaded = load_config(lab)
    door = vault.Vault.from_config(loaded.vault)
    return set_keys.list_others(door, loaded, backup_id, "store")


def left(lab: CloneLab) -> str:
    """Return what a run has left on the hosts of the repositories."""
    look = "ls /var/lib/xbvault/jobs /var/lib/xbvault/runs /run/xbvault 2>/dev/null | grep -v :"
    return "".join(lab.on(store, f"{look} || true") for store in ("store", "store2")).strip()


def test_a_copy_is_the_same_set(lab: CloneLab, backup_id: str) -> None:
    """Byte for byte; it verifies, and a second copy is refused."""
    status, planned = call(lab, "backups", "copy", "latest", "--to", "store2", "--plan")
    assert (status, planned["status"]) == (0, "planned")
    status, done = call(lab, "backups", "copy", "latest", "--to", "store2", "--yes")
    assert (status, done["status"], done["error"]) == (0, "succeeded", None)
    assert (done["repository"], done["part_count"]) == ("store2", 3)
    assert sums(lab, "store", backup_id) == sums(lab, "store2", backup_id)
    assert left(lab) == ""
    assert call(lab, "backups", "verify", backup_id, "--repo", "store2")[0] == 0
    status, refused = call(
        lab, "backups", "copy", backup_id, "--from", "store", "--to", "store2", "--yes"
    )
    assert status == 3
    assert "is there already" in refused["error"]["message"]
    status, refused = call(
        lab, "backups", "copy", backup_id, "--from", "store", "--to", "store", "--yes"
    )
    assert status == 3
    assert holders(lab, backup_id) == ("store2",)
    undone = call(lab, "runs", "undo", done["run_id"], "--yes")
    assert holders(lab, backup_id) == ()
    assert (undone[0], undone[1]["status"]) == (0, "undone")
    assert lab.on("store2", f"ls {REPOSITORY}").strip() == ""
    assert call(lab, "backups", "verify", backup_id)[0] == 0


def test_a_part_that_was_altered_is_named(lab: CloneLab, backup_id: str) -> None:
    """No manifest is written for it; put right, the copy is resumed; or cancelled, and is gone."""
    part = f"{REPOSITORY}/{backup_id}/part-000002.age"
    lab.on(
        "store",
        f"cp {part} /root/good && printf 'xxxxxxxxxxxxxxxx' | dd of={part} bs=1 conv=notrunc status=none",
    )
    status, failed = call(lab, "backups", "copy", backup_id, "--to", "store2", "--yes")
    assert status == 6
    assert "part-000002.age" in failed["error"]["message"]
    assert "manifest.json" not in lab.on("store2", f"ls {REPOSITORY}/{backup_id}")
    lab.on("store", f"cp /root/good {part}")
    status, done = call(lab, "runs", "resume", failed["run_id"])
    assert (status, done["status"]) == (0, "succeeded")
    assert sums(lab, "store", backup_id) == sums(lab, "store2", backup_id)
    assert left(lab) == ""


def test_a_cancelled_copy_leaves_a_set_that_was_there(lab: CloneLab, backup_id: str) -> None:
    """Whoever has put it there meanwhile; and one of its own is removed."""
    part = f"{REPOSITORY}/{backup_id}/part-000002.age"
    lab.on(
        "store",
        f"cp {part} /root/good && printf 'xxxxxxxxxxxxxxxx' | dd of={part} bs=1 conv=notrunc status=none",
    )
    failed = call(lab, "backups", "copy", backup_id, "--to", "store2", "--yes")[1]
    status, done = call(lab, "runs", "cancel", failed["run_id"], "--yes")
    assert (status, done["status"]) == (0, "cancelled")
    assert lab.on("store2", f"ls {REPOSITORY}").strip() == ""
    assert left(lab) == ""
    lab.on("store", f"cp /root/good {part}")
    assert call(lab, "backups", "verify", backup_id)[0] == 0


def test_a_set_whose_keys_are_gone_can_be_copied(lab: CloneLab, backup_id: str) -> None:
    """No key is needed for it, nor asked for."""
    assert call(lab, "keys", "revoke", backup_id, "--yes")[0] == 0
    assert call(lab, "backups", "copy", backup_id, "--to", "store2", "--yes")[0] == 0
    assert call(lab, "backups", "verify", backup_id, "--repo", "store2")[0] == 5
