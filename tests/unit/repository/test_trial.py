"""What opens with a key, and what does not."""

from __future__ import annotations

import pyrage
import pytest
from fake_remote import FakeRemote

from orchestrator import bundle, keys
from orchestrator.repository import trial

CLEAR = bytes(range(256)) * 16384
BACKUP_ID = "20261121T210500Z-db1-6f2c09ab"


def test_the_beginning_of_a_stream_opens_with_its_identity_alone() -> None:
    """Whole blocks of what was cut; nothing with any other."""
    identity, recipient = keys.new_age_identity()
    sealed = pyrage.encrypt(CLEAR, [pyrage.x25519.Recipient.from_str(recipient)])
    beginning = sealed[: trial.BEGINNING_BYTES]
    assert 900_000 < trial.count_opened(beginning, identity) < trial.BEGINNING_BYTES
    assert trial.count_opened(sealed, identity) == len(CLEAR)
    assert trial.count_opened(beginning, keys.new_age_identity()[0]) == 0


@pytest.mark.parametrize("data", [b"", b"age-encryption.org/v1\n", CLEAR[:1000]])
def test_what_is_no_stream_opens_with_nothing(data: bytes) -> None:
    """A damaged one as well."""
    assert trial.count_opened(data, keys.new_age_identity()[0]) == 0


def test_a_bundle_opens_with_its_key_and_for_its_set_alone() -> None:
    """And one that was altered with none."""
    key = keys.new_transition_key()
    sealed = bundle.seal_bundle({"1": {1: keys.new_page_key()}}, key, BACKUP_ID)
    assert trial.opens_bundle(sealed, key, BACKUP_ID)
    assert not trial.opens_bundle(sealed, keys.new_transition_key(), BACKUP_ID)
    assert not trial.opens_bundle(sealed, key, f"{BACKUP_ID[:-1]}c")
    assert not trial.opens_bundle(sealed[:-9], key, BACKUP_ID)


def test_no_more_than_the_beginning_is_read() -> None:
    """Of the first part."""
    remote = FakeRemote()
    remote.answer("head", stdout=b"beginning")
    assert trial.read_beginning(remote, "/srv/b") == b"beginning"
    assert remote.calls[0].argv == ("head", "-c", "1048576", "--", "/srv/b/part-000001.age")
