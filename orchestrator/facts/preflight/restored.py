"""What must hold for the restore of a stored backup."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from orchestrator import flavors, wire
from orchestrator.facts.preflight.archive import judge_replay_program
from orchestrator.facts.preflight.backup import judge_complete, judge_sender
from orchestrator.facts.preflight.findings import judge_readable, named
from orchestrator.facts.preflight.host import judge_keepalive, judge_receiver
from orchestrator.facts.preflight.pair import judge_clocks, judge_space, server_id_of
from orchestrator.facts.preflight.recipient import (
    judge_lock,
    judge_recipient,
    judge_recipient_keyring,
    judge_tool_keyring,
)
from orchestrator.facts.preflight.replication import judge_connection, judge_source
from orchestrator.facts.preflight.stream import judge_way
from orchestrator.facts.preflight.vault import judge_vault
from orchestrator.flavors.interface import RESTORE_PROGRAMS
from orchestrator.repository.sets import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.config import Config
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.preflight.findings import Found, Request
    from orchestrator.facts.survey import Survey
    from orchestrator.models import BaseSet, Check, Replay
    from orchestrator.repository.manifest import Manifest
    from orchestrator.repository.sets import SetReport


def judge_restore(
    survey: Survey,
    config: Config,
    request: Request,
    *,
    document: Manifest,
    report: SetReport,
    key_problem: str,
    bases: tuple[BaseSet, ...] = (),
    replay: Replay | None = None,
) -> tuple[Check, ...]:
    """Return every finding about a restore, good and bad, in a fixed order.

    Args:
        survey: What the hosts and Vault told.
        config: The configuration.
        request: What was asked for; its donor is the repository.
        document: The manifest of the set, proved to be ours.
        report: What the folder of the set is worth.
        key_problem: Why Vault has no keys of a set of the chain; empty if it has.
        bases: The sets that it builds on, the full one first.
        replay: What is replayed on top of it.
    """
    sides = [(request.donor, survey.donor), (request.recipient, survey.recipient)]
    if survey.source is not None:
        sides.append((request.source, survey.source))
    found: list[Check] = [judge_readable(name, side.errors) for name, side in sides]
    found += named(request.donor, _judge_set(document, report, request, bases))
    store, recipient = survey.donor.host, survey.recipient.host
    if store:
        found += named(request.donor, judge_sender(store))
    if request.source:
        age = int((dt.datetime.now(dt.UTC) - document.ended).total_seconds())
        followed = judge_source(survey, config, request, set_age_seconds=age)
        found += named(request.source, followed)
        found += named(request.source, _judge_position(document, request))
    if recipient:
        found += named(
            request.recipient,
            _judge_recipient(
                recipient, survey, config, request, document, bases=bases, replay=replay
            ),
        )
        receiver = judge_receiver(recipient, request.recipient, survey.vault.ssh_ca)
        found += named(request.recipient, iter([("receiver", receiver)]))
    if survey.connection:
        found += named(request.recipient, judge_connection(survey.connection, config, request))
    found += named("", _judge_apart(survey, config, request))
    if store and recipient:
        found += named("", iter([("clocks", judge_clocks((store, recipient), config))]))
    if survey.way is not None:
        found += named("", iter([("stream-way", judge_way(survey.way, survey.donor, request))]))
    found += named(request.recipient, judge_lock(survey, request))
    keys: Found = (
        not key_problem,
        key_problem
        or f"transition key and identity of {document.backup_id} can be read"
        + (f", and those of {len(bases)} sets before it" if bases else ""),
        "nobody can read this set any more; take another one",
    )
    found += named("", iter([("vault-set-keys", keys)]))
    found += named("", judge_vault(survey, config, request))
    return tuple(found)


def _judge_set(
    document: Manifest, report: SetReport, request: Request, bases: tuple[BaseSet, ...]
) -> Iterator[tuple[str, Found]]:
    ok, told, hint = judge_complete(report)
    if report.state is State.CHAIN_BROKEN:
        hint = (
            "--last-whole restores the last set before it that is whole; see `xbvault backups list`"
        )
    yield "set-complete", (ok, told, hint)
    if ok:
        names = [*(each.backup_id for each in bases), document.backup_id]
        yield (
            "set-chain",
            (
                document.is_full or bool(bases),
                f"{len(names)} sets: {', '.join(names)}" if bases else document.kind,
                "restore a full set, or an incremental one whose chain is whole",
            ),
        )
    yield (
        "set-flavor",
        (
            document.flavor == request.flavor,
            f"of {document.flavor}, for a host with {request.flavor}",
            "name a host of that flavor",
        ),
    )


def _judge_apart(survey: Survey, config: Config, request: Request) -> Iterator[tuple[str, Found]]:
    """Yield whether repository and recipient are two machines, and recipient and source two servers.

    One machine under two addresses is not recognised.
    """
    store, host = config.repository(request.donor), config.host(request.recipient)
    is_same = bool(store.address) and (store.address, store.ssh_port) == (
        host.address,
        host.ssh_port,
    )
    yield (
        "different-hosts",
        (
            not is_same,
            f"{request.donor} and {request.recipient}"
            + (f", both at {host.address}" if is_same else ""),
            "a set cannot be restored onto the machine that stores it; copy it to a repository on "
            "another one with `xbvault backups copy`, and restore it from there",
        ),
    )
    source = survey.source
    if source is None or not (source.host or source.instance) or not survey.recipient.host:
        return
    recipient_id, source_id = server_id_of(survey.recipient), server_id_of(source)
    yield (
        "server-ids",
        (
            recipient_id != source_id,
            f"recipient {recipient_id}, source {source_id}",
            "give the recipient a server_id of its own",
        ),
    )


def _judge_position(document: Manifest, request: Request) -> Iterator[tuple[str, Found]]:
    """Yield whether the set tells where to go on from in the binary log of the source.

    A file and an offset are of the log of the set's own host alone; another host's is told of by a
    GTID position only.
    """
    at = document.coordinates
    told = f"{at.file}:{at.position} {at.gtid}".strip() if at else "the set tells no position"
    is_own = request.source == document.host
    hint = f"a position without GTID is one of {document.host} alone; follow that host"
    if at is None:
        fits, hint = False, "take a set that tells one, or leave --as-replica-of out"
    elif request.coordinates == "position" and not is_own:
        told = (
            f"clone.coordinates is position, and {told} is one of {document.host}, "
            f"not of {request.source}"
        )
        fits, hint = False, f"set clone.coordinates to auto or gtid, or follow {document.host}"
    elif request.coordinates == "position":
        fits = bool(at.file)
        hint = "set clone.coordinates to auto or gtid"
    elif request.coordinates == "gtid" or not is_own:
        fits = bool(at.gtid)
        if is_own:
            told, hint = f"clone.coordinates is gtid: {told}", "set clone.coordinates to auto"
    else:
        fits = True
    yield "set-position", (fits, told, hint)


def _judge_recipient(
    recipient: HostFacts,
    survey: Survey,
    config: Config,
    request: Request,
    document: Manifest,
    *,
    bases: tuple[BaseSet, ...],
    replay: Replay | None,
) -> Iterator[tuple[str, Found]]:
    """Yield the findings about the recipient of a set."""
    host = config.host(request.recipient)
    flavor = flavors.of(host)
    yield from judge_recipient(recipient, survey.recipient, request, config=host)
    archives = replay.sets if replay else ()
    compressions = {
        document.compress,
        *(each.compress for each in bases),
        *(each.compress for each in archives),
    }
    wanted = [*RESTORE_PROGRAMS, *([wire.ZSTD] if compressions != {wire.NONE} else [])]
    missing = [name for name in wanted if name not in recipient.programs]
    yield (
        "restore-programs",
        (
            not missing,
            f"missing: {', '.join(missing)}" if missing else "all found",
            "install age, coreutils and zstd there",
        ),
    )
    if replay:
        yield "binlog-program", judge_replay_program(recipient, flavor.programs(host).binlog)
        told = f"{replay.first} to {replay.last}, up to {replay.at}, of {len(archives)} archives"
        yield "binlog-chain", (True, told, "")
    yield "ssh-keepalive", judge_keepalive(recipient)
    reason = flavor.judge_versions(document.server_version, recipient.server_version)
    versions = f"set {document.server_version}, recipient {recipient.server_version or '?'}"
    yield "versions-match", (not reason, versions, reason)
    if flavor.carries_keys:
        unfit = flavor.judge_tools(document.tool_version, recipient.tool_version)
        tools = f"set {document.tool_version}, recipient {recipient.tool_version or '?'}"
        yield "tools-match", (not unfit, tools, unfit)
    copies = flavor.carries_keys and document.has_keyring
    # Each increment has a directory of its own until the restore has ended.
    increments = sum(each.stored_bytes for each in bases[1:])
    increments += document.stored_bytes if bases else 0
    needed = document.data_bytes + increments + sum(each.stored_bytes for each in archives)
    yield "space", judge_space(survey, recipient, needed, copies=copies)
    if document.has_keyring:
        yield (
            "recipient-keyring",
            judge_tool_keyring(recipient, survey.recipient.places, host)
            if flavor.carries_keys
            else judge_recipient_keyring(recipient, host.key_mount, config.vault.transition_mount),
        )
