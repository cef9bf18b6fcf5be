"""The ``console`` blocks of a page: commands after ``$``, and the output that is shown for them."""

from __future__ import annotations

import dataclasses
import re

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANYTHING = "…"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A command of a page.

    Attributes:
        text: As it stands after ``$``.
        expected: The lines of output that the page shows for it.
    """

    text: str
    expected: tuple[str, ...]


def read_commands(page: str) -> tuple[Command, ...]:
    """Return the commands of a page in their order.

    Raises:
        ValueError: A block begins with something else than a command.
    """
    found: list[Command] = []
    for block in _BLOCK.findall(page):
        lines = block.splitlines()
        if not lines or not lines[0].startswith("$ "):
            raise ValueError(f"a console block begins with {lines[:1]}")
        for line in lines:
            if line.startswith("$ "):
                found.append(Command(text=line.removeprefix("$ "), expected=()))
            else:
                last = found.pop()
                found.append(dataclasses.replace(last, expected=(*last.expected, line)))
    return tuple(found)


def find_missing(expected: tuple[str, ...], written: str) -> str | None:
    """Return the first line shown that was not written at its place; None if all were.

    Lines may stand between those that the page shows, for it shortens; ``…`` stands for anything,
    and blanks count as one.
    """
    lines = [" ".join(line.split()) for line in written.splitlines()]
    position = 0
    for shown in expected:
        parts = [re.escape(" ".join(part.split())) for part in shown.split(ANYTHING)]
        if not any(parts):
            continue
        pattern = re.compile(r"\s*" + r".*".join(parts) + r"\s*")
        while position < len(lines) and not pattern.fullmatch(lines[position]):
            position += 1
        if position == len(lines):
            return shown
        position += 1
    return None
