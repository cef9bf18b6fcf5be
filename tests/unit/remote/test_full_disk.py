"""A full disk is known by the words of whoever met it."""

from __future__ import annotations

import pytest

from orchestrator import remote


@pytest.mark.parametrize(
    ("words", "is_full"),
    [
        ("tee: /var/lib/x: No space left on device", True),
        ("mbstream: Error writing file './a.ibd' (Errcode: 28 \"No space left on device\")", True),
        ("ERROR 1114 (HY000) at line 1: The table '/tmp/#sqle2f_1e_0' is full", True),
        ("ERROR 1021 (HY000) at line 1: Disk full (/tmp/#sql); waiting for someone to free", True),
        ("ERROR 1045 (28000): Access denied for user 'root'@'localhost'", False),
        ("ERROR 13 (HY000) at line 1: Can't get stat of './x' (Errcode: 2)", False),
        ("", False),
    ],
)
def test_full_disk(words: str, is_full: bool) -> None:  # noqa: FBT001 - a column of the table
    """The hint says to free space, and on which host the error's own field tells."""
    assert remote.is_disk_full(words) is is_full
    result = remote.Result(status=1, stdout=b"", stderr=words)
    assert ("free space" in remote.make_command_error(["mysql"], result, "db2").hint) is is_full
