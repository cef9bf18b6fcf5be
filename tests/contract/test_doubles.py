"""The doubles of tools belong to the tests: nothing that users get knows of them."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOUBLES = re.compile(r"simulator|xbsim", re.IGNORECASE)


def test_the_product_knows_no_double() -> None:
    """No source, script or playbook names one."""
    paths = [
        path
        for folder in ("orchestrator", "playbooks")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ]
    assert len(paths) > 40
    assert [path for path in paths if DOUBLES.search(path.read_text("utf-8"))] == []


def test_no_double_is_installed() -> None:
    """The wheel that was installed holds none, and offers no command of their names."""
    files = importlib.metadata.files("xbvault")
    assert files
    assert [path for path in files if DOUBLES.search(str(path))] == []
    commands = {point.name for point in importlib.metadata.distribution("xbvault").entry_points}
    assert commands == {"xbvault"}
