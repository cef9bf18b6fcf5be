"""What preflight says of rights that are missing: which, of whom, and how to give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from surveys import CONFIG, REQUEST, change, make_account, make_survey

from orchestrator.facts import preflight
from orchestrator.facts.survey import needed_by_host
from orchestrator.privileges import database, vault

if TYPE_CHECKING:
    from orchestrator.facts.survey import Survey
    from orchestrator.models import Check

DONOR, RECIPIENT = "donor-privileges", "recipient-privileges"


def find(survey: Survey, name: str, host: str = "") -> Check:
    """Return the one finding of a name that is the only bad one."""
    checks = preflight.judge(survey, CONFIG, REQUEST)
    bad = [check for check in checks if not check.ok]
    assert [(check.name, check.host) for check in bad] == [(name, host)]
    return bad[0]


@pytest.mark.parametrize("privilege", database.DONOR)
def test_a_privilege_that_the_donors_account_lacks_is_named(privilege: str) -> None:
    """With the statement that gives it."""
    account = make_account("o`dd", database.DONOR, without=privilege)
    found = find(change(make_survey(), "donor", account=account), DONOR, "db1")
    assert found.evidence == f"o`dd@localhost lacks {privilege} on *.*"
    granted = "USAGE" if privilege == database.GRANT_OPTION else privilege
    assert f"GRANT {granted} ON *.* TO `o``dd`@`localhost`" in found.hint
    assert found.hint.endswith("WITH GRANT OPTION") is (privilege == database.GRANT_OPTION)


@pytest.mark.parametrize("privilege", database.RECIPIENT)
def test_a_privilege_that_the_arriving_account_lacks_is_named(privilege: str) -> None:
    """It is the donor's account that counts, because it comes over with the data."""
    account = make_account("xbvault_recipient", database.RECIPIENT, without=privilege)
    found = find(change(make_survey(), "", arriving=account), RECIPIENT, "db2")
    assert found.evidence == f"xbvault_recipient@localhost lacks {privilege} on *.*"
    assert f"GRANT {privilege} ON *.* TO `xbvault_recipient`@`localhost`" in found.hint


@pytest.mark.parametrize("privilege", database.READING)
def test_a_server_on_the_recipient_must_show_itself(privilege: str) -> None:
    """Without these it hides its replicas and schemas, and would be taken for one of no use."""
    account = make_account("xbvault_recipient", database.READING, without=privilege)
    found = find(change(make_survey(), "recipient", account=account), RECIPIENT, "db2")
    assert f"on the server that db2 has now, xbvault_recipient@localhost lacks {privilege}" in (
        found.evidence
    )


def test_an_account_that_does_not_come_over_is_named() -> None:
    """Without it nobody could work on the replica after the swap."""
    account = make_account("nobody", (), host="")
    found = find(change(make_survey(), "", arriving=account), RECIPIENT, "db2")
    assert found.evidence.startswith("no account nobody@localhost on db1")
    assert "defaults_file" in found.hint


def test_what_could_not_be_read_of_accounts_is_no_finding() -> None:
    """A host that cannot be read has a finding of its own."""
    survey = change(change(make_survey(), "", arriving=None), "donor", account=None)
    names = [check.name for check in preflight.judge(survey, CONFIG, REQUEST)]
    assert DONOR not in names
    assert RECIPIENT not in names


def test_a_donor_that_answers_with_too_few_privileges_counts_as_running() -> None:
    """Its account is the one problem, not the server."""
    account = make_account("xbvault_donor", database.DONOR, without="PROCESS")
    survey = change(make_survey(), "donor", account=account, instance=None)
    checks = {check.name: check for check in preflight.judge(survey, CONFIG, REQUEST)}
    assert checks["donor-running"].ok
    assert not checks[DONOR].ok


def test_a_running_server_that_cannot_be_asked_is_not_taken_for_none() -> None:
    """Else its data would be set aside without anyone having looked at it."""
    survey = change(make_survey(), "recipient.host", server_pids=(7,))
    assert (
        find(survey, "recipient-server", "db2").evidence == "the server that runs cannot be asked"
    )


@pytest.mark.parametrize("host", ["db1", "db2"])
def test_a_right_that_a_hosts_token_lacks_is_named(host: str) -> None:
    """By the path as its policy has it, one finding for each host."""
    for pattern, (path, (capability,)) in zip(
        vault.host_rights(CONFIG, host), needed_by_host(CONFIG, host).items(), strict=True
    ):
        capabilities = {name: needed_by_host(CONFIG, name) for name in ("db1", "db2")}
        capabilities[host][path] = ("deny",)
        survey = change(make_survey(), "vault", host_capabilities=capabilities)
        found = find(survey, "vault-host-capabilities")
        assert found.evidence == f"{host}'s token lacks {capability} on {pattern}"
        assert f"xbvault-host-{host}" in found.hint


def test_a_receiver_that_sudo_refuses_is_named_with_its_rule() -> None:
    """What sudo said, and the line of sudoers that is missing."""
    line = 'restrict,command="sudo -n /usr/local/sbin/xbvault-receive x" xbvault-receive-db2'
    survey = change(
        make_survey(),
        "recipient.host",
        principals=(line,),
        receive_user="stream",
        receiver_refusal="sudo: a password is required",
    )
    found = find(survey, "receiver", "db2")
    assert found.evidence == "stream cannot start it with sudo: sudo: a password is required"
    assert "stream ALL=(root) NOPASSWD: /usr/local/sbin/xbvault-receive" in found.hint


def test_a_receiver_that_needs_no_sudo_is_not_asked_for_it() -> None:
    """The line for the principal says how it is started."""
    survey = change(make_survey(), "recipient.host", receiver_refusal="sudo: not installed")
    assert all(check.ok for check in preflight.judge(survey, CONFIG, REQUEST))
