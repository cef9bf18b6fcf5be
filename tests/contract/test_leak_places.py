"""The places where the leak test allows a secret, and the page that tells users of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from leak_scanner import ALLOWED, Allowed

PAGE = Path(__file__).parents[2] / "docs/explanation/threat-model.md"


@pytest.mark.parametrize("allowed", ALLOWED, ids=lambda row: f"{row.kinds[0]} in {row.place}")
def test_the_threat_model_names_the_place(allowed: Allowed) -> None:
    """A secret is nowhere where the threat model does not say that it is."""
    text = PAGE.read_text("utf-8")
    assert [words for words in allowed.page if words not in text] == []


def test_every_place_has_its_reason() -> None:
    """Each says why it cannot be otherwise, and none covers a kind of secret everywhere."""
    for allowed in ALLOWED:
        assert len(allowed.reason.split()) > 5
        assert allowed.page
        assert ".*" not in allowed.name
