"""Every parser, met with spoiled and with arbitrary input: an answer, or an error of ours."""

from __future__ import annotations

import contextlib

import parsers
import pytest
from hostile import MODEST
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import OrchestratorError
from orchestrator.steps import load

load()


@pytest.mark.parametrize("name", parsers.PARSERS)
@MODEST
@given(data=st.data())
def test_nothing_but_our_own_errors(name: str, data: st.DataObject) -> None:
    """Whatever was written, the parser answers or says in our words what is wrong with it."""
    parser = parsers.PARSERS[name]
    value = data.draw(parser.inputs)
    with contextlib.suppress(OrchestratorError):
        parser.call(parsers.resolve(name), value)
