from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import bundle, keys
from orchestrator.errors import VerificationError
from orchestrator.models import Secret

BACKUP_ID = "20261121T210500Z-db1-6f2c09ab"
OTHER_ID = "20261121T210500Z-db1-6f2c09ac"
TRANSITION_KEY = Secret("0123456789abcdef" * 4)
KEYS = {
    "1": {1: Secret("a1" * 32), 2: Secret("a2" * 32), 7: Secret("a7" * 32)},
    "2": {1: Secret("b1" * 32)},
}

unhurried = settings(deadline=None)  # a shared machine pauses now and then
transition_keys = st.binary(min_size=32, max_size=32).map(lambda raw: Secret(raw.hex()))
key_sets = st.dictionaries(
    st.from_regex(r"[0-9]{1,10}", fullmatch=True),
    st.dictionaries(st.integers(1, 10_000), st.text().map(Secret), max_size=5),
    max_size=5,
)


@unhurried
@given(key_set=key_sets, transition_key=transition_keys, backup_id=st.text(max_size=80))
def test_a_bundle_opens_to_what_was_sealed(
    key_set: bundle.KeySet, transition_key: Secret, backup_id: str
) -> None:
    """Every key id and version comes back as it went in."""
    sealed = bundle.seal_bundle(key_set, transition_key, backup_id)
    assert bundle.open_bundle(sealed, transition_key, backup_id) == key_set


@unhurried
@given(
    data=st.data(), position=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255)
)
def test_any_altered_byte_is_noticed(data: st.DataObject, position: int, flip: int) -> None:
    """A bundle with one byte changed, wherever it is, does not open."""
    sealed = bytearray(bundle.seal_bundle(KEYS, TRANSITION_KEY, BACKUP_ID))
    sealed[position % len(sealed)] ^= flip
    with pytest.raises(VerificationError):
        bundle.open_bundle(bytes(sealed), TRANSITION_KEY, BACKUP_ID)


@unhurried
@given(cut=st.integers(min_value=0))
def test_a_cut_bundle_is_noticed(cut: int) -> None:
    """A bundle that was not written to its end does not open."""
    sealed = bundle.seal_bundle(KEYS, TRANSITION_KEY, BACKUP_ID)
    with pytest.raises(VerificationError, match="cannot be read"):
        bundle.open_bundle(sealed[: cut % len(sealed)], TRANSITION_KEY, BACKUP_ID)


@unhurried
@given(garbage=st.binary(max_size=400))
def test_garbage_is_no_bundle(garbage: bytes) -> None:
    """Whatever lies in the file, the answer is a `VerificationError`."""
    with pytest.raises(VerificationError, match="cannot be read"):
        bundle.open_bundle(garbage, TRANSITION_KEY, BACKUP_ID)


@unhurried
@given(other=transition_keys.filter(lambda key: key != TRANSITION_KEY))
def test_another_key_does_not_open_it(other: Secret) -> None:
    """A bundle opens with the key that it was sealed under, and no other."""
    sealed = bundle.seal_bundle(KEYS, TRANSITION_KEY, BACKUP_ID)
    with pytest.raises(VerificationError, match="does not open") as caught:
        bundle.open_bundle(sealed, other, BACKUP_ID)
    assert caught.value.exit_status == 6
    assert other.reveal() not in str(caught.value.as_json())


def test_another_backup_set_does_not_open_it() -> None:
    """A bundle is bound to its backup set, even under the right key."""
    sealed = bundle.seal_bundle(KEYS, TRANSITION_KEY, BACKUP_ID)
    with pytest.raises(VerificationError, match=OTHER_ID):
        bundle.open_bundle(sealed, TRANSITION_KEY, OTHER_ID)


@pytest.mark.parametrize("wrong", ["", "abc", "0" * 63, "0" * 65, "g" * 64, "0" * 64 + "\n"])
def test_what_is_no_transition_key_neither_seals_nor_opens(wrong: str) -> None:
    """Only 64 hexadecimal characters are a transition key."""
    sealed = bundle.seal_bundle(KEYS, TRANSITION_KEY, BACKUP_ID)
    with pytest.raises(VerificationError, match="64 hexadecimal"):
        bundle.seal_bundle(KEYS, Secret(wrong), BACKUP_ID)
    with pytest.raises(VerificationError, match="64 hexadecimal"):
        bundle.open_bundle(sealed, Secret(wrong), BACKUP_ID)


def test_a_later_format_is_named() -> None:
    """A bundle of another format version is refused with both versions."""
    document = json.loads(bundle.seal_bundle(KEYS, TRANSITION_KEY, BACKUP_ID))
    document["version"] = 2
    with pytest.raises(VerificationError, match="version 2; this program reads 1") as caught:
        bundle.open_bundle(json.dumps(document).encode(), TRANSITION_KEY, BACKUP_ID)
    assert "version of xbvault" in caught.value.hint


def test_the_form_of_the_bundle_is_fixed() -> None:
    """Format, salt and nonce stand in the clear; no key does; each seal has its own salt."""
    first, second = (bundle.seal_bundle(KEYS, TRANSITION_KEY, BACKUP_ID) for _ in range(2))
    document = json.loads(first)
    assert list(document) == ["format", "version", "salt", "nonce", "ciphertext"]
    assert (document["format"], document["version"]) == ("xbvault-key-bundle", 1)
    assert len(base64.b64decode(document["salt"])) == 32
    assert len(base64.b64decode(document["nonce"])) == 12
    assert document["salt"] != json.loads(second)["salt"]
    for clear in [v.reveal() for versions in KEYS.values() for v in versions.values()]:
        assert clear.encode() not in first
        assert base64.b64encode(clear.encode()) not in first


def test_upper_case_of_a_key_is_the_same_key() -> None:
    """Hexadecimal digits mean the same in either case."""
    sealed = bundle.seal_bundle(KEYS, TRANSITION_KEY, BACKUP_ID)
    upper = Secret(TRANSITION_KEY.reveal().upper())
    assert bundle.open_bundle(sealed, upper, BACKUP_ID) == KEYS


def test_new_keys_seal() -> None:
    """What `keys` makes is what `bundle` takes."""
    key = keys.new_transition_key()
    key_set = {"1": {1: keys.new_page_key()}}
    assert bundle.open_bundle(bundle.seal_bundle(key_set, key, "x"), key, "x") == key_set
