"""What a backup reads, as the kernel counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchmark.costs import Reading, is_backup, parse_read

if TYPE_CHECKING:
    from pathlib import Path

TOOL = "mariadb-backup"
IO = "rchar: {}\nwchar: 7\nsyscr: 3\nsyscw: 1\nread_bytes: 0\nwrite_bytes: 0\n"


def put(folder: Path, pid: str, read: int, *words: str) -> None:
    """Put a process into a folder like ``/proc``, or change it."""
    (folder / pid).mkdir(exist_ok=True)
    (folder / pid / "cmdline").write_bytes("".join(f"{word}\0" for word in words).encode())
    (folder / pid / "io").write_text(IO.format(read), encoding="ascii")


def test_the_last_look_at_each_backup_counts(tmp_path: Path) -> None:
    """Several one after the other are added up; one that has ended keeps what it had."""
    reading = Reading(tmp_path, TOOL)
    (tmp_path / "self").mkdir()
    put(tmp_path, "10", 100, TOOL, "--backup")
    reading.look()
    put(tmp_path, "10", 400, TOOL, "--backup")
    reading.look()
    put(tmp_path, "10", 400)  # it has ended, and is not yet reaped
    put(tmp_path, "11", 50, f"/usr/bin/{TOOL}", "--backup")
    reading.look()
    assert reading.total_bytes == 450


def test_a_process_that_ends_meanwhile_is_passed_over(tmp_path: Path) -> None:
    """Its folder is there, and its files are not any more."""
    (tmp_path / "12").mkdir()
    reading = Reading(tmp_path, TOOL)
    reading.look()
    assert reading.total_bytes == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([TOOL, "--backup", "--stream=mbstream"], True),
        (["python3", f"/opt/simulators/{TOOL}", "--backup"], True),
        ([TOOL, "--prepare"], False),
        ([TOOL, "--version"], False),
        (["nice", "-n", "10", TOOL, "--backup"], False),
        (["sh", "-c", f"{TOOL} --backup", "--backup"], False),
        ([""], False),
    ],
)
def test_only_the_tool_itself_is_a_backup(words: list[str], expected: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Or an interpreter that runs it; not what has started it, nor the tool at another work."""
    assert is_backup(words, TOOL) is expected


def test_what_a_process_has_read_is_told_by_the_kernel() -> None:
    """From files or the cache, and not what came from the disk alone."""
    assert parse_read(IO.format(123)) == 123
