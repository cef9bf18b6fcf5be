"""MySQL for tests that need it: they are skipped, with a line at the end, where it cannot be had."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

INSTALLER = Path(__file__).resolve().parents[2] / "fixtures" / "install-mysql.sh"
UNAVAILABLE = 69
CANNOT_BE_HAD = "the MySQL packages cannot be had"
"""What the reason of every test says that is skipped for the want of MySQL."""


def require_mysql() -> None:
    """Put MySQL into its tree if it is not there yet; skip the test if that cannot be done."""
    done = subprocess.run([INSTALLER], capture_output=True, text=True, check=False, timeout=500)
    said = done.stderr.strip()
    if done.returncode == UNAVAILABLE:
        pytest.skip(said.splitlines()[-1].removeprefix("error: "))
    assert done.returncode == 0, said
