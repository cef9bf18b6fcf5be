"""Makes keys, passwords and names, and measures secrets without showing them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from datetime import UTC, datetime

from orchestrator.models import Secret

KEY_BYTES = 32
_PASSWORD_LENGTH = 32  # MySQL keeps no more of a replication password
_PASSWORD_CLASSES = (string.ascii_lowercase, string.ascii_uppercase, string.digits, "-_.")
_FINGERPRINT_TEXT = b"xbvault-fingerprint"
_FINGERPRINT_LENGTH = 16


def new_transition_key() -> Secret:
    """Return a new transition key: 64 hexadecimal characters from the system's source."""
    return Secret(secrets.token_hex(KEY_BYTES))


def new_page_key() -> Secret:
    """Return a new key for the server's key management plugin: 64 hexadecimal characters."""
    return Secret(secrets.token_hex(KEY_BYTES))


def new_password() -> Secret:
    """Return a password with a character of every class, so that password plugins take it.

    Its characters mean nothing to shells, option files and SQL strings.
    """
    alphabet = "".join(_PASSWORD_CLASSES)
    while True:
        password = "".join(secrets.choice(alphabet) for _ in range(_PASSWORD_LENGTH))
        if password[0].isalnum() and all(set(password) & set(c) for c in _PASSWORD_CLASSES):
            return Secret(password)


def fingerprint(secret: Secret) -> str:
    """Return 16 hexadecimal characters that tell equal secrets, and say nothing of their value.

    Only for secrets of full length: those of a guessable one could be found by trying.
    """
    digest = hmac.new(secret.reveal().encode(), _FINGERPRINT_TEXT, hashlib.sha256)
    return digest.hexdigest()[:_FINGERPRINT_LENGTH]


def native_password_hash(secret: Secret) -> str:
    """Return the hash by which ``mysql_native_password`` knows a password.

    An account created by its hash leaves no clear password in binary and general log.
    """
    # SHA-1 is what the server's protocol prescribes; the password itself is 32 random characters.
    inner = hashlib.sha1(secret.reveal().encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


def new_backup_id(donor: str, now: datetime) -> str:
    """Return a name for a backup set, such as ``20261121T210500Z-db1-6f2c09ab``."""
    return _new_id(donor, now)


def new_run_id(recipient: str, now: datetime) -> str:
    """Return a name for a run, such as ``20261121T210500Z-db2-1d4e77c0``."""
    return _new_id(recipient, now)


def _new_id(host: str, now: datetime) -> str:
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{stamp}-{host}-{secrets.token_hex(4)}"
