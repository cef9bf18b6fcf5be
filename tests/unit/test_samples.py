"""The samples say where they are from, and hold no secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import samples

from orchestrator import log

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted(samples.DIRECTORY.rglob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_sample_is_described_and_harmless(path: Path) -> None:
    """A neighbouring page names its command, and nothing in it looks like a secret."""
    page = (path.parent / "README.md").read_text("utf-8")
    assert f"| `{path.name}` | " in page
    text = path.read_bytes().decode("utf-8")
    assert not log._VAULT_TOKEN.search(text)
    assert "PRIVATE KEY" not in text
    assert not re.search(r"(?i)password\s*[=:]\s*(?!not set|set,|YES|NO|\*)\S", text)


def test_there_are_samples() -> None:
    """Each parser has something real to read."""
    assert len(FILES) >= 18
