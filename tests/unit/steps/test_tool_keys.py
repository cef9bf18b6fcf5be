"""What is looked at before a backup tool puts a set in place that carries its keys."""

from __future__ import annotations

import json

import pytest
from engine_lab import make_plan
from fake_remote import FakeRemote

from orchestrator import config as config_module
from orchestrator.errors import VerificationError
from orchestrator.steps import tool_keys
from orchestrator.steps.registry import Tools


def make_tools(text: str | None) -> Tools:
    """Return the doors to a recipient whose set has this list of files outside of the datadir."""
    plan = make_plan("20261121T210500Z-replica-1d4e77c0")
    remote = FakeRemote("replica")
    remote.answer("test", "-s", status=1 if text is None else 0)
    if text is not None:
        remote.files[f"{plan.staging_dir}/xtrabackup_tablespaces"] = text.encode()
    config = config_module.parse({"hosts": {"replica": {"flavor": "mysql"}}})
    vault = object()
    return Tools(config=config, vault=vault, donor=remote, recipient=remote)  # type: ignore[arg-type]  # neither is asked


def write_list(*names: str) -> str:
    """Return the tool's list of these files."""
    entries = [{"file_name": name, "tablespace_type": "TABLE"} for name in names]
    return json.dumps({"version": 3, "external_tablespaces": entries})


@pytest.mark.parametrize("text", [None, write_list()])
def test_a_set_that_stays_in_its_datadir(text: str | None) -> None:
    """Old tools write no list."""
    plan = make_plan("20261121T210500Z-replica-1d4e77c0")
    tool_keys._check_inside(make_tools(text), plan)


def test_a_set_that_would_be_put_over_others() -> None:
    """The file is named, before the tool is started."""
    plan = make_plan("20261121T210500Z-replica-1d4e77c0")
    with pytest.raises(VerificationError, match=r"datadir: /srv/fast/shop/t\.ibd"):
        tool_keys._check_inside(make_tools(write_list("/srv/fast/shop/t.ibd")), plan)
