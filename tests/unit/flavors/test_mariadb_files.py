"""Where a server keeps its files, by variables and by options."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from orchestrator.flavors.file_sets import list_absolute_tablespaces
from orchestrator.flavors.mariadb_files import list_file_sets

DEFAULTS = {
    "log_bin": "ON",
    "log_bin_basename": "/var/lib/mysql/bin",
    "log_bin_index": "/var/lib/mysql/bin.index",
    "relay_log_basename": "",
    "innodb_data_home_dir": "",
    "innodb_undo_directory": "./",
    "innodb_log_group_home_dir": "./",
    "aria_log_dir_path": "/var/lib/mysql/",
    "innodb_data_file_path": "ibdata1:12M:autoextend",
}


def places(values: dict[str, str]) -> dict[str, str]:
    """Return the directories by what is in them."""
    return {one.what: one.directory for one in list_file_sets(values, datadir="/var/lib/mysql")}


def test_everything_is_in_the_datadir_by_default() -> None:
    """Default variables name no other directory than the datadir."""
    found = places(DEFAULTS)
    assert set(found.values()) == {"/var/lib/mysql"}
    assert len(found) == 6


def test_directories_of_options() -> None:
    """Options name directories by absolute and by relative paths."""
    found = places(
        {
            "log_bin": "/logs/my bin.log",
            "relay_log": "relay",
            "innodb_undo_directory": "undo/",
            "aria_log_dir_path": "/logs//aria/",
        }
    )
    assert found["binary logs"] == "/logs"
    assert found["relay logs"] == "/var/lib/mysql"
    assert found["InnoDB undo tablespaces"] == "/var/lib/mysql/undo"
    assert found["Aria log"] == "/logs/aria"


@pytest.mark.parametrize("value", ["1", "ON", "", "0"])
def test_a_log_without_a_name_is_in_the_datadir(value: str) -> None:
    """A log that is only switched on has its default name in the datadir."""
    assert "binary logs" not in places({"log_bin": value})


def test_patterns_take_the_servers_files_alone() -> None:
    """Binary logs, their index and state are taken; what only begins like them is not."""
    values = {"log_bin": "/logs/m[y].log"}  # the server cuts the extension off
    patterns = list_file_sets(values, datadir="/d")[0].patterns

    def is_taken(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    assert all(is_taken(f"m[y].{end}") for end in ("000001", "index", "state", "1000000"))
    assert not any(map(is_taken, ("m[y].err", "my.000001", "m[y]2.000001", "m[y]", "m[y].log")))


def test_custom_system_tablespaces() -> None:
    """Files of the system tablespace are known by name, and those elsewhere are told."""
    values = {"innodb_data_file_path": "data1:1G;/raw/data2:1G:autoextend"}
    system = next(s for s in list_file_sets(values, datadir="/d") if "system" in s.what)
    assert "data1" in system.patterns
    assert list_absolute_tablespaces(values) == ("/raw/data2",)
