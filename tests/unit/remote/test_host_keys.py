"""What becomes of the key that an SSH server shows."""

from __future__ import annotations

import base64

import pytest

from orchestrator.errors import HostKeyError
from orchestrator.remote.hops import Hop
from orchestrator.remote.host_keys import check_host_key
from orchestrator.remote.known_hosts import parse_known_hosts

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIPjNLI4Y+QCXr020kfTxF+KP1/JScAf2n2F03DGbn97V"
OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAICUEvp7lhGPWZjZPHA3otCCCA2Oclo7kccMwGTQgEaaJ"
HOP = Hop(name="db1", address="192.0.2.1", port=22, user="root", known_hosts_files=("/kh",))


def test_host_keys_by_verdict() -> None:
    """Known passes; unknown, changed and revoked are told apart, and never transient."""
    blob = base64.b64decode(KEY)

    def check(text: str) -> None:
        check_host_key("db1", HOP, parse_known_hosts(text), "ssh-ed25519", blob)

    check(f"192.0.2.1 ssh-ed25519 {KEY}")
    for text, words in (
        ("", "is unknown: it shows the ssh-ed25519 key SHA256:"),
        (f"192.0.2.1 ssh-ed25519 {OTHER}", "has changed: it shows the ssh-ed25519 key SHA256:"),
        (f"@revoked * ssh-ed25519 {KEY}", "which known_hosts:1 revokes"),
    ):
        with pytest.raises(HostKeyError, match=words) as caught:
            check(text)
        assert not caught.value.transient
        assert caught.value.hint
