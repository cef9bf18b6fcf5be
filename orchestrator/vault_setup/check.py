"""What the orchestrator's own token finds in Vault, told as checks."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from orchestrator.errors import SecretError, SecretStoreUnavailableError
from orchestrator.models import Check
from orchestrator.privileges import vault as vault_rights
from orchestrator.vault_setup import desired, layout
from orchestrator.vault_setup.difference import describe_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.config import Config
    from orchestrator.vault import MountInfo, Vault

_SAMPLE = "xbvault-check"
_INIT_HINT = "`xbvault vault init` makes it so, with an administrator's token"


def check_setup(vault: Vault, config: Config) -> tuple[Check, ...]:
    """Return what can be told with the orchestrator's own token.

    Args:
        vault: A connection with the orchestrator's token.
        config: The whole configuration.

    Raises:
        ConfigError: Mounts or names of the configuration get in each other's way.
        SecretStoreUnavailableError: Vault is sealed or cannot be reached.
        SecretError: It is not initialized, its certificate is not trusted, or it does not know
            the token.
    """
    layout.check_config(config)
    rights = vault_rights.orchestrator_rights(config)
    checks = [_check_health(vault), _check_token(vault), _check_capabilities(vault, rights)]
    mounts = vault.list_mounts() if vault.can_read("sys/mounts") else {}
    for path, wanted in layout.kv_mounts(config).items():
        found, least = mounts.get(path), layout.least_versions(config, path)
        ask = functools.partial(_ask_kv_mount, vault, path, found, wanted.engine, least)
        checks.append(_tell("vault-mount", ask))
    ssh = config.vault.ssh_mount
    checks.append(_tell("vault-ssh-ca", functools.partial(_ask_ssh_ca, vault, ssh)))
    token_roles, ssh_roles = desired.token_roles(config), desired.ssh_roles(config)
    for door in config.doors:
        name = vault_rights.transition_role(door)
        if name in token_roles:
            ask = functools.partial(
                _ask_role,
                f"auth/token/roles/{name}",
                token_roles[name],
                functools.partial(vault.read_token_role, name),
            )
            checks.append(_tell("vault-token-role", ask, door))
        name = vault_rights.receive_role(door)
        ask = functools.partial(
            _ask_role,
            f"{ssh}/roles/{name}",
            ssh_roles[name],
            functools.partial(vault.read_ssh_role, ssh, name),
        )
        checks.append(_tell("vault-ssh-role", ask, door))
    return tuple(checks)


def _check_health(vault: Vault) -> Check:
    health = vault.read_health()
    if not health.initialized:
        raise SecretError(f"Vault at {vault.address} is not initialized", hint="initialize it")
    if health.sealed:
        raise SecretStoreUnavailableError(
            f"Vault at {vault.address} is sealed", hint="unseal it, then try again"
        )
    state = "standby" if health.standby else "active"
    return Check(
        name="vault-health",
        ok=True,
        evidence=f"{vault.address}: version {health.version}, unsealed, {state}",
    )


def _check_token(vault: Vault) -> Check:
    token = vault.lookup_token()
    life = f"{token.ttl_seconds} s left" if token.expires else "never ends"
    period = f", period {token.period_seconds} s" if token.period_seconds else ""
    renewable = "renewable" if token.renewable else "not renewable"
    return Check(
        name="vault-token",
        ok=token.renewable or not token.expires,
        evidence=f"{life}{period}, {renewable}, policies {', '.join(token.policies)}",
        hint=f"issue one from the token role {vault_rights.ORCHESTRATOR}",
    )


def find_missing_capabilities(vault: Vault, rights: vault_rights.Rights) -> tuple[str, ...]:
    """Return what a token lacks, such as ``xbvault/data/*: delete``.

    Args:
        vault: A connection with the token.
        rights: What it must be allowed; a pattern is asked for by one path that it covers.
    """
    samples = {path: path.replace("+", _SAMPLE).replace("*", _SAMPLE) for path in rights}
    found = vault.read_capabilities(tuple(samples.values()))
    missing = []
    for path, capabilities in rights.items():
        has = found[samples[path]]
        lacking = [c for c in capabilities if c not in has and "root" not in has]
        if lacking:
            missing.append(f"{path}: {', '.join(lacking)}")
    return tuple(missing)


def _check_capabilities(vault: Vault, rights: vault_rights.Rights) -> Check:
    missing = find_missing_capabilities(vault, rights)
    return Check(
        name="vault-capabilities",
        ok=not missing,
        evidence=f"missing {'; '.join(missing)}" if missing else f"all, on {len(rights)} paths",
        hint=_INIT_HINT,
    )


def _tell(name: str, ask: Callable[[], tuple[bool, str]], host: str = "") -> Check:
    """Return a check; where Vault refuses the answer, its refusal is the evidence."""
    hint = _INIT_HINT
    try:
        ok, evidence = ask()
    except SecretStoreUnavailableError:
        raise
    except SecretError as error:
        ok, evidence, hint = False, error.message, error.hint
    return Check(name=name, host=host, ok=ok, evidence=evidence, hint=hint)


def _ask_kv_mount(
    vault: Vault, path: str, found: MountInfo | None, wanted: str, least: int
) -> tuple[bool, str]:
    if found is None:
        return False, f"{path}: no mount"
    engine = layout.name_engine(found)
    if engine != wanted:
        return False, f"{path}: {engine}, not {wanted}"
    if not least:
        return True, f"{path}: {engine}"
    kept = vault.read_mount_config(path)
    needed = "" if kept >= least else f", needs {least}"
    return kept >= least, f"{path}: {engine}, max_versions {kept}{needed}"


def _ask_ssh_ca(vault: Vault, path: str) -> tuple[bool, str]:
    key = vault.read_ssh_ca(path)
    return bool(key), f"{path}: {key.split()[0]}" if key else f"{path}: no CA key yet"


def _ask_role(
    path: str, settings: Mapping[str, Any], read: Callable[[], dict[str, Any] | None]
) -> tuple[bool, str]:
    found = read()
    if found is None:
        return False, f"{path}: not there"
    differing = describe_difference(settings, found)
    return not differing, f"{path}: {differing or 'as it should be'}"
