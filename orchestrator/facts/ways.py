"""Facts about the way of a stream: whether the donor sees the recipient's SSH server."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from orchestrator import log
from orchestrator.errors import PreconditionError

if TYPE_CHECKING:
    from orchestrator.remote import Remote

_SECONDS: Final = 5
_KINDS: Final = {"ssh-ed25519": "ed25519", "ecdsa-sha2-": "ecdsa", "ssh-rsa": "rsa"}
"""Beginnings of key types, and what ``ssh-keyscan`` calls them."""
_NO_PROGRAM: Final = 127


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """How a donor comes to a recipient.

    Attributes:
        address: Name or address that it connects to.
        port: Port.
        problem: Why it does not come to the recipient's SSH server; empty if it does.
        is_tried: Whether that could be found out.
        no_relay: Why this machine cannot relay to the recipient; empty if it can.
    """

    address: str
    port: int
    problem: str = ""
    is_tried: bool = True
    no_relay: str = ""


def read_way(donor: Remote, recipient: Remote, address: str, port: int) -> Way:
    """Let the donor ask for the recipient's host key, as its stream will.

    Args:
        donor: The host that the stream comes from.
        recipient: The host that it goes to, whose key was verified here.
        address: Name or address of the recipient, as the donor is to use it.
        port: Its SSH port.

    Raises:
        HostUnreachableError: A host does not answer this machine.
    """
    (known,) = recipient.host_key_lines([address])
    _, kind, blob = known.split()
    named = [f"-t{name}" for begin, name in _KINDS.items() if kind.startswith(begin)]
    scan = ["ssh-keyscan", "-T", str(_SECONDS), *named, "-p", str(port), "--", address]
    found = donor.run(scan, check=False, timeout_seconds=20 + _SECONDS)
    no_relay = ""
    try:
        recipient.find_address()
    except PreconditionError as error:
        no_relay = error.message
    if found.status == _NO_PROGRAM:
        return Way(address=address, port=port, is_tried=False, no_relay=no_relay)
    keys = [line.split()[1:] for line in found.text.split("\n") if line and line[0] != "#"]
    problem = ""
    if not keys:
        words = [line for line in found.stderr.split("\n") if line and line[0] != "#"]
        problem = log.redact_text(words[-1].strip())[:160] if words else "no answer"
    elif [kind, blob] not in keys:
        problem = "another host answers there, with a key that is not the recipient's"
    return Way(address=address, port=port, problem=problem, no_relay=no_relay)
