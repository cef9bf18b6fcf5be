"""Sets that are given up, in a laboratory: expired by the retention, or made unreadable.

The sets are small ones, made here as a backup makes them, with keys of their own in Vault.
"""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import CloneLab, running_lab
from lab import bao, model
from small_sets import load_config, store_set

from orchestrator import catalogue, disposal, jobs, lock, vault
from orchestrator.models import backup_lock_dir
from orchestrator.repository import set_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.remote import SshRemote

pytestmark = pytest.mark.timeout(300)

REPOSITORY = "/srv/backups"
RETENTION = "\n[repositories.store.retention]\nlast = 1\nminimum = 2\n"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring a laboratory with two repositories up, of which the first has a retention."""
    with running_lab(
        tmp_path_factory.mktemp("disposal") / "lab", "--stores", "2", "--no-writer", size=0.02
    ) as found:
        file = found.directory / "xbvault.toml"
        file.write_text(file.read_text("utf-8") + RETENTION, encoding="utf-8")
        yield found


@pytest.fixture
def sets(lab: CloneLab) -> list[str]:
    """Return the names of three sets in the first repository, the newest first."""
    for store in ("store", "store2"):
        lab.on(store, f"rm -rf {REPOSITORY} && mkdir -m 0700 {REPOSITORY}")
    moment = datetime.now(UTC) - timedelta(hours=1)
    return [store_set(lab, moment - timedelta(minutes=minutes)) for minutes in range(3)]


def call(lab: CloneLab, *arguments: str) -> tuple[int, Any]:
    """Return exit status and document of a command."""
    ended = lab.xbvault(*arguments, "--json", check=False)
    return ended.returncode, json.loads(ended.stdout)


def there(lab: CloneLab) -> list[str]:
    """Return the folders of the first repository, the newest first."""
    return sorted(lab.on("store", f"ls {REPOSITORY}").split(), reverse=True)


def key_state(lab: CloneLab, backup_id: str) -> tuple[str, str]:
    """Return whether the keys of a set can be read, and what the record says."""
    loaded = load_config(lab)
    door = vault.Vault.from_config(loaded.vault)
    found = door.read_secret(loaded.vault.mount, set_keys.path_of(backup_id))
    metadata = door.read_metadata(loaded.vault.mount, set_keys.path_of(backup_id))
    return ("there" if found else "gone"), (metadata.custom["state"] if metadata else "none")


def open_store(lab: CloneLab) -> closing[SshRemote]:
    """Return the door to the first repository's host."""
    return closing(catalogue.open_repository(load_config(lab), "store"))


def test_the_retention_decides_and_the_last_sets_stay(lab: CloneLab, sets: list[str]) -> None:
    """The plan changes nothing; then the oldest goes with its keys; then nothing more."""
    status, planned = call(lab, "backups", "expire", "--plan")
    assert (status, planned["status"]) == (0, "planned")
    assert [item["keep"] for item in planned["sets"]] == [True, True, False]
    assert planned["sets"][2]["reasons"] == ["no rule keeps it"]
    assert there(lab) == sets
    status, done = call(lab, "backups", "expire", "--yes")
    assert (status, done["status"], done["error"]) == (0, "expired", None)
    assert [item["removed"] for item in done["sets"]] == [False, False, True]
    assert there(lab) == sets[:2]
    assert key_state(lab, sets[2]) == ("gone", "destroyed")
    assert key_state(lab, sets[1]) == ("there", "active")
    status, again = call(lab, "backups", "expire", "--yes")
    assert (status, [item["keep"] for item in again["sets"]]) == (0, [True, True])
    assert "removed" not in lab.xbvault("backups", "expire", "--yes").stdout
    refused = lab.xbvault("backups", "expire", "--repo", "store2", "--yes", check=False)
    assert refused.returncode == 2
    assert "repository store2: no retention is set" in refused.stderr
    assert "[repositories.store2.retention]" in refused.stderr


def test_a_set_that_is_read_or_backed_up_stays(lab: CloneLab, sets: list[str]) -> None:
    """As long as a remote job reads it, or another run holds the backups of its host."""
    with open_store(lab) as remote:
        spec = jobs.JobSpec(
            name="r1.send-backup",
            stages=(jobs.Stage(argv=("sh", "-c", "sleep 60", f"{REPOSITORY}/{sets[2]}")),),
        )
        jobs.start_job(remote, spec)
        status, done = call(lab, "backups", "expire", "--yes")
        assert (status, done["status"]) == (3, "failed")
        assert "is being read, by r1.send-backup" in done["error"]["message"]
        assert key_state(lab, sets[2])[0] == "there"
        jobs.stop_job(remote, "r1.send-backup")
        status, done = call(lab, "backups", "expire", "--yes")
        assert status == 3, "the run has not ended with its job"
        assert key_state(lab, sets[2])[0] == "there"
        jobs.remove_job(remote, "r1.send-backup")
        base = backup_lock_dir("master")
        lock.take_lock(remote, run="r2", holder="j", lease_seconds=60, base=base)
        status, done = call(lab, "backups", "expire", "--yes")
        assert status == 3
        assert "run r2 holds store" in done["error"]["message"]
        lock.release_lock(remote, run="r2", holder="j", base=base)
    assert there(lab) == sets
    assert call(lab, "backups", "expire", "--yes")[0] == 0
    assert there(lab) == sets[:2]


