"""Where a MariaDB server keeps which files, by its variables or its options. Pure."""

from __future__ import annotations

import glob
import posixpath
import re
from typing import TYPE_CHECKING

from orchestrator.flavors.file_sets import (
    REDO,
    SYSTEM_TABLESPACE,
    UNDO,
    FileSet,
    list_system_files,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LOG_SUFFIXES = (".[0-9]*", ".index", ".index_crash_safe", ".state", ".~rec~")
"""What a server adds to the base name of its binary or relay logs; anything else in that directory
may belong to somebody else."""

_DIRECTORIES = (
    ("innodb_log_group_home_dir", REDO, ("ib_logfile*",)),
    ("innodb_undo_directory", UNDO, ("undo[0-9]*",)),
    ("aria_log_dir_path", "Aria log", ("aria_log.[0-9]*", "aria_log_control")),
)
_LOGS = (
    ("log_bin_basename", "log_bin", "binary logs"),
    ("relay_log_basename", "relay_log", "relay logs"),
)
_INDEXES = (("log_bin_index", "binary log index"), ("relay_log_index", "relay log index"))

VARIABLES = (
    *(variable for variable, _, _ in _LOGS),
    *(name for name, _ in _INDEXES),
    *(name for name, _, _ in _DIRECTORIES),
    "innodb_data_home_dir",
    "innodb_data_file_path",
)
"""What a running server must be asked for."""


def list_file_sets(values: Mapping[str, str], *, datadir: str) -> tuple[FileSet, ...]:
    """Return the kinds of files that can lie outside of the data directory.

    Args:
        values: A running server's variables, or the options of its option files.
        datadir: Where relative paths begin.
    """
    return tuple(_file_sets(values, datadir))


def _file_sets(values: Mapping[str, str], datadir: str) -> Iterator[FileSet]:
    for variable, option, what in _LOGS:
        named = values.get(variable) or values.get(option, "")
        if named in ("", "0", "1", "OFF", "ON"):
            continue  # not kept, or under a default name in the data directory
        directory, base = posixpath.split(posixpath.join(datadir, named))
        if variable not in values:
            base = re.sub(r"\.[^.]*$", "", base)  # the server cuts an extension off
        patterns = tuple(glob.escape(base) + suffix for suffix in _LOG_SUFFIXES)
        yield FileSet(what=what, directory=_normal(directory), patterns=patterns)
    for name, what in _INDEXES:
        directory, base = posixpath.split(posixpath.join(datadir, values.get(name, "")))
        if base:
            stem = glob.escape(base.removesuffix(".index"))
            patterns = (f"{stem}.index", f"{stem}.index_crash_safe")
            yield FileSet(what=what, directory=_normal(directory), patterns=patterns)
    home = values.get("innodb_data_home_dir", "")
    names = [glob.escape(name) for name in list_system_files(values) if "/" not in name]
    yield FileSet(
        what=SYSTEM_TABLESPACE,
        directory=_normal(posixpath.join(datadir, home)),
        patterns=tuple(dict.fromkeys(["ibdata*", "ibtmp*", "ib_buffer_pool*", *names])),
    )
    for name, what, patterns in _DIRECTORIES:
        directory = _normal(posixpath.join(datadir, values.get(name, "")))
        yield FileSet(what=what, directory=directory, patterns=patterns)


def _normal(path: str) -> str:
    return posixpath.normpath(path)
