"""The keys that open a login: identity files with their certificates, and an agent's."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os.path
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
from paramiko import auth_strategy
from paramiko.ssh_exception import PartialAuthentication

from orchestrator.remote.errors import FAILURES, UnusableKeyError
from orchestrator.remote.known_hosts import make_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.remote.hops import Hop


class LoginKey(auth_strategy.AuthSource):
    """One key to log in with.

    Args:
        user: The login.
        shown: The key as messages name it.
        load: Returns the key.
    """

    def __init__(self, user: str, shown: str, load: Callable[[], paramiko.PKey]) -> None:
        super().__init__(user)
        self.shown = shown
        self._load = load

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Offer the key; a server that wants a further factor has not let us in."""
        key = self._load()
        self.shown += f" {make_fingerprint(key.asbytes())}"
        rest = transport.auth_publickey(self.username, key)
        if rest:
            raise PartialAuthentication(rest)
        return rest


class LoginKeys(auth_strategy.AuthStrategy):
    """The keys to log in with: identity files with their certificates, then the agent's."""

    def __init__(self, hop: Hop) -> None:
        super().__init__(paramiko.SSHConfig())
        self._hop = hop
        self._agent: paramiko.Agent | None = None

    def authenticate(self, transport: paramiko.Transport) -> list[auth_strategy.SourceResult]:
        """Try one key after the other."""
        try:
            return super().authenticate(transport)
        finally:
            if self._agent is not None:
                self._agent.close()

    def get_sources(self) -> Iterator[auth_strategy.AuthSource]:
        """Yield the keys, a certificate before the bare key that it belongs to."""
        hop = self._hop
        for path in hop.identity_files:
            beside = f"{path}-cert.pub"
            found = [beside] if os.path.isfile(beside) else []  # noqa: PTH113 - never raises
            certificates = [*hop.certificate_files, *found]
            for certificate in dict.fromkeys(certificates):
                yield self._make_source(path, certificate)
            yield self._make_source(path, "")
        if not hop.has_agent:
            return
        self._agent = paramiko.Agent()
        wanted = {_read_public_blob(path) for path in (*hop.identity_files, *hop.missing_files)}
        for key in self._agent.get_keys():
            if not hop.identities_only or key.asbytes() in wanted:
                yield self._make_agent_source(key)

    def _make_agent_source(self, key: paramiko.AgentKey) -> LoginKey:
        return LoginKey(self._hop.user, f"agent key {key.comment}".strip(), lambda: key)

    def _make_source(self, path: str, certificate: str) -> LoginKey:
        shown = f"{path} with {certificate}" if certificate else path
        return LoginKey(self._hop.user, shown, lambda: load_key(path, certificate))


def load_key(path: str, certificate: str = "") -> paramiko.PKey:
    """Read a private key, and the certificate that is to be shown with it.

    Raises:
        UnusableKeyError: It cannot be read, or has a passphrase.
    """
    try:
        key = paramiko.PKey.from_path(path)
        # from_path takes up a certificate beside the key by itself
        key.public_blob = None
        if certificate:
            key.load_certificate(certificate)
    # cryptography says with a TypeError or ValueError that a passphrase is missing
    except (*FAILURES, TypeError, ValueError) as error:
        needs = "password" in str(error).lower() or isinstance(error, TypeError)
        raise UnusableKeyError(
            "has a passphrase, load it with ssh-add" if needs else f"cannot be used: {error}"
        ) from error
    return key


def _read_public_blob(path: str) -> bytes:
    with contextlib.suppress(OSError, IndexError, binascii.Error, UnicodeDecodeError):
        return base64.b64decode(Path(f"{path}.pub").read_text(encoding="utf-8").split()[1])
    return b""
