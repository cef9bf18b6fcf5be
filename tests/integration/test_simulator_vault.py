"""The double with the keyring_vault plugin, against a real OpenBao."""

from __future__ import annotations

import base64
import itertools
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from openbao import OpenBao, make_ca, running_openbao
from simulators.keyring import KeyringFile
from simulators.tablespaces import read_header
from xtrabackup_double import (
    DONOR_KEY,
    DONOR_UUID,
    SPACE_KEY,
    Done,
    prepare,
    run_tool,
    write_key_file,
    write_set,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEW_NAME = f"INNODBKey-{DONOR_UUID}-2"
PLACE = base64.b64encode(f"{len(NEW_NAME)}_{NEW_NAME}0_".encode()).decode()
NO_KEY = "xtrabackup: Error: can't generate new master key. Please check keyring plugin settings.\n"
OLD = "2.4.29"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    """A server that all tests of this file share."""
    with running_openbao() as server:
        yield server


@pytest.fixture
def mount(bao: OpenBao) -> str:
    """A new KV version 1 mount of its own."""
    return make_mount(bao, "1")


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A set that version 2.4 has prepared."""
    backup = write_set(tmp_path / "set")
    assert prepare(backup, {"version": OLD}).is_ok
    return backup


def make_mount(bao: OpenBao, version: str) -> str:
    """Make a KV mount of some version and return its path."""
    path = f"recipient{next(_numbers)}"
    body = {"type": "kv", "options": {"version": version}}
    bao.request("POST", f"sys/mounts/{path}", body)
    return path


def make_token(bao: OpenBao, mount: str, capabilities: str) -> str:
    """Return a token that may do so much in a mount."""
    name = f"policy{next(_numbers)}"
    rule = f'path "{mount}*" {{ capabilities = [{capabilities}] }}'
    bao.request("PUT", f"sys/policies/acl/{name}", {"policy": rule})
    answer: dict[str, Any] = bao.request("POST", "auth/token/create", {"policies": [name]})
    token = answer["auth"]["client_token"]
    assert isinstance(token, str)
    return token


def vault_config(directory: Path, bao: OpenBao, mount: str, **values: str) -> Path:
    """Write the plugin's configuration; a value that is empty is left out."""
    path = directory / "keyring_vault.conf"
    content = {
        "vault_url": bao.address,
        "secret_mount_point": mount,
        "token": bao.root_token.reveal(),
        "vault_ca": str(bao.ca_file),
        **values,
    }
    path.write_text("".join(f"{name} = {value}\n\n" for name, value in content.items() if value))
    return path


def copy_back(prepared: Path, config: Path | str, *, version: str = OLD, **settings: str) -> Done:
    """Copy a set back, with a new master key through the plugin."""
    directory = prepared.parent
    plugin = f"[mysqld]\nearly-plugin-load=keyring_vault.so\nkeyring_vault_config={config}"
    own = write_key_file(directory / "own.cnf", plugin)
    return run_tool(
        "xtrabackup",
        *(f"--defaults-file={own}", "--copy-back", f"--target-dir={prepared}"),
        *("--generate-new-master-key", f"--datadir={directory}/data"),
        settings={
            "version": version,
            "server_keyring": str(directory / "beneath"),
            "plugin_timeout_seconds": "2",
            **settings,
        },
    )


def stored(bao: OpenBao, mount: str) -> dict[str, str]:
    """Return what stands at the new key's place in a KV version 1 mount."""
    answer: dict[str, Any] = bao.request("GET", f"{mount}/{PLACE}")
    found: dict[str, str] = answer["data"]
    return found


def is_listed(bao: OpenBao, mount: str) -> bool:
    """Return whether a mount has anything."""
    done = subprocess.run(
        [
            *("curl", "-s", "--cacert", bao.ca_file, "-H", "@-"),
            f"{bao.address}/v1/{mount}?list=true",
        ],
        input=f"X-Vault-Token: {bao.root_token.reveal()}".encode(),
        capture_output=True,
        check=True,
        timeout=30,
    )
    return b'"keys"' in done.stdout


def test_the_new_key_stands_in_the_mount(bao: OpenBao, mount: str, prepared: Path) -> None:
    """At the real plugin's place, in its form; it opens the header, and so does the server's."""
    done = copy_back(prepared, vault_config(prepared.parent, bao, mount))
    assert done.is_ok, done.stderr
    assert f"Generated new master key with ID '{DONOR_UUID}-2'." in done.stderr
    assert re.search(r"\n\d{6} [\d:]{8} \[01\] Encrypting /\S* tablespace header", done.stderr)
    assert "Shutting down plugin 'keyring_vault'" in done.stderr
    found = stored(bao, mount)
    assert set(found) == {"type", "value"}
    assert found["type"] == "AES"
    key = base64.b64decode(found["value"])
    header = read_header(prepared.parent / "data" / "shop" / "customer.ibd")
    assert header
    assert header.master_key_id == NEW_NAME
    assert header.open_with(key) == SPACE_KEY
    assert KeyringFile(path=prepared.parent / "beneath").read_key(NEW_NAME) == key
    assert (prepared.parent / "data" / "xtrabackup_master_key_id").exists()


def test_a_repeated_copy_takes_the_stored_key(bao: OpenBao, mount: str, prepared: Path) -> None:
    """The same name in the same mount: the value stays."""
    config = vault_config(prepared.parent, bao, mount)
    assert copy_back(prepared, config, fail="copy-back").status == 1
    before = stored(bao, mount)
    subprocess.run(["rm", "-r", prepared.parent / "data"], check=True)
    assert copy_back(prepared, config).is_ok
    assert stored(bao, mount) == before


def test_version_8_0_names_the_key_after_a_new_uuid(
    bao: OpenBao, mount: str, prepared: Path
) -> None:
    """So it does not collide with the donor's next one."""
    (prepared / "xtrabackup_info").write_text("server_version = 8.0.35\n")
    config = vault_config(prepared.parent, bao, mount)
    done = copy_back(prepared, config, version="8.0.35-34")
    assert done.is_ok, done.stderr
    assert DONOR_UUID not in done.stderr
    header = read_header(prepared.parent / "data" / "shop" / "customer.ibd")
    assert header
    assert KeyringFile(path=prepared.parent / "beneath").read_key(header.master_key_id)


def test_a_mount_of_version_2_swallows_the_key(bao: OpenBao, prepared: Path) -> None:
    """The answer to the write is 404 with a warning: success is told, and nothing is stored."""
    mount = make_mount(bao, "2")
    done = copy_back(prepared, vault_config(prepared.parent, bao, mount))
    assert done.is_ok, done.stderr
    assert f"Generated new master key with ID '{DONOR_UUID}-2'." in done.stderr
    assert not is_listed(bao, f"{mount}/metadata")
    assert not (prepared.parent / "beneath").exists()
    header = read_header(prepared.parent / "data" / "shop" / "customer.ibd")
    assert header
    assert header.open_with(DONOR_KEY) is None


def refused(prepared: Path, config: Path | str) -> str:
    """Return what the tool says where the plugin does not get its key stored."""
    done = copy_back(prepared, config)
    assert done.status == 1
    assert done.stderr.endswith(NO_KEY)
    assert list((prepared.parent / "data").iterdir()) == []
    return done.stderr


def test_a_token_without_rights_is_refused(bao: OpenBao, mount: str, prepared: Path) -> None:
    """At the plugin's start already, which asks for the list."""
    config = vault_config(prepared.parent, bao, mount, token="s.unknown")
    said = refused(prepared, config)
    assert "'Could not retrieve list of keys from Vault. Vault has returned" in said
    assert "permission denied" in said
    assert "'keyring_vault initialization failure. Please check" in said


def test_a_token_that_may_only_read_is_refused(bao: OpenBao, mount: str, prepared: Path) -> None:
    """At the write, and the mount stays empty."""
    token = make_token(bao, mount, '"read", "list"')
    said = refused(prepared, vault_config(prepared.parent, bao, mount, token=token))
    assert "'Could not write key to Vault. Vault has returned" in said
    assert "'Could not flush keys to keyring'" in said
    assert not is_listed(bao, mount)


def test_the_documented_rights_are_enough(bao: OpenBao, mount: str, prepared: Path) -> None:
    """Create, read, update, delete and list."""
    rights = '"create", "read", "update", "delete", "list"'
    token = make_token(bao, mount, rights)
    assert copy_back(prepared, vault_config(prepared.parent, bao, mount, token=token)).is_ok


def test_a_vault_that_is_down_is_told(bao: OpenBao, mount: str, prepared: Path) -> None:
    """In curl's words."""
    config = vault_config(prepared.parent, bao, mount, vault_url="https://127.0.0.1:1")
    said = refused(prepared, config)
    assert "CURL returned this error code: 7 with error message : Failed to connect to" in said


def test_another_ca_is_told(bao: OpenBao, mount: str, prepared: Path) -> None:
    """In curl's words as well."""
    other = make_ca(prepared.parent)
    said = refused(prepared, vault_config(prepared.parent, bao, mount, vault_ca=str(other)))
    assert "CURL returned this error code: 60 with error message : SSL certificate" in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "Could not open file with credentials."),
        ("", "Empty file"),
        ("\n\nvault_url\n", "Cannot find equal sign (=) in line: 1."),
        ("vault_url = https://v\n", "Could not read secret_mount_point from the configuration"),
        ("token = t\ntoken = t\n", "token"),
        ("token =\n", "token"),
        ("vault_uri = https://v\n", "keyring_vault initialization failure"),
    ],
)
def test_a_bad_configuration_is_told(content: str | None, words: str, prepared: Path) -> None:
    """Each fault with its words, where the plugin has some."""
    config = prepared.parent / "bad.conf"
    if content is not None:
        config.write_text(content)
    assert words in refused(prepared, config)


