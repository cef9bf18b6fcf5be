"""What must hold of any host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import flavors
from orchestrator.facts import hosts
from orchestrator.facts.preflight.findings import number
from orchestrator.flavors.interface import BACKUP_PROGRAMS, GROUP_PROGRAMS
from orchestrator.remote import sudo

if TYPE_CHECKING:
    from orchestrator.config import HostConfig
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.preflight.findings import Found


def judge_programs(host: HostFacts, config: HostConfig, others: tuple[str, ...] = ()) -> Found:
    """Judge whether the programs of a recipient are installed, and others."""
    flavor = flavors.of(config)
    names = (*flavor.programs(config).names, *others)
    missing = [name for name in names if name not in host.programs]
    of_packages = (*GROUP_PROGRAMS, *BACKUP_PROGRAMS)
    besides = "".join(f", {name}" for name in missing if name in of_packages)
    return (
        not missing,
        f"missing: {', '.join(missing)}" if missing else "all found",
        f"install {flavor.packages}{besides}; a name of your own goes into hosts.*.programs",
    )


def judge_tool(host: HostFacts, config: HostConfig) -> Found:
    """Judge whether the backup tool fits the server."""
    flavor = flavors.of(config)
    reason = flavor.judge_tool(host.server_version, host.tool_version)
    return (
        not reason,
        f"server {host.server_version or '?'}, {flavor.own.backup} {host.tool_version or '?'}",
        reason,
    )


def judge_keepalive(host: HostFacts) -> Found:
    """Judge whether the SSH server ends connections that were cut."""
    interval = host.sshd.get("clientaliveinterval", "")
    return (
        number(interval) > 0,
        f"ClientAliveInterval {interval or 'not shown by `sshd -T`'}",
        "set ClientAliveInterval 15 in sshd_config and reload sshd: without it, a connection that "
        "was cut on the way is waited on for ever",
    )


def judge_receiver(recipient: HostFacts, name: str, ssh_ca: str) -> Found:
    """Judge whether a recipient takes a stream, and from nobody but a run."""
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
    hint = "see docs/how-to/set-up-your-hosts.md"
    if recipient.receiver_refusal and any("sudo" in line for line in options):
        problems.append(
            f"{recipient.receive_user} cannot start it with sudo: {recipient.receiver_refusal}"
        )
        hint = f"it takes the line `{sudo.receiver_rule(recipient.receive_user)}` in sudoers"
    return (
        not problems,
        "; ".join(problems) or "installed, and reachable by certificate only",
        hint,
    )
