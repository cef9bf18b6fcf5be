"""The laws of stored backup sets: what holds in a repository, whatever was killed or broken.

As with the laws of clones, nothing here asks the product: folders are looked at on the disk of the
repository's host, and keys in Vault with the root token.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import laws
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from clone_lab import CloneLab

STORE = "store"
REPOSITORY = "srv/backups"
LOCKS = "/var/lib/xbvault/backups-of"
ARCHIVE_LOCKS = "/var/lib/xbvault/archives-of"
OWN_FOLDERS = laws.OWN_FOLDERS | {
    f"{locks.removeprefix('/')}{path}"
    for locks in (LOCKS, ARCHIVE_LOCKS)
    for path in ("", f"/{laws.DONOR}", f"/{laws.DONOR}/lock")
}
"""What the product keeps on a repository's host for good."""
TOOLS = {"age", "perl", "openssl", "sha256sum", "cat", "dd", "ssh", "pv"}
_ALIVE, _DEAD = "alive", "destroyed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sets:
    """The backup sets of a repository, as they were noted.

    Attributes:
        digests: What is in each set, in one digest.
    """

    digests: dict[str, str]


def lock_dir(donor: str = laws.DONOR) -> str:
    """Return the folder of the lock on the backups of a host."""
    return f"{LOCKS}/{donor}"


def find_repository(lab: CloneLab, store: str = STORE) -> Path:
    """Return the repository's directory as this machine sees it."""
    return laws.find_root(lab, store) / REPOSITORY


def list_folders(lab: CloneLab, store: str = STORE) -> list[str]:
    """Return the names of all folders of the repository."""
    return sorted(path.name for path in find_repository(lab, store).iterdir())


def list_sets(lab: CloneLab, store: str = STORE) -> list[str]:
    """Return the names of those that have a manifest, which makes them a backup."""
    found = find_repository(lab, store).glob("*/manifest.json")
    return sorted(path.parent.name for path in found)


