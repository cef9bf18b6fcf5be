"""Datadirs as they are in the wild: a mount path with logs elsewhere, and a symbolic link.

One laboratory for the whole file (``tests/support/layouts.py``). The fixtures are the story, and the
tests hold in their order.
"""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import MARIADB_CHECKS
from layouts import (
    ARIA,
    DATADIR,
    LOGS,
    REAL,
    REDO,
    SYSTEM,
    UNDO,
    Listing,
    list_places,
    spread_lab,
)
from replicas import check_arrival, list_leftovers, read_inode, restart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clone_lab import CloneLab

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

APPARMOR = """\
set -eu
mount -t tmpfs tmpfs /sys/kernel/security
mkdir /sys/kernel/security/apparmor
echo '/usr/sbin/mariadbd (enforce)' > /sys/kernel/security/apparmor/profiles
mkdir -p /etc/apparmor.d
mount -t tmpfs tmpfs /etc/apparmor.d
printf '%s\\n' '/usr/sbin/mariadbd {' '  /var/lib/mysql/** rwk,' '  /var/log/mysql/** rw,' \\
    '  "/var/lib/{redo log,undo,system}/**" rwk,' '}' > /etc/apparmor.d/usr.sbin.mariadbd
"""


def clone(lab: CloneLab, recipient: str = "replica", *, check: bool = True) -> dict[str, Any]:
    """Clone with --replace; return the document, and the exit status as ``exit``."""
    command = ("clone", "master", recipient, "--replace", "--json", "--yes")
    ended = lab.xbvault(*command, check=False)
    assert not check or ended.returncode == 0, ended.stdout + ended.stderr
    return {**json.loads(ended.stdout), "exit": ended.returncode}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    with spread_lab(tmp_path_factory.mktemp("layouts") / "lab") as found:
        yield found


@pytest.fixture(scope="module")
def before(lab: CloneLab) -> Listing:
    """Return what lies where before the first clone."""
    return list_places(lab)


def test_the_laboratory_is_spread(before: Listing) -> None:
    """Every kind of file that can lie elsewhere does so before the first clone."""
    assert "lost+found" in before[DATADIR]
    assert "ibdata1" in before[SYSTEM]
    assert "ib_logfile0" in before[REDO]
    assert {"undo001", "undo002", "undo003"} <= set(before[UNDO])
    assert "aria_log_control" in before[ARIA]
    assert {"mysql-bin.000001", "mysql-bin.index", "error.log"} <= set(before[LOGS])
    assert not {"ibdata1", "ib_logfile0", "undo001", "aria_log_control"} & set(before[DATADIR])


def test_a_profile_that_would_deny_is_named(lab: CloneLab, before: Listing) -> None:
    """An AppArmor profile without a rule for one of the directories is named, with the directory."""
    lab.lab("server", "stop", "replica")
    lab.on("replica", APPARMOR)
    refused = clone(lab, check=False)
    lab.on("replica", "umount /sys/kernel/security /etc/apparmor.d")
    lab.lab("server", "start", "replica")
    assert refused["exit"] == 3
    bad = [check for check in refused["checks"] if not check["ok"]]
    assert [check["name"] for check in bad] == ["apparmor"]
    assert bad[0]["evidence"] == f"the profile /usr/sbin/mariadbd denies {ARIA}"
    assert f"{ARIA}/** rwk" in bad[0]["hint"]


@pytest.fixture(scope="module")
def first(lab: CloneLab, before: Listing) -> dict[str, Any]:
    """Clone onto the server that is spread."""
    return clone(lab)


def test_a_spread_datadir_is_replaced(lab: CloneLab, first: dict[str, Any]) -> None:
    """The clone succeeds with all its checks, and every file is where the server's options say."""
    assert [check["name"] for check in first["checks"]] == MARIADB_CHECKS
    assert all(check["ok"] for check in first["checks"])
    check_arrival(lab)
    found = list_places(lab)
    assert "ibdata1" in found[SYSTEM]
    assert "ib_logfile0" in found[REDO]
    assert "aria_log_control" in found[ARIA]
    assert "mysql-bin.index" in found[LOGS]
    assert not {"ibdata1", "ib_logfile0", "undo001", "aria_log_control"} & set(found[DATADIR])
    assert lab.on("replica", f"cat {LOGS}/mysql-bin.err {DATADIR}/lost+found/file").split() == [
        "nobody's",
        "kept",
    ]
    assert list_leftovers(lab, first["run_id"]) == []


