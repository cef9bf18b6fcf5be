"""What a finding is made of, and what was asked for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import numerals, wire
from orchestrator.errors import VerificationError
from orchestrator.models import ARCHIVE, BACKUP, CLONE, Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.errors import OrchestratorError
    from orchestrator.facts.survey import Survey

Found = tuple[bool, str, str]
"""Whether it holds, the evidence, the hint when it does not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for.

    Attributes:
        donor: Host whose data is copied.
        recipient: Host that gets it.
        run_id: Name of the run.
        backup_id: Name of the backup set.
        replace: Set aside whatever datadir the recipient has.
        require_encryption: Refuse a donor without a keyring.
        source: Host that the new replica follows, where that is the donor's own source.
        coordinates: ``gtid`` or ``position`` or ``auto``.
        compress: ``auto``, ``none`` or ``zstd:LEVEL``.
        throttle: Most bytes per second of the stream; 0 for no bound.
        nice: Whether the donor's server comes before the backup tool.
        relay: Whether the stream may go through this machine.
        group_runs: The clones that share one reading of the donor, this one included.
        form: Kind of run.
        set_host: Host that a stored set was made of, which is restored.
        flavor: The recipient's, for a stored set.
        checksums: Tables that are summed up for a manifest: ``all``, ``sample`` or ``none``.
        is_incremental: Whether a backup builds on an earlier one.
    """

    donor: str
    recipient: str
    run_id: str
    backup_id: str
    replace: bool
    require_encryption: bool
    source: str = ""
    coordinates: str = "auto"
    compress: str = wire.NONE
    throttle: int = 0
    nice: bool = False
    relay: bool = False
    group_runs: tuple[str, ...] = ()
    form: str = CLONE
    set_host: str = ""
    flavor: str = ""
    checksums: str = "none"
    is_incremental: bool = False

    @property
    def is_backup(self) -> bool:
        """Whether data or binary logs go into a repository, and nothing will replicate."""
        return self.form in (BACKUP, ARCHIVE)


def named(host: str, found: Iterator[tuple[str, Found]]) -> Iterator[Check]:
    """Yield findings as checks; the hint of a good one is left out."""
    for name, (ok, evidence, hint) in found:
        yield Check(name=name, host=host, ok=ok, evidence=evidence, hint="" if ok else hint)


def judge_readable(name: str, errors: tuple[OrchestratorError, ...]) -> Check:
    """Judge whether a host could be read.

    Args:
        name: The host.
        errors: What could not be read of it.
    """
    reason = errors[0] if errors else None
    return Check(
        name="host-readable",
        host=name,
        ok=reason is None,
        evidence=reason.message if reason else "connected, host key known",
        hint=reason.hint if reason else "",
    )


def has_keyring(survey: Survey) -> bool:
    """Return whether the donor's server has an encryption plugin."""
    return survey.donor.instance is not None and survey.donor.instance.has_keyring


def number(text: str) -> float:
    """Return a number as a host wrote it; 0 if it is none."""
    try:
        return numerals.parse_decimal(text)
    except VerificationError:
        return 0.0


def size(count: float) -> str:
    """Return bytes for a reader."""
    return f"{count / 1e9:.2f} GB"