def test_a_removal_that_was_cut_off_is_finished(lab: CloneLab, sets: list[str]) -> None:
    """With its keys gone, or half of its files, whatever the rules would say of it."""
    loaded = load_config(lab)
    door = vault.Vault.from_config(loaded.vault)
    set_keys.destroy(door, loaded, sets[0], by="somebody", reason=disposal.EXPIRED)
    status, done = call(lab, "backups", "expire", "--yes")
    assert status == 0
    by_name = {item["backup_id"]: item for item in done["sets"]}
    assert by_name[sets[0]]["reasons"] == ["its removal was cut off"]
    assert by_name[sets[0]]["removed"]
    assert there(lab) == sets[1:]
    lab.on("store", f"cd {REPOSITORY}/{sets[1]} && mv manifest.json manifest.expired")
    assert [each["state"] for each in call(lab, "backups", "list")[1]] == ["expired", "complete"]
    status, done = call(lab, "backups", "expire", "--yes")
    assert (status, there(lab)) == (0, sets[2:]), done["error"]
    assert key_state(lab, sets[1])[0] == "there", "a folder's word destroys no key"


def test_keys_stay_while_another_repository_has_the_set(lab: CloneLab, sets: list[str]) -> None:
    """A copy made by hand is as good as the set."""
    first, second = (host.root / "srv/backups" for host in model.load(lab.directory).store_hosts)
    shutil.copytree(first / sets[2], second / sets[2])
    status, done = call(lab, "backups", "expire", "--repo", "store", "--yes")
    assert (status, [item["removed"] for item in done["sets"]]) == (0, [False, False, True])
    assert key_state(lab, sets[2]) == ("there", "active")
    assert call(lab, "backups", "verify", sets[2])[0] == 0


def test_a_repository_that_is_not_mounted_keeps_the_keys_of_its_copies(
    lab: CloneLab, sets: list[str]
) -> None:
    """Its directory is there and empty; what Vault has on record of the copy counts."""
    loaded = load_config(lab)
    door = vault.Vault.from_config(loaded.vault)
    set_keys.hold(door, loaded, sets[2], "store2")
    status, done = call(lab, "backups", "expire", "--repo", "store", "--yes")
    assert (status, there(lab)) == (0, sets[:2]), done["error"]
    assert key_state(lab, sets[2]) == ("there", "active")


def test_a_set_that_goes_from_two_repositories_loses_its_keys(
    lab: CloneLab, sets: list[str]
) -> None:
    """With the first they stay, for the second; with the second they go."""
    file = lab.directory / "xbvault.toml"
    text = file.read_text("utf-8")
    first, second = (host.root / "srv/backups" for host in model.load(lab.directory).store_hosts)
    for name in sets:
        shutil.copytree(first / name, second / name)
    file.write_text(text + RETENTION.replace("store", "store2"), encoding="utf-8")
    try:
        status, done = call(lab, "backups", "expire", "--yes")
    finally:
        file.write_text(text, encoding="utf-8")
    assert status == 0, done["error"]
    assert [item["backup_id"] for item in done["sets"] if item["removed"]] == [sets[2]] * 2
    assert key_state(lab, sets[2]) == ("gone", "destroyed")
    assert key_state(lab, sets[1]) == ("there", "active")


def test_keys_go_whatever_became_of_the_repository(lab: CloneLab, sets: list[str]) -> None:
    """A manifest that is not there, a part, or the whole directory: nothing keeps them alive."""
    lab.on(
        "store", f"rm {REPOSITORY}/{sets[0]}/manifest.json {REPOSITORY}/{sets[1]}/part-000001.age"
    )
    status, done = call(lab, "keys", "revoke", "--host", "master", "--yes")
    assert (status, len(done["sets"])) == (6, 3)
    assert "could not be tried" in done["error"]["message"]
    assert [key_state(lab, name)[0] for name in sets] == ["gone"] * 3
    gone = store_set(lab, datetime.now(UTC))
    lab.on("store", f"mv {REPOSITORY} {REPOSITORY}.away")
    try:
        status, done = call(lab, "keys", "revoke", gone, "--yes")
    finally:
        lab.on("store", f"mv {REPOSITORY}.away {REPOSITORY}")
    assert (status, done["sets"][0]["checks"][0]["ok"]) == (3, True), done["error"]
    assert key_state(lab, gone) == ("gone", "destroyed")
    of_a_clone = "20200101T000000Z-master-00000001"
    loaded = load_config(lab)
    door = vault.Vault.from_config(loaded.vault)
    door.write_custom_metadata(loaded.vault.mount, set_keys.path_of(of_a_clone), {"run": "r1"})
    door.write_secret(loaded.vault.mount, set_keys.path_of(of_a_clone), {"key": "k"}, cas=0)
    for name in ("20200101T000000Z-master-00000000", of_a_clone):
        refused = call(lab, "keys", "revoke", name, "--yes")
        assert (refused[0], refused[1]["sets"]) == (5, [])
    lab.on("store", f"mkdir -m 0700 {REPOSITORY}/{of_a_clone}")
    status, done = call(lab, "keys", "revoke", "--host", "master", "--yes")
    assert of_a_clone not in [each["backup_id"] for each in done["sets"]]
    assert door.read_secret(loaded.vault.mount, set_keys.path_of(of_a_clone))


