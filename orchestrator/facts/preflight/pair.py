"""What must hold of donor and recipient together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import flavors
from orchestrator.facts import layout
from orchestrator.facts.preflight.findings import has_keyring, number, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.config import Config
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.preflight.findings import Found, Request
    from orchestrator.facts.survey import HostSurvey, Survey

MARGIN_BYTES = 200_000_000
"""Space beyond the copy: redo that grows while the stream runs, and the first start."""


def judge_pair(
    survey: Survey, donor: HostFacts, recipient: HostFacts, config: Config, request: Request
) -> Iterator[tuple[str, Found]]:
    """Yield the findings about donor and recipient together."""
    yield (
        "different-hosts",
        (
            request.donor != request.recipient and not _is_same_machine(survey, request, config),
            f"{request.donor} and {request.recipient}",
            "donor and recipient must be two machines",
        ),
    )
    flavor = flavors.of(config.host(request.donor))
    reason = flavor.judge_versions(donor.server_version, recipient.server_version)
    yield (
        "versions-match",
        (
            not reason,
            f"donor {donor.server_version or '?'}, recipient {recipient.server_version or '?'}",
            reason,
        ),
    )
    if flavor.carries_keys:
        unfit = flavor.judge_tools(donor.tool_version, recipient.tool_version)
        yield (
            "tools-match",
            (
                not unfit,
                f"donor {donor.tool_version or '?'}, recipient {recipient.tool_version or '?'}",
                unfit,
            ),
        )
    donor_id = server_id_of(survey.donor)
    recipient_id = server_id_of(survey.recipient)
    source_id = server_id_of(survey.source) if survey.source else ""
    yield (
        "server-ids",
        (
            recipient_id not in (donor_id, source_id),
            f"donor {donor_id}, recipient {recipient_id}"
            + (f", source {source_id}" if source_id else ""),
            "give the recipient a server_id of its own",
        ),
    )
    data = survey.donor.instance.data_bytes if survey.donor.instance else 0
    copies = flavor.carries_keys and has_keyring(survey)
    found = judge_space(survey, recipient, max(data, donor.datadir_bytes), copies=copies)
    yield "space", found
    yield "clocks", judge_clocks((donor, recipient), config)


def judge_clocks(machines: tuple[HostFacts, ...], config: Config) -> Found:
    """Judge whether the clocks of hosts agree with ours."""
    bound = config.clone.clock_skew_seconds
    late = [
        f"{host.name} {host.clock_offset_seconds:+.1f} s"
        for host in machines
        if abs(host.clock_offset_seconds) - host.clock_error_seconds > bound
    ]
    return (
        not late,
        f"differ from here: {', '.join(late)}" if late else f"agree within {bound:g} s",
        "set the clocks right (chrony, ntp): certificates and tokens depend on them",
    )


def judge_space(survey: Survey, recipient: HostFacts, data_bytes: int, *, copies: bool) -> Found:
    """Judge the room for the copy.

    Args:
        survey: What was read.
        recipient: Facts about the recipient.
        data_bytes: Size of the data.
        copies: Whether the tool makes new keys, and copies the set once more for that.
    """
    times = 2 if copies else 1
    need = times * data_bytes * 11 // 10 + MARGIN_BYTES
    short = recipient.parent_free_bytes < need
    where = "in" if recipient.is_mount_path else "beside"
    words = [
        f"{size(recipient.parent_free_bytes)} free {where} {recipient.real_datadir}, "
        f"{size(need)} wanted"
    ]
    instance = survey.recipient.instance
    values = instance.variables if instance else {}
    redo = int(number(values.get("innodb_log_file_size", "0")))
    wanted: dict[int, int] = {}
    free: dict[int, tuple[str, int]] = {}
    for files in survey.recipient.places.files if survey.recipient.places else ():
        if files.real and files.filesystem != recipient.filesystem:
            more = layout.needed_bytes(files, survey.donor.places, redo)
            wanted[files.filesystem] = wanted.get(files.filesystem, 0) + more
            free[files.filesystem] = (files.real, files.free_bytes)
    for filesystem, more in wanted.items():
        path, there = free[filesystem]
        short = short or there < more
        words.append(f"{size(there)} free in {path}, {size(more)} wanted")
    return (
        not short,
        "; ".join(words),
        "free space on the filesystem of the recipient's datadir; the old datadir stays there",
    )


def _is_same_machine(survey: Survey, request: Request, config: Config) -> bool:
    donor, recipient = survey.donor.host, survey.recipient.host
    ours, theirs = config.host(request.donor), config.host(request.recipient)
    if ours.address and (ours.address, ours.ssh_port) == (theirs.address, theirs.ssh_port):
        return True
    return bool(
        donor
        and recipient
        and donor.datadir_inode
        and (donor.hostname, donor.datadir, donor.datadir_inode)
        == (recipient.hostname, recipient.datadir, recipient.datadir_inode)
    )


def server_id_of(side: HostSurvey) -> str:
    """Return the replication id of a host: of its server, else of its option files."""
    if side.instance:
        return side.instance.variables.get("server_id", "1")
    return side.host.options.get("server_id", "1") if side.host else "1"
