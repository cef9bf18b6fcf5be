"""Streams of age: made by the real program, opened by ours, whole or not at all."""

from __future__ import annotations

import random
import re
import subprocess

import pytest

from orchestrator import keys
from orchestrator.errors import OrchestratorError, SecretError, VerificationError
from orchestrator.models import Secret

CLEAR = random.Random(3).randbytes(200_000)
IDENTITY, RECIPIENT = keys.new_age_identity()


class Bytes:
    """A source of bytes that gives less than it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        found, self._data = self._data[: min(size, 3000)], self._data[min(size, 3000) :]
        return found


class Sink:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        """Take bytes."""
        self.data += data
        return len(data)

    def flush(self) -> None:
        """Do nothing."""


def encrypt(clear: bytes, recipient: str = RECIPIENT) -> bytes:
    """Encrypt with the program that a donor has."""
    return subprocess.run(
        ["age", "-r", recipient], input=clear, capture_output=True, check=True
    ).stdout


SEALED = encrypt(CLEAR)


def test_an_identity_is_new_each_time_and_a_secret() -> None:
    """Its public key has the form that a manifest takes; the identity shows itself to nobody."""
    assert re.fullmatch(r"age1[02-9ac-hj-np-z]{58}", RECIPIENT)
    assert "***" in repr(IDENTITY)
    assert IDENTITY.reveal().startswith("AGE-SECRET-KEY-1")
    assert len({keys.new_age_identity()[1] for _ in range(20)}) == 20


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 200_000])
def test_what_the_program_encrypts_comes_back(size: int) -> None:
    """Of any size, from a source that gives it piece by piece."""
    sink = Sink()
    keys.decrypt_age(Bytes(encrypt(CLEAR[:size])), sink, IDENTITY)
    assert sink.data == CLEAR[:size]


@pytest.mark.parametrize(
    ("spoiled", "expected"),
    [
        (SEALED[:-1], VerificationError),
        (SEALED[: -(200_000 % 65536) - 16], VerificationError),
        (SEALED + b"x", VerificationError),
        (SEALED[:90_000] + bytes([SEALED[90_000] ^ 1]) + SEALED[90_001:], VerificationError),
        (SEALED[:70_000] + SEALED[140_000:] + SEALED[70_000:140_000], VerificationError),
        (b"", VerificationError),
        (b"no stream of age", VerificationError),
        (encrypt(CLEAR, keys.new_age_identity()[1]), SecretError),
    ],
    ids=["cut", "cut at a block", "longer", "flipped", "swapped", "empty", "other", "of others"],
)
def test_what_was_spoiled_does_not_decrypt(
    spoiled: bytes, expected: type[OrchestratorError]
) -> None:
    """No word of it is taken for whole, and the class says whom to ask."""
    with pytest.raises(expected) as caught:
        keys.decrypt_age(Bytes(spoiled), Sink(), IDENTITY)
    assert caught.value.hint


def test_an_identity_that_is_none() -> None:
    """It is Vault that holds something else, and its value is not repeated."""
    with pytest.raises(SecretError, match="age identity is none") as caught:
        keys.decrypt_age(Bytes(SEALED), Sink(), Secret("AGE-SECRET-KEY-1NOTONE"))
    assert "NOTONE" not in str(caught.value.as_json())


class Killed(BaseException):
    """What nothing may swallow."""


@pytest.mark.parametrize("failure", [OSError("the wire broke"), Killed()], ids=["error", "kill"])
def test_a_failure_of_the_source_comes_as_it_is(failure: BaseException) -> None:
    """It is not taken for a stream that was cut."""

    class Broken(Bytes):
        def read(self, size: int) -> bytes:
            found = super().read(size)
            if not found:
                raise failure
            return found

    with pytest.raises(type(failure)):
        keys.decrypt_age(Broken(SEALED[:100_000]), Sink(), IDENTITY)
