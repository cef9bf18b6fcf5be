"""HashiCorp Vault or OpenBao: the only module that imports hvac.

Only what both servers have is used. The token stands in a request header and nowhere else; an
error carries the path, the capability and Vault's own error texts, never the body of an answer.
Every exception of hvac and requests becomes a `SecretError`, and what may pass by itself (sealed,
standby, unreachable) is tried again here for a few seconds.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import ssl
import urllib.parse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hvac.adapters
import hvac.exceptions
import requests
import tenacity
import urllib3.exceptions

from orchestrator.errors import ConfigError, SecretError, SecretStoreUnavailableError
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from orchestrator.config import VaultConfig

RETRY_SECONDS = 5.0
_CONNECT_SECONDS = 5.0
_HEALTH_QUERY = {
    "standbyok": "true",
    "perfstandbyok": "true",
    "sealedcode": "200",
    "uninitcode": "200",
    "drsecondarycode": "200",
}
_CAPABILITIES = {"get": "read", "list": "list", "post": "update", "delete": "delete"}
_TOKEN = re.compile(r"[\x21-\x7e]+")
_UPGRADING = "upgrading from non-versioned"  # KV version 2, for a moment after it is enabled
_PLAIN_TO_TLS = "HTTP request to an HTTPS server"
_STANDBY = ("local node not active", "node is on standby", "no active cluster", "active node")
_GONE_ACCESSOR = "invalid accessor"
_LOST = (
    requests.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.RetryError,
)

Answer = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Health:
    """What Vault says of itself to anybody.

    Attributes:
        initialized: It was initialized once.
        sealed: It cannot read its own storage until it is unsealed.
        standby: It answers for another node that is active.
        version: Such as ``2.7.2``.
        server_time: Its clock, to the second.
    """

    initialized: bool
    sealed: bool
    standby: bool
    version: str
    server_time: datetime


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenInfo:
    """A token, without its value.

    Attributes:
        ttl_seconds: What is left of its life; 0 with `expires` 0: it never ends.
        period_seconds: Each renewal makes it live this long again; 0 if it is not periodic. Of
            a token that a token role made, Vault does not tell; then it is its life at creation.
        renewable: Whether it can be renewed.
        accessor: Handle that can look up, renew and revoke it, and nothing else.
        policies: Names of its policies.
        expires: When it ends, in seconds since 1970; 0 = never.
    """

    ttl_seconds: int
    period_seconds: int
    renewable: bool
    accessor: str
    policies: tuple[str, ...]
    expires: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class VersionInfo:
    """One version of a secret in KV version 2.

    Attributes:
        created_at: When it was written.
        destroyed: Its value is gone for good.
        deleted: Its value is hidden.
    """

    created_at: datetime
    destroyed: bool
    deleted: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecretMetadata:
    """What KV version 2 keeps about a secret.

    Attributes:
        current_version: Newest version; 0 if nothing was ever written.
        versions: The versions that are still listed.
        custom: Our own notes on it.
        max_versions: Versions kept of this secret; 0 = as the mount says.
    """

    current_version: int
    versions: dict[int, VersionInfo]
    custom: dict[str, str]
    max_versions: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class MountInfo:
    """A secrets engine at its mount.

    Attributes:
        type: Kind of engine, such as ``kv`` or ``ssh``.
        version: Of KV, 1 or 2; 0 for other engines.
        description: What was written when it was enabled.
    """

    type: str
    version: int
    description: str


def environment_token() -> Secret:
    """Return the token of the person at the prompt: VAULT_TOKEN, else ``~/.vault-token``.

    Raises:
        ConfigError: There is none.
    """
    clear = os.environ.get("VAULT_TOKEN", "").strip()
    if clear:
        return _check_token(Secret(clear), "VAULT_TOKEN")
    path = Path("~/.vault-token").expanduser()
    if path.is_file():
        return _read_token_file(path)
    raise ConfigError(
        "no Vault token",
        hint="name a file in vault.token_file, or set VAULT_TOKEN, or log in with the vault command",
    )


def _read_token_file(path: Path) -> Secret:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the token file {path}: {getattr(error, 'strerror', None) or 'not text'}",
            hint="write the token to it, mode 0600, or change vault.token_file",
        ) from error
    return _check_token(Secret(text.strip()), str(path))


def write_token_file(
    path: Path, issue: Callable[[], Secret], *, name: str = "", replace: bool = False
) -> None:
    """Write a new token to a file of mode 0600.

    The file is made before the token is issued, so that none is issued that nobody has.

    Args:
        path: The file; there is none yet, unless `replace`.
        issue: Makes the token.
        name: With a name: as a line ``NAME=token``, as an environment file has it.
        replace: Put it in the place of an existing file.

    Raises:
        ConfigError: The file exists, or cannot be written.
    """
    if path.exists() and not replace:
        raise ConfigError(f"{path} exists", hint="name another file, or replace it with --force")
    partial = path.with_name(f"{path.name}.xbvault-new")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot write {partial}: {error.strerror}", hint="see to its directory"
        ) from error
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            clear = issue().reveal()
            stream.write(f"{name}={clear}\n" if name else f"{clear}\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _check_token(token: Secret, origin: str) -> Secret:
    # requests quotes a value that is no header in its error, so it must never get one.
    if not _TOKEN.fullmatch(token.reveal()):
        raise ConfigError(
            f"there is no Vault token in {origin}", hint="it must be one word of printable ASCII"
        )
    return token


class Vault:
    """A connection to Vault with one token. Safe for several threads.

    Args:
        address: URL, such as ``https://vault.example:8200``.
        token: The token to use.
        ca_file: CA certificate that Vault's own is checked with; empty: the system's.
        namespace: Vault namespace; empty: the root.
        timeout_seconds: Longest wait for one answer.

    Raises:
        ConfigError: The address is no URL, or there is no such CA file.
    """

    def __init__(
        self,
        address: str,
        token: Secret,
        *,
        ca_file: str = "",
        namespace: str = "",
        timeout_seconds: float = 10,
    ) -> None:
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ConfigError(
                f"vault.address: {address.rpartition('@')[2]!r} is no http or https URL",
                hint="such as https://vault.example:8200, without user and password",
            )
        if ca_file and not Path(ca_file).is_file():
            raise ConfigError(f"vault.ca_file: no file {ca_file}")
        self.address = address.rstrip("/")
        self.ca_file = ca_file
        self.namespace = namespace
        self._timeout_seconds = timeout_seconds
        self._session = requests.Session()
        self._session.verify = ca_file or True
        self._use(token)

    @classmethod
    def from_config(cls, config: VaultConfig, *, token: Secret | None = None) -> Vault:
        """Return a connection as the configuration and the environment say.

        Args:
            config: The ``[vault]`` table; what it leaves out comes from VAULT_ADDR,
                VAULT_CACERT, VAULT_NAMESPACE, VAULT_TOKEN and ``~/.vault-token``.
            token: A token to use instead, such as an administrator's.

        Raises:
            ConfigError: No address, no token, or a file is missing.
        """
        address = config.address or os.environ.get("VAULT_ADDR", "")
        if not address:
            raise ConfigError("no Vault address", hint="set vault.address or VAULT_ADDR")
        if token is None and config.token_file:
            token = _read_token_file(Path(config.token_file).expanduser())
        ca_file = config.ca_file or os.environ.get("VAULT_CACERT", "")
        return cls(
            address,
            token or environment_token(),
            ca_file=str(Path(ca_file).expanduser()) if ca_file else "",
            namespace=config.namespace or os.environ.get("VAULT_NAMESPACE", ""),
        )

    def with_token(self, token: Secret) -> Vault:
        """Return a connection to the same Vault with another token; it shares the sockets."""
        other = object.__new__(Vault)
        other.address, other.ca_file, other.namespace = self.address, self.ca_file, self.namespace
        other._timeout_seconds, other._session = self._timeout_seconds, self._session
        other._use(token)
        return other

    def close(self) -> None:
        """Close the sockets, those of `with_token` included."""
        self._session.close()

    def _use(self, token: Secret) -> None:
        _check_token(token, "the given value")
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
            if not isinstance(error, hvac.exceptions.VaultError | requests.RequestException):
                return False
            translated = translate(error, method=method, path=path, address=self.address)
            return translated.transient and (repeatable or _was_not_done(error))

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(should_repeat),
            stop=tenacity.stop_after_delay(RETRY_SECONDS),
            wait=tenacity.wait_exponential(multiplier=0.1, max=1),
            reraise=True,
        )
        try:
            answer: Answer = retrying(self._send, self._adapter, method, path, body, query)
        except hvac.exceptions.Forbidden as error:
            if path != "auth/token/lookup-self" and not self._is_token_known():
                needed = capability or _CAPABILITIES[method]
                raise _refused_token(self.address, f'"{needed}" on {path}') from error
            raise translate(
                error, method=method, path=path, address=self.address, capability=capability
            ) from error
        except (hvac.exceptions.VaultError, requests.RequestException, OSError) as error:
            raise translate(
                error, method=method, path=path, address=self.address, capability=capability
            ) from error
        return answer

    def _find(self, method: str, path: str, **more: Any) -> Answer | None:
        """Send a request; None if there is nothing at the path."""
        try:
            return self._call(method, path, **more)
        except SecretError as error:
            cause = error.__cause__
            if isinstance(cause, hvac.exceptions.InvalidPath) and not _says(cause, "no handler"):
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
        url = f"/v1/{_quote(path)}"
        response = adapter.request(method, url, raise_exception=False, **more)
        if response.is_redirect or not response.ok:
            raise _hvac_error(response, method, path)
        if not response.content:
            return {}
        try:
            answer = json.loads(response.content)
        except ValueError as error:
            raise hvac.exceptions.UnexpectedError(
                "the answer is not JSON", method=method, url=path
            ) from error
        return answer if isinstance(answer, dict) else {}

    def _is_token_known(self) -> bool:
        """Tell a missing right from a token that Vault does not know (any more)."""
        try:
            self._send(self._adapter, "get", "auth/token/lookup-self", None, None)
        except hvac.exceptions.Forbidden:
            return False
        except (hvac.exceptions.VaultError, requests.RequestException, OSError):
            return True
        return True

    def read_health(self) -> Health:
        """Return what Vault says of itself; sealed and standby are answers, not errors."""
        path = "sys/health"
        try:
            answer = self._send(self._anonymous, "get", path, None, _HEALTH_QUERY)
        except (hvac.exceptions.VaultError, requests.RequestException, OSError) as error:
            raise translate(error, method="get", path=path, address=self.address) from error
        if "sealed" not in answer:
            raise SecretError(f"{self.address} is no Vault", hint="check vault.address")
        return Health(
            initialized=bool(answer.get("initialized")),
            sealed=bool(answer.get("sealed")),
            standby=bool(answer.get("standby")),
            version=str(answer.get("version", "")),
            server_time=datetime.fromtimestamp(int(answer.get("server_time_utc", 0)), UTC),
        )

    def lookup_token(self) -> TokenInfo:
        """Return what Vault knows of our own token."""
        return _token_info(self._call("get", "auth/token/lookup-self"))

    def renew_token(self) -> int:
        """Renew our own token and return its new TTL in seconds."""
        answer = self._call("post", "auth/token/renew-self", body={})
        return int(_part(answer, "auth")["lease_duration"])

    def read_capabilities(self, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return what our token may do at each path; ``("deny",)`` where nothing."""
        if not paths:
            return {}
        answer = self._call("post", "sys/capabilities-self", body={"paths": list(paths)})
        data = _part(answer, "data")
        return {path: tuple(data.get(path) or ("deny",)) for path in paths}

    def can_read(self, path: str) -> bool:
        """Tell whether Vault lets our token read a path, by reading it.

        Args:
            path: As in a policy, such as ``MOUNT/data/1``; there need not be anything.

        Raises:
            SecretError: The token itself is refused, so that nothing can be said.
        """
        try:
            self._call("get", path)
        except SecretError as error:
            if isinstance(error.__cause__, hvac.exceptions.InvalidPath):
                return True
            if isinstance(error.__cause__, hvac.exceptions.Forbidden) and self._is_token_known():
                return False
            raise
        return True

    def read_kv_version(self, mount: str) -> int:
        """Return the version of the KV engine at a mount; any right on the mount is enough.

        Raises:
            SecretError: There is no mount, we have no right on it, or it is no KV engine.
        """
        data = _part(self._call("get", f"sys/internal/ui/mounts/{mount}"), "data")
        if data.get("path", "").strip("/") != mount or data.get("type") != "kv":
            raise SecretError(f"{mount} in Vault is no KV engine but {data.get('type')!r}")
        return _kv_version(data)

    def read_secret(
        self, mount: str, path: str, *, version: int | None = None
    ) -> dict[str, Secret] | None:
        """Return a secret's fields; None if it is not there, deleted or destroyed."""
        query = {"version": str(version)} if version else None
        answer = self._find("get", f"{mount}/data/{path}", query=query)
        data = (_part(answer, "data") if answer else {}).get("data")
        if data is None:
            return None
        return {
            name: Secret(value if isinstance(value, str) else json.dumps(value))
            for name, value in data.items()
        }

    def write_secret(
        self, mount: str, path: str, data: Mapping[str, str | Secret], *, cas: int
    ) -> int:
        """Write a new version of a secret and return its number.

        Args:
            mount: A KV version 2 mount.
            path: Name of the secret.
            data: Its fields.
            cas: Newest version that is there now; 0: there is none yet.

        Raises:
            SecretError: Another version is the newest, so nothing was written.
        """
        clear = {k: v.reveal() if isinstance(v, Secret) else v for k, v in data.items()}
        answer = self._call(
            "post",
            f"{mount}/data/{path}",
            body={"options": {"cas": cas}, "data": clear},
            capability="create" if cas == 0 else "update",
            repeatable=False,
        )
        return int(_part(answer, "data")["version"])

    def read_metadata(self, mount: str, path: str) -> SecretMetadata | None:
        """Return what is kept about a secret; None if it is not there."""
        answer = self._find("get", f"{mount}/metadata/{path}")
        if answer is None:
            return None
        data = _part(answer, "data")
        now = datetime.now(UTC)
        versions = {}
        for number, found in (data.get("versions") or {}).items():
            deleted_at = _moment(found.get("deletion_time"))
            versions[int(number)] = VersionInfo(
                created_at=_moment(found.get("created_time")) or datetime.fromtimestamp(0, UTC),
                destroyed=bool(found.get("destroyed")),
                deleted=deleted_at is not None and deleted_at <= now,
            )
        return SecretMetadata(
            current_version=int(data.get("current_version") or 0),
            versions=versions,
            custom=dict(data.get("custom_metadata") or {}),
            max_versions=int(data.get("max_versions") or 0),
        )

    def write_custom_metadata(self, mount: str, path: str, custom: Mapping[str, str]) -> None:
        """Replace our own notes on a secret."""
        self._call("post", f"{mount}/metadata/{path}", body={"custom_metadata": dict(custom)})

    def list_secrets(self, mount: str, path: str = "") -> tuple[str, ...]:
        """Return the names below a path; those that end in ``/`` have names below them."""
        answer = self._find("list", f"{mount}/metadata/{path}".rstrip("/"))
        return tuple(_part(answer, "data").get("keys") or ()) if answer else ()

    def destroy_versions(self, mount: str, path: str, versions: Sequence[int]) -> None:
        """Destroy the values of versions for good; the metadata stays."""
        if versions:
            body = {"versions": [int(v) for v in versions]}
            self._call("post", f"{mount}/destroy/{path}", body=body)

    def remove_secret(self, mount: str, path: str) -> None:
        """Remove a secret, all its versions and its metadata; nothing there is as good."""
        self._call("delete", f"{mount}/metadata/{path}")

    def read_mount_config(self, mount: str) -> int:
        """Return how many versions of a secret a mount keeps; 0 is Vault's default of 10."""
        return int(_part(self._call("get", f"{mount}/config"), "data").get("max_versions") or 0)

    def write_mount_config(self, mount: str, *, max_versions: int) -> None:
        """Set how many versions of a secret a mount keeps."""
        self._call("post", f"{mount}/config", body={"max_versions": max_versions})

    def list_mounts(self) -> dict[str, MountInfo]:
        """Return every secrets engine by its mount, without the slash at the end."""
        data = _part(self._call("get", "sys/mounts"), "data")
        return {
            path.rstrip("/"): MountInfo(
                type=str(found.get("type", "")),
                version=_kv_version(found),
                description=str(found.get("description", "")),
            )
            for path, found in data.items()
        }

    def has_mount(self, path: str) -> bool:
        """Tell whether a secrets engine is enabled at exactly this path."""
        return path in self.list_mounts()

    def create_kv_mount(self, path: str, *, description: str = "", max_versions: int = 0) -> None:
        """Enable KV version 2 at a path, and wait until it can be used."""
        body = {"type": "kv", "description": description, "options": {"version": "2"}}
        self._call("post", f"sys/mounts/{path}", body=body, repeatable=False)
        # For a moment it says "Upgrading from non-versioned…", which `_call` waits out.
        self.read_mount_config(path)
        if max_versions:
            self.write_mount_config(path, max_versions=max_versions)

    def remove_mount(self, path: str) -> None:
        """Disable a secrets engine with all that it holds; nothing there is as good."""
        self._call("delete", f"sys/mounts/{path}")

    def create_token(
        self, role: str, *, meta: Mapping[str, str] | None = None
    ) -> tuple[Secret, str]:
        """Make a token from a token role.

        Args:
            role: Name of the role; it says the policies and the life.
            meta: Notes for Vault's audit log, such as the run.

        Returns:
            The token and its accessor.
        """
        path = f"auth/token/create/{role}"
        body = {"meta": dict(meta)} if meta else {}
        auth = _part(self._call("post", path, body=body, repeatable=False), "auth")
        return Secret(str(auth["client_token"])), str(auth["accessor"])

    def lookup_accessor(self, accessor: str) -> TokenInfo | None:
        """Return what Vault knows of a token; None if it is gone."""
        try:
            answer = self._call("post", "auth/token/lookup-accessor", body={"accessor": accessor})
        except SecretError as error:
            if _says(error.__cause__, _GONE_ACCESSOR):
                return None
            raise
        return _token_info(answer)

    def renew_accessor(self, accessor: str) -> int:
        """Renew a token and return its new TTL in seconds.

        Raises:
            SecretError: It is gone, or cannot be renewed.
        """
        answer = self._call("post", "auth/token/renew-accessor", body={"accessor": accessor})
        return int(_part(answer, "auth")["lease_duration"])

    def revoke_accessor(self, accessor: str) -> None:
        """Revoke a token; one that is gone already is as good."""
        try:
            self._call("post", "auth/token/revoke-accessor", body={"accessor": accessor})
        except SecretError as error:
            if not _says(error.__cause__, _GONE_ACCESSOR):
                raise

    def sign_ssh_key(
        self, mount: str, role: str, public_key: str, *, principal: str, ttl_seconds: int
    ) -> str:
        """Return a user certificate for a public key.

        Args:
            mount: Where the SSH engine is.
            role: Role that allows the principal.
            public_key: One line, as in ``id_ed25519.pub``.
            principal: The one name that the certificate is good for.
            ttl_seconds: How long one can log in with it.
        """
        body = {
            "public_key": public_key,
            "valid_principals": principal,
            "ttl": f"{ttl_seconds}s",
            "cert_type": "user",
        }
        answer = self._call("post", f"{mount}/sign/{role}", body=body)
        return str(_part(answer, "data")["signed_key"])

    def read_ssh_ca(self, mount: str) -> str:
        """Return the CA's public key, one line; empty if it has none yet."""
        try:
            answer = self._call("get", f"{mount}/config/ca")
        except SecretError as error:
            # OpenBao "no default issuer currently configured", Vault "keys haven't been configured"
            if _says(error.__cause__, "configured"):
                return ""
            raise
        return str(_part(answer, "data").get("public_key", "")).strip()

    def create_ssh_mount(self, path: str, *, description: str = "") -> None:
        """Enable the SSH engine at a path."""
        body = {"type": "ssh", "description": description}
        self._call("post", f"sys/mounts/{path}", body=body, repeatable=False)

    def configure_ssh_ca(self, mount: str) -> None:
        """Let the SSH engine generate its CA key; the private half never leaves it."""
        body = {"generate_signing_key": True, "key_type": "ed25519"}
        self._call("post", f"{mount}/config/ca", body=body, repeatable=False)

    def read_ssh_role(self, mount: str, role: str) -> dict[str, Any] | None:
        """Return a role of the SSH engine; None if there is none."""
        answer = self._find("get", f"{mount}/roles/{role}")
        return _part(answer, "data") if answer else None

    def write_ssh_role(self, mount: str, role: str, settings: Mapping[str, Any]) -> None:
        """Write a role of the SSH engine."""
        self._call("post", f"{mount}/roles/{role}", body=settings)

    def read_policy(self, name: str) -> str | None:
        """Return the text of a policy; None if there is none."""
        answer = self._find("get", f"sys/policies/acl/{name}")
        return str(_part(answer, "data").get("policy", "")) if answer else None

    def write_policy(self, name: str, text: str) -> None:
        """Write a policy."""
        self._call("post", f"sys/policies/acl/{name}", body={"policy": text})

    def read_token_role(self, role: str) -> dict[str, Any] | None:
        """Return a token role; None if there is none."""
        answer = self._find("get", f"auth/token/roles/{role}")
        return _part(answer, "data") if answer else None

    def write_token_role(self, role: str, settings: Mapping[str, Any]) -> None:
        """Write a token role."""
        self._call("post", f"auth/token/roles/{role}", body=settings)


