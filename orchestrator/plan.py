"""Arguments, configuration and facts become a `Plan`; nothing is changed.

The plan holds no secret, so it can be shown, stored and compared. It is stored with the run, and a
resumed run follows the plan that it began with.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

from orchestrator import increments, key_uses, keys, recipe, wire
from orchestrator.errors import ConfigError, PreconditionError
from orchestrator.facts import bases as base_facts
from orchestrator.facts import layout, preflight, stores
from orchestrator.facts.look import Look
from orchestrator.facts.survey import Survey, read_one_host, read_survey, source_address
from orchestrator.models import (
    BACKUP,
    BackupPlan,
    Check,
    Plan,
    backup_lock_dir,
)
from orchestrator.remote import Doors, SshRemote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import Config
    from orchestrator.remote import Remote
    from orchestrator.repository.manifest import Manifest
    from orchestrator.vault import Vault


_LAYOUT = (
    "datadir",
    "innodb_data_home_dir",
    "innodb_log_group_home_dir",
    "innodb_undo_directory",
    "log_bin_basename",
    "relay_log_basename",
    "server_uuid",
)
"""Variables that say where a donor's server keeps its files, and of MySQL which server it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What the command line can say about a stream; None takes the configuration's default.

    Attributes:
        parallel: Copy threads of the backup tool.
        require_encryption: Refuse a donor without a keyring.
        throttle: Most bytes per second of the stream, such as ``50M``, or ``none``.
        nice: Whether the donor's server comes before its backup tool.
        compress: ``auto``, ``none`` or ``zstd:LEVEL``.
        relay: Whether the stream may go through this machine.
    """

    parallel: int | None = None
    require_encryption: bool = False
    throttle: str | None = None
    nice: bool | None = None
    compress: str | None = None
    relay: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackupOptions(StreamOptions):
    """What the command line can say about a stored backup besides.

    Attributes:
        incremental: Take what has changed since an earlier backup alone.
        base: That backup; empty for the newest one whose chain is whole.
        checksums: ``all``, ``sample`` or ``none``.
    """

    incremental: bool = False
    base: str = ""
    checksums: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloneOptions(StreamOptions):
    """What the command line can say about a clone besides.

    Attributes:
        replace: Set aside whatever datadir the recipient has.
        checksums: ``all``, ``sample`` or ``none``.
        source: Host that the new replica follows: the donor's own source, or the donor.
    """

    replace: bool = False
    checksums: str | None = None
    source: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Names of clones that are to share one reading of the donor.

    Attributes:
        backup_id: Of the set that all of them get.
        runs: The run of each recipient.
    """

    backup_id: str
    runs: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """A clone that was planned.

    Attributes:
        plan: The plan.
        checks: Every finding of preflight; bad ones among them.
        look: The same for the run, if this process begins it at once.
    """

    plan: Plan
    checks: tuple[Check, ...]
    look: Look


def new_group(donor: str, recipients: Sequence[str]) -> Group:
    """Return names for clones of one donor that begin together."""
    now = dt.datetime.now(dt.UTC)
    return Group(
        backup_id=keys.new_backup_id(donor, now),
        runs={recipient: keys.new_run_id(recipient, now) for recipient in recipients},
    )


def make_plan(
    config: Config,
    donor: str,
    recipient: str,
    *,
    options: CloneOptions,
    doors: Doors,
    group: Group | None = None,
) -> Planned:
    """Plan a clone, and judge whether it may begin.

    Args:
        config: The configuration.
        donor: Host whose data is copied.
        recipient: Host that gets it.
        options: What the command line said.
        doors: The doors to the hosts.
        group: The clones that it is one of.

    Returns:
        The plan, and every finding of preflight; bad ones are not raised.

    Raises:
        ConfigError: A host is not in the configuration, or an option means nothing; nothing was
            contacted.
        PreconditionError: Hosts that must be different are the same; nothing was contacted.
        RemoteError: A host cannot be read.
        SecretError: Vault cannot be read.
    """
    config.check_roles(donor, recipient, options.source)
    now = dt.datetime.now(dt.UTC)
    request = preflight.Request(
        donor=donor,
        recipient=recipient,
        run_id=group.runs[recipient] if group else keys.new_run_id(recipient, now),
        backup_id=group.backup_id if group else keys.new_backup_id(donor, now),
        group_runs=tuple(group.runs.values()) if group else (),
        replace=options.replace,
        require_encryption=options.require_encryption,
        source=find_source(donor, options.source),
        coordinates=config.clone.coordinates,
        **read_manner(config, options),
    )
    return plan_clone(
        config,
        key_uses.open_vault(config),
        doors.open(donor),
        doors.open(recipient),
        request,
        source=doors.open(request.source) if request.source else None,
        options=options,
    )


