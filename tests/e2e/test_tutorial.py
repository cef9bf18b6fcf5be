"""The tutorial, run as it is written: every command of the page, in order, in one shell.

It runs in a copy of the checkout, so that the page can say ``.lab`` as its reader types it and no
lab that stands is met; ``.venv`` of the copy is a link to the environment of this test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from console_blocks import Command, find_missing, read_commands

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "tutorial" / "first-clone.md"
NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv", ".lab", ".lab-*", ".mysql", ".mysql.part", ".hypothesis", ".*_cache"),
    *("__pycache__", "dist", "build"),
)
SECONDS = 840
_END = re.compile(r"^@@ended (\d+) (\d+)$", re.MULTILINE)


def _environment() -> dict[str, str]:
    """Return what a person's shell has, without what `make test` or a lab in use has put there."""
    left_out = ("MAKE", "MFLAGS", "XBVAULT", "VAULT_", "PYTEST", "COV_", "PYTHONPATH")
    return {key: value for key, value in os.environ.items() if not key.startswith(left_out)}


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """Return a copy of the checkout with the installed environment; its lab goes down at the end."""
    copy = tmp_path / "checkout"
    shutil.copytree(REPOSITORY, copy, symlinks=True, ignore=NOT_COPIED)
    (copy / ".venv").symlink_to(sys.prefix)
    question = ["make", "--question", "--old-file=packages", ".venv/.wheel"]
    asked = subprocess.run(
        question, cwd=copy, env=_environment(), capture_output=True, text=True, check=False
    )
    if asked.returncode != 0:
        # The copy must not install into an environment that other tests are using.
        pytest.fail("the installed wheel is older than the sources: run `make install`")
    try:
        yield copy
    finally:
        down = [sys.executable, "-m", "lab", "--dir", ".lab", "down"]
        environment = {**_environment(), "PYTHONPATH": "fixtures"}
        subprocess.run(
            down, cwd=copy, env=environment, check=True, timeout=120, stdout=subprocess.DEVNULL
        )


def _write_script(commands: tuple[Command, ...]) -> str:
    """Return one script; it marks where each command's output ends, and stops at the first fault."""
    lines = []
    for number, command in enumerate(commands):
        lines.append(command.text)
        lines.append(f"status=$?; printf '\\n@@ended {number} %s\\n' \"$status\"")
        lines.append('[ "$status" = 0 ] || exit 1')
    return "\n".join(lines) + "\n"


@pytest.mark.timeout(SECONDS + 240)
def test_the_tutorial_does_what_it_says(checkout: Path, tmp_path: Path) -> None:
    """Every command ends well, and every line of output that the page shows is there, in order."""
    commands = read_commands(PAGE.read_text(encoding="utf-8"))
    script = tmp_path / "tutorial.sh"
    script.write_text(_write_script(commands), encoding="utf-8")
    output = tmp_path / "tutorial.out"
    with output.open("w", encoding="utf-8") as stream:
        subprocess.run(
            ["bash", str(script)],
            cwd=checkout,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=SECONDS,
        )
    # number and status of each command, each followed by what the next one wrote
    parts = _END.split(output.read_text(encoding="utf-8"))
    answers = {
        int(parts[i + 1]): (parts[i], int(parts[i + 2])) for i in range(0, len(parts) - 1, 3)
    }
    for number, command in enumerate(commands):
        assert number in answers, f"never ended: {command.text}\n{parts[-1]}"
        written, status = answers[number]
        assert status == 0, f"status {status}: {command.text}\n{written}"
        missing = find_missing(command.expected, written)
        assert not missing, f"`{command.text}` does not write {missing!r} there:\n{written}"
    assert not (checkout / ".lab").exists()
