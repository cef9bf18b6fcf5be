"""Which tablespaces lost their encryption, and which tables do not open."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING, Any, cast

import pytest
from cli_lab import make_plan
from stored_runs import make_restore_plan

from orchestrator.facts.instances import Table, Tablespace
from orchestrator.models import KeyVersions, Secret
from orchestrator.steps import records, verification
from orchestrator.steps.registry import Tools
from orchestrator.steps.verification import find_unencrypted, list_unopened
from orchestrator.vault.kv import SecretMetadata, VersionInfo

if TYPE_CHECKING:
    from orchestrator.models import Check, Plan


def table(label: str) -> Table:
    """Return a table."""
    schema, _, name = label.partition(".")
    return Table(schema=schema, name=name, engine="InnoDB", bytes=100)


def spaces(*names: str) -> list[Tablespace]:
    """Return encrypted tablespaces."""
    return [
        Tablespace(name=name, key_id="1", min_key_version=1, is_rotating=False) for name in names
    ]


def test_tablespace_that_lost_its_encryption() -> None:
    """Names are InnoDB's own, so that partitions and odd names are compared as well."""
    odd, part = "x@0027@003b/a@0020b", "shop/parts#P#p0"
    theirs = ("shop/a", odd, part, "shop/made_since", "innodb_temporary")
    present = frozenset({"shop/a", odd, part, "innodb_temporary", "shop/plain"})
    assert find_unencrypted(theirs, spaces("shop/a"), present) == sorted([odd, part])
    assert find_unencrypted(theirs, spaces("shop/a", odd, part), present) == []


def test_tables_that_do_not_open_are_named_by_their_line() -> None:
    """Whatever else the client says; and words of its own are kept where no line is named."""
    tables = (table("a.b"), table("c.d"))
    said = (
        "ERROR 1932 (42S02) at line 2: Table 'c.d' doesn't exist in engine\nERROR 1 at line 77: x"
    )
    assert list_unopened(tables, 1, said) == ["c.d"]
    assert list_unopened(tables, 1, "ERROR 2002 (HY000): Can't connect\n") == [
        "ERROR 2002 (HY000): Can't connect"
    ]
    assert list_unopened(tables, 1, "") == ["unknown"]
    assert list_unopened(tables, 0, "") == []


# --- verify-key-separation ---


class Mount:
    """The recipient's own mount: the versions of one key."""

    def __init__(self, *values: str) -> None:
        self.values = [Secret(value) for value in values]

    def with_token(self, _token: Secret) -> Mount:
        """Be the same for the host's own token."""
        return self

    def list_secrets(self, mount: str) -> tuple[str, ...]:
        """Return the one key, of the own mount alone."""
        assert mount == "keys/replica"
        return ("1",)

    def read_metadata(self, _mount: str, _path: str) -> SecretMetadata:
        """Return as many live versions as there are."""
        live = VersionInfo(created_at=dt.datetime.now(dt.UTC), destroyed=False, deleted=False)
        return SecretMetadata(
            current_version=len(self.values),
            max_versions=0,
            custom={},
            versions={number + 1: live for number in range(len(self.values))},
        )

    def read_secret(self, _mount: str, _path: str, *, version: int) -> dict[str, Secret]:
        """Return the value of a version."""
        return {"data": self.values[version - 1]}


def judge_values(mount: Mount, plan: Plan, monkeypatch: pytest.MonkeyPatch, *, own: int) -> Check:
    """Judge a mount that had some versions before the run, against a set with the keys a and b."""
    versions = (KeyVersions(key_id="1", donor=2, own=own),)
    found = records.Transition(mount="t", versions=versions)
    monkeypatch.setattr(records, "need_transition", lambda _tools, _plan: found)
    tools = Tools(
        config=cast("Any", None),
        vault=cast("Any", mount),
        donor=cast("Any", None),
        recipient=cast("Any", None),
    )
    return verification._judge_values(tools, plan, {Secret("a"), Secret("b")})


def restore_to(host: str, of: str) -> Plan:
    """Return the plan of a restore of a host's set to a host, which here have one mount."""
    plan = make_restore_plan("r1", host=host)
    return dataclasses.replace(plan, set_host=of, own_mount="keys/replica", donor_mount="")


def test_a_set_that_goes_back_to_its_own_host_meets_its_own_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were there before the run; only what the run made is compared, and that is said."""
    mount = Mount("a", "b", "c", "new", "newer")
    check = judge_values(mount, restore_to("db1", "db1"), monkeypatch, own=3)
    assert check.ok
    assert "not compared: key 1 up to version 3" in check.evidence
    assert "the set was made of db1 itself" in check.evidence


@pytest.mark.parametrize(("own", "shared"), [(3, "key 1 version 5"), (1, "key 1 version 2, ")])
def test_a_key_of_the_set_that_the_run_put_into_its_own_hosts_mount(
    own: int, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is found, also among the placeholders of a mount that had lost its versions."""
    mount = Mount("a", "b", "c", "new", "a")
    check = judge_values(mount, restore_to("db1", "db1"), monkeypatch, own=own)
    assert not check.ok
    assert f"made by this run in keys/replica, and in the set: {shared}" in check.evidence


@pytest.mark.parametrize("plan", [make_plan(), restore_to("db2", "db1")])
def test_another_hosts_key_is_found_wherever_it_is(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old: no host may have had it before."""
    check = judge_values(Mount("a", "x", "new", "newer"), plan, monkeypatch, own=2)
    assert not check.ok
    assert check.evidence == "in both mounts: key 1 version 1"
    check = judge_values(Mount("x", "y", "new", "newer"), plan, monkeypatch, own=2)
    assert check.ok
    assert check.evidence == "no value of keys/replica is one of the donor's"
