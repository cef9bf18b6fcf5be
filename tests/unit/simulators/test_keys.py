"""The double's own cryptography, and the layout of xtrabackup_keys."""

from __future__ import annotations

import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from simulators import aes
from simulators.crc32c import crc32c
from simulators.keysfile import (
    BadFileError,
    TablespaceKey,
    WrongKeyError,
    open_keys,
    seal_keys,
)

KEYS = {
    2: TablespaceKey(key=bytes(range(32)), iv=bytes(range(32, 64))),
    4294967279: TablespaceKey(key=b"k" * 32, iv=b"i" * 32),
}
BLOCKS = st.integers(min_value=0, max_value=4).flatmap(
    lambda count: st.binary(min_size=16 * count, max_size=16 * count)
)


def test_aes_is_that_of_the_standard() -> None:
    """FIPS 197, appendix C.3: the example with a key of 256 bits, both ways."""
    key = bytes(range(32))
    clear = bytes.fromhex("00112233445566778899aabbccddeeff")
    secret = bytes.fromhex("8ea2b7ca516745bfeafc49904b496089")
    assert aes.encrypt_blocks(key, clear) == secret
    assert aes.decrypt_blocks(key, secret) == clear


@given(
    key=st.binary(min_size=32, max_size=32), start=st.binary(min_size=16, max_size=16), text=BLOCKS
)
def test_aes_is_that_of_a_known_library(key: bytes, start: bytes, text: bytes) -> None:
    """Any blocks come out as the cryptography library makes them, in both modes and ways."""
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    cbc = Cipher(algorithms.AES(key), modes.CBC(start)).encryptor()
    assert aes.encrypt_blocks(key, text) == ecb.update(text)
    assert aes.encrypt_chain(key, start, text) == cbc.update(text)
    assert aes.decrypt_blocks(key, aes.encrypt_blocks(key, text)) == text
    assert aes.decrypt_chain(key, start, aes.encrypt_chain(key, start, text)) == text


@pytest.mark.parametrize(("key", "text"), [(bytes(16), bytes(16)), (bytes(32), bytes(17))])
def test_aes_refuses_wrong_lengths(key: bytes, text: bytes) -> None:
    """A short key or half a block is no input."""
    for work in (aes.encrypt_blocks, aes.decrypt_blocks):
        with pytest.raises(ValueError, match="bytes"):
            work(key, text)


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_crc32c_is_that_of_the_standard(data: bytes, checksum: int) -> None:
    """The check value of the catalogues, and the examples of RFC 3720."""
    assert crc32c(data) == checksum


def test_keys_have_the_real_layout() -> None:
    """Decoded with another library, each field stands where the real tool puts it."""
    content = seal_keys("a transition key", KEYS)
    assert len(content) == 154 + 72 * len(KEYS)
    assert content.startswith(b"KEYSV01")
    salt = content[7:71]
    assert content[71:154] == bytes(83)
    derived = hashlib.pbkdf2_hmac("sha256", b"a transition key", salt, 32768, 32)
    for number, (space_id, entry) in enumerate(KEYS.items()):
        record = content[154 + 72 * number :][:72]
        assert struct.unpack("<I", record[:4]) == (space_id,)
        decryptor = Cipher(algorithms.AES(derived), modes.ECB()).decryptor()
        assert decryptor.update(record[4:68]) == entry.key + entry.iv
        assert struct.unpack("<I", record[68:]) == (crc32c(entry.key + entry.iv),)


def test_keys_survive_the_round_trip() -> None:
    """What was sealed opens with the same key, and never looks the same twice."""
    first, second = seal_keys("k", KEYS), seal_keys("k", KEYS)
    assert first != second
    assert open_keys("k", first) == KEYS


def test_a_wrong_key_is_noticed_at_a_record() -> None:
    """The first record does not open, and its tablespace is named."""
    with pytest.raises(WrongKeyError) as caught:
        open_keys("other", seal_keys("k", KEYS))
    assert caught.value.space_id == 2


def test_without_a_record_a_wrong_key_is_not_noticed() -> None:
    """A donor without encrypted tables: any key opens."""
    assert open_keys("other", seal_keys("k", {})) == {}


def test_half_a_record_is_dropped() -> None:
    """A file cut inside of a record opens, with one key less."""
    assert list(open_keys("k", seal_keys("k", KEYS)[:-1])) == [2]


@pytest.mark.parametrize("content", [b"", b"KEYSV01", b"KEYSV02" + bytes(147)])
def test_what_is_no_such_file_does_not_open(content: bytes) -> None:
    """Neither something shorter than its head nor another magic."""
    with pytest.raises(BadFileError):
        open_keys("k", content)


def test_keys_are_not_shown() -> None:
    """The representation of a tablespace's key holds neither of its halves."""
    assert "k" * 8 not in repr(KEYS[4294967279])
