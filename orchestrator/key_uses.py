"""Who has read the keys of backups and clones: our own note of it, and what Vault's audit log says.

Vault gives every request a number, which stands in its answer and in its audit log. We note the
numbers of our own reads; a read in the audit log that is not among them was somebody else's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import gzip
import json
import os
from typing import TYPE_CHECKING, Any, Final

from orchestrator import log
from orchestrator.errors import ConfigError, JournalError, SecretError
from orchestrator.vault import Vault
from orchestrator.vault.answers import parse_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from orchestrator.config import Config

FOLDER: Final = "transition-keys"
"""Below the mount of our own records: the keys of a backup or a clone, by its ``backup_id``."""
NOTES: Final = "key-reads.jsonl"
"""Beside the journal: one line for each read of ours."""
_GZIP: Final = b"\x1f\x8b"


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyUse:
    """One attempt to read keys, as Vault's audit log has it.

    Attributes:
        at: When Vault answered, in UTC.
        backup_id: Whose keys.
        user: The token's display name.
        policies: Of the token.
        address: Where the request came from.
        request: Its number.
        was_read: Vault gave the keys out; else it refused, or there were none.
        is_ours: It is one that xbvault made on this machine.
        run_id: Of the run that made it; empty of a command that is none, and of others' requests.
    """

    at: dt.datetime
    backup_id: str
    user: str
    policies: tuple[str, ...]
    address: str
    request: str
    was_read: bool
    is_ours: bool
    run_id: str = ""

    @property
    def is_foreign(self) -> bool:
        """Whether somebody else has these keys."""
        return self.was_read and not self.is_ours


@dataclasses.dataclass(frozen=True, kw_only=True)
class LastUse:
    """When keys were given out last.

    Attributes:
        at: ISO 8601 in UTC.
        by: The run, ``xbvault`` for a command that is none, or the display name of another's token.
    """

    at: str
    by: str


def open_vault(config: Config, run_id: str = "") -> Vault:
    """Return a connection to Vault that notes each read of keys.

    Args:
        config: The configuration.
        run_id: The run that reads; empty for a command that is none.

    Raises:
        ConfigError: As of `Vault.from_config`.
    """
    return Vault.from_config(config.vault, witness=_make_witness(config, run_id))


def _make_witness(config: Config, run_id: str) -> Callable[[str, str], None]:
    base = f"{config.vault.mount}/data/{FOLDER}/"
    file = config.state_directory / NOTES

    def note(request: str, path: str) -> None:
        if not path.startswith(base):
            return
        line = {"at": _now(), "request": request, "key": path.removeprefix(base), "run": run_id}
        try:
            _append(file, json.dumps(line) + "\n")
        except OSError as error:  # the read stands; an audit will call it somebody else's
            log.get().warning("keys.read_not_noted", file=str(file), reason=str(error))

    return note


def _append(file: Path, line: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # one write with O_APPEND, so that commands side by side do not mix their lines
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(opened, line.encode())
    finally:
        os.close(opened)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def read_notes(config: Config) -> dict[str, str]:
    """Return the runs of our own reads by the number of the request.

    Raises:
        JournalError: The notes cannot be read.
    """
    return {str(noted["request"]): str(noted["run"]) for noted in _read_noted(config)}


def _read_noted(config: Config) -> Iterator[dict[str, Any]]:
    """Yield our notes, the oldest first; each has all that `_make_witness` writes.

    Raises:
        JournalError: They cannot be read.
    """
    file = config.state_directory / NOTES
    try:
        text = file.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise JournalError(f"{file}: {error.strerror or error}") from error
    for line in text.split("\n"):
        noted = None
        with contextlib.suppress(ValueError):  # a line that a kill has cut
            noted = json.loads(line)
        if isinstance(noted, dict) and noted.keys() >= {"at", "request", "key", "run"}:
            yield noted


def read_audit(
    config: Config, files: Iterable[Path], since: dt.datetime | None = None
) -> tuple[KeyUse, ...]:
    """Return every attempt to read keys that audit logs tell of, the oldest first.

    Args:
        config: The configuration.
        files: Logs of an audit device of type ``file``, as JSON; gzipped ones as well.
        since: None before this moment.

    Raises:
        ConfigError: A file is not there, or is no audit log.
        JournalError: Our own notes cannot be read.
    """
    ours = read_notes(config)
    base = f"{config.vault.mount}/data/{FOLDER}/"
    found = {
        use.request: use
        for file in files
        for entry in _read_entries(file)
        if (use := _judge(entry, base, config.vault.namespace, ours))
        if since is None or use.at >= since
    }
    return tuple(sorted(found.values(), key=lambda use: use.at))


def read_last_uses(config: Config, files: Iterable[Path]) -> dict[str, LastUse]:
    """Return when the keys of each backup or clone were given out last, and to whom.

    Args:
        config: The configuration.
        files: Vault's audit logs. Where there are none, our own notes of this machine tell, which
            know of our own reads alone.

    Raises:
        ConfigError: A file is not there, or is no audit log.
        JournalError: Our own notes cannot be read.
    """
    named = tuple(files)
    if not named:
        return _read_noted_uses(config)
    return {
        use.backup_id: LastUse(
            at=use.at.isoformat(timespec="seconds"), by=use.run_id or use.user or "unknown"
        )
        for use in read_audit(config, named)
        if use.was_read
    }


def _read_noted_uses(config: Config) -> dict[str, LastUse]:
    found = {}
    for noted in _read_noted(config):
        by = str(noted["run"]) or "xbvault"
        found[str(noted["key"])] = LastUse(at=str(noted["at"]), by=by)
    return found


def _read_entries(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the answers that a log tells of; its last line may still be being written."""
    is_log = is_empty = True
    try:
        with file.open("rb") as opened:
            packed = opened.read(2) == _GZIP
        with gzip.open(file, "rb") if packed else file.open("rb") as lines:
            for line in lines:
                if not line.strip():
                    continue
                try:
                    entry = json.loads(line)
                    is_log = isinstance(entry, dict) and "type" in entry and "request" in entry
                except ValueError:
                    is_log = not is_empty and not line.endswith(b"\n")
                    entry = {}
                if not is_log:
                    break
                is_empty = False
                if entry.get("type") == "response":
                    yield entry
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{file}: {reason}", hint="see vault.audit_file and --file") from error
    if not is_log:
        raise ConfigError(
            f"{file} is no audit log of Vault",
            hint='the log of an audit device of type "file" with format "json" is meant',
        )


