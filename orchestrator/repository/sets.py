"""What the folders of a repository are worth, by their listing. Pure.

A listing says which files there are and how large, and nothing of what is in them: a set that is
complete here can still have a part with a byte flipped, which only reading it all back shows.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING

from orchestrator.errors import VerificationError
from orchestrator.repository import chains, names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from orchestrator.repository.manifest import Manifest, StoredFile

_SHOWN = 80
_MOST_PROBLEMS = 20


class State(enum.Enum):
    """What a folder is worth, the worst first."""

    FOREIGN = "foreign"
    """Its name is not that of a backup set: we did not make it, and leave it alone."""
    EXPIRED = "expired"
    """It is being removed: its manifest was renamed as the first act of that."""
    NO_MANIFEST = "no-manifest"
    """It is no backup set: a backup is under way, or was cut off."""
    MANIFEST_REFUSED = "manifest-refused"
    """There is a manifest, but not one that was proved to be ours."""
    FILE_MISSING = "file-missing"
    """A part, or another file that the manifest names, is not there."""
    WRONG_SIZE = "wrong-size"
    """A file is not as large as the manifest says."""
    CHAIN_BROKEN = "chain-broken"
    """It is incremental, and a set that it builds on is not there, not sound, or does not fit."""
    UNEXPECTED_FILE = "unexpected-file"
    """All that the manifest names is there, and something else as well; it can be restored."""
    COMPLETE = "complete"
    """All that the manifest names is there, and nothing else."""

    @property
    def is_restorable(self) -> bool:
        """Whether nothing in the listing speaks against a restore."""
        return self in (State.COMPLETE, State.UNEXPECTED_FILE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A name in the folder of a set.

    Attributes:
        name: As it is; whoever can write there has chosen it.
        bytes: Its size.
        is_file: Whether it is a regular file, and not a folder, a link or something else.
    """

    name: str
    bytes: int
    is_file: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder of a repository, as it was listed.

    Attributes:
        name: As it is.
        entries: What is in it.
        manifest: Its manifest, if it was read and proved to be ours.
        refusal: Why not, if it was read and refused; or why the folder itself could not be read.
        is_folder: Whether it is a directory, and not a file or a link.
    """

    name: str
    entries: tuple[Entry, ...] = ()
    manifest: Manifest | None = None
    refusal: str = ""
    is_folder: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetReport:
    """What a folder is worth.

    Attributes:
        name: The folder's: a ``backup_id``, unless the state is `State.FOREIGN`.
        state: The worst that was found.
        problems: All that was found, for a reader.
        manifest: As it was proved to be ours; None if it was not.
    """

    name: str
    state: State
    problems: tuple[str, ...] = ()
    manifest: Manifest | None = None


def judge_repository(folders: Iterable[Folder]) -> tuple[SetReport, ...]:
    """Return what each folder is worth, with the sets that it builds on looked at as well.

    Args:
        folders: All of the repository.

    Returns:
        The reports, by name.
    """
    alone = [judge_folder(folder) for folder in folders]
    sound = {
        report.name: report.manifest
        for report in alone
        if report.manifest and report.state.is_restorable
    }
    judged = (_judge_chain(report, sound) for report in alone)
    return tuple(sorted(judged, key=lambda report: report.name))


def judge_folder(folder: Folder) -> SetReport:
    """Return what a folder is worth by itself."""
    found = list(_find_faults(folder))
    order = list(State)
    problems = [text for _, text in found]
    if len(problems) > _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = [f"and {len(problems) - _MOST_PROBLEMS} more"]
    return SetReport(
        name=folder.name,
        state=min((state for state, _ in found), key=order.index, default=State.COMPLETE),
        problems=tuple(problems),
        manifest=folder.manifest,
    )


def _judge_chain(report: SetReport, sound: Mapping[str, Manifest]) -> SetReport:
    if not report.state.is_restorable:
        return report
    try:
        chains.list_chain(report.name, sound)
    except VerificationError as error:
        problems = (error.message, *report.problems)
        return dataclasses.replace(report, state=State.CHAIN_BROKEN, problems=problems)
    return report


def _find_faults(folder: Folder) -> Iterator[tuple[State, str]]:
    listed = {entry.name: entry for entry in folder.entries}
    manifest = folder.manifest
    if not names.is_backup_id(folder.name):
        yield State.FOREIGN, f"{folder.name[:_SHOWN]!r} is no name of a backup set"
    elif not folder.is_folder:
        yield State.FOREIGN, "it is no folder"
    elif folder.refusal:
        yield State.MANIFEST_REFUSED, folder.refusal
    elif names.MANIFEST not in listed:
        if names.EXPIRED_MANIFEST in listed:
            yield State.EXPIRED, f"{names.EXPIRED_MANIFEST} stands in the place of the manifest"
        else:
            yield State.NO_MANIFEST, f"there is no {names.MANIFEST}"
    elif manifest is None:
        yield State.MANIFEST_REFUSED, f"{names.MANIFEST} was not read"
    elif manifest.backup_id != folder.name:
        yield State.MANIFEST_REFUSED, f"it is the manifest of {manifest.backup_id}"
    else:
        yield from _compare_all(manifest, listed)


def _compare_all(manifest: Manifest, listed: Mapping[str, Entry]) -> Iterator[tuple[State, str]]:
    expected = {file.name: file for file in manifest.stored_files}
    for name, file in expected.items():
        yield from _compare(file, listed.get(name))
    for name in listed:
        if name not in expected and name != names.MANIFEST:
            yield State.UNEXPECTED_FILE, f"the manifest does not name {name[:_SHOWN]!r}"


def _compare(file: StoredFile, entry: Entry | None) -> Iterator[tuple[State, str]]:
    if entry is None:
        yield State.FILE_MISSING, f"{file.name} is missing"
    elif not entry.is_file:
        yield State.FILE_MISSING, f"{file.name} is no file"
    elif entry.bytes != file.bytes:
        yield State.WRONG_SIZE, f"{file.name} has {entry.bytes} bytes, not {file.bytes}"
