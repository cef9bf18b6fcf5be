"""The rules of sudo for logins that are not root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.remote import hops, sudo

if TYPE_CHECKING:
    from orchestrator.config import Config

ROOT = "root"
SUDOERS = "/etc/sudoers.d/xbvault"


def rules(config: Config, host: str) -> tuple[str, ...]:
    """Return the lines of a host's, or a repository's, sudoers; none where root itself logs in.

    Raises:
        ConfigError: The ssh configuration, which names the login where ours does not, is wrong.
        PreconditionError: There is no OpenSSH client to read it.
    """
    settings = config.door(host)
    lines = []
    if settings.become:
        named = settings.ssh_user
        login = named or hops.resolve_way(host, settings, config.ssh)[-1].user
        lines.append(sudo.control_rule(login))
    if settings.receive_user != ROOT:
        lines.append(sudo.receiver_rule(settings.receive_user))
    return tuple(lines)


def sudoers_text(config: Config, host: str) -> str:
    """Return the file of a host, empty where it needs none; see `rules`."""
    lines = rules(config, host)
    return "\n".join([f"# xbvault: {SUDOERS} on {host}", *lines, ""]) if lines else ""
