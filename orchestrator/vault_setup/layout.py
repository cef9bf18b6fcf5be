"""The mounts of the configuration: whether they fit beside each other, and into a Vault."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.config import Config
    from orchestrator.vault import MountInfo

MAX_VERSIONS = 1000
"""Versions that a key mount keeps. Vault's default of 10 would drop page keys that are in use."""
OWN_KV_VERSION = 2
"""Of the mount of our own records."""
SSH_ENGINE = "ssh"


def check_config(config: Config) -> None:
    """Check that the mounts and names of the configuration can stand beside each other.

    Raises:
        ConfigError: With one problem per pair.
    """
    places = [
        ("vault.mount", config.vault.mount),
        ("vault.transition_mount", config.vault.transition_mount),
        ("vault.ssh_mount", config.vault.ssh_mount),
    ]
    places += [
        (f"hosts.{name}.vault_mount", host.vault_mount)
        for name, host in config.hosts.items()
        if host.vault_mount
    ]
    problems = []
    for index, (key, path) in enumerate(places):
        for other_key, other in places[:index]:
            if f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/"):
                problems.append(f"{key}: {path!r} and {other_key} {other!r} lie inside each other")
    names: dict[str, str] = {}
    for name in config.doors:
        table = "repositories" if name in config.repositories else "hosts"
        twin = names.setdefault(name.lower(), f"{table}.{name}")
        if twin != f"{table}.{name}":
            problems.append(f"{table}.{name}: differs from {twin} in case only, as policies do not")
    if problems:
        raise ConfigError(
            "the configuration does not fit into one Vault",
            hint="give each its own mount, none below another",
            problems=problems,
        )


def least_versions(config: Config, mount: str) -> int:
    """Return how many versions a KV mount must keep of a secret; 0: no matter."""
    # Our own records and master keys have one version each; only page keys need many.
    mounts = {host.key_mount for host in config.hosts.values() if host.flavor == "mariadb"}
    return MAX_VERSIONS if mount in mounts else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class KvMount:
    """A KV mount that is to be.

    Attributes:
        purpose: What it is for.
        version: Of the engine.
    """

    purpose: str
    version: int

    @property
    def engine(self) -> str:
        """The engine, as `name_engine` names the one that is there."""
        return f"kv version {self.version}"


def kv_mounts(config: Config) -> dict[str, KvMount]:
    """Return the KV mounts that are to be, by path."""
    purpose = "xbvault: transition keys and records"
    found = {config.vault.mount: KvMount(purpose=purpose, version=OWN_KV_VERSION)}
    for name, host in config.hosts.items():
        if host.key_mount:
            kind = "page" if host.flavor == "mariadb" else "master"
            found[host.key_mount] = KvMount(
                purpose=f"xbvault: {kind} keys of {name}", version=host.kv_version
            )
    return found


def name_engine(found: MountInfo) -> str:
    """Return the kind of an engine with its version, such as ``kv version 2``."""
    return f"{found.type} version {found.version}" if found.version else found.type


def find_problems(mounts: Mapping[str, MountInfo], config: Config) -> list[str]:
    """Return what stands in the way of the mounts that are to be.

    Args:
        mounts: What Vault has, from `Vault.list_mounts`.
        config: The whole configuration.
    """
    engines = {path: mount.engine for path, mount in kv_mounts(config).items()}
    engines[config.vault.ssh_mount] = SSH_ENGINE
    transition = config.vault.transition_mount
    problems = [
        f"{path}: is {name_engine(mounts[path])}, not {engine}"
        for path, engine in engines.items()
        if path in mounts and name_engine(mounts[path]) != engine
    ]
    problems += [
        f"{path}: lies inside the mount {other}"
        for path in (*engines, transition)
        for other in mounts
        if path.startswith(f"{other}/")
    ]
    problems += [
        f"{path}: the mount {other} lies inside it"
        for path in engines
        for other in mounts
        if other.startswith(f"{path}/")
    ]
    if transition in mounts:
        problems.append(f"{transition}: is a mount, and must be a prefix only")
    return problems
