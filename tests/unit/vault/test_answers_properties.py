"""Whatever Vault answers, the door to it gives what was asked for, or an error of ours."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hostile import JSON, MODEST, mutated_json
from hypothesis import given
from hypothesis import strategies as st
from vault_answers import REQUESTS, encode, make_vault

from orchestrator.errors import OrchestratorError, SecretError

STATUSES = (200, 204, 301, 400, 403, 404, 405, 412, 418)
"""Those that are not asked again for five seconds."""


@pytest.mark.parametrize("name", REQUESTS)
def test_a_right_answer_is_understood(name: str) -> None:
    """The answer that the others are made of is one that makes sense."""
    ask, answer = REQUESTS[name]
    assert ask(make_vault(200, encode(answer))) is not None


@pytest.mark.parametrize("name", REQUESTS)
@MODEST
@given(data=st.data())
def test_an_odd_answer_is_our_error(name: str, data: st.DataObject) -> None:
    """Parts that are missing, of another kind, or no JSON at all, are said in our words."""
    ask, answer = REQUESTS[name]
    content = data.draw(
        mutated_json(answer).map(encode)
        | JSON.map(encode)
        | st.binary(max_size=100)
        | st.sampled_from([b"[" * 5000, b"1" * 5000, b'{"data": Infinity}', b"\xff\xfe", b""])
    )
    status = data.draw(st.sampled_from(STATUSES))
    with contextlib.suppress(OrchestratorError):
        ask(make_vault(status, content))


@pytest.mark.parametrize("status", [400, 403, 404])
@MODEST
@given(answer=JSON)
def test_odd_reasons_are_no_crash(status: int, answer: Any) -> None:
    """What stands where Vault's reasons should is taken as it is."""
    vault = make_vault(status, encode({"errors": answer}))
    with contextlib.suppress(SecretError):
        vault.read_secret("m", "1")


@MODEST
@given(value=st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40))
def test_an_odd_answer_is_not_repeated(value: str) -> None:
    """An answer may hold secrets, whatever else is wrong with it."""
    for answer in ({"data": {"data": [value]}}, {"data": value}):
        with pytest.raises(SecretError) as caught:
            make_vault(200, encode(answer)).read_secret("m", "1")
        assert value not in json.dumps(caught.value.as_json(), ensure_ascii=False)