def make_group(
    config: Config, donor: str, recipients: Sequence[str], *, options: CloneOptions
) -> list[Planned]:
    """Plan clones of one donor that share one reading of it; see `make_plan`."""
    group = new_group(donor, recipients)

    def plan_one(recipient: str, options: CloneOptions) -> Planned:
        # each with doors of its own, for an SSH server has a number of sessions for a connection
        with closing(Doors(config)) as doors:
            return make_plan(config, donor, recipient, options=options, doors=doors, group=group)

    def plan_all(options: CloneOptions) -> list[Planned]:
        with ThreadPoolExecutor(len(recipients)) as pool:
            made = [pool.submit(plan_one, recipient, options) for recipient in recipients]
        return [plan.result() for plan in made]

    planned = plan_all(options)
    if len({made.plan.compress for made in planned}) > 1:
        # What pays for one recipient and not for the other cannot be done to a common stream.
        planned = plan_all(dataclasses.replace(options, compress=wire.NONE))
    hosts: dict[str, str] = {}
    for index, made in enumerate(planned):
        server_id, recipient = made.plan.server_id, made.plan.recipient
        other = hosts.setdefault(server_id, recipient)
        if other != recipient:
            same = Check(
                name="server-ids",
                host=recipient,
                ok=False,
                evidence=f"{server_id}, as {other}",
                hint="give each recipient a server_id of its own",
            )
            planned[index] = dataclasses.replace(made, checks=(*made.checks, same))
    return planned


def plan_clone(
    config: Config,
    vault: Vault,
    donor: Remote,
    recipient: Remote,
    request: preflight.Request,
    *,
    source: Remote | None = None,
    options: CloneOptions,
) -> Planned:
    """Plan a clone over doors that are there; see `make_plan`.

    Raises:
        RemoteError: A host cannot be read.
        SecretError: Vault cannot be read.
    """
    asked_at = time.monotonic()
    survey = read_survey(
        config,
        vault,
        donor,
        recipient,
        run_id=request.run_id,
        backup_id=request.backup_id,
        source=source,
        with_sample=request.compress != wire.NONE,
    )
    checks = preflight.judge(survey, config, request)
    if survey.errors:
        preflight.raise_for(checks, survey.errors)
    source_facts, target = survey.donor.host, survey.recipient.host
    if source_facts is None or target is None:  # what was wrong has been raised
        raise PreconditionError("a host could not be read")
    look = Look(
        run_id=request.run_id,
        asked_at=asked_at,
        findings=checks,
        donor=source_facts,
        recipient=target,
        lock=survey.lock,
    )
    made = _plan(config, survey, look, request, options, vault_url=vault.address)
    return Planned(plan=made, checks=checks, look=look)


def find_source(donor: str, named: str | None) -> str:
    """Return the host that a new replica follows where it is not its donor; else nothing."""
    return "" if named in (None, donor) else str(named)


def read_manner(config: Config, options: StreamOptions) -> dict[str, Any]:
    """Return how the stream is to go, as it stands in a request.

    Raises:
        ConfigError: An option means nothing.
    """
    nice = config.clone.nice if options.nice is None else options.nice
    relay = config.clone.relay if options.relay is None else options.relay
    try:
        return {
            "throttle": wire.parse_rate(options.throttle or config.clone.throttle),
            "compress": wire.parse_compression(options.compress or config.clone.compress),
            "nice": nice,
            "relay": relay,
        }
    except ValueError as error:
        raise ConfigError(f"an option {error}", hint="see `xbvault clone --help`") from error


def make_backup_plan(
    config: Config, donor: str, repository: str, *, options: BackupOptions
) -> tuple[BackupPlan, tuple[Check, ...]]:
    """Plan a stored backup, and judge whether it may begin.

    Args:
        config: The configuration.
        donor: Host whose data is backed up.
        repository: Where to; empty for the only one that is configured.
        options: What the command line said.

    Returns:
        The plan, and every finding of preflight; bad ones are not raised.

    Raises:
        ConfigError: Host or repository is not in the configuration, several are and none was named,
            or an option means nothing; nothing was contacted.
        PreconditionError: There is no backup that an incremental one could build on.
        RemoteError: A host cannot be read.
        SecretError: Vault cannot be read.
    """
    config.host(donor)
    repository = config.find_repository(repository)
    now = dt.datetime.now(dt.UTC)
    request = preflight.Request(
        form=BACKUP,
        donor=donor,
        recipient=repository,
        run_id=keys.new_run_id(repository, now),
        backup_id=keys.new_backup_id(donor, now),
        replace=False,
        require_encryption=options.require_encryption,
        checksums=options.checksums or config.clone.backup_checksums,
        is_incremental=bool(options.incremental or options.base),
        **read_manner(config, options),
    )
    document = None
    if options.incremental or options.base:
        document = increments.choose_base(config, donor, repository, options.base)
    vault = key_uses.open_vault(config)
    base = None
    with closing(Doors(config)) as doors:
        survey = stores.read_store_survey(
            config,
            vault,
            doors.open(donor),
            doors.open(repository),
            lock_dir=backup_lock_dir(donor),
            backup_id=request.backup_id,
            with_sample=request.compress != wire.NONE,
        )
        if document and survey.donor.instance:
            base = base_facts.read_base(config, doors.open(donor), document)
    checks = preflight.judge_backup(survey, config, request, base=base)
    if survey.errors:
        preflight.raise_for(checks, survey.errors)
    return _plan_backup(config, survey, request, options, document), checks


