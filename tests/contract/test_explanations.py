from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from orchestrator import errors, explanations
from orchestrator.cli.main import app


@pytest.mark.parametrize("name", errors.classes())
def test_every_class_is_explained(name: str) -> None:
    """Every error class says what happened, what was kept and what to do."""
    (found,) = explanations.explain(name)
    assert found.exit_status == errors.classes()[name].exit_status
    assert all(text.endswith(".") for text in (found.happened, found.kept, found.to_do))


def test_an_exit_status_explains_all_of_its_classes() -> None:
    """A status that several classes share explains each of them."""
    result = CliRunner().invoke(app, ["explain", "3", "--json"])
    names = {e["name"] for e in json.loads(result.stdout)["explanations"]}
    assert names == {"PreconditionError", "LockHeldError"}


def test_an_unknown_code_is_a_configuration_error() -> None:
    """An unknown code ends with 2 and lists the known ones."""
    result = CliRunner().invoke(app, ["explain", "99"])
    assert result.exit_code == 2
    assert "VerificationError (6)" in result.stderr
