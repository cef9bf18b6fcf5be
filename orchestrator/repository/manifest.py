"""The manifest of a backup set: what it holds, and proof that nobody but us wrote it. Pure.

It is one JSON document, ``{"manifest": {…}, "mac": "…"}``, in canonical form: keys sorted, no
spaces, UTF-8, one line. The MAC is HMAC-SHA-256 of the inner document, in that form, under a key
that stands in Vault alone. Everything else in the folder is named in it with size and SHA-256, so
that the one MAC covers the whole set. It is written last, by rename: a folder without it is no
backup set.

A field is not added, renamed or given another meaning without a new format version; a program
reads its own and every earlier one. ``docs/reference/backup-set.md`` explains each field.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any, Final

from orchestrator import keys, models, wire
from orchestrator.errors import VerificationError
from orchestrator.models import Check, Coordinates  # noqa: TC001 - read at run time by from_json
from orchestrator.repository import names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from orchestrator.models import Secret

FORMAT: Final = "xbvault-backup-set"
FORMAT_VERSION: Final = 1
LARGEST_BYTES: Final = 64 << 20
"""Of a manifest; with the checksums of 300,000 tables it is about half of that."""
FULL: Final = "full"
INCREMENTAL: Final = "incremental"
BINLOGS: Final = "binlogs"
FLAVORS: Final = ("mariadb", "mysql")

_LARGEST: Final = 1 << 63
_LONGEST_VERSION: Final = 100
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_DEPLOYMENT: Final = re.compile(r"[0-9a-f]{32}")
_AGE_RECIPIENT: Final = re.compile(r"age1[02-9ac-hj-np-z]{58}")
_KEY_PATH: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_CHECKSUM: Final = re.compile(r"[0-9]+(?:/[0-9]+/[0-9]+)?")
_LOG_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.[0-9]{6,10}")
_HINT: Final = "it was altered or not written by xbvault: do not use this set"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file of a backup set.

    Attributes:
        name: In the folder of the set.
        bytes: Its size.
        sha256: Of what it holds, in hexadecimal.
    """

    name: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableChecksum:
    """What a table of the donor summed up to at the coordinates of its backup set.

    Attributes:
        schema: Its schema.
        name: Its name.
        checksum: As the comparison of a clone has it.
    """

    schema: str
    name: str
    checksum: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchivedLog:
    """A binary log of the donor, as a set of them has it.

    Attributes:
        name: The server's name for it.
        bytes: Its size, which is that of the decrypted log.
        began_at: When the server began it, ISO 8601 in UTC.
        gtid_before: GTID state with which it begins; empty where the server keeps none.
    """

    name: str
    bytes: int
    began_at: str
    gtid_before: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is to be known of a backup set to verify and restore it. It holds no secret.

    Attributes:
        format: ``xbvault-backup-set``.
        format_version: Of this document and of the folder that it describes.
        xbvault_version: Of the program that wrote it.
        backup_id: Name of the set and of its folder.
        deployment: Id of the store in Vault that holds its keys.
        host: The donor.
        flavor: ``mariadb`` or ``mysql``.
        server_version: The donor's.
        tool_version: The backup tool's.
        kind: ``full``, ``incremental``, or ``binlogs`` for an archive of binary logs.
        base_backup_id: The set that an incremental one builds on; empty of a full one.
        from_lsn: Log sequence number from which an incremental set has the changes; 0 of a full one.
        to_lsn: Log sequence number up to which the set goes.
        began_at: When the backup began, ISO 8601 in UTC.
        ended_at: When its stream had ended, which is the state that it has; of binary logs, the
            moment just before the last one was closed.
        coordinates: Place in the donor's binary log; None where there is none. Of binary logs, where
            the next archive goes on.
        compress: Of the stream, before it was encrypted: ``none`` or ``zstd:LEVEL``.
        stream_bytes: Size of the stream before it was encrypted.
        part_bytes: Size of every part but the last, which may be smaller.
        parts: The encrypted stream, in order.
        files: Every other file of the set but the manifest itself.
        age_recipient: Public key that the stream was encrypted to.
        key_path: Path of the transition key, below the mount of our own records in Vault. The
            identity of ``age`` stands beside it.
        has_keyring: Whether the donor had keys to carry over.
        keyring: The donor's keyring, of those that a backup tool writes to; empty for none.
        key_versions: Newest version of each key id in the donor's mount; of MariaDB only.
        data_bytes: Size of the donor's data, for the space that a restore needs; an estimate.
        layout: The donor's directories, by the server's own names for them; of MySQL with its
            ``server_uuid``.
        checks: What the set was judged by; each of them holds.
        checksums: Tables at the coordinates, where they were asked for.
        binlogs: The binary logs of which the stream is made, one after the other.
    """

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    xbvault_version: str
    backup_id: str
    deployment: str
    host: str
    flavor: str
    server_version: str
    tool_version: str
    kind: str = FULL
    base_backup_id: str = ""
    from_lsn: int = 0
    to_lsn: int
    began_at: str
    ended_at: str
    coordinates: Coordinates | None = None
    compress: str = wire.NONE
    stream_bytes: int
    part_bytes: int
    parts: tuple[StoredFile, ...]
    files: tuple[StoredFile, ...] = ()
    age_recipient: str
    key_path: str
    has_keyring: bool
    keyring: str = ""
    key_versions: dict[str, int] = dataclasses.field(default_factory=dict)
    data_bytes: int = 0
    layout: dict[str, str] = dataclasses.field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    checksums: tuple[TableChecksum, ...] = ()
    binlogs: tuple[ArchivedLog, ...] = ()

    @property
    def is_full(self) -> bool:
        """Whether it can be restored without another set."""
        return self.kind == FULL

    @property
    def has_data(self) -> bool:
        """Whether it has a server's data, and not only binary logs."""
        return self.kind != BINLOGS

    @property
    def ended(self) -> datetime:
        """The moment whose state it has."""
        return names.parse_moment(self.ended_at)

    @property
    def stored_files(self) -> tuple[StoredFile, ...]:
        """Every file of the set but the manifest itself."""
        return (*self.parts, *self.files)

    @property
    def stored_bytes(self) -> int:
        """What the set takes in its repository, but for the manifest itself."""
        return sum(file.bytes for file in self.stored_files)


