"""What must hold of the replication that the donor takes part in.

The donor may be a replica itself. Then the new one follows it, or follows the same source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import flavors
from orchestrator.facts.preflight.accounts import judge_source_account
from orchestrator.facts.preflight.followed import (
    judge_binlog,
    judge_name_resolution,
    judge_retention,
    judge_tls,
)
from orchestrator.facts.survey import source_address
from orchestrator.privileges.database import wanted_privileges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.config import Config
    from orchestrator.facts.instances import InstanceFacts
    from orchestrator.facts.preflight.findings import Found, Request
    from orchestrator.facts.survey import Connection, HostSurvey, Survey
    from orchestrator.flavors.interface import Flavor, ReplicationStatus


def takes_quiet_account(side: HostSurvey, request: Request) -> bool:
    """Return whether the account is made on a donor that is a replica itself."""
    return bool(not request.source and side.instance and side.instance.replicates)


def judge_replication(
    instance: InstanceFacts, request: Request, flavor: Flavor
) -> Iterator[tuple[str, Found]]:
    """Yield the findings about a donor's own replication.

    Stopped replication is no fault of a donor that is to be followed itself: it may be no replica any
    more.
    """
    if instance.sources or request.source:
        yield "donor-replication", _judge_sources(instance, request)
    if request.source or not instance.replicates:
        return
    name = flavor.dialect(instance.variables.get("version", "")).logs_updates
    yield (
        "donor-logs-updates",
        (
            instance.is_on(name),
            f"{name}={instance.variables.get(name, '?')} on a donor that is a replica",
            f"set {name}=ON on the donor and restart it; or let the new replica follow the donor's "
            "own source, with --source",
        ),
    )
    yield "source-writable", judge_writable(instance)


def judge_writable(instance: InstanceFacts) -> Found:
    """Judge whether an account can be made on a replica that is to be followed."""
    return (
        not instance.is_on("super_read_only"),
        f"super_read_only={instance.variables.get('super_read_only', 'not known here')}",
        "set super_read_only=OFF there for the time of the clone, and leave read_only=ON: the new "
        "replica's account has to be made there",
    )


def judge_source(
    survey: Survey, config: Config, request: Request, *, set_age_seconds: int = 0
) -> Iterator[tuple[str, Found]]:
    """Yield the findings about the donor's own source, which the new replica is to follow.

    Args:
        survey: What the hosts told.
        config: The configuration.
        request: What was asked for.
        set_age_seconds: How long ago the state was that a stored set has; 0 without one.
    """
    side, donor = survey.source, survey.donor.instance
    if side is None or side.host is None:
        return
    instance, where = side.instance, request.source
    state = "no answer from the server in" if side.host.is_running else "no server runs in"
    yield (
        "source-running",
        (
            instance is not None or side.account is not None,
            "answers SQL" if instance or side.account else f"{state} {side.host.datadir}",
            "start its server, or set socket or datadir in hosts.*.server",
        ),
    )
    if side.account is not None:
        wanted = wanted_privileges(config.host(where).flavor, side.host.server_version)
        quiet = wanted.quiet if instance and instance.replicates else ()
        yield "source-privileges", judge_source_account(side.account, wanted.source + quiet)
    if instance is None:
        return
    if donor is not None and donor.sources:
        yield "source-followed", _judge_followed(survey, donor.sources[0], config, request)
    yield "source-binlog", judge_binlog(instance, where)
    yield "source-tls", judge_tls(instance, where)
    if instance.replicates:
        name = flavors.of(config.host(where)).dialect(instance.variables["version"]).logs_updates
        yield (
            "source-logs-updates",
            (
                instance.is_on(name),
                f"{name}={instance.variables.get(name, '?')} on a source that is a replica",
                f"set {name}=ON on {where} and restart it",
            ),
        )
        yield "source-writable", judge_writable(instance)
    behind = max((s.seconds_behind for s in donor.sources), default=0) if donor else 0
    retention = judge_retention(
        instance,
        where,
        expected_bytes=survey.donor.expected_bytes,
        throttle=request.throttle,
        behind_seconds=max(behind, set_age_seconds, 0),
    )
    if set_age_seconds > 0:
        hint = f"take a newer set; or, if {where} still has its binary logs since that one"
        retention = (*retention[:2], f"{hint}, raise binlog_expire_logs_seconds there")
    yield "binlog-retention", retention
    yield "name-resolution", judge_name_resolution(instance, side, where, request.recipient)


def judge_connection(
    connection: Connection, config: Config, request: Request
) -> Iterator[tuple[str, Found]]:
    """Yield the findings about the recipient's way to the server that the new replica is to follow."""
    where = request.source or request.donor
    address, port = source_address(config, where), config.host(where).server.port
    yield (
        "source-reachable",
        (
            not connection.refusal,
            f"does not connect to {address}:{port}: {connection.refusal}"
            if connection.refusal
            else f"connects to {address}:{port}",
            f"see server.replication_address and server.port of {where}, and the network between",
        ),
    )
    if connection.refusal:
        return
    ca_file = config.host(request.recipient).server.replication_ca_file
    checked = f"with {ca_file}" if ca_file else "with no server.replication_ca_file"
    yield (
        "source-certificate",
        (
            not connection.distrust,
            f"{address}:{port}, {checked}"
            + (f": {connection.distrust}" if connection.distrust else ""),
            f"server.replication_ca_file of {request.recipient} must be the CA that signed the "
            f"certificate of the server on {where}, and server.replication_address of {where} a name in "
            "it: replication is always encrypted, and never with a stranger",
        ),
    )


