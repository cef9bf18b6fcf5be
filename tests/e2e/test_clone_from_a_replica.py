"""A replica as donor: first the new one follows it, then it follows the same source.

One laboratory of each flavor for the whole file, whose master is being written all the while; with
MySQL, the backup tool is a double. The fixtures are the story, one chapter each: the donor is made by a
clone, then a child of it, then a sibling in the child's place. So the tests hold in their order.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from clone_lab import CloneLab, running_lab
from mysql_lab import list_master_keys, mysql_lab
from replicas import check_arrival, show_run

from orchestrator.flavors.interface import account_name

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]

PROVED = {"coordinates", "tables-equal", "replication-running", "replication-advancing"}
DONOR, RECIPIENT, SOURCE = "replica", "replica2", "master"


def call(lab: CloneLab, *arguments: str) -> dict[str, Any]:
    """Call ``xbvault clone`` and return its document, with the exit status as ``exit``."""
    finished = lab.xbvault("clone", *arguments, "--json", "--yes", check=False)
    document: dict[str, Any] = json.loads(finished.stdout)
    return {**document, "exit": finished.returncode}


def list_bad(document: dict[str, Any]) -> set[tuple[str, str]]:
    """Return name and host of the checks that do not hold."""
    return {(check["name"], check["host"]) for check in document["checks"] if not check["ok"]}


def find_evidence(document: dict[str, Any], name: str) -> str:
    """Return what was seen for a check."""
    return next(str(check["evidence"]) for check in document["checks"] if check["name"] == name)


def has_account(lab: CloneLab, host: str, run_id: str) -> bool:
    """Return whether the replication account of a run is on a server."""
    count = f"SELECT COUNT(*) FROM mysql.user WHERE User = '{account_name(run_id)}'"
    return lab.sql(host, count) != [["0"]]


def read_threads(lab: CloneLab, host: str) -> tuple[str, str, str]:
    """Return whom a replica follows, and whether it fetches and applies."""
    word = {"mariadb": "SLAVE", "mysql": "REPLICA"}[lab.flavor]
    text = lab.on(host, f"{lab.flavor} -E -e 'SHOW {word} STATUS'")
    names = (
        "(?:Master|Source)_Host",
        "(?:Slave|Replica)_IO_Running",
        "(?:Slave|Replica)_SQL_Running",
    )
    found = [re.search(rf"^ *{name}: (\S+)$", text, re.MULTILINE) for name in names]
    host_name, io, applier = (one.group(1) if one else "" for one in found)
    return host_name, io, applier


def read_origin(lab: CloneLab) -> str:
    """Return the beginning of every GTID that was first written on the master."""
    if lab.flavor == "mysql":
        return lab.sql(SOURCE, "SELECT @@server_uuid")[0][0] + ":"
    return f"0-{lab.sql(SOURCE, 'SELECT @@server_id')[0][0]}-"


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CloneLab]:
    """Bring the laboratory up, and make the donor: a replica of the master."""
    directory = tmp_path_factory.mktemp("from-replica") / "lab"
    make = {"mariadb": running_lab, "mysql": mysql_lab}[request.param]
    with make(directory, "--replicas", "2", size=0.02) as found:
        found.clone("--checksums", "none")
        yield found


@pytest.fixture(scope="module")
def addresses(lab: CloneLab) -> dict[str, str]:
    """Return the addresses of the hosts."""
    return {host: lab.on(host, "hostname -I").split()[0] for host in (SOURCE, DONOR, RECIPIENT)}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((DONOR, RECIPIENT, "--source", RECIPIENT), 3, "source and recipient at once"),
        ((DONOR, RECIPIENT, "--source", "nowhere"), 2, "unknown host 'nowhere'"),
        ((SOURCE, RECIPIENT, "--source", DONOR), 3, "replicates from nobody"),
    ],
)
def test_a_source_that_is_none_is_refused(
    lab: CloneLab, arguments: tuple[str, ...], status: int, words: str
) -> None:
    """The recipient, an unknown host, and a host that the donor does not follow."""
    document = call(lab, *arguments)
    assert document["exit"] == status
    assert words in json.dumps(document["error"])


def test_a_donor_that_has_stopped_can_have_no_sibling(lab: CloneLab) -> None:
    """It is refused before anything is changed, and the finding says what is stopped."""
    word = {"mariadb": "SLAVE", "mysql": "REPLICA"}[lab.flavor]
    lab.sql(DONOR, f"STOP {word} SQL_THREAD")
    try:
        document = call(lab, DONOR, RECIPIENT, "--source", SOURCE)
    finally:
        lab.sql(DONOR, f"START {word}")
    assert document["exit"] == 3
    assert list_bad(document) == {("donor-replication", DONOR)}
    assert "applies: No" in find_evidence(document, "donor-replication")


@pytest.fixture(scope="module")
def child(lab: CloneLab) -> dict[str, Any]:
    """Clone the donor as it is done without another source; that is the donor itself."""
    return call(lab, DONOR, RECIPIENT, "--source", DONOR)


def test_a_child_follows_the_donor(
    lab: CloneLab, child: dict[str, Any], addresses: dict[str, str]
) -> None:
    """Every check holds, and what is written on the master comes through the donor."""
    assert (child["exit"], child["error"]) == (0, None)
    shown = show_run(lab, child["run_id"])
    assert {check["name"] for check in shown["checks"]} >= PROVED
    assert list_bad(shown) == set()
    assert read_threads(lab, RECIPIENT) == (addresses[DONOR], "Yes", "Yes")
    assert "begun after the backup" in find_evidence(child, "replication-advancing")
    check_arrival(lab, SOURCE, RECIPIENT)


def test_the_donor_has_no_transaction_of_its_own(lab: CloneLab, child: dict[str, Any]) -> None:
    """The child's account is on the donor alone, and the donor's binary log has only the master's."""
    assert [has_account(lab, host, child["run_id"]) for host in (SOURCE, DONOR, RECIPIENT)] == [
        False,
        True,
        False,
    ]
    variable = {"mariadb": "gtid_binlog_state", "mysql": "gtid_executed"}[lab.flavor]
    state = lab.sql(DONOR, f"SELECT @@GLOBAL.{variable}")[0][0]
    assert [gtid for gtid in state.split(",") if not gtid.startswith(read_origin(lab))] == []


