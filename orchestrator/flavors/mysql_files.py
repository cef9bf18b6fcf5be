"""Where a MySQL server keeps which files, and what of a set does not belong into its datadir. Pure."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Final

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

    from orchestrator.models import Coordinates

MANIFEST: Final = "mysqld.my"
"""Names the components that a server loads; beside the server, or in its data directory."""

_DIRECTORIES: Final = (
    ("innodb_log_group_home_dir", REDO, ("ib_logfile*", "#innodb_redo")),
    ("innodb_undo_directory", UNDO, ("undo[0-9]*", "undo_[0-9]*", "*.ibu")),
)
_DOUBLEWRITE: Final = ("#ib_[0-9]*.dblwr", "#ib_[0-9]*.bdblwr")
_TEMPORARY: Final = ("temp_[0-9]*.ibt",)

VARIABLES: Final = (
    *COMMON_VARIABLES,
    *(name for name, _, _ in _DIRECTORIES),
    "innodb_doublewrite_dir",
    "innodb_temp_tablespaces_dir",
)
"""What a running server must be asked for."""

SET_LEFTOVERS: Final = (
    "xtrabackup_info",
    "xtrabackup_keys",
    "xtrabackup_master_key_id",
    "xtrabackup_slave_info",
    "xtrabackup_binlog_pos_innodb",
)
"""Files of the set that a restore puts into the data directory; the keys must not stay there."""
IDENTITY: Final = "auto.cnf"
"""A server's own UUID. Two servers of one cannot replicate from each other."""


def list_file_sets(values: Mapping[str, str], *, datadir: str) -> tuple[FileSet, ...]:
    """Return the kinds of files that can lie outside of the data directory.

    Args:
        values: A running server's variables, or the options of its option files.
        datadir: Where relative paths begin.
    """
    own = [
        FileSet(
            what=what, directory=resolve_directory(values.get(name, ""), datadir), patterns=patterns
        )
        for name, what, patterns in _DIRECTORIES
    ]
    doublewrite = values.get("innodb_doublewrite_dir") or values.get("innodb_data_home_dir", "")
    own.append(
        FileSet(
            what="InnoDB doublewrite files",
            directory=resolve_directory(doublewrite, datadir),
            patterns=_DOUBLEWRITE,
        )
    )
    if temporary := values.get("innodb_temp_tablespaces_dir"):
        own.append(
            FileSet(
                what="InnoDB temporary tablespaces",
                directory=resolve_directory(temporary, datadir),
                patterns=_TEMPORARY,
            )
        )
    return (*list_common_sets(values, datadir=datadir), *own)


def list_leftovers(coordinates: Coordinates | None, *, index: str = "") -> tuple[str, ...]:
    """Return the files to be removed from a restored data directory before its first start.

    From series 8.0 on the set also carries the donor's last binary log, cut at the set's position,
    and an index of it. Replication begins without them, and the server may keep its own elsewhere.

    Args:
        coordinates: Of the set; None where the donor keeps no binary log.
        index: The donor's ``log_bin_index``; empty where it has the binary logs' name.
    """
    names = [*SET_LEFTOVERS, IDENTITY]
    if coordinates and coordinates.file:
        named = posixpath.basename(index) or f"{coordinates.file.rpartition('.')[0]}.index"
        names += [coordinates.file, named]
    return tuple(names)
