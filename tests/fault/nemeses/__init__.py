"""The nemeses, one module a room: where in the world they strike."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Read every module, so that all nemeses are known, in a fixed order."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda found: found.name):
        importlib.import_module(f"{__name__}.{module.name}")
