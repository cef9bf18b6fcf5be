from __future__ import annotations

import inspect
import ssl

import hvac.exceptions
import pytest
import requests
import requests.exceptions
import urllib3.exceptions

from orchestrator.errors import SecretError, SecretStoreUnavailableError
from orchestrator.vault.errors import make_error, translate

ADDRESS = "https://vault.example:8200"
PATH = "xbvault/data/transition-keys/b1"
UPGRADING = (
    "Upgrading from non-versioned to versioned data. This backend will be unavailable for a "
    "brief period and will resume service shortly."
)

HVAC = {
    "VaultError": (SecretError, "an unexpected answer"),
    "InvalidRequest": (SecretError, "refuses the request"),
    "Unauthorized": (SecretError, "does not know the token"),
    "Forbidden": (SecretError, f'denies the token "read" on {PATH}'),
    "InvalidPath": (SecretError, f"nothing in Vault at {PATH}"),
    "UnsupportedOperation": (SecretError, "refuses the request"),
    "PreconditionFailed": (SecretError, "an unexpected answer"),
    "RateLimitExceeded": (SecretStoreUnavailableError, "cannot answer now"),
    "InternalServerError": (SecretStoreUnavailableError, "cannot answer now"),
    "VaultNotInitialized": (SecretError, "is not initialized"),
    "VaultDown": (SecretStoreUnavailableError, "cannot answer now"),
    "UnexpectedError": (SecretError, "an unexpected answer"),
    "BadGateway": (SecretStoreUnavailableError, "cannot answer now"),
    "ParamValidationError": (SecretError, "an unexpected answer"),
}
REACH = (SecretStoreUnavailableError, "cannot be reached")
MADE = (SecretError, "could not be made")
REQUESTS = {
    "RequestException": MADE,
    "InvalidJSONError": MADE,
    "JSONDecodeError": MADE,
    "HTTPError": MADE,
    "ConnectionError": REACH,
    "ProxyError": REACH,
    "SSLError": (SecretError, "no TLS connection"),
    "Timeout": (SecretStoreUnavailableError, "did not answer in time"),
    "ConnectTimeout": (SecretStoreUnavailableError, "did not answer in time"),
    "ReadTimeout": (SecretStoreUnavailableError, "did not answer in time"),
    "URLRequired": MADE,
    "TooManyRedirects": MADE,
    "MissingSchema": MADE,
    "InvalidSchema": MADE,
    "InvalidURL": MADE,
    "InvalidHeader": MADE,
    "InvalidProxyURL": MADE,
    "ChunkedEncodingError": REACH,
    "ContentDecodingError": MADE,
    "StreamConsumedError": MADE,
    "RetryError": REACH,
    "UnrewindableBodyError": MADE,
}


def _translate(error: BaseException, method: str = "get", capability: str = "") -> SecretError:
    return translate(error, method=method, path=PATH, address=ADDRESS, capability=capability)


def _error_classes(module: object, base: type[Exception]) -> dict[str, type[Exception]]:
    found = inspect.getmembers(module, inspect.isclass)
    return {name: cls for name, cls in found if issubclass(cls, base)}


def test_every_exception_of_the_libraries_is_in_the_tables() -> None:
    """A class that a new version of hvac or requests brings makes this test fail."""
    assert set(_error_classes(hvac.exceptions, hvac.exceptions.VaultError)) == set(HVAC)
    assert set(_error_classes(requests.exceptions, requests.RequestException)) == set(REQUESTS)


@pytest.mark.parametrize("name", HVAC)
def test_each_exception_of_hvac_is_translated(name: str) -> None:
    """Each class becomes the error that says what to do; only what may pass is transient."""
    error = getattr(hvac.exceptions, name)("HTTP 4xx", errors=["some reason"])
    found = _translate(error)
    expected, words = HVAC[name]
    assert type(found) is expected
    assert words in found.message
    assert found.transient is (expected is SecretStoreUnavailableError)


@pytest.mark.parametrize("name", REQUESTS)
def test_each_exception_of_requests_is_translated(name: str) -> None:
    """Each class becomes the error that says what to do, without the text of the exception."""
    cls = getattr(requests.exceptions, name)
    arguments = ("s.leaked", "doc", 0) if name == "JSONDecodeError" else ("s.leaked",)
    found = _translate(cls(*arguments))
    expected, words = REQUESTS[name]
    assert type(found) is expected
    assert words in found.message
    assert "s.leaked" not in str(found.as_json())


