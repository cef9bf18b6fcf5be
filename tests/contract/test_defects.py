"""What `make fault` plants can still be planted: the product has moved on otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from defects import DEFECTS, Defect, plant

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name.replace(" ", "-"))
def test_a_defect_can_be_planted(tmp_path: Path, defect: Defect) -> None:
    """The line that it changes stands once in the product, and what is put there is code."""
    plant(defect, tmp_path)
    for name, _there, instead in defect.changes:
        text = (tmp_path / "orchestrator" / name).read_text(encoding="utf-8")
        assert instead in text
        if name.endswith(".py"):
            compile(text, name, "exec")
