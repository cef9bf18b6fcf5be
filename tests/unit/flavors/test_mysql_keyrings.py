"""Which keyrings there are where, and their configuration."""

from __future__ import annotations

import base64
import json

import pytest

from orchestrator.errors import SecretError, VerificationError
from orchestrator.flavors import mysql_keyrings as keyrings
from orchestrator.flavors.mysql_keyrings import KeyringKind as Kind
from orchestrator.models import Secret

TOKEN = Secret("hvs.CAESIJtestTokenOfNobody-0_9")


@pytest.mark.parametrize(
    ("version", "percona", "oracle"),
    [
        ("5.7.11", "keyring_file", "keyring_file"),
        ("5.7.20", "keyring_file", "keyring_file"),
        ("5.7.21-21", "keyring_vault keyring_file", "keyring_file"),
        ("5.7.44", "keyring_vault keyring_file", "keyring_file"),
        ("8.0.11", "keyring_vault keyring_file", "keyring_file"),
        ("8.0.23", "keyring_vault keyring_file", "keyring_file"),
        (
            "8.0.24",
            "keyring_vault keyring_file component_keyring_file",
            "keyring_file component_keyring_file",
        ),
        (
            "8.0.46",
            "keyring_vault keyring_file component_keyring_file",
            "keyring_file component_keyring_file",
        ),
        (
            "8.1.0",
            "component_keyring_vault keyring_file component_keyring_file",
            "keyring_file component_keyring_file",
        ),
        (
            "8.3.0",
            "component_keyring_vault keyring_file component_keyring_file",
            "keyring_file component_keyring_file",
        ),
        ("8.4.0", "component_keyring_vault component_keyring_file", "component_keyring_file"),
        ("9.0.1", "component_keyring_vault component_keyring_file", "component_keyring_file"),
        ("9.7.4-2", "component_keyring_vault component_keyring_file", "component_keyring_file"),
        ("5.7.10", "", ""),
    ],
)
def test_keyrings_of_a_server(version: str, percona: str, oracle: str) -> None:
    """Those for Vault are Percona's, and components took the place of plugins."""
    for is_percona, wanted in ((True, percona), (False, oracle)):
        found = keyrings.list_keyrings(version, is_percona=is_percona)
        assert [kind.value for kind in found] == wanted.split()


@pytest.mark.parametrize(
    ("kind", "server", "tool", "reason"),
    [
        (Kind.VAULT_PLUGIN, "5.7.44", "2.4.29", ""),
        (Kind.VAULT_PLUGIN, "5.7.44", "2.4.11", "XtraBackup 2.4.11 cannot use keyring_vault"),
        (Kind.VAULT_PLUGIN, "8.0.46", "8.0.35-34", ""),
        (Kind.VAULT_PLUGIN, "8.4.0", "8.4.0-5", "Percona Server 8.4.0 has no keyring_vault"),
        (Kind.FILE_PLUGIN, "5.7.44", "2.4.29", ""),
        (Kind.FILE_PLUGIN, "8.3.0", "8.3.0-1", ""),
        (Kind.FILE_PLUGIN, "8.4.0", "8.4.0-5", "has no keyring_file"),
        (Kind.FILE_COMPONENT, "8.0.24", "8.0.25-17", ""),
        (Kind.FILE_COMPONENT, "8.0.24", "8.0.23-16", "cannot use component_keyring_file"),
        (Kind.FILE_COMPONENT, "9.7.4", "9.7.1-rc1", ""),
        (Kind.VAULT_COMPONENT, "8.4.0", "8.4.0-5", ""),
        (Kind.VAULT_COMPONENT, "9.7.2-2", "9.7.1-rc1", ""),
        (Kind.VAULT_COMPONENT, "8.0.46", "8.0.35-34", "has no component_keyring_vault"),
    ],
)
def test_keyring_with_server_and_tool(kind: Kind, server: str, tool: str, reason: str) -> None:
    """Server and tool must both have it."""
    found = keyrings.judge_keyring(kind, server_version=server, is_percona=True, tool_version=tool)
    assert reason in found
    assert bool(found) is bool(reason)


