"""Makes keys, passwords and names, measures secrets without showing them, and opens what they seal."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orchestrator.errors import SecretError, VerificationError
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Source(Protocol):
        """What can be read from."""

        def read(self, size: int, /) -> bytes:
            """Return some bytes, none at the end."""

    class Sink(Protocol):
        """What can be written to."""

        def write(self, data: bytes, /) -> int:
            """Take bytes, and return how many."""

        def flush(self) -> None:
            """Finish what was written."""


KEY_BYTES = 32
_DEPLOYMENT_BYTES = 16
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{64}")
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


def new_manifest_key() -> Secret:
    """Return a new key that manifests are authenticated with: 64 hexadecimal characters."""
    return Secret(secrets.token_hex(KEY_BYTES))


def new_age_identity() -> tuple[Secret, str]:
    """Return a new identity of ``age``, and the public key that streams to it are encrypted to."""
    identity = _age().x25519.Identity.generate()
    return Secret(str(identity)), str(identity.to_public())


def find_age_recipient(identity: Secret) -> str:
    """Return the public key of an identity of ``age``.

    Raises:
        SecretError: It is none.
    """
    return str(_read_identity(identity).to_public())


def decrypt_age(source: Source, sink: Sink, identity: Secret) -> None:
    """Decrypt what ``age`` has encrypted, block by block.

    A block goes to the sink when it was authenticated. That the stream is whole is known at the
    return only.

    Args:
        source: The encrypted stream.
        sink: Where the clear one goes.
        identity: What `new_age_identity` made.

    Raises:
        SecretError: The identity is none, or another one than the stream is for.
        VerificationError: The stream was altered, cut, or is none of ``age``.
        BaseException: What source or sink raised comes as it is.
    """
    age, key = _age(), _read_identity(identity)
    reader, writer = _Careful(source), _Careful(sink)
    try:
        age.decrypt_io(reader, writer, [key])
    except (age.DecryptError, OSError) as error:
        failed = reader.failed or writer.failed
        if failed is not None:
            raise failed from None
        if "No matching keys" in str(error):
            raise SecretError(
                "the stream is not encrypted for the identity that Vault holds",
                hint="the identity was altered; an earlier version of that secret may be the one",
            ) from error
        raise VerificationError(
            "the stream does not decrypt: it was altered or cut", hint="do not use this set"
        ) from error


class _Careful:
    """Source or sink whose own failure is kept: the library makes an `OSError` of everything."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.failed: BaseException | None = None

    def read(self, size: int) -> bytes:
        return bytes(self._keep(self._inner.read, size))

    def write(self, data: bytes) -> int:
        return int(self._keep(self._inner.write, data))

    def flush(self) -> None:
        self._keep(self._inner.flush)

    def _keep(self, act: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return act(*arguments)
        except BaseException as error:
            self.failed = error
            raise


def _read_identity(identity: Secret) -> Any:
    age = _age()
    try:
        return age.x25519.Identity.from_str(identity.reveal())
    except age.IdentityError as error:
        raise SecretError(
            "what Vault holds in the place of an age identity is none",
            hint="an earlier version of that secret may be the right one",
        ) from error


def _age() -> Any:
    import pyrage  # noqa: PLC0415 - a tenth of the start-up, for backups alone

    return pyrage


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


def authenticate(document: bytes, key: Secret) -> str:
    """Return the HMAC-SHA-256 of a document, in 64 hexadecimal characters.

    Args:
        document: Byte for byte what will be compared later.
        key: What `new_manifest_key` made.

    Raises:
        SecretError: The key is not one.
    """
    if not key.is_made_of(_HEXADECIMAL):
        raise SecretError(
            "the key that manifests are authenticated with is not 64 hexadecimal characters",
            hint="look at what Vault holds in its place",
        )
    return hmac.new(bytes.fromhex(key.reveal()), document, hashlib.sha256).hexdigest()


def is_authentic(document: bytes, mac: str, key: Secret) -> bool:
    """Return whether `authenticate` gave this for the document, in a time that tells nothing.

    Raises:
        SecretError: The key is not one.
    """
    return hmac.compare_digest(authenticate(document, key).encode(), mac.encode())


def native_password_hash(secret: Secret) -> str:
    """Return the hash by which ``mysql_native_password`` knows a password.

    An account created by its hash leaves no clear password in binary and general log.
    """
    # SHA-1 is what the server's protocol prescribes; the password itself is 32 random characters.
    inner = hashlib.sha1(secret.reveal().encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


def new_deployment_id() -> str:
    """Return a name for a deployment, that is for one store of ours in Vault."""
    return secrets.token_hex(_DEPLOYMENT_BYTES)


def new_backup_id(donor: str, now: datetime) -> str:
    """Return a name for a backup set, such as ``20261121T210500Z-db1-6f2c09ab``."""
    return _new_id(donor, now)


def new_run_id(recipient: str, now: datetime) -> str:
    """Return a name for a run, such as ``20261121T210500Z-db2-1d4e77c0``."""
    return _new_id(recipient, now)


def _new_id(host: str, now: datetime) -> str:
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{stamp}-{host}-{secrets.token_hex(4)}"
