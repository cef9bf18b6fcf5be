"""A survey in which everything is as a clone needs it, and ways to make one thing bad."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any

from orchestrator import config as config_module
from orchestrator import wire
from orchestrator.facts import hosts
from orchestrator.facts.accounts import Account
from orchestrator.facts.hosts import HostFacts
from orchestrator.facts.instances import InstanceFacts
from orchestrator.facts.preflight import Request
from orchestrator.facts.survey import (
    Connection,
    HostSurvey,
    Survey,
    VaultSurvey,
    needed_by_host,
    needed_capabilities,
)
from orchestrator.flavors import mariadb
from orchestrator.flavors.interface import DONOR_PROGRAMS
from orchestrator.lock import LockState
from orchestrator.models import Secret
from orchestrator.privileges import database
from orchestrator.vault import Health, TokenInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

CA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEx4YW1wbGVDYUtleU9mVGhlVGVzdHM0Mjo2Mjo3"
REQUEST = Request(
    donor="db1",
    recipient="db2",
    run_id="20261121T210500Z-db2-1d4e77c0",
    backup_id="20261121T210500Z-db1-6f2c09ab",
    replace=False,
    require_encryption=True,
)
CONFIG = config_module.parse(
    {
        "vault": {"address": "https://vault.example:8200"},
        "hosts": {
            "db1": {"address": "192.0.2.1", "vault_mount": "keys/db1"},
            "db2": {"address": "192.0.2.2", "vault_mount": "keys/db2"},
        },
    }
)


def make_host(name: str, **changes: Any) -> HostFacts:
    """Return the facts of a host with everything installed; ``db1`` has a running server."""
    is_donor = name == "db1"
    facts = HostFacts(
        name=name,
        hostname=name,
        programs={
            p: f"/usr/bin/{p}"
            for p in (
                *mariadb.MariaDB.own.names,
                *DONOR_PROGRAMS,
                *wire.POLITE_PROGRAMS,
                wire.ZSTD,
            )
        },
        server_version="10.11.19",
        tool_version="10.11.19",
        options={
            "server_id": name.removeprefix("db"),
            "log_bin": "bin",
            "log_slave_updates": "ON",
            "plugin_load_add": "hashicorp_key_management.so",
            "hashicorp_key_management_vault_url": f"https://vault.example:8200/v1/keys/{name}",
        },
        clock_offset_seconds=0.2,
        clock_error_seconds=0.05,
        memory_available_bytes=8_000_000_000,
        cpus=4,
        datadir="/var/lib/mysql",
        real_datadir="/var/lib/mysql",
        has_data=is_donor,
        is_mount_path=False,
        is_symlink=False,
        datadir_inode=1000 if is_donor else 2000,
        datadir_owner="mysql:mysql",
        datadir_mode="700",
        server_pids=(4711,) if is_donor else (),
        parent_free_bytes=100_000_000_000,
        siblings=(),
        receiver_sha256=hosts.receiver_sha256(),
        receiver_owner="root 755",
        datadir_bytes=5_000_000_000 if is_donor else 0,
        sshd={"clientaliveinterval": "5"},
        trusted_cas=(CA,),
        principals=(
            'restrict,command="/usr/local/sbin/xbvault-receive \\"$SSH_ORIGINAL_COMMAND\\"" '
            f"xbvault-receive-{name}",
        ),
        has_aes=True,
    )
    return dataclasses.replace(facts, **changes)


def make_instance(
    server_id: str = "1", *, variables: dict[str, str] | None = None, **changes: Any
) -> InstanceFacts:
    """Return the facts of a running server that is encrypted and writes a binary log."""
    prefix = "hashicorp_key_management_"
    facts = InstanceFacts(
        variables={
            "version": "10.11.19-MariaDB-0+deb12u1-log",
            "datadir": "/var/lib/mysql/",
            "server_id": server_id,
            "read_only": "OFF",
            "log_bin": "ON",
            "log_bin_basename": "/var/lib/mysql/bin",
            "relay_log_basename": "/var/lib/mysql/relay",
            "innodb_data_home_dir": "",
            "innodb_undo_directory": "./",
            "innodb_log_group_home_dir": "./",
            "aria_log_dir_path": "/var/lib/mysql/",
            "binlog_format": "ROW",
            "binlog_expire_logs_seconds": "604800",
            "expire_logs_days": "7.000000",
            "skip_name_resolve": "OFF",
            f"{prefix}vault_url": f"https://vault.example:8200/v1/keys/db{server_id}/",
            f"{prefix}caching_enabled": "ON",
            f"{prefix}cache_timeout": "86400000",
            f"{prefix}cache_version_timeout": "86400000",
            f"{prefix}use_cache_on_timeout": "ON",
            **(variables or {}),
        },
        data_bytes=4_000_000_000,
        user_schemas=3,
        encryption_plugins={"hashicorp_key_management": "ACTIVE"},
        replicas=(),
        is_replica=False,
    )
    return dataclasses.replace(facts, **changes)


def make_account(
    user: str, privileges: Iterable[str], *, without: str = "", host: str = "localhost"
) -> Account:
    """Return an account of a server with all of some privileges but one."""
    return Account(user=user, host=host, privileges=frozenset(privileges) - {without})


def make_token(**changes: Any) -> TokenInfo:
    """Return a periodic token with most of its life left."""
    facts = TokenInfo(
        ttl_seconds=2_000_000,
        period_seconds=2_764_800,
        renewable=True,
        accessor="accessor",
        policies=("default",),
        expires=1.8e9,
    )
    return dataclasses.replace(facts, **changes)


def make_health(*, sealed: bool = False) -> Health:
    """Return what a Vault in service says of itself."""
    return Health(
        initialized=True,
        sealed=sealed,
        standby=False,
        version="2.7.2",
        server_time=dt.datetime(2026, 11, 21, 21, 5, tzinfo=dt.UTC),
    )


def make_survey() -> Survey:
    """Return a survey in which every finding is good."""
    needed = needed_capabilities(
        CONFIG, REQUEST.donor, REQUEST.recipient, REQUEST.run_id, REQUEST.backup_id
    )
    return Survey(
        donor=HostSurvey(
            host=make_host("db1"),
            instance=make_instance("1"),
            token=Secret("s.tokenOfTheDonorInTests01"),
            peer_address="192.0.2.2",
            errors=(),
            account=make_account("xbvault_donor", database.DONOR),
        ),
        recipient=HostSurvey(
            host=make_host("db2"),
            instance=None,
            token=Secret("s.tokenOfTheRecipientTests"),
            peer_address="192.0.2.1",
            errors=(),
        ),
        vault=VaultSurvey(
            health=make_health(),
            token=make_token(),
            capabilities=dict(needed),
            kv_versions={"xbvault": 2, "keys/db1": 2, "keys/db2": 2},
            max_versions={"keys/db2": 1000},
            host_tokens={"db1": make_token(), "db2": make_token()},
            reads_own={"db1": True, "db2": True},
            recipient_reads_donor=False,
            ssh_ca=CA,
            donor_key_ids=("1", "2"),
            errors=(),
            host_capabilities={name: needed_by_host(CONFIG, name) for name in ("db1", "db2")},
        ),
        lock=LockState(run="", holder="", fence=3, live=False, changed_by="", changed_fence=0),
        arriving=make_account("xbvault_recipient", database.RECIPIENT),
        connection=Connection(),
    )


def change(survey: Survey, path: str, **changes: Any) -> Survey:
    """Return a survey with something changed.

    Args:
        survey: The survey.
        path: Which part, such as ``donor.host``; empty for the survey itself.
        **changes: Fields of that part, and their new values.
    """
    changed: Survey = _change(survey, path.split(".") if path else [], changes)
    return changed


def _change(part: Any, path: list[str], changes: dict[str, Any]) -> Any:
    if path:
        changes = {path[0]: _change(getattr(part, path[0]), path[1:], changes)}
    return dataclasses.replace(part, **changes)