def seal_manifest(manifest: Manifest, key: Secret) -> bytes:
    """Return a manifest with its MAC, as it is written.

    Args:
        manifest: What is true of the set.
        key: The key that manifests are authenticated with.

    Raises:
        VerificationError: It says what cannot be, or is too large to be read again.
        SecretError: The key is not one.
    """
    _check(manifest, hint="this set is not to be relied on: take another backup")
    clear = models.as_json(manifest)
    data = _write(clear, keys.authenticate(_canonical(clear), key))
    if len(data) > LARGEST_BYTES:
        raise VerificationError(
            f"the manifest of {manifest.backup_id} has {len(data)} bytes; {LARGEST_BYTES} can be read",
            hint="take larger parts, or no checksums",
        )
    return data


def open_manifest(data: bytes, *, backup_id: str, deployment: str, key: Secret) -> Manifest:
    """Return the manifest of a set, after it was proved to be ours.

    No word of it is repeated in an error before that.

    Args:
        data: What the file holds.
        backup_id: The set that was asked for: the name of its folder.
        deployment: Id of our own store in Vault.
        key: The key that manifests are authenticated with.

    Raises:
        VerificationError: It was altered, is that of another set or deployment, or of a newer
            format.
        SecretError: The key is not one.
    """
    if not names.is_backup_id(backup_id):
        raise VerificationError(f"{backup_id[:80]!r} is no name of a backup set")
    clear, mac = _decode(data, backup_id)
    if clear.get("deployment") != deployment:
        raise VerificationError(
            f"{backup_id} is a backup set of another deployment",
            hint="its keys are in another Vault, or in another store of this one: see vault.mount",
        )
    if not keys.is_authentic(_canonical(clear), mac, key):
        raise VerificationError(
            f"the manifest of {backup_id} is not authentic: its MAC does not fit", hint=_HINT
        )
    manifest = parse_manifest(clear)
    if manifest.backup_id != backup_id:
        raise VerificationError(
            f"the manifest in the folder of {backup_id} is that of {manifest.backup_id}",
            hint="the sets were swapped or a folder was renamed: put each back under its own name",
        )
    return manifest


