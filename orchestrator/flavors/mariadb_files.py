"""Where a MariaDB server keeps which files, by its variables or its options. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.flavors.file_sets import (
    COMMON_VARIABLES,
    REDO,
    UNDO,
    FileSet,
    list_common_sets,
    resolve_directory,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_DIRECTORIES = (
    ("innodb_log_group_home_dir", REDO, ("ib_logfile*",)),
    ("innodb_undo_directory", UNDO, ("undo[0-9]*",)),
    ("aria_log_dir_path", "Aria log", ("aria_log.[0-9]*", "aria_log_control")),
)
VARIABLES = (*COMMON_VARIABLES, *(name for name, _, _ in _DIRECTORIES))
"""What a running server must be asked for."""


def list_file_sets(values: Mapping[str, str], *, datadir: str) -> tuple[FileSet, ...]:
    """Return the kinds of files that can lie outside of the data directory.

    Args:
        values: A running server's variables, or the options of its option files.
        datadir: Where relative paths begin.
    """
    own = (
        FileSet(
            what=what, directory=resolve_directory(values.get(name, ""), datadir), patterns=patterns
        )
        for name, what, patterns in _DIRECTORIES
    )
    return (*list_common_sets(values, datadir=datadir), *own)
