"""The names of checks: in the code, in the fixed list, and in the reference page."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import summary

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CODE = ROOT / "orchestrator"
PAGE = ROOT / "docs/reference/checks.md"
NAME = re.compile(r"[a-z]+(?:-[a-z]+)*")


def walk(*paths: Path) -> Iterator[ast.AST]:
    """Yield every node of source files."""
    for path in paths:
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def called_names(node: ast.AST) -> Iterator[str]:
    """Yield the names in ``Check(name="…")`` and in ``_tell("…")``."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return
    if node.func.id == "Check":
        values = [keyword.value for keyword in node.keywords if keyword.arg == "name"]
    else:
        values = node.args[:1] if node.func.id == "_tell" else []
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value


def paired_names(node: ast.AST) -> Iterator[str]:
    """Yield the names in ``("name", found)``, as preflight gives its findings."""
    if isinstance(node, ast.Tuple) and len(node.elts) == 2:
        first, second = node.elts
        if isinstance(second, ast.Constant) or not isinstance(first, ast.Constant):
            return
        if isinstance(first.value, str) and NAME.fullmatch(first.value):
            yield first.value


def read_page() -> list[list[str]]:
    """Return the names in the page's tables, table by table, every row checked for its form."""
    tables: list[list[str]] = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            tables.append([])
        elif line.startswith("| `"):
            name, means, concluded = (cell.strip() for cell in line.strip("| ").split(" | "))
            assert means, name
            assert concluded, name
            tables[-1].append(name.strip("`"))
    return tables


def test_the_steps_find_what_the_list_names() -> None:
    """Every check that a step concludes is in the fixed list, and the list names no other."""
    found = [name for node in walk(*(CODE / "steps").glob("*.py")) for name in called_names(node)]
    assert sorted(set(found)) == sorted(summary.CHECKS)


def test_the_page_tells_every_check_of_a_clone() -> None:
    """The page has the fixed list, in its order."""
    assert tuple(read_page()[0]) == summary.CHECKS


def test_the_page_tells_every_finding_of_preflight() -> None:
    """The page has every finding that preflight can give, once, and no other."""
    paths = (CODE / "facts/preflight").glob("*.py")
    found = {name for node in walk(*paths) for name in (*called_names(node), *paired_names(node))}
    assert sorted(read_page()[1]) == sorted(found)


def test_the_page_tells_every_finding_of_vault_check() -> None:
    """The page has every finding that `vault check` can give, once, and no other."""
    found = {name for node in walk(CODE / "vault_setup/check.py") for name in called_names(node)}
    assert sorted(read_page()[2]) == sorted(found)
