"""Plans of what is done with a stored set: restores, drills, and copies to another repository.

As in `plan`, nothing is changed, and no plan holds a secret.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from contextlib import closing
from typing import TYPE_CHECKING

from orchestrator import catalogue, increments, key_uses, keys, recipe, replays, wire
from orchestrator.errors import ConfigError, PreconditionError, VerificationError
from orchestrator.facts import layout, preflight, stores
from orchestrator.facts.survey import source_address
from orchestrator.models import (
    COPY,
    DRILL,
    DRILL_CLONE,
    RESTORE,
    CloneDrillPlan,
    CopyPlan,
    DrillPlan,
    RestorePlan,
    backup_lock_dir,
)
from orchestrator.plan import CloneOptions, make_plan
from orchestrator.remote import Doors
from orchestrator.repository.sets import State

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.facts.survey import Survey
    from orchestrator.models import BaseSet, Check, Replay
    from orchestrator.repository.binlogs import Target
    from orchestrator.repository.manifest import Manifest


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """What the command line can say about a restore.

    Attributes:
        parallel: Copy threads of the backup tool.
        replace: Set aside whatever datadir the recipient has.
        source: Host that the restored server is to follow; empty for none.
        follows_set_host: Whether that is the host that the set was made of, instead.
        read_only: Whether it refuses writes of ordinary accounts.
        throttle: Most bytes per second of the stream, such as ``50M``, or ``none``.
        at: Up to where binary logs are replayed on top of the set; None for the set alone.
        last_whole: Take the last set before it whose chain is whole, if its own is not.
    """

    parallel: int | None = None
    replace: bool = False
    source: str = ""
    follows_set_host: bool = False
    read_only: bool = False
    throttle: str | None = None
    at: Target | None = None
    last_whole: bool = False


def make_restore_plan(
    config: Config, backup: str, recipient: str, *, repository: str = "", options: RestoreOptions
) -> tuple[RestorePlan, tuple[Check, ...]]:
    """Plan the restore of a stored backup, and judge whether it may begin.

    Args:
        config: The configuration.
        backup: Name of the set; ``latest`` or ``latest:HOST`` for the newest one.
        recipient: Host that gets it.
        repository: Where it is; empty for wherever it is.
        options: What the command line said.

    Returns:
        The plan, and every finding of preflight; bad ones are not raised.

    Raises:
        ConfigError: A name is not in the configuration, or an option means nothing.
        PreconditionError: There is no such set.
        VerificationError: Its manifest is not ours.
        RemoteError: A host cannot be read.
        SecretError: Vault cannot be read.
    """
    host = config.host(recipient)
    if options.source:
        config.check_roles(options.source, recipient, None)
    throttle = _read_rate(config, options.throttle, "restore")
    vault = key_uses.open_vault(config)
    with closing(Doors(config)) as doors:
        found, replay = _find_restored(config, backup, repository, options)
        repository, report = found.repository, found.report
        store = doors.open(repository)
        document = report.manifest
        if document is None:
            raise VerificationError(
                f"backup set {report.name} cannot be restored: {report.problems[0]}",
                host=repository,
                hint="`xbvault backups list` shows those that can",
            )
        bases: tuple[BaseSet, ...] = ()
        if document.base_backup_id and report.state is not State.CHAIN_BROKEN:
            here = catalogue.list_sets(config, repository, document.host)
            bases = increments.list_bases(here, repository, document)
        source = options.source
        if options.follows_set_host:
            source = _need_live_host(config, document, recipient)
        request = preflight.Request(
            form=RESTORE,
            donor=repository,
            recipient=recipient,
            run_id=keys.new_run_id(recipient, dt.datetime.now(dt.UTC)),
            backup_id=document.backup_id,
            replace=options.replace,
            require_encryption=False,
            source=source,
            coordinates=config.clone.coordinates,
            throttle=throttle,
            set_host=document.host,
            flavor=host.flavor,
        )
        survey = stores.read_restore_survey(
            config,
            vault,
            store,
            doors.open(recipient),
            run_id=request.run_id,
            backup_id=request.backup_id,
            source=doors.open(source) if source else None,
        )
    chain = (document.backup_id, *(each.backup_id for each in bases))
    checks = preflight.judge_restore(
        survey,
        config,
        request,
        document=document,
        report=report,
        key_problem=stores.read_key_problem(config, vault, *chain),
        bases=bases,
        replay=replay,
    )
    if survey.errors:
        preflight.raise_for(checks, survey.errors)
    made = _plan_restore(config, survey, request, options, document, bases=bases, replay=replay)
    return made, checks


def make_copy_plan(
    config: Config, backup: str, repository: str, *, source: str = "", throttle: str | None = None
) -> tuple[CopyPlan, tuple[Check, ...]]:
    """Plan the copy of a stored backup to another repository, and judge whether it may begin.

    Args:
        config: The configuration.
        backup: Name of the set; ``latest`` or ``latest:HOST`` for the newest one.
        repository: Where to.
        source: Repository that it is copied from; empty for wherever it is.
        throttle: Most bytes per second of the stream; None takes the configuration's.

    Returns:
        The plan, and every finding of preflight; bad ones are not raised.

    Raises:
        ConfigError: A name is not in the configuration, or an option means nothing.
        PreconditionError: There is no such set, or it would be copied onto itself.
        VerificationError: Its manifest is not ours.
        RemoteError: A host cannot be read.
        SecretError: Vault cannot be read.
    """
    target = config.repository(repository)
    rate = _read_rate(config, throttle, "backups copy")
    found = _find_one_set(config, backup, source)
    document = found.report.manifest
    if found.repository == repository:
        raise PreconditionError(
            f"{found.report.name} is in {repository} already",
            host=repository,
            hint="name another repository with --to; nothing was contacted for it",
        )
    if document is None:
        raise VerificationError(
            f"backup set {found.report.name} cannot be copied: {found.report.problems[0]}",
            host=found.repository,
            hint="`xbvault backups list` shows those that can",
        )
    vault = key_uses.open_vault(config)
    request = preflight.Request(
        form=COPY,
        donor=found.repository,
        recipient=repository,
        run_id=keys.new_run_id(repository, dt.datetime.now(dt.UTC)),
        backup_id=document.backup_id,
        replace=False,
        require_encryption=False,
        throttle=rate,
    )
    with closing(Doors(config)) as doors:
        survey = stores.read_copy_survey(
            config,
            vault,
            doors.open(found.repository),
            doors.open(repository),
            lock_dir=backup_lock_dir(document.host),
            backup_id=document.backup_id,
        )
        has_target = survey.recipient.host is not None
        folder = f"{target.path}/{document.backup_id}"
        is_there = has_target and (
            doors.open(repository).run(["test", "-e", folder], check=False).status == 0
        )
        lacks = ""
        if has_target:
            lacks = stores.find_lacking_base(doors.open(repository), target.path, found.report)
    checks = preflight.judge_copy(
        survey, config, request, report=found.report, is_there=is_there, lacks=lacks
    )
    if survey.errors:
        preflight.raise_for(checks, survey.errors)
    from_host, to_host = survey.donor.host, survey.recipient.host
    if from_host is None or to_host is None:  # what was wrong has been raised
        raise PreconditionError("a host could not be read")
    plan = CopyPlan(
        run_id=request.run_id,
        backup_id=document.backup_id,
        donor=found.repository,
        recipient=repository,
        flavor=document.flavor,
        server_version=document.server_version,
        tool_version=document.tool_version,
        donor_mount="",
        has_keyring=document.has_keyring,
        parallel=1,
        expected_bytes=document.stored_bytes,
        throttle=rate,
        compress=wire.NONE,
        compress_reason="as it was stored",
        ciphers=wire.choose_ciphers(has_aes=from_host.has_aes and to_host.has_aes),
        source_dir=f"{from_host.real_datadir}/{document.backup_id}",
        set_dir=f"{to_host.real_datadir}/{document.backup_id}",
        made_of=document.host,
        part_bytes=document.part_bytes,
        parts=len(document.parts),
        stored_bytes=sum(part.bytes for part in document.parts),
        to_lsn=document.to_lsn,
    )
    commands = recipe.list_copy_commands(config, plan)
    return dataclasses.replace(plan, commands=commands), checks


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrillOptions:
    """What the command line can say about a drill.

    Attributes:
        keep: Leave the restored server where it is.
        report_dir: Where the report goes; empty for the journal's folder.
        parallel: Copy threads of the backup tool.
        throttle: Most bytes per second of the stream, such as ``50M``, or ``none``.
        replicate: Seconds that the restored server follows the live host; None for not at all.
    """

    keep: bool = False
    report_dir: str = ""
    replicate: int | None = None
    parallel: int | None = None
    throttle: str | None = None


def make_drill_plan(
    config: Config, backup: str, recipient: str, *, repository: str = "", options: DrillOptions
) -> tuple[DrillPlan, tuple[Check, ...]]:
    """Plan a drill: the restore of a set to a scratch host; see `make_restore_plan`.

    What the host has is set aside, for it gets that back.

    Raises:
        ConfigError: A name is not in the configuration, or an option means nothing.
        PreconditionError: There is no such set.
        VerificationError: Its manifest is not ours.
        RemoteError: A host cannot be read.
        SecretError: Vault cannot be read.
    """
    made, checks = make_restore_plan(
        config,
        backup,
        recipient,
        repository=repository,
        options=RestoreOptions(
            parallel=options.parallel,
            replace=True,
            read_only=True,
            throttle=options.throttle,
            follows_set_host=bool(options.replicate),
        ),
    )
    is_known = made.set_host in config.hosts and made.set_host != recipient
    of_run = config.state_directory.absolute() / "drills" / made.run_id
    fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    drill = {
        "form": DRILL,
        "live_host": made.set_host if is_known else "",
        "keep": options.keep,
        "report_dir": options.report_dir or str(of_run),
        "replicate_seconds": options.replicate or 0,
    }
    return DrillPlan(**(fields | drill)), checks


def make_clone_drill_plan(
    config: Config, donor: str, recipient: str, *, options: DrillOptions
) -> tuple[CloneDrillPlan, tuple[Check, ...]]:
    """Plan the drill of a clone to a scratch host; see `make_plan`.

    What the host has is set aside, for it gets that back.

    Raises:
        ConfigError: A host is not in the configuration, or an option means nothing.
        PreconditionError: Hosts that must be different are the same.
        RemoteError: A host cannot be read.
        SecretError: Vault cannot be read.
    """
    with closing(Doors(config)) as doors:
        planned = make_plan(
            config,
            donor,
            recipient,
            options=CloneOptions(
                parallel=options.parallel,
                throttle=options.throttle,
                replace=True,
                checksums="none",
            ),
            doors=doors,
        )
    made = planned.plan
    of_run = config.state_directory.absolute() / "drills" / made.run_id
    fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    drill = {
        "form": DRILL_CLONE,
        "report_dir": options.report_dir or str(of_run),
        "replicate_seconds": options.replicate or 0,
    }
    return CloneDrillPlan(**(fields | drill)), planned.checks


def _need_live_host(config: Config, document: Manifest, recipient: str) -> str:
    """Return the host that a set was made of, which is to be followed.

    Raises:
        PreconditionError: It cannot be.
    """
    host = document.host
    if host not in config.hosts:
        raise PreconditionError(
            f"{host}, which {document.backup_id} was made of, is not configured",
            host=host,
            hint=f"add it as [hosts.{host}], or leave --replicate out",
        )
    if host == recipient:
        raise PreconditionError(
            f"{host} cannot follow itself: {document.backup_id} was made of it",
            host=host,
            hint="name another scratch host, or leave --replicate out",
        )
    return host


def _read_rate(config: Config, wanted: str | None, command: str) -> int:
    """Return the most bytes per second of a stream; 0 for no bound.

    Raises:
        ConfigError: What the command line or the configuration says is no rate.
    """
    try:
        return wire.parse_rate(wanted or config.clone.throttle)
    except ValueError as error:
        raise ConfigError(f"an option {error}", hint=f"see `xbvault {command} --help`") from error


def _find_one_set(config: Config, backup: str, repository: str) -> catalogue.StoredSet:
    """Return a set that is to be restored; the first of several that can be, if it is in several."""
    found = catalogue.find_sets(config, backup, repository)
    good = [each for each in found if each.report.state.is_restorable]
    return (good or list(found))[0]


def _find_restored(
    config: Config, backup: str, repository: str, options: RestoreOptions
) -> tuple[catalogue.StoredSet, Replay | None]:
    """Return the set that is restored, and what is replayed on top of it.

    Raises:
        PreconditionError: There is no such set, or the target cannot be reached from it.
        VerificationError: The newest set is asked for, and its chain is broken.
    """
    word, _, host = backup.partition(":")
    at = options.at
    if at is None:
        found = _find_one_set(config, backup, repository)
        document = found.report.manifest
        if word == catalogue.LATEST and document and not options.last_whole:
            listed = catalogue.list_sets(config, found.repository, document.host)
            increments.need_no_later(listed, document)
        if found.report.state is State.CHAIN_BROKEN and options.last_whole:
            listed = catalogue.list_sets(config, found.repository)
            found = increments.find_last_whole(listed, found)
        return found, None
    listed = catalogue.list_sets(config, repository)
    if word == catalogue.LATEST:
        host = host or catalogue.find_only_host(listed)
        chosen = replays.choose_set(listed, host, repository, at)
        if chosen is None:
            raise PreconditionError(
                f"no backup of {host} ended before {at.text}",
                hint="`xbvault backups list` shows what there is: take a later moment",
            )
    else:
        chosen = _find_one_set(config, backup, repository)
    if chosen.report.manifest is None:
        return chosen, None
    return chosen, replays.plan_replay(listed, chosen.report.manifest, chosen.repository, at)


def _plan_restore(
    config: Config,
    survey: Survey,
    request: preflight.Request,
    options: RestoreOptions,
    document: Manifest,
    *,
    bases: tuple[BaseSet, ...],
    replay: Replay | None,
) -> RestorePlan:
    store, target = survey.donor.host, survey.recipient.host
    if store is None or target is None:  # make_restore_plan has raised what was wrong
        raise PreconditionError("a host could not be read")
    host = config.host(request.recipient)
    found = layout.make_layout(target, survey.recipient.places, request.run_id)
    followed = survey.source.instance if survey.source else None
    source_host = survey.source.host if survey.source else None
    of_set = config.hosts.get(document.host)
    made = RestorePlan(
        run_id=request.run_id,
        backup_id=document.backup_id,
        donor=request.donor,
        recipient=request.recipient,
        flavor=document.flavor,
        server_version=document.server_version,
        tool_version=document.tool_version,
        donor_mount=of_set.key_mount if of_set and document.host != request.recipient else "",
        has_keyring=document.has_keyring,
        keyring=host.keyring.kind,
        parallel=options.parallel or config.clone.parallel,
        expected_bytes=document.stored_bytes
        + sum(each.stored_bytes for each in bases)
        + sum(each.stored_bytes for each in (replay.sets if replay else ())),
        throttle=request.throttle,
        compress=document.compress,
        compress_reason="as it was stored",
        ciphers=wire.choose_ciphers(has_aes=target.has_aes),
        datadir=target.real_datadir,
        staging_dir=found.staging_dir,
        new_datadir=found.new_datadir,
        old_datadir=found.old_datadir,
        places=found.places,
        subfolders=found.subfolders,
        own_mount=host.key_mount,
        source=request.source,
        source_version=source_host.server_version if source_host else "",
        source_is_replica=bool(followed and followed.replicates),
        source_address=source_address(config, request.source) if request.source else "",
        source_port=config.host(request.source).server.port if request.source else 0,
        replace=request.replace,
        require_encryption=False,
        coordinates=config.clone.coordinates,
        checksums="none",
        server_id=preflight.server_id_of(survey.recipient),
        set_dir=f"{store.real_datadir}/{document.backup_id}",
        set_host=document.host,
        part_bytes=document.part_bytes,
        parts=len(document.parts),
        stored_bytes=sum(part.bytes for part in document.parts),
        to_lsn=document.to_lsn,
        ended_at=document.ended_at,
        read_only=options.read_only,
        replay=replay,
        from_lsn=document.from_lsn,
        bases=bases,
    )
    return dataclasses.replace(made, commands=recipe.list_restore_commands(config, made, survey))
