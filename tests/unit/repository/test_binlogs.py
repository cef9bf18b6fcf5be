"""Archives of binary logs: chains, gaps, and the way from a backup to a moment or a transaction."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from stored_sets import make_manifest

from orchestrator import models
from orchestrator.errors import PreconditionError, VerificationError
from orchestrator.models import Coordinates
from orchestrator.repository import binlogs, manifest
from orchestrator.repository.binlogs import has_gtid, parse_target
from orchestrator.repository.manifest import ArchivedLog

if TYPE_CHECKING:
    from orchestrator.repository.manifest import Manifest

UUID = "2f5b0a6e-6c1c-11ee-8c99-0242ac120002"


def make_base(**changes: object) -> Manifest:
    """Return a backup that ended at 12:00 in the second binary log, at transaction 20."""
    values = {
        "backup_id": "20261121T115000Z-db1-00000001",
        "began_at": "2026-11-21T11:50:00Z",
        "ended_at": "2026-11-21T12:00:00Z",
        "coordinates": Coordinates(file="bin.000002", position=500, gtid="0-1-20"),
        "checksums": (),
    }
    return make_manifest(**{**values, **changes})


def make_archive(number: int, *logs: int, minute: int, **changes: object) -> Manifest:
    """Return an archive; log N begins with transaction 10 N, and at minute 10 N of the day's noon."""
    made = tuple(
        ArchivedLog(
            name=f"bin.{log:06}",
            bytes=1000,
            began_at=f"2026-11-21T{11 + log // 6:02}:{log % 6 * 10:02}:00Z",
            gtid_before=f"0-1-{log * 10}",
        )
        for log in logs
    )
    values = {
        "backup_id": f"20261121T12{minute:02}00Z-db1-0000000{number}",
        "kind": manifest.BINLOGS,
        "to_lsn": 0,
        "began_at": f"2026-11-21T12:{minute:02}:00Z",
        "ended_at": f"2026-11-21T12:{minute:02}:01Z",
        "coordinates": Coordinates(
            file=f"bin.{logs[-1] + 1:06}", position=4, gtid=f"0-1-{(logs[-1] + 1) * 10}"
        ),
        "binlogs": made,
        "data_bytes": 1000 * len(made),
        "checksums": (),
        "key_versions": {},
    }
    return make_manifest(**{**values, **changes})


BASE = make_base()
ARCHIVES = (
    make_archive(2, 1, 2, minute=5),
    make_archive(3, 3, minute=10),
    make_archive(4, 4, 5, minute=15),
)


def find(text: str, archives: tuple[Manifest, ...] = ARCHIVES, base: Manifest = BASE) -> object:
    """Return the number of archives, and the first and last log, of the way to a target."""
    way = binlogs.find_way(base, archives, parse_target(text))
    return len(way.archives), way.first, way.last


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("latest", (3, "bin.000002", "bin.000005")),
        ("0-1-21", (1, "bin.000002", "bin.000002")),
        ("0-1-30", (1, "bin.000002", "bin.000002")),
        ("0-1-31", (2, "bin.000002", "bin.000003")),
        ("0-7-60", (3, "bin.000002", "bin.000005")),
        ("2026-11-21T12:00:00Z", (3, "bin.000002", "bin.000005")),
        ("2026-11-21T13:15:01+01:00", (3, "bin.000002", "bin.000005")),
    ],
)
def test_the_way_to_a_target(text: str, wanted: object) -> None:
    """The first log is that of the backup, the last one has the target, and no archive more."""
    assert find(text) == wanted


def test_a_moment_is_in_the_last_log_that_had_begun() -> None:
    """A log has what was committed from its begin on."""
    begun = ("2026-11-21T11:00:00Z", "2026-11-21T12:03:00Z", "2026-11-21T12:08:00Z")
    logs = tuple(
        dataclasses.replace(log, began_at=at)
        for log, at in zip((*ARCHIVES[0].binlogs, *ARCHIVES[1].binlogs), begun, strict=True)
    )
    archives = (
        dataclasses.replace(ARCHIVES[0], binlogs=logs[:2]),
        dataclasses.replace(ARCHIVES[1], binlogs=logs[2:]),
    )
    assert find("2026-11-21T12:07:59Z", archives) == (1, "bin.000002", "bin.000002")
    assert find("2026-11-21T12:08:00Z", archives) == (2, "bin.000002", "bin.000003")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0-1-20", "lies before the end of"),
        ("2026-11-21T11:59:59Z", "lies before the end of"),
        ("0-1-61", "is in no archive of db1: they go to 0-1-60"),
        ("1-1-5", "is in no archive"),
        ("2026-11-21T12:15:02Z", "lies behind the archives of db1"),
    ],
)
def test_a_target_out_of_reach_is_refused(text: str, words: str) -> None:
    """Before the backup, behind the archives, or of another server."""
    with pytest.raises(PreconditionError, match=words):
        find(text)


def test_a_gap_is_named() -> None:
    """What lies before it can be reached, and what lies behind it cannot."""
    torn = (ARCHIVES[0], ARCHIVES[2])
    (gap,) = binlogs.find_gaps(torn)
    assert gap.log == "bin.000003"
    assert "bin.000003 is in no archive" in gap.shown
    assert find("0-1-30", torn) == (1, "bin.000002", "bin.000002")
    with pytest.raises(PreconditionError, match=r"go to 0-1-30"):
        find("0-1-45", torn)
    with pytest.raises(PreconditionError, match=r"binary log bin\.000003 is in none"):
        find("2026-11-21T12:14:00Z", torn)
    assert binlogs.find_gaps(ARCHIVES) == ()


