"""Judges whether an AppArmor profile keeps a server out of a directory. Pure.

Only what can be read off the rules is judged: a rule with a variable is taken to allow everything,
because the host's tunables decide, and so is one with a set of characters that is none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_RULE = re.compile(r"(?:(owner|deny)\s+)?(\"[^\"]+\"|\S+)\s+([a-zA-Z]+)\s*,")
_TOKEN = re.compile(r"\*\*|\*|\?|\[[^\]]*\]|\{[^{}]*\}|\\.|@\{|.", re.DOTALL)


def find_enforced(profiles: Iterable[str]) -> str:
    """Return the name of the first profile in enforce mode; empty if there is none."""
    for line in profiles:
        name, _, mode = line.rpartition(" (")
        if mode == "enforce)":
            return name
    return ""


def list_denied(directories: Iterable[str], rules: Iterable[str]) -> tuple[str, ...]:
    """Return the directories in which the rules allow no file to be written."""
    allowing = []
    for rule in rules:
        found = _RULE.match(rule)
        if found is None or found.group(1) == "deny" or "w" not in found.group(3):
            continue
        allowing.append(_as_regex(found.group(2).strip('"')))
    return tuple(
        directory
        for directory in directories
        if not any(rule.fullmatch(f"{directory.rstrip('/')}/file") for rule in allowing)
    )


def _as_regex(path: str) -> re.Pattern[str]:
    if "@{" in path:
        return re.compile(".*", re.DOTALL)
    try:
        return re.compile("".join(_translate(token) for token in _TOKEN.findall(path)), re.DOTALL)
    except re.error:
        return re.compile(".*", re.DOTALL)


def _translate(token: str) -> str:
    simple = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in simple:
        return simple[token]
    if len(token) > 1 and token[0] == "[":
        inner = token[1:-1].replace("\\", r"\\")
        return f"[{'^' + inner[1:] if inner.startswith('^') else inner}]"
    if len(token) > 1 and token[0] == "{":
        parts = token[1:-1].split(",")
        return f"(?:{'|'.join(_as_regex(part).pattern for part in parts)})"
    return re.escape(token[1:] if token[0] == "\\" else token)
