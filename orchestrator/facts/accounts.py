"""Facts about the account that the client logs in with: who it is, and what it may do everywhere."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import flavors, sql
from orchestrator.flavors.quoting import quote_text, unhex
from orchestrator.privileges.database import GRANT_OPTION

if TYPE_CHECKING:
    from orchestrator.config import HostConfig
    from orchestrator.remote import Remote

# The option file may hold a password, so all but the user's name is left on the host.
_READ_USER = """\
print_defaults=$1
file=$2
shift 2
found=$("$print_defaults" ${file:+"--defaults-extra-file=$file"} "$@" | sed -n 's/^--user=//p')
[ -n "$found" ] || found=$(id -un)
printf '%s\\n' "$found" | tail -n 1
"""
_OWN = "SELECT HEX(CURRENT_USER()) AS account"
_LOCAL = (
    "SELECT HEX(CONCAT(User, '@', Host)) AS account FROM {table} "
    "WHERE User = {user} AND Host IN ('localhost', '%') ORDER BY Host = 'localhost' DESC LIMIT 1"
)
_PRIVILEGES = (
    "SELECT PRIVILEGE_TYPE AS name, IS_GRANTABLE AS grantable "
    'FROM information_schema.USER_PRIVILEGES WHERE GRANTEE = CONCAT("\'", {user}, "\'@\'", '
    '{host}, "\'")'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """An account of a server.

    Attributes:
        user: Its name.
        host: Where it may log in from; empty if there is no such account.
        privileges: What it was granted on ``*.*`` itself; what a role grants is not among it.
    """

    user: str
    host: str
    privileges: frozenset[str]

    @property
    def label(self) -> str:
        """The account for a reader."""
        return f"{self.user}@{self.host}"


def read_own_account(remote: Remote, host: HostConfig) -> Account:
    """Return the account that the client of a host is logged in as.

    Raises:
        CommandError: The server does not let it in.
    """
    label = unhex(sql.query(remote, host, _OWN)[0]["account"])
    return _read_privileges(remote, host, label)


def read_account(remote: Remote, host: HostConfig, user: str) -> Account:
    """Return the account that a user has who logs in from the server's own machine.

    Raises:
        CommandError: The account that asks may not read it.
    """
    rows = sql.query(
        remote, host, _LOCAL.format(user=quote_text(user), table=flavors.of(host).accounts_table)
    )
    if not rows:
        return Account(user=user, host="", privileges=frozenset())
    return _read_privileges(remote, host, unhex(rows[0]["account"]))


def read_client_user(remote: Remote, host: HostConfig) -> str:
    """Return the name of the user that the client of a host logs in as.

    Raises:
        CommandError: The host does not say.
    """
    flavor = flavors.of(host)
    reader, file = flavor.programs(host).print_defaults, host.server.defaults_file
    command = ["sh", "-c", _READ_USER, "read-user", reader, file, *flavor.client_groups]
    return remote.run(command).text.strip()


def _read_privileges(remote: Remote, host: HostConfig, label: str) -> Account:
    user, _, user_host = label.rpartition("@")
    statement = _PRIVILEGES.format(user=quote_text(user), host=quote_text(user_host))
    rows = sql.query(remote, host, statement)
    found = {row["name"] for row in rows if row["name"] != "USAGE"}
    # MySQL's dynamic privileges, such as BACKUP_ADMIN, are grantable one by one.
    if any(row["grantable"] == "YES" and "_" not in row["name"] for row in rows):
        found.add(GRANT_OPTION)
    return Account(user=user, host=user_host, privileges=frozenset(found))