def parse_manifest(document: Any) -> Manifest:
    """Return the manifest that a JSON value describes: each field, and no other.

    Raises:
        VerificationError: It describes none, or one that says what cannot be.
    """
    try:
        manifest = models.from_json(Manifest, document)
        is_whole = _canonical(models.as_json(manifest)) == _canonical(document)
    except (ValueError, RecursionError) as error:
        raise VerificationError("the manifest is none of this format", hint=_HINT) from error
    if not is_whole:
        raise VerificationError(
            "the manifest lacks a field of its format version, or has one more", hint=_HINT
        )
    _check(manifest, hint=_HINT)
    return manifest


def _decode(data: bytes, backup_id: str) -> tuple[dict[str, Any], str]:
    unread = VerificationError(f"the manifest of {backup_id} cannot be read", hint=_HINT)
    if len(data) > LARGEST_BYTES:
        raise unread
    try:
        document = json.loads(data.decode())
        clear = document["manifest"]
        form, version = clear["format"], clear["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise unread from error
    if form != FORMAT or isinstance(version, bool) or not isinstance(version, int):
        raise unread
    if version > FORMAT_VERSION:  # the rest may look otherwise then, MAC and all
        raise VerificationError(
            f"{backup_id} is of a newer format than this program reads, which is {FORMAT_VERSION}",
            hint="use the version of xbvault that made it, or a later one",
        )
    mac = document.get("mac")
    try:
        # The same content in other bytes (spaces, a key named twice) is altered as well.
        is_canonical = isinstance(mac, str) and _write(clear, mac) == data
    except (ValueError, RecursionError) as error:
        raise unread from error
    if not is_canonical or not _SHA256.fullmatch(mac):
        raise unread
    return clear, mac


def _write(clear: Any, mac: str) -> bytes:
    return _canonical({"manifest": clear, "mac": mac}) + b"\n"


def _canonical(value: Any) -> bytes:
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def _check(manifest: Manifest, *, hint: str) -> None:
    found = list(_find_problems(manifest))
    if found:
        is_named = names.is_backup_id(manifest.backup_id)
        name = manifest.backup_id if is_named else "a backup set"
        raise VerificationError(
            f"the manifest of {name} says what cannot be", hint=hint, problems=found
        )


def _find_problems(manifest: Manifest) -> Iterator[str]:
    yield from _find_problems_of_names(manifest)
    yield from _find_problems_of_kind(manifest)
    yield from _find_problems_of_files(manifest)
    numbers = (manifest.from_lsn, manifest.to_lsn, manifest.stream_bytes, manifest.data_bytes)
    if any(not 0 <= number < _LARGEST for number in (*numbers, *manifest.key_versions.values())):
        yield "a number is out of bounds"
    for moment in (manifest.began_at, manifest.ended_at):
        try:
            names.parse_moment(moment)
        except VerificationError as error:
            yield error.message
    if not all(check.ok for check in manifest.checks):
        yield "a check does not hold"
    if manifest.coordinates and not 0 < manifest.coordinates.position < _LARGEST:
        yield "the coordinates are none"
    if not all(_CHECKSUM.fullmatch(table.checksum) for table in manifest.checksums):
        yield "a table's checksum is none"
    if manifest.checksums and not manifest.coordinates:
        yield "tables were summed up, but at no coordinates"
    yield from _find_problems_of_logs(manifest)


def _find_problems_of_logs(manifest: Manifest) -> Iterator[str]:
    logs = manifest.binlogs
    if manifest.has_data:
        if logs:
            yield "only a set of binary logs has some"
        return
    if not logs or manifest.coordinates is None:
        yield "it has no binary logs, or does not say which one comes next"
    if not all(_LOG_NAME.fullmatch(log.name) and 0 < log.bytes < _LARGEST for log in logs):
        yield "a binary log has no name, or no bytes"
    elif sum(log.bytes for log in logs) != manifest.data_bytes:
        yield "the binary logs are not as large as data_bytes says"
    for log in logs:
        try:
            names.parse_moment(log.began_at)
        except VerificationError as error:
            yield error.message


def _find_problems_of_names(manifest: Manifest) -> Iterator[str]:
    is_one = {
        "format": manifest.format == FORMAT,
        "format_version": manifest.format_version == FORMAT_VERSION,
        "xbvault_version": _is_version(manifest.xbvault_version),
        "backup_id": names.is_backup_id(manifest.backup_id),
        "deployment": _DEPLOYMENT.fullmatch(manifest.deployment),
        "flavor": manifest.flavor in FLAVORS,
        "server_version": _is_version(manifest.server_version),
        "tool_version": _is_version(manifest.tool_version),
        "compress": _is_compression(manifest.compress),
        "age_recipient": _AGE_RECIPIENT.fullmatch(manifest.age_recipient),
        "key_path": _KEY_PATH.fullmatch(manifest.key_path),
    }
    yield from (f"{field} is none" for field, good in is_one.items() if not good)
    if names.find_host(manifest.backup_id) != manifest.host:
        yield "backup_id names another host"


def _is_version(text: str) -> bool:
    return text.isprintable() and 0 < len(text) <= _LONGEST_VERSION


def _is_compression(text: str) -> bool:
    try:
        return text == wire.parse_compression(text) != wire.AUTO
    except ValueError:
        return False


def _find_problems_of_kind(manifest: Manifest) -> Iterator[str]:
    base = manifest.base_backup_id
    if manifest.kind == FULL:
        if base or manifest.from_lsn:
            yield "a full set builds on none"
    elif manifest.kind == BINLOGS:
        if base or manifest.from_lsn or manifest.to_lsn:
            yield "a set of binary logs builds on none, and has no pages"
    elif manifest.kind != INCREMENTAL:
        yield "kind is none"
    elif not names.is_backup_id(base) or base == manifest.backup_id:
        yield "an incremental set builds on another one"
    if manifest.to_lsn < manifest.from_lsn:
        yield "to_lsn lies before from_lsn"


def _find_problems_of_files(manifest: Manifest) -> Iterator[str]:
    parts = manifest.parts
    if not 1 <= len(parts) <= names.MOST_PARTS or manifest.part_bytes < 1:
        yield "the stream has no parts, or too many"
    elif [part.name for part in parts] != [names.name_part(n + 1) for n in range(len(parts))]:
        yield "the parts are not numbered one after the other"
    elif any(part.bytes != manifest.part_bytes for part in parts[:-1]) or not (
        0 < parts[-1].bytes <= manifest.part_bytes
    ):
        yield "a part is not as large as part_bytes says"
    elif sum(part.bytes for part in parts) <= manifest.stream_bytes:
        yield "the parts are smaller than the stream that they encrypt"
    listed = [file.name for file in manifest.files]
    if len(set(listed)) < len(listed) or not all(names.is_extra_file(name) for name in listed):
        yield "files have a name twice, or one that is not for them"
    for file in manifest.stored_files:
        if not (0 <= file.bytes < _LARGEST and _SHA256.fullmatch(file.sha256)):
            yield f"size or sha256 of a file is none: {file.name[:80]!r}"
