"""A prepare with a transition key that is not the set's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from drilled import make_drill_plan
from fake_remote import FakeRemote

from orchestrator import config as config_module
from orchestrator.steps import wrong_key
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from fake_remote import Call

    from orchestrator.remote import Result

PLAN = make_drill_plan(flavor="mysql", server_version="9.7.0", tool_version="9.7.0-1")
KEYS = f"{PLAN.staging_dir}/xtrabackup_keys"
REFUSED = (
    "Error reading xtrabackup_keys: failed to decrypt key and iv for tablespace 7. Wrong transition "
    "key?\nxtrabackup: Error: failed to load tablespace keys\n"
)


def make_host(*, count: int = 2, status: int = 1, stderr: str = REFUSED) -> FakeRemote:
    """Return a scratch host with a prepared set, whose tool ends so."""
    host = FakeRemote("replica")
    for program in ("test", "sh", "install", "rm"):
        host.answer(program)
    host.answer("xtrabackup", status=status, stderr=stderr)
    host.files[KEYS] = b"KEYSV01" + bytes(64 + 83) + bytes(72 * count)
    return host


def make_tools(host: FakeRemote) -> Tools:
    """Return the door to that host."""
    config = config_module.parse({"hosts": {"replica": {"flavor": "mysql", "vault_mount": "r"}}})
    return Tools(config=config, vault=cast("Any", None), donor=host, recipient=host)


def test_the_tool_refuses_another_key() -> None:
    """It gets a copy, and a key of its own each time; nothing of both is left."""
    host = make_host()
    options = []

    def tell(call: Call) -> Result:
        path = call.argv[1].removeprefix("--defaults-file=")
        options.append(host.files[path].decode())
        return cast("Result", refusal)

    refusal = host.answers[("xtrabackup",)]
    host.answers[("xtrabackup",)] = tell
    for _ in range(2):
        check = wrong_key.try_prepare(make_tools(host), PLAN)
        assert check is not None
        assert (check.name, check.ok, check.host) == ("wrong-key-refused", True, "replica")
        assert "opens none of the 2 keys with a new transition key" in check.evidence
    assert len(set(options)) == 2
    assert all(f"{PLAN.run_dir}/wrong-key" in text for text in options)
    last = host.calls[-1].argv
    assert last == ("rm", "-rf", "--", f"{PLAN.run_dir}/wrong-key", PLAN.secret_dir)
    (prepare, _) = host.ran("xtrabackup")
    assert "--prepare" in prepare.argv
    assert not any("transition-key" in word for word in prepare.argv)


@pytest.mark.parametrize(
    ("status", "stderr"),
    [(0, "completed OK!\n"), (1, "No space left on device\n"), (127, "not found\n")],
)
def test_whatever_else_the_tool_says_is_no_proof(status: int, stderr: str) -> None:
    """A key that it takes is worse than none; a failure of another kind proves nothing."""
    host = make_host(status=status, stderr=stderr)
    check = wrong_key.try_prepare(make_tools(host), PLAN)
    assert check is not None
    assert not check.ok
    assert f"ended with {status}: " in check.evidence


def test_a_set_without_encrypted_tables() -> None:
    """The tool has nothing to open, and takes any key."""
    host = make_host(count=0)
    assert wrong_key.try_prepare(make_tools(host), PLAN) is None
    assert not host.ran("xtrabackup")
