"""Mounts of MySQL's keyrings in a real Vault: their KV version, and who may do what there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from openbao import OpenBao, running_openbao

from orchestrator import config as configuration
from orchestrator import vault_setup
from orchestrator.errors import PreconditionError, SecretError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.vault import Vault

PLUGIN = {"kind": "keyring_vault", "config_file": "/etc/mysql/keyring_vault.conf"}
FILE = {"kind": "component_keyring_file", "data_file": "/var/lib/mysql-keyring/keyring"}
HOSTS = {
    "one": {"flavor": "mysql", "vault_mount": "mysql/one", "keyring": PLUGIN},
    "two": {
        "flavor": "mysql",
        "vault_mount": "mysql/two",
        "keyring": {"kind": "component_keyring_vault"},
    },
    "plain": {"flavor": "mysql", "keyring": FILE},
}
CONFIG = configuration.parse({"hosts": HOSTS})
MIXED = configuration.parse({"hosts": {**HOSTS, "maria": {"vault_mount": "mariadb/maria"}}})
MOUNTS = {"one": ("mysql/one", 1, ""), "two": ("mysql/two", 2, "data/")}
"""Mount, KV version, and where keys are below it."""


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    """A server that is set up for the hosts of both flavors."""
    with running_openbao() as server:
        vault_setup.apply_setup(server.vault(), MIXED)
        yield server


@pytest.fixture(scope="module")
def orchestrator(bao: OpenBao) -> Vault:
    """A connection with the orchestrator's token."""
    return bao.vault(vault_setup.issue_orchestrator_token(bao.vault()))


def as_host(bao: OpenBao, name: str) -> Vault:
    """Return a connection with a host's own token."""
    return bao.vault(vault_setup.issue_host_token(bao.vault(), name))


def write(vault: Vault, path: str) -> None:
    """Write a key as a keyring does; both forms of it are taken."""
    body = {"type": "AES", "value": "eA=="}
    vault._call("post", path, body={"data": body} if "/data/" in path else body)


def test_each_mount_has_the_version_of_its_keyring(bao: OpenBao) -> None:
    """A keyring in a file gets no mount, and everything reads back as it was written."""
    found = bao.vault().list_mounts()
    assert {path: found[path].version for path in found if path.startswith(("mysql", "maria"))} == {
        "mysql/one": 1,
        "mysql/two": 2,
        "mariadb/maria": 2,
    }
    assert vault_setup.plan_setup(bao.vault(), MIXED) == ()


def test_the_check_with_the_orchestrators_own_token_finds_nothing_amiss(
    orchestrator: Vault,
) -> None:
    """It sees the versions of the mounts, and has the rights of its policy."""
    checks = vault_setup.check_setup(orchestrator, MIXED)
    assert [check for check in checks if not check.ok] == []
    evidence = [check.evidence for check in checks if check.name == "vault-mount"]
    assert "mysql/one: kv version 1" in evidence
    assert "mysql/two: kv version 2" in evidence


def test_a_mount_of_another_version_is_refused(bao: OpenBao, orchestrator: Vault) -> None:
    """`vault init` changes no mount that is there, and `vault check` names it."""
    other = {**HOSTS["one"], "keyring": {**PLUGIN, "kv_version": 2}}
    config = configuration.parse({"hosts": {**HOSTS, "one": other}})
    with pytest.raises(PreconditionError) as caught:
        vault_setup.plan_setup(bao.vault(), config)
    assert list(caught.value.problems) == ["mysql/one: is kv version 1, not kv version 2"]
    bad = [c for c in vault_setup.check_setup(orchestrator, config) if c.name == "vault-mount"]
    assert [c.evidence for c in bad if not c.ok] == ["mysql/one: kv version 1, not kv version 2"]


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_hosts_token_is_enough_for_its_keyring(bao: OpenBao, name: str) -> None:
    """It writes keys, reads, lists and removes them, and knows a version 2 mount by its config."""
    mount, version, inner = MOUNTS[name]
    own = as_host(bao, name)
    assert own.list_secrets(mount, kv_version=version) == ()
    for _ in range(2):
        write(own, f"{mount}/{inner}a2V5")
    own.read_path(f"{mount}/{inner}a2V5")
    assert own.list_secrets(mount, kv_version=version) == ("a2V5",)
    if version == 2:
        own.read_path(f"{mount}/config")
    own._call("delete", f"{mount}/{inner}a2V5")
    own.remove_secret(mount, "a2V5", kv_version=version)
    assert own.list_secrets(mount, kv_version=version) == ()


@pytest.mark.parametrize("name", ["one", "two", "plain", "maria"])
def test_a_hosts_token_is_refused_elsewhere(bao: OpenBao, name: str) -> None:
    """In no other host's mount does it list, read or write; nor does MariaDB's write in its own."""
    own = as_host(bao, name)
    own.lookup_token()
    own.renew_token()
    for other, (mount, version, inner) in MOUNTS.items():
        if other == name:
            continue
        assert not own.can_read(f"{mount}/{inner}a2V5")
        with pytest.raises(SecretError, match="denies"):
            own.list_secrets(mount, kv_version=version)
        with pytest.raises(SecretError, match="denies"):
            write(own, f"{mount}/{inner}a2V5")
    if name == "maria":
        with pytest.raises(SecretError, match="denies"):
            write(own, "mariadb/maria/data/1")


@pytest.mark.parametrize("name", ["one", "two"])
def test_the_orchestrator_sees_names_and_no_values(
    bao: OpenBao, orchestrator: Vault, name: str
) -> None:
    """It lists, and can neither read, write nor remove a key."""
    mount, version, inner = MOUNTS[name]
    write(as_host(bao, name), f"{mount}/{inner}bmFtZQ==")
    assert orchestrator.list_secrets(mount, kv_version=version) == ("bmFtZQ==",)
    assert orchestrator.read_kv_version(mount) == version
    assert not orchestrator.can_read(f"{mount}/{inner}bmFtZQ==")
    with pytest.raises(SecretError, match="denies"):
        write(orchestrator, f"{mount}/{inner}bmFtZQ==")
    with pytest.raises(SecretError, match="denies"):
        orchestrator.remove_secret(mount, "bmFtZQ==", kv_version=version)


def test_without_mariadb_there_is_no_transition_mount() -> None:
    """Nor a role for its token, nor a right of the orchestrator on either."""
    with running_openbao() as server:
        root = server.vault()
        vault_setup.apply_setup(root, CONFIG)
        roles = vault_setup.token_roles(CONFIG)
        assert [name for name in roles if "transition" in name] == []
        policy = root.read_policy(vault_setup.ORCHESTRATOR) or ""
        assert "xbvault-transition" not in policy
        assert "accessor" not in policy
        own = server.vault(vault_setup.issue_orchestrator_token(root))
        assert [check for check in vault_setup.check_setup(own, CONFIG) if not check.ok] == []
