"""Where a server keeps its files, and what a restore leaves behind."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
import samples

from orchestrator.flavors import mysql_files
from orchestrator.models import Coordinates

DATADIR = "/var/lib/mysql"
DEFAULTS_5_7 = {
    "log_bin": "ON",
    "log_bin_basename": "/var/lib/mysql/mysql-bin",
    "log_bin_index": "/var/lib/mysql/mysql-bin.index",
    "relay_log_basename": "/var/lib/mysql/db1-relay-bin",
    "relay_log_index": "/var/lib/mysql/db1-relay-bin.index",
    "innodb_data_home_dir": "",
    "innodb_data_file_path": "ibdata1:12M:autoextend",
    "innodb_undo_directory": "./",
    "innodb_log_group_home_dir": "./",
}
DEFAULTS_9_7 = {
    **DEFAULTS_5_7,
    "innodb_doublewrite_dir": "",
    "innodb_temp_tablespaces_dir": "./#innodb_temp/",
}


def places(values: dict[str, str]) -> dict[str, str]:
    """Return the directories by what is in them."""
    found = mysql_files.list_file_sets(values, datadir=DATADIR)
    assert len(found) == len({one.what for one in found})
    return {one.what: one.directory for one in found}


def find_taken(values: dict[str, str], name: str) -> set[str]:
    """Return the kinds of files that a name is one of."""
    return {
        one.what
        for one in mysql_files.list_file_sets(values, datadir=DATADIR)
        if any(fnmatchcase(name, pattern) for pattern in one.patterns)
    }


def test_everything_is_in_the_datadir_by_default() -> None:
    """Temporary tablespaces have a folder of their own there."""
    assert set(places(DEFAULTS_5_7).values()) == {DATADIR}
    found = places(DEFAULTS_9_7)
    assert found.pop("InnoDB temporary tablespaces") == f"{DATADIR}/#innodb_temp"
    assert set(found.values()) == {DATADIR}
    assert len(found) == 8


def test_directories_of_options() -> None:
    """Options name directories by absolute and by relative paths."""
    found = places(
        {
            "log_bin": "/logs/my bin.log",
            "relay_log": "relay",
            "innodb_undo_directory": "undo/",
            "innodb_log_group_home_dir": "/fast//redo/",
            "innodb_doublewrite_dir": "/fast/dblwr",
            "innodb_temp_tablespaces_dir": "/fast/temp",
        }
    )
    assert found == {
        "binary logs": "/logs",
        "relay logs": DATADIR,
        "InnoDB system tablespace": DATADIR,
        "InnoDB redo log": "/fast/redo",
        "InnoDB undo tablespaces": f"{DATADIR}/undo",
        "InnoDB doublewrite files": "/fast/dblwr",
        "InnoDB temporary tablespaces": "/fast/temp",
    }


def test_doublewrite_files_follow_the_system_tablespace() -> None:
    """Unless they have a directory of their own."""
    found = places({"innodb_data_home_dir": "/data"})
    assert found["InnoDB doublewrite files"] == found["InnoDB system tablespace"] == "/data"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("mysql-bin.000001", "binary logs"),
        ("mysql-bin.index", "binary logs"),
        ("db1-relay-bin.000002", "relay logs"),
        ("ibdata1", "InnoDB system tablespace"),
        ("ibtmp1", "InnoDB system tablespace"),
        ("ib_buffer_pool", "InnoDB system tablespace"),
        ("ib_logfile0", "InnoDB redo log"),
        ("#innodb_redo", "InnoDB redo log"),
        ("undo001", "InnoDB undo tablespaces"),
        ("undo_001", "InnoDB undo tablespaces"),
        ("more.ibu", "InnoDB undo tablespaces"),
        ("#ib_16384_0.dblwr", "InnoDB doublewrite files"),
        ("#ib_16384_1.bdblwr", "InnoDB doublewrite files"),
        ("temp_7.ibt", "InnoDB temporary tablespaces"),
    ],
)
def test_files_of_a_server(name: str, what: str) -> None:
    """Of old and new series; every one is of one kind."""
    assert what in find_taken(DEFAULTS_9_7, name)
    assert len(find_taken(DEFAULTS_9_7, name) - {"binary log index"}) == 1


@pytest.mark.parametrize("name", ["my.cnf", "mysql.ibd", "auto.cnf", "mysql-bin2.000001", "undo"])
def test_files_of_somebody_else(name: str) -> None:
    """What only looks alike stays, and what never lies elsewhere is no kind of its own."""
    assert find_taken(DEFAULTS_9_7, name) == set()


def test_variables_are_all_that_matters() -> None:
    """What is asked of a running server is what the answer depends on."""
    assert set(DEFAULTS_9_7) - {"log_bin"} == set(mysql_files.VARIABLES)


# After a restore.


def test_leftovers_of_a_real_restore() -> None:
    """Everything of the set that the tool put into the data directory is in the list."""
    listed = samples.read("xtrabackup-2.4/ls-datadir").split("\n")
    names = {line.split()[-1] for line in listed[1:] if line}
    left = {name for name in names if name.startswith("xtrabackup")}
    assert left == {
        "xtrabackup_info",
        "xtrabackup_keys",
        "xtrabackup_master_key_id",
        "xtrabackup_binlog_pos_innodb",
    }
    assert left <= set(mysql_files.list_leftovers(None))
    assert not (names - left) & set(mysql_files.list_leftovers(None))


def test_a_carried_binary_log_is_left_over() -> None:
    """With its index; without coordinates there is none."""
    found = mysql_files.list_leftovers(Coordinates(file="my.bin.000007", position=157))
    assert found[-2:] == ("my.bin.000007", "my.bin.index")
    coordinates = Coordinates(file="my.bin.000007", position=157)
    found = mysql_files.list_leftovers(coordinates, index="/logs/names of logs")
    assert found[-2:] == ("my.bin.000007", "names of logs")
    nameless = mysql_files.list_leftovers(Coordinates(file="", position=0, gtid="x"))
    assert nameless == mysql_files.list_leftovers(None)
    assert "auto.cnf" in nameless
    assert "xtrabackup_slave_info" in nameless
