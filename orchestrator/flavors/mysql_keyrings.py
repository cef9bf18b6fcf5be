"""Keyrings of MySQL and Percona Server: which server and tool have which, and their files. Pure."""

from __future__ import annotations

import base64
import enum
import json
import re
from typing import TYPE_CHECKING, Final

from orchestrator.errors import SecretError, VerificationError
from orchestrator.flavors.quoting import is_plain
from orchestrator.flavors.versions import read_numbers
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

Numbers = tuple[int, int, int]
NEVER: Final[Numbers] = (99999, 0, 0)
"""Stands for an end that is not known."""


class KeyringKind(enum.Enum):
    """What gives a server its master keys; the value is the name of the plugin or component."""

    VAULT_PLUGIN = "keyring_vault"
    VAULT_COMPONENT = "component_keyring_vault"
    FILE_PLUGIN = "keyring_file"
    FILE_COMPONENT = "component_keyring_file"

    @property
    def is_component(self) -> bool:
        """Whether a manifest loads it; otherwise an option does."""
        return self in (KeyringKind.VAULT_COMPONENT, KeyringKind.FILE_COMPONENT)

    @property
    def uses_vault(self) -> bool:
        """Whether its keys are in Vault; otherwise they are in a file."""
        return self in (KeyringKind.VAULT_PLUGIN, KeyringKind.VAULT_COMPONENT)

    @property
    def library(self) -> str:
        """File of a plugin, as ``early-plugin-load`` names it."""
        return f"{self.value}.so"

    @property
    def config_name(self) -> str:
        """Name of a component's configuration file; by it the tool knows the component."""
        return f"{self.value}.cnf"


PERCONA_ONLY: Final = (KeyringKind.VAULT_PLUGIN, KeyringKind.VAULT_COMPONENT)

SERVERS: Final[Mapping[KeyringKind, tuple[Numbers, Numbers]]] = {
    KeyringKind.VAULT_PLUGIN: ((5, 7, 21), (8, 1, 0)),
    KeyringKind.VAULT_COMPONENT: ((8, 1, 0), NEVER),
    KeyringKind.FILE_PLUGIN: ((5, 7, 11), (8, 4, 0)),
    KeyringKind.FILE_COMPONENT: ((8, 0, 24), NEVER),
}
"""From which version of the server on there is one, and from which on no more."""

TOOLS: Final[Mapping[KeyringKind, tuple[Numbers, Numbers]]] = {
    KeyringKind.VAULT_PLUGIN: ((2, 4, 12), (8, 1, 0)),
    KeyringKind.VAULT_COMPONENT: ((8, 1, 0), NEVER),
    KeyringKind.FILE_PLUGIN: ((2, 4, 2), (8, 4, 0)),
    KeyringKind.FILE_COMPONENT: ((8, 0, 25), NEVER),
}
"""The same of the backup tool."""

FIRST_WITH_KV_2: Final = ((5, 7, 33), (8, 0, 23))
"""First servers of both series whose plugin knows version 2 of the KV engine."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,4000}")
"""A token that needs no quotes in any file."""
_UUID: Final = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_MASTER_KEY: Final = "INNODBKey"
_OWN: Final = re.compile(
    rf"[0-9]+_(?:{_MASTER_KEY}-{_UUID}-[0-9]+|MySQLReplicationKey_{_UUID}(?:_[0-9]+)?)0_"
)
MOST_CLEAR_BYTES: Final = 5_000
"""The plugin reads 10,000 bytes of its configuration; the other half is room for the token."""


def list_keyrings(server_version: str, *, is_percona: bool) -> tuple[KeyringKind, ...]:
    """Return the keyrings that a server can have.

    Args:
        server_version: Its version.
        is_percona: Whether it is Percona Server; those for Vault are in no other.

    Raises:
        VerificationError: This is no version.
    """
    numbers = read_numbers(server_version)
    return tuple(
        kind
        for kind, (first, end) in SERVERS.items()
        if first <= numbers < end and (is_percona or kind not in PERCONA_ONLY)
    )


def judge_keyring(
    kind: KeyringKind, *, server_version: str, is_percona: bool, tool_version: str
) -> str:
    """Return why a set cannot be restored into a keyring of this kind; empty if it can.

    Raises:
        VerificationError: One of them is no version.
    """
    if kind not in list_keyrings(server_version, is_percona=is_percona):
        maker = "Percona Server" if is_percona else "MySQL"
        return f"{maker} {server_version} has no {kind.value}"
    first, end = TOOLS[kind]
    if not first <= read_numbers(tool_version) < end:
        return f"XtraBackup {tool_version} cannot use {kind.value}"
    return ""


def list_kv_versions(kind: KeyringKind, server_version: str) -> tuple[int, ...]:
    """Return the versions of Vault's KV engine that a server's keyring can use; none for a file.

    A plugin that knows version 1 alone takes the refusal of a version 2 mount for success: the new
    master key is then stored nowhere.

    Raises:
        VerificationError: This is no version.
    """
    if not kind.uses_vault:
        return ()
    numbers = read_numbers(server_version)
    knows_2 = kind.is_component or any(
        numbers[:2] == first[:2] and numbers >= first for first in FIRST_WITH_KV_2
    )
    return (1, 2) if knows_2 else (1,)


def stored_name(key_id: str, user: str = "") -> str:
    """Return the name in Vault of a key that a server's keyring keeps there, below its mount."""
    signature = f"{len(key_id)}_{key_id}{len(user)}_{user}"
    return base64.b64encode(signature.encode()).decode("ascii")


