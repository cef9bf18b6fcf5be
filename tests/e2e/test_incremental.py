"""Incremental backups on real servers: a chain is taken, restored as a whole, and broken.

The tests share a laboratory, and hold in their order: what is taken away stays away.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

import laws
import pytest
import set_laws
from clone_lab import CloneLab, running_lab
from replicas import list_beside, list_leftovers, restart
from vault_root import VaultRoot
from ways import MARIADB

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

NO_SUCH = "20260101T000000Z-master-00000000"
ROWS = "SELECT id, what FROM inc.renamed ORDER BY id"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """A full backup and two that build on it.

    Attributes:
        full: What ``backup --json`` printed.
        first: The same with ``--incremental``.
        second: Once more, on top of that.
        digests: Of the donor's tables at the end of each.
    """

    full: dict[str, Any]
    first: dict[str, Any]
    second: dict[str, Any]
    digests: tuple[dict[str, str], ...]

    @property
    def names(self) -> list[str]:
        """The sets, the full one first."""
        return [each["backup_id"] for each in (self.full, self.first, self.second)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloneLab]:
    """Bring the laboratory up."""
    folder = tmp_path_factory.mktemp("incremental") / "lab"
    with running_lab(folder, "--stores", "2", "--no-writer", size=0.02) as found:
        yield found


@pytest.fixture(scope="module")
def chain(lab: CloneLab) -> Chain:
    """Return a chain over which the donor did what is hard for one: keys, tables and names changed."""
    lab.sql("master", "SET GLOBAL event_scheduler = OFF")
    lab.sql(
        "master",
        "CREATE DATABASE inc; CREATE TABLE inc.kept (id INT PRIMARY KEY, what VARCHAR(100)); "
        "INSERT INTO inc.kept VALUES (1, 'in the full set'); CREATE TABLE inc.dropped (id INT)",
    )
    full = lab.backup("master", "--to", "store")
    digests = [laws.read_digests(lab, "master", MARIADB)]
    rotate_keys(lab)
    lab.sql(
        "master",
        "CREATE TABLE inc.made (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(100)); "
        "INSERT INTO inc.made (what) VALUES ('in the first'); UPDATE inc.kept SET what = 'changed'; "
        "CREATE TABLE inc.aria (id INT) ENGINE = Aria; INSERT INTO inc.aria VALUES (7); "
        "DROP TABLE inc.dropped; ALTER TABLE shop.customers ADD COLUMN since_full INT DEFAULT 4",
    )
    first = lab.backup("master", "--to", "store", "--incremental", "--compress", "zstd:1")
    digests.append(laws.read_digests(lab, "master", MARIADB))
    lab.sql(
        "master",
        "RENAME TABLE inc.made TO inc.renamed; INSERT INTO inc.renamed (what) VALUES ('in the second');"
        " INSERT INTO inc.aria VALUES (8); TRUNCATE TABLE inc.kept",
    )
    second = lab.backup("master", "--to", "store", "--incremental")
    digests.append(laws.read_digests(lab, "master", MARIADB))
    return Chain(full=full, first=first, second=second, digests=tuple(digests))


def rotate_keys(lab: CloneLab) -> None:
    """Give the donor a new version of its key, which what it writes from now on is under."""
    VaultRoot(lab.directory).write_secret("mariadb-master", "1", {"data": secrets.token_hex(32)})
    restart(lab, "master")
    lab.sql("master", "SET GLOBAL event_scheduler = OFF")


def restore(lab: CloneLab, name: str, *options: str, check: bool = True) -> dict[str, Any]:
    """Bring a set of the first repository back on the replica, whatever is there."""
    lab.on("replica", "mariadb -e 'SET GLOBAL read_only = ON'", check=False)
    where = () if "--from" in options else ("--from", "store")
    return lab.restore(name, "replica", *where, "--replace", *options, check=check)


def find_check(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a check of a document."""
    (found,) = (check for check in document["checks"] if check["name"] == name)
    return dict(found)


def list_sets(lab: CloneLab) -> dict[str, dict[str, Any]]:
    """Return what the list says of the sets in the first repository, by name."""
    listed = json.loads(lab.xbvault("backups", "list", "--repo", "store", "--json").stdout)
    return {each["backup_id"]: each for each in listed}


def test_each_builds_on_the_one_before_it(lab: CloneLab, chain: Chain) -> None:
    """By name, and by the log sequence number at which that ends; it has less than a full one."""
    told = [each["base_backup_id"] for each in (chain.full, chain.first, chain.second)]
    assert told == [None, *chain.names[:2]]
    manifests = [set_laws.read_manifest(lab, name) for name in chain.names]
    assert [each["kind"] for each in manifests] == ["full", "incremental", "incremental"]
    assert [each["base_backup_id"] for each in manifests] == ["", *chain.names[:2]]
    assert [each["from_lsn"] for each in manifests[1:]] == [
        each["to_lsn"] for each in manifests[:2]
    ]
    assert manifests[2]["stream_bytes"] < manifests[0]["stream_bytes"]
    assert {each["state"] for each in list_sets(lab).values()} == {"complete"}
    verified = json.loads(lab.xbvault("backups", "verify", chain.names[2], "--json").stdout)
    assert [each["backup_id"] for each in verified["sets"]] == chain.names


