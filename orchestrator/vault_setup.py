"""What Vault must hold for the hosts of the configuration: mounts, policies, roles, SSH CA.

`plan_setup` compares it with what is there, `apply_setup` writes the difference with an
administrator's token, and `check_setup` tells with the orchestrator's own token what it finds.
Names and texts come from pure functions, so that the how-to and ``vault init`` print the same.
No run ever writes any of this: with a right on policies or token roles, the orchestrator could
give itself the donor's keys.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import shlex
from typing import TYPE_CHECKING, Any

from orchestrator.errors import (
    ConfigError,
    PreconditionError,
    SecretError,
    SecretStoreUnavailableError,
    VerificationError,
)
from orchestrator.models import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.config import Config
    from orchestrator.models import Secret
    from orchestrator.vault import MountInfo, Vault

MAX_VERSIONS = 1000
"""Versions that a key mount keeps. Vault's default of 10 would drop page keys that are in use."""
TOKEN_PERIOD_SECONDS = 768 * 3600
"""Period of host and orchestrator tokens: Vault's default for the longest lease."""
RECEIVE_SECONDS = 300
"""Life of a stream certificate. It is checked at login only, so it need not outlive the stream."""
ORCHESTRATOR = "xbvault-orchestrator"
_SAMPLE = "xbvault-check"
_INIT_HINT = "`xbvault vault init` makes it so, with an administrator's token"
_SELF_RIGHTS = {
    "auth/token/lookup-self": ("read",),
    "auth/token/renew-self": ("update",),
    "sys/capabilities-self": ("update",),
}

Rights = dict[str, tuple[str, ...]]
"""Paths with their capabilities."""


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


def host_role(host: str) -> str:
    """Return the name of the policy and token role of a host's own token."""
    return f"xbvault-host-{host}"


def transition_role(host: str) -> str:
    """Return the name of the policy and token role for transition mounts of a recipient."""
    return f"xbvault-transition-{host}"


def receive_role(host: str) -> str:
    """Return the name of the SSH role, and of the one principal, for streams to a recipient."""
    return f"xbvault-receive-{host}"


def policy_name(role: str) -> str:
    """Return the name of a role's policy; Vault keeps policy names in lower case."""
    return role.lower()


def host_rights(config: Config, host: str) -> Rights:
    """Return what a host's own token may: read its own keys, nothing else."""
    mount = config.host(host).vault_mount
    return {f"{mount}/data/*": ("read",), f"sys/mounts/{mount}/tune": ("read",), **_SELF_RIGHTS}


def transition_rights(config: Config, host: str) -> Rights:
    """Return what a transition token may: read the recipient's own transition mounts.

    With a bare ``+`` for the recipient, one could read another's (tried).
    """
    prefix = f"{config.vault.transition_mount}/{host}/+"
    return {f"{prefix}/data/*": ("read",), f"sys/mounts/{prefix}/tune": ("read",), **_SELF_RIGHTS}


def orchestrator_rights(config: Config) -> Rights:
    """Return what the orchestrator's token may, and nothing on policies and token roles but read.

    In a host's own mount it adds versions and can delete nothing. It can destroy single versions
    there, because `runs forget` destroys those that no datadir needs any more; nothing else does.
    """
    own, transition, ssh = (
        config.vault.mount,
        config.vault.transition_mount,
        config.vault.ssh_mount,
    )
    rights: Rights = {
        f"{own}/data/*": ("create", "read", "update", "delete"),
        f"{own}/metadata": ("list",),
        f"{own}/metadata/*": ("create", "read", "update", "delete", "list"),
        f"{own}/destroy/*": ("create", "update"),
        f"{own}/config": ("read",),
        f"{transition}/*": ("create", "read", "update", "delete", "list"),
        "sys/mounts": ("read",),
        f"sys/mounts/{transition}/*": ("create", "read", "update", "delete"),
        f"{ssh}/config/ca": ("read",),
        "auth/token/lookup-accessor": ("update",),
        "auth/token/renew-accessor": ("update",),
        "auth/token/revoke-accessor": ("update",),
        **_SELF_RIGHTS,
    }
    for name, host in config.hosts.items():
        rights |= {
            f"{host.vault_mount}/data/*": ("create", "read", "update"),
            f"{host.vault_mount}/destroy/*": ("update",),
            f"{host.vault_mount}/metadata": ("list",),
            f"{host.vault_mount}/metadata/*": ("read", "list"),
            f"{host.vault_mount}/config": ("read",),
            f"sys/mounts/{host.vault_mount}/tune": ("read",),
            f"auth/token/create/{transition_role(name)}": ("create", "update"),
            f"auth/token/roles/{transition_role(name)}": ("read",),
            f"{ssh}/sign/{receive_role(name)}": ("create", "update"),
            f"{ssh}/roles/{receive_role(name)}": ("read",),
        }
    return rights