def test_a_revoked_set_is_unreadable_and_says_so(lab: CloneLab, sets: list[str]) -> None:
    """Everything that is left is tried; restore and verify end with who did it, and when."""
    planned = call(lab, "keys", "revoke", sets[0], "--plan")[1]
    assert (planned["status"], key_state(lab, sets[0])[0]) == ("planned", "there")
    status, done = call(lab, "keys", "revoke", sets[0], "--reason", "asked for", "--yes")
    assert (status, done["status"], done["error"]) == (0, "revoked", None)
    (revoked,) = done["sets"]
    assert (revoked["state"], revoked["reason"], revoked["is_new"]) == (
        "destroyed",
        "asked for",
        True,
    )
    assert {check["name"]: check["ok"] for check in revoked["checks"]} == {
        "keys-destroyed": True,
        "stream-unreadable": True,
        "bundle-unreadable": True,
    }
    (listed,) = [k for k in call(lab, "keys", "list")[1] if k["backup_id"] == sets[0]]
    assert listed["proved_at"]
    assert (listed["age_days"], listed["is_old"]) == (0, False)
    assert listed["destroyed_by"].startswith("root@")
    restored = lab.xbvault("restore", sets[0], "replica", "--yes", check=False)
    assert restored.returncode == 5
    assert f"were destroyed on {listed['destroyed_at']} by root@" in restored.stderr
    assert call(lab, "backups", "verify", sets[0])[0] == 5
    assert call(lab, "backups", "show", "latest")[1]["backup_id"] == sets[1]
    again = call(lab, "keys", "revoke", sets[0], "--yes")
    assert (again[0], again[1]["sets"][0]["is_new"]) == (0, False)
    assert again[1]["sets"][0]["reason"] == "asked for"


def test_all_sets_of_a_host_are_revoked_at_once(lab: CloneLab, sets: list[str]) -> None:
    """And a name that means another set tomorrow is refused."""
    refused = lab.xbvault("keys", "revoke", "latest", "--yes", check=False)
    assert refused.returncode == 2
    assert "latest is no name to destroy keys by" in refused.stderr
    assert lab.xbvault("keys", "revoke", "--host", "replica", "--yes", check=False).returncode == 2
    status, done = call(lab, "keys", "revoke", "--host", "master", "--yes")
    assert (status, len(done["sets"])) == (0, 3), done["error"]
    assert [key_state(lab, name)[0] for name in sets] == ["gone"] * 3
    gone = lab.xbvault("restore", "latest", "replica", "--yes", check=False)
    assert gone.returncode == 3
    assert "can be restored" in gone.stderr


def test_a_sealed_vault_lets_nothing_go(lab: CloneLab, sets: list[str]) -> None:
    """Neither files nor keys."""
    bao.seal(model.load(lab.directory))
    try:
        assert lab.xbvault("backups", "expire", "--yes", check=False).returncode == 5
        assert lab.xbvault("keys", "revoke", sets[0], "--yes", check=False).returncode == 5
    finally:
        bao.unseal(model.load(lab.directory))
    assert there(lab) == sets
    assert key_state(lab, sets[0]) == ("there", "active")


def test_a_read_of_keys_by_somebody_else_is_pointed_out(lab: CloneLab, sets: list[str]) -> None:
    """Vault's audit log has both; what this machine noted was one of ours."""
    log = str(lab.directory / "vault/audit.log")
    assert call(lab, "backups", "verify", sets[0])[0] == 0
    status, clean = call(lab, "keys", "audit", sets[0], "--file", log)
    assert (status, clean["status"], clean["error"]) == (0, "clean", None)
    assert clean["uses"]
    assert all(use["is_ours"] and use["was_read"] for use in clean["uses"])
    loaded = load_config(lab)
    stranger = vault.Vault.from_config(loaded.vault)  # the same token, and nobody takes notes
    assert stranger.read_secret(loaded.vault.mount, set_keys.path_of(sets[0]))
    status, found = call(lab, "keys", "audit", "--host", "master", "--file", log)
    assert (status, found["status"]) == (6, "failed")
    assert "none of ours" in found["error"]["message"]
    (foreign,) = [use for use in found["uses"] if use["backup_id"] == sets[0] if not use["is_ours"]]
    assert foreign["was_read"]
    told = lab.xbvault("keys", "audit", sets[0], "--file", log, check=False)
    assert told.returncode == 6
    assert told.stdout.count("SOMEBODY ELSE") == 1
    assert lab.xbvault("keys", "audit", sets[1], "--file", log).stdout == "no reads\n"
    nothing = lab.xbvault("keys", "audit", check=False)
    assert nothing.returncode == 2
    assert "vault.audit_file" in nothing.stderr or "audit_file" in nothing.stderr
