"""What differs between kinds of server: flags, SQL, file names. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.flavors.mariadb import MariaDB
from orchestrator.flavors.mysql import MySQL

if TYPE_CHECKING:
    from orchestrator.config import HostConfig
    from orchestrator.flavors.interface import Dialect, Flavor
    from orchestrator.models import Plan, RunPlan

_FLAVORS: dict[str, Flavor] = {flavor.name: flavor for flavor in (MariaDB(), MySQL())}


def named(name: str) -> Flavor:
    """Return a flavor by its name."""
    return _FLAVORS[name]


def of(named: HostConfig | RunPlan) -> Flavor:
    """Return the flavor of a host, or of a run."""
    return _FLAVORS[named.flavor]


def dialect_of(plan: RunPlan) -> Dialect:
    """Return the SQL that donor and recipient of a run speak."""
    return of(plan).dialect(plan.server_version)


def source_dialect_of(plan: Plan) -> Dialect:
    """Return the SQL of the host that the replica of a run follows."""
    return of(plan).dialect(plan.source_version or plan.server_version)


def config_dir(host: HostConfig) -> str:
    """Return where a host's server reads drop-ins."""
    return host.server.config_dir or of(host).config_dir


def unit(host: HostConfig) -> str:
    """Return the systemd unit of a host's server."""
    return host.service.unit or of(host).unit


def tool_carries_keys(plan: RunPlan) -> bool:
    """Return whether the backup tool of a run carries keys, sealed under the transition key."""
    return plan.has_keyring and of(plan).carries_keys


def needs_transition_mount(plan: RunPlan) -> bool:
    """Return whether a run carries keys in a bundle of ours, and through a transition mount."""
    return plan.has_keyring and not of(plan).carries_keys
