"""What MySQL's programs and XtraBackup say: versions, new keys, and why something failed. Pure."""

from __future__ import annotations

import dataclasses
import enum
import re
from typing import Final

from orchestrator.errors import VerificationError

_VERSION: Final = r"[0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5}"


def parse_server_version(text: str) -> str:
    """Return the version that ``mysqld --version`` names; empty if it is another product's.

    ``mysqld  Ver 8.0.36-28 for Linux on x86_64 (Percona Server (GPL), …)`` gives ``8.0.36``.
    """
    if "mariadb" in text.lower():
        return ""
    found = re.search(rf"\bVer ({_VERSION})(?![0-9.])", text)
    return found.group(1) if found else ""


def is_percona(comment: str) -> bool:
    """Return whether ``@@version_comment``, or what ``mysqld --version`` says, is Percona's."""
    return "percona" in comment.lower()


def parse_tool_version(text: str) -> str:
    """Return the version that ``xtrabackup --version`` names; empty if none.

    ``xtrabackup version 8.0.35-34 based on MySQL server 8.0.35 Linux (x86_64) …`` gives
    ``8.0.35-34``.
    """
    found = re.search(
        rf"\bxtrabackup version ({_VERSION}(?:-[A-Za-z0-9.]{{1,20}})?) based on MySQL", text
    )
    return found.group(1) if found else ""


def parse_lsn(status: str) -> int:
    """Return the log sequence number in the answer to ``SHOW ENGINE INNODB STATUS``.

    Raises:
        VerificationError: There is none.
    """
    found = re.search(r"^Log sequence number\s+([0-9]{1,20})$", status, re.MULTILINE)
    if found is None:
        raise VerificationError("InnoDB's status tells no log sequence number")
    return int(found.group(1))


_NEW_KEY: Final = re.compile(
    r"\bGenerated new master key(?: with ID '([^'\n]*)')?\.?[ \t]*$", re.MULTILINE
)
_REWRITTEN: Final = re.compile(r"\bEncrypting \S.* tablespace header with new master key\b")


def parse_new_master_key(stderr: str) -> str | None:
    """Return the id of the master key that a restore made; None if it made none.

    Newer tools say only that they made one: then the id is empty.
    """
    found = _NEW_KEY.search(stderr)
    return (found.group(1) or "") if found else None


def count_rewritten_headers(stderr: str) -> int:
    """Return how many tablespaces a restore says that it put under the new master key.

    The tool does not look whether it succeeded in that; a missing one is seen by this number.
    """
    return sum(bool(_REWRITTEN.search(line)) for line in stderr.split("\n"))


class Phase(enum.Enum):
    """What a tool was doing, and on which host."""

    BACKUP = "backup"
    EXTRACT = "extract"
    PREPARE = "prepare"
    RESTORE = "restore"

    @property
    def role(self) -> str:
        """The host's part in the run."""
        return "donor" if self is Phase.BACKUP else "recipient"


class ToolCause(enum.Enum):
    """Why a tool failed, divided by what must be done about it."""

    WRONG_TRANSITION_KEY = "wrong-transition-key"
    NO_TRANSITION_KEY = "no-transition-key"
    NO_KEYS_FILE = "no-keys-file"
    KEY_NOT_IN_KEYRING = "key-not-in-keyring"
    VAULT_DENIES = "vault-denies"
    VAULT_CERTIFICATE = "vault-certificate"
    VAULT_UNAVAILABLE = "vault-unavailable"
    KEYRING_CONFIG = "keyring-config"
    KEYRING_MISSING = "keyring-missing"
    NOT_DECRYPTED = "not-decrypted"
    NOT_PREPARED = "not-prepared"
    DATADIR_NOT_EMPTY = "datadir-not-empty"
    DISK_FULL = "disk-full"
    LOGIN_FAILED = "login-failed"
    PRIVILEGE_MISSING = "privilege-missing"
    LOCK_TIMEOUT = "lock-timeout"
    REDO_OVERWRITTEN = "redo-overwritten"
    WRONG_TOOL = "wrong-tool"
    WRONG_OPTIONS = "wrong-options"
    STREAM_CUT = "stream-cut"
    CRASHED = "crashed"
    COPY_FAILED = "copy-failed"
    OTHER = "other"