def master_key_id(tool_id: str) -> str:
    """Return the id of a master key in the keyring, from what the backup tool calls it."""
    return f"{_MASTER_KEY}-{tool_id}"


def is_servers_own(name: str) -> bool:
    """Return whether a name in Vault is of a key that a server makes for itself alone.

    Such are master keys and those of binary logs; their ids have a server's UUID. Any other may be
    an application's, which goes with its data to the next server.
    """
    try:
        signature = base64.b64decode(name, validate=True).decode("ascii")
    except ValueError:
        return False
    return _OWN.fullmatch(signature) is not None


def keyring_vault_conf(
    *, vault_url: str, mount: str, token: Secret, ca_file: str, kv_version: int | None = None
) -> Secret:
    """Return the configuration of the plugin ``keyring_vault``.

    Args:
        vault_url: Where Vault is.
        mount: The server's own KV mount, or a path in it.
        token: A token that can read and write there, see `check_token`.
        ca_file: Certificates that Vault's is checked with; empty for the system's.
        kv_version: Version of the KV engine; None where the server has no option for it.

    Raises:
        VerificationError: A value could not stand in it.
    """
    before = [("vault_url", vault_url), ("secret_mount_point", mount)]
    after = [("vault_ca", ca_file)] if ca_file else []
    if kv_version is not None:
        after.append(("secret_mount_point_version", str(kv_version)))
    for name, value in (*before, *after):
        if not value or not is_plain(value) or value != value.strip():
            raise VerificationError(f"cannot stand in keyring_vault's {name}: {value[:80]!r}")
    lines = [[f"{name} = {value}\n" for name, value in part] for part in (before, after)]
    if sum(len(line.encode()) for part in lines for line in part) > MOST_CLEAR_BYTES:
        raise VerificationError("the configuration of keyring_vault is too long")
    return Secret.join(*lines[0], "token = ", token, "\n", *lines[1])


def component_keyring_vault_conf(
    *,
    vault_url: str,
    mount: str,
    token: Secret,
    ca_file: str,
    kv_version: int | None = None,
    timeout_seconds: int = 15,
) -> Secret:
    """Return the configuration of ``component_keyring_vault``.

    Args:
        vault_url: Where Vault is, ``http://`` or ``https://``.
        mount: The server's own KV mount, or a path in it, without a slash at either end.
        token: A token that can read and write there, see `check_token`.
        ca_file: Certificates that Vault's is checked with; empty for the system's.
        kv_version: Version of the KV engine; None lets the component find out.
        timeout_seconds: How long it waits for Vault.

    Raises:
        VerificationError: A value could not stand in it.
    """
    if not vault_url.startswith(("http://", "https://")):
        raise VerificationError(f"no address of a Vault: {vault_url[:80]!r}")
    if not mount or mount != mount.strip("/"):
        raise VerificationError(f"no mount of a keyring: {mount[:80]!r}")
    if ca_file and vault_url.startswith("http://"):
        raise VerificationError("component_keyring_vault takes no vault_ca with http://")
    document: dict[str, str | int] = {
        "timeout": timeout_seconds,
        "vault_url": vault_url,
        "secret_mount_point": mount,
        "secret_mount_point_version": "AUTO" if kv_version is None else str(kv_version),
    }
    if ca_file:
        document["vault_ca"] = ca_file
    clear = json.dumps(document, indent=1, ensure_ascii=False).removesuffix("\n}")
    return Secret.join(clear, ',\n "token": "', token, '"\n}\n')


def component_keyring_file_conf(path: str, *, read_only: bool = False) -> str:
    """Return the configuration of ``component_keyring_file``, with the file of its keys."""
    document = {"path": path, "read_only": read_only}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def manifest_text(kind: KeyringKind) -> str:
    """Return ``mysqld.my``, by which a server loads a keyring component.

    Raises:
        VerificationError: A plugin has none.
    """
    if not kind.is_component:
        raise VerificationError(f"{kind.value} is loaded by an option, not by a manifest")
    return json.dumps({"components": f"file://{kind.value}"}) + "\n"


def check_token(token: Secret, origin: str) -> Secret:
    """Return a token that can stand in the configuration of a keyring, which knows no quotes.

    Args:
        token: The host's own.
        origin: The file that it is from.

    Raises:
        SecretError: It cannot.
    """
    if not token.is_made_of(_TOKEN):
        raise SecretError(
            f"the Vault token in {origin} cannot stand in the configuration of a keyring",
            hint="it must be one word of letters, digits and . _ ~ + / -, as Vault makes them",
        )
    return token