def translate(  # noqa: C901, PLR0911, PLR0912 -- a table: one branch for each kind of answer
    error: BaseException, *, method: str, path: str, address: str, capability: str = ""
) -> SecretError:
    """Return our error for one of hvac or requests.

    Args:
        error: What was raised.
        method: Of the request.
        path: Below ``/v1/``.
        address: Of Vault.
        capability: What the token needs, where the method does not say.
    """
    if isinstance(error, requests.RequestException | OSError):
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
        case hvac.exceptions.Forbidden() if path == "auth/token/lookup-self":
            return _refused_token(address, f'"read" on {path}')
        case hvac.exceptions.Unauthorized():
            return _refused_token(address, f'"{needed}" on {path}')
        case hvac.exceptions.Forbidden():
            return SecretError(
                f'Vault denies the token "{needed}" on {path}',
                hint=f'its policy needs: path "{path}" {{ capabilities = ["{needed}"] }}; '
                "`xbvault vault init` writes the policies",
            )
        case hvac.exceptions.InvalidPath():
            return SecretError(f"nothing in Vault at {path}" + (f": {text}" if text else ""))
        case hvac.exceptions.InvalidRequest() | hvac.exceptions.UnsupportedOperation():
            return SecretError(f"Vault refuses the request: {problem}")
        case _:
            return SecretError(f"an unexpected answer from Vault at {address}: {problem}")


