from __future__ import annotations

import re
import string
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from orchestrator import keys
from orchestrator.config import HOST_NAME
from orchestrator.errors import SecretError
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 11, 21, 21, 5, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "make", [keys.new_transition_key, keys.new_page_key, keys.new_manifest_key]
)
def test_key_is_64_hexadecimal_characters_and_new_each_time(make: Callable[[], Secret]) -> None:
    """A key is 32 random bytes in hexadecimal form, and no two are equal."""
    made = [make().reveal() for _ in range(50)]
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in made)
    assert len(set(made)) == 50


def test_password_has_every_class_and_nothing_that_needs_quoting() -> None:
    """A password satisfies password plugins and means nothing to shells, SQL and option files."""
    made = [keys.new_password().reveal() for _ in range(200)]
    assert len(set(made)) == 200
    for password in made:
        assert len(password) == 32
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", password)
        for group in (string.ascii_lowercase, string.ascii_uppercase, string.digits, "-_."):
            assert set(password) & set(group)


def test_fingerprint_is_fixed_for_a_secret() -> None:
    """A fingerprint is what ``openssl dgst -sha256 -hmac`` says, and tells keys apart."""
    assert keys.fingerprint(Secret("0" * 64)) == "13756982f81d7041"
    assert keys.fingerprint(Secret("1" * 64)) != keys.fingerprint(Secret("0" * 64))


def test_native_password_hash_is_the_servers() -> None:
    """The hash is what ``SELECT PASSWORD('password')`` gives on MariaDB and MySQL."""
    known = "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"
    assert keys.native_password_hash(Secret("password")) == known


@pytest.mark.parametrize("make", [keys.new_backup_id, keys.new_run_id])
def test_names_sort_by_time_and_end_in_random_characters(
    make: Callable[[str, datetime], str],
) -> None:
    """A name carries the UTC time first, then the host, and is unique within a second."""
    zone = timezone(timedelta(hours=5))
    name = make("db-1.example", NOW.astimezone(zone))
    assert re.fullmatch(r"20261121T210500Z-db-1\.example-[0-9a-f]{8}", name)
    assert make("db1", NOW) != make("db1", NOW)
    assert make("zz", NOW) < make("aa", NOW + timedelta(seconds=1))
    assert HOST_NAME.fullmatch("db-1.example")
    assert re.fullmatch(r"[A-Za-z0-9._-]+", name)


def test_a_mac_is_fixed_for_a_document_and_a_key() -> None:
    """It is what ``openssl dgst -sha256 -mac HMAC -macopt hexkey:…`` says."""
    key = Secret("0123456789abcdef" * 4)
    mac = "bf069d8cf0741d9eb802d1ab3cc2ef048f8fa26af0224b38411c935fa8aee5a7"
    assert keys.authenticate(b'{"a":1}', key) == mac
    assert keys.authenticate(b'{"a":1}', Secret("0123456789ABCDEF" * 4)) == mac
    assert keys.is_authentic(b'{"a":1}', mac, key)


@pytest.mark.parametrize("mac", ["", "0" * 64, "é", "x" * 5000])
def test_another_mac_is_not_taken(mac: str) -> None:
    """Whatever stands in the place of it."""
    assert not keys.is_authentic(b'{"a":1}', mac, Secret("0123456789abcdef" * 4))


@pytest.mark.parametrize("wrong", ["", "abc", "0" * 63, "0" * 65, "g" * 64, "0" * 64 + "\n"])
def test_what_is_no_key_authenticates_nothing(wrong: str) -> None:
    """Only 64 hexadecimal characters do, and the error does not show what was there."""
    with pytest.raises(SecretError, match="64 hexadecimal") as caught:
        keys.authenticate(b"", Secret(wrong))
    assert not wrong or wrong not in str(caught.value.as_json())


def test_a_deployment_has_a_name_of_its_own() -> None:
    """32 hexadecimal characters, new each time."""
    made = {keys.new_deployment_id() for _ in range(50)}
    assert len(made) == 50
    assert all(re.fullmatch(r"[0-9a-f]{32}", name) for name in made)
