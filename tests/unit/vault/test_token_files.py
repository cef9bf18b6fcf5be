from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.errors import ConfigError
from orchestrator.models import Secret
from orchestrator.vault import environment_token

if TYPE_CHECKING:
    from pathlib import Path


def test_the_token_of_the_prompt_is_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without VAULT_TOKEN it is ``~/.vault-token``, and without that a `ConfigError`."""
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="no Vault token"):
        environment_token()
    (tmp_path / ".vault-token").write_text("s.from-home")
    assert environment_token() == Secret("s.from-home")
