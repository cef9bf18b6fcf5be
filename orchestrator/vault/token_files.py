"""Where a token comes from, and the files that tokens are written to."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import ConfigError
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

_TOKEN = re.compile(r"[\x21-\x7e]+")


def environment_token() -> Secret:
    """Return the token of the person at the prompt: VAULT_TOKEN, else ``~/.vault-token``.

    Raises:
        ConfigError: There is none.
    """
    clear = os.environ.get("VAULT_TOKEN", "").strip()
    if clear:
        return check_token(Secret(clear), "VAULT_TOKEN")
    path = Path("~/.vault-token").expanduser()
    if path.is_file():
        return read_token_file(path)
    raise ConfigError(
        "no Vault token",
        hint="name a file in vault.token_file, or set VAULT_TOKEN, or log in with the vault command",
    )


def read_token_file(path: Path) -> Secret:
    """Return the token that a file holds.

    Raises:
        ConfigError: It cannot be read, or holds no token.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the token file {path}: {getattr(error, 'strerror', None) or 'not text'}",
            hint="write the token to it, mode 0600, or change vault.token_file",
        ) from error
    return check_token(Secret(text.strip()), str(path))


def write_token_file(
    path: Path, issue: Callable[[], Secret], *, name: str = "", replace: bool = False
) -> None:
    """Write a new token to a file of mode 0600.

    The file is made before the token is issued, so that none is issued that nobody has.

    Args:
        path: The file; there is none yet, unless `replace`.
        issue: Makes the token.
        name: With a name: as a line ``NAME=token``, as an environment file has it.
        replace: Put it in the place of an existing file.

    Raises:
        ConfigError: The file exists, or cannot be written.
    """
    if path.exists() and not replace:
        raise ConfigError(f"{path} exists", hint="name another file, or replace it with --force")
    partial = path.with_name(f"{path.name}.xbvault-new")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot write {partial}: {error.strerror}", hint="see to its directory"
        ) from error
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            clear = issue().reveal()
            stream.write(f"{name}={clear}\n" if name else f"{clear}\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def check_token(token: Secret, origin: str) -> Secret:
    """Return a token that can stand in a header.

    Raises:
        ConfigError: It cannot.
    """
    # requests quotes a value that is no header in its error, so it must never get one.
    if not _TOKEN.fullmatch(token.reveal()):
        raise ConfigError(
            f"there is no Vault token in {origin}", hint="it must be one word of printable ASCII"
        )
    return token