def read_manifest(lab: CloneLab, name: str, store: str = STORE) -> dict[str, Any]:
    """Return the manifest of a set, unproved."""
    text = (find_repository(lab, store) / name / "manifest.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)["manifest"]
    return document


def note_sets(lab: CloneLab, store: str = STORE) -> Sets:
    """Note the sets that no run may change."""
    folder = find_repository(lab, store)
    return Sets(digests={name: _digest_set(folder / name) for name in list_sets(lab, store)})


def check_sets(lab: CloneLab, before: Sets, store: str = STORE) -> list[str]:
    """Return what is wrong with the sets, at any moment.

    Earlier ones are as they were, with their keys alive. One that has come since is whole, and has
    its keys, from the moment on that it has a manifest.
    """
    breaches = _find_changes(lab, before, store)
    for name in list_sets(lab, store):
        if name not in before.digests:
            breaches += _find_gaps(lab, name, store)
        if read_keys_state(lab, name) != _ALIVE:
            breaches.append(f"the keys of the set {name} are {read_keys_state(lab, name)}")
    return breaches


def check_kept(lab: CloneLab, before: Sets, store: str = STORE) -> list[str]:
    """Return what is wrong with the sets that stay, at any moment, while others are given up.

    Those that stay are as they were, with their keys alive. Of any other, keys that are gone, or
    half gone, are told of in their record: by whom, when and why.
    """
    breaches = _find_changes(lab, before, store)
    for name in list_sets(lab, store):
        state, record = read_keys_state(lab, name), read_record(lab, name)
        untold = {"destroyed", "destroyed_by", "reason"} - record.keys()
        if state != _ALIVE and name in before.digests:
            breaches.append(f"the keys of the set {name} are {state}")
        elif state != _ALIVE and (record.get("state") != _DEAD or untold):
            breaches.append(f"the keys of the set {name} are {state}, and its record is {record}")
    return breaches


def choose_sets(before: Sets, names: Iterable[str]) -> Sets:
    """Return some of the sets that were noted."""
    return Sets(digests={name: before.digests[name] for name in names})


def check_whole(lab: CloneLab, name: str, store: str = STORE) -> None:
    """See that a backup that says succeeded is a whole set with its keys.

    Raises:
        AssertionError: It is not.
    """
    breaches = _find_gaps(lab, name, store)
    if read_keys_state(lab, name) != _ALIVE:
        breaches.append(f"the keys of the set {name} are {read_keys_state(lab, name)}")
    laws.raise_all(breaches)


def check_removed(lab: CloneLab, name: str, store: str = STORE) -> None:
    """See that a backup that was cancelled or undone has left no folder, and no key.

    Raises:
        AssertionError: It has.
    """
    breaches = [f"the folder {name} is there"] if name in list_folders(lab, store) else []
    if read_keys_state(lab, name) not in (_DEAD, ""):
        breaches.append(f"the keys of the set {name} are {read_keys_state(lab, name)}")
    laws.raise_all(breaches)


def check_nothing_outlives(lab: CloneLab, hosts: Iterable[str], *, run_dirs: bool = False) -> None:
    """See that no job, secret, process, mount or token is left of runs that have ended.

    Args:
        lab: The lab.
        hosts: On which hosts.
        run_dirs: Whether what a run remembers may be left there: that of a restore, for its undo.

    Raises:
        AssertionError: Something is.
    """
    breaches = laws.find_leftovers(lab, *hosts)
    for name in () if run_dirs else hosts:
        runs = laws.find_root(lab, name) / "var/lib/xbvault/runs"
        breaches += [f"{name} has {path.name} of a run" for path in runs.glob("*")]
    laws.raise_all(breaches)


def check_ended(
    lab: CloneLab, run_id: str, status: str, donor: str = laws.DONOR, *, locks: str = LOCKS
) -> None:
    """See that a backup, or an archive, says how it ended, and holds no lock."""
    laws.check_ended(lab, run_id, status, STORE, lock_dir=f"{locks}/{donor}")


def read_record(lab: CloneLab, name: str) -> dict[str, str]:
    """Return what Vault has on record of the keys of a set."""
    answer = laws.request(lab, "GET", f"xbvault/metadata/transition-keys/{name}")
    record: dict[str, str] = answer["data"]["custom_metadata"] or {}
    return record


def read_keys_state(lab: CloneLab, name: str) -> str:
    """Return whether the keys of a set are alive or destroyed; empty where there never were any."""
    try:
        answer = laws.request(lab, "GET", f"xbvault/metadata/transition-keys/{name}")
    except LabError as error:
        if " 404 " in error.message:
            return ""
        raise
    versions = answer["data"]["versions"].values()
    if not versions:
        return ""
    alive = [not version["destroyed"] and not version["deletion_time"] for version in versions]
    if not any(alive):
        return _DEAD
    return _ALIVE if (answer["data"]["custom_metadata"] or {}).get("state") == "active" else "half"


def _find_changes(lab: CloneLab, before: Sets, store: str) -> list[str]:
    """Return which of the sets that were noted are gone, or others now."""
    folder = find_repository(lab, store)
    breaches = []
    for name, digest in before.digests.items():
        if not (folder / name / "manifest.json").is_file():
            breaches.append(f"the set {name} is gone")
        elif _digest_set(folder / name) != digest:
            breaches.append(f"the set {name} is another one now")
    return breaches


def _find_gaps(lab: CloneLab, name: str, store: str) -> list[str]:
    """Return in what a set is not what its manifest says."""
    folder = find_repository(lab, store) / name
    manifest = read_manifest(lab, name, store)
    files = [*manifest["parts"], *manifest["files"]]
    breaches = []
    for file in files:
        path = folder / file["name"]
        if not path.is_file():
            breaches.append(f"{name} has no {file['name']}")
        elif laws.digest_file(path) != file["sha256"] or path.stat().st_size != file["bytes"]:
            breaches.append(f"{file['name']} of {name} is not the one of the manifest")
    wanted = {"manifest.json", *(file["name"] for file in files)}
    breaches += [f"{name} has {path.name}" for path in folder.iterdir() if path.name not in wanted]
    return breaches


def _digest_set(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        found.update(f"{path.name} {laws.digest_file(path)}\n".encode())
    return found.hexdigest()
