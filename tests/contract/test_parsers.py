"""No parser without a test by machine: what others wrote comes in through these doors alone."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import parsers
import pytest
import vault_answers

from orchestrator.vault import Vault

PACKAGE = Path(__file__).parents[2] / "orchestrator"
ELSEWHERE = {
    "orchestrator.vault.answers.parse_moment",
    "orchestrator.cli.backend.Backend.parse_playbook",
}


def find_parsers() -> set[str]:
    """Return the qualified names of all functions and methods that are called ``parse_…``."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(("orchestrator", *path.relative_to(PACKAGE).with_suffix("").parts))
        for node in ast.parse(path.read_text("utf-8")).body:
            inner = node.body if isinstance(node, ast.ClassDef) else [node]
            prefix = f"{module}.{node.name}" if isinstance(node, ast.ClassDef) else module
            found |= {
                f"{prefix}.{function.name}"
                for function in inner
                if isinstance(function, ast.FunctionDef)
                and function.name.lstrip("_").startswith("parse")
            }
    return found


def test_every_parser_is_met_by_machine() -> None:
    """A new function called ``parse_…`` stands in the table, or this is red."""
    found = find_parsers()
    assert len(found) > 20
    assert found >= ELSEWHERE
    assert sorted(found - set(parsers.PARSERS)) == []


@pytest.mark.parametrize("name", parsers.PARSERS)
def test_the_table_names_what_there_is(name: str) -> None:
    """A parser that was renamed or removed leaves no row behind."""
    assert callable(parsers.resolve(name))


def test_every_answer_of_vault_is_met_by_machine() -> None:
    """Each request whose answer means something is asked of a Vault that answers oddly."""
    asked = {
        name
        for name, function in inspect.getmembers(Vault, inspect.isfunction)
        if not name.startswith("_")
        and str(inspect.signature(function).return_annotation) not in ("None", "Self")
    }
    assert asked - {"from_config"} == set(vault_answers.REQUESTS)


def test_text_from_outside_is_not_cut_by_splitlines() -> None:
    """``splitlines`` ends a line at nine characters that a path or a name may hold.

    What it is still used for was written by us, or is only shown.
    """
    used = {
        f"{path.relative_to(PACKAGE)}:{function.name}"
        for path in PACKAGE.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr == "splitlines"
    }
    assert used == SHOWN_ONLY


SHOWN_ONLY: set[str] = {
    "cli/config.py:_describe_model",
    "cli/output.py:format_error",
    "cli/vault.py:_format_changes",
    "remote/commands.py:cut_tail",
    "remote/commands.py:pick_line",
    "steps/outcomes.py:describe_end",
    "steps/stream.py:_judge_words",
    "steps/stream_ends.py:check_stages",
    "vault_setup/difference.py:_compare_policy",
}