def _judge(entry: dict[str, Any], base: str, namespace: str, ours: dict[str, str]) -> KeyUse | None:
    request = _table(entry, "request")
    path = str(request.get("path", ""))
    inside = str(_table(request, "namespace").get("path", ""))
    if request.get("operation") != "read" or not path.startswith(base):
        return None
    if inside.strip("/") != namespace.strip("/"):
        return None
    who = _table(entry, "auth")
    answer = _table(_table(entry, "response"), "data")
    number = str(request.get("id", ""))
    policies = who.get("policies")
    return KeyUse(
        at=_find_moment(str(entry.get("time", ""))),
        backup_id=path.removeprefix(base),
        user=str(who.get("display_name", "")),
        policies=tuple(map(str, policies if isinstance(policies, list) else ())),
        address=str(request.get("remote_address", "")),
        request=number,
        # wrapped answers hide what they hold, and are given out all the same
        was_read=not entry.get("error") and answer.get("http_status_code") is None,
        is_ours=number in ours,
        run_id=ours.get(number, ""),
    )


def _find_moment(text: str) -> dt.datetime:
    """Return when something was; a use whose moment nobody can read must not be lost."""
    with contextlib.suppress(SecretError):
        found = parse_moment(text)
        if found:
            return found.astimezone(dt.UTC)
    return dt.datetime.fromtimestamp(0, dt.UTC)


def _table(parent: dict[str, Any], name: str) -> dict[str, Any]:
    found = parent.get(name)
    return found if isinstance(found, dict) else {}