@pytest.mark.parametrize(
    ("status", "errors", "expected", "words"),
    [
        (503, ["Vault is sealed"], SecretStoreUnavailableError, f"Vault at {ADDRESS} is sealed"),
        (503, ["node is on standby"], SecretStoreUnavailableError, "is on standby"),
        (500, ["local node not active but active cluster node not found"],
         SecretStoreUnavailableError, "is on standby"),
        (500, ["context deadline exceeded"], SecretStoreUnavailableError, "cannot answer now"),
        (429, [], SecretStoreUnavailableError, "cannot answer now"),
        (502, [], SecretStoreUnavailableError, "cannot answer now"),
        (400, [UPGRADING], SecretStoreUnavailableError, "is not ready"),
        (400, ["check-and-set parameter did not match the current version"],
         SecretError, "nothing was written"),
        (400, ["Client sent an HTTP request to an HTTPS server."], SecretError, "speaks TLS"),
        (404, ['no handler for route "x". route entry not found.'], SecretError, "no handler"),
        (418, [], SecretError, "unexpected answer"),
    ],
)  # fmt: skip
def test_each_state_of_vault_is_told_apart(
    status: int, errors: list[str], expected: type[SecretError], words: str
) -> None:
    """The texts that Vault and OpenBao really send lead to the right error."""
    error = hvac.exceptions.VaultError.from_status(status, f"HTTP {status}", errors=errors)
    found = _translate(error, "post")
    assert type(found) is expected
    assert words in found.message


@pytest.mark.parametrize(
    ("method", "capability", "named"),
    [
        ("get", "", "read"),
        ("list", "", "list"),
        ("post", "", "update"),
        ("post", "create", "create"),
        ("delete", "", "delete"),
    ],
)
def test_a_denied_request_names_path_and_capability(
    method: str, capability: str, named: str
) -> None:
    """The reader learns which line the policy lacks."""
    error = hvac.exceptions.Forbidden("HTTP 403", errors=["permission denied"])
    found = _translate(error, method, capability)
    assert found.exit_status == 5
    assert f'"{named}" on {PATH}' in found.message
    assert f'path "{PATH}" {{ capabilities = ["{named}"] }}' in found.hint


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("unable to get local issuer certificate", "vault.ca_file"),
        ("certificate is not yet valid", "is the clock here right?"),
        ("certificate has expired", "is the clock here right?"),
    ],
)
def test_a_certificate_that_is_not_trusted_is_no_passing_trouble(reason: str, hint: str) -> None:
    """It is not tried again, and the hint names the key of the configuration, or the clock."""
    inner = ssl.SSLCertVerificationError(1, "certificate verify failed")
    inner.verify_message = reason
    wrapped = urllib3.exceptions.MaxRetryError(
        urllib3.HTTPSConnectionPool("vault.example"), "/", urllib3.exceptions.SSLError(inner)
    )
    found = _translate(requests.exceptions.SSLError(wrapped))
    assert type(found) is SecretError
    assert reason in found.message
    assert hint in found.hint


def test_a_connection_that_is_cut_may_pass() -> None:
    """A server that goes away in the handshake is not a wrong CA."""
    inner = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    found = _translate(requests.exceptions.SSLError(urllib3.exceptions.SSLError(inner)))
    assert type(found) is SecretStoreUnavailableError


def test_a_refused_connection_tells_the_reason() -> None:
    """The system's own words stand in the message."""
    found = _translate(requests.ConnectionError(ConnectionRefusedError(111, "Connection refused")))
    assert type(found) is SecretStoreUnavailableError
    assert found.message == f"Vault at {ADDRESS} cannot be reached: connection refused"


def test_what_is_no_file_is_told() -> None:
    """A CA file that cannot be read is an error of Vault's connection, not of ours."""
    found = _translate(PermissionError(13, "Permission denied"))
    assert type(found) is SecretError
    assert "vault.ca_file" in found.hint


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (307, hvac.exceptions.VaultDown),
        (403, hvac.exceptions.Forbidden),
        (412, hvac.exceptions.PreconditionFailed),
        (472, hvac.exceptions.VaultDown),
        (504, hvac.exceptions.BadGateway),
    ],
)
def test_each_status_is_an_exception_of_hvac(
    status: int, expected: type[hvac.exceptions.VaultError]
) -> None:
    """Also the statuses that hvac does not know get the class that says what they mean."""
    answer = requests.Response()
    answer.status_code, answer._content = (
        status,
        b'{"errors": ["some  reason"], "data": "s.leaked"}',
    )
    answer.headers["Location"] = "https://other.example:8200"
    error = make_error(answer, "get", PATH)
    assert type(error) is expected
    assert "some reason" in str(error)
    assert "s.leaked" not in str(error)


def test_a_token_that_vault_does_not_know_is_told_from_a_missing_right() -> None:
    """A policy cannot help a token that has expired, so the hint is another one."""
    error = hvac.exceptions.Forbidden("HTTP 403", errors=["permission denied"])
    found = translate(
        error,
        method="get",
        path=PATH,
        address=ADDRESS,
        is_token_known=False,
        token_origin="/etc/xbvault/token",
    )
    assert "does not know the token" in found.message
    assert f'"read" on {PATH}' in found.message
    assert found.hint.endswith("put a valid one into /etc/xbvault/token")
