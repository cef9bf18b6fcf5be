"""Quoting: whatever a name or text holds, it comes back, and never ends its own quotes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import VerificationError
from orchestrator.flavors.quoting import (
    quote_definer,
    quote_name,
    quote_plain,
    quote_text,
    unhex,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_name_comes_back(name: str) -> None:
    """Between the outer backticks every backtick is doubled; undoubled, it is the name."""
    quoted = quote_name(name)
    assert quoted[0] == quoted[-1] == "`"
    inner = quoted[1:-1]
    assert "`" not in inner.replace("``", "")
    assert inner.replace("``", "`") == name


@given(TEXT)
def test_text_comes_back(text: str) -> None:
    """A text is hexadecimal digits in UTF-8, so that nothing in it means anything to SQL."""
    quoted = quote_text(text)
    if not text:
        assert quoted == "''"
        return
    found = re.fullmatch(r"CONVERT\(X'((?:[0-9a-f]{2})+)' USING utf8mb4\)", quoted)
    assert found
    assert unhex(found.group(1)) == text


@given(TEXT)
def test_plain_literal_is_the_text_or_refused(text: str) -> None:
    """Either the text stands in quotes, its own doubled, or it could break out and is refused."""
    if "\\" in text or not text.isprintable() or max(text, default="") > "\uffff":
        with pytest.raises(VerificationError, match="plain literal"):
            quote_plain(text)
        return
    quoted = quote_plain(text)
    assert quoted[0] == quoted[-1] == "'"
    assert "'" not in quoted[1:-1].replace("''", "")
    assert quoted[1:-1].replace("''", "'") == text


@given(TEXT, st.from_regex(r"[A-Za-z0-9.%_-]{1,60}", fullmatch=True))
def test_definer_is_split_at_its_last_sign(user: str, host: str) -> None:
    """A user's name may hold the sign that separates it from the host."""
    assert quote_definer(f"{user}@{host}") == f"{quote_name(user)}@{quote_name(host)}"


@pytest.mark.parametrize("definer", ["reporting", "reporting@"])
def test_definer_that_is_a_role(definer: str) -> None:
    """A role has no host."""
    assert quote_definer(definer) == "`reporting`"


@pytest.mark.parametrize(
    ("name", "quoted"),
    [("orders", "`orders`"), ("back`tick", "`back``tick`"), ("a.b", "`a.b`"), ("", "``")],
)
def test_names_by_example(name: str, quoted: str) -> None:
    """What it looks like."""
    assert quote_name(name) == quoted


def test_bytes_that_are_no_text_do_not_stop_the_reader() -> None:
    """HEX() of a name that is not UTF-8 is shown with replacements."""
    assert unhex("61ff62") == "a\N{REPLACEMENT CHARACTER}b"
    assert unhex("") == ""
