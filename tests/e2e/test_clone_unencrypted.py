"""A donor that is not encrypted: refused where that was asked for, cloned otherwise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import MARIADB_CHECKS, CloneLab, running_lab
from replicas import check_arrival, list_leftovers, read_inode, read_pid
from vault_root import VaultRoot

from orchestrator.flavors import mariadb_sql

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

OF_KEYS = {
    "tablespaces-own-key",
    "server-on-own-mount",
    "donor-mount-refused",
    "keys-not-shared",
}
"""Checks of what a donor without keys does not have."""
START_AGAIN = """
rm -rf /var/lib/mysql /etc/mysql/mariadb.conf.d/60-encryption.cnf
install -d -o mysql -g mysql /var/lib/mysql
"""
DATA = """
CREATE DATABASE shop;
USE shop;
CREATE TABLE shop.audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(40) NOT NULL);
INSERT INTO shop.audit (what) SELECT MD5(seq) FROM seq_1_to_5000;
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring a laboratory up, and make its master anew without any encryption."""
    directory = tmp_path_factory.mktemp("unencrypted") / "lab"
    with running_lab(directory, "--replica-server", "--no-writer", size=0.01) as found:
        found.lab("server", "stop", "master")
        found.on("master", START_AGAIN)
        found.lab("server", "initialize", "master")
        found.lab("server", "start", "master")
        found.sql("master", DATA)
        yield found


def test_a_donor_without_keys_is_refused_where_encryption_is_required(lab: CloneLab) -> None:
    """With --require-encryption, a donor without a keyring ends with exit status 3, untouched."""
    pid, inode = read_pid(lab), read_inode(lab)
    document = lab.clone("--replace", "--require-encryption", check=False)
    assert document["exit"] == 3
    assert [check["name"] for check in document["checks"] if not check["ok"]] == ["donor-keyring"]
    assert (read_pid(lab), read_inode(lab)) == (pid, inode)


@pytest.fixture(scope="module")
def cloned(lab: CloneLab) -> dict[str, Any]:
    """Clone the unencrypted donor to a recipient whose own options encrypt, over a slow wire."""
    return lab.clone("--replace", "--throttle", "20M")


def test_a_donor_without_keys_is_cloned(lab: CloneLab, cloned: dict[str, Any]) -> None:
    """A donor without a keyring is cloned, with every check that is not about its keys."""
    assert cloned["status"] == "succeeded"
    names = [check["name"] for check in cloned["checks"]]
    assert names == [name for name in MARIADB_CHECKS if name not in OF_KEYS]
    assert all(check["ok"] for check in cloned["checks"])
    assert list_leftovers(lab, cloned["run_id"]) == []
    check_arrival(lab)


def test_pages_in_the_clear_are_smaller_on_the_wire(lab: CloneLab, cloned: dict[str, Any]) -> None:
    """The throttle and a sample make zstd pay, and less than half of the tablespaces' bytes go."""
    (found,) = [c for c in cloned["checks"] if c["name"] == "stream-exit-statuses"]
    assert found["evidence"] == "donor 0 0 0, recipient 0 0"
    size = lab.on("master", "cd /var/lib/mysql && cat ibdata1 */*.ibd | wc -c")
    assert 0 < cloned["bytes_streamed"] < int(size) / 2


def test_no_key_is_made_where_there_was_none(lab: CloneLab, cloned: dict[str, Any]) -> None:
    """The recipient's mount has the versions that it had, and its server encrypts with them."""
    root = VaultRoot(lab.directory)
    assert root.live_versions("mariadb-replica", "1") == [1]
    assert root.list_mounts("xbvault-transition") == []
    encrypted = (
        "SELECT COUNT(*) > 0, MIN(MIN_KEY_VERSION) FROM "
        "information_schema.INNODB_TABLESPACES_ENCRYPTION WHERE NAME = 'shop/audit'"
    )
    assert lab.sql("replica", encrypted) == [["1", "1"]]


def test_logs_are_begun_anew_where_something_was_logged(
    lab: CloneLab, cloned: dict[str, Any]
) -> None:
    """What replication begins with lets logs without an event be, and does away with used ones."""
    state = "; SELECT @@GLOBAL.gtid_binlog_state"
    lab.sql("replica", "STOP SLAVE; RESET MASTER; FLUSH BINARY LOGS")
    untouched = lab.sql("replica", f"{mariadb_sql.RESET_USED_LOGS_SQL}; SHOW BINARY LOGS")
    assert [name for name, _ in untouched] == ["bin.000001", "bin.000002"]
    assert lab.sql("replica", f"CREATE DATABASE of_its_own{state}") != [[""]]
    assert lab.sql("replica", f"{mariadb_sql.RESET_USED_LOGS_SQL}{state}") == [[""]]
    (log,) = lab.sql("replica", "SHOW BINARY LOGS")
    assert log[0] == "bin.000001"
