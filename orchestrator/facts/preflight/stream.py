"""How the stream will go, and what must hold for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import wire
from orchestrator.facts.preflight.findings import size
from orchestrator.wire import Bound, Choice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.config import Config
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.preflight.findings import Found, Request
    from orchestrator.facts.survey import HostSurvey, Survey
    from orchestrator.facts.ways import Way

_MEGABIT = 125_000
"""Bytes."""
_LETS_RELAY = {
    "allowtcpforwarding": ("yes", "all", "remote"),
    "disableforwarding": ("no",),
    "permitlisten": ("any",),
}
"""Settings of an SSH server that a relay needs, with the values that let it be."""


def judge_stream(survey: Survey, config: Config, request: Request) -> Iterator[tuple[str, Found]]:
    """Yield the findings about the stream from donor to recipient."""
    choice = choose_compression(survey, request)
    missing = _list_without_zstd(survey, request) if choice.compress != wire.NONE else []
    yield (
        "compression",
        (
            not missing,
            f"zstd is not installed on {' and '.join(missing)}"
            if missing
            else f"{choice.compress}: {choice.reason}",
            "install zstd there, or leave it to --compress auto",
        ),
    )
    if request.throttle:
        yield "throttle", _judge_throttle(survey, config, request)
    if survey.way is not None:
        yield "stream-way", judge_way(survey.way, survey.donor, request)


def judge_priority(donor: HostFacts) -> Found:
    """Judge whether the donor's backup tool can be put behind its server."""
    missing = [name for name in wire.POLITE_PROGRAMS if name not in donor.programs]
    return (
        not missing,
        f"missing: {', '.join(missing)}" if missing else " ".join(wire.POLITE),
        "install coreutils and util-linux, or leave --nice out",
    )


def choose_compression(survey: Survey, request: Request) -> Choice:
    """Return how the stream is compressed: as was asked for, or as pays."""
    facts = survey.donor.wire
    sample = facts.sample if facts else None
    if request.compress == wire.NONE:
        return Choice(compress=wire.NONE, reason="not wanted")
    if request.compress != wire.AUTO:
        return Choice(
            compress=request.compress,
            reason="wanted" + (f"; {sample.shown}, with level 1" if sample else ""),
            ratio=sample.ratio if sample else 1.0,
        )
    missing = _list_without_zstd(survey, request)
    if missing:
        reason = f"zstd is not installed on {' and '.join(missing)}"
        return Choice(compress=wire.NONE, reason=reason)
    return wire.choose_compression(sample, tuple(_list_bounds(survey, request)))


def needs_relay(survey: Survey, request: Request) -> bool:
    """Return whether the stream has to go through this machine, and may."""
    return bool(request.relay and survey.way is not None and survey.way.problem)


def judge_way(way: Way, donor: HostSurvey, request: Request) -> Found:
    """Judge whether the stream gets from the donor to the recipient, directly or by a relay."""
    where = f"{request.recipient} at {way.address}:{way.port}"
    if not way.is_tried:
        return True, f"not tried, for there is no ssh-keyscan on {request.donor}", ""
    if not way.problem:
        return True, f"{request.donor} reaches {where}; the stream goes there directly", ""
    evidence = f"{request.donor} does not reach {where}: {way.problem}"
    hint = f"open the way from {request.donor} to that port, or see hosts.*.address"
    if not request.relay:
        return False, evidence, f"{hint}; or let the stream go through this machine, with --relay"
    refused = _find_refusal(donor.host.sshd if donor.host else {})
    if way.no_relay:
        return False, f"{evidence}; {way.no_relay}", hint
    if refused:
        return (
            False,
            f"{evidence}; and it does not let this machine relay: {refused}",
            f"set AllowTcpForwarding in sshd_config of {request.donor} to remote or yes; or {hint}",
        )
    return (
        True,
        f"{evidence}; the stream goes through this machine, and begins again where this machine or its "
        "way to either of them fails",
        "",
    )


def _find_refusal(sshd: Mapping[str, str]) -> str:
    """Return the setting of an SSH server that lets nobody relay; empty if there is none."""
    for name, allowed in _LETS_RELAY.items():
        if name in sshd and sshd[name] not in allowed:
            return f"{name} {sshd[name]}"
    return ""


def _list_without_zstd(survey: Survey, request: Request) -> list[str]:
    sides = [(request.donor, survey.donor)]
    if not request.is_backup:  # which is stored as it comes
        sides.append((request.recipient, survey.recipient))
    return [name for name, side in sides if side.host and wire.ZSTD not in side.host.programs]


def _list_bounds(survey: Survey, request: Request) -> Iterator[Bound]:
    for name, side in ((request.donor, survey.donor), (request.recipient, survey.recipient)):
        if side.wire and side.wire.megabits:
            what = f"{side.wire.interface} of {name}"
            yield Bound(bytes_per_second=side.wire.megabits * _MEGABIT, what=what)
    if request.throttle:
        yield Bound(bytes_per_second=request.throttle, what="the throttle")


def _judge_throttle(survey: Survey, config: Config, request: Request) -> Found:
    """Judge whether the stream comes to its end in time, even if it does not compress."""
    count = survey.donor.expected_bytes
    seconds, most = count / request.throttle, config.clone.stream_seconds
    return (
        seconds <= most,
        f"{size(count)} at {request.throttle} bytes a second take {seconds:.0f} s, of at most {most}",
        "raise --throttle, or clone.stream_seconds",
    )
