"""How often a process of ours looks through its memory for cycles."""

from __future__ import annotations

import gc

_NEW_OBJECTS = 50_000
"""The modules of a clone leave some 200,000; by Python's own 700, it would look 300 times meanwhile."""


def begin() -> None:
    """Look rarely: up to a quarter of the time that the imports take goes into it otherwise."""
    gc.set_threshold(_NEW_OBJECTS)


def end() -> None:
    """Give all memory back at once: a last look through it takes a third of a second, for nothing."""
    gc.freeze()
