"""A way from one host to another through this machine, for hosts that do not see each other.

It is a remote forwarding of this machine's own OpenSSH client: the host that opens the way gets a
port on its loopback, and what connects there comes out at the other host's SSH server. So the two
hosts still speak SSH with each other, end to end, and this machine carries what it cannot read.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Self

from orchestrator import log, numerals
from orchestrator.errors import HostUnreachableError, PreconditionError
from orchestrator.remote import hops
from orchestrator.remote.interface import LOOPBACK

if TYPE_CHECKING:
    from types import TracebackType

    from orchestrator.config import DoorConfig, SshConfig
    from orchestrator.remote.hops import Hop

_OPEN_SECONDS = 20
_MOST_BYTES = 1 << 16
_ALLOCATED = re.compile(rb"^Allocated port (\d{1,5}) for remote forward to ", re.MULTILINE)
_OPTIONS = {
    "BatchMode": "yes",
    "ClearAllForwardings": "no",
    "Compression": "no",
    "ControlMaster": "no",
    "ControlPath": "none",
    "ExitOnForwardFailure": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "LogLevel": "INFO",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "ServerAliveCountMax": "4",
    "ServerAliveInterval": "15",
    "StrictHostKeyChecking": "yes",
}


def find_direct_hop(name: str, host: DoorConfig, ssh: SshConfig) -> Hop:
    """Return a host's SSH server, if this machine connects to it without going through another.

    Raises:
        PreconditionError: There is another on the way.
    """
    *before, last = hops.resolve_way(name, host, ssh)
    if before or last.proxy_command:
        raise PreconditionError(
            f"this machine reaches {name} through another, so it cannot relay to it",
            host=name,
            hint="run xbvault on a machine that reaches both hosts by itself",
        )
    return last


def make_command(
    name: str, host: DoorConfig, ssh: SshConfig, *, target: tuple[str, int]
) -> list[str]:
    """Return the command that opens a way from a host to an address that this machine reaches.

    It ends when its input ends, but not before the last connection that goes through it.

    Args:
        name: The host that the way begins on.
        host: Its configuration.
        ssh: The configuration of connections.
        target: Address and port.
    """
    address, port = target
    shown = f"[{address}]" if ":" in address else address
    options = dict(_OPTIONS, ConnectTimeout=str(ssh.connect_timeout_seconds))
    return [
        "ssh",
        *hops.name_config(ssh),
        "-T",
        *(part for key, value in options.items() for part in ("-o", f"{key}={value}")),
        *hops.list_options(host),
        "-R",
        f"{LOOPBACK}:0:{shown}:{port}",
        "--",
        name,
        "cat",
    ]


class Relay:
    """A way that stands; use it with ``with``.

    It outlives this process as long as a connection goes through it: what was begun on the hosts
    goes on, and the way ends with it.

    Args:
        command: As `make_command` makes it.
        host: The host that the way begins on.

    Raises:
        HostUnreachableError: It does not stand within 20 seconds.
        PreconditionError: The host does not allow it.
    """

    def __init__(self, command: list[str], host: str) -> None:
        self._host = host
        self._process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self.port = self._read_port()
        except BaseException:
            self._process.kill()
            self.close()
            raise
        log.get().info("relay.opened", host=host, port=self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the way end, at once or with the last connection through it."""
        for pipe in (self._process.stdin, self._process.stderr):
            if pipe is not None:
                pipe.close()
        threading.Thread(target=self._process.wait, daemon=True).start()

    def _read_port(self) -> int:
        """Return the port that the host's SSH server chose."""
        pipe = self._process.stderr
        said, end = b"", time.monotonic() + _OPEN_SECONDS
        with selectors.DefaultSelector() as selector:
            if pipe is not None:
                selector.register(pipe, selectors.EVENT_READ)
            while pipe is not None and len(said) < _MOST_BYTES:
                if not selector.select(max(0.0, end - time.monotonic())):
                    break
                more = os.read(pipe.fileno(), 4096)
                said += more
                if found := _ALLOCATED.search(said):
                    return numerals.parse_whole(found[1].decode())
                if not more:
                    break
        words = log.redact_text(said.decode("utf-8", "replace").strip())
        reason = words.rpartition("\n")[2].strip() or "no answer"
        if "remote port forwarding failed" in reason:
            raise PreconditionError(
                f"{self._host} does not let this machine relay: {reason}",
                host=self._host,
                hint="set `AllowTcpForwarding remote`, or `yes`, in its sshd_config for this login",
            )
        raise HostUnreachableError(
            f"no way through this machine could be opened on {self._host}: {reason}",
            host=self._host,
            hint=f"try `ssh {self._host}` from here, then `xbvault runs resume`",
        )
