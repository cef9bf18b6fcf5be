"""The reader of tutorial pages: a comparison that takes everything would prove nothing."""

from __future__ import annotations

import pytest
from console_blocks import find_missing, read_commands

PAGE = """
Text.

```console
$ make lab-up
lab … is up
$ true
```

```sh
$ not a command of the tutorial
```
"""


def test_commands_and_their_output_are_read_in_order() -> None:
    """Only console blocks count; output belongs to the command above it."""
    first, second = read_commands(PAGE)
    assert (first.text, first.expected) == ("make lab-up", ("lab … is up",))
    assert (second.text, second.expected) == ("true", ())


def test_a_block_without_a_command_is_refused() -> None:
    """Output that belongs to nothing would never be compared."""
    with pytest.raises(ValueError, match="begins with"):
        read_commands("```console\nlab is up\n```\n")


@pytest.mark.parametrize(
    ("expected", "written", "missing"),
    [
        (("lab … is up in … s",), "noise\nlab 3 (mariadb) is up in 9.9 s\n", None),
        (("a", "b"), "a\nbetween\nb\n", None),
        (("a", "…", "b"), "a\nb\n", None),
        (("a  b",), "a      b  \n", None),
        (("a", "b"), "b\na\n", "b"),
        (("1",), "11\n", "1"),
        (("done …",), "failed 3 s\n", "done …"),
        (("a", "a"), "a\n", "a"),
        (("undone: …",), "", "undone: …"),
    ],
)
def test_lines_are_found_in_their_order(
    expected: tuple[str, ...], written: str, missing: str | None
) -> None:
    """Shortened output is no fault; lines that are missing, other or swapped are."""
    assert find_missing(expected, written) == missing
