"""Backup sets in a repository, on its host: made, listed, read and removed through its door.

The shell side is ``host/store.sh``. Whoever can write to a repository chooses the names in it, so
nothing that it answers is taken for more than it is: listings are cut at NUL bytes, manifests are
proved before a word of them is believed, and only names of ours go back to the host.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from typing import TYPE_CHECKING, Final

from orchestrator import jobs, log, numerals
from orchestrator.errors import (
    CommandError,
    LockHeldError,
    PreconditionError,
    VerificationError,
)
from orchestrator.host import script
from orchestrator.remote import pick_line
from orchestrator.repository import names
from orchestrator.repository.manifest import LARGEST_BYTES, StoredFile, open_manifest
from orchestrator.repository.sets import Entry, Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.remote import Remote
    from orchestrator.repository.deployment import Deployment
    from orchestrator.repository.manifest import Manifest

NO_DEPLOYMENT: Final = (
    "Vault holds no key to prove manifests with: no backup of ours was stored yet"
)
LIST_SECONDS: Final = 600.0
SLOWEST_BYTES_PER_SECOND: Final = 5 << 20
"""Of a disk that files are read back from; what takes longer has come to a halt."""

_SCRIPT: Final = "store.sh"
_FOLDER: Final = "d"
_UNREADABLE: Final = "u"
_FILE: Final = "f"
_WRONG: Final = (65, 66)
_BATCH_BYTES: Final = 16 << 20
"""Of manifests that are asked for at once: they are held in memory."""
_BATCH_NAMES: Final = 500
_FIELDS: Final = 3
_FIND_READERS: Final = """\
set -u
cd -- "$1" 2>/dev/null || exit 0
grep -lsF -- "$2" */stage.0 | while IFS=/ read -r job _; do printf '%s\\n' "$job"; done
"""
_LINE: Final = re.compile(r"([0-9a-f]{64}) ([0-9]{1,18}) ([A-Za-z0-9][A-Za-z0-9._-]{0,199})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """What the directory of a repository is like.

    Attributes:
        is_writable: Whether a folder can be made in it.
        free_bytes: Of its filesystem.
        filesystem: Number of its device, by which two directories on one are known.
    """

    is_writable: bool
    free_bytes: int
    filesystem: int


def join_path(repository: str, backup_id: str) -> str:
    """Return the path of a set's folder.

    Args:
        repository: The directory of the repository.
        backup_id: The set.
    """
    if not names.is_backup_id(backup_id):
        raise ValueError("a set's folder has the name of a set")
    return f"{repository}/{backup_id}"


def read_space(remote: Remote, repository: str) -> Space:
    """Return what the directory of a repository is like.

    Raises:
        PreconditionError: It is not there, or a symbolic link.
    """
    return parse_space(_call(remote, "look", repository).decode(errors="replace"))


def parse_space(text: str) -> Space:
    """Return what ``host/store.sh look`` printed.

    Raises:
        VerificationError: It is not of this form.
    """
    values = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
    try:
        return Space(
            is_writable=numerals.parse_whole(values["writable"]) == 1,
            free_bytes=numerals.parse_whole(values["free_bytes"]),
            filesystem=numerals.parse_whole(values["filesystem"]),
        )
    except (KeyError, VerificationError) as error:
        raise VerificationError("what the directory is like is not to be understood") from error


# --- what is there ---


def list_folders(
    remote: Remote, repository: str, deployment: Deployment | None
) -> tuple[Folder, ...]:
    """Return every folder of a repository, with the manifests that were proved to be ours.

    Args:
        remote: The door to its host.
        repository: The directory.
        deployment: Ours; None if there is none yet, so that no manifest can be proved.

    Raises:
        PreconditionError: The directory is not there, or a symbolic link.
        CommandError: It cannot be read.
        VerificationError: The answer is no listing.
    """
    found = _call(remote, "list", repository, timeout_seconds=LIST_SECONDS)
    folders = {folder.name: folder for folder in parse_listing(found)}
    sizes = {name: _find_manifest(folder) for name, folder in folders.items()}
    for name, size in sizes.items():
        if size > LARGEST_BYTES:
            refusal = f"{names.MANIFEST} has {size} bytes; {LARGEST_BYTES} can be read"
            folders[name] = dataclasses.replace(folders[name], refusal=refusal)
    wanted = {name: size for name, size in sizes.items() if 0 <= size <= LARGEST_BYTES}
    for batch in _cut_batches(wanted):
        contents = _show(remote, repository, batch)
        for name in batch:
            folders[name] = _prove(folders[name], contents.get(name), deployment)
    return tuple(folders.values())


def read_manifest(
    remote: Remote, repository: str, backup_id: str, deployment: Deployment
) -> Manifest:
    """Return the manifest of a set, after it was proved to be ours.

    Raises:
        PreconditionError: There is no such set.
        VerificationError: Its manifest was refused.
    """
    join_path(repository, backup_id)
    found = _show(remote, repository, (backup_id,)).get(backup_id)
    if found is None:
        raise PreconditionError(
            f"no backup set {backup_id} in {repository}",
            host=remote.name,
            hint="`xbvault backups list` shows those that are there",
        )
    return open_manifest(
        found, backup_id=backup_id, deployment=deployment.id, key=deployment.manifest_key
    )


def parse_listing(data: bytes) -> tuple[Folder, ...]:
    """Return the folders that ``host/store.sh list`` printed, without their manifests.

    Names that are not UTF-8 come with the odd bytes written out.

    Raises:
        VerificationError: It is not of this form.
    """
    unread = VerificationError("the listing of the repository is not to be understood")
    fields = data.decode("utf-8", errors="backslashreplace").split("\0")
    if fields.pop() or len(fields) % _FIELDS:
        raise unread
    found: dict[str, Folder] = {}
    entries: dict[str, list[Entry]] = {}
    for kind, size, path in zip(*(iter(fields),) * _FIELDS, strict=True):
        folder, slash, name = path.partition("/")
        if len(kind) != 1 or not folder or "/" in name or bool(slash) != bool(name):
            raise unread
        number = numerals.parse_whole(size)
        if slash:
            if folder not in entries:
                raise unread
            entries[folder].append(Entry(name=name, bytes=number, is_file=kind == _FILE))
            continue
        entries[folder] = []
        found[folder] = Folder(
            name=folder,
            refusal="the folder cannot be read" if kind == _UNREADABLE else "",
            is_folder=kind in (_FOLDER, _UNREADABLE),
        )
    return tuple(
        dataclasses.replace(folder, entries=tuple(entries[name])) for name, folder in found.items()
    )


def _find_manifest(folder: Folder) -> int:
    """Return the size of a set's manifest; -1 if there is none to be read."""
    if folder.is_folder and names.is_backup_id(folder.name):
        for entry in folder.entries:
            if entry.name == names.MANIFEST and entry.is_file:
                return entry.bytes
    return -1


