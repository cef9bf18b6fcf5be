"""Kinds of files that a server can keep outside of its data directory. Pure."""

from __future__ import annotations

import dataclasses
import glob
import posixpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_TABLESPACE = "InnoDB system tablespace"
UNDO = "InnoDB undo tablespaces"
REDO = "InnoDB redo log"
KEYRING = "keyring"


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
    """Return the file in which a server keeps its master keys, with the backup that it makes of it.

    Args:
        path: The file; empty where there is none.
    """
    if not path:
        return ()
    directory, name = posixpath.split(posixpath.normpath(path))
    patterns = (glob.escape(name), f"{glob.escape(name)}.backup")
    return (FileSet(what=KEYRING, directory=directory, patterns=patterns),)


def list_absolute_tablespaces(values: Mapping[str, str]) -> tuple[str, ...]:
    """Return files of the system tablespace that are named by an absolute path."""
    return tuple(name for name in list_system_files(values) if name.startswith("/"))


def list_system_files(values: Mapping[str, str]) -> list[str]:
    """Return the names of the files of the system tablespace."""
    parts = values.get("innodb_data_file_path", "").split(";")
    return [name for part in parts if (name := part.partition(":")[0])]
