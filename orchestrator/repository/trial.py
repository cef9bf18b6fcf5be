"""Trying keys on a stored set, in memory: what opens with them, and what does not."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Final

from orchestrator import bundle, keys
from orchestrator.errors import SecretError, VerificationError
from orchestrator.repository import names

if TYPE_CHECKING:
    from orchestrator.models import Secret
    from orchestrator.remote import Remote

BEGINNING_BYTES: Final = 1 << 20
"""The header of the stream, which names who can open it, and some blocks."""


def read_beginning(remote: Remote, path: str) -> bytes:
    """Return the beginning of a set's encrypted stream.

    Args:
        remote: The door to the repository's host.
        path: From `store.join_path`.

    Raises:
        CommandError: It cannot be read.
    """
    part = f"{path}/{names.name_part(1)}"
    return remote.run(["head", "-c", str(BEGINNING_BYTES), "--", part]).stdout


def count_opened(beginning: bytes, identity: Secret) -> int:
    """Return how many bytes of the beginning of a stream an identity opens; 0 if it is refused."""
    clear = io.BytesIO()
    # It is refused; or the beginning ends in the middle of a block.
    with contextlib.suppress(SecretError, VerificationError):
        keys.decrypt_age(io.BytesIO(beginning), clear, identity)
    return len(clear.getvalue())


def opens_bundle(sealed: bytes, transition_key: Secret, backup_id: str) -> bool:
    """Return whether a transition key opens the sealed key bundle of a set."""
    try:
        bundle.open_bundle(sealed, transition_key, backup_id)
    except VerificationError:
        return False
    return True
