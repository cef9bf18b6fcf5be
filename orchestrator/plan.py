"""Arguments, configuration and facts become a `Plan`; nothing is changed.

The plan holds no secret, so it can be shown, stored and compared. It is stored with the run, and a
resumed run follows the plan that it began with.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from orchestrator import keys, recipe, wire
from orchestrator.errors import ConfigError, PreconditionError
from orchestrator.facts import layout, preflight
from orchestrator.facts.survey import Survey, read_one_host, read_survey, source_address
from orchestrator.models import Check, Plan
from orchestrator.remote import SshRemote
from orchestrator.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import Config
    from orchestrator.remote import Remote


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloneOptions:
    """What the command line can say about a clone; None takes the configuration's default.

    Attributes:
        parallel: Copy threads of the backup tool.
        replace: Set aside whatever datadir the recipient has.
        require_encryption: Refuse a donor without a keyring.
        checksums: ``all``, ``sample`` or ``none``.
        source: Host that the new replica follows: the donor's own source, or the donor.
        throttle: Most bytes per second of the stream, such as ``50M``, or ``none``.
        nice: Whether the donor's server comes before its backup tool.
        compress: ``auto``, ``none`` or ``zstd:LEVEL``.
        relay: Whether the stream may go through this machine.
    """

    parallel: int | None = None
    replace: bool = False
    require_encryption: bool = False
    checksums: str | None = None
    source: str | None = None
    throttle: str | None = None
    nice: bool | None = None
    compress: str | None = None
    relay: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Names of clones that are to share one reading of the donor.

    Attributes:
        backup_id: Of the set that all of them get.
        runs: The run of each recipient.
    """

    backup_id: str
    runs: dict[str, str]


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
    group: Group | None = None,
) -> tuple[Plan, tuple[Check, ...]]:
    """Plan a clone, and judge whether it may begin.

    Args:
        config: The configuration.
        donor: Host whose data is copied.
        recipient: Host that gets it.
        options: What the command line said.
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
    vault = Vault.from_config(config.vault)
    with ExitStack() as opened:

        def open_door(name: str) -> SshRemote:
            return opened.enter_context(closing(SshRemote(name, config.host(name), config.ssh)))

        return plan_clone(
            config,
            vault,
            open_door(donor),
            open_door(recipient),
            request,
            source=open_door(request.source) if request.source else None,
            options=options,
        )


def make_group(
    config: Config, donor: str, recipients: Sequence[str], *, options: CloneOptions
) -> list[tuple[Plan, tuple[Check, ...]]]:
    """Plan clones of one donor that share one reading of it; see `make_plan`."""
    group = new_group(donor, recipients)

    def plan_all(options: CloneOptions) -> list[tuple[Plan, tuple[Check, ...]]]:
        with ThreadPoolExecutor(len(recipients)) as pool:
            made = [
                pool.submit(make_plan, config, donor, recipient, options=options, group=group)
                for recipient in recipients
            ]
        return [plan.result() for plan in made]

    planned = plan_all(options)
    if len({made.compress for made, _ in planned}) > 1:
        # What pays for one recipient and not for the other cannot be done to a common stream.
        planned = plan_all(dataclasses.replace(options, compress=wire.NONE))
    hosts: dict[str, str] = {}
    for index, (made, checks) in enumerate(planned):
        other = hosts.setdefault(made.server_id, made.recipient)
        if other != made.recipient:
            same = Check(
                name="server-ids",
                host=made.recipient,
                ok=False,
                evidence=f"{made.server_id}, as {other}",
                hint="give each recipient a server_id of its own",
            )
            planned[index] = made, (*checks, same)
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
) -> tuple[Plan, tuple[Check, ...]]:
    """Plan a clone over doors that are there; see `make_plan`.

    Raises:
        RemoteError: A host cannot be read.
        SecretError: Vault cannot be read.
    """
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
    return _plan(config, survey, request, options, vault_url=vault.address), checks


def find_source(donor: str, named: str | None) -> str:
    """Return the host that a new replica follows where it is not its donor; else nothing."""
    return "" if named in (None, donor) else str(named)


def read_manner(config: Config, options: CloneOptions) -> dict[str, Any]:
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


def check_host(config: Config, name: str) -> tuple[Check, ...]:
    """Judge one host by itself.

    Raises:
        ConfigError: No such host.
        SecretError: No token for Vault.
    """
    with closing(SshRemote(name, config.host(name), config.ssh)) as remote:
        side, found = read_one_host(config, name, Vault.from_config(config.vault), remote)
    return preflight.judge_host(name, side, config.host(name), found)


def _plan(
    config: Config,
    survey: Survey,
    request: preflight.Request,
    options: CloneOptions,
    *,
    vault_url: str,
) -> Plan:
    source, target = survey.donor.host, survey.recipient.host
    if source is None or target is None:  # make_plan has raised what was wrong
        raise PreconditionError("a host could not be read")
    donor_config = config.host(request.donor)
    followed = survey.source or survey.donor
    found = layout.make_layout(target, survey.recipient.places, request.run_id)
    choice = preflight.choose_compression(survey, request)
    plan = Plan(
        run_id=request.run_id,
        backup_id=request.backup_id,
        donor=request.donor,
        recipient=request.recipient,
        flavor=donor_config.flavor,
        server_version=source.server_version,
        datadir=target.real_datadir,
        staging_dir=found.staging_dir,
        new_datadir=found.new_datadir,
        old_datadir=found.old_datadir,
        places=found.places,
        subfolders=found.subfolders,
        donor_mount=donor_config.key_mount,
        own_mount=config.host(request.recipient).key_mount,
        source=request.source,
        source_version=followed.host.server_version if request.source and followed.host else "",
        source_is_replica=bool(followed.instance and followed.instance.replicates),
        source_address=source_address(config, request.source or request.donor),
        source_port=config.host(request.source or request.donor).server.port,
        parallel=options.parallel or config.clone.parallel,
        replace=request.replace,
        require_encryption=request.require_encryption,
        coordinates=config.clone.coordinates,
        checksums=options.checksums or config.clone.checksums,
        expected_bytes=survey.donor.expected_bytes,
        expected_stream_bytes=round(survey.donor.expected_bytes / choice.ratio)
        if choice.compress != wire.NONE
        else 0,
        throttle=request.throttle,
        nice=request.nice,
        compress=choice.compress,
        compress_reason=choice.reason,
        relay=preflight.needs_relay(survey, request),
        ciphers=wire.choose_ciphers(has_aes=source.has_aes and target.has_aes),
        tool_version=source.tool_version,
        keyring=config.host(request.recipient).keyring.kind,
        has_keyring=bool(survey.donor.instance and survey.donor.instance.has_keyring),
        group_runs=request.group_runs,
        server_id=preflight.server_id_of(survey.recipient),
    )
    commands = recipe.list_commands(config, plan, survey, vault_url=vault_url)
    return dataclasses.replace(plan, commands=commands)
