"""Texts that a person has read, beside the tests that make them."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).resolve().parents[1] / "unit" / "flavors" / "golden"


def read(name: str) -> str:
    """Return a text such as ``mysql-sql-8.4``."""
    return (DIRECTORY / f"{name}.txt").read_text("utf-8")


def format_sections(sections: dict[str, str]) -> str:
    """Return texts under their names, as the files have them."""
    return "\n".join(f"[{name}]\n{text.rstrip()}\n" for name, text in sections.items())
