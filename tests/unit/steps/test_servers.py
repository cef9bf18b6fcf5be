"""Why a server did not start, as its own log says."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, cast

import pytest
import samples
from engine_lab import make_plan
from fake_remote import FakeRemote
from stored_runs import make_restore_plan

from orchestrator import config as config_module
from orchestrator.errors import (
    CommandError,
    OrchestratorError,
    SecretError,
    SecretStoreUnavailableError,
)
from orchestrator.steps import servers
from orchestrator.steps.registry import Tools

FACTS = samples.read("host/facts-replica")
LOG = "/var/log/mysql/error.log"
UNIT_SAID = "Job for mariadb.service failed because the control process exited with error code."
TAIL = ("tail", "-c", str(servers._LOG_BYTES), "--", LOG)


def start(remote: FakeRemote) -> OrchestratorError:
    """Start a server that does not start; return the error."""
    hosts = {"master": {"vault_mount": "m"}, "replica": {"vault_mount": "r"}}
    config = config_module.parse({"hosts": hosts})
    shut = cast("Any", None)
    tools = Tools(config=config, vault=shut, donor=shut, recipient=remote)
    with pytest.raises(OrchestratorError) as caught:
        servers.start_server(tools, make_plan("r1"), timeout_seconds=60)
    return caught.value


def make_remote(log: str = "", *, facts: str = FACTS) -> FakeRemote:
    """Return a host whose server does not start and whose log says this."""
    remote = FakeRemote("replica")
    remote.answer("systemctl", "start", stderr=UNIT_SAID, status=1)
    remote.answer("sh", "-s", stdout=facts)
    remote.answer(*TAIL, stdout=log)
    return remote


@pytest.mark.parametrize(
    ("name", "expected", "words"),
    [
        ("sealed", SecretStoreUnavailableError, "gets no keys from Vault"),
        ("unreachable", SecretStoreUnavailableError, "Couldn't connect"),
        ("denied", SecretError, "Vault denies its token"),
        ("unknown-option", CommandError, "unknown variable 'no_such_option=1'"),
    ],
)
def test_log_says_why(name: str, expected: type[OrchestratorError], words: str) -> None:
    """The class says who must act, and whether waiting may help."""
    error = start(make_remote(samples.read(f"mariadb/start-{name}")))
    assert type(error) is expected
    assert error.message.startswith("the server on replica did not start")
    assert words in error.message
    assert error.hint
    assert error.host == "replica"


def test_journal_of_systemd_is_read_where_the_server_has_no_log() -> None:
    """The start command of systemd itself says that the unit failed, and nothing else."""
    remote = make_remote(facts=FACTS.replace("--log_error=", "--x="))
    remote.answer("journalctl", stdout=samples.read("mariadb/start-sealed"))
    assert type(start(remote)) is SecretStoreUnavailableError


@pytest.mark.parametrize("facts", [FACTS, "rubbish"])
def test_nothing_can_be_read(facts: str) -> None:
    """Then what the start command said must do."""
    remote = make_remote(facts=facts)
    remote.answer(*TAIL, stderr="tail: cannot open", status=1)
    error = start(remote)
    assert type(error) is CommandError
    assert UNIT_SAID in error.message


def test_broken_connection_is_left_as_it_is() -> None:
    """Nobody knows what came of the start; the server may run."""
    remote = make_remote()
    remote.answers["systemctl", "start"] = CommandError("the connection broke", status=None)
    assert start(remote).message == "the connection broke"


@pytest.mark.parametrize(("free", "is_full"), [(4096, True), (50_000_000_000, False)])
def test_a_full_filesystem_is_told_whatever_the_log_says(free: int, is_full: bool) -> None:  # noqa: FBT001 - a column of the table
    """MySQL says that it cannot read its auto.cnf; only the host knows why."""
    facts = re.sub(r"(?m)^parent_free_bytes\t.*$", f"parent_free_bytes\t{free}", FACTS)
    error = start(make_remote(samples.read("mariadb/start-unknown-option"), facts=facts))
    assert ("free space on replica's filesystem" in error.hint) is is_full


@pytest.mark.parametrize("source", ["", "db3"])
def test_replication_goes_on_only_where_it_was_asked_for(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restored MySQL server has its backup's replication, which nobody has asked for."""
    plan = dataclasses.replace(make_restore_plan("r1", host="replica"), source=source)
    remote = FakeRemote("replica")
    remote.answer("cat")
    remote.answer("mariadb")
    monkeypatch.setattr("orchestrator.steps.servers.hosts.is_server_running", lambda *_: False)
    monkeypatch.setattr("orchestrator.steps.servers.records.read_transition", lambda *_: None)
    monkeypatch.setattr(servers, "start_server", lambda *_, **__: None)
    monkeypatch.setattr(
        "orchestrator.steps.servers.instances.read_replication", lambda *_: object()
    )
    config = config_module.parse({"hosts": {"replica": {"vault_mount": "r"}}})
    shut = cast("Any", None)
    tools = Tools(config=config, vault=shut, donor=shut, recipient=remote)
    assert servers.start_again(tools, plan)
    started = [call for call in remote.ran("mariadb") if b"START" in call.stdin]
    assert bool(started) is bool(source)