def _cut_batches(sizes: dict[str, int]) -> Iterator[tuple[str, ...]]:
    batch: list[str] = []
    total = 0
    for name, size in sizes.items():
        if batch and (total + size > _BATCH_BYTES or len(batch) >= _BATCH_NAMES):
            yield tuple(batch)
            batch, total = [], 0
        batch.append(name)
        total += size
    if batch:
        yield tuple(batch)


def _show(remote: Remote, repository: str, batch: Sequence[str]) -> dict[str, bytes]:
    arguments = (repository, names.MANIFEST, *batch)
    return parse_shown(_call(remote, "show", *arguments, timeout_seconds=LIST_SECONDS), batch)


def parse_shown(data: bytes, wanted: Iterable[str]) -> dict[str, bytes]:
    """Return the files that ``host/store.sh show`` printed, by the name of their folder.

    Args:
        data: What it printed.
        wanted: The folders that it was asked for; it may leave some out.

    Raises:
        VerificationError: It is not of this form.
    """
    unread = VerificationError("the manifests that the host sent are not to be understood")
    fields = data.split(b"\0")
    if fields.pop() or len(fields) % 2:
        raise unread
    asked = set(wanted)
    found: dict[str, bytes] = {}
    for raw, content in zip(*(iter(fields),) * 2, strict=True):
        name = raw.decode(errors="replace")
        if name not in asked or name in found:
            raise unread
        try:
            found[name] = base64.b64decode(content, validate=True)
        except binascii.Error as error:
            raise unread from error
    return found