def test_what_was_there_is_set_aside(lab: CloneLab, before: Listing, first: dict[str, Any]) -> None:
    """Every file of the earlier server lies in our hidden folder of the directory that it was in."""
    for path, names in before.items():
        kept = lab.on(
            "replica", f"ls -1A {shlex.quote(path)}/.xbvault/old-{first['run_id']}"
        ).split()
        left = {"lost+found", "error.log", "stdout.log", "mysql-bin.err"}
        gone = {"ddl_recovery.log", "ibtmp1"}  # a server that is stopped removes them
        assert set(names) - left - gone <= set(kept)
        assert lab.on("replica", f"ls {shlex.quote(path)}/.xbvault").split() == [
            f"old-{first['run_id']}"
        ]


def test_our_folder_is_no_schema(lab: CloneLab, first: dict[str, Any]) -> None:
    """Neither the server nor its backup tool takes our folder for a schema."""
    names = [row[0] for row in lab.sql("replica", "SHOW DATABASES")]
    assert not any("xbvault" in name for name in names)
    script = (
        "set -a; . /etc/mysql/vault.env; mariadb-backup --backup --target-dir=/tmp/own "
        "--user=root 2>/tmp/own.log || { tail -n 5 /tmp/own.log; exit 1; }; "
        "tail -n 1 /tmp/own.log; find /tmp/own -name '*xbvault*' ! -name 'xtrabackup*'; "
        "rm -r /tmp/own"
    )
    shown = lab.on("replica", script)
    assert shown.strip().endswith("completed OK!")
    assert ".xbvault" not in shown


def test_undo_gives_everything_back(lab: CloneLab, before: Listing, first: dict[str, Any]) -> None:
    """After an undo the earlier server runs on its earlier files, and nothing of ours is left."""
    lab.xbvault("runs", "undo", first["run_id"], "--yes")
    assert lab.sql("replica", "SELECT a FROM `kept 'here'`.t ORDER BY a") == [["1"], ["2"]]
    now = list_places(lab)
    assert not any(".xbvault" in names for names in now.values())
    for path, names in before.items():
        assert set(names) <= set(now[path])
    assert "live" not in now[DATADIR]
    logs = lab.sql("replica", "SHOW BINARY LOGS")
    assert logs[0][0] == "mysql-bin.000001"


def test_forget_leaves_nothing_of_ours(lab: CloneLab, first: dict[str, Any]) -> None:
    """After another clone and forget, the replica outlives a restart and our folders are gone."""
    second = clone(lab)
    lab.xbvault("runs", "forget", second["run_id"], "--yes")
    assert not any(".xbvault" in names for names in list_places(lab).values())
    restart(lab, "replica")
    check_arrival(lab)
    assert lab.on("replica", f"cat {DATADIR}/lost+found/file").strip() == "kept"


def test_a_linked_datadir_is_swapped_where_it_is(lab: CloneLab) -> None:
    """The directory that the link leads to is swapped, the link stays, and undo gives it back."""
    link, inode = read_inode(lab, DATADIR, "replica2"), read_inode(lab, f"'{REAL}'", "replica2")
    document = clone(lab, "replica2")
    assert document["status"] == "succeeded"
    check_arrival(lab, target="replica2")
    assert read_inode(lab, DATADIR, "replica2") == link
    assert lab.on("replica2", f"readlink {DATADIR}").strip() == REAL
    old = f"'{REAL}.xbvault-old-{document['run_id']}'"
    assert read_inode(lab, old, "replica2") == inode
    lab.xbvault("runs", "undo", document["run_id"], "--yes")
    assert read_inode(lab, f"'{REAL}'", "replica2") == inode
    assert lab.on("replica2", "ls '/var/lib/a disk'").split() == ["data"]
    assert lab.sql("replica2", "SELECT COUNT(*) FROM `kept 'here'`.t") == [["2"]]
