"""Reads known_hosts files and judges a host's key by them; pure but for the reading.

paramiko's own reader knows neither patterns nor markers and stumbles over ``@cert-authority``
lines. This one takes plain, hashed, negated and wildcard names, ``[name]:port`` and ``@revoked``;
certificate authorities are seen, so that an error can name them, but not used.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import hashlib
import hmac
import re
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config import SSH_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

AUTHORITY = "@cert-authority"
REVOKED = "@revoked"
_FEWEST_FIELDS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownKey:
    """One line of a known_hosts file.

    Attributes:
        marker: Empty, ``@cert-authority`` or ``@revoked``.
        patterns: The names it holds for, as written.
        key_type: Such as ``ssh-ed25519``.
        blob: The public key in wire form.
        origin: File and line, for messages.
    """

    marker: str
    patterns: str
    key_type: str
    blob: bytes
    origin: str

    @property
    def fingerprint(self) -> str:
        """The key's fingerprint, as ``ssh-keygen -l`` shows it."""
        return make_fingerprint(self.blob)


class Verdict(enum.Enum):
    """What the known_hosts files say of a host's key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict, with the lines that led to it.

    Attributes:
        verdict: What to make of the key.
        lines: With CHANGED the keys that were expected, with REVOKED the revoking lines, with
            UNKNOWN the certificate authorities that stand for the host.
    """

    verdict: Verdict
    lines: tuple[KnownKey, ...] = ()


def make_fingerprint(blob: bytes) -> str:
    """Return the SHA256 fingerprint of a public key, as OpenSSH writes it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii")
    return f"SHA256:{digest.rstrip('=')}"


def make_names(address: str, port: int, alias: str = "") -> tuple[str, ...]:
    """Return the names under which OpenSSH looks a host up, the exact one first."""
    if alias:
        return (alias.lower(),)
    if port == SSH_PORT:
        return (address.lower(),)
    return (f"[{address.lower()}]:{port}", address.lower())


def parse_known_hosts(text: str, origin: str = "known_hosts") -> list[KnownKey]:
    """Return the lines of a known_hosts file; what cannot be read is left out, as OpenSSH does."""
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < _FEWEST_FIELDS or fields[0].startswith("#"):
            continue
        patterns, key_type, encoded = fields[:3]
        try:
            blob = base64.b64decode(encoded, validate=True)
        except ValueError:  # no base64, or not even ASCII
            continue
        found.append(
            KnownKey(
                marker=marker,
                patterns=patterns,
                key_type=key_type,
                blob=blob,
                origin=f"{origin}:{number}",
            )
        )
    return found


def read_known_hosts(files: Iterable[str]) -> list[KnownKey]:
    """Return the lines of all files; a file that is not there holds nothing."""
    found: list[KnownKey] = []
    for name in files:
        try:
            text = Path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found += parse_known_hosts(text, name)
    return found


def is_match(patterns: str, name: str) -> bool:
    """Tell whether the names field of a line holds for a name."""
    if patterns.startswith("|1|"):
        return _is_hash_of(patterns, name)
    matched = False
    for pattern in patterns.lower().split(","):
        negated = pattern.startswith("!")
        expression = re.escape(pattern.removeprefix("!")).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(expression, name):
            if negated:
                return False
            matched = True
    return matched


def _is_hash_of(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in hashed.split("|")[2:4])
    except ValueError:
        return False
    # known_hosts format, sshd(8): HMAC-SHA1 of the name, keyed with the salt
    return hmac.compare_digest(
        hmac.new(salt, name.encode(errors="surrogateescape"), hashlib.sha1).digest(), digest
    )


def list_key_types(known: Sequence[KnownKey], names: Sequence[str]) -> tuple[str, ...]:
    """Return the key types that a host is known by, so that they can be asked for first."""
    types = [
        key.key_type
        for name in names
        for key in known
        if not key.marker and is_match(key.patterns, name)
    ]
    return tuple(dict.fromkeys(types))


def judge(known: Sequence[KnownKey], names: Sequence[str], blob: bytes) -> Judgement:
    """Judge a host's key by the known ones.

    Args:
        known: Lines of the known_hosts files.
        names: From `make_names`: the exact name decides; a further one (the host without its
            port) can only confirm the key, as in OpenSSH.
        blob: The key that the host showed, in wire form.
    """
    matching = [[key for key in known if is_match(key.patterns, name)] for name in names]
    everywhere = list(dict.fromkeys(key for keys in matching for key in keys))
    revoking = [key for key in everywhere if key.marker == REVOKED and key.blob == blob]
    if revoking:
        return Judgement(verdict=Verdict.REVOKED, lines=tuple(revoking))
    exact = [key for key in matching[0] if not key.marker]
    candidates = exact or [key for key in everywhere if not key.marker]
    if any(key.blob == blob for key in candidates):
        return Judgement(verdict=Verdict.KNOWN)
    if exact:
        return Judgement(verdict=Verdict.CHANGED, lines=tuple(exact))
    authorities = [key for key in everywhere if key.marker == AUTHORITY]
    return Judgement(verdict=Verdict.UNKNOWN, lines=tuple(authorities))
