"""How commands are shown in messages."""

from __future__ import annotations

import pytest

from orchestrator.models import Secret
from orchestrator.remote import Result, make_command_error
from orchestrator.remote.commands import show_command


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["id"], "id"),
        (["ls", "-l", "/a b"], "ls -l '/a b'"),
        (["a", "b", "c", "d", "e"], "a b c …"),
        (["sh", "-c", "\nset -eu\nsecond line"], "sh -c 'set -eu…'"),
        (["env", "A=/x", "B=", "mariadb", "--batch"], "mariadb --batch"),
        (["env", "A=/x"], ""),
        (["cat", "x" * 500], f"cat '{'x' * 120}…'"),
    ],
)
def test_commands_are_shown_short(argv: list[str], shown: str) -> None:
    """A message shows the program and the beginning of its first arguments."""
    assert show_command(argv) == shown


def test_secrets_are_not_shown() -> None:
    """A secret that stood in an argument by mistake is masked in messages."""
    secret = Secret("by-mistake-here")
    assert show_command(["mariadb", f"-p{secret.reveal()}"]) == "mariadb -p***"


def test_error_keeps_the_end_of_stderr() -> None:
    """The error carries the last lines of stderr, and its message the very last."""
    stderr = "".join(f"line {number}\n" for number in range(100))
    error = make_command_error(["tool"], Result(status=2, stderr=stderr), "db1")
    assert error.message == "tool on db1 ended with status 2: line 99"
    assert error.stderr.splitlines() == [f"line {number}" for number in range(60, 100)]
    error = make_command_error(["tool"], Result(status=2, stderr="x" * 9000), "db1")
    assert len(error.stderr) == 4000
    assert make_command_error(["tool"], Result(status=2), "db1").message == (
        "tool on db1 ended with status 2"
    )