def _prove(folder: Folder, data: bytes | None, deployment: Deployment | None) -> Folder:
    if data is None:
        return dataclasses.replace(folder, refusal=f"{names.MANIFEST} was there, and is gone")
    if deployment is None:
        return dataclasses.replace(folder, refusal=NO_DEPLOYMENT)
    try:
        manifest = open_manifest(
            data, backup_id=folder.name, deployment=deployment.id, key=deployment.manifest_key
        )
    except VerificationError as error:
        return dataclasses.replace(folder, refusal=error.message)
    return dataclasses.replace(folder, manifest=manifest)


# --- making a set ---


def make_folder(remote: Remote, path: str) -> None:
    """Make the folder of a set, unless it is there.

    Args:
        remote: The door to the repository's host.
        path: From `join_path`.

    Raises:
        PreconditionError: The repository is not there, or the set has its manifest already.
        CommandError: It cannot be made.
    """
    _call(remote, "make", path)


def write_command(path: str, *, part_bytes: int, ledger: str) -> tuple[str, ...]:
    """Return the command that cuts its input into the parts of a set; see ``host/store.sh``.

    It begins anew each time: what an earlier one has left in the folder is thrown away. It ends
    with 0 only if every part is on disk under its name, and stands in the ledger.

    Args:
        path: From `join_path`; the folder is there.
        part_bytes: Size of every part but the last.
        ledger: A file on the host, outside of the set; it is begun anew as well.
    """
    words = ("store", "write", path, str(part_bytes), ledger, script("double.pl"))
    return ("sh", "-c", script(_SCRIPT), *words)


def read_ledger(remote: Remote, ledger: str) -> tuple[StoredFile, ...]:
    """Return the parts that `write_command` has written down.

    Raises:
        PreconditionError: There is no such file.
        VerificationError: It is none, or names no part.
    """
    return parse_ledger(remote.read_file(ledger).decode(errors="replace"))


def parse_ledger(text: str) -> tuple[StoredFile, ...]:
    """Return the parts that a ledger names, which are numbered one after the other.

    Raises:
        VerificationError: It is none, names no part, or its last line was cut.
    """
    parts = _read_lines(text)
    if not parts:
        raise VerificationError("the ledger names no part: no byte of the stream was stored")
    if any(part.bytes < 1 for part in parts) or [part.name for part in parts] != [
        names.name_part(number) for number in range(1, len(parts) + 1)
    ]:
        raise VerificationError("the parts of the ledger are not numbered one after the other")
    return parts


def _read_lines(text: str) -> tuple[StoredFile, ...]:
    *lines, rest = text.split("\n")
    found = [_LINE.fullmatch(line) for line in lines]
    if rest or len(lines) > names.MOST_PARTS or not all(found):
        raise VerificationError("sums and sizes of files are not to be understood")
    return tuple(
        StoredFile(name=line[3], bytes=int(line[2]), sha256=line[1]) for line in found if line
    )


def publish_manifest(remote: Remote, path: str, data: bytes) -> None:
    """Write the manifest of a set, as the last act of its backup.

    Args:
        remote: The door to the repository's host.
        path: From `join_path`.
        data: From `manifest.seal_manifest`.

    Raises:
        CommandError: It was not written, or not renamed; then the folder is still no set.
    """
    remote.write_file(f"{path}/{names.NEW_MANIFEST}", data)
    _call(remote, "publish", path)
    log.get().info("set.published", host=remote.name, path=path)


# --- a set that is there ---


def read_command(path: str, *, last: int, first: int = 1) -> tuple[str, ...]:
    """Return the command that writes parts of a set to its output, in their order.

    By their numbers, for a command line cannot hold the names of a large set.

    Args:
        path: From `join_path`.
        last: Number of the last part.
        first: Number of the first one.
    """
    return ("sh", "-c", script(_SCRIPT), "store", "read", path, str(first), str(last))


