"""What the exceptions of hvac and requests mean to us.

An error carries the path, the capability and Vault's own error texts, never the body of an answer.
"""

from __future__ import annotations

import functools
import json
import ssl
from typing import TYPE_CHECKING

import hvac.exceptions
import requests
import urllib3.exceptions

from orchestrator.errors import SecretError, SecretStoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILURES = (hvac.exceptions.VaultError, OSError)
"""What a request may raise, for `except`; the errors of requests are OSErrors."""
_CAPABILITIES = {"get": "read", "list": "list", "post": "update", "delete": "delete"}
_UPGRADING = "upgrading from non-versioned"  # KV version 2, for a moment after it is enabled
_WRONG_TIME = ("not yet valid", "has expired")
_PLAIN_TO_TLS = "HTTP request to an HTTPS server"
_STANDBY = ("local node not active", "node is on standby", "no active cluster", "active node")
_UNKNOWN_TO_HVAC = {
    412: hvac.exceptions.PreconditionFailed,  # hvac has the class, and never raises it
    472: hvac.exceptions.VaultDown,
    473: hvac.exceptions.VaultDown,
    504: hvac.exceptions.BadGateway,
}
"""Statuses for which hvac itself would raise a bare `VaultError`."""
_LOST = (
    requests.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.RetryError,
)


def translate(  # noqa: C901, PLR0911 - a table: one branch for each kind of answer
    error: BaseException,
    *,
    method: str,
    path: str,
    address: str,
    capability: str = "",
    is_token_known: bool = True,
    token_origin: str = "",
) -> SecretError:
    """Return our error for one of hvac or requests.

    Args:
        error: What was raised.
        method: Of the request.
        path: Below ``/v1/``.
        address: Of Vault.
        capability: What the token needs, where the method does not say.
        is_token_known: Whether Vault knows the token at all.
        token_origin: Where the token comes from; empty: somewhere that only the caller knows.
    """
    if isinstance(error, OSError):
        return _translate_connection(error, address)
    text = "; ".join(_texts(error))
    needed = capability or _CAPABILITIES.get(method, "update")
    problem = f"{text or 'no reason given'}, on {method.upper()} {path}"
    match error:
        case hvac.exceptions.VaultDown() if "sealed" in text.lower():
            return SecretStoreUnavailableError(
                f"Vault at {address} is sealed", hint="unseal it, then resume"
            )
        case hvac.exceptions.InvalidRequest() if _UPGRADING in text.lower():
            return SecretStoreUnavailableError(f"Vault is not ready: {problem}")
        case hvac.exceptions.InvalidRequest() if _PLAIN_TO_TLS in text:
            return SecretError(
                f"Vault at {address} speaks TLS", hint="write https:// in vault.address"
            )
        case hvac.exceptions.InvalidRequest() if "check-and-set" in text:
            return SecretError(
                f"{path} in Vault was written by somebody else meanwhile, so nothing was written",
                hint="look at its versions; a run that is resumed finds its own",
            )
        case (
            hvac.exceptions.VaultDown()
            | hvac.exceptions.BadGateway()
            | hvac.exceptions.RateLimitExceeded()
            | hvac.exceptions.InternalServerError()
        ):
            state = "is on standby" if any(s in text for s in _STANDBY) else "cannot answer now"
            return SecretStoreUnavailableError(f"Vault at {address} {state}: {problem}")
        case hvac.exceptions.VaultNotInitialized():
            return SecretError(f"Vault at {address} is not initialized", hint="initialize it")
        case hvac.exceptions.Forbidden() if is_token_known:
            return SecretError(
                f'Vault denies the token "{needed}" on {path}',
                hint=f'its policy needs: path "{path}" {{ capabilities = ["{needed}"] }}; '
                "`xbvault vault init` writes the policies",
            )
        case hvac.exceptions.Forbidden() | hvac.exceptions.Unauthorized():
            return SecretError(
                f'Vault at {address} does not know the token, and denies it "{needed}" on {path}',
                hint="it is wrong, expired or revoked"
                + (f": put a valid one into {token_origin}" if token_origin else ""),
            )
        case hvac.exceptions.InvalidPath():
            return SecretError(f"nothing in Vault at {path}" + (f": {text}" if text else ""))
        case hvac.exceptions.InvalidRequest() | hvac.exceptions.UnsupportedOperation():
            return SecretError(f"Vault refuses the request: {problem}")
        case _:
            return SecretError(f"an unexpected answer from Vault at {address}: {problem}")


