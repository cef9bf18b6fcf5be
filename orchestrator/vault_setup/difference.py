"""What is missing or different in Vault, and the writing of it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from typing import TYPE_CHECKING, Any

from orchestrator.errors import PreconditionError, VerificationError
from orchestrator.privileges import vault as vault_rights
from orchestrator.vault_setup import desired, layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.config import Config
    from orchestrator.vault import MountInfo, Vault


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """One thing in Vault that is not as it should be.

    Attributes:
        kind: ``mount``, ``mount-config``, ``policy``, ``token-role``, ``ssh-ca``, ``ssh-role``.
        path: What it is called in Vault.
        action: ``create`` or ``update``.
        detail: What will be written; of an update, what differs.
    """

    kind: str
    path: str
    action: str
    detail: str


@dataclasses.dataclass(frozen=True)
class _Item:
    """A change with the deed that brings it about."""

    change: Change
    write: Callable[[], None]


def plan_setup(vault: Vault, config: Config) -> tuple[Change, ...]:
    """Return what is missing or different in Vault, in the order in which it must be written.

    Args:
        vault: A connection with an administrator's token.
        config: The whole configuration.

    Raises:
        ConfigError: Mounts or names of the configuration get in each other's way.
        PreconditionError: Something else stands at one of the mounts; all are listed.
        SecretError: The token may not read it.
    """
    return tuple(item.change for item in _compare(vault, config))


def apply_setup(
    vault: Vault, config: Config, *, shown: tuple[Change, ...] | None = None
) -> tuple[Change, ...]:
    """Write what is missing or different, and read it back.

    Args:
        vault: A connection with an administrator's token.
        config: The whole configuration.
        shown: What `plan_setup` returned and a person agreed to.

    Returns:
        What was written; nothing the second time.

    Raises:
        ConfigError: Mounts or names of the configuration get in each other's way.
        PreconditionError: Something else stands at one of the mounts, or Vault has changed since
            the plan was shown; nothing was written.
        SecretError: The token may not write it.
        VerificationError: It was written, and reads differently.
    """
    items = _compare(vault, config)
    changes = tuple(item.change for item in items)
    if shown is not None and shown != changes:
        raise PreconditionError(
            "Vault has changed since the plan was shown", hint="look at the plan again"
        )
    for item in items:
        item.write()
    left = plan_setup(vault, config)
    if left:
        raise VerificationError(
            "Vault does not hold what was written",
            problems=[f"{change.kind} {change.path}: {change.detail}" for change in left],
        )
    return changes


def _compare(vault: Vault, config: Config) -> list[_Item]:
    layout.check_config(config)
    mounts = vault.list_mounts()
    problems = layout.find_problems(mounts, config)
    if problems:
        raise PreconditionError(
            "other things stand in Vault where xbvault's should be",
            hint="choose other mounts in the configuration; nothing was changed",
            problems=problems,
        )
    items = _compare_kv_mounts(vault, config, mounts)
    items += _compare_ssh(vault, config, mounts)
    for name, text in vault_rights.policies(config).items():
        items += _compare_policy(vault, name, text)
    for name, settings in desired.token_roles(config).items():
        items += _compare_settings(
            "token-role",
            f"auth/token/roles/{name}",
            settings,
            vault.read_token_role(name),
            functools.partial(vault.write_token_role, name, settings),
        )
    return items


def _create(kind: str, path: str, detail: str, write: Callable[[], None]) -> _Item:
    return _Item(Change(kind=kind, path=path, action="create", detail=detail), write)


def _update(kind: str, path: str, detail: str, write: Callable[[], None]) -> _Item:
    return _Item(Change(kind=kind, path=path, action="update", detail=detail), write)


def _compare_kv_mounts(
    vault: Vault, config: Config, mounts: Mapping[str, MountInfo]
) -> list[_Item]:
    items = []
    for path, wanted in layout.kv_mounts(config).items():
        least = layout.least_versions(config, path)
        if path not in mounts:
            detail = f"{wanted.engine}, max_versions {least}" if least else wanted.engine
            write = functools.partial(
                vault.create_kv_mount,
                path,
                version=wanted.version,
                description=wanted.purpose,
                max_versions=least,
            )
            items.append(_create("mount", path, detail, write))
            continue
        if wanted.version == 1:
            continue  # it keeps no versions, and has no configuration
        kept = vault.read_mount_config(path)
        if kept < least:
            write = functools.partial(vault.write_mount_config, path, max_versions=least)
            detail = f"max_versions {kept} -> {least}"
            items.append(_update("mount-config", f"{path}/config", detail, write))
    return items


def _compare_ssh(vault: Vault, config: Config, mounts: Mapping[str, MountInfo]) -> list[_Item]:
    path = config.vault.ssh_mount
    is_there = path in mounts
    items = []
    if not is_there:
        purpose = "xbvault: certificates for streams"
        write = functools.partial(vault.create_ssh_mount, path, description=purpose)
        items.append(_create("mount", path, layout.SSH_ENGINE, write))
    if not is_there or not vault.read_ssh_ca(path):
        write = functools.partial(vault.configure_ssh_ca, path)
        detail = "a key pair made by Vault, ed25519"
        items.append(_create("ssh-ca", f"{path}/config/ca", detail, write))
    for name, settings in desired.ssh_roles(config).items():
        items += _compare_settings(
            "ssh-role",
            f"{path}/roles/{name}",
            settings,
            vault.read_ssh_role(path, name) if is_there else None,
            functools.partial(vault.write_ssh_role, path, name, settings),
        )
    return items


def _compare_policy(vault: Vault, name: str, text: str) -> list[_Item]:
    path, write = f"sys/policies/acl/{name}", functools.partial(vault.write_policy, name, text)
    found = vault.read_policy(name)
    wanted = text.strip()
    if found is None:
        return [_create("policy", path, wanted, write)]
    if found.strip() == wanted:
        return []
    lines = difflib.unified_diff(
        found.strip().splitlines(), wanted.splitlines(), "now", "then", lineterm="", n=1
    )
    return [_update("policy", path, "\n".join(lines), write)]


def _compare_settings(
    kind: str,
    path: str,
    settings: Mapping[str, Any],
    found: Mapping[str, Any] | None,
    write: Callable[[], None],
) -> list[_Item]:
    if found is None:
        detail = ", ".join(f"{key}={value}" for key, value in settings.items() if value)
        return [_create(kind, path, detail, write)]
    differing = describe_difference(settings, found)
    return [_update(kind, path, differing, write)] if differing else []


def describe_difference(settings: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return the settings of a role that are not as they should be; empty if there is none."""
    return ", ".join(
        f"{key} {found.get(key)!r} -> {value!r}"
        for key, value in settings.items()
        # Vault answers null for what is empty.
        if found.get(key) != value and (found.get(key) or value)
    )
