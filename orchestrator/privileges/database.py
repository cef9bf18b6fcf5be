"""What the accounts of a run may do on the database servers, and the statements that grant it.

Tried one by one on MariaDB 10.11. There SUPER implies some of those beside it; from 11.0 on it does
not, so they are all named.
"""

from __future__ import annotations

import dataclasses

from orchestrator.flavors.quoting import quote_plain
from orchestrator.flavors.versions import read_numbers

GRANT_OPTION = "GRANT OPTION"
"""Stands for WITH GRANT OPTION, which is no privilege of its own in a statement."""
READING = ("PROCESS", "SELECT", "SLAVE MONITOR")
"""What looking at a server takes. Without the first two it hides things instead of refusing."""
DONOR = (
    *READING,
    "BINLOG MONITOR",
    "CREATE USER",
    "RELOAD",
    "REPLICATION SLAVE",
    GRANT_OPTION,
)
"""Privileges on ``*.*`` of the account that works on a donor."""
RECIPIENT = (
    *READING,
    "ALTER",
    "BINLOG ADMIN",
    "EVENT",
    "READ_ONLY ADMIN",
    "RELOAD",
    "REPLICATION SLAVE ADMIN",
    "SET USER",
    "SUPER",
)
"""Privileges on ``*.*`` of the account that works on a recipient."""
REASONS = {
    "PROCESS": "sees who reads the binary log, and which tablespaces are encrypted",
    "SELECT": "lists, opens and compares the tables",
    "SLAVE MONITOR": "reads the state of replication",
    "BINLOG MONITOR": "lets the backup tool read the binary log's position",
    "CREATE USER": "makes and drops the account of each replica",
    "RELOAD": "lets the backup tool lock; resets and flushes binary logs",
    "REPLICATION SLAVE": "can be granted to that account only by one who has it; reads the binary "
    "logs that are archived",
    GRANT_OPTION: "grants it",
    "ALTER": "rebuilds the Aria tables under the new keys",
    "BINLOG ADMIN": "keeps what it changes on the replica out of the binary log",
    "EVENT": "sees the events, and disables them on the replica",
    "READ_ONLY ADMIN": "works on a server that is read-only, and sets it so",
    "REPLICATION SLAVE ADMIN": "wires, starts and stops replication",
    "SET USER": "leaves each event its definer",
    "SUPER": "keeps the password of the replica out of the general log, and sets the speed of "
    "re-encryption and the event scheduler",
}
"""Why each is needed."""
PASSWORD = "PASSWORD"  # noqa: S105 - stands where the administrator puts one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """Privileges on ``*.*`` that the accounts of a run must have been granted.

    Attributes:
        reading: What looking at a server takes.
        donor: Of the account that works on a donor.
        recipient: Of the account that works on a recipient.
        source: Of the account that works on a host that the new replica follows.
        quiet: Beside those, where that host is a replica itself: it takes no writes, and the account
            that is made there stays out of its binary log.
        events: Of the account that works on a donor, where its tables are summed up for a manifest, or
            the binary log must tell whether it has gone on from an earlier set: what shows the events.
    """

    reading: tuple[str, ...]
    donor: tuple[str, ...]
    recipient: tuple[str, ...]
    source: tuple[str, ...]
    quiet: tuple[str, ...]
    events: tuple[str, ...] = ()

    @property
    def backup(self) -> tuple[str, ...]:
        """Of the account that works on a donor, where nothing will replicate from it."""
        return tuple(name for name in self.donor if name not in _FOR_REPLICAS)


_FOR_REPLICAS = ("CREATE USER", "REPLICATION SLAVE", GRANT_OPTION)
"""What only the account of a replica takes."""
MARIADB = Wanted(
    reading=READING,
    donor=DONOR,
    recipient=RECIPIENT,
    source=(*READING, "CREATE USER", "REPLICATION SLAVE", GRANT_OPTION),
    quiet=("BINLOG ADMIN", "BINLOG MONITOR", "READ_ONLY ADMIN", "RELOAD"),
)
_MYSQL_READING = ("PROCESS", "SELECT", "REPLICATION CLIENT")
_MYSQL_DONOR = (*_MYSQL_READING, "CREATE USER", "LOCK TABLES", "RELOAD", "REPLICATION SLAVE")
_MYSQL_SOURCE = (*_MYSQL_READING, "CREATE USER", "REPLICATION SLAVE", GRANT_OPTION)
_MYSQL_RECIPIENT = (*_MYSQL_READING, "EVENT", "RELOAD", "SUPER")
_MYSQL_EVENTS = ("REPLICATION SLAVE",)
"""MariaDB shows them to BINLOG MONITOR, which the backup tool takes anyway."""
_MYSQL_8 = (8, 0)
_ONE_DEFINER = (8, 2)
_SYSTEM_USERS = (8, 0, 16)
"""From here on only such an account makes another such one the definer of an event."""


def wanted_privileges(flavor: str, version: str) -> Wanted:
    """Return what a server of this kind and version wants.

    MySQL 8.0 divided SUPER; what of it is needed is named beside it, because it was to go.

    Args:
        flavor: ``mariadb`` or ``mysql``.
        version: The server's.

    Raises:
        VerificationError: This is no version.
    """
    if flavor == "mariadb":
        return MARIADB
    if read_numbers(version)[:2] < _MYSQL_8:
        return Wanted(
            reading=_MYSQL_READING,
            donor=(*_MYSQL_DONOR, GRANT_OPTION),
            recipient=_MYSQL_RECIPIENT,
            source=_MYSQL_SOURCE,
            quiet=("RELOAD", "SUPER"),
            events=_MYSQL_EVENTS,
        )
    definer = "SET_ANY_DEFINER" if read_numbers(version)[:2] >= _ONE_DEFINER else "SET_USER_ID"
    return Wanted(
        reading=_MYSQL_READING,
        donor=(*_MYSQL_DONOR, "BACKUP_ADMIN", GRANT_OPTION),
        recipient=(
            *_MYSQL_RECIPIENT,
            "CONNECTION_ADMIN",
            "REPLICATION_SLAVE_ADMIN",
            "SYSTEM_VARIABLES_ADMIN",
            definer,
            *(("SYSTEM_USER",) if read_numbers(version) >= _SYSTEM_USERS else ()),
        ),
        source=_MYSQL_SOURCE,
        quiet=("CONNECTION_ADMIN", "RELOAD", "SYSTEM_VARIABLES_ADMIN"),
        events=_MYSQL_EVENTS,
    )


def grant_sql(user: str, host: str, privileges: tuple[str, ...]) -> str:
    """Return the statement that grants privileges to an account."""
    named = ", ".join(name for name in privileges if name != GRANT_OPTION)
    option = f" WITH {GRANT_OPTION}" if GRANT_OPTION in privileges else ""
    return f"GRANT {named} ON *.* TO {quote_plain(user)}@{quote_plain(host)}{option};"


MYSQL_SERIES = {"8.2 and later": "8.2.0", "8.0 and 8.1": "8.0.16", "5.7": "5.7.0"}
"""The first version of each series that wants other privileges."""


def grants_text(flavor: str = "mariadb") -> str:
    """Return the statements that make both accounts, for the donor's server.

    The names are those that we suggest; the accounts are those of the client option files.

    Args:
        flavor: ``mariadb`` or ``mysql``; of the latter, those for each series that wants others.
    """
    if flavor == "mariadb":
        return _grants_text("", MARIADB)
    return "\n".join(
        _grants_text(f" (MySQL {series})", wanted_privileges(flavor, version))
        for series, version in MYSQL_SERIES.items()
    )


def _grants_text(what: str, wanted: Wanted) -> str:
    lines = [
        f"-- xbvault{what}: run these on the donor; a clone carries both accounts to the recipient"
    ]
    for user, privileges in (
        ("xbvault_donor", wanted.donor),
        ("xbvault_recipient", wanted.recipient),
    ):
        account = f"{quote_plain(user)}@'localhost'"
        lines += [
            f"CREATE USER {account} IDENTIFIED BY {quote_plain(PASSWORD)};",
            grant_sql(user, "localhost", privileges),
        ]
    return "\n".join(lines) + "\n"
