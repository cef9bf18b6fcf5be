"""Whether the key that an SSH server shows is the one that known_hosts files give for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import paramiko

from orchestrator.errors import HostKeyError
from orchestrator.remote.known_hosts import Verdict, judge, make_fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.remote.hops import Hop
    from orchestrator.remote.known_hosts import KnownKey


class KnownHostsPolicy(paramiko.MissingHostKeyPolicy):
    """Checks the host's key by our own reading of known_hosts.

    The client's own list is left empty, so that paramiko asks this policy about every key.

    Args:
        host: The host's name in the configuration.
        hop: The server whose key is checked.
        known: All lines of its known_hosts files.
    """

    def __init__(self, host: str, hop: Hop, known: Sequence[KnownKey]) -> None:
        self._host = host
        self._hop = hop
        self._known = known

    def missing_host_key(
        self, _client: paramiko.SSHClient, _hostname: str, key: paramiko.PKey
    ) -> None:
        """Return if the key is the known one."""
        check_host_key(self._host, self._hop, self._known, key.get_name(), key.asbytes())


def check_host_key(
    host: str, hop: Hop, known: Sequence[KnownKey], key_type: str, blob: bytes
) -> None:
    """Return if the key that a server showed is the known one.

    Raises:
        HostKeyError: It is unknown, changed or revoked.
    """
    judged = judge(known, hop.known_names, blob)
    if judged.verdict is Verdict.KNOWN:
        return
    shown = f"{key_type} key {make_fingerprint(blob)}"
    where = f"{hop.address} port {hop.port}"
    files = " and ".join(hop.known_hosts_files) or "no known_hosts file"
    if judged.verdict is Verdict.REVOKED:
        raise HostKeyError(
            f"{where} shows the {shown}, which {judged.lines[0].origin} revokes",
            host=host,
            hint="somebody may be in between: do not use this host before its key is replaced",
        )
    if judged.verdict is Verdict.CHANGED:
        expected = ", ".join(
            f"{line.key_type} key {line.fingerprint} ({line.origin})" for line in judged.lines
        )
        raise HostKeyError(
            f"the host key of {where} has changed: it shows the {shown}, known is {expected}",
            host=host,
            hint="somebody may be in between; if the host was really installed anew, remove the "
            f"old line with `ssh-keygen -R '{hop.known_names[0]}'` and add the new key",
        )
    name = hop.known_names[0]
    kind = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}.get(key_type, "ecdsa")
    authority = "; its @cert-authority line is not supported here" if judged.lines else ""
    raise HostKeyError(
        f"the host key of {where} is unknown: it shows the {shown}",
        host=host,
        hint=f"compare the fingerprint with `ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub` on "
        f"the host, then add the key as {name}: `ssh-keyscan -t {kind} -p {hop.port} {hop.address}"
        f" >> known_hosts` (read: {files}{authority})",
    )
