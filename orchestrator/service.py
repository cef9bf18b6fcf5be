"""Starts and stops the server of a host: by systemd, or by the commands that the host names.

While a run needs it, the server gets the transition token through an environment file on tmpfs
that is read after its own: under systemd by a drop-in in ``/run/systemd``, otherwise because the
start command sources it. A reboot clears both.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from orchestrator import flavors

if TYPE_CHECKING:
    from orchestrator.config import HostConfig
    from orchestrator.remote import Remote

DROP_IN = "/run/systemd/system/{unit}.service.d/xbvault.conf"


def start_server(remote: Remote, host: HostConfig, *, timeout_seconds: float) -> None:
    """Start the server and wait until its start command says that it runs.

    Raises:
        CommandError: It did not start; ``stderr`` has the command's last words.
    """
    command = list(host.service.start) or ["systemctl", "start", flavors.unit(host)]
    remote.run(command, timeout_seconds=timeout_seconds)


def stop_server(remote: Remote, host: HostConfig, *, timeout_seconds: float) -> None:
    """Stop the server and wait until it has ended.

    Raises:
        CommandError: It did not stop.
    """
    command = list(host.service.stop) or ["systemctl", "stop", flavors.unit(host)]
    remote.run(command, timeout_seconds=timeout_seconds)


def give_environment(remote: Remote, host: HostConfig, source: str) -> None:
    """Let the server's next start read the environment file `source` (on tmpfs) last."""
    target = host.service.environment_file
    remote.run(["install", "-D", "-m", "0600", "--", source, target])
    if not host.service.start:
        path = DROP_IN.format(unit=flavors.unit(host))
        remote.run(["install", "-d", "-m", "0755", "--", posixpath.dirname(path)])
        remote.write_file(
            path, f"[Service]\nEnvironmentFile=-{target.replace('%', '%%')}\n", mode=0o644
        )
        remote.run(["systemctl", "daemon-reload"])


def take_environment(remote: Remote, host: HostConfig) -> None:
    """Let the server's next start read its own environment alone."""
    remote.run(["rm", "-f", "--", host.service.environment_file])
    if not host.service.start:
        remote.run(["rm", "-f", "--", DROP_IN.format(unit=flavors.unit(host))])
        remote.run(["systemctl", "daemon-reload"])