def test_the_configuration_alone_loads_no_plugin(bao: OpenBao, mount: str, prepared: Path) -> None:
    """--keyring-vault-config without a plugin's name is not enough."""
    config = vault_config(prepared.parent, bao, mount)
    own = write_key_file(prepared.parent / "own.cnf")
    done = run_tool(
        "xtrabackup",
        *(f"--defaults-file={own}", "--copy-back", f"--target-dir={prepared}"),
        *("--generate-new-master-key", f"--datadir={prepared.parent}/data"),
        *("--some-first-option=1", f"--keyring-vault-config={config}"),
        settings={"version": OLD},
    )
    assert (done.status, done.stderr.endswith(NO_KEY)) == (1, True)


def test_the_file_plugin_stores_as_well(prepared: Path) -> None:
    """keyring_file.so writes its own file."""
    directory = prepared.parent
    plugin = f"[mysqld]\nearly-plugin-load=keyring_file.so\nkeyring_file_data={directory}/ring"
    own = write_key_file(directory / "own.cnf", plugin)
    done = run_tool(
        "xtrabackup",
        *(f"--defaults-file={own}", "--copy-back", f"--target-dir={prepared}"),
        *("--generate-new-master-key", f"--datadir={directory}/data"),
        settings={"version": OLD, "server_keyring": str(directory / "beneath")},
    )
    assert done.is_ok, done.stderr
    for name in ("ring", "beneath"):
        assert KeyringFile(path=directory / name).read_key(NEW_NAME)
