"""What must hold for a stored backup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import flavors
from orchestrator.facts import stores
from orchestrator.facts.preflight.donor import judge_donor
from orchestrator.facts.preflight.findings import judge_readable, named, size
from orchestrator.facts.preflight.host import judge_keepalive, judge_receiver
from orchestrator.facts.preflight.pair import MARGIN_BYTES, judge_clocks
from orchestrator.facts.preflight.recipient import judge_lock
from orchestrator.facts.preflight.stream import choose_compression, judge_stream, judge_way
from orchestrator.facts.preflight.vault import (
    find_lacking,
    judge_donor_keys,
    judge_readable_vault,
    judge_token,
    judge_version,
)
from orchestrator.flavors.interface import DONOR_PROGRAMS, STORE_PROGRAMS
from orchestrator.privileges import vault as vault_rights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.config import Config
    from orchestrator.facts.bases import Base
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.instances import InstanceFacts
    from orchestrator.facts.preflight.findings import Found, Request
    from orchestrator.facts.survey import Survey
    from orchestrator.models import Check
    from orchestrator.repository.manifest import Manifest
    from orchestrator.repository.sets import SetReport


def judge_backup(
    survey: Survey, config: Config, request: Request, *, base: Base | None = None
) -> tuple[Check, ...]:
    """Return every finding about a stored backup, good and bad, in a fixed order.

    Args:
        survey: What the hosts and Vault told.
        config: The configuration.
        request: What was asked for.
        base: The set that an incremental one builds on; None for a full one, and for a binary log.
    """
    sides = ((request.donor, survey.donor), (request.recipient, survey.recipient))
    found: list[Check] = [judge_readable(name, side.errors) for name, side in sides]
    donor, store = survey.donor.host, survey.recipient.host
    if donor:
        judged = judge_donor(donor, survey.donor, request, config=config.host(request.donor))
        found += named(request.donor, judged)
        found += named(request.donor, iter([("ssh-keepalive", judge_keepalive(donor))]))
        if base:
            found += named(request.donor, _judge_base(donor, base))
            if survey.donor.instance and flavors.of(config.host(request.donor)).carries_keys:
                keyring = _judge_base_keyring(base.document, survey.donor.instance)
                found += named(request.donor, iter([("base-keyring", keyring)]))
    if store:
        choice = choose_compression(survey, request)
        # What has changed is not known before it was looked for.
        size_there = 0 if base else survey.donor.expected_bytes / choice.ratio
        found += named(request.recipient, _judge_store(store, survey, request, size_there))
    if donor and store:
        found += named("", iter([("clocks", judge_clocks((donor, store), config))]))
        found += named("", judge_stream(survey, config, request))
    found += named(request.recipient, judge_lock(survey, request))
    needed = stores.needed_capabilities(config, request.donor, request.recipient, request.backup_id)
    patterns = vault_rights.backup_rights(config, request.donor, request.recipient)
    found += named("", _judge_vault(survey, config, patterns, needed))
    found += named("", _judge_donor_keys(survey, config, request))
    return tuple(found)


def _judge_base(donor: HostFacts, base: Base) -> Iterator[tuple[str, Found]]:
    """Yield the findings about the set that an incremental one builds on."""
    document = base.document
    told = (
        f"{document.backup_id}, {document.kind}, up to LSN {document.to_lsn}, {document.ended_at}"
    )
    is_same = document.server_version == donor.server_version
    versions = (
        f"; made by {document.server_version}, the donor has {donor.server_version or '?'} now"
    )
    yield (
        "base-set",
        (
            is_same,
            told if is_same else f"{told}{versions}",
            "take a full backup: the tool puts no increment of another version into a set",
        ),
    )
    yield (
        "base-position",
        (
            not base.problem,
            base.problem or base.evidence,
            "take a full backup: the server was replaced, put back, or its binary log is gone, and "
            "what has changed since that set cannot be told",
        ),
    )


def _judge_base_keyring(document: Manifest, instance: InstanceFacts) -> Found:
    """Judge whether a tool that carries the keys itself opens both sets with one transition key."""
    then, now = (
        "with" if has else "without" for has in (document.has_keyring, instance.has_keyring)
    )
    return (
        then == now,
        f"{document.backup_id} was made {then} a keyring, and the donor is {now} one now",
        "take a full backup: the tool opens all sets of a chain with one transition key, or none",
    )


def judge_copy(
    survey: Survey,
    config: Config,
    request: Request,
    *,
    report: SetReport,
    is_there: bool,
    lacks: str = "",
) -> tuple[Check, ...]:
    """Return every finding about a copy of a stored set, good and bad, in a fixed order.

    Args:
        survey: What the hosts and Vault told.
        config: The configuration.
        request: What was asked for; its donor is the repository that has the set.
        report: What the set is worth there.
        is_there: Whether the other repository has it already.
        lacks: The set that it builds on, if the other repository does not have that; else empty.
    """
    sides = ((request.donor, survey.donor), (request.recipient, survey.recipient))
    found: list[Check] = [judge_readable(name, side.errors) for name, side in sides]
    found += named(request.donor, iter([("set-complete", judge_complete(report))]))
    absent = f"{request.backup_id} is there already" if is_there else "not there yet"
    none_there: Found = (not is_there, absent, "there is nothing to copy")
    found += named(request.recipient, iter([("set-absent", none_there)]))
    base = report.manifest.base_backup_id if report.manifest else ""
    if base:
        is_here: Found = (
            not lacks,
            f"{lacks} is not there, which it builds on" if lacks else f"{base} is there",
            f"`xbvault backups copy {base} --to {request.recipient}` first",
        )
        found += named(request.recipient, iter([("base-set", is_here)]))
    source, store = survey.donor.host, survey.recipient.host
    stored = report.manifest.stored_bytes if report.manifest else 0
    if source:
        found += named(request.donor, judge_sender(source))
    if store:
        found += named(request.recipient, _judge_store(store, survey, request, stored))
    if source and store:
        found += named("", iter([("clocks", judge_clocks((source, store), config))]))
    if survey.way is not None:
        found += named("", iter([("stream-way", judge_way(survey.way, survey.donor, request))]))
    found += named(request.recipient, judge_lock(survey, request))
    needed = stores.needed_for_copy(config, request.recipient, request.backup_id)
    patterns = vault_rights.copy_rights(config, request.recipient)
    found += named("", _judge_vault(survey, config, patterns, needed))
    return tuple(found)


def judge_complete(report: SetReport) -> Found:
    """Judge whether all files of a stored set are there."""
    document = report.manifest
    told = (
        f"{len(document.parts)} parts, {document.stored_bytes} bytes, of {document.host} at "
        f"{document.ended_at}"
        if document
        else ""
    )
    return (
        report.state.is_restorable,
        "; ".join(report.problems[:3]) or told,
        "take another set, see `xbvault backups list`",
    )


def judge_sender(store: HostFacts) -> Iterator[tuple[str, Found]]:
    """Yield the findings about the host of a repository that a set is read from."""
    missing = [name for name in DONOR_PROGRAMS if name not in store.programs]
    yield (
        "programs",
        (
            not missing,
            f"missing: {', '.join(missing)}" if missing else "all found",
            "install openssh-client there",
        ),
    )
    yield "ssh-keepalive", judge_keepalive(store)


def _judge_store(
    store: HostFacts, survey: Survey, request: Request, stored_bytes: float
) -> Iterator[tuple[str, Found]]:
    """Yield the findings about a repository and its host."""
    missing = [name for name in STORE_PROGRAMS if name not in store.programs]
    yield (
        "programs",
        (
            not missing,
            f"missing: {', '.join(missing)}" if missing else "all found",
            "install pv, coreutils and util-linux there",
        ),
    )
    problem = ""
    if not store.datadir_inode:
        problem = "is not there, or is no directory"
    elif store.is_symlink:
        problem = "is a symbolic link"
    yield (
        "repository",
        (
            not problem,
            f"{store.datadir} {problem}" if problem else f"{store.datadir} is a directory",
            f"make it there: install -d -m 0700 {store.datadir}; or mount what belongs there",
        ),
    )
    if not problem:
        needed = round(stored_bytes) + MARGIN_BYTES
        yield (
            "space",
            (
                store.parent_free_bytes >= needed,
                f"{size(store.parent_free_bytes)} free for {size(needed)}",
                f"free space below {store.datadir}: see `xbvault backups list`",
            ),
        )
    yield "ssh-keepalive", judge_keepalive(store)
    yield "receiver", judge_receiver(store, request.recipient, survey.vault.ssh_ca)


def _judge_vault(
    survey: Survey, config: Config, patterns: vault_rights.Rights, needed: vault_rights.Rights
) -> Iterator[tuple[str, Found]]:
    """Yield the findings about Vault.

    Args:
        survey: What Vault told.
        config: The configuration.
        patterns: What the run needs, as the policy has it.
        needed: The same with the paths of this run, in the same order.
    """
    vault = survey.vault
    yield "vault-readable", judge_readable_vault(vault, config)
    if vault.token is None:
        return
    lacking = find_lacking(patterns, needed, vault.capabilities)
    yield (
        "vault-capabilities",
        (
            not lacking,
            f"the token lacks {'; '.join(lacking)}" if lacking else f"{len(needed)} paths",
            "write the orchestrator's policy again with `xbvault vault init`",
        ),
    )
    yield "vault-token", judge_token(vault.token)
    for mount, kv_version in vault.kv_versions.items():
        yield "vault-mounts", judge_version(mount, kv_version)


def _judge_donor_keys(
    survey: Survey, config: Config, request: Request
) -> Iterator[tuple[str, Found]]:
    """Yield whether the keys of a donor are where they are looked for, if that could be seen."""
    instance, host = survey.donor.instance, config.host(request.donor)
    if instance is None or survey.vault.token is None:
        return
    if instance.has_keyring and not flavors.of(host).carries_keys:
        yield "vault-donor-keys", judge_donor_keys(survey.vault, host.key_mount)
