"""What is left on the hosts when the stream of a stored set has ended."""

from __future__ import annotations

from typing import Any, cast

import pytest
from fake_remote import FakeRemote
from stored_runs import make_restore_plan

from orchestrator.errors import HostUnreachableError
from orchestrator.steps import fetch
from orchestrator.steps.registry import Tools


def test_the_recipients_secrets_go_also_if_the_repository_does_not_answer() -> None:
    """They hold the identity that opens the set."""
    plan = make_restore_plan("r1")
    store, recipient = FakeRemote("store"), FakeRemote("db2")
    recipient.answer("rm")
    store.is_unreachable = True
    config = cast("Any", None)
    tools = Tools(config=config, vault=config, donor=store, recipient=recipient)
    with pytest.raises(HostUnreachableError):
        fetch._remove_secrets(tools, plan)
    assert recipient.ran("rm", "-rf", "--", plan.secret_dir)