def _translate_connection(  # noqa: PLR0911 -- a table: one branch for each kind of failure
    error: BaseException, address: str
) -> SecretError:
    causes = tuple(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        reason = next(
            c.verify_message for c in causes if isinstance(c, ssl.SSLCertVerificationError)
        )
        return SecretError(
            f"the TLS certificate of Vault at {address} is not trusted: {reason}",
            hint="vault.ca_file must be the CA that signed it, and vault.address a name in it",
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


def _refused_token(address: str, denied: str) -> SecretError:
    return SecretError(
        f"Vault at {address} does not know the token, and denies it {denied}",
        hint="it is wrong, expired or revoked: put a valid one where vault.token_file points",
    )


def _hvac_error(response: requests.Response, method: str, path: str) -> Exception:
    """Return hvac's exception for an answer, with Vault's error texts and nothing else of it."""
    status = response.status_code
    errors: list[str] = []
    try:
        listed = json.loads(response.content).get("errors")
        errors = [" ".join(str(text).split()) for text in listed or ()]
    except (ValueError, AttributeError):
        if _PLAIN_TO_TLS.encode() in response.content:
            errors = [_PLAIN_TO_TLS]
    context = {"errors": errors, "method": method, "url": path}
    message = f"HTTP {status}"
    if response.is_redirect or status in (472, 473):
        context["errors"] = errors or ["node is on standby and points to the active node"]
        return _made(hvac.exceptions.VaultDown(message, **context))
    if status == 504:  # noqa: PLR2004 -- gateway timeout, which hvac does not know
        return _made(hvac.exceptions.BadGateway(message, **context))
    if status == 412:  # noqa: PLR2004 -- hvac has the class, and never raises it
        return _made(hvac.exceptions.PreconditionFailed(message, **context))
    return _made(hvac.exceptions.VaultError.from_status(status, message, **context))


def _made(error: Any) -> Exception:
    made: Exception = error
    return made


def _was_not_done(error: BaseException) -> bool:
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


def _says(error: BaseException | None, words: str) -> bool:
    return error is not None and any(words in text for text in _texts(error))


def _quote(path: str) -> str:
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise SecretError(f"{path!r} is no path in Vault")
    return "/".join(urllib.parse.quote(part, safe="") for part in parts)


def _part(answer: Answer, name: str) -> dict[str, Any]:
    part = answer.get(name)
    if not isinstance(part, dict):
        raise SecretError(f"an answer of Vault has no {name!r}", hint="check vault.address")
    return part


def _kv_version(found: Mapping[str, Any]) -> int:
    if found.get("type") != "kv":
        return 0
    return int((found.get("options") or {}).get("version") or 1)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _token_info(answer: Answer) -> TokenInfo:
    data = _part(answer, "data")
    expires = _moment(data.get("expire_time"))
    # A role's period stands in the role alone, so that a change of it reaches its tokens.
    period = data.get("period") or (data.get("creation_ttl") if data.get("role") else 0)
    return TokenInfo(
        ttl_seconds=int(data.get("ttl") or 0),
        period_seconds=int(period or 0),
        renewable=bool(data.get("renewable")),
        accessor=str(data.get("accessor") or ""),
        policies=(*(data.get("policies") or ()), *(data.get("identity_policies") or ())),
        expires=expires.timestamp() if expires else 0.0,
    )
