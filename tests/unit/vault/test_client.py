from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.config import VaultConfig
from orchestrator.errors import ConfigError, SecretError
from orchestrator.models import Secret
from orchestrator.vault import Vault

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "https://vault.example:8200"
TOKEN = Secret("s.unit-test-token-0123456789")


@pytest.mark.parametrize("address", ["", "vault.example", "ftp://x", "https://", "https://u:p@x"])
def test_an_address_that_is_no_url_is_refused(address: str) -> None:
    """Nothing is contacted, and a password in the URL is not repeated."""
    with pytest.raises(ConfigError, match=r"vault\.address") as caught:
        Vault(address, TOKEN)
    assert "u:p" not in caught.value.message


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "sí", "x\x00"])
def test_a_token_that_is_none_is_refused_without_being_shown(token: str) -> None:
    """A value that is no header never reaches requests, which would quote it."""
    with pytest.raises(ConfigError, match="no Vault token") as caught:
        Vault(ADDRESS, Secret(token))
    assert not token or token not in caught.value.message


def test_a_path_cannot_leave_its_place() -> None:
    """Dots and empty parts would lead to another path than the one that was checked."""
    connection = Vault(ADDRESS, TOKEN)
    for path in ("../sys/seal", "a//b", "./a", ""):
        with pytest.raises(SecretError, match="no path in Vault"):
            connection.read_secret("mount", path)


def test_the_configuration_goes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Address, CA, namespace and token come from the file first, then from Vault's variables."""
    ca_file, token_file = tmp_path / "ca.pem", tmp_path / "token"
    ca_file.write_text("")
    token_file.write_text("s.from-file\n")
    monkeypatch.setenv("VAULT_ADDR", "https://environment:8200")
    monkeypatch.setenv("VAULT_CACERT", str(ca_file))
    monkeypatch.setenv("VAULT_NAMESPACE", "team")
    monkeypatch.setenv("VAULT_TOKEN", "s.from-environment")

    found = Vault.from_config(VaultConfig())
    assert (found.address, found.ca_file, found.namespace) == (
        "https://environment:8200",
        str(ca_file),
        "team",
    )
    assert found._adapter.token == "s.from-environment"
    assert found._adapter.namespace == "team"

    named = VaultConfig(
        address="https://named:8200/", namespace="other", token_file=str(token_file)
    )
    found = Vault.from_config(named)
    assert (found.address, found.namespace) == ("https://named:8200", "other")
    assert found._adapter.token == "s.from-file"
    assert found._anonymous.token is None

    given = Vault.from_config(named, token=Secret("s.given"))
    assert given._adapter.token == "s.given"
    assert given.with_token(TOKEN)._adapter.token == TOKEN.reveal()


def test_a_token_knows_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the hint for one that Vault denies can name the place, and no other token's."""
    (tmp_path / "token").write_text("s.from-file\n")
    (tmp_path / ".vault-token").write_text("s.from-home\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    named = Vault.from_config(VaultConfig(address=ADDRESS, token_file=str(tmp_path / "token")))
    assert named._token_origin == str(tmp_path / "token")
    assert named.with_token(TOKEN)._token_origin == ""
    assert Vault.from_config(VaultConfig(address=ADDRESS))._token_origin == "~/.vault-token"
    monkeypatch.setenv("VAULT_TOKEN", "s.from-environment")
    assert Vault.from_config(VaultConfig(address=ADDRESS))._token_origin == "VAULT_TOKEN"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"address": ""}, "no Vault address"),
        ({"ca_file": "/nonexistent/ca.pem"}, "no file /nonexistent/ca.pem"),
        ({"token_file": "/nonexistent/token"}, "cannot read the token file /nonexistent/token"),
    ],
)
def test_what_the_configuration_lacks_is_named(
    values: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each missing piece is a `ConfigError`, before anything is contacted."""
    for name in ("VAULT_ADDR", "VAULT_CACERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VAULT_TOKEN", "s.x")
    with pytest.raises(ConfigError, match=words):
        Vault.from_config(VaultConfig.model_validate({"address": ADDRESS, **values}))
