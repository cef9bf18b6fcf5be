"""What must hold of the donor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import flavors
from orchestrator.facts.preflight.accounts import judge_donor_account
from orchestrator.facts.preflight.findings import number
from orchestrator.facts.preflight.followed import (
    judge_binlog,
    judge_name_resolution,
    judge_retention,
    judge_tls,
)
from orchestrator.facts.preflight.host import judge_programs, judge_tool
from orchestrator.facts.preflight.replication import judge_replication, takes_quiet_account
from orchestrator.facts.preflight.stream import judge_priority
from orchestrator.flavors import mariadb
from orchestrator.flavors.interface import BACKUP_PROGRAMS, DONOR_PROGRAMS, GROUP_PROGRAMS
from orchestrator.flavors.quoting import describe_names
from orchestrator.models import ARCHIVE
from orchestrator.privileges.database import wanted_privileges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.config import HostConfig
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.instances import InstanceFacts
    from orchestrator.facts.preflight.findings import Found, Request
    from orchestrator.facts.survey import HostSurvey
    from orchestrator.flavors.interface import Flavor


def judge_donor(
    host: HostFacts, side: HostSurvey, request: Request, *, config: HostConfig
) -> Iterator[tuple[str, Found]]:
    """Yield the findings about a donor."""
    flavor = flavors.of(config)
    yield "programs", judge_programs(host, config, _list_programs(request))
    yield "tool-version", judge_tool(host, config)
    if request.nice:
        yield "priority", judge_priority(host)
    instance = side.instance
    state = "no answer from the server in" if host.is_running else "no server runs in"
    yield (
        "donor-running",
        (
            instance is not None or side.account is not None,
            "answers SQL" if instance or side.account else f"{state} {host.datadir}",
            "start the donor's server, or set socket or datadir in hosts.*.server",
        ),
    )
    if side.account is not None:
        wanted = wanted_privileges(config.flavor, host.server_version)
        names = wanted.backup if request.is_backup else wanted.donor
        if request.form == ARCHIVE:
            names += ("REPLICATION SLAVE",)  # who has it is given binary logs
        elif request.checksums != "none" or request.is_incremental:
            names += wanted.events
        if not request.is_backup and takes_quiet_account(side, request):
            names += wanted.quiet
        yield "donor-privileges", judge_donor_account(side.account, names)
    if instance is None:
        return
    yield (
        "donor-keyring",
        (
            instance.has_keyring or not request.require_encryption,
            ", ".join(f"{k} {v}" for k, v in instance.encryption_plugins.items()) or "no keyring",
            f"load {flavor.keyrings} on the donor, or leave --require-encryption out",
        ),
    )
    if request.is_backup:
        yield "donor-binlog", judge_binlog(instance, "the donor")
    else:
        yield from _judge_followed(instance, side, request, flavor)
    unquoted, tool = instance.unquoted_tables, flavor.own.backup
    yield (
        "donor-table-names",
        (
            not unquoted,
            f"{tool} fails at a backtick in {describe_names(unquoted)}"
            if unquoted
            else f"{tool} can name every table",
            "rename them on the donor, or make them InnoDB tables: the tool puts the names of "
            "others unquoted into BACKUP LOCK",
        ),
    )
    if flavor.carries_keys:
        outside = instance.outside_files
        yield (
            "donor-data-files",
            (
                not outside,
                f"outside of the data directory: {describe_names(outside)}"
                if outside
                else "every table's file lies in the data directory",
                "move these tables into the data directory: the backup tool would put their files "
                "back to the same paths on the recipient, whatever lies there",
            ),
        )
    if instance.has_keyring and not flavor.carries_keys:
        yield "key-cache", _judge_key_cache(instance)


def _list_programs(request: Request) -> tuple[str, ...]:
    """Return what a donor must have beside what its flavor needs."""
    group = GROUP_PROGRAMS if request.group_runs else ()
    backup = BACKUP_PROGRAMS if request.is_backup else ()
    return (*DONOR_PROGRAMS, *group, *backup)


def _judge_followed(
    instance: InstanceFacts, side: HostSurvey, request: Request, flavor: Flavor
) -> Iterator[tuple[str, Found]]:
    """Yield the findings about a donor whose copy will replicate, from it or from its own source."""
    if not request.source:
        yield "donor-binlog", judge_binlog(instance, "the donor")
        yield "donor-tls", judge_tls(instance, "the donor")
    yield from judge_replication(instance, request, flavor)
    if not request.source:
        retention = judge_retention(
            instance, "the donor", expected_bytes=side.expected_bytes, throttle=request.throttle
        )
        yield "binlog-retention", retention
        resolution = judge_name_resolution(instance, side, "the donor", request.recipient)
        yield "name-resolution", resolution


def _judge_key_cache(instance: InstanceFacts) -> Found:
    prefix = "hashicorp_key_management_"
    short = [
        f"{name}={instance.variables.get(prefix + name, '?')}"
        for name in ("cache_timeout", "cache_version_timeout")
        if number(instance.variables.get(prefix + name, "")) < mariadb.SEALED_DONOR_MILLISECONDS
    ]
    short += [
        f"{name}=OFF"
        for name in ("caching_enabled", "use_cache_on_timeout")
        if not instance.is_on(prefix + name)
    ]
    return (
        not short or prefix + "vault_url" not in instance.variables,
        f"too short or off: {', '.join(short)}" if short else "keys are cached for at least 1 h",
        "set hashicorp-key-management-cache-timeout and -cache-version-timeout to 86400000 with "
        "caching-enabled and use-cache-on-timeout: a Vault that seals would crash the donor",
    )
