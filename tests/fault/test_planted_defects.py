"""The suite can fail: five defects, planted one at a time, are each seen by what is to see them.

What sees a defect is run twice: with the product as it is, where it must hold, and with a copy that
has the defect, where it must not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import kills
import pytest
from defects import DEFECTS, Defect, plant
from lab import product

if TYPE_CHECKING:
    from pathlib import Path

    from stand import Stand

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root"),
    pytest.mark.skipif(not kills.is_full(), reason="part of `make fault`"),
    pytest.mark.timeout(900),
]


@pytest.mark.parametrize("see", list(dict.fromkeys(defect.seen_by.__name__ for defect in DEFECTS)))
def test_the_product_holds(stand: Stand, see: str) -> None:
    """What is to see a defect holds with the product as it is."""
    next(defect.seen_by for defect in DEFECTS if defect.seen_by.__name__ == see)(stand)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name.replace(" ", "-"))
def test_a_planted_defect_is_seen(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defect: Defect
) -> None:
    """Each of them is caught, by what is named for it."""
    command = plant(defect, tmp_path)
    monkeypatch.setattr(product, "command", lambda: command)
    with pytest.raises(AssertionError, match=defect.says):
        defect.seen_by(stand)
