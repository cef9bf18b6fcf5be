"""On MySQL too, a clone works with exactly the privileges that are printed, and each that lacks is named.

What Vault and sudo have to do with it is no other than on MariaDB, see ``test_least_privilege.py``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from least import (
    DONOR,
    PLAN,
    RECIPIENT,
    LeastLab,
    find_unnamed_before,
    find_unnamed_privileges,
    least_lab,
)
from mysql_lab import mysql_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.timeout(420),
]


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LeastLab]:
    """Bring the laboratory up, and give everybody what is printed."""
    directory = tmp_path_factory.mktemp("myleast") / "lab"
    with mysql_lab(directory, "--replica-server") as lab, least_lab(lab) as found:
        yield found


def test_what_is_printed_is_enough_for_every_check(least: LeastLab) -> None:
    """Nothing is wrong to begin with."""
    for command in (("vault", "check"), ("hosts", "check"), PLAN):
        least.document(*command)


def test_a_privilege_taken_from_an_account_is_named(least: LeastLab) -> None:
    """Each account loses one of its own."""
    assert find_unnamed_privileges(least) == []


@pytest.mark.parametrize("privilege", ["PROCESS", "SELECT", "REPLICATION CLIENT"])
def test_a_privilege_on_the_server_that_is_set_aside_is_named(
    least: LeastLab, privilege: str
) -> None:
    """Without it, that server would hide who replicates from it, or what it holds."""
    assert find_unnamed_before(least, privilege) == []


def test_a_clone_and_its_undo_need_no_more(least: LeastLab) -> None:
    """All is verified, and the earlier server comes back."""
    before = least.read_recipient()[0]
    document = least.document("clone", DONOR, RECIPIENT, "--replace", "--yes")
    assert all(check["ok"] for check in document["checks"])
    undone = least.document("runs", "undo", document["run_id"], "--yes")
    assert undone["status"] == "undone"
    assert least.read_recipient()[0] == before
