"""An open way to a host: a connection to each SSH server on it, the next one through the last."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import fabric
import paramiko

from orchestrator import log
from orchestrator.remote import known_hosts
from orchestrator.remote.errors import FAILURES, SETTINGS_HINT, translate
from orchestrator.remote.host_keys import KnownHostsPolicy
from orchestrator.remote.login import LoginKeys
from orchestrator.remote.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.errors import OrchestratorError
    from orchestrator.remote.hops import Hop

CHANNEL_SECONDS = 30
_LOGIN_SECONDS = 30
_KEEPALIVE_SECONDS = 15
_DEAD_AFTER_SECONDS = 45
"""Unanswered data older than this ends a connection (TCP_USER_TIMEOUT)."""


class Link:
    """An open way to a host: connections to each SSH server on it, and a ProxyCommand.

    Args:
        host: The host's name in the configuration.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._connections: list[fabric.Connection] = []
        self._proxy: Proxy | None = None

    @classmethod
    def open(cls, host: str, way: Sequence[Hop]) -> Link:
        """Connect to each server of the way through the one before.

        Raises:
            HostUnreachableError: A server could not be reached.
            HostKeyError: A server's key is not the known one.
            RemoteError: A login was refused.
        """
        link = cls(host)
        try:
            for hop in way:
                link._open_hop(hop)
        except BaseException:
            link.close()
            raise
        return link

    @property
    def transport(self) -> paramiko.Transport:
        """The connection to the host itself."""
        transport: paramiko.Transport = self._connections[-1].transport
        return transport

    def close(self) -> None:
        """Close everything, the host's own connection first."""
        for connection in reversed(self._connections):
            # not connection.close(): that one leaves a client open that did not get through login
            connection.client.close()
        if self._proxy is not None:
            self._proxy.close()

    def _open_hop(self, hop: Hop) -> None:
        known = known_hosts.read_known_hosts(hop.known_hosts_files)
        known_types = known_hosts.list_key_types(known, hop.known_names)
        options: dict[str, Any] = {
            "auth_strategy": LoginKeys(hop),
            "transport_factory": lambda sock, **more: _make_transport(sock, known_types, more),
            "banner_timeout": hop.connect_seconds,
            "auth_timeout": _LOGIN_SECONDS,
            "channel_timeout": CHANNEL_SECONDS,
        }
        try:
            if hop.proxy_command:
                self._proxy = Proxy(hop.proxy_command)
                options["sock"] = self._proxy.socket
            connection = fabric.Connection(
                hop.address,
                user=hop.user,
                port=hop.port,
                # no files of fabric and no parsing of ssh_config: `ssh -G` has resolved all
                config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),
                gateway=self._connections[-1] if self._connections else None,
                connect_timeout=hop.connect_seconds,
                connect_kwargs=options,
            )
            connection.client.set_missing_host_key_policy(KnownHostsPolicy(self._host, hop, known))
            self._connections.append(connection)
            connection.open()
            connection.transport.set_keepalive(_KEEPALIVE_SECONDS)
        except FAILURES as error:
            raise self._explain(error, hop) from error

    def _explain(self, error: BaseException, hop: Hop) -> OrchestratorError:
        found = translate(error, host=self._host, login=hop.login)
        if hop.proxy_command and found.transient:
            said = self._proxy.read_last_words() if self._proxy else ""
            found.hint = log.redact_text(
                f"the ProxyCommand said: {said}" if said else SETTINGS_HINT
            )
        return found


def _make_transport(
    sock: socket.socket, known_types: Sequence[str], options: dict[str, Any]
) -> paramiko.Transport:
    transport = paramiko.Transport(sock, **options)
    security = transport.get_security_options()
    known = [
        name
        for known_type in known_types
        for name in (("rsa-sha2-512", "rsa-sha2-256") if known_type == "ssh-rsa" else (known_type,))
        if name in security.key_types
    ]
    # Known types first, so that the server shows the key that can be checked. The others stay:
    # without them a host with only other keys would be an "incompatible peer", not a changed one.
    security.key_types = tuple(dict.fromkeys([*known, *security.key_types]))
    if isinstance(sock, socket.socket) and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _DEAD_AFTER_SECONDS)
    return transport
