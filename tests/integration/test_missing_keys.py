"""Why a backup tool got no keys: asked of a real Vault, by what the tool really wrote."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import samples
from engine_lab import make_config, make_plan
from fake_remote import FakeRemote
from openbao import OpenBao, running_openbao

from orchestrator.errors import SecretError, SecretStoreUnavailableError
from orchestrator.models import Secret
from orchestrator.steps import tokens
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREPARE = samples.read("mariadb-backup/prepare-sealed")
BACKUP = samples.read("mariadb-backup/backup-sealed-tail")
MOUNT = "keys/master"
PLAN = dataclasses.replace(make_plan("r1"), donor_mount=MOUNT)


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    """A server with the donor's mount."""
    with running_openbao() as server:
        server.vault().create_kv_mount(MOUNT)
        yield server


def explain(
    bao: OpenBao,
    tmp_path: Path,
    words: str,
    *,
    host: str = "master",
    status: int = 1,
    token: Secret | None = None,
) -> SecretError | None:
    """Explain why a tool on a host failed; the donor has this token, the root's by default."""
    config = make_config(tmp_path)
    path = config.host("master").vault_env_file
    clear = (token or bao.root_token).reveal()
    donor = FakeRemote("master", files={path: f"VAULT_TOKEN={clear}\n"})
    tools = Tools(config=config, vault=bao.vault(), donor=donor, recipient=FakeRemote("replica"))
    return tokens.explain_missing_keys(tools, PLAN, host, status=status, words=words)


@pytest.mark.parametrize(("host", "words"), [("master", BACKUP), ("replica", PREPARE)])
def test_sealed_vault_is_named(bao: OpenBao, tmp_path: Path, host: str, words: str) -> None:
    """The tool's words do not say it; the step is repeated until it is unsealed."""
    bao.seal()
    try:
        error = explain(bao, tmp_path, words, host=host)
    finally:
        bao.unseal()
    assert type(error) is SecretStoreUnavailableError
    assert f"on {host} got no keys from Vault: Vault at {bao.address} is sealed" in error.message


@pytest.mark.parametrize(("host", "words"), [("master", BACKUP), ("replica", PREPARE)])
def test_vault_that_answers_again(bao: OpenBao, tmp_path: Path, host: str, words: str) -> None:
    """It was away for a moment, or is from the host: the tool's own line is shown."""
    error = explain(bao, tmp_path, words, host=host)
    assert type(error) is SecretStoreUnavailableError
    assert "hashicorp: Unable to get" in error.message
    assert f"see that {host} reaches Vault" in error.hint


def test_token_of_the_donor_that_is_refused(bao: OpenBao, tmp_path: Path) -> None:
    """Nothing will come of a repetition; the file is named."""
    error = explain(bao, tmp_path, BACKUP, token=Secret("s.nobody-has-this"))
    assert type(error) is SecretError
    assert "the Vault token of host master cannot be used" in error.message
    assert make_config(tmp_path).host("master").vault_env_file in error.hint


def test_token_of_the_donor_that_may_not_read(bao: OpenBao, tmp_path: Path) -> None:
    """The same for one that Vault knows, but whose policy lacks the mount."""
    made = bao.request("POST", "auth/token/create", {"policies": ["default"]})
    error = explain(bao, tmp_path, BACKUP, token=Secret(made["auth"]["client_token"]))
    assert type(error) is SecretError
    assert f"may not read {MOUNT}" in error.message


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (BACKUP, 0),
        (BACKUP, 128 + 9),
        (samples.read("mariadb-backup/prepare-log"), 1),
        ("mariadb-backup: No space left on device", 1),
    ],
)
def test_other_failures(bao: OpenBao, tmp_path: Path, words: str, status: int) -> None:
    """Who was killed did not fail on its keys, nor did who says nothing of them."""
    assert explain(bao, tmp_path, words, status=status) is None