def _plan_backup(
    config: Config,
    survey: Survey,
    request: preflight.Request,
    options: BackupOptions,
    base: Manifest | None,
) -> BackupPlan:
    source, target = survey.donor.host, survey.recipient.host
    if source is None or target is None:  # make_backup_plan has raised what was wrong
        raise PreconditionError("a host could not be read")
    donor, repository = config.host(request.donor), config.repository(request.recipient)
    instance = survey.donor.instance
    variables = instance.variables if instance else {}
    made = BackupPlan(
        **describe_stream(config, survey, request, options),
        keyring=donor.keyring.kind,
        set_dir=f"{target.real_datadir}/{request.backup_id}",
        part_bytes=repository.part_bytes,
        layout={name: variables[name] for name in _LAYOUT if variables.get(name)},
        base_backup_id=base.backup_id if base else "",
        from_lsn=base.to_lsn if base else 0,
        checksums=request.checksums,
    )
    commands = recipe.list_backup_commands(config, made, survey)
    return dataclasses.replace(made, commands=commands)


def describe_stream(
    config: Config, survey: Survey, request: preflight.Request, options: StreamOptions
) -> dict[str, Any]:
    """Return what the plans of all runs with a stream from a donor have in common."""
    source, target = survey.donor.host, survey.recipient.host
    if source is None or target is None:
        raise PreconditionError("a host could not be read")
    donor = config.host(request.donor)
    choice = preflight.choose_compression(survey, request)
    expected = survey.donor.expected_bytes
    compresses = choice.compress != wire.NONE
    return {
        "run_id": request.run_id,
        "backup_id": request.backup_id,
        "donor": request.donor,
        "recipient": request.recipient,
        "flavor": donor.flavor,
        "server_version": source.server_version,
        "tool_version": source.tool_version,
        "donor_mount": donor.key_mount,
        "has_keyring": bool(survey.donor.instance and survey.donor.instance.has_keyring),
        "parallel": options.parallel or config.clone.parallel,
        "expected_bytes": expected,
        "expected_stream_bytes": round(expected / choice.ratio) if compresses else 0,
        "throttle": request.throttle,
        "nice": request.nice,
        "compress": choice.compress,
        "compress_reason": choice.reason,
        "relay": preflight.needs_relay(survey, request),
        "ciphers": wire.choose_ciphers(has_aes=source.has_aes and target.has_aes),
        "group_runs": request.group_runs,
    }


def check_host(config: Config, name: str) -> tuple[Check, ...]:
    """Judge one host by itself.

    Raises:
        ConfigError: No such host.
        SecretError: No token for Vault.
    """
    with closing(SshRemote(name, config.host(name), config.ssh)) as remote:
        side, found = read_one_host(config, name, key_uses.open_vault(config), remote)
    return preflight.judge_host(name, side, config.host(name), found)


def _plan(
    config: Config,
    survey: Survey,
    look: Look,
    request: preflight.Request,
    options: CloneOptions,
    *,
    vault_url: str,
) -> Plan:
    target = look.recipient
    followed = survey.source or survey.donor
    found = layout.make_layout(target, survey.recipient.places, request.run_id)
    recipient = config.host(request.recipient)
    plan = Plan(
        **describe_stream(config, survey, request, options),
        datadir=target.real_datadir,
        staging_dir=found.staging_dir,
        new_datadir=found.new_datadir,
        old_datadir=found.old_datadir,
        places=found.places,
        subfolders=found.subfolders,
        own_mount=recipient.key_mount,
        source=request.source,
        source_version=followed.host.server_version if request.source and followed.host else "",
        source_is_replica=bool(followed.instance and followed.instance.replicates),
        source_address=source_address(config, request.source or request.donor),
        source_port=config.host(request.source or request.donor).server.port,
        replace=request.replace,
        require_encryption=request.require_encryption,
        coordinates=config.clone.coordinates,
        checksums=options.checksums or config.clone.checksums,
        keyring=recipient.keyring.kind,
        server_id=preflight.server_id_of(survey.recipient),
    )
    commands = recipe.list_commands(config, plan, survey, vault_url=vault_url)
    return dataclasses.replace(plan, commands=commands)
