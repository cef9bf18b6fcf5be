"""The keys that open a login."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from orchestrator.remote.errors import UnusableKeyError
from orchestrator.remote.login import load_key

if TYPE_CHECKING:
    from pathlib import Path


def test_unusable_login_keys(tmp_path: Path) -> None:
    """A key that cannot be read, or has a passphrase, says so."""
    (tmp_path / "broken").write_text("not a key")
    with pytest.raises(UnusableKeyError, match="cannot be used"):
        load_key(str(tmp_path / "broken"))
    for kind, options in (("ed25519", []), ("rsa", ["-m", "PEM"])):
        path = tmp_path / kind
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, *options, "-N", "secret words", "-f", str(path)],
            check=True,
        )
        with pytest.raises(UnusableKeyError, match="has a passphrase"):
            load_key(str(path))
