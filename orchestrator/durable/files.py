"""Where the journal lies, the private directories around it, and what goes wrong with them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from orchestrator import log
from orchestrator.errors import ConfigError, JournalError, OrchestratorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.config import Config

_OUTSIDE = ("sqlite3", "sqlalchemy", "dbos")


def journal_path(config: Config) -> Path:
    """Return where the journal is, or will be."""
    return config.state_directory / "journal.sqlite"


def journal_url(path: Path) -> str:
    """Return the journal's address as the workflow library wants it.

    Raises:
        ConfigError: Such an address would name another file.
    """
    if "?" in str(path):
        raise ConfigError(f"journal.directory: must not contain '?', is {path.parent}")
    return f"sqlite:///{path.absolute()}"


def make_private_directory(path: Path) -> None:
    """Make a directory, and close one of ours to others; one with a sticky bit is shared."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid == os.geteuid() and found.st_mode & 0o077 and not found.st_mode & stat.S_ISVTX:
        path.chmod(0o700)


@contextlib.contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Translate what SQLite, the workflow library and the filesystem raise about a file.

    Raises:
        JournalError: The file cannot be read or written.
    """
    try:
        yield
    except OrchestratorError:
        raise
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if not isinstance(error, OSError) and library not in _OUTSIDE:
            raise
        raise journal_error(path, error) from error


def journal_error(path: Path, reason: object) -> JournalError:
    """Return the error that says what is wrong with the journal, with a hint that fits."""
    # SQLAlchemy's own text holds the statement and its values.
    said = log.redact_text(str(getattr(reason, "orig", None) or reason))
    hint = "see that the disk is sound; a copy of the file can be put back"
    if "full" in said or getattr(reason, "errno", 0) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "make room on its filesystem, then resume the run"
    elif "locked" in said:
        hint = "another program holds the file; end it and try again"
    elif "readonly" in said or "unable to open" in said or isinstance(reason, PermissionError):
        hint = "see that this user may write the file and its directory ([journal] directory)"
    return JournalError(f"journal {path}: {said}", hint=hint)
