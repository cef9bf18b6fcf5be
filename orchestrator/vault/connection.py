"""Sends requests to Vault with one token, and tries again what may pass by itself."""

from __future__ import annotations

import copy
import json
import os.path
import urllib.parse
from typing import TYPE_CHECKING, Any, Self

import hvac.adapters
import hvac.exceptions
import requests
import tenacity

from orchestrator.config import is_header, is_url
from orchestrator.errors import ConfigError, SecretError
from orchestrator.vault.errors import FAILURES, make_error, says, translate, was_not_done
from orchestrator.vault.token_files import check_token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.models import Secret
    from orchestrator.vault.answers import Answer

RETRY_SECONDS = 5.0
_CONNECT_SECONDS = 5.0


class Connection:
    """A connection to Vault with one token. Safe for several threads.

    Args:
        address: URL, such as ``https://vault.example:8200``.
        token: The token to use.
        ca_file: CA certificate that Vault's own is checked with; empty: the system's.
        namespace: Vault namespace; empty: the root.
        timeout_seconds: Longest wait for one answer.
        token_origin: Where the token comes from, for a reader who must put another there.
        witness: Called with number and path of each request that gave a secret out.

    Raises:
        ConfigError: The address is no URL, the namespace can be none, or there is no such CA file.
    """

    def __init__(
        self,
        address: str,
        token: Secret,
        *,
        ca_file: str = "",
        namespace: str = "",
        timeout_seconds: float = 10,
        token_origin: str = "",
        witness: Callable[[str, str], None] | None = None,
    ) -> None:
        if not is_url(address):
            raise ConfigError(
                f"vault.address: {address.rpartition('@')[2]!r} is no http or https URL",
                hint="such as https://vault.example:8200, without user and password",
            )
        if ca_file and not os.path.isfile(ca_file):  # noqa: PTH113 - never raises
            raise ConfigError(f"vault.ca_file: no file {ca_file}")
        if not is_header(namespace):
            raise ConfigError(f"vault.namespace: {namespace!r} cannot be the name of one")
        self.address = address.rstrip("/")
        self.ca_file = ca_file
        self.namespace = namespace
        self._timeout_seconds = timeout_seconds
        self._token_origin = token_origin
        self._witness = witness
        self._session = requests.Session()
        self._session.verify = ca_file or True
        # The environment's proxies and CA bundle are looked up once, and not for every request; its
        # .netrc is left alone, which has no tokens.
        found = self._session.merge_environment_settings(
            self.address, {}, None, self._session.verify, None
        )
        self._session.proxies, self._session.verify = found["proxies"], found["verify"]
        self._session.trust_env = False
        self._use(token)

    def with_token(self, token: Secret) -> Self:
        """Return a connection to the same Vault with another token; it shares the sockets."""
        other = copy.copy(self)
        other._token_origin = ""  # noqa: SLF001 - one of our own kind
        other._use(token)  # noqa: SLF001 - one of our own kind
        return other

    def close(self) -> None:
        """Close the sockets, those of `with_token` included."""
        self._session.close()

    def _use(self, token: Secret) -> None:
        check_token(token, "the given value")
        timeout = (min(_CONNECT_SECONDS, self._timeout_seconds), self._timeout_seconds)
        common = {
            "base_uri": self.address,
            "verify": self._session.verify,
            "session": self._session,
            "timeout": timeout,
            # A token is never sent on to where an answer points.
            "allow_redirects": False,
        }
        self._adapter = hvac.adapters.RawAdapter(
            token=token.reveal(), namespace=self.namespace or None, **common
        )
        # Health is asked in the root namespace, and of anybody.
        self._anonymous = hvac.adapters.RawAdapter(**common)

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        capability: str = "",
        repeatable: bool = True,
    ) -> Answer:
        """Send a request and return the answer; an empty one is ``{}``.

        Args:
            method: ``get``, ``list``, ``post`` or ``delete``.
            path: Below ``/v1/``, not quoted.
            body: To be sent as JSON.
            query: To be sent in the URL.
            capability: What the token needs for it, where the method does not say.
            repeatable: A second request does no harm when the first one's answer was lost.

        Raises:
            SecretError: Vault refused. `hvac.exceptions.InvalidPath` (404) is its cause where
                there is nothing at the path.
        """

        def should_repeat(error: BaseException) -> bool:
            if not isinstance(error, FAILURES):
                return False
            translated = translate(error, method=method, path=path, address=self.address)
            return translated.transient and (repeatable or was_not_done(error))

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(should_repeat),
            stop=tenacity.stop_after_delay(RETRY_SECONDS),
            wait=tenacity.wait_exponential(multiplier=0.1, max=1),
            reraise=True,
        )
        try:
            answer: Answer = retrying(self._send, self._adapter, method, path, body, query)
        except FAILURES as error:
            is_denied = isinstance(error, hvac.exceptions.Forbidden)
            raise translate(
                error,
                method=method,
                path=path,
                address=self.address,
                capability=capability,
                is_token_known=not is_denied or self._is_token_known(),
                token_origin=self._token_origin,
            ) from error
        return answer

    def _find(self, method: str, path: str, **more: Any) -> Answer | None:
        """Send a request; None if there is nothing at the path."""
        try:
            return self._call(method, path, **more)
        except SecretError as error:
            cause = error.__cause__
            if isinstance(cause, hvac.exceptions.InvalidPath) and not says(cause, "no handler"):
                return None
            raise

    def _send(
        self,
        adapter: Any,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
    ) -> Answer:
        """Send one request, once."""
        more: dict[str, Any] = {"params": query} if query else {}
        if body is not None:
            more["json"] = body
        url = f"/v1/{_quote_path(path)}"
        response = adapter.request(method, url, raise_exception=False, **more)
        if response.is_redirect or not response.ok:
            raise make_error(response, method, path)
        if not response.content:
            return {}
        try:
            answer = json.loads(response.content)
        except (ValueError, RecursionError) as error:
            raise hvac.exceptions.UnexpectedError(
                "the answer is not JSON", method=method, url=path
            ) from error
        return answer if isinstance(answer, dict) else {}

    def _is_token_known(self) -> bool:
        """Tell a missing right from a token that Vault does not know (any more)."""
        # Two questions, because either may be the right that is missing.
        paths = {"paths": ["auth/token/lookup-self"]}
        for method, path, body in (
            ("get", "auth/token/lookup-self", None),
            ("post", "sys/capabilities-self", paths),
        ):
            try:
                self._send(self._adapter, method, path, body, None)
            except hvac.exceptions.Forbidden:
                continue
            except FAILURES:
                pass
            return True
        return False


def _quote_path(path: str) -> str:
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise SecretError(f"{path!r} is no path in Vault")
    return "/".join(urllib.parse.quote(part, safe="") for part in parts)
