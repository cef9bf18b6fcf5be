"""One transition key for several runs, in a real Vault: made once, destroyed by the last."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from engine_lab import make_config, make_plan
from fake_remote import FakeRemote
from openbao import OpenBao, running_openbao

from orchestrator.errors import SecretError
from orchestrator.steps import cleanup, records, transition
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.models import Plan

RUNS = ("r1", "r2", "r3")


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    """A server with the mount of our own records."""
    with running_openbao() as server:
        server.vault().create_kv_mount("xbvault")
        yield server


@pytest.fixture
def tools(bao: OpenBao, tmp_path: Path) -> Tools:
    """Return doors of which only the one to Vault leads anywhere."""
    return Tools(
        config=make_config(tmp_path),
        vault=bao.vault(),
        donor=FakeRemote("master"),
        recipient=FakeRemote("replica"),
    )


def make_group(name: str) -> list[Plan]:
    """Return the plans of a group."""
    return [dataclasses.replace(make_plan(run), backup_id=name, group_runs=RUNS) for run in RUNS]


def test_runs_at_once_agree_on_one_key(bao: OpenBao, tmp_path: Path) -> None:
    """Whoever is first makes it; all see the same, and each has a record of its own."""

    def create(plan: Plan) -> transition.TransitionKey:
        own = Tools(
            config=make_config(tmp_path),
            vault=bao.vault(),
            donor=FakeRemote("master"),
            recipient=FakeRemote("replica"),
        )
        return transition.create_transition_key(own, plan)

    for number in range(5):
        plans = make_group(f"at-once-{number}")
        with ThreadPoolExecutor(len(plans)) as pool:
            made = set(pool.map(create, plans))
        assert len(made) == 1
        metadata = bao.vault().read_metadata("xbvault", plans[0].key_path)
        assert metadata is not None
        assert metadata.current_version == 1


def test_a_repeated_step_changes_nothing(tools: Tools) -> None:
    """The key stays, and so does the record."""
    plan = make_group("again")[0]
    first = transition.create_transition_key(tools, plan)
    before = records.read_record(tools, plan)
    assert transition.create_transition_key(tools, plan) == first
    assert records.read_record(tools, plan) == before
    assert before["run"] == "r1"


def test_the_last_run_destroys_the_key(tools: Tools) -> None:
    """As long as one of them has not ended, it can still be read; the records stay."""
    plans = make_group("ends")
    for plan in plans:
        transition.create_transition_key(tools, plan)
    for plan in plans[:2]:
        assert cleanup.destroy_transition_key(tools, plan).names == ()
        assert records.read_transition_key(tools, plans[2])
    path = f"xbvault/{plans[0].key_path}"
    assert cleanup.destroy_transition_key(tools, plans[2]).names == (path,)
    with pytest.raises(SecretError, match="no transition key"):
        records.read_transition_key(tools, plans[0])
    for plan in plans:
        assert records.read_record(tools, plan)["state"] == records.DESTROYED
        assert records.read_record(tools, plan)["destroyed_by"] == plan.run_id
    assert cleanup.destroy_transition_key(tools, plans[0]).names == (path,)


def test_a_run_that_never_made_a_record_keeps_the_key(tools: Tools) -> None:
    """It may still be resumed; once it is cancelled, its clean-up lets go."""
    plans = make_group("late")
    for plan in plans[:2]:
        transition.create_transition_key(tools, plan)
        cleanup.destroy_transition_key(tools, plan)
    assert records.read_transition_key(tools, plans[0])
    assert cleanup.destroy_transition_key(tools, plans[2]).names == (
        f"xbvault/{plans[0].key_path}",
    )


def test_the_key_of_another_group_is_refused(tools: Tools) -> None:
    """A backup_id is never used twice, by a group or by a clone alone."""
    transition.create_transition_key(tools, dataclasses.replace(make_plan("r9"), backup_id="taken"))
    with pytest.raises(SecretError, match="belongs to run r9"):
        transition.create_transition_key(tools, make_group("taken")[0])