def describe_source(status: ReplicationStatus) -> str:
    """Return the state of a replica for a reader."""
    words = [f"from {status.host}:{status.port}"]
    if status.channel:
        words.append(f"channel {status.channel!r}")
    words.append(f"fetches: {status.io or '?'}, applies: {status.sql or '?'}")
    if status.seconds_behind > 0:
        words.append(f"{status.seconds_behind} s behind")
    if status.delay_seconds:
        words.append(f"delayed by {status.delay_seconds} s on purpose")
    words += [error[:120] for error in (status.io_error, status.sql_error) if error]
    return ", ".join(words)


def _judge_sources(instance: InstanceFacts, request: Request) -> Found:
    sources = instance.sources
    evidence = "; ".join(map(describe_source, sources)) or "it replicates from nobody"
    if not request.source:
        return True, evidence, ""
    if not sources:
        return False, evidence, "leave --source out: the new replica follows the donor then"
    if len(sources) > 1:
        return (
            False,
            f"it replicates from {len(sources)} sources: {evidence}",
            "a sibling of a donor with several sources is not made; leave --source out",
        )
    status = sources[0]
    if status.is_stopped:
        return (
            False,
            f"its replication is stopped: {evidence}",
            "mend the cause and start it; what it lacks would come with the new replica otherwise",
        )
    if request.coordinates != "auto" and (request.coordinates == "gtid") != status.uses_gtid:
        kind = "by GTID" if status.uses_gtid else "by position"
        return (
            False,
            f"it goes {kind}, and clone.coordinates is {request.coordinates}: {evidence}",
            "set clone.coordinates to auto: a sibling goes on as its donor does",
        )
    return True, evidence, ""


def _judge_followed(
    survey: Survey, status: ReplicationStatus, config: Config, request: Request
) -> Found:
    """Judge whether a host is what the donor replicates from.

    A server_uuid is proof. A server_id is often the same in two replications, so where there is no
    uuid, it goes with address and port.
    """
    source = survey.source.instance if survey.source else None
    variables = source.variables if source else {}
    uuid, server_id = variables.get("server_uuid", ""), variables.get("server_id", "")
    address, port = source_address(config, request.source), config.host(request.source).server.port
    names = {address, request.source, config.host(request.source).address}
    upstream = survey.upstream
    is_place = status.port == str(port) and (
        status.host in names
        or (
            upstream is not None
            and bool(upstream.donor_address)
            and upstream.donor_address == upstream.source_address
        )
    )
    if uuid and status.source_uuid:
        ok = uuid == status.source_uuid
    else:
        ok = is_place and status.source_id in ("", "0", server_id)
    return (
        ok,
        f"{request.donor} replicates from {status.host}:{status.port} "
        f"(server_id {status.source_id or '?'}); {request.source} is {address}:{port} "
        f"(server_id {server_id or '?'})",
        "name the host that the donor replicates from; if it is this one under another name, put that "
        "name into hosts.*.server.replication_address",
    )
