"""Whether a server has gone on from the state of a backup set."""

from __future__ import annotations

import pytest
import stored_sets
from fake_remote import Call, FakeRemote
from surveys import CONFIG

from orchestrator.errors import VerificationError
from orchestrator.facts import bases
from orchestrator.models import Coordinates
from orchestrator.remote import Result

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
