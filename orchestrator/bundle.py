"""Seals and opens the key bundle: the donor's page keys, under the transition key.

The bundle is one JSON document: format and its version, salt, nonce and ciphertext in base64.
The cipher is AES-256-GCM under a key that HKDF-SHA256 makes of the transition key and the salt;
the ``backup_id`` is the associated data, so that a bundle opens for its own backup set only.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orchestrator.errors import VerificationError
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "xbvault-key-bundle"
FORMAT_VERSION = 1
_SALT_BYTES = 32
_NONCE_BYTES = 12
_INFO = b"xbvault key bundle v1"
_TRANSITION_KEY = re.compile(r"[0-9A-Fa-f]{64}")
_HINT = "take the bundle and the transition key of this backup set; if both are, it was altered"

KeySet = dict[str, dict[int, Secret]]
"""The versions in use of every key id."""


def seal_bundle(
    keys: Mapping[str, Mapping[int, Secret]], transition_key: Secret, backup_id: str
) -> bytes:
    """Return the keys as a sealed bundle.

    Args:
        keys: Every key id with its versions.
        transition_key: 64 hexadecimal characters.
        backup_id: The backup set that the keys belong to.

    Raises:
        VerificationError: The transition key is not one.
    """
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
    cipher = AESGCM(_derive_key(transition_key, salt))
    clear = {
        key_id: {str(version): value.reveal() for version, value in versions.items()}
        for key_id, versions in keys.items()
    }
    sealed = cipher.encrypt(nonce, json.dumps(clear).encode(), backup_id.encode())
    return _encode(FORMAT_VERSION, salt, nonce, sealed)


def open_bundle(data: bytes, transition_key: Secret, backup_id: str) -> KeySet:
    """Return the keys of a sealed bundle.

    Args:
        data: What `seal_bundle` returned.
        transition_key: The one that it was sealed under.
        backup_id: The backup set that it was sealed for.

    Raises:
        VerificationError: Another key, another backup set, an altered or unknown bundle.
    """
    salt, nonce, sealed = _decode(data)
    try:
        cipher = AESGCM(_derive_key(transition_key, salt))
        clear = json.loads(cipher.decrypt(nonce, sealed, backup_id.encode()))
    except InvalidTag as error:
        raise VerificationError(
            f"the key bundle does not open with the transition key of {backup_id}", hint=_HINT
        ) from error
    return {
        key_id: {int(version): Secret(value) for version, value in versions.items()}
        for key_id, versions in clear.items()
    }


def _derive_key(transition_key: Secret, salt: bytes) -> bytes:
    clear = transition_key.reveal()
    if not _TRANSITION_KEY.fullmatch(clear):
        raise VerificationError("the transition key is not 64 hexadecimal characters", hint=_HINT)
    derivation = HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=_INFO)
    return derivation.derive(bytes.fromhex(clear))


def _encode(version: int, salt: bytes, nonce: bytes, sealed: bytes) -> bytes:
    document = {
        "format": FORMAT,
        "version": version,
        "salt": base64.b64encode(salt).decode(),
        "nonce": base64.b64encode(nonce).decode(),
        "ciphertext": base64.b64encode(sealed).decode(),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _decode(data: bytes) -> tuple[bytes, bytes, bytes]:
    try:
        document = json.loads(data)
        form, version = document["format"], document["version"]
        salt, nonce, sealed = (
            base64.b64decode(document[name], validate=True)
            for name in ("salt", "nonce", "ciphertext")
        )
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise VerificationError("the key bundle cannot be read", hint=_HINT) from error
    if form == FORMAT and isinstance(version, int) and version != FORMAT_VERSION:
        raise VerificationError(
            f"the key bundle has format version {version}; this program reads {FORMAT_VERSION}",
            hint="use the version of xbvault that made it",
        )
    # The same content in other bytes (spaces, spare base64 bits) is an altered bundle as well.
    if len(nonce) != _NONCE_BYTES or _encode(FORMAT_VERSION, salt, nonce, sealed) != data:
        raise VerificationError("the key bundle cannot be read", hint=_HINT)
    return salt, nonce, sealed
