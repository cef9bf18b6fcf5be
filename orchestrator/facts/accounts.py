"""Facts about the account that the client logs in with: who it is, and what it may do everywhere."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import sql
from orchestrator.flavors.quoting import quote_text, unhex
from orchestrator.privileges.database import GRANT_OPTION

if TYPE_CHECKING:
    from orchestrator.config import ServerConfig
    from orchestrator.remote import Remote

CLIENT_GROUPS = ("mysql", "mariadb-client", "client", "client-server", "client-mariadb")
"""Groups of option files that the client reads."""
# The option file may hold a password, so all but the user's name is left on the host.
_READ_USER = """\
file=$1
shift
found=$(my_print_defaults ${file:+"--defaults-extra-file=$file"} "$@" | sed -n 's/^--user=//p')
[ -n "$found" ] || found=$(id -un)
printf '%s\\n' "$found" | tail -n 1
"""
_OWN = "SELECT HEX(CURRENT_USER()) AS account"
_LOCAL = (
    "SELECT HEX(CONCAT(User, '@', Host)) AS account FROM mysql.global_priv "
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


def read_own_account(remote: Remote, server: ServerConfig) -> Account:
    """Return the account that the client of a host is logged in as.

    Raises:
        CommandError: The server does not let it in.
    """
    label = unhex(sql.query(remote, server, _OWN)[0]["account"])
    return _read_privileges(remote, server, label)


def read_account(remote: Remote, server: ServerConfig, user: str) -> Account:
    """Return the account that a user has who logs in from the server's own machine.

    Raises:
        CommandError: The account that asks may not read it.
    """
    rows = sql.query(remote, server, _LOCAL.format(user=quote_text(user)))
    if not rows:
        return Account(user=user, host="", privileges=frozenset())
    return _read_privileges(remote, server, unhex(rows[0]["account"]))


def read_client_user(remote: Remote, server: ServerConfig) -> str:
    """Return the name of the user that the client of a host logs in as.

    Raises:
        CommandError: The host does not say.
    """
    command = ["sh", "-c", _READ_USER, "read-user", server.defaults_file, *CLIENT_GROUPS]
    return remote.run(command).text.strip()


def _read_privileges(remote: Remote, server: ServerConfig, label: str) -> Account:
    user, _, host = label.rpartition("@")
    statement = _PRIVILEGES.format(user=quote_text(user), host=quote_text(host))
    rows = sql.query(remote, server, statement)
    found = {row["name"] for row in rows if row["name"] != "USAGE"}
    if any(row["grantable"] == "YES" for row in rows):
        found.add(GRANT_OPTION)
    return Account(user=user, host=host, privileges=frozenset(found))
