"""What differs between versions of MySQL, Percona Server and XtraBackup. Pure.

One row a change, so that a version is never asked for a word that it does not know: the words of a
server, the keyrings that it can have, the tools that fit it, and defects of tools that matter here.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Final

from orchestrator.errors import PreconditionError
from orchestrator.flavors.versions import read_numbers

OLDEST_SERVER: Final = (5, 7, 11)
"""Tablespaces could be encrypted from here on."""
_SERIES_8_0: Final = (8, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    """What a server of one version is to be asked with.

    Attributes:
        change_source: Begin of the statement that wires replication.
        source_prefix: Of that statement's options, and of those of UNTIL.
        replica: In START, STOP, RESET and SHOW … STATUS.
        source_column: How the columns of SHOW … STATUS call the source.
        replica_column: How they call the replica.
        binlog_status: Says file, position and GTID set of the binary log.
        reset_binlogs: Begins the binary logs and the GTID history anew.
        wait_for_position: The function that waits for a position.
        skip_start: The option that keeps replication from starting with the server.
        logs_updates: The variable that says whether a replica logs what it applies.
        disable_event: What disables an event on a replica.
        disabled_status: What such an event's status reads.
        account_plugin: Authenticates new accounts.
        tablespaces: The view of all InnoDB tablespaces.
        datafiles: The view of their files.
        is_encrypted: The condition in `tablespaces` that one is encrypted.
        has_keyring_keys: Whether performance_schema lists the keyring's keys.
        has_component_status: Whether performance_schema tells of keyring components.
        has_log_status: Whether performance_schema has the logs' positions in one row.
        has_backup_admin: Whether the backup tool needs the privilege BACKUP_ADMIN.
        has_tagged_gtids: Whether a GTID can have a tag.
        shows_foreign_keys: Whether an account with SELECT sees the foreign keys.
    """

    change_source: str
    source_prefix: str
    replica: str
    source_column: str
    replica_column: str
    binlog_status: str
    reset_binlogs: str
    wait_for_position: str
    skip_start: str
    logs_updates: str
    disable_event: str
    disabled_status: str
    account_plugin: str
    tablespaces: str
    datafiles: str
    is_encrypted: str
    has_keyring_keys: bool
    has_component_status: bool
    has_log_status: bool
    has_backup_admin: bool
    has_tagged_gtids: bool
    shows_foreign_keys: bool


_FIRST_WORDS: Final = Words(
    change_source="CHANGE MASTER TO",
    source_prefix="MASTER_",
    replica="SLAVE",
    source_column="Master",
    replica_column="Slave",
    binlog_status="SHOW MASTER STATUS",
    reset_binlogs="RESET MASTER",
    wait_for_position="MASTER_POS_WAIT",
    skip_start="skip_slave_start",
    logs_updates="log_slave_updates",
    disable_event="DISABLE ON SLAVE",
    disabled_status="SLAVESIDE_DISABLED",
    account_plugin="mysql_native_password",
    tablespaces="information_schema.INNODB_SYS_TABLESPACES",
    datafiles="information_schema.INNODB_SYS_DATAFILES",
    is_encrypted="FLAG & 8192 <> 0",
    has_keyring_keys=False,
    has_component_status=False,
    has_log_status=False,
    has_backup_admin=False,
    has_tagged_gtids=False,
    shows_foreign_keys=False,
)

WORD_CHANGES: Final[tuple[tuple[tuple[int, int, int], dict[str, Any]], ...]] = (
    (
        (8, 0, 11),  # the first of its series that was no preview
        {
            "account_plugin": "caching_sha2_password",
            "tablespaces": "information_schema.INNODB_TABLESPACES",
            "datafiles": "information_schema.INNODB_DATAFILES",
            "has_log_status": True,
            "has_backup_admin": True,
            "shows_foreign_keys": True,
        },
    ),
    ((8, 0, 13), {"is_encrypted": "ENCRYPTION = 'Y'"}),
    ((8, 0, 16), {"has_keyring_keys": True}),
    ((8, 0, 22), {"replica": "REPLICA", "source_column": "Source", "replica_column": "Replica"}),
    (
        (8, 0, 23),
        {"change_source": "CHANGE REPLICATION SOURCE TO", "source_prefix": "SOURCE_"},
    ),
    ((8, 0, 24), {"has_component_status": True}),
    (
        (8, 0, 26),
        {
            "wait_for_position": "SOURCE_POS_WAIT",
            "skip_start": "skip_replica_start",
            "logs_updates": "log_replica_updates",
        },
    ),
    (
        (8, 2, 0),
        {
            "binlog_status": "SHOW BINARY LOG STATUS",
            "reset_binlogs": "RESET BINARY LOGS AND GTIDS",
            "disable_event": "DISABLE ON REPLICA",
            "disabled_status": "REPLICA_SIDE_DISABLED",
        },
    ),
    ((8, 3, 0), {"has_tagged_gtids": True}),
)
"""From which version on a word is another one. The earlier word goes on to work for a while, and was
removed in 8.4."""


def choose_words(server_version: str) -> Words:
    """Return what a server of this version is to be asked with.

    Raises:
        PreconditionError: It is older than what can be cloned.
        VerificationError: This is no version.
    """
    numbers = read_numbers(server_version)
    if numbers < OLDEST_SERVER:
        raise PreconditionError(
            f"server version {server_version} is older than {_dotted(OLDEST_SERVER)}",
            hint="older servers cannot encrypt tablespaces, and are not cloned",
        )
    words = _FIRST_WORDS
    for since, changes in WORD_CHANGES:
        if numbers >= since:
            words = dataclasses.replace(words, **changes)
    return words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defect:
    """A defect of the backup tool that a clone of an encrypted server would meet.

    Attributes:
        name: Its maker's number for it.
        series: Of the tool.
        fixed_in: The first tool without it.
        text: What happens.
        is_avoided: Whether a clone avoids it by how it calls the tool; otherwise the tool is refused.
    """

    name: str
    series: tuple[int, int]
    fixed_in: tuple[int, int, int]
    text: str
    is_avoided: bool = False


DEFECTS: Final = (
    Defect(
        name="PXB-1544",
        series=(2, 4),
        fixed_in=(2, 4, 12),
        text="a restore does not find the keyring plugin that early-plugin-load names",
    ),
    Defect(
        name="PXB-1648",
        series=(2, 4),
        fixed_in=(2, 4, 13),
        text="a backup fails at an encrypted table that is so new that no page of it is on disk",
    ),
    Defect(
        name="PXB-1902",
        series=(2, 4),
        fixed_in=(2, 4, 16),
        text="with a transition key, an account with a password cannot log in",
    ),
    Defect(
        name="PXB-1936",
        series=(2, 4),
        fixed_in=(2, 4, 16),
        text="prepare says that it completed although it could not decrypt a table",
    ),
    Defect(
        name="PXB-2142",
        series=(2, 4),
        fixed_in=(2, 4, 20),
        text="a transition key on the command line is written into the backup set; it never stands "
        "there",
        is_avoided=True,
    ),
    Defect(
        name="PXB-2152",
        series=(2, 4),
        fixed_in=(2, 4, 20),
        text="a restore prints the new master key",
    ),
    Defect(
        name="PXB-3571",
        series=(8, 4),
        fixed_in=(8, 4, 4),
        text="with lock-ddl=reduced, the tablespace keys are not saved; lock-ddl is always ON",
        is_avoided=True,
    ),
)
"""A tool of series 8.4 is told by the number behind the dash, for all of them are 8.4.0."""


def list_defects(tool_version: str) -> tuple[Defect, ...]:
    """Return the defects that a tool has.

    Raises:
        VerificationError: This is no version.
    """
    numbers = _tool_numbers(tool_version)
    return tuple(
        defect for defect in DEFECTS if numbers[:2] == defect.series and numbers < defect.fixed_in
    )


FIRST_TRANSITION_KEY: Final = (2, 4, 11)
FIRST_NAMED_BY_SERVER: Final = (8, 0, 22)
"""Tools of series 8.0 were numbered on their own before; any of these takes every older server."""
FIRST_FOR_LATER: Final = (8, 0, 34)
"""From here on a tool of series 8.0 takes servers that came after it."""
_COMPRESSION_CHANGED: Final = (5, 7, 32)
_FIRST_FOR_COMPRESSION: Final = (2, 4, 21)


def judge_tool(server_version: str, tool_version: str, *, uses_keys: bool = True) -> str:
    """Return why a backup tool does not fit a server; empty if it does.

    Args:
        server_version: What the server says of itself.
        tool_version: Such as ``2.4.29`` or ``8.0.35-34``.
        uses_keys: Whether the set's keys are sealed under a transition key.

    Raises:
        VerificationError: One of them is no version.
    """
    server, tool = read_numbers(server_version), read_numbers(tool_version)
    wanted = (2, 4) if server[:2] == (5, 7) else server[:2]
    if "mariadb" in server_version.lower():
        return f"{server_version} is MariaDB, which XtraBackup does not back up"
    if server < OLDEST_SERVER:
        return f"server {_dotted(server)} is older than {_dotted(OLDEST_SERVER)}"
    if tool[:2] != wanted:
        return (
            f"XtraBackup {tool_version} does not fit server {_dotted(server)}: "
            f"take {_dotted(wanted)}"
        )
    keys = _judge_keys(tool, tool_version) if uses_keys else ""
    return _judge_patch(server, tool, tool_version) or keys


def _judge_keys(tool: tuple[int, ...], tool_version: str) -> str:
    """Return why a tool cannot be trusted with a transition key."""
    if tool < FIRST_TRANSITION_KEY:
        return f"XtraBackup {tool_version} knows no transition key: take 2.4.20 or newer"
    found = [defect for defect in list_defects(tool_version) if not defect.is_avoided]
    if not found:
        return ""
    last = max(defect.fixed_in for defect in found)
    return (
        f"XtraBackup {tool_version} has a defect ({found[0].name}: {found[0].text}): "
        f"take {_dotted(last)} or newer"
    )


def _judge_patch(server: tuple[int, ...], tool: tuple[int, ...], tool_version: str) -> str:
    """Return why a tool of the right series does not fit."""
    if server[:2] == _SERIES_8_0:
        if tool < FIRST_NAMED_BY_SERVER:
            return f"XtraBackup {tool_version} is too old: take {_dotted(FIRST_NAMED_BY_SERVER)} or newer"
        if tool < FIRST_FOR_LATER and server > tool:
            return (
                f"XtraBackup {tool_version} is older than server {_dotted(server)}: "
                f"take {_dotted(FIRST_FOR_LATER)} or newer"
            )
    if _COMPRESSION_CHANGED <= server < (5, 8, 0) and tool < _FIRST_FOR_COMPRESSION:
        return (
            f"XtraBackup {tool_version} cannot read compressed pages of server {_dotted(server)}: "
            f"take {_dotted(_FIRST_FOR_COMPRESSION)} or newer"
        )
    return ""


def judge_tools(donor: str, recipient: str) -> str:
    """Return why a set of the donor's tool cannot be prepared with the recipient's; empty if it can.

    Raises:
        VerificationError: One of them is no version.
    """
    theirs, ours = _tool_numbers(donor), _tool_numbers(recipient)
    if theirs[:2] != ours[:2]:
        return f"a set of XtraBackup {donor} is not for XtraBackup {recipient}"
    if ours < theirs:
        return f"a set of XtraBackup {donor} is not for the older {recipient}"
    return ""


def judge_restore(donor: str, recipient: str) -> str:
    """Return why the recipient's server cannot take the donor's data; empty if it can.

    Raises:
        VerificationError: One of them is no version.
    """
    theirs, ours = read_numbers(donor), read_numbers(recipient)
    if theirs[:2] != ours[:2]:
        return f"data of server {_dotted(theirs)} is not for server {_dotted(ours)}: another series"
    if ours < theirs:
        return f"data of server {_dotted(theirs)} is not for the older server {_dotted(ours)}"
    return ""


def _tool_numbers(tool_version: str) -> tuple[int, ...]:
    """Return a tool's numbers; where all of a series share the third, the one behind the dash."""
    numbers = read_numbers(tool_version)
    if numbers[:2] >= (8, 1):
        build = re.search(r"[0-9]-([0-9]{1,5})(?![0-9])", tool_version)
        return (*numbers[:2], int(build.group(1)) if build else numbers[2])
    return numbers


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
