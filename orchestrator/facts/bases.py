"""Whether a server has gone on from the state of a backup set. Nothing here changes anything."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator.facts import binlogs

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.remote import Remote
    from orchestrator.repository.manifest import Manifest


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
    host, at = config.host(donor.name), document.coordinates
    if at is None or not at.file:
        problem = f"{document.backup_id} tells no place in a binary log to know the server by"
        return Base(document=document, problem=problem, evidence="")
    place = f"{at.file}:{at.position}"
    state, lsn = binlogs.read_position_gtid(donor, host, at.file, at.position), 0
    problem = ""
    if state is None:
        problem = f"{donor.name} has no place {place} in its binary logs, where {document.backup_id} ended"
    elif not _is_same_state(state, at.gtid):
        problem = (
            f"at {place} the binary log of {donor.name} has come to {state or 'no GTID'}, and "
            f"{document.backup_id} to {at.gtid or 'none'}"
        )
    else:
        lsn = binlogs.read_lsn(donor, host)
        if lsn < document.to_lsn:
            problem = (
                f"{donor.name} is at LSN {lsn}, and {document.backup_id} goes to {document.to_lsn}"
            )
    return Base(
        document=document,
        problem=problem,
        evidence=f"its binary log has {at.gtid or 'no GTID'} at {place}; now at LSN {lsn}",
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
