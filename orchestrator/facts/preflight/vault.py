"""What must hold of Vault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import flavors
from orchestrator.facts.preflight.findings import has_keyring
from orchestrator.facts.survey import (
    keeps_versions,
    list_token_holders,
    needed_by_host,
    needed_capabilities,
    needed_for_restore,
)
from orchestrator.flavors import mysql_keyrings
from orchestrator.flavors.mysql_keyrings import KeyringKind
from orchestrator.privileges import vault as vault_rights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.config import Config, HostConfig
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.preflight.findings import Found, Request
    from orchestrator.facts.survey import Survey, VaultSurvey
    from orchestrator.vault import TokenInfo

OWN_KV_VERSION = 2
"""Of the mount of our own records."""


def judge_vault(survey: Survey, config: Config, request: Request) -> Iterator[tuple[str, Found]]:
    """Yield the findings about Vault and all tokens."""
    vault = survey.vault
    reason = vault.errors[0] if vault.errors else None
    yield "vault-readable", judge_readable_vault(vault, config)
    if vault.capabilities or (reason is None and vault.token is not None):
        yield "vault-capabilities", _judge_capabilities(survey, config, request)
    for host, capabilities in vault.host_capabilities.items():
        yield "vault-host-capabilities", _judge_host_capabilities(config, host, capabilities)
    if reason is not None or vault.token is None:
        return
    yield "vault-token", judge_token(vault.token)
    yield from _judge_mounts(survey, config, request)
    yield from _judge_host_tokens(survey, config, request)
    if request.set_host:
        return  # the keys come with the set
    donor_mount = config.host(request.donor).key_mount
    if donor_mount and config.host(request.recipient).key_mount:
        reads = "reads" if vault.recipient_reads_donor else "is refused on"
        yield (
            "vault-recipient-separate",
            (
                not vault.recipient_reads_donor,
                f"{request.recipient}'s token {reads} {donor_mount}",
                "give each host a policy for its own mount only",
            ),
        )
    instance = survey.donor.instance
    carries_keys = flavors.of(config.host(request.donor)).carries_keys
    if instance is not None and instance.has_keyring and not carries_keys:
        yield "vault-donor-keys", judge_donor_keys(vault, donor_mount)


def judge_readable_vault(vault: VaultSurvey, config: Config) -> Found:
    """Judge whether Vault answers, is unsealed, and takes the token."""
    reason = vault.errors[0] if vault.errors else None
    is_sealed = vault.health is None or vault.health.sealed
    return (
        reason is None and not is_sealed,
        reason.message
        if reason
        else f"Vault at {config.vault.address} is sealed"
        if is_sealed
        else "unsealed, token accepted",
        reason.hint if reason else "unseal it",
    )


def judge_token(token: TokenInfo) -> Found:
    """Judge whether the orchestrator's token lives long enough."""
    return (
        token.renewable or token.ttl_seconds == 0 or token.ttl_seconds > 24 * 3600,
        f"{token.ttl_seconds} s left, {'renewable' if token.renewable else 'not renewable'}",
        "give the orchestrator a periodic token",
    )


def judge_donor_keys(vault: VaultSurvey, mount: str) -> Found:
    """Judge whether the keys of a donor that has a keyring are where they are looked for."""
    return (
        bool(vault.donor_key_ids),
        f"{len(vault.donor_key_ids)} key ids in {mount}",
        "is hosts.*.vault_mount the mount that the donor's server uses?",
    )


def _judge_mounts(survey: Survey, config: Config, request: Request) -> Iterator[tuple[str, Found]]:
    vault = survey.vault
    for mount, kv_version in vault.kv_versions.items():
        yield "vault-mounts", judge_version(mount, kv_version, _wanted_version(config, mount))
    recipient = config.host(request.recipient)
    own_version = vault.kv_versions.get(recipient.key_mount, 0)
    host = survey.recipient.host
    if recipient.keyring.uses_vault and host and host.server_version and own_version:
        yield "vault-keyring-mount", judge_kv_version(host, recipient, own_version)
    if keeps_versions(config, request.recipient):
        kept = next(iter(vault.max_versions.values()), 0) or 10
        yield (
            "vault-max-versions",
            (
                kept >= 100,  # noqa: PLR2004 - fifty clones at two versions each
                f"the recipient's mount keeps {kept} versions",
                "raise max_versions to 1000 with `xbvault vault init`: a pruned key is lost data",
            ),
        )