def _translate_connection(  # noqa: PLR0911 - a table: one branch for each kind of failure
    error: BaseException, address: str
) -> SecretError:
    causes = tuple(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        reason = next(
            c.verify_message for c in causes if isinstance(c, ssl.SSLCertVerificationError)
        )
        return SecretError(
            f"the TLS certificate of Vault at {address} is not trusted: {reason}",
            hint="is the clock here right? otherwise Vault needs another certificate"
            if any(words in reason for words in _WRONG_TIME)
            else "vault.ca_file must be the CA that signed it, and vault.address a name in it",
        )
    if any(isinstance(cause, ssl.SSLEOFError) for cause in causes):
        return SecretStoreUnavailableError(f"Vault at {address} closed the connection")
    if isinstance(error, requests.exceptions.SSLError):
        return SecretError(
            f"no TLS connection to Vault at {address}",
            hint="check vault.ca_file, and that vault.address names a TLS port",
        )
    if isinstance(error, requests.Timeout):
        return SecretStoreUnavailableError(
            f"Vault at {address} did not answer in time", hint="check that it runs"
        )
    if isinstance(error, _LOST):
        reason = next((c.strerror for c in causes if isinstance(c, OSError) and c.strerror), "")
        return SecretStoreUnavailableError(
            f"Vault at {address} cannot be reached" + (f": {reason.lower()}" if reason else ""),
            hint="check vault.address, and that it runs",
        )
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        return SecretError(
            f"no connection to Vault at {address}: {error.strerror or 'a file cannot be read'}",
            hint="check vault.ca_file",
        )
    return SecretError(
        f"the request to Vault at {address} could not be made ({type(error).__name__})",
        hint="check vault.address and the proxy settings of the environment",
    )


def make_error(response: requests.Response, method: str, path: str) -> Exception:
    """Return hvac's exception for an answer, with Vault's error texts and nothing else of it."""
    status = response.status_code
    errors: list[str] = []
    try:
        listed = json.loads(response.content).get("errors")
        errors = [" ".join(str(text).split()) for text in listed or ()]
    except (ValueError, AttributeError, TypeError, RecursionError):
        if _PLAIN_TO_TLS.encode() in response.content:
            errors = [_PLAIN_TO_TLS]
    if response.is_redirect or status in (472, 473):
        errors = errors or ["node is on standby and points to the active node"]
    cls = hvac.exceptions.VaultDown if response.is_redirect else _UNKNOWN_TO_HVAC.get(status)
    make = cls or functools.partial(hvac.exceptions.VaultError.from_status, status)
    error: Exception = make(f"HTTP {status}", errors=errors, method=method, url=path)
    return error


def was_not_done(error: BaseException) -> bool:
    """Tell whether a failed request surely changed nothing in Vault."""
    if isinstance(error, hvac.exceptions.VaultDown | hvac.exceptions.RateLimitExceeded):
        return True
    if isinstance(error, hvac.exceptions.InvalidRequest):
        return True
    refused = (requests.ConnectTimeout, urllib3.exceptions.NewConnectionError)
    return any(isinstance(cause, refused) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it wraps; requests and urllib3 keep it in `args` or `reason`."""
    seen: set[int] = set()
    left: list[object] = [error]
    while left:
        found = left.pop()
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        left += [found.__cause__, found.__context__, getattr(found, "reason", None), *found.args]


def _texts(error: BaseException) -> tuple[str, ...]:
    errors = getattr(error, "errors", None) or ()
    return tuple(errors) if errors else tuple(str(a) for a in error.args[:1] if a)


def says(error: BaseException | None, words: str) -> bool:
    """Tell whether one of Vault's error texts holds these words."""
    return error is not None and any(words in text for text in _texts(error))