def policy_text(rights: Mapping[str, tuple[str, ...]], purpose: str) -> str:
    """Return a policy as Vault reads it."""
    blocks = [f"# xbvault: {purpose}"]
    for path, capabilities in rights.items():
        listed = ", ".join(f'"{capability}"' for capability in capabilities)
        blocks.append(f'path "{path}" {{\n  capabilities = [{listed}]\n}}')
    return "\n".join(blocks) + "\n"


def policies(config: Config) -> dict[str, str]:
    """Return the text of every policy by its name."""
    found = {
        ORCHESTRATOR: policy_text(
            orchestrator_rights(config), "the orchestrator; it writes no policy and no token role"
        )
    }
    for host in config.hosts:
        found[policy_name(host_role(host))] = policy_text(
            host_rights(config, host), f"the database server of {host}"
        )
        found[policy_name(transition_role(host))] = policy_text(
            transition_rights(config, host), f"{host} while it is being cloned"
        )
    return found


def token_roles(config: Config) -> dict[str, dict[str, Any]]:
    """Return the settings of every token role by its name; each is fixed to its one policy."""
    roles = {ORCHESTRATOR: _token_role(ORCHESTRATOR, TOKEN_PERIOD_SECONDS)}
    for host in config.hosts:
        roles[host_role(host)] = _token_role(policy_name(host_role(host)), TOKEN_PERIOD_SECONDS)
        roles[transition_role(host)] = _token_role(
            policy_name(transition_role(host)), config.clone.transition_token_seconds
        )
    return roles


def _token_role(policy: str, period_seconds: int) -> dict[str, Any]:
    return {
        "allowed_policies": [policy],
        "allowed_policies_glob": [],
        "disallowed_policies": [],
        "disallowed_policies_glob": [],
        "token_no_default_policy": True,
        "token_type": "service",
        "orphan": True,
        "renewable": True,
        "token_period": period_seconds,
        "token_explicit_max_ttl": 0,
    }


def ssh_roles(config: Config) -> dict[str, dict[str, Any]]:
    """Return the settings of every SSH role by its name; each signs its one principal."""
    return {receive_role(host): _ssh_role(receive_role(host)) for host in config.hosts}


