from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_lab import TOML, CommandLine, FakeBackend

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Return a command line over a fake, with a configuration of two hosts."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "xbvault.toml"
    path.write_text(TOML)
    return CommandLine(FakeBackend(), path)