_CAUSES: Final[tuple[tuple[ToolCause, str, str], ...]] = (
    (
        ToolCause.WRONG_TRANSITION_KEY,
        r"failed to decrypt key and iv for tablespace",
        "the set is sealed under another transition key",
    ),
    (
        ToolCause.NO_TRANSITION_KEY,
        r"failed to derive encryption key",
        "the set is sealed under a transition key, and the tool was given none",
    ),
    (
        ToolCause.NO_KEYS_FILE,
        r"xtrabackup_keys is (?:not found|absent)",
        "the set has no tablespace keys: its stream was cut, or nothing in it is encrypted",
    ),
    (
        ToolCause.KEY_NOT_IN_KEYRING,
        r"Can't fetch the key, please check the keyring plugin is loaded",
        "the set is sealed under a key of the donor's keyring instead of a transition key",
    ),
    (
        ToolCause.VAULT_CERTIFICATE,
        r"CURL returned this error code: (?:51|58|59|60|77|80|83) ",
        "let the keyring of the {role} trust the CA of Vault's certificate",
    ),
    (
        ToolCause.VAULT_UNAVAILABLE,
        r"CURL returned this error code: [0-9]+ |reported: '.*Vault is sealed",
        "see whether Vault is unsealed and can be reached from the {role}",
    ),
    (
        ToolCause.VAULT_DENIES,
        r"reported: '.*(?:permission denied|invalid token|Vault has returned the following error)",
        "give the {role} a token that may list, read, create and update in its own mount",
    ),
    (
        ToolCause.KEYRING_CONFIG,
        r"reported: '(?:Could not open file with credentials|Empty file|Could not parse credential"
        r"|Could not read \S+ from the configuration|Auto-detected mount point version)",
        "mend the configuration of the keyring on the {role}",
    ),
    (
        ToolCause.NOT_DECRYPTED,
        r"Encryption information in datafile: .* can't be decrypted",
        "see that the tool can read the keyring of the {role}; a new table may not be on disk yet",
    ),
    (
        ToolCause.KEYRING_MISSING,
        r"can't generate new master key|failed to init keyring|(?:Can't|can't) find master key",
        "see that the tool has the plugin or component of the keyring on the {role}",
    ),
    (
        ToolCause.NOT_PREPARED,
        r"can't read master_key_id|not fully prepared",
        "the set must be prepared to its end first",
    ),
    (
        ToolCause.DATADIR_NOT_EMPTY,
        r"Original data directory .* is not empty!",
        "the new directory must be empty",
    ),
    (
        ToolCause.DISK_FULL,
        r"No space left on device|[Ee]rrcode: 28\b|Disk quota exceeded|errno:? (?:= )?28\b",
        "make room on the {role}",
    ),
    (
        ToolCause.PRIVILEGE_MISSING,
        r"missing required privilege|Access denied; you need",
        "grant it to the account of the tool on the {role}",
    ),
    (
        ToolCause.LOGIN_FAILED,
        r"Failed to connect to MySQL server(?! as DBD)",
        "see the account in the client option file of the {role}",
    ),
    (
        ToolCause.LOCK_TIMEOUT,
        r"Lock wait timeout exceeded|Unable to obtain (?:the )?lock",
        "wait until long statements on the {role} have ended",
    ),
    (
        ToolCause.REDO_OVERWRITTEN,
        r"log block numbers mismatch|log file has been overwritten|Unable to open #ib_redo",
        "the server wrote its redo log faster than it was read: make it larger",
    ),
    (
        ToolCause.WRONG_TOOL,
        r"Unsupported (?:server version|redo log format)|failed to load tablespaces list"
        r"|does not support|unsupported server version",
        "take the XtraBackup of the server's series on both hosts",
    ),
    (
        ToolCause.WRONG_OPTIONS,
        r"mutually exclusive|unknown (?:option|argument|variable)|must be specified first"
        r"|datadir must be specified|Please set parameter 'datadir'",
        "see the option files that the tool reads on the {role}",
    ),
    (
        ToolCause.STREAM_CUT,
        r"xb_stream_read_chunk\(\)|wrong chunk magic|checksum mismatch",
        "the stream was cut or altered on its way",
    ),
    (
        ToolCause.CRASHED,
        r"got signal [0-9]+|Assertion failure|mysqld got exception",
        "the tool crashed; its log says where",
    ),
    (
        ToolCause.COPY_FAILED,
        r"(?:copy|move)_file\(\) failed",
        "see the room and the permissions on the {role}",
    ),
)
"""What a line must have for a cause, the more telling first: most failures end with a general one."""

_MOMENT: Final = re.compile(
    r"^(?:[0-9]{6} {1,2}[0-9]{1,2}:[0-9]{2}:[0-9]{2} |[0-9]{4}-[0-9]{2}-[0-9]{2}T\S+ [0-9]+ )"
)
_LABELS: Final = re.compile(
    r"^(?:\[(?:ERROR|Warning|Note|System|[0-9]{2}|MY-[0-9]{6}|Xtrabackup|Server|InnoDB)\] *)+"
    r"|^xtrabackup: (?:Error: )?"
)
_BAD: Final = re.compile(r"\[ERROR\]|\b[Ee]rror\b|\bERROR\b")
_COMPLETED: Final = "completed OK!"
_CONTRADICTIONS: Final = (ToolCause.REDO_OVERWRITTEN, ToolCause.NOT_DECRYPTED, ToolCause.CRASHED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolFailure:
    """Why a tool failed.

    Attributes:
        cause: What kind of thing must be done.
        words: The line that tells most, without its moment; empty if it said nothing.
        hint: What to do next; empty where only its words can tell.
    """

    cause: ToolCause
    words: str
    hint: str


def explain_tool_failure(stderr: str, phase: Phase) -> ToolFailure:
    """Return why a tool failed, from what it wrote to stderr."""
    lines = [line for line in stderr.split("\n") if line.strip() and _COMPLETED not in line]
    for cause, pattern, hint in _CAUSES:
        for line in lines:
            if re.search(pattern, line):
                return ToolFailure(
                    cause=cause, words=_strip(line), hint=hint.format(role=phase.role)
                )
    bad = [line for line in lines if _BAD.search(line)] or lines
    return ToolFailure(cause=ToolCause.OTHER, words=_strip(bad[-1]) if bad else "", hint="")


def find_contradictions(stderr: str) -> tuple[str, ...]:
    """Return the lines of a tool that say that its set is bad, although it ended well.

    A backup was seen to complete without a part of its redo log, and without a table.
    """
    patterns = [pattern for cause, pattern, _ in _CAUSES if cause in _CONTRADICTIONS]
    return tuple(
        _strip(line)
        for line in stderr.split("\n")
        if any(re.search(pattern, line) for pattern in patterns)
    )


def _strip(line: str) -> str:
    """Return a line without moment and labels, and a keyring's report without who reported it."""
    bare = _LABELS.sub("", _MOMENT.sub("", line.strip())).strip()
    reported = re.fullmatch(r"(?:Plugin|Component) (\w+) reported: '(.*)'", bare)
    return f"{reported.group(1)}: {reported.group(2)}" if reported else bare