def _ssh_role(principal: str) -> dict[str, Any]:
    # What a certificate can do is bounded on the recipient: its principals file says
    # `restrict,command="…"`. The role gives no extension, so that no other host would grant more.
    return {
        "key_type": "ca",
        "allow_user_certificates": True,
        "allow_host_certificates": False,
        "allowed_users": principal,
        "default_user": principal,
        "allowed_users_template": False,
        "allow_user_key_ids": False,
        "allowed_extensions": "",
        "default_extensions": {},
        "ttl": RECEIVE_SECONDS,
        "max_ttl": RECEIVE_SECONDS,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
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
    places += [(f"hosts.{name}.vault_mount", h.vault_mount) for name, h in config.hosts.items()]
    problems = []
    for index, (key, path) in enumerate(places):
        for other_key, other in places[:index]:
            if f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/"):
                problems.append(f"{key}: {path!r} and {other_key} {other!r} lie inside each other")
    names: dict[str, str] = {}
    for name in config.hosts:
        twin = names.setdefault(name.lower(), name)
        if twin != name:
            problems.append(
                f"hosts.{name}: differs from hosts.{twin} in case only, as policies do not"
            )
    if problems:
        raise ConfigError(
            "the configuration does not fit into one Vault",
            hint="give each its own mount, none below another",
            problems=problems,
        )


def _compare(vault: Vault, config: Config) -> list[_Item]:
    check_config(config)
    mounts = vault.list_mounts()
    problems = _mount_problems(mounts, config)
    if problems:
        raise PreconditionError(
            "other things stand in Vault where xbvault's should be",
            hint="choose other mounts in the configuration; nothing was changed",
            problems=problems,
        )
    items = _compare_kv_mounts(vault, config, mounts)
    items += _compare_ssh(vault, config, mounts)
    for name, text in policies(config).items():
        items += _compare_policy(vault, name, text)
    for name, settings in token_roles(config).items():
        items += _compare_settings(
            "token-role",
            f"auth/token/roles/{name}",
            settings,
            vault.read_token_role(name),
            functools.partial(vault.write_token_role, name, settings),
        )
    return items


def _least_versions(config: Config, mount: str) -> int:
    # Our own records have one version each; only page keys need many.
    return 0 if mount == config.vault.mount else MAX_VERSIONS


def _kv_mounts(config: Config) -> dict[str, str]:
    """Return the KV mounts with what each is for."""
    found = {config.vault.mount: "xbvault: transition keys and records"}
    for name, host in config.hosts.items():
        found[host.vault_mount] = f"xbvault: page keys of {name}"
    return found


def _mount_problems(mounts: Mapping[str, MountInfo], config: Config) -> list[str]:
    problems = []
    wanted = [*_kv_mounts(config), config.vault.ssh_mount]
    for path in wanted:
        found = mounts.get(path)
        ssh = path == config.vault.ssh_mount
        if found is not None and ssh and found.type != "ssh":
            problems.append(f"{path}: is {found.type}, not ssh")
        if found is not None and not ssh and (found.type, found.version) != ("kv", 2):
            version = f" version {found.version}" if found.version else ""
            problems.append(f"{path}: is {found.type}{version}, not kv version 2")
    for path in (*wanted, config.vault.transition_mount):
        problems += [
            f"{path}: lies inside the mount {other}"
            for other in mounts
            if path.startswith(f"{other}/")
        ]
    problems += [
        f"{path}: the mount {other} lies inside it"
        for path in wanted
        for other in mounts
        if other.startswith(f"{path}/")
    ]
    if config.vault.transition_mount in mounts:
        problems.append(f"{config.vault.transition_mount}: is a mount, and must be a prefix only")
    return problems


def _compare_kv_mounts(
    vault: Vault, config: Config, mounts: Mapping[str, MountInfo]
) -> list[_Item]:
    items = []
    for path, purpose in _kv_mounts(config).items():
        least = _least_versions(config, path)
        if path not in mounts:
            kept = f", max_versions {least}" if least else ""
            items.append(
                _Item(
                    change=Change(
                        kind="mount", path=path, action="create", detail=f"kv version 2{kept}"
                    ),
                    write=functools.partial(
                        vault.create_kv_mount, path, description=purpose, max_versions=least
                    ),
                )
            )
            continue
        kept_now = vault.read_mount_config(path)
        if kept_now < least:
            items.append(
                _Item(
                    change=Change(
                        kind="mount-config",
                        path=f"{path}/config",
                        action="update",
                        detail=f"max_versions {kept_now} -> {least}",
                    ),
                    write=functools.partial(vault.write_mount_config, path, max_versions=least),
                )
            )
    return items


def _compare_ssh(vault: Vault, config: Config, mounts: Mapping[str, MountInfo]) -> list[_Item]:
    path = config.vault.ssh_mount
    there = path in mounts
    items = []
    if not there:
        items.append(
            _Item(
                change=Change(kind="mount", path=path, action="create", detail="ssh"),
                write=functools.partial(
                    vault.create_ssh_mount, path, description="xbvault: certificates for streams"
                ),
            )
        )
    if not there or not vault.read_ssh_ca(path):
        items.append(
            _Item(
                change=Change(
                    kind="ssh-ca",
                    path=f"{path}/config/ca",
                    action="create",
                    detail="a key pair made by Vault, ed25519",
                ),
                write=functools.partial(vault.configure_ssh_ca, path),
            )
        )
    for name, settings in ssh_roles(config).items():
        items += _compare_settings(
            "ssh-role",
            f"{path}/roles/{name}",
            settings,
            vault.read_ssh_role(path, name) if there else None,
            functools.partial(vault.write_ssh_role, path, name, settings),
        )
    return items


def _compare_policy(vault: Vault, name: str, text: str) -> list[_Item]:
    found = vault.read_policy(name)
    if found is not None and found.strip() == text.strip():
        return []
    detail = text.strip()
    if found is not None:
        lines = difflib.unified_diff(
            found.strip().splitlines(), detail.splitlines(), "now", "then", lineterm="", n=1
        )
        detail = "\n".join(lines)
    change = Change(
        kind="policy",
        path=f"sys/policies/acl/{name}",
        action="create" if found is None else "update",
        detail=detail,
    )
    return [_Item(change=change, write=functools.partial(vault.write_policy, name, text))]


def _compare_settings(
    kind: str,
    path: str,
    settings: Mapping[str, Any],
    found: Mapping[str, Any] | None,
    write: Callable[[], None],
) -> list[_Item]:
    if found is None:
        detail = ", ".join(f"{key}={value}" for key, value in settings.items() if value)
        return [
            _Item(change=Change(kind=kind, path=path, action="create", detail=detail), write=write)
        ]
    differing = [
        f"{key} {found.get(key)!r} -> {value!r}"
        for key, value in settings.items()
        if not _is_same(found.get(key), value)
    ]
    if not differing:
        return []
    detail = ", ".join(differing)
    return [_Item(change=Change(kind=kind, path=path, action="update", detail=detail), write=write)]


def _is_same(found: Any, wanted: Any) -> bool:
    # Vault answers null for what is empty.
    return found == wanted or (not found and not wanted)


def issue_host_token(vault: Vault, host: str) -> Secret:
    """Return a new periodic token that reads the host's own mount and nothing else.

    Args:
        vault: A connection with an administrator's token.
        host: Name of the host.
    """
    token, _accessor = vault.create_token(host_role(host))
    return token


def issue_orchestrator_token(vault: Vault) -> Secret:
    """Return a new periodic token for the orchestrator.

    Args:
        vault: A connection with an administrator's token.
    """
    token, _accessor = vault.create_token(ORCHESTRATOR)
    return token


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
    check_config(config)
    checks = [_check_health(vault), _check_token(vault)]
    checks.append(_check_capabilities(vault, orchestrator_rights(config)))
    mounts = vault.list_mounts() if vault.can_read("sys/mounts") else {}
    checks += [_check_kv_mount(vault, config, path, mounts) for path in _kv_mounts(config)]
    checks.append(_check_ssh_ca(vault, config.vault.ssh_mount))
    for host in config.hosts:
        checks.append(
            _check_role(
                "vault-token-role",
                host,
                f"auth/token/roles/{transition_role(host)}",
                token_roles(config)[transition_role(host)],
                functools.partial(vault.read_token_role, transition_role(host)),
            )
        )
        checks.append(
            _check_role(
                "vault-ssh-role",
                host,
                f"{config.vault.ssh_mount}/roles/{receive_role(host)}",
                ssh_roles(config)[receive_role(host)],
                functools.partial(vault.read_ssh_role, config.vault.ssh_mount, receive_role(host)),
            )
        )
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
        hint=f"issue one from the token role {ORCHESTRATOR}",
    )