@pytest.mark.parametrize("index", [1, 2])
def test_a_chain_is_restored_as_a_whole(lab: CloneLab, chain: Chain, index: int) -> None:
    """Up to any of its sets, each of them under keys of its own, with the donor's mount out of reach."""
    name = chain.names[index] if index < 2 else "latest"
    document = restore(lab, name, "--read-only")
    assert document["backup_id"] == chain.names[index]
    assert document["base_backup_ids"] == chain.names[:index]
    found = find_check(document, "increments")
    assert f"{index}, each from where the one before it ends" in found["evidence"]
    assert laws.read_digests(lab, "replica", MARIADB) == chain.digests[index]
    at = set_laws.read_manifest(lab, chain.names[index])["coordinates"]
    assert find_check(document, "coordinates")["evidence"].endswith(at["gtid"])
    if index == 2:
        assert [row[1] for row in lab.sql("replica", ROWS)] == ["in the first", "in the second"]
        assert [row[0] for row in lab.sql("replica", "SELECT id FROM inc.aria ORDER BY id")] == [
            "7",
            "8",
        ]
    assert not [path for path in list_beside(lab, "replica") if "increment" in path]
    assert list_leftovers(lab, document["run_id"]) == []


def test_a_moment_after_an_incremental_backup(lab: CloneLab, chain: Chain) -> None:
    """Less is replayed: the archives are needed from the end of the newest set on."""
    lab.sql("master", "INSERT INTO inc.renamed (what) VALUES ('replayed')")
    lab.run("binlogs", "archive", "master", "--to", "store")
    document = restore(lab, "latest", "--at", "latest")
    assert document["backup_id"] == chain.names[2]
    assert [row[1] for row in lab.sql("replica", ROWS)][-1] == "replayed"


def test_a_drill_takes_a_chain(lab: CloneLab, chain: Chain) -> None:
    """And is of the whole of it."""
    lab.sql("replica", "SET GLOBAL read_only = ON")
    document = lab.drill("latest", "replica", "--from", "store")
    assert document["backup_id"] == chain.names[2]
    assert document["verdict"] == "passed"
    assert find_check(document, "increments")["ok"]


def test_what_cannot_be_built_on(lab: CloneLab, chain: Chain) -> None:
    """No such set; none in that repository; a server that was put back since."""
    refused = lab.backup("master", "--to", "store", "--base", NO_SUCH, check=False)
    assert refused["exit"] == 3
    assert NO_SUCH in refused["error"]["message"]
    refused = lab.backup("master", "--to", "store2", "--incremental", check=False)
    assert refused["exit"] == 3
    assert "takes a full one" in refused["error"]["hint"]
    # The same names of logs and the same positions, with another history.
    lab.sql("master", "RESET MASTER")
    refused = lab.backup("master", "--to", "store", "--incremental", check=False)
    assert refused["exit"] == 3
    assert "base-position" in refused["error"]["message"]
    assert "take a full backup" in refused["error"]["hint"]


def test_a_copy_wants_the_base_first(lab: CloneLab, chain: Chain) -> None:
    """A set that nobody can restore there is none."""
    refused = lab.run("backups", "copy", chain.names[1], "--to", "store2", check=False)
    assert refused["exit"] == 3
    assert chain.names[0] in refused["error"]["message"]
    lab.run("backups", "copy", chain.names[0], "--to", "store2")
    lab.run("backups", "copy", chain.names[1], "--to", "store2")
    listed = json.loads(lab.xbvault("backups", "list", "--repo", "store2", "--json").stdout)
    assert [each["state"] for each in listed] == ["complete", "complete"]


def test_a_base_is_not_undone(lab: CloneLab, chain: Chain) -> None:
    """While something builds on it; its keys stay as well."""
    refused = lab.run("runs", "undo", chain.full["run_id"], check=False)
    assert refused["exit"] == 3
    assert chain.names[1] in refused["error"]["message"]
    assert {each["state"] for each in list_sets(lab).values()} == {"complete"}
    assert {each["keys"]["state"] for each in list_sets(lab).values()} == {"active"}


def test_a_broken_chain_is_named(lab: CloneLab, chain: Chain) -> None:
    """At verify and at the restore, which falls back to the last whole point only when asked."""
    set_laws.find_repository(lab).joinpath(chain.names[1]).rename(
        set_laws.find_repository(lab).parent / "away"
    )
    assert list_sets(lab)[chain.names[2]]["state"] == "chain-broken"
    verified = lab.xbvault("backups", "verify", chain.names[2], "--repo", "store", check=False)
    assert verified.returncode == 6
    assert f"no sound backup set {chain.names[1]}" in verified.stderr
    for asked, status in ((chain.names[2], 3), ("latest", 6)):
        refused = restore(lab, asked, check=False)
        assert refused["exit"] == status
        assert chain.names[1] in refused["error"]["message"]
        assert "--last-whole" in refused["error"]["hint"]
    document = restore(lab, chain.names[2], "--last-whole", "--read-only")
    assert document["backup_id"] == chain.names[0]
    assert laws.read_digests(lab, "replica", MARIADB) == chain.digests[0]


def test_a_revoked_base_takes_what_builds_on_it_along(lab: CloneLab, chain: Chain) -> None:
    """Of the copy, whose chain is whole: exit 5, with who and when."""
    planned = lab.run("keys", "revoke", chain.names[0], "--plan", yes=False)
    assert planned["dependents"] == chain.names[:0:-1]
    lab.run("keys", "revoke", chain.names[0], "--reason", "a test")
    refused = restore(lab, chain.names[1], "--from", "store2", check=False)
    assert refused["exit"] == 5
    assert f"keys of backup set {chain.names[0]} were destroyed on" in refused["error"]["message"]
