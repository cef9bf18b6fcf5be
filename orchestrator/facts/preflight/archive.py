"""What must hold for an archive of binary logs, and for a restore that replays some."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import flavors
from orchestrator.facts.preflight.backup import judge_backup
from orchestrator.facts.preflight.findings import named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.config import Config
    from orchestrator.facts.binlogs import Binlogs
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.preflight.findings import Found, Request
    from orchestrator.facts.survey import Survey
    from orchestrator.models import Check


def judge_archive(
    survey: Survey,
    config: Config,
    request: Request,
    *,
    logs: Binlogs | None,
    first_log: str,
    problem: str,
) -> tuple[Check, ...]:
    """Return every finding about an archive of binary logs, good and bad, in a fixed order.

    Args:
        survey: What the hosts and Vault told.
        config: The configuration.
        request: What was asked for.
        logs: The donor's binary logs; None if they could not be read.
        first_log: The oldest one that is to be stored.
        problem: Why the archives before it cannot be gone on from; empty if they can.
    """
    size = 0
    if logs and first_log in logs.names:
        size = sum(log.bytes for log in logs.logs[logs.names.index(first_log) :])
    found = judge_backup(_resize(survey, size), config, request)
    donor = survey.donor.host
    own = _judge_logs(config, request, donor, size=size, first_log=first_log, problem=problem)
    return (*found, *named(request.donor, own))


def judge_replay_program(host: HostFacts, program: str) -> Found:
    """Judge whether a host can read binary logs."""
    return (
        program in host.programs,
        program if program in host.programs else f"missing: {program}",
        "install the server's client package there, or set programs.binlog of that host",
    )


def _resize(survey: Survey, size: int) -> Survey:
    """Return what was found out, with the logs in the place of the donor's data."""
    host, instance = survey.donor.host, survey.donor.instance
    donor = dataclasses.replace(
        survey.donor,
        host=host and dataclasses.replace(host, datadir_bytes=size),
        instance=instance and dataclasses.replace(instance, data_bytes=size),
    )
    return dataclasses.replace(survey, donor=donor)


def _judge_logs(
    config: Config,
    request: Request,
    donor: HostFacts | None,
    *,
    size: int,
    first_log: str,
    problem: str,
) -> Iterator[tuple[str, Found]]:
    host = config.host(request.donor)
    if donor:
        program = flavors.of(host).programs(host).binlog
        yield "binlog-program", judge_replay_program(donor, program)
    yield (
        "binlog-chain",
        (
            not problem,
            problem or f"from {first_log} on, {size} bytes",
            f"`xbvault binlogs archive {request.donor} --new-chain` begins anew, and a full backup "
            "after that; what is in no archive cannot be restored",
        ),
    )