def test_vault_is_not_for_the_makers_own_server() -> None:
    """The refusal names it."""
    found = keyrings.judge_keyring(
        Kind.VAULT_COMPONENT, server_version="9.7.4", is_percona=False, tool_version="9.7.1-rc1"
    )
    assert found == "MySQL 9.7.4 has no component_keyring_vault"


@pytest.mark.parametrize(
    ("kind", "server", "wanted"),
    [
        (Kind.VAULT_PLUGIN, "5.7.32", (1,)),
        (Kind.VAULT_PLUGIN, "5.7.33-36", (1, 2)),
        (Kind.VAULT_PLUGIN, "5.7.44", (1, 2)),
        (Kind.VAULT_PLUGIN, "8.0.11", (1,)),
        (Kind.VAULT_PLUGIN, "8.0.22", (1,)),
        (Kind.VAULT_PLUGIN, "8.0.23-14", (1, 2)),
        (Kind.VAULT_COMPONENT, "8.1.0", (1, 2)),
        (Kind.VAULT_COMPONENT, "9.7.2", (1, 2)),
        (Kind.FILE_PLUGIN, "5.7.44", ()),
        (Kind.FILE_COMPONENT, "9.7.4", ()),
    ],
)
def test_kv_versions(kind: Kind, server: str, wanted: tuple[int, ...]) -> None:
    """The plugin learned version 2 late, and takes a refusal for success before."""
    assert keyrings.list_kv_versions(kind, server) == wanted


def test_configuration_of_the_plugin() -> None:
    """Pairs in lines, no comment; the version only where the server knows the option."""
    old = keyrings.keyring_vault_conf(
        vault_url="https://vault.example.net:8200",
        mount="mysql/db2",
        token=TOKEN,
        ca_file="/etc/mysql/vault ca.pem",
    )
    assert old.reveal() == (
        "vault_url = https://vault.example.net:8200\n"
        "secret_mount_point = mysql/db2\n"
        f"token = {TOKEN.reveal()}\n"
        "vault_ca = /etc/mysql/vault ca.pem\n"
    )
    new = keyrings.keyring_vault_conf(
        vault_url="https://vault.example.net", mount="db2", token=TOKEN, ca_file="", kv_version=2
    )
    assert new.reveal() == (
        "vault_url = https://vault.example.net\n"
        "secret_mount_point = db2\n"
        f"token = {TOKEN.reveal()}\n"
        "secret_mount_point_version = 2\n"
    )


@pytest.mark.parametrize("value", ["", "a\nb", "a\\b", " a", "a\t", "x" * 6000])
def test_values_that_the_plugin_would_read_otherwise(value: str) -> None:
    """Such a mount would be cut, or end the line."""
    with pytest.raises(VerificationError):
        keyrings.keyring_vault_conf(
            vault_url="https://v.example", mount=value, token=TOKEN, ca_file=""
        )


def test_configuration_of_the_vault_component() -> None:
    """It is JSON, with the token in its place and nowhere shown."""
    secret = keyrings.component_keyring_vault_conf(
        vault_url="https://vault.example.net:8200",
        mount="mysql/db2",
        token=TOKEN,
        ca_file='/etc/"mysql"/ca.pem',
        kv_version=2,
    )
    assert json.loads(secret.reveal()) == {
        "timeout": 15,
        "vault_url": "https://vault.example.net:8200",
        "secret_mount_point": "mysql/db2",
        "secret_mount_point_version": "2",
        "vault_ca": '/etc/"mysql"/ca.pem',
        "token": TOKEN.reveal(),
    }
    assert TOKEN.reveal() not in repr(secret)


def test_configuration_of_the_vault_component_without_a_ca() -> None:
    """The system's certificates, and the engine's version is found out."""
    secret = keyrings.component_keyring_vault_conf(
        vault_url="http://127.0.0.1:8200", mount="db2", token=TOKEN, ca_file="", timeout_seconds=3
    )
    assert json.loads(secret.reveal()) == {
        "timeout": 3,
        "vault_url": "http://127.0.0.1:8200",
        "secret_mount_point": "db2",
        "secret_mount_point_version": "AUTO",
        "token": TOKEN.reveal(),
    }


