"""Inputs that hosts, tools and people could have written, and names that would be code elsewhere."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

MODEST = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""For properties that are cheap."""
FEW = settings(MODEST, max_examples=25)
"""For properties that start a process each."""
SCARCE = settings(MODEST, max_examples=8)
"""For properties that start a hundred."""

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
ODD_LINES = st.text(
    "\0\t\n\r\x0b\x1c\x85\u2028 =:;,.-+_#'\"\\[]{}@|%/0123456789eEnaNinfx\u0661²ß", max_size=80
)
NUMBERS = st.sampled_from(
    ["", "-1", "0", "4", "1_0", " 5", "٣", "²", "nan", "inf", "1e9", "0x1f", "9" * 20, "9" * 5000]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | TEXT
    | st.sampled_from(
        ["2026-11-21T22:34:53.123456789Z", "2026-11-21", "9999-12-31T23:59:59-23:00"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | NUMBERS, inner, max_size=3),
    max_leaves=12,
)
NAMES = st.one_of(
    st.sampled_from(
        [
            "x'; touch pwned #",
            "$(touch pwned)",
            "`touch pwned`",
            "\\`touch pwned\\`",
            '"; touch pwned; "',
            "-rf",
            "root|;1e touch pwned #",
            "--defaults-extra-file=/pwned",
            "two\nlines\ntouch pwned",
            "cr\rnext\x85line\u2028",
            "\ttab ",
            " ",
            "~root",
            "$HOME ${HOME} $'\\n' %s %n *?[a]{a,b} ~ & | > pwned < /dev/null ! #",
            "back\\slash\\",
            "é e\N{COMBINING ACUTE ACCENT} ✓ 🔑 \N{RIGHT-TO-LEFT OVERRIDE}",
            "\x01\x1b[31m\x7f",
            "=" * 5000,
        ]
    ),
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60
    ),
    st.text("'\"`$\\;&|<>(){}[]*?~#!%= \t\n\r-", min_size=1, max_size=30),
)
"""What an argument, a path or a name could be; never empty, and without the one byte that cannot."""


@st.composite
def mutations(draw: st.DrawFn, seeds: tuple[str, ...]) -> str:
    """Return a text that a tool wrote: as it is, cut, or with lines or characters spoiled."""
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 3))):
        lines = text.split("\n")
        at = draw(st.integers(0, max(0, len(lines) - 1)))
        index = draw(st.integers(0, max(0, len(text) - 1)))
        match draw(st.sampled_from(["cut", "drop", "twice", "flip", "put", "number", "swap"])):
            case "cut":
                text = text[:index]
            case "drop":
                text = "\n".join(lines[:at] + lines[at + 1 :])
            case "twice":
                text = "\n".join([*lines[: at + 1], *lines[at:]])
            case "flip":
                text = (
                    text[:index]
                    + draw(st.characters(exclude_categories=["Cs"]))
                    + text[index + 1 :]
                )
            case "put":
                text = text[:index] + draw(ODD_LINES) + text[index:]
            case "number":
                line, sign, _ = lines[at].rpartition(draw(st.sampled_from(["\t", "=", " ", ","])))
                lines[at] = line + sign + draw(NUMBERS)
                text = "\n".join(lines)
            case _:
                other = draw(st.integers(0, max(0, len(lines) - 1)))
                lines[at], lines[other] = lines[other], lines[at]
                text = "\n".join(lines)
    return text


@st.composite
def mutated_json(draw: st.DrawFn, seed: Any) -> Any:
    """Return a JSON value with some parts left out or replaced by others."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON | NUMBERS)
    if isinstance(seed, dict):
        kept = {key: value for key, value in seed.items() if draw(st.integers(0, 9))}
        return {key: draw(mutated_json(value)) for key, value in kept.items()}
    if isinstance(seed, list):
        return [draw(mutated_json(item)) for item in seed]
    return seed
