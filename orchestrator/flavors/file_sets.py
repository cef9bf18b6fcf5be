"""Kinds of files that a server can keep outside of its data directory. Pure."""

from __future__ import annotations

import dataclasses
import glob
import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM_TABLESPACE = "InnoDB system tablespace"
UNDO = "InnoDB undo tablespaces"
REDO = "InnoDB redo log"
KEYRING = "keyring"
KEYRING_BACKUP = "keyring backup"

_LOG_SUFFIXES = (".[0-9]*", ".index", ".index_crash_safe", ".state", ".~rec~")
"""What a server adds to the base name of its binary or relay logs; anything else in that directory
may belong to somebody else."""
_LOGS = (
    ("log_bin_basename", "log_bin", "binary logs"),
    ("relay_log_basename", "relay_log", "relay logs"),
)
_INDEXES = (("log_bin_index", "binary log index"), ("relay_log_index", "relay log index"))
COMMON_VARIABLES = (
    *(variable for variable, _, _ in _LOGS),
    *(name for name, _ in _INDEXES),
    "innodb_data_home_dir",
    "innodb_data_file_path",
)
"""What a running server must be asked for, of whatever kind it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSet:
    """Files of one kind.

    Attributes:
        what: The kind.
        directory: Where they are; absolute, not resolved.
        patterns: Of their names, in the form of `fnmatch`.
    """

    what: str
    directory: str
    patterns: tuple[str, ...]


def list_keyring_files(path: str) -> tuple[FileSet, ...]:
    """Return the file in which a server keeps its master keys, and the backup that it makes of it.

    The backup is there while the server writes to the file. One that stays is taken for the
    keyring at the next start, whatever the file has.

    Args:
        path: The file; empty where there is none.
    """
    if not path:
        return ()
    directory, name = posixpath.split(posixpath.normpath(path))
    return (
        FileSet(what=KEYRING, directory=directory, patterns=(glob.escape(name),)),
        FileSet(
            what=KEYRING_BACKUP, directory=directory, patterns=(f"{glob.escape(name)}.backup",)
        ),
    )


def list_absolute_tablespaces(values: Mapping[str, str]) -> tuple[str, ...]:
    """Return files of the system tablespace that are named by an absolute path."""
    return tuple(name for name in list_system_files(values) if name.startswith("/"))


def list_system_files(values: Mapping[str, str]) -> list[str]:
    """Return the names of the files of the system tablespace."""
    parts = values.get("innodb_data_file_path", "").split(";")
    return [name for part in parts if (name := part.partition(":")[0])]


def list_common_sets(values: Mapping[str, str], *, datadir: str) -> Iterator[FileSet]:
    """Yield the logs and the system tablespace, which every kind of server has.

    Args:
        values: A running server's variables, or the options of its option files.
        datadir: Where relative paths begin.
    """
    for variable, option, what in _LOGS:
        named = values.get(variable) or values.get(option, "")
        if named in ("", "0", "1", "OFF", "ON"):
            continue  # not kept, or under a default name in the data directory
        directory, base = posixpath.split(posixpath.join(datadir, named))
        if variable not in values:
            base = re.sub(r"\.[^.]*$", "", base)  # the server cuts an extension off
        patterns = tuple(glob.escape(base) + suffix for suffix in _LOG_SUFFIXES)
        yield FileSet(what=what, directory=posixpath.normpath(directory), patterns=patterns)
    for name, what in _INDEXES:
        directory, base = posixpath.split(posixpath.join(datadir, values.get(name, "")))
        if base:
            stem = glob.escape(base.removesuffix(".index"))
            patterns = (f"{stem}.index", f"{stem}.index_crash_safe")
            yield FileSet(what=what, directory=posixpath.normpath(directory), patterns=patterns)
    names = [glob.escape(name) for name in list_system_files(values) if "/" not in name]
    yield FileSet(
        what=SYSTEM_TABLESPACE,
        directory=resolve_directory(values.get("innodb_data_home_dir", ""), datadir),
        patterns=tuple(dict.fromkeys(["ibdata*", "ibtmp*", "ib_buffer_pool*", *names])),
    )


def resolve_directory(path: str, datadir: str) -> str:
    """Return a directory of the server's, absolute and not resolved; empty is the datadir."""
    return posixpath.normpath(posixpath.join(datadir, path))