def read_all_command(repository: str, sets: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """Return the command that writes the parts of several sets to its output, set by set.

    Args:
        repository: Its directory on its host.
        sets: Name of each, and the number of its last part.
    """
    wanted = [word for name, last in sets for word in (join_path(repository, name), "1", str(last))]
    return ("sh", "-c", script(_SCRIPT), "store", "read", *wanted)


def sum_files(remote: Remote, path: str, files: Sequence[StoredFile]) -> tuple[StoredFile, ...]:
    """Return sizes and sums of files of a set, as they are read back from its disk.

    Args:
        remote: The door to the repository's host.
        path: From `join_path`.
        files: Those of the manifest that are wanted; their sizes say how long it may take.

    Raises:
        PreconditionError: One is missing, or is no file.
        CommandError: One cannot be read, or takes too long.
        VerificationError: The answer names others.
    """
    seconds = 60 + sum(file.bytes for file in files) / SLOWEST_BYTES_PER_SECOND
    wanted = [file.name for file in files]
    return parse_sums(
        _call(remote, "sums", path, *wanted, timeout_seconds=seconds).decode(errors="replace"),
        wanted,
    )


def parse_sums(text: str, wanted: Sequence[str]) -> tuple[StoredFile, ...]:
    """Return what ``host/store.sh sums`` printed of these files, in their order.

    Raises:
        VerificationError: It is not of this form, or of other files.
    """
    found = _read_lines(text)
    if [file.name for file in found] != list(wanted):
        raise VerificationError("the sums are those of other files than were asked for")
    return found


def list_readers(remote: Remote, path: str) -> tuple[str, ...]:
    """Return the remote jobs on a repository's host that read a set, such as that of a restore.

    A job counts until its run has ended, not only while it runs: a restore needs the keys of its
    set long after the last byte has come.

    Args:
        remote: The door to the repository's host.
        path: From `join_path`.

    Raises:
        CommandError: The host does not say.
    """
    name = path.rpartition("/")[2]
    listed = remote.run(["sh", "-c", _FIND_READERS, "readers", f"{jobs.BASE}/jobs", name]).text
    return tuple(line for line in listed.split("\n") if jobs.NAME.fullmatch(line))


def need_unread(remote: Remote, path: str, *, run_id: str = "") -> None:
    """Refuse to remove a set that a run still needs.

    Args:
        remote: The door to the repository's host.
        path: From `join_path`.
        run_id: The run that asks; its own jobs do not count.

    Raises:
        LockHeldError: Another run reads it.
        CommandError: The host does not say.
    """
    readers = [job for job in list_readers(remote, path) if not job.startswith(f"{run_id}.")]
    if readers:
        raise LockHeldError(
            f"backup set {path.rpartition('/')[2]} is being read, by {readers[0]}",
            host=remote.name,
            hint="wait until that run has ended, or cancel it (`xbvault runs list`), then try again",
        )


def remove_set(remote: Remote, path: str, extra: Iterable[str] = ()) -> None:
    """Remove a set, or what is left of one; without a folder, do nothing.

    Args:
        remote: The door to the repository's host.
        path: From `join_path`.
        extra: Names of its files beside parts and manifest.

    Raises:
        PreconditionError: Something else lies in the folder; nothing was removed.
        CommandError: It was cut off; call it again.
    """
    _call(remote, "remove", path, *extra, timeout_seconds=LIST_SECONDS)
    log.get().info("set.removed", host=remote.name, path=path)


def _call(remote: Remote, verb: str, *arguments: str, timeout_seconds: float = 60.0) -> bytes:
    result = remote.run(
        ["sh", "-s", "--", verb, *arguments],
        stdin=script(_SCRIPT),
        check=False,
        timeout_seconds=timeout_seconds,
    )
    if result.status == 0:
        return result.stdout
    said = pick_line(result.stderr).removeprefix("xbvault store: ")
    reason = log.redact_text(said) or f"status {result.status}"
    if result.status in _WRONG:
        raise PreconditionError(
            reason, host=remote.name, hint=f"look at {arguments[0]} on {remote.name}"
        )
    raise CommandError(
        f"cannot {verb} {arguments[0]} on {remote.name}: {reason}",
        host=remote.name,
        hint=f"look at {arguments[0]} on {remote.name}",
        status=result.status,
        stderr=log.redact_text(result.stderr),
    )
