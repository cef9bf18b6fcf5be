"""What is looked at before a backup tool puts a set in place that carries its keys."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from engine_lab import make_plan
from fake_remote import FakeRemote
from stored_runs import make_restore_plan

from orchestrator import config as config_module
from orchestrator.errors import VerificationError
from orchestrator.flavors.mysql_keyrings import stored_name
from orchestrator.steps import key_names, tool_keys
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from orchestrator.models import Check


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


# --- judge_separation ---

UUID = "2e0b5a5e-3f3d-11ec-9bbd-0242ac130003"


def master_key(number: int) -> str:
    """Return the name of a master key of the set's server."""
    return f"INNODBKey-{UUID}-{number}"


def judge_keys(*held: str, of: str, kind: str = "component_keyring_file") -> Check:
    """Judge a restored server with these keys; two were in the set, made of this host.

    Where they are in Vault, the run has found number 3 to be new.
    """
    plan = make_restore_plan("r1", host="replica")
    changes = {"set_host": of, "flavor": "mysql", "server_version": "8.0.40", "donor_mount": ""}
    plan = dataclasses.replace(plan, **changes, keyring=kind)  # type: ignore[arg-type]  # of text
    remote = FakeRemote("replica")
    remote.answer("test")
    remote.files[f"{plan.run_dir}/{tool_keys.DONOR_KEYS}"] = f"{UUID} 2\n".encode()
    names = {"before": [], "new": [stored_name(master_key(3))], "earlier": []}
    remote.files[key_names._names_path("r1")] = json.dumps(names).encode()
    rows = "".join(f"{name.encode().hex().upper()}\n" for name in held)
    remote.answer("mysql", stdout=f"key_id\n{rows}")
    config = config_module.parse({"hosts": {"replica": {"flavor": "mysql"}}})
    tools = Tools(config=config, vault=cast("Any", None), donor=remote, recipient=remote)
    (check,) = tool_keys.judge_separation(tools, plan)
    return check


def test_a_server_that_gets_its_own_set_back_still_holds_its_earlier_keys() -> None:
    """A new master key is what it must have; what was not judged is told."""
    held = [master_key(number) for number in (1, 2, 3)]
    check = judge_keys(*held, of="replica")
    assert check.ok
    assert check.evidence.startswith(f"not one of the 2 master keys of the set: {held[2]}; ")
    assert "its 2 earlier ones were not judged" in check.evidence
    check = judge_keys(*held, of="master")
    assert not check.ok
    assert check.evidence == f"held by both: {held[0]}, {held[1]}"


@pytest.mark.parametrize("kind", ["component_keyring_file", "component_keyring_vault"])
def test_a_server_that_gets_its_own_set_back_with_no_new_key(kind: str) -> None:
    """What it holds are the set's keys alone."""
    of_logs = f"MySQLReplicationKey_{UUID}_1"
    check = judge_keys(master_key(1), master_key(2), of_logs, of="replica", kind=kind)
    assert not check.ok
    assert check.evidence.startswith(
        "no master key but those that replica had when the set was made"
    )


def test_a_key_in_vault_that_the_run_did_not_make_is_not_its_new_one() -> None:
    """The host may have rotated its key since the set was made."""
    kind = "component_keyring_vault"
    assert not judge_keys(master_key(4), of="replica", kind=kind).ok
    assert judge_keys(master_key(3), master_key(4), of="replica", kind=kind).ok
