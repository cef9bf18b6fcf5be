"""What Vault answers to each request, and a Vault that answers what a test wants."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import BaseAdapter

from orchestrator.models import Secret
from orchestrator.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[[Vault], object]

MOMENT = "2026-11-21T22:34:53.123456789Z"
AUTH = {"auth": {"client_token": "s.x", "accessor": "a", "lease_duration": 3600}}
TOKEN = {
    "data": {
        "ttl": 3600,
        "period": 7200,
        "creation_ttl": 3600,
        "role": "r",
        "renewable": True,
        "accessor": "a",
        "policies": ["default"],
        "identity_policies": [],
        "expire_time": MOMENT,
    }
}
MOUNT = {"type": "kv", "options": {"version": "2"}, "description": "", "path": "m/"}
METADATA = {
    "data": {
        "current_version": 2,
        "max_versions": 0,
        "custom_metadata": {"run": "r1"},
        "versions": {
            "1": {"created_time": MOMENT, "deletion_time": "", "destroyed": True},
            "2": {"created_time": MOMENT, "deletion_time": MOMENT, "destroyed": False},
        },
    }
}
HEALTH = {
    "initialized": True,
    "sealed": False,
    "standby": False,
    "version": "2.7.2",
    "server_time_utc": 1795304152,
}

REQUESTS: dict[str, tuple[Ask, Any]] = {
    "can_read": (lambda v: v.can_read("m/data/1"), {}),
    "create_token": (lambda v: v.create_token("r"), AUTH),
    "has_mount": (lambda v: v.has_mount("m"), {"data": {"m/": MOUNT}}),
    "list_mounts": (lambda v: v.list_mounts(), {"data": {"m/": MOUNT, "s/": {"type": "ssh"}}}),
    "list_secrets": (lambda v: v.list_secrets("m"), {"data": {"keys": ["1", "2/"]}}),
    "lookup_accessor": (lambda v: v.lookup_accessor("a"), TOKEN),
    "lookup_token": (lambda v: v.lookup_token(), TOKEN),
    "read_capabilities": (
        lambda v: v.read_capabilities(["m/data/1", "m/data/2"]),
        {"data": {"m/data/1": ["read"], "m/data/2": ["deny"]}},
    ),
    "read_health": (lambda v: v.read_health(), HEALTH),
    "read_kv_version": (lambda v: v.read_kv_version("m"), {"data": MOUNT}),
    "read_metadata": (lambda v: v.read_metadata("m", "p"), METADATA),
    "read_mount_config": (lambda v: v.read_mount_config("m"), {"data": {"max_versions": 1000}}),
    "read_policy": (lambda v: v.read_policy("p"), {"data": {"policy": 'path "x" {}'}}),
    "read_secret": (lambda v: v.read_secret("m", "1"), {"data": {"data": {"data": "ab", "n": 1}}}),
    "read_ssh_ca": (lambda v: v.read_ssh_ca("ssh"), {"data": {"public_key": "ssh-ed25519 AAAA\n"}}),
    "read_ssh_role": (lambda v: v.read_ssh_role("ssh", "r"), {"data": {"ttl": 120}}),
    "read_token_role": (lambda v: v.read_token_role("r"), {"data": {"period": 7200}}),
    "renew_accessor": (lambda v: v.renew_accessor("a"), AUTH),
    "renew_token": (lambda v: v.renew_token(), AUTH),
    "sign_ssh_key": (
        lambda v: v.sign_ssh_key("ssh", "r", "ssh-ed25519 AAAA", principal="p", ttl_seconds=60),
        {"data": {"signed_key": "ssh-ed25519-cert-v01@openssh.com AAAA\n"}},
    ),
    "write_secret": (
        lambda v: v.write_secret("m", "p", {"a": "b"}, cas=0),
        {"data": {"version": 1}},
    ),
}
"""By the method of `Vault` that makes sense of an answer: a call of it, and a right answer."""


class Answering(BaseAdapter):
    """Answers every request with the same content.

    Args:
        status: Of HTTP.
        content: The body.
    """

    def __init__(self, status: int, content: bytes) -> None:
        super().__init__()
        self._status, self._content = status, content

    def send(
        self, request: requests.PreparedRequest, *_more: Any, **_options: Any
    ) -> requests.Response:
        """Answer."""
        response = requests.Response()
        response.status_code, response._content = self._status, self._content
        response.request, response.url = request, str(request.url)
        return response

    def close(self) -> None:
        """Close nothing."""


def make_vault(status: int, content: bytes) -> Vault:
    """Return the door to a Vault that answers so."""
    vault = Vault("https://vault.example:8200", Secret("s.unit-test-token-0123456789"))
    vault._session.mount("https://", Answering(status, content))
    return vault


def encode(answer: Any) -> bytes:
    """Return an answer as it comes over the wire."""
    return json.dumps(answer).encode()