@pytest.fixture(scope="module")
def sibling(lab: CloneLab, child: dict[str, Any]) -> dict[str, Any]:
    """Clone the donor again in the child's place, to follow the master."""
    return call(lab, DONOR, RECIPIENT, "--source", SOURCE, "--replace")


def test_a_sibling_follows_the_donors_source(
    lab: CloneLab, sibling: dict[str, Any], addresses: dict[str, str]
) -> None:
    """Every check holds, and it replicates from the master by GTID, from the donor's position on."""
    assert (sibling["exit"], sibling["error"]) == (0, None)
    shown = show_run(lab, sibling["run_id"])
    assert {check["name"] for check in shown["checks"]} >= PROVED
    assert list_bad(shown) == set()
    assert read_threads(lab, RECIPIENT) == (addresses[SOURCE], "Yes", "Yes")
    assert sibling["replication"]["uses_gtid"]
    assert sibling["coordinates"]["file"] == ""
    assert sibling["coordinates"]["gtid"]
    check_arrival(lab, SOURCE, RECIPIENT)


def test_the_tables_were_compared_at_a_position_of_the_source(
    lab: CloneLab, sibling: dict[str, Any]
) -> None:
    """Donor and sibling were read where both had applied the same of the master."""
    assert f" equal at {read_origin(lab)}" in find_evidence(sibling, "tables-equal")


def test_the_donor_goes_on_as_it_did(
    lab: CloneLab, sibling: dict[str, Any], addresses: dict[str, str]
) -> None:
    """Its replication runs, from the master as before."""
    assert read_threads(lab, DONOR) == (addresses[SOURCE], "Yes", "Yes")
    check_arrival(lab, SOURCE, DONOR)


def test_the_account_of_a_sibling_is_on_the_source(lab: CloneLab, sibling: dict[str, Any]) -> None:
    """It was made on the master, and came to both replicas with everything else."""
    assert has_account(lab, SOURCE, sibling["run_id"])
    assert has_account(lab, RECIPIENT, sibling["run_id"])


def test_undo_takes_the_sibling_back(
    lab: CloneLab, sibling: dict[str, Any], addresses: dict[str, str]
) -> None:
    """The child is in place again and follows the donor; the account is gone from the master."""
    lab.xbvault("runs", "undo", sibling["run_id"], "--yes")
    assert not has_account(lab, SOURCE, sibling["run_id"])
    assert read_threads(lab, RECIPIENT)[0] == addresses[DONOR]
    check_arrival(lab, SOURCE, RECIPIENT)


def test_both_are_cloned_anew_from_one_reading(
    lab: CloneLab, sibling: dict[str, Any], addresses: dict[str, str]
) -> None:
    """One transition key opens the sets of both, and each gets a master key of its own."""
    if lab.flavor == "mariadb":
        pytest.skip("MariaDB's has a file of its own, test_fan_out.py")
    assert sibling["exit"] == 0
    lab.sql(RECIPIENT, "STOP REPLICA; RESET REPLICA ALL")
    document = call(lab, SOURCE, DONOR, RECIPIENT, "--replace")
    assert (document["exit"], document["status"]) == (0, "succeeded"), document
    assert len({run["bytes_streamed"] for run in document["runs"]}) == 1
    for host in (DONOR, RECIPIENT):
        assert read_threads(lab, host) == (addresses[SOURCE], "Yes", "Yes")
        check_arrival(lab, SOURCE, host)
    keys = [list_master_keys(lab, host) for host in (SOURCE, DONOR, RECIPIENT)]
    assert not keys[1] & keys[2]
    left = "ls -1d /var/lib/xbvault/jobs/* /var/lib/xbvault/runs/* 2>/dev/null; true"
    assert lab.on(SOURCE, left) == ""
