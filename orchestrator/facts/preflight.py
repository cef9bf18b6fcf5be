"""Judges a survey: may this clone begin? Pure, so that every finding can be tried without a host.

All problems are found at once. The names of the findings are fixed; they stand in
``docs/reference/checks.md``.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from orchestrator.errors import LockHeldError, OrchestratorError, PreconditionError, SecretError
from orchestrator.facts import hosts, layout
from orchestrator.facts.survey import needed_capabilities
from orchestrator.flavors import mariadb
from orchestrator.models import Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator.config import Config
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.instances import InstanceFacts
    from orchestrator.facts.survey import HostSurvey, Survey

MARGIN_BYTES = 200_000_000
"""Space beyond the copy: redo that grows while the stream runs, and the first start."""
VERSIONS_WRITTEN = 2
"""New key versions of one clone; one alone rotates nothing."""
LEAST_BINLOG_SECONDS = 3_600
ASSUMED_BYTES_PER_SECOND = 20_000_000
"""A slow wire, for the estimate of how long the binary logs must be kept."""
KV_VERSION = 2

Found = tuple[bool, str, str]
"""Whether it holds, the evidence, the hint when it does not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for.

    Attributes:
        donor: Host whose data is copied.
        recipient: Host that gets it.
        run_id: Name of the run.
        backup_id: Name of the backup set.
        replace: Set aside whatever datadir the recipient has.
        require_encryption: Refuse a donor without a keyring.
    """

    donor: str
    recipient: str
    run_id: str
    backup_id: str
    replace: bool
    require_encryption: bool


def judge(survey: Survey, config: Config, request: Request) -> tuple[Check, ...]:
    """Return every finding, good and bad, in a fixed order."""
    found: list[Check] = []
    for name, side in ((request.donor, survey.donor), (request.recipient, survey.recipient)):
        reason = side.errors[0] if side.errors else None
        found.append(
            Check(
                name="host-readable",
                host=name,
                ok=reason is None,
                evidence=reason.message if reason else "connected, host key known",
                hint=reason.hint if reason else "",
            )
        )
    donor, recipient = survey.donor.host, survey.recipient.host
    if donor:
        found += _named(request.donor, _judge_donor(donor, survey.donor, request))
        found += _named(request.donor, iter([("ssh-keepalive", _judge_keepalive(donor))]))
    if recipient:
        owner = config.host(request.recipient).server.owner
        judged = _judge_recipient(recipient, survey.recipient, request, owner=owner)
        found += _named(request.recipient, judged)
        found += _named(request.recipient, iter([("ssh-keepalive", _judge_keepalive(recipient))]))
        if _has_keyring(survey):
            mount = config.host(request.recipient).vault_mount
            keyring = _judge_recipient_keyring(recipient, mount, config.vault.transition_mount)
            found += _named(request.recipient, iter([("recipient-keyring", keyring)]))
    if donor and recipient:
        found += _named("", _judge_pair(survey, donor, recipient, config, request))
        receiver = _judge_receiver(recipient, request.recipient, survey.vault.ssh_ca)
        found += _named(request.recipient, iter([("receiver", receiver)]))
    found += _named(request.recipient, _judge_lock(survey, request))
    found += _named("", _judge_vault(survey, config, request))
    return tuple(found)


def judge_host(
    name: str, side: HostSurvey, *, ssh_ca: str, token_ok: bool | None
) -> tuple[Check, ...]:
    """Return the findings about one host by itself, for ``hosts check``.

    Args:
        name: The host.
        side: What it told.
        ssh_ca: Public key of the CA that its SSH server must trust; empty if not known.
        token_ok: Whether its own Vault token reads its own mount; None if that was not tried.
    """
    reason = side.errors[0] if side.errors else None
    found: list[tuple[str, Found]] = [
        (
            "host-readable",
            (
                reason is None,
                reason.message if reason else "connected, host key known",
                reason.hint if reason else "",
            ),
        )
    ]
    host = side.host
    if host is not None:
        found += [
            ("programs", _judge_programs(host, mariadb.PROGRAMS + mariadb.DONOR_PROGRAMS)),
            ("tool-version", _judge_tool(host)),
            ("ssh-keepalive", _judge_keepalive(host)),
            ("receiver", _judge_receiver(host, name, ssh_ca)),
            (
                "server",
                (
                    True,
                    f"{host.server_version or 'none'}, "
                    f"{'running' if host.is_running else 'not running'} in {host.datadir}",
                    "",
                ),
            ),
        ]
    if token_ok is not None:
        found.append(
            (
                "vault-host-token",
                (
                    token_ok,
                    "its own token reads its own mount"
                    if token_ok
                    else "its own token does not read its own mount",
                    "issue a token for the host again, see `xbvault vault init --help`",
                ),
            )
        )
    return tuple(_named(name, iter(found)))


def raise_for(checks: tuple[Check, ...], errors: Iterable[OrchestratorError] = ()) -> None:
    """Raise when a finding is bad, with all bad ones listed.

    Raises:
        RemoteError: A host could not be read (the class of the first such error).
        SecretError: Vault refused or lacks something.
        LockHeldError: Another run holds the recipient.
        PreconditionError: Anything else.
    """
    bad = [check for check in checks if not check.ok]
    if not bad:
        return
    problems = [describe(check) for check in bad]
    first = next(iter(errors), None)
    if first is not None:
        raise type(first)(
            first.message, host=first.host, hint=first.hint, problems=problems
        ) from first
    kinds: type[OrchestratorError] = PreconditionError
    # Of one machine under two names, all that Vault says of the pair only follows from that.
    is_pair = all(check.name != "different-hosts" for check in bad)
    if is_pair and any(check.name.startswith("vault-") for check in bad):
        kinds = SecretError
    if bad[0].name == "recipient-lock" and len(bad) == 1:
        kinds = LockHeldError
    count = len(bad)
    raise kinds(
        f"{bad[0].name}: {bad[0].evidence}" if count == 1 else f"{count} preconditions do not hold",
        host=bad[0].host if count == 1 else "",
        hint=bad[0].hint if count == 1 else "nothing was changed; mend these and begin again",
        problems=problems if count > 1 else (),
    )


def describe(check: Check) -> str:
    """Return a bad finding as one line with its hint."""
    where = f"{check.host}: " if check.host else ""
    hint = f" (hint: {check.hint})" if check.hint else ""
    return f"{where}{check.name}: {check.evidence}{hint}"


def _named(host: str, found: Iterator[tuple[str, Found]]) -> Iterator[Check]:
    for name, (ok, evidence, hint) in found:
        yield Check(name=name, host=host, ok=ok, evidence=evidence, hint="" if ok else hint)


def _judge_programs(host: HostFacts, names: tuple[str, ...]) -> Found:
    missing = [name for name in names if name not in host.programs]
    return (
        not missing,
        f"missing: {', '.join(missing)}" if missing else "all found",
        "install mariadb-server, mariadb-backup, pv, openssh-client, util-linux",
    )


def _judge_tool(host: HostFacts) -> Found:
    return (
        bool(host.server_version) and host.tool_version == host.server_version,
        f"server {host.server_version or '?'}, mariadb-backup {host.tool_version or '?'}",
        "install the mariadb-backup of the server's own version",
    )


def _judge_donor(
    host: HostFacts, side: HostSurvey, request: Request
) -> Iterator[tuple[str, Found]]:
    yield "programs", _judge_programs(host, mariadb.PROGRAMS + mariadb.DONOR_PROGRAMS)
    yield "tool-version", _judge_tool(host)
    instance = side.instance
    state = "no answer from the server in" if host.is_running else "no server runs in"
    yield (
        "donor-running",
        (
            instance is not None,
            "answers SQL" if instance else f"{state} {host.datadir}",
            "start the donor's server, or set socket or datadir in hosts.*.server",
        ),
    )
    if instance is None:
        return
    yield (
        "donor-keyring",
        (
            instance.has_keyring or not request.require_encryption,
            ", ".join(f"{k} {v}" for k, v in instance.encryption_plugins.items())
            or "no encryption plugin",
            "load hashicorp_key_management on the donor, or leave --require-encryption out",
        ),
    )
    yield (
        "donor-binlog",
        (
            instance.is_on("log_bin"),
            f"log_bin={instance.variables.get('log_bin', '?')}, "
            f"binlog_format={instance.variables.get('binlog_format', '?')}",
            "set log_bin on the donor: without it no replica can follow",
        ),
    )
    expected = max(host.datadir_bytes, instance.data_bytes)
    need = max(LEAST_BINLOG_SECONDS, 3 * expected / ASSUMED_BYTES_PER_SECOND)
    kept = instance.binlog_kept_seconds
    shown = "for ever" if math.isinf(kept) else f"{kept:.0f} s"
    yield (
        "binlog-retention",
        (
            kept >= need,
            f"kept {shown}, wanted {need:.0f} s",
            "raise binlog_expire_logs_seconds on the donor for the time of the clone",
        ),
    )
    if instance.has_keyring:
        yield "key-cache", _judge_key_cache(instance)
    skips = instance.is_on("skip_name_resolve")
    yield (
        "name-resolution",
        (
            skips or bool(side.peer_address),
            "skip_name_resolve is on"
            if skips
            else f"{request.recipient} is {side.peer_address or 'not resolved within 5 s'}",
            "set skip_name_resolve=ON on the donor, or give it a name service that answers: each "
            "connection of the replica would wait for it",
        ),
    )


def _judge_key_cache(instance: InstanceFacts) -> Found:
    prefix = "hashicorp_key_management_"
    short = [
        f"{name}={instance.variables.get(prefix + name, '?')}"
        for name in ("cache_timeout", "cache_version_timeout")
        if _number(instance.variables.get(prefix + name, "")) < mariadb.SEALED_DONOR_MILLISECONDS
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


def _judge_recipient(
    host: HostFacts, side: HostSurvey, request: Request, *, owner: str
) -> Iterator[tuple[str, Found]]:
    yield "programs", _judge_programs(host, mariadb.PROGRAMS)
    yield "tool-version", _judge_tool(host)
    yield (
        "recipient-datadir",
        (
            not host.has_data or request.replace,
            f"{host.datadir} has data" if host.has_data else f"{host.datadir} is free",
            "look at what it holds, then use --replace: it is set aside, not removed",
        ),
    )
    yield "recipient-server", _judge_recipient_server(host, side, request)
    problems = layout.list_problems(host, side.places, owner=owner)
    yield (
        "datadir-layout",
        (
            not problems,
            "; ".join(problems)
            or layout.describe(layout.make_layout(host, side.places, request.run_id), host),
            "mend these, or see docs/how-to/set-up-your-hosts.md for the layouts that can be swapped",
        ),
    )
    profile, denied = layout.list_denied(host, side.places)
    files = side.places.profile_files if side.places else ()
    yield (
        "apparmor",
        (
            not denied,
            f"the profile {profile} denies {', '.join(denied)}"
            if denied
            else f"the profile {profile} is in force, and lets the server write where it must"
            if profile
            else "no profile is in force for the server",
            f"allow `{(denied or ('',))[0]}/** rwk,` in {(files or ('the profile',))[-1]}, "
            "then load it again with apparmor_parser -r",
        ),
    )
    yield (
        "recipient-options",
        (
            mariadb.is_on(host.options.get("log_slave_updates", "")) and "log_bin" in host.options,
            f"log_bin={host.options.get('log_bin', 'off')}, "
            f"log_slave_updates={host.options.get('log_slave_updates', 'off')}",
            "set log_bin and log_slave_updates=ON, so that the replica can be a source later",
        ),
    )
    kept = (".xbvault-old-", "/.xbvault/old-")
    left = [path for path in host.siblings if not any(form in path for form in kept)]
    yield (
        "leftovers",
        (
            not any(request.run_id in path for path in left),
            ", ".join(left) if left else "none beside the datadir",
            "an earlier run of this name left them; look at `xbvault runs list`",
        ),
    )


def _judge_recipient_keyring(host: HostFacts, mount: str, transition_mount: str) -> Found:
    own_url = host.options.get("hashicorp_key_management_vault_url", "")
    if not any("hashicorp_key_management" in " ".join(pair) for pair in host.options.items()):
        return (
            False,
            "the options do not load hashicorp_key_management",
            "add plugin-load-add=hashicorp_key_management and its options on the recipient",
        )
    hint = f"set hashicorp-key-management-vault-url=…/v1/{mount} in the recipient's options"
    if f"/v1/{transition_mount}/" in own_url:
        run_id = own_url.rstrip("/").rpartition("/")[2].partition(".")[0]
        hint = f"a clone that has not ended left it so: `xbvault runs cancel {run_id}`"
    return (
        own_url.rstrip("/").endswith(f"/v1/{mount}"),
        f"vault url {own_url or 'not set'}, mount {mount}",
        hint,
    )


def _judge_recipient_server(host: HostFacts, side: HostSurvey, request: Request) -> Found:
    instance = side.instance
    if instance is None:
        return True, "no server runs", ""
    if instance.replicas:
        return (
            False,
            f"is a source: {', '.join(instance.replicas)} read its binary log",
            "move its replicas elsewhere first",
        )
    if not request.replace:
        return (
            False,
            f"a server runs in {host.datadir}",
            "use --replace to set it aside, if this is the host that you mean",
        )
    if not instance.is_on("read_only") and instance.user_schemas:
        return (
            False,
            f"a server that takes writes runs here ({instance.user_schemas} user schemas)",
            "set read_only=ON there first, if its data may be set aside",
        )
    return True, "a read-only or empty server runs; it is stopped just before the swap", ""


def _judge_pair(
    survey: Survey, donor: HostFacts, recipient: HostFacts, config: Config, request: Request
) -> Iterator[tuple[str, Found]]:
    yield (
        "different-hosts",
        (
            request.donor != request.recipient and not _is_same_machine(survey, request, config),
            f"{request.donor} and {request.recipient}",
            "donor and recipient must be two machines",
        ),
    )
    yield (
        "versions-match",
        (
            bool(donor.server_version) and donor.server_version == recipient.server_version,
            f"donor {donor.server_version or '?'}, recipient {recipient.server_version or '?'}",
            "install the donor's server version on the recipient",
        ),
    )
    donor_id = _server_id(survey.donor)
    recipient_id = _server_id(survey.recipient)
    yield (
        "server-ids",
        (
            donor_id != recipient_id,
            f"donor {donor_id}, recipient {recipient_id}",
            "give the recipient a server_id of its own",
        ),
    )
    yield "space", _judge_space(survey, donor, recipient)
    bound = config.clone.clock_skew_seconds
    late = [
        f"{host.name} {host.clock_offset_seconds:+.1f} s"
        for host in (donor, recipient)
        if abs(host.clock_offset_seconds) - host.clock_error_seconds > bound
    ]
    yield (
        "clocks",
        (
            not late,
            f"differ from here: {', '.join(late)}" if late else f"agree within {bound:g} s",
            "set the clocks right (chrony, ntp): certificates and tokens depend on them",
        ),
    )


def _judge_space(survey: Survey, donor: HostFacts, recipient: HostFacts) -> Found:
    data = survey.donor.instance.data_bytes if survey.donor.instance else 0
    need = max(data, donor.datadir_bytes) * 11 // 10 + MARGIN_BYTES
    short = recipient.parent_free_bytes < need
    where = "in" if recipient.is_mount_path else "beside"
    words = [
        f"{_size(recipient.parent_free_bytes)} free {where} {recipient.real_datadir}, "
        f"{_size(need)} wanted"
    ]
    instance = survey.recipient.instance
    values = instance.variables if instance else {}
    redo = int(_number(values.get("innodb_log_file_size", "0")))
    wanted: dict[int, int] = {}
    free: dict[int, tuple[str, int]] = {}
    for files in survey.recipient.places.files if survey.recipient.places else ():
        if files.real and files.filesystem != recipient.filesystem:
            more = layout.needed_bytes(files, survey.donor.places, redo)
            wanted[files.filesystem] = wanted.get(files.filesystem, 0) + more
            free[files.filesystem] = (files.real, files.free_bytes)
    for filesystem, more in wanted.items():
        path, there = free[filesystem]
        short = short or there < more
        words.append(f"{_size(there)} free in {path}, {_size(more)} wanted")
    return (
        not short,
        "; ".join(words),
        "free space on the filesystem of the recipient's datadir; the old datadir stays there",
    )


def _is_same_machine(survey: Survey, request: Request, config: Config) -> bool:
    donor, recipient = survey.donor.host, survey.recipient.host
    ours, theirs = config.host(request.donor), config.host(request.recipient)
    if ours.address and (ours.address, ours.ssh_port) == (theirs.address, theirs.ssh_port):
        return True
    return bool(
        donor
        and recipient
        and donor.datadir_inode
        and (donor.hostname, donor.datadir, donor.datadir_inode)
        == (recipient.hostname, recipient.datadir, recipient.datadir_inode)
    )


def _judge_receiver(recipient: HostFacts, name: str, ssh_ca: str) -> Found:
    installed = recipient.receiver_sha256
    problems = []
    if not installed:
        problems.append("/usr/local/sbin/xbvault-receive is not installed")
    elif installed != hosts.receiver_sha256():
        problems.append("/usr/local/sbin/xbvault-receive is of another version")
    elif recipient.receiver_owner.split() not in (["root", "755"], ["root", "555"]):
        problems.append(f"the receiver's owner and mode are {recipient.receiver_owner}")
    ca = ssh_ca.split()[:2]
    if ca and not any(line.split()[:2] == ca for line in recipient.trusted_cas):
        problems.append("its SSH server does not trust Vault's CA (TrustedUserCAKeys)")
    principal = f"xbvault-receive-{name}"
    options = [
        line.strip().removesuffix(principal)
        for line in recipient.principals
        if line.split()[-1:] == [principal]
    ]
    # The command may have words before the receiver: `sudo -n` for a login that is not root.
    if not any("restrict" in line and "/xbvault-receive" in line for line in options):
        problems.append(f"no line with restrict,command=… for the principal {principal}")
    return (
        not problems,
        "; ".join(problems) or "installed, and reachable by certificate only",
        "see docs/how-to/set-up-your-hosts.md",
    )


def _judge_keepalive(host: HostFacts) -> Found:
    interval = host.sshd.get("clientaliveinterval", "")
    return (
        _number(interval) > 0,
        f"ClientAliveInterval {interval or 'not shown by `sshd -T`'}",
        "set ClientAliveInterval 15 in sshd_config and reload sshd: without it, a connection that "
        "was cut on the way is waited on for ever",
    )


def _judge_lock(survey: Survey, request: Request) -> Iterator[tuple[str, Found]]:
    state = survey.lock
    if state is None:
        return
    taken = bool(state.run) and state.live and state.run != request.run_id
    yield (
        "recipient-lock",
        (
            not taken,
            f"run {state.run} of {state.holder} holds {request.recipient}" if taken else "free",
            "wait until that run has ended, or cancel it",
        ),
    )


def _judge_vault(survey: Survey, config: Config, request: Request) -> Iterator[tuple[str, Found]]:
    vault = survey.vault
    reason = vault.errors[0] if vault.errors else None
    yield (
        "vault-readable",
        (
            reason is None and vault.health is not None and not vault.health.sealed,
            reason.message
            if reason
            else f"Vault at {config.vault.address} is sealed"
            if vault.health is None or vault.health.sealed
            else "unsealed, token accepted",
            reason.hint if reason else "unseal it",
        ),
    )
    if reason is not None or vault.token is None:
        return
    token = vault.token
    yield (
        "vault-token",
        (
            token.renewable or token.ttl_seconds == 0 or token.ttl_seconds > 24 * 3600,
            f"{token.ttl_seconds} s left, {'renewable' if token.renewable else 'not renewable'}",
            "give the orchestrator a periodic token",
        ),
    )
    needed = needed_capabilities(
        config, request.donor, request.recipient, request.run_id, request.backup_id
    )
    lacking = [
        f"{capability} on {path}"
        for path, wanted in needed.items()
        for capability in wanted
        if not {capability, "root"} & set(vault.capabilities.get(path, ()))
    ]
    yield (
        "vault-capabilities",
        (
            not lacking,
            f"the token lacks {'; '.join(lacking)}" if lacking else f"{len(needed)} paths",
            "write the orchestrator's policy again with `xbvault vault init`",
        ),
    )
    for mount, kv_version in vault.kv_versions.items():
        yield (
            "vault-mounts",
            (
                kv_version == KV_VERSION,
                f"{mount} is {f'KV version {kv_version}' if kv_version else 'not there'}",
                "make it with `xbvault vault init`",
            ),
        )
    kept = next(iter(vault.max_versions.values()), 0) or 10
    yield (
        "vault-max-versions",
        (
            kept >= 100,  # noqa: PLR2004 - fifty clones at two versions each
            f"the recipient's mount keeps {kept} versions",
            "raise max_versions to 1000 with `xbvault vault init`: a pruned key is lost data",
        ),
    )
    if _has_keyring(survey):
        for name, side in ((request.donor, survey.donor), (request.recipient, survey.recipient)):
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
                f"{config.host(host).vault_mount}",
                "write the host's policy again with `xbvault vault init`",
            ),
        )
    donor_mount = config.host(request.donor).vault_mount
    yield (
        "vault-recipient-separate",
        (
            not vault.recipient_reads_donor,
            f"{request.recipient}'s token {'reads' if vault.recipient_reads_donor else 'is refused on'} "
            f"{donor_mount}",
            "give each host a policy for its own mount only",
        ),
    )
    instance = survey.donor.instance
    if instance is not None and instance.has_keyring:
        yield (
            "vault-donor-keys",
            (
                bool(vault.donor_key_ids),
                f"{len(vault.donor_key_ids)} key ids in {donor_mount}",
                "is hosts.*.vault_mount the mount that the donor's server uses?",
            ),
        )


def _has_keyring(survey: Survey) -> bool:
    return survey.donor.instance is not None and survey.donor.instance.has_keyring


def _server_id(side: HostSurvey) -> str:
    if side.instance:
        return side.instance.variables.get("server_id", "1")
    return side.host.options.get("server_id", "1") if side.host else "1"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