def missing_capabilities(vault: Vault, rights: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
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


def _check_capabilities(vault: Vault, rights: Rights) -> Check:
    missing = missing_capabilities(vault, rights)
    return Check(
        name="vault-capabilities",
        ok=not missing,
        evidence=f"missing {'; '.join(missing)}" if missing else f"all, on {len(rights)} paths",
        hint=_INIT_HINT,
    )


def _check_kv_mount(
    vault: Vault, config: Config, path: str, mounts: Mapping[str, MountInfo]
) -> Check:
    found = mounts.get(path)
    least = _least_versions(config, path)
    ok = False
    if found is None:
        evidence = f"{path}: no mount"
    elif (found.type, found.version) != ("kv", 2):
        version = f" version {found.version}" if found.version else ""
        evidence = f"{path}: {found.type}{version}, not kv version 2"
    else:
        try:
            kept = vault.read_mount_config(path)
        except SecretStoreUnavailableError:
            raise
        except SecretError as error:
            return Check(name="vault-mount", ok=False, evidence=error.message, hint=error.hint)
        ok = kept >= least
        needed = "" if ok else f", needs {least}"
        evidence = f"{path}: kv version 2, max_versions {kept}{needed}"
    return Check(name="vault-mount", ok=ok, evidence=evidence, hint=_INIT_HINT)


def _check_ssh_ca(vault: Vault, path: str) -> Check:
    try:
        key = vault.read_ssh_ca(path)
    except SecretStoreUnavailableError:
        raise
    except SecretError as error:
        return Check(name="vault-ssh-ca", ok=False, evidence=error.message, hint=error.hint)
    evidence = f"{path}: {key.split()[0]}" if key else f"{path}: no CA key yet"
    return Check(name="vault-ssh-ca", ok=bool(key), evidence=evidence, hint=_INIT_HINT)


def _check_role(
    name: str,
    host: str,
    path: str,
    settings: Mapping[str, Any],
    read: Callable[[], dict[str, Any] | None],
) -> Check:
    try:
        found = read()
    except SecretStoreUnavailableError:
        raise
    except SecretError as error:
        return Check(name=name, host=host, ok=False, evidence=error.message, hint=error.hint)
    left = _compare_settings(name, path, settings, found, lambda: None)
    evidence = f"{path}: as it should be"
    if found is None:
        evidence = f"{path}: not there"
    elif left:
        evidence = f"{path}: {left[0].change.detail}"
    return Check(name=name, host=host, ok=not left, evidence=evidence, hint=_INIT_HINT)


RENEW_SCRIPT = "/usr/local/sbin/xbvault-renew-token"

_RENEW_SCRIPT = r"""#!/bin/sh
# Renews the Vault token of this host's database server; its key plugin never does.
# printf is a builtin: the token stands in no command line.
set -eu
file={file}
token=$(sed -n 's/^[[:space:]]*VAULT_TOKEN=//p' "$file" | tail -n 1 | tr -d "\"' \t\r")
if [ -z "$token" ]; then
    echo "{name}: no VAULT_TOKEN in $file" >&2
    exit 1
fi
printf 'header = "X-Vault-Token: %s"\n' "$token" |
    {curl}
"""

_RENEW_SERVICE = """\
[Unit]
Description=Renew the Vault token of the database server
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={name}
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=yes
"""

_RENEW_TIMER = """\
[Unit]
Description=Renew the Vault token of the database server each day

[Timer]
OnBootSec=5min
OnCalendar=daily
RandomizedDelaySec=1h
Persistent=yes

[Install]
WantedBy=timers.target
"""


def render_renewal(config: Config, host: str, *, vault_address: str = "") -> dict[str, str]:
    """Return the files that renew a host's own token each day, by their paths on the host.

    The server's key plugin never renews its token. The script takes it from the file that the
    server has it from, and gives it to curl by stdin, so that it stands in no command line.

    Args:
        config: The whole configuration.
        host: Name of the host.
        vault_address: Vault as the host reaches it, where the configuration does not say.

    Raises:
        ConfigError: No such host, or nothing says where Vault is.
    """
    found = config.host(host)
    address = found.vault_address or config.vault.address or vault_address
    if not address:
        raise ConfigError("no Vault address", hint="set vault.address or VAULT_ADDR")
    curl = ["curl", "--config", "-", "--silent", "--show-error", "--fail", "--max-time", "30"]
    curl += ["--retry", "5", "--retry-connrefused", "--request", "POST", "--output", "/dev/null"]
    if found.vault_ca_file:
        curl += ["--cacert", found.vault_ca_file]
    if config.vault.namespace:
        curl += ["--header", f"X-Vault-Namespace: {config.vault.namespace}"]
    curl.append(f"{address.rstrip('/')}/v1/auth/token/renew-self")
    script = _RENEW_SCRIPT.format(
        file=shlex.quote(found.vault_env_file), curl=shlex.join(curl), name=RENEW_SCRIPT
    )
    return {
        RENEW_SCRIPT: script,
        "/etc/systemd/system/xbvault-renew-token.service": _RENEW_SERVICE.format(name=RENEW_SCRIPT),
        "/etc/systemd/system/xbvault-renew-token.timer": _RENEW_TIMER,
    }
