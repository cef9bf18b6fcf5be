"""Whether a server has gone on from the state of a backup set. Nothing here changes anything."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import flavors, sql
from orchestrator.errors import CommandError
from orchestrator.facts import binlogs
from orchestrator.flavors.quoting import quote_plain

if TYPE_CHECKING:
    from orchestrator.config import Config, HostConfig
    from orchestrator.models import Coordinates
    from orchestrator.remote import Remote
    from orchestrator.repository.manifest import Manifest

SERVER = "server_uuid"
"""What a server of MySQL is known by; a restored one has another."""
_DENIED = "ERROR 1227 "
"""The client's word for a privilege that is missing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """The set that a new incremental backup builds on.

    Attributes:
        document: Its manifest.
        problem: Why the donor is not the server that it was made of, as it was then; empty if it is.
        evidence: By what that was seen.
    """

    document: Manifest
    problem: str
    evidence: str


def read_base(config: Config, donor: Remote, document: Manifest) -> Base:
    """Return whether a server has gone on from the state that a set has.

    The backup tool takes any log sequence number: with that of another server, or of a server that
    was put back meanwhile, it makes a set without a part of the changes, and says nothing. What tells
    is the binary log: it must have the set's position, with the set's GTID state.

    Args:
        config: The configuration.
        donor: The door to the donor.
        document: The set's manifest.

    Raises:
        CommandError: The server refuses.
        VerificationError: It gives an answer that is none.
    """
    host, at, lsn = config.host(donor.name), document.coordinates, 0
    if at is None or not at.file:
        problem = f"{document.backup_id} tells no place in a binary log to know the server by"
        return Base(document=document, problem=problem, evidence="")
    dialect = flavors.of(host).dialect(document.server_version)
    find = _find_other_state if dialect.tells_gtid_at else _find_other_server
    problem = find(donor, host, document, at)
    if not problem:
        lsn = dialect.read_lsn(sql.query_row(donor, host, dialect.lsn_sql))
        if lsn < document.to_lsn:
            problem = (
                f"{donor.name} is at LSN {lsn}, and {document.backup_id} goes to {document.to_lsn}"
            )
    return Base(
        document=document,
        problem=problem,
        evidence=f"its binary log has {at.gtid or 'no GTID'} at {at.file}:{at.position}; "
        f"now at LSN {lsn}",
    )


def _find_other_state(donor: Remote, host: HostConfig, document: Manifest, at: Coordinates) -> str:
    """Return why the binary log of a MariaDB is not that of a set; empty if it is."""
    state = binlogs.read_position_gtid(donor, host, at.file, at.position)
    if state is None:
        return _describe_absence(donor, document, at)
    if _is_same_state(state, at.gtid):
        return ""
    return (
        f"at {at.file}:{at.position} the binary log of {donor.name} has come to "
        f"{state or 'no GTID'}, and {document.backup_id} to {at.gtid or 'none'}"
    )


def _find_other_server(donor: Remote, host: HostConfig, document: Manifest, at: Coordinates) -> str:
    """Return why a MySQL is not that of a set, or not as it was; empty if it is."""
    if not document.layout.get(SERVER):
        return f"{document.backup_id} does not tell the {SERVER} to know the server by"
    try:
        behind = binlogs.read_next_gtid(donor, host, at.file, at.position)
    except CommandError as error:
        if _DENIED not in error.stderr:
            raise
        return "the account may not see the events of the binary log, which tell it"
    if behind is None:
        return _describe_absence(donor, document, at)
    return _compare_transactions(donor, host, document, at, behind)


def _compare_transactions(
    donor: Remote, host: HostConfig, document: Manifest, at: Coordinates, behind: str
) -> str:
    """Return why a server is another one, or lacks transactions of a set; empty if neither.

    Args:
        donor: The door to the server's host.
        host: That host.
        document: The set's manifest.
        at: Its coordinates.
        behind: GTID of the transaction that stands there in the binary log; empty for none.
    """
    known = document.layout.get(SERVER, "")
    then = quote_plain(at.gtid)
    asked = (
        f"SELECT @@GLOBAL.server_uuid AS server, GTID_SUBSET({then}, @@GLOBAL.gtid_executed) AS has, "
        f"GTID_SUBTRACT({quote_plain(behind)}, {then}) AS new"
    )
    row = sql.query_row(donor, host, asked)
    if row["server"] != known:
        return f"{donor.name} is server {row['server']}, and {document.backup_id} is of {known}"
    if row["has"] != "1":
        return f"{donor.name} does not have all transactions of {document.backup_id}: {at.gtid}"
    if behind and not row["new"]:
        return (
            f"at {at.file}:{at.position} the binary log of {donor.name} goes on with {behind}, which "
            f"{document.backup_id} has already"
        )
    return ""


def _describe_absence(donor: Remote, document: Manifest, at: Coordinates) -> str:
    return (
        f"{donor.name} has no place {at.file}:{at.position} in its binary logs, where "
        f"{document.backup_id} ended"
    )


def _is_same_state(one: str, other: str) -> bool:
    """Return whether two GTID states of MariaDB agree in every domain that both have."""
    first, second = (
        {gtid.partition("-")[0]: gtid for gtid in state.split(",") if gtid}
        for state in (one, other)
    )
    shared = first.keys() & second.keys()
    return all(first[domain] == second[domain] for domain in shared) and (
        bool(shared) or not first or not second
    )
