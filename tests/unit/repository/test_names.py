from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import keys
from orchestrator.config import HOST_NAME
from orchestrator.errors import VerificationError
from orchestrator.repository import names

NOW = datetime(2026, 11, 21, 21, 5, 0, 125_999, tzinfo=UTC)


@given(host=st.from_regex(HOST_NAME, fullmatch=True))
def test_a_new_backup_id_is_one_and_names_its_host(host: str) -> None:
    """Whatever name of a host the configuration takes, one like a ``backup_id`` included."""
    backup_id = keys.new_backup_id(host, NOW)
    assert names.is_backup_id(backup_id)
    assert names.find_host(backup_id) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "lost+found",
        "20261121T210500Z-db1",
        "20261121T210500Z-db1-6F2C09AB",
        "20261121T210500Z--6f2c09ab",
        "20261121T210500Z-a/b-6f2c09ab",
        "20261121T210500Z-db1-6f2c09ab\n",
        "٢0261121T210500Z-db1-6f2c09ab",
    ],
)
def test_other_names_are_none(text: str) -> None:
    """What else can lie in a repository is no set, and of no host."""
    assert not names.is_backup_id(text)
    assert names.find_host(text) == ""


def test_parts_are_numbered_from_one_on() -> None:
    """In names that sort as their numbers do."""
    assert names.name_part(1) == "part-000001.age"
    assert names.name_part(names.MOST_PARTS) == "part-999999.age"
    for wrong in (0, names.MOST_PARTS + 1):
        with pytest.raises(ValueError, match="1 to 999999"):
            names.name_part(wrong)


@pytest.mark.parametrize("text", ["key-bundle.json", "a", "xtrabackup_keys", "0.age"])
def test_a_set_may_have_other_files(text: str) -> None:
    """Under plain names."""
    assert names.is_extra_file(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", ".x", "x.", "a/b", "/a", "A", "a b", "a\n", "-a", "a" * 65),
        *("manifest.json", "manifest.json.new", "manifest.expired", "part-000001.age"),
    ],
)
def test_names_of_others_and_reserved_ones_are_not_for_them(text: str) -> None:
    """Nothing that leads out of the folder, and nothing with a meaning of its own."""
    assert not names.is_extra_file(text)


@given(
    st.datetimes(
        datetime(2, 1, 1),  # noqa: DTZ001 - the zone is the next strategy's
        datetime(9998, 12, 31),  # noqa: DTZ001 - as above
        timezones=st.timezones(),
    )
)
def test_a_moment_comes_back(moment: datetime) -> None:
    """From any time zone, to the millisecond."""
    found = names.parse_moment(names.format_moment(moment))
    assert found.utcoffset() == timedelta(0)
    assert timedelta(0) <= moment - found < timedelta(milliseconds=1)


def test_moments_have_one_form() -> None:
    """That of the journal; seconds are enough to be read."""
    assert names.format_moment(NOW) == "2026-11-21T21:05:00.125Z"
    zone = timezone(timedelta(hours=5))
    assert names.format_moment(NOW.astimezone(zone)) == "2026-11-21T21:05:00.125Z"
    assert names.parse_moment("2026-11-21T21:05:00Z") == NOW.replace(microsecond=0)
    with pytest.raises(ValueError, match="time zone"):
        names.format_moment(NOW.replace(tzinfo=None))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-21",
        "2026-11-21T21:05:00",
        "2026-11-21 21:05:00Z",
        "2026-11-21T21:05:00+01:00",
        "2026-11-21T21:05:00.1Z",
        "2026-13-21T21:05:00Z",
        "2026-02-30T21:05:00Z",
        "2026-11-21T24:05:00Z",
        "0000-11-21T21:05:00Z",
        "٢026-11-21T21:05:00Z",
        "2026-11-21T21:05:00Z\n",
    ],
)
def test_other_moments_are_none(text: str) -> None:
    """Neither those without a zone, nor those that are in no calendar."""
    with pytest.raises(VerificationError, match="no moment"):
        names.parse_moment(text)
