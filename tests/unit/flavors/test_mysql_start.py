"""What MySQL's error log says of a start that failed."""

from __future__ import annotations

import pytest

from orchestrator.flavors.interface import StartFailure
from orchestrator.flavors.mysql_start import parse_failed_start

BEGIN = "T06:10:11Z 0 [System] [MY-010116] [Server] mysqld (mysqld 8.0.36) starting as process 4\n"


@pytest.mark.parametrize(
    ("line", "cause", "reason"),
    [
        (
            "1 [ERROR] [MY-011370] [Server] Plugin keyring_vault reported: 'CURL returned this "
            "error code: 7 with error message : Failed to connect'",
            StartFailure.VAULT_UNAVAILABLE,
            "Failed to connect",
        ),
        (
            "1 [ERROR] [MY-011370] [Server] Plugin keyring_vault reported: 'Could not retrieve "
            'list of keys from Vault. Vault has returned the following error(s): ["permission '
            "denied\"]'",
            StartFailure.VAULT_DENIES,
            "permission denied",
        ),
        (
            "0 [ERROR] [MY-000067] [Server] unknown variable 'no_such_option=1'.",
            StartFailure.OTHER,
            "unknown variable 'no_such_option=1'.",
        ),
        ("0 [ERROR] Can't start server: Bind", StartFailure.OTHER, "Can't start server: Bind"),
    ],
)
def test_the_line_that_tells_most(line: str, cause: StartFailure, reason: str) -> None:
    """Only the last start counts; 5.7 writes no number behind the label."""
    earlier = f"{BEGIN}T06:00:00Z 0 [ERROR] [MY-010119] [Server] Earlier\n"
    found = parse_failed_start(f"{earlier}{BEGIN}T06:10:12Z {line}\n")
    assert found.cause is cause
    assert reason in found.reason
    assert len(found.errors) == 1
    assert "[" not in found.errors[0].partition("'")[0]


def test_a_log_that_says_nothing() -> None:
    """No error is made up."""
    found = parse_failed_start("")
    assert (found.cause, found.reason, found.errors) == (StartFailure.OTHER, "", ())
