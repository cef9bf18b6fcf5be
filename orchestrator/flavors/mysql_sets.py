"""What XtraBackup writes into a backup set, beside the data. Pure."""

from __future__ import annotations

import dataclasses
import json
import re
import struct
from typing import Any, Final

from orchestrator.errors import VerificationError
from orchestrator.flavors import backup_sets
from orchestrator.flavors.interface import SetFiles, Upstream
from orchestrator.models import Coordinates

FILES: Final = SetFiles(
    info="xtrabackup_info",
    checkpoints="xtrabackup_checkpoints",
    binlog_info="xtrabackup_binlog_info",
    slave_info="xtrabackup_slave_info",
    keys="xtrabackup_keys",
)
CHANGES: Final = ".delta"
"""What an incremental set has of a tablespace, whether or not it was changed."""
TABLESPACES: Final = "xtrabackup_tablespaces"
"""Files outside of the datadir; tools of series 2.4 write none."""
CARRIED_CONFIGS: Final = (
    "component_keyring_file.cnf",
    "component_keyring_kmip.cnf",
    "component_keyring_kms.cnf",
    "component_keyring_vault.cnf",
    "xtrabackup_component_keyring_file.cnf",
)
"""Configuration of the donor's keyring component, which the tool puts into the set: for Vault it has
the donor's token. Under a transition key nothing needs it, so it must not stay on the recipient."""
_UUID: Final = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_TAG: Final = r"[A-Za-z_][A-Za-z0-9_]{0,31}"
_INTERVAL: Final = r"[0-9]{1,19}(?:-[0-9]{1,19})?"
_GTIDS: Final = re.compile(rf"{_UUID}(?:(?::{_TAG})?:{_INTERVAL})+")

_KEYS_MAGIC: Final = b"KEYSV01"
_SALT_BYTES: Final = 64
_KEY_NAME_BYTES: Final = 83
_KEYS_HEAD: Final = len(_KEYS_MAGIC) + _SALT_BYTES + _KEY_NAME_BYTES
_KEYS_RECORD: Final = 72
_NO_TABLESPACES: Final = frozenset({*range(0xFFFFFFF0, 0xFFFFFFFE), 0xFFFFFFFF})
"""Ids from which InnoDB makes no file: undo tablespaces are below them, ``mysql.ibd`` between."""


def parse_gtid_set(text: str) -> str:
    """Return a GTID set on one line; empty for an empty one.

    From 8.3 on a GTID can have a tag, as in ``uuid:1-3:tag:1-2``.

    Raises:
        VerificationError: It is none, or was cut behind a comma.
    """
    joined = re.sub(r"\s", "", text)
    if joined and not all(_GTIDS.fullmatch(part) for part in joined.split(",")):
        raise VerificationError(f"no GTID set: {text[:80]!r}")
    return joined


def parse_binlog_info(text: str) -> Coordinates:
    """Return the coordinates in a ``xtrabackup_binlog_info`` file.

    One record ``FILE<TAB>POSITION[<TAB>GTID SET]`` with a newline at its end; the set may go on
    after a comma on a further line. There is no file where the donor keeps no binary log.

    Raises:
        VerificationError: It is not of this form, or was cut.
    """
    file, _, rest = text.removesuffix("\n").partition("\t")
    position, _, gtids = rest.partition("\t")
    gtid = parse_gtid_set(gtids)
    if not text.endswith("\n"):
        raise VerificationError(f"no binary log coordinates in {text[:80]!r}")
    if not file and gtid:
        return Coordinates(file="", position=0, gtid=gtid)
    return backup_sets.need_coordinates(file, position, gtid)


_PURGED: Final = re.compile(r"\s*SET GLOBAL gtid_purged='([^']*)';?\s*")
_CHANGE: Final = re.compile(
    r"\s*CHANGE (?:MASTER TO MASTER|REPLICATION SOURCE TO SOURCE)_"
    r"(?:(?P<by_gtid>AUTO_POSITION)=1"
    r"|LOG_FILE='(?P<file>[^'\n]*)', (?:MASTER|SOURCE)_LOG_POS=(?P<position>[0-9]+))"
    r"(?: FOR CHANNEL '(?P<channel>[^'\n]*)')?;?[ \t]*\n"
)


def parse_slave_info(text: str) -> tuple[Upstream, ...]:
    """Return what a ``xtrabackup_slave_info`` file says, a channel each.

    Statements as the server takes them, in the words of its version: first, where GTIDs are used,
    the set that is there already; then a CHANGE for each channel, without address and account.

    Raises:
        VerificationError: It is not of this form, was cut, or names no source.
    """
    purged = _PURGED.match(text)
    gtid = parse_gtid_set(purged.group(1)) if purged else ""
    return backup_sets.need_upstreams(text[purged.end() if purged else 0 :], _CHANGE, gtid=gtid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeysFile:
    """What can be told of a ``xtrabackup_keys`` file without the key that opens it.

    Attributes:
        space_ids: What it has keys of; redo and binary log have reserved ids.
        key_name: Name of the key in the donor's keyring; empty if a transition key was given.
    """

    space_ids: tuple[int, ...]
    key_name: str

    @property
    def tablespaces(self) -> int:
        """How many tablespaces it has keys of, redo and binary log not counted."""
        return sum(space_id not in _NO_TABLESPACES for space_id in self.space_ids)


def parse_keys(data: bytes) -> KeysFile:
    """Return what a ``xtrabackup_keys`` file says of itself.

    The tool does not notice one that was cut within a record, and fails at an assertion later.

    Raises:
        VerificationError: It is none, or was cut.
    """
    if len(data) < _KEYS_HEAD or not data.startswith(_KEYS_MAGIC):
        raise VerificationError(f"no file of tablespace keys: {len(data)} bytes, {data[:7]!r}")
    count, rest = divmod(len(data) - _KEYS_HEAD, _KEYS_RECORD)
    if rest:
        raise VerificationError(f"the file of tablespace keys was cut within record {count + 1}")
    name = data[_KEYS_HEAD - _KEY_NAME_BYTES : _KEYS_HEAD].rstrip(b"\0")
    if not name.isascii() or not name.decode("ascii", "replace").isprintable():
        raise VerificationError("the file of tablespace keys names its key in unknown bytes")
    offsets = range(_KEYS_HEAD, len(data), _KEYS_RECORD)
    return KeysFile(
        space_ids=tuple(struct.unpack_from("<I", data, offset)[0] for offset in offsets),
        key_name=name.decode("ascii"),
    )


def parse_tablespaces(text: str) -> tuple[str, ...]:
    """Return the files in ``xtrabackup_tablespaces`` that a restore would put outside the datadir.

    Undo tablespaces are left out, for they go where the tool is told.

    Raises:
        VerificationError: It is not of this form, or was cut.
    """
    try:
        document: Any = json.loads(text)
        entries = document["external_tablespaces"]
        return tuple(
            str(entry["file_name"]) for entry in entries if entry["tablespace_type"] != "UNDO_LOG"
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerificationError(f"no list of tablespaces: {text[:80]!r}") from error


def parse_set_options(text: str) -> dict[str, str]:
    """Return the options in a set's ``backup-my.cnf``, by their names with underscores.

    Raises:
        VerificationError: It was cut, or holds bytes that the tool does not write.
    """
    if not text.endswith("\n") or "\0" in text or "\ufffd" in text:
        raise VerificationError(f"no options of a set: it ends with {text[-40:]!r}")
    options = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals and re.fullmatch(r"[a-z][a-z_-]*", name):
            options[name.replace("-", "_")] = value.strip()
    return options
