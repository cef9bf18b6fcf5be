"""What a process has just found out is relied on only while it is fresh and nothing has changed."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import pytest
from cli_lab import make_plan
from fake_remote import FakeRemote
from surveys import CONFIG, REQUEST, make_survey

from orchestrator.errors import (
    OrchestratorError,
    PreconditionError,
    SecretStoreUnavailableError,
)
from orchestrator.facts import hosts
from orchestrator.facts import look as looks
from orchestrator.facts.look import Look
from orchestrator.lock import parse_lock
from orchestrator.models import Check
from orchestrator.steps import preflight
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from fake_remote import Call

    from orchestrator.facts.hosts import HostFacts
    from orchestrator.remote import Result

PLAN = make_plan(donor="db1", recipient="db2", run_id=REQUEST.run_id, backup_id=REQUEST.backup_id)
FREE = "run=\nholder=\nfence={fence}\nlive=0\nleft=0\nchanged_by={by}\nchanged_fence=0\n"


class FakeVault:
    """A Vault that knows the token, or is sealed."""

    def __init__(self, *, is_sealed: bool = False) -> None:
        self.is_sealed = is_sealed

    def lookup_token(self) -> None:
        """Know the token."""
        if self.is_sealed:
            raise SecretStoreUnavailableError("Vault is sealed")

    def read_health(self) -> None:
        """Answer nothing that a whole preflight asks."""
        raise SecretStoreUnavailableError("Vault is gone")


def brief(facts: HostFacts, **changes: str) -> str:
    """Return what the script says of a host that is as these facts have it."""
    lines = {
        "memory_available_bytes": "1",
        "cpus": "1",
        "datadir_inode": str(facts.datadir_inode),
        "datadir_owner": facts.datadir_owner,
        "datadir_mode": facts.datadir_mode,
        **changes,
    }
    text = "".join(f"{key}\t{value}\n" for key, value in lines.items() if value)
    text += "".join(f"server_pid\t{pid}\n" for pid in facts.server_pids)
    return text + ("datadir_has_data\t1\n" if facts.has_data else "") + "end\n"


def make_remote(facts: HostFacts, *, lock: str = "", **changes: str) -> FakeRemote:
    """Return the host of these facts, with what has changed on it since."""
    remote = FakeRemote(facts.name)
    remote.answer("sh", "-s", "--", facts.real_datadir, stdout=brief(facts, **changes))
    remote.answer("sh", "-s", "--", "read", stdout=lock or FREE.format(fence=7, by=""))
    return remote


@dataclasses.dataclass
class Stand:
    """A look, and the doors to the hosts and to Vault as they are now."""

    look: Look
    donor: FakeRemote
    recipient: FakeRemote
    vault: FakeVault = dataclasses.field(default_factory=FakeVault)

    def still_holds(self) -> bool:
        """Ask the look."""
        return self.look.still_holds(self.vault, self.donor, self.recipient)  # type: ignore[arg-type]  # only the token is asked about


def make_stand(**changes: Any) -> Stand:
    """Return a look that was made this very moment, and hosts that are as they were."""
    survey = make_survey()
    donor, recipient = survey.donor.host, survey.recipient.host
    assert donor
    assert recipient
    look = Look(
        run_id=REQUEST.run_id,
        asked_at=time.monotonic(),
        findings=(Check(name="vault-health", ok=True, evidence="unsealed"),),
        donor=donor,
        recipient=recipient,
        lock=parse_lock(FREE.format(fence=7, by="")),
    )
    return Stand(dataclasses.replace(look, **changes), make_remote(donor), make_remote(recipient))


def test_a_look_of_this_moment_holds() -> None:
    """Each host is asked for what changes in seconds, and for no more."""
    stand = make_stand()
    assert stand.still_holds()
    assert len(stand.donor.calls) == 1
    assert len(stand.recipient.calls) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"asked_at": time.monotonic() - looks.FRESH_SECONDS - 1},
        {"findings": (Check(name="vault-health", ok=False, evidence="sealed"),)},
        {"lock": None},
    ],
)
def test_a_look_that_is_not_relied_on(changes: dict[str, Any]) -> None:
    """It is too old, has found something bad, or could not read who holds the recipient."""
    assert not make_stand(**changes).still_holds()


@pytest.mark.parametrize("what", ["donor", "recipient"])
@pytest.mark.parametrize(
    "changes",
    [
        {"server_pid": "99999"},
        {"datadir_inode": "99999"},
        {"datadir_owner": "root:root"},
        {"datadir_mode": "777"},
    ],
)
def test_a_host_that_has_changed(what: str, changes: dict[str, str]) -> None:
    """A server that came or went, or another data directory, is seen."""
    stand = make_stand()
    facts = getattr(stand.look, what)
    setattr(stand, what, make_remote(facts, **changes))
    assert not stand.still_holds()


def test_a_datadir_that_got_data() -> None:
    """What was empty, and is not any more, is seen."""
    stand = make_stand()
    facts = stand.look.recipient
    stand.recipient = make_remote(dataclasses.replace(facts, has_data=not facts.has_data))
    assert not stand.still_holds()


@pytest.mark.parametrize(
    "lock",
    [
        FREE.format(fence=8, by=""),
        FREE.format(fence=7, by="20261121T210500Z-db2-0000aaaa"),
        "run=r9\nholder=h\nfence=8\nlive=1\nleft=50\nchanged_by=\nchanged_fence=0\n",
    ],
)
def test_another_run_came_meanwhile(lock: str) -> None:
    """One that holds the recipient, or held it and let go."""
    stand = make_stand()
    stand.recipient = make_remote(stand.look.recipient, lock=lock)
    assert not stand.still_holds()


def test_what_cannot_be_asked_is_no_answer() -> None:
    """A host or Vault that is gone is left to the whole preflight, which says so."""
    stand = make_stand()
    stand.donor.is_unreachable = True
    assert not stand.still_holds()
    stand = make_stand()
    stand.vault = FakeVault(is_sealed=True)
    assert not stand.still_holds()


def make_tools(stand: Stand) -> Tools:
    """Return what the step works with."""
    return Tools(
        config=CONFIG,
        vault=stand.vault,  # type: ignore[arg-type]  # only the token is asked about
        donor=stand.donor,
        recipient=stand.recipient,
        look=stand.look,
    )


def test_the_step_takes_what_was_just_found() -> None:
    """It says how long ago that was."""
    stand = make_stand(asked_at=time.monotonic() - 2)
    found = preflight.check_preconditions(make_tools(stand), PLAN)
    assert found.findings == stand.look.findings
    assert 2 <= found.seconds_ago < looks.FRESH_SECONDS


def test_the_step_asks_again_where_something_changed() -> None:
    """A whole preflight then says what it is."""

    def refuse(call: Call) -> Result:
        raise PreconditionError(f"asked {call.argv[3]}")

    stand = make_stand(asked_at=time.monotonic() - looks.FRESH_SECONDS - 1)
    stand.donor.answers = {("sh",): refuse}
    stand.recipient.answers = {("sh",): refuse}
    with pytest.raises(OrchestratorError):
        preflight.check_preconditions(make_tools(stand), PLAN)
    for remote in (stand.donor, stand.recipient):
        assert remote.calls[0].stdin == hosts.facts_script().encode()
