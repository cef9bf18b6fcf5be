"""How a recipient's directories lie, and so how they are swapped or why they are not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from orchestrator.facts import hosts, layout
from orchestrator.facts.places import FoundFiles, Places, parse_places
from orchestrator.flavors.file_sets import REDO, UNDO, FileSet
from orchestrator.flavors.mariadb import MariaDB
from orchestrator.models import Plan, as_json, from_json

SAMPLE = Path(__file__).parents[3] / "fixtures/samples/host/facts-replica.txt"
RUN = "20260101T000000Z-replica-0a1b2c3d"


def make_host(**changes: Any) -> hosts.HostFacts:
    """Return a recipient's facts with changes."""
    text = SAMPLE.read_text(encoding="utf-8")
    facts = hosts.parse_host("replica", text, MariaDB(), before=0, after=1)
    return dataclasses.replace(facts, **changes)


def make_files(directory: str, real: str | None = None, **changes: Any) -> FoundFiles:
    """Return redo logs in a directory."""
    values: dict[str, Any] = {
        "what": REDO,
        "directory": directory,
        "patterns": ("ib_logfile*",),
        "real": directory if real is None else real,
        "filesystem": 1,
        "free_bytes": 10**9,
        "bytes": 0,
        "foreign": (),
    }
    return FoundFiles(**{**values, **changes})


def problems(host: hosts.HostFacts, *files: FoundFiles, **changes: Any) -> list[str]:
    """Return what keeps the swap from being done."""
    return layout.list_problems(host, Places(files=files, **changes), owner="mysql")


def test_a_plain_datadir_is_renamed() -> None:
    """Everything of a run lies beside a plain datadir, which is renamed as a whole."""
    made = layout.make_layout(make_host(), Places(files=(make_files("/var/lib/mysql"),)), RUN)
    assert made.staging_dir == f"/var/lib/mysql.xbvault-staging-{RUN}"
    assert [place.is_whole for place in made.places] == [True]
    assert made.subfolders == ()


def test_a_mount_path_is_exchanged_inside() -> None:
    """Everything of a run lies inside a filesystem of its own, whose lost+found is left alone."""
    made = layout.make_layout(make_host(is_mount_path=True), None, RUN)
    assert made.new_datadir == f"/var/lib/mysql/.xbvault/new-{RUN}"
    assert not made.places[0].is_whole
    assert {".xbvault", "lost+found"} <= set(made.places[0].left_alone)


def test_a_link_is_followed() -> None:
    """Behind a symbolic link, the directory that it leads to is renamed."""
    host = make_host(is_symlink=True, real_datadir="/data/mysql")
    inside = make_files("/var/lib/mysql/redo", "/data/mysql/redo")
    made = layout.make_layout(host, Places(files=(inside,)), RUN)
    assert made.places[0].path == "/data/mysql"
    assert made.places[0].old == f"/data/mysql.xbvault-old-{RUN}"
    assert made.subfolders[0].path == "/data/mysql/redo"
    assert made.subfolders[0].new == f"/data/mysql.xbvault-new-{RUN}/redo"


def test_kinds_that_share_a_directory_are_one_place() -> None:
    """Files of two kinds in one directory are swapped together."""
    undo = make_files("/logs", what=UNDO, patterns=("undo[0-9]*",))
    found = Places(files=(make_files("/l", "/logs"), undo))
    made = layout.make_layout(make_host(), found, RUN)
    assert len(made.places) == 2
    assert made.places[1].path == "/logs"
    assert made.places[1].patterns == ("ib_logfile*", "undo[0-9]*")
    assert made.places[1].new == f"/logs/.xbvault/new-{RUN}"


def test_a_plan_with_places_goes_through_the_journal() -> None:
    """The places of a plan are the same after a way through JSON."""
    made = layout.make_layout(make_host(), Places(files=(make_files("/logs"),)), RUN)
    document = {"places": as_json(made.places), "subfolders": []}
    hints = from_json(Plan, {**_plan(), **document})
    assert hints.places == made.places == hints.swap_places


def test_a_plan_without_places_renames_its_datadir() -> None:
    """A plan of an earlier version has the datadir as its one place."""
    plan = from_json(Plan, _plan())
    assert [(p.path, p.old, p.new, p.is_whole) for p in plan.swap_places] == [
        ("datadir", "old_datadir", "new_datadir", True)
    ]


def _plan() -> dict[str, Any]:
    fields = [f for f in dataclasses.fields(Plan) if f.default is dataclasses.MISSING]
    values = {"int": 1, "bool": True}  # by the name of the type, for annotations are text
    others = ("commands", "places", "subfolders")
    return {f.name: values.get(str(f.type), f.name) for f in fields if f.name not in others}


@pytest.mark.parametrize(
    ("host", "files", "changes", "words"),
    [
        ({"mounts_inside": ("/var/lib/mysql/big",)}, [], {}, "mount path inside"),
        ({"is_mount_path": True, "datadir_owner": "root:root"}, [], {}, "belongs to root:root"),
        ({"real_datadir": "/a\nb"}, [], {}, "not handled"),
        ({}, [make_files("/logs", "")], {}, "which is not there"),
        ({}, [make_files("/var/lib/mysql/redo", "/elsewhere")], {}, "leads out of the datadir"),
        ({}, [make_files("/logs", foreign=("ib_logfile0",))], {}, "another server uses"),
        ({}, [make_files("/lo\\gs")], {}, "not handled"),
        ({}, [], {"half_swapped": ("r1",)}, "run r1 was cut off"),
        ({}, [], {"absolute_tablespaces": ("/raw/x",)}, "absolute path"),
        ({}, [], {"contradictions": ("this and that",)}, "this and that"),
    ],
)
def test_what_cannot_be_swapped_is_told(
    host: dict[str, Any], files: list[FoundFiles], changes: dict[str, Any], words: str
) -> None:
    """Each layout that cannot be swapped is told in one line."""
    found = problems(make_host(**host), *files, **changes)
    assert len(found) == 1
    assert words in found[0]


def test_what_can_be_swapped_is_no_problem() -> None:
    """Directories inside that are not there yet, and outside that are, are no problem."""
    assert problems(make_host(), make_files("/var/lib/mysql/redo", ""), make_files("/logs")) == []


def test_the_answer_is_parsed_by_kind() -> None:
    """What the script says of a directory is kept with the kind that was asked for."""
    sets = tuple(FileSet(what=w, directory=f"/{w}", patterns=("x",)) for w in ("a", "b"))
    text = "1.real\t/b b\n1.filesystem\t7\n1.free_bytes\t9\n1.bytes\t3\n1.foreign\tx\nhalf_swapped\tr\n"
    found = parse_places("replica", text, sets)
    assert found.files[0].real == ""
    assert (found.files[1].real, found.files[1].bytes, found.files[1].foreign) == (
        "/b b",
        3,
        ("x",),
    )
    assert found.half_swapped == ("r",)
