"""What the recipient's client says of the server that its replica will follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fake_remote import FakeRemote
from surveys import CONFIG, make_survey

from orchestrator.facts import survey
from orchestrator.flavors.mariadb import MariaDB
from orchestrator.flavors.mysql import MySQL

if TYPE_CHECKING:
    from orchestrator.flavors.interface import Flavor

TLS = "Received error packet before completion of TLS handshake. The authenticity … verified:"


def ask(words: str) -> survey.Connection:
    """Return what is made of a client's words."""
    remote = FakeRemote("db2")
    remote.answer("timeout", "20", "mariadb", status=1, stderr=words)
    return survey.try_connection(remote, CONFIG, "db1", make_survey().recipient)


@pytest.mark.parametrize(
    "words",
    [
        "ERROR 1045 (28000): Access denied for user 'xbvault'@'db2' (using password: NO)",
        "ERROR 1130 (HY000): Host 'db2' is not allowed to connect to this MySQL server",
        f"ERROR 2002 (HY000): {TLS} 1130 - Host 'db2' is not allowed to connect to this Mar",
        f"ERROR 2002 (HY000): {TLS} 1040 - Too many connections",
        "",
    ],
)
def test_a_server_that_answers_is_reached(words: str) -> None:
    """It knows no account for the recipient yet, and MariaDB's client tells that in its own words."""
    assert ask(words) == survey.Connection()


@pytest.mark.parametrize(
    "words",
    [
        "ERROR 2002 (HY000): Can't connect to server on 'db1' (111)",
        "ERROR 2003 (HY000): Can't connect to MySQL server on 'db1:3306' (110)",
        "ERROR 2005 (HY000): Unknown server host 'db1'",
        f"ERROR 2002 (HY000): {TLS} 1129 - Host 'db2' is blocked because of many connection errors",
        "ERROR 1129 (HY000): Host 'db2' is blocked because of many connection errors",
    ],
)
def test_a_server_that_does_not(words: str) -> None:
    """Or that has shut this host out for good."""
    assert ask(words) == survey.Connection(refusal=words[:200])


def test_a_certificate_that_does_not_hold() -> None:
    """It is no question of the way."""
    words = "ERROR 2026 (HY000): TLS/SSL error: unable to get local issuer certificate"
    assert ask(words) == survey.Connection(distrust=words)


@pytest.mark.parametrize(
    ("flavor", "version", "ca_file", "options"),
    [
        (MariaDB(), "10.11.19", "/ca.pem", ["--ssl-verify-server-cert", "--ssl-ca=/ca.pem"]),
        (MariaDB(), "11.4.2", "/ca.pem", ["--ssl-verify-server-cert", "--ssl-ca=/ca.pem"]),
        (MariaDB(), "10.11.19", "", ["--ssl-verify-server-cert"]),
        (MariaDB(), "11.3.2", "", ["--ssl-verify-server-cert"]),
        (MariaDB(), "11.4.2", "", ["--disable-ssl-verify-server-cert"]),
        (MariaDB(), "", "", ["--ssl-verify-server-cert"]),
        (MySQL(), "5.7.44", "/ca.pem", ["--ssl-mode=VERIFY_IDENTITY", "--ssl-ca=/ca.pem"]),
        (MySQL(), "9.7.4", "", ["--ssl-mode=VERIFY_IDENTITY"]),
    ],
)
def test_the_client_trusts_whom_a_replica_would(
    flavor: Flavor, version: str, ca_file: str, options: list[str]
) -> None:
    """From 11.4 on, MariaDB's replica trusts by its password where it has no CA."""
    assert flavor.trust_options(version, ca_file) == options