def _judge_host_tokens(
    survey: Survey, config: Config, request: Request
) -> Iterator[tuple[str, Found]]:
    vault = survey.vault
    if has_keyring(survey) or request.set_host:
        sides = {request.donor: survey.donor, request.recipient: survey.recipient}
        donor = "" if request.set_host else request.donor
        for name in list_token_holders(config, donor, request.recipient):
            side = sides[name]
            if side.token_error is not None:
                yield (
                    "vault-host-token",
                    (
                        False,
                        f"{name}: {side.token_error.message}",
                        side.token_error.hint
                        or "write VAULT_TOKEN=… into hosts.*.vault_env_file on the host",
                    ),
                )
    for host, facts in vault.host_tokens.items():
        half = facts.period_seconds / 2
        yield (
            "vault-host-token",
            (
                facts.ttl_seconds == 0 or facts.ttl_seconds >= half,
                f"{host}: {facts.ttl_seconds} s left of {facts.period_seconds} s",
                "renew it (the key plugin never does): see the timer that `vault init` prints",
            ),
        )
        yield (
            "vault-host-reads-own",
            (
                vault.reads_own.get(host, False),
                f"{host}'s token {'reads' if vault.reads_own.get(host) else 'cannot read'} "
                f"{config.host(host).key_mount}",
                "write the host's policy again with `xbvault vault init`",
            ),
        )


def judge_mount(config: HostConfig, kv_version: int) -> Found:
    """Judge the mount of a host's keys by what the configuration says of it."""
    return judge_version(config.key_mount, kv_version, config.kv_version)


def judge_kv_version(host: HostFacts, config: HostConfig, kv_version: int) -> Found:
    """Judge whether a keyring in Vault can use the mount that is there.

    Args:
        host: Facts about the host.
        config: Its configuration.
        kv_version: Version of the KV engine at its mount.
    """
    kind = KeyringKind(config.keyring.kind)
    known = mysql_keyrings.list_kv_versions(kind, host.server_version)
    fits = kv_version in known
    return (
        fits,
        f"{kind.value} of {host.server_version} "
        + ("uses" if fits else "cannot use")
        + f" KV version {kv_version}, as {config.key_mount} is"
        + ("" if fits else ": it reports success and stores the key nowhere"),
        "set keyring.kv_version = 1 in hosts.*, and name a new vault_mount for `xbvault vault init` "
        "to make",
    )


def _wanted_version(config: Config, mount: str) -> int:
    """Return the version of the KV engine that a mount is to have."""
    found = [host.kv_version for host in config.hosts.values() if host.key_mount == mount]
    return found[0] if found else OWN_KV_VERSION


def judge_version(mount: str, kv_version: int, wanted: int = OWN_KV_VERSION) -> Found:
    """Judge whether a mount is there, with the version of the KV engine that is wanted."""
    if not kv_version:
        return False, f"{mount} is not there", "make it with `xbvault vault init`"
    fits = kv_version == wanted
    return (
        fits,
        f"{mount} is KV version {kv_version}" + ("" if fits else f", not {wanted}"),
        "name another mount for `xbvault vault init` to make; a keyring's can be said to be so in "
        "hosts.*.keyring.kv_version",
    )


def _judge_capabilities(survey: Survey, config: Config, request: Request) -> Found:
    if request.set_host:
        needed = needed_for_restore(config, request.recipient, request.run_id, request.backup_id)
        patterns = vault_rights.restore_rights(config, request.recipient)
    else:
        needed = needed_capabilities(
            config, request.donor, request.recipient, request.run_id, request.backup_id
        )
        patterns = vault_rights.clone_rights(config, request.donor, request.recipient)
    lacking = find_lacking(patterns, needed, survey.vault.capabilities)
    return (
        not lacking,
        f"the token lacks {'; '.join(lacking)}" if lacking else f"{len(needed)} paths",
        "write the orchestrator's policy again with `xbvault vault init`",
    )


def _judge_host_capabilities(
    config: Config, host: str, capabilities: dict[str, tuple[str, ...]]
) -> Found:
    needed = needed_by_host(config, host)
    lacking = find_lacking(vault_rights.host_rights(config, host), needed, capabilities)
    return (
        not lacking,
        f"{host}'s token lacks {'; '.join(lacking)}"
        if lacking
        else f"{host}'s token, on {len(needed)} paths",
        f"write the policy {vault_rights.policy_name(vault_rights.host_role(host))} again with "
        "`xbvault vault init`",
    )


def find_lacking(
    patterns: vault_rights.Rights,
    needed: vault_rights.Rights,
    found: dict[str, tuple[str, ...]],
) -> list[str]:
    """Return what a token lacks, by the path as the policy has it.

    Args:
        patterns: The policy.
        needed: The same with the paths that were asked for, in the same order.
        found: What Vault said about those.
    """
    return [
        f"{capability} on {pattern}"
        for pattern, (path, wanted) in zip(patterns, needed.items(), strict=True)
        for capability in wanted
        if not {capability, "root"} & set(found.get(path, ()))
    ]
