"""What must hold of the server that the new replica is to follow: the donor's, or its source's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.flavors.quoting import is_plain

if TYPE_CHECKING:
    from orchestrator.facts.instances import InstanceFacts
    from orchestrator.facts.preflight.findings import Found
    from orchestrator.facts.survey import HostSurvey

LEAST_BINLOG_SECONDS = 3_600
ASSUMED_BYTES_PER_SECOND = 20_000_000
"""A slow wire, for the estimate of how long the binary logs must be kept."""


def judge_binlog(instance: InstanceFacts, where: str) -> Found:
    """Judge whether there is a binary log to follow."""
    basename = instance.variables.get("log_bin_basename", "")
    return (
        instance.is_on("log_bin") and is_plain(basename),
        f"log_bin={instance.variables.get('log_bin', '?')}, "
        f"binlog_format={instance.variables.get('binlog_format', '?')}"
        + ("" if is_plain(basename) else f", log_bin_basename={basename!r}"),
        f"set log_bin on {where}, to a name without backslashes: without it no replica can follow",
    )


def judge_tls(instance: InstanceFacts, where: str) -> Found:
    """Judge whether a replica can connect with TLS, as it always does."""
    tls = instance.variables.get("have_ssl", "")
    return (
        tls not in ("NO", "DISABLED"),
        f"TLS is off: have_ssl={tls}" if tls in ("NO", "DISABLED") else "TLS is on",
        f"set ssl_ca, ssl_cert and ssl_key on {where}, and let no option put TLS off: "
        "replication is always encrypted",
    )


def judge_retention(
    instance: InstanceFacts,
    where: str,
    *,
    expected_bytes: int,
    throttle: int = 0,
    behind_seconds: int = 0,
) -> Found:
    """Judge whether the binary logs will still be there when the new replica asks for them.

    Args:
        instance: The server that keeps them.
        where: Its host.
        expected_bytes: Size of the data that is copied meanwhile.
        throttle: Most bytes per second that are copied; 0 for no bound.
        behind_seconds: How far the data is behind that server before the copy begins.
    """
    rate = min(ASSUMED_BYTES_PER_SECOND, throttle or ASSUMED_BYTES_PER_SECOND)
    need = max(LEAST_BINLOG_SECONDS, 3 * expected_bytes / rate) + behind_seconds
    kept = instance.binlog_kept_seconds
    shown = "for ever" if math.isinf(kept) else f"{kept:.0f} s"
    return (
        kept >= need,
        f"kept {shown}, wanted {need:.0f} s",
        f"raise binlog_expire_logs_seconds on {where} for the time of the clone",
    )


def judge_name_resolution(
    instance: InstanceFacts, side: HostSurvey, where: str, recipient: str
) -> Found:
    """Judge whether the replica's connections wait for a name service."""
    skips = instance.is_on("skip_name_resolve")
    return (
        skips or bool(side.peer_address),
        "skip_name_resolve is on"
        if skips
        else f"{recipient} is {side.peer_address or 'not resolved within 5 s'}",
        f"set skip_name_resolve=ON on {where}, or give it a name service that answers: each "
        "connection of the replica would wait for it",
    )