@pytest.mark.parametrize(
    ("url", "mount", "ca"),
    [
        ("vault.example.net", "db2", ""),
        ("https://vault.example.net", "/db2", ""),
        ("https://vault.example.net", "db2/", ""),
        ("https://vault.example.net", "", ""),
        ("http://vault.example.net", "db2", "/ca.pem"),
    ],
)
def test_values_that_the_component_refuses(url: str, mount: str, ca: str) -> None:
    """What would keep a server from starting is refused before."""
    with pytest.raises(VerificationError):
        keyrings.component_keyring_vault_conf(vault_url=url, mount=mount, token=TOKEN, ca_file=ca)


def test_configuration_of_the_file_component() -> None:
    """Path of the keys, and whether the server may write them."""
    text = keyrings.component_keyring_file_conf(
        "/var/lib/keys/db2 \N{LATIN SMALL LETTER U WITH DIAERESIS}"
    )
    assert json.loads(text) == {"path": "/var/lib/keys/db2 ü", "read_only": False}


@pytest.mark.parametrize("kind", Kind)
def test_what_loads_a_keyring(kind: Kind) -> None:
    """A component has a manifest and a configuration of its name; a plugin a library."""
    if kind.is_component:
        assert json.loads(keyrings.manifest_text(kind)) == {"components": f"file://{kind.value}"}
        assert kind.config_name == f"{kind.value}.cnf"
    else:
        with pytest.raises(VerificationError, match="loaded by an option"):
            keyrings.manifest_text(kind)
        assert kind.library == f"{kind.value}.so"
    assert kind.uses_vault is ("vault" in kind.value)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "s.a b",
        "s.a\nvault_url = https://x",
        's.a"',
        "s.a'",
        "s.a\\",
        "s.a\t",
        "s.ä",
        "s.a#b",
        "s.a=",
    ],
)
def test_a_token_that_needs_quotes_is_refused(token: str) -> None:
    """In neither configuration can it end its line, its text, or be cut; nobody sees its value."""
    with pytest.raises(SecretError) as caught:
        keyrings.check_token(Secret(token), "/etc/mysql/vault.env")
    assert "/etc/mysql/vault.env cannot stand in" in caught.value.message
    assert not token or token not in f"{caught.value.message} {caught.value.hint}"
    assert keyrings.check_token(TOKEN, "/etc/mysql/vault.env") is TOKEN


def test_the_name_of_a_key_in_vault() -> None:
    """Id and user, each behind its length, in Base64."""
    key_id = keyrings.master_key_id("2e0b5a5e-3f3d-11ec-9bbd-0242ac130003-10")
    name = keyrings.stored_name(key_id)
    assert base64.b64decode(name).decode() == f"49_{key_id}0_"
    assert base64.b64decode(keyrings.stored_name("App", "me@%")).decode() == "3_App4_me@%"


UUID = "2e0b5a5e-3f3d-11ec-9bbd-0242ac130003"


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (keyrings.stored_name(f"INNODBKey-{UUID}-1"), True),
        (keyrings.stored_name(f"MySQLReplicationKey_{UUID}"), True),
        (keyrings.stored_name(f"MySQLReplicationKey_{UUID}_2"), True),
        (keyrings.stored_name(f"INNODBKey-{UUID}-1", "me@%"), False),
        (keyrings.stored_name(f"MyINNODBKey-{UUID}-1"), False),
        (keyrings.stored_name(f"INNODBKey-{UUID}-1x"), False),
        (keyrings.stored_name("INNODBKey-1-1"), False),
        (keyrings.stored_name("percona_binlog"), False),
        (keyrings.stored_name(f"XBKey-{UUID}-abc"), False),
        ("folder/", False),
        ("no base64", False),
        ("w6Q=", False),
        ("", False),
    ],
)
def test_keys_that_a_server_makes_for_itself(name: str, own: bool) -> None:  # noqa: FBT001 - a case
    """Its master keys and those of its binary logs; every other may be an application's."""
    assert keyrings.is_servers_own(name) is own
