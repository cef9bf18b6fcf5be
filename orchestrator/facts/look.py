"""What a process has just found out about the hosts of a clone, for the run that it begins at once."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from orchestrator import lock
from orchestrator.errors import OrchestratorError
from orchestrator.facts import hosts

if TYPE_CHECKING:
    from orchestrator.facts.hosts import BriefFacts, HostFacts
    from orchestrator.lock import LockState
    from orchestrator.models import Check
    from orchestrator.remote import Remote
    from orchestrator.vault import Vault

FRESH_SECONDS: Final = 10.0
"""Longest time from the first question of a look to a step that relies on its findings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What a preflight has found, and what tells whether that is still so.

    Attributes:
        run_id: The run that it was made for.
        asked_at: Before its first question, by this process's monotonic clock.
        findings: Every finding.
        donor: What the donor said of itself.
        recipient: The same of the recipient.
        lock: Who held the recipient; None if that could not be read.
    """

    run_id: str
    asked_at: float
    findings: tuple[Check, ...]
    donor: HostFacts
    recipient: HostFacts
    lock: LockState | None

    @property
    def seconds_ago(self) -> float:
        """How long ago it was begun."""
        return time.monotonic() - self.asked_at

    def still_holds(self, vault: Vault, donor: Remote, recipient: Remote) -> bool:
        """Return whether it is fresh, and nothing that a clone stands on has changed since.

        It asks for what changes in seconds: servers, the recipient's data directory, the recipient
        lock, whose fence tells of every run that came to it meanwhile, and the token.

        Args:
            vault: The door to Vault.
            donor: The door to the donor.
            recipient: The door to the recipient.
        """
        if self.seconds_ago > FRESH_SECONDS or not all(found.ok for found in self.findings):
            return False
        with ThreadPoolExecutor(3) as pool:
            on_donor = pool.submit(hosts.read_brief, donor, self.donor.real_datadir)
            on_recipient = pool.submit(hosts.read_brief, recipient, self.recipient.real_datadir)
            held = pool.submit(lock.read_lock, recipient)
            try:
                vault.lookup_token()
                return (
                    _is_same(self.donor, on_donor.result())
                    and _is_same(self.recipient, on_recipient.result())
                    and _is_same_lock(self.lock, held.result())
                )
            except OrchestratorError:
                return False  # who asks for everything again says what it is


def _is_same(then: HostFacts, now: BriefFacts) -> bool:
    """Return whether the same servers run in the same data directory, and it is as it was."""
    return all(
        getattr(then, name) == getattr(now, name)
        for name in ("server_pids", "has_data", "datadir_inode", "datadir_owner", "datadir_mode")
    )


def _is_same_lock(then: LockState | None, now: LockState) -> bool:
    """Return whether nobody has held the recipient since: the fence rises each time it is taken."""
    return then is not None and dataclasses.replace(then, seconds_left=now.seconds_left) == now
