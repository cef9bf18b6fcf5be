"""How the data directory of a recipient lies, and so how it is swapped. Pure.

See ``docs/decisions/0013-a-swap-is-a-list-of-renames.md``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator.facts import apparmor
from orchestrator.flavors import file_sets
from orchestrator.models import Place

if TYPE_CHECKING:
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.places import FoundFiles, Places

VAULT = ".xbvault"
"""Hidden folder of ours in a directory that cannot be renamed itself."""

LEFT_ALONE = (VAULT, "lost+found", ".snapshot", "aquota.user", "aquota.group")
"""Entries of a filesystem's root that are not the server's."""

SMALL_BYTES = 64_000_000
"""Room for files that a server makes anew, such as the first binary logs."""
REDO_BYTES = 100_000_000
"""The same for a redo log whose size is not known: 96 MB is the server's default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Where everything of a run goes.

    Attributes:
        staging_dir: Where the stream lands.
        new_datadir: Where the prepared set is moved to.
        old_datadir: Where the earlier data stands after the swap.
        places: What the swap exchanges, the data directory first.
        subfolders: Places inside the data directory; they go with it.
    """

    staging_dir: str
    new_datadir: str
    old_datadir: str
    places: tuple[Place, ...]
    subfolders: tuple[Place, ...]


def make_layout(host: HostFacts, found: Places | None, run_id: str) -> Layout:
    """Return the layout of a run on this recipient."""
    datadir = host.real_datadir
    base = f"{datadir}/{VAULT}/" if host.is_mount_path else f"{datadir}.xbvault-"
    new, old = f"{base}new-{run_id}", f"{base}old-{run_id}"
    whole = Place(
        what="datadir",
        path=datadir,
        old=old,
        new=new,
        is_whole=not host.is_mount_path,
        left_alone=LEFT_ALONE if host.is_mount_path else (),
    )
    outside: dict[str, list[FoundFiles]] = {}
    inside: dict[str, list[FoundFiles]] = {}
    for files in found.files if found else ():
        below = _below(files, host)
        if below is None and files.real:
            outside.setdefault(files.real, []).append(files)
        elif below:
            inside.setdefault(below, []).append(files)
    return Layout(
        staging_dir=f"{base}staging-{run_id}",
        new_datadir=new,
        old_datadir=old,
        places=(
            whole,
            *(
                _place(
                    several,
                    path=path,
                    old=f"{path}/{VAULT}/old-{run_id}",
                    new=f"{path}/{VAULT}/new-{run_id}",
                )
                for path, several in sorted(outside.items())
            ),
        ),
        subfolders=tuple(
            _place(several, path=f"{datadir}/{name}", old=f"{old}/{name}", new=f"{new}/{name}")
            for name, several in sorted(inside.items())
        ),
    )


def list_problems(host: HostFacts, found: Places | None, *, owner: str) -> list[str]:
    """Return what keeps this recipient's data directory from being swapped."""
    problems = [f"{path} is a mount path inside the datadir" for path in host.mounts_inside]
    if _is_odd(host.real_datadir):
        problems.append(
            f"the path of the datadir has a character that is not handled: {host.real_datadir!r}"
        )
    if host.is_mount_path and not host.datadir_owner.startswith(f"{owner}:"):
        problems.append(f"{host.real_datadir} belongs to {host.datadir_owner}, not to {owner}")
    if found is None:
        return problems
    problems += [f"run {run} was cut off in its swap" for run in found.half_swapped]
    problems += [f"{path} is named by an absolute path" for path in found.absolute_tablespaces]
    problems += found.contradictions
    for files in found.files:
        below = _below(files, host)
        if any(_is_odd(text) for text in (files.directory, files.real, *files.patterns)):
            problems.append(f"{files.what} in {files.directory!r}: a character that is not handled")
        elif below is None and not files.real:
            problems.append(f"{files.what} belong in {files.directory}, which is not there")
        elif below and files.real and files.real != f"{host.real_datadir}/{below}":
            problems.append(f"{files.directory} leads out of the datadir, to {files.real}")
        elif below is None and files.foreign:
            problems.append(f"another server uses {files.foreign[0]} in {files.directory}")
    return problems


def describe(layout: Layout, host: HostFacts) -> str:
    """Return in one line how the swap will go."""
    datadir = layout.places[0]
    words = [
        f"{datadir.path} is renamed as a whole"
        if datadir.is_whole
        else f"{datadir.path} is a mount path: what lies in it is exchanged"
    ]
    if host.is_symlink:
        words.append(f"{host.datadir} is a link to it")
    words += [f"{place.what} in {place.path}" for place in layout.places[1:]]
    return "; ".join(words)


def needed_bytes(files: FoundFiles, donor: Places | None, redo_bytes: int) -> int:
    """Return how much room new files of this kind want, outside of the data directory."""
    if files.what == file_sets.REDO:
        return (redo_bytes or REDO_BYTES) + SMALL_BYTES
    theirs = [one.bytes for one in donor.files if one.what == files.what] if donor else []
    if files.what in (file_sets.SYSTEM_TABLESPACE, file_sets.UNDO):
        return sum(theirs) + SMALL_BYTES
    return SMALL_BYTES


def list_denied(host: HostFacts, found: Places | None) -> tuple[str, tuple[str, ...]]:
    """Return the AppArmor profile that is in force, and the directories that it denies.

    A server that runs in them has proved that it may.
    """
    if found is None:
        return "", ()
    profile = apparmor.find_enforced(found.profiles)
    if not profile or host.is_running or not found.profile_rules:
        return profile, ()
    directories = dict.fromkeys([host.real_datadir, *(f.real for f in found.files if f.real)])
    return profile, apparmor.list_denied(directories, found.profile_rules)


def _place(several: list[FoundFiles], *, path: str, old: str, new: str) -> Place:
    return Place(
        what=", ".join(files.what for files in several),
        path=path,
        old=old,
        new=new,
        is_whole=False,
        patterns=tuple(dict.fromkeys(p for files in several for p in files.patterns)),
        left_alone=(VAULT,),
    )


def _below(files: FoundFiles, host: HostFacts) -> str | None:
    """Return the directory's path below the datadir; empty if it is that, None if outside."""
    for path in (files.directory, files.real):
        for datadir in (host.real_datadir, host.datadir):
            if path == datadir:
                return ""
            if path.startswith(f"{datadir}/"):
                return path.removeprefix(f"{datadir}/")
    return None


def _is_odd(text: str) -> bool:
    return "\\" in text or any(ord(c) < 32 or ord(c) == 127 for c in text)  # noqa: PLR2004 - ASCII
