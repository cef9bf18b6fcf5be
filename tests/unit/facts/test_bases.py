"""Whether a server has gone on from the state of a backup set."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import stored_sets
from fake_remote import Call, FakeRemote
from surveys import CONFIG

from orchestrator import config as config_module
from orchestrator.errors import VerificationError
from orchestrator.facts import bases
from orchestrator.models import Coordinates
from orchestrator.remote import Result

if TYPE_CHECKING:
    from orchestrator.repository.manifest import Manifest

MYSQL = config_module.parse({"hosts": {"db1": {"flavor": "mysql", "vault_mount": "m"}}})
AT = Coordinates(file="bin.000002", position=5878450, gtid="0-1-2,7-3-9")


def make_donor(state: str, lsn: int = 12512819) -> FakeRemote:
    """Return a server with this GTID state at the place that it is asked for."""

    def answer(call: Call) -> Result:
        asked = call.stdin.decode()
        if "BINLOG_GTID_POS" in asked:
            assert "'bin.000002', 5878450" in asked
            return Result(status=0, stdout=f"gtid\n{state}\n".encode(), stderr="")
        return Result(
            status=0,
            stdout=f"Variable_name\tValue\nInnodb_lsn_current\t{lsn}\n".encode(),
            stderr="",
        )

    return FakeRemote("db1", answers={("env",): answer, ("mariadb",): answer})


@pytest.mark.parametrize("state", ["0-1-2,7-3-9", "7-3-9,0-1-2", "0-1-2", "0-1-2,8-1-1"])
def test_a_server_that_has_gone_on(state: str) -> None:
    """It has the place, with the same state in every domain that both know."""
    found = bases.read_base(CONFIG, make_donor(state), stored_sets.make_manifest(coordinates=AT))
    assert found.problem == ""
    assert found.evidence == (
        "its binary log has 0-1-2,7-3-9 at bin.000002:5878450; now at LSN 12512819"
    )


@pytest.mark.parametrize(
    ("state", "lsn", "words"),
    [
        ("NULL", 12512819, "has no place bin.000002:5878450"),
        ("0-1-3,7-3-9", 12512819, "has come to 0-1-3,7-3-9"),
        ("0-2-2", 12512819, "has come to 0-2-2"),
        ("5-1-1", 12512819, "has come to 5-1-1"),
        ("0-1-2", 12512818, "is at LSN 12512818"),
    ],
)
def test_another_server_or_one_that_was_put_back(state: str, lsn: int, words: str) -> None:
    """Its logs have no such place, or another history before it; or its pages are older."""
    document = stored_sets.make_manifest(coordinates=AT)
    assert words in bases.read_base(CONFIG, make_donor(state, lsn), document).problem


def test_a_set_without_a_place() -> None:
    """Nothing tells whether the server is the same; nobody is asked."""
    document = stored_sets.make_manifest(coordinates=None, checksums=())
    found = bases.read_base(CONFIG, FakeRemote("db1"), document)
    assert "tells no place" in found.problem


def test_a_name_that_is_no_log_is_not_asked_for() -> None:
    """It would stand in a statement."""
    at = Coordinates(file="x'; DROP", position=4, gtid="")
    document = stored_sets.make_manifest(coordinates=at, checksums=())
    with pytest.raises(VerificationError, match="no name of a binary log"):
        bases.read_base(CONFIG, FakeRemote("db1"), document)


UUID = "3f0c1a52-0000-11ef-9f0e-0242ac110002"
OTHER = "3f0c1a52-0000-11ef-9f0e-0242ac110003"
MYSQL_AT = Coordinates(file="binlog.000002", position=841, gtid=f"{UUID}:1-5")


def make_mysql(
    *,
    server: str = UUID,
    event: str = f"binlog.000002\t841\tGtid\t11\t918\tSET @@SESSION.GTID_NEXT= '{UUID}:6'",
    has: str = "1",
    new: str = f"{UUID}:6",
    lsn: str = "29393291",
    size: int = 2000,
) -> FakeRemote:
    """Return a MySQL that answers so."""

    def answer(call: Call) -> Result:
        asked = call.stdin.decode()
        if "SHOW BINARY LOGS" in asked:
            (first, name), (second, _) = re.findall(r"SELECT '([0-9a-f]+)' AS (\w+)", asked)
            logs = f"Log_name\tFile_size\tEncrypted\nbinlog.000002\t{size}\tNo\n"
            text = f"moment\n1763900000\n{name}\n{first}\n{logs}{name}\n{second}\n"
        elif "SHOW BINLOG EVENTS IN 'binlog.000002' FROM 841 LIMIT 1" in asked:
            if event.startswith("ERROR"):
                return Result(status=1, stdout=b"", stderr=event)
            names = "Log_name\tPos\tEvent_type\tServer_id\tEnd_log_pos\tInfo\n"
            text = f"{names}{event}\n" if event else ""
        elif "GTID_SUBSET" in asked:
            text = f"server\thas\tnew\n{server}\t{has}\t{new}\n"
        else:
            assert "SHOW ENGINE INNODB STATUS" in asked
            status = f"=====\\nLog sequence number          {lsn}\\nLog buffer assigned up to    1"
            text = f"Type\tName\tStatus\nInnoDB\t\t{status}\n"
        return Result(status=0, stdout=text.encode(), stderr="")

    return FakeRemote("db1", answers={("env",): answer, ("mysql",): answer})


def make_document(server: str = UUID) -> Manifest:
    """Return the manifest of a set of that server."""
    return stored_sets.make_manifest(
        flavor="mysql",
        server_version="9.7.0",
        coordinates=MYSQL_AT,
        layout={"server_uuid": server} if server else {},
        to_lsn=29393290,
    )


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"event": "", "new": ""},
        {"event": "binlog.000002\t841\tRotate\t11\t885\tbinlog.000003;pos=4", "new": ""},
        {
            "event": "binlog.000002\t841\tAnonymous_Gtid\t11\t9\tSET @@SESSION.GTID_NEXT= 'ANONYMOUS'"
        },
    ],
)
def test_a_mysql_that_has_gone_on(answers: dict[str, Any]) -> None:
    """Its log goes on behind the place with what the set does not have, or ends there."""
    found = bases.read_base(MYSQL, make_mysql(**answers), make_document())
    assert found.problem == ""
    assert found.evidence.endswith("at binlog.000002:841; now at LSN 29393291")


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"size": 840}, "has no place binlog.000002:841"),
        ({"event": "ERROR 1220 (HY000) at line 1: Error when executing"}, "has no place"),
        ({"event": "binlog.000002\t918\tQuery\t11\t990\tBEGIN"}, "has no place"),
        ({"event": "ERROR 1227 (42000) at line 1: Access denied"}, "may not see the events"),
        ({"server": OTHER}, f"is server {OTHER}"),
        ({"has": "0"}, "does not have all transactions"),
        ({"new": ""}, f"goes on with {UUID}:6"),
        ({"lsn": "29393289"}, "is at LSN 29393289"),
    ],
)
def test_another_mysql_or_one_that_was_put_back(answers: dict[str, Any], words: str) -> None:
    """Its log has no such place, or another history behind it; or it is another server."""
    assert words in bases.read_base(MYSQL, make_mysql(**answers), make_document()).problem


def test_a_set_that_does_not_tell_its_server() -> None:
    """Earlier versions wrote none; nobody is asked."""
    found = bases.read_base(MYSQL, FakeRemote("db1"), make_document(""))
    assert "does not tell the server_uuid" in found.problem