def test_logs_that_were_reset_do_not_go_on() -> None:
    """A server begins with the same names again; the state of its GTIDs tells."""
    (log,) = ARCHIVES[1].binlogs
    reset = dataclasses.replace(
        ARCHIVES[1], binlogs=(dataclasses.replace(log, gtid_before="0-1-999"),)
    )
    assert len(binlogs.find_gaps((ARCHIVES[0], reset))) == 1


def test_the_log_of_the_backup_must_be_there() -> None:
    """Without it, nothing can be replayed; one of that name before the backup is another one."""
    with pytest.raises(PreconditionError, match=r"bin\.000002, in which .* is in no archive"):
        find("latest", ARCHIVES[1:])
    early = dataclasses.replace(ARCHIVES[0], ended_at="2026-11-21T11:40:00Z")
    with pytest.raises(PreconditionError, match="is in no archive"):
        find("latest", (early, *ARCHIVES[1:]))
    with pytest.raises(PreconditionError, match="tells no place"):
        find("latest", base=make_base(coordinates=None))


def test_the_newest_backup_before_the_target_is_the_base() -> None:
    """As little as possible is replayed."""
    later = make_base(
        backup_id="20261121T120500Z-db1-00000009",
        ended_at="2026-11-21T12:06:00Z",
        coordinates=Coordinates(file="bin.000003", position=500, gtid="0-1-35"),
    )
    sets = {each.backup_id: each for each in (BASE, later, *ARCHIVES)}

    def choose(text: str) -> str:
        found = binlogs.choose_base(sets, "db1", parse_target(text))
        return found.backup_id if found else ""

    assert choose("latest") == choose("0-1-36") == choose("2026-11-21T12:06:00Z") == later.backup_id
    assert choose("0-1-35") == choose("2026-11-21T12:05:59Z") == BASE.backup_id
    assert choose("0-1-20") == choose("2026-11-21T11:00:00Z") == ""
    assert binlogs.choose_base(sets, "db2", parse_target("latest")) is None


def test_a_base_may_be_incremental() -> None:
    """If all that it builds on is there."""
    later = dataclasses.replace(
        BASE,
        backup_id=BASE.backup_id[:-1] + "f",
        kind="incremental",
        base_backup_id=BASE.backup_id,
        from_lsn=BASE.to_lsn,
        ended_at="2026-11-21T13:00:00Z",
    )
    sets = {each.backup_id: each for each in (BASE, later)}
    assert binlogs.choose_base(sets, "db1", parse_target("latest")) == later
    alone = {later.backup_id: later}
    assert binlogs.choose_base(alone, "db1", parse_target("latest")) is None


def test_archives_are_sorted_and_each_is_there_once() -> None:
    """A copy in another repository is the same archive."""
    mixed = (ARCHIVES[2], BASE, ARCHIVES[0], ARCHIVES[2], ARCHIVES[1])
    assert binlogs.sort_archives(mixed, "db1") == ARCHIVES
    assert binlogs.sort_archives(mixed, "db2") == ()


@pytest.mark.parametrize(
    ("state", "gtid", "wanted"),
    [
        ("0-1-20", "0-1-20", True),
        ("0-1-20", "0-1-21", False),
        ("0-2-20,0-1-22", "0-3-21", True),
        ("[0-1-20, 5-1-3]", "5-9-3", True),
        ("", "0-1-1", False),
        (f"{UUID}:1-5:8", f"{UUID}:8", True),
        (f"{UUID}:1-5:8", f"{UUID}:6", False),
        (f"{UUID.upper()}:1-5,\n{UUID[:-1]}3:1-9", f"{UUID}:5", True),
        (f"{UUID}:1-5", f"{UUID[:-1]}3:5", False),
        (f"{UUID}:tag:1-5", f"{UUID}:5", True),
    ],
)
def test_a_state_has_a_transaction(state: str, gtid: str, *, wanted: bool) -> None:
    """Of MariaDB by domain and number, of MySQL by source and interval."""
    assert has_gtid(state, gtid) is wanted


@pytest.mark.parametrize(
    "text", ["", "x", "2026-11-21", "2026-11-21T12:00:00", "0-1", "12:00", "Latest", f"{UUID}:0"]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    """A moment without a time zone among it."""
    with pytest.raises(ValueError, match=r"is latest|time zone|time and zone"):
        parse_target(text)


def test_targets_are_written_down_in_one_form() -> None:
    """A moment in UTC, to the second."""
    assert parse_target("2026-11-21T13:00:00.9+01:00").text == "2026-11-21T12:00:00Z"
    assert parse_target(f"{UUID.upper()}:7").gtid == f"{UUID}:7"


def test_a_manifest_of_binary_logs_says_what_can_be() -> None:
    """Logs, their sizes, and what comes next; a backup has none of them."""
    archive, problems = ARCHIVES[0], {}
    for changes in (
        {"binlogs": (), "data_bytes": 0},
        {"coordinates": None},
        {"data_bytes": 7},
        {"to_lsn": 5},
        {"base_backup_id": BASE.backup_id},
        {"kind": manifest.FULL},
        {"binlogs": (dataclasses.replace(archive.binlogs[0], name="../x"),), "data_bytes": 1000},
        {"binlogs": (dataclasses.replace(archive.binlogs[0], began_at="x"),), "data_bytes": 1000},
    ):
        with pytest.raises(VerificationError) as caught:
            manifest.parse_manifest(models.as_json(dataclasses.replace(archive, **changes)))
        problems[str(changes)] = caught.value.problems
    assert all(problems.values())
    assert manifest.parse_manifest(models.as_json(archive)) == archive
