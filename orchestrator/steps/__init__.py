"""The verbs: one module a noun, one function a step."""

from __future__ import annotations

import importlib

MODULES = (
    "preflight",
    "transition",
    "stream",
    "backup",
    "fetch",
    "copy",
    "archive",
    "replay",
    "prepare",
    "restore",
    "replication",
    "encryption",
    "verification",
    "drill",
    "checksums",
    "drill_replication",
    "comparison",
    "release",
    "cleanup",
    "undo",
    "forget",
)


def load() -> None:
    """Register every step."""
    for name in MODULES:
        importlib.import_module(f"orchestrator.steps.{name}")
