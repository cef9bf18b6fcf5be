"""What the accounts must be allowed to do that a run works with on the servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.flavors.quoting import quote_name
from orchestrator.privileges import database

if TYPE_CHECKING:
    from orchestrator.facts.accounts import Account
    from orchestrator.facts.preflight.findings import Found, Request
    from orchestrator.facts.survey import Survey
    from orchestrator.privileges.database import Wanted


def judge_donor_account(account: Account, wanted: tuple[str, ...]) -> Found:
    """Judge the account that works on the donor."""
    lacking = find_lacking(account, wanted)
    return (
        not lacking,
        _describe(account, lacking, "has all that a donor takes"),
        _grant_hint(account, lacking, "the donor"),
    )


def judge_source_account(account: Account, wanted: tuple[str, ...]) -> Found:
    """Judge the account that works on the donor's own source."""
    lacking = find_lacking(account, wanted)
    return (
        not lacking,
        _describe(account, lacking, "has all that a source takes"),
        _grant_hint(account, lacking, "the donor's source"),
    )


def judge_recipient_account(survey: Survey, request: Request, wanted: Wanted) -> Found | None:
    """Judge the account that works on the recipient; None if it could not be read.

    The donor's accounts come over with its data, so it is the one on the donor that counts. A
    server that runs on the recipient before is only looked at.
    """
    arriving, own = survey.arriving, survey.recipient.account
    if own is not None:
        lacking = find_lacking(own, wanted.reading)
        if lacking:
            where = f"the server that {request.recipient} has now"
            evidence = _describe(own, lacking, "")
            return False, f"on {where}, {evidence}", _grant_hint(own, lacking, where)
    if arriving is None:
        return None
    if not arriving.host:
        return (
            False,
            f"no account {arriving.user}@localhost on {request.donor}, to work on "
            f"{request.recipient} with once the data is there",
            "make it on the donor as `xbvault vault init --print-policy` shows it, or name another "
            "in hosts.*.server.defaults_file of the recipient",
        )
    lacking = find_lacking(arriving, wanted.recipient)
    return (
        not lacking,
        _describe(arriving, lacking, f"of {request.donor} has all that a recipient takes"),
        _grant_hint(arriving, lacking, "the donor, whose accounts the recipient gets"),
    )


def find_lacking(account: Account, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the privileges that an account was not granted."""
    return tuple(name for name in wanted if name not in account.privileges)


def _describe(account: Account, lacking: tuple[str, ...], good: str) -> str:
    if not lacking:
        return f"{account.label} {good}"
    return f"{account.label} lacks {', '.join(lacking)} on *.*"


def _grant_hint(account: Account, lacking: tuple[str, ...], where: str) -> str:
    named = [name for name in lacking if name != database.GRANT_OPTION] or ["USAGE"]
    option = f" WITH {database.GRANT_OPTION}" if database.GRANT_OPTION in lacking else ""
    grantee = f"{quote_name(account.user)}@{quote_name(account.host)}"
    return f"on {where}: GRANT {', '.join(named)} ON *.* TO {grantee}{option}"
