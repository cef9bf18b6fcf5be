"""What real tools wrote, from ``fixtures/samples``."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).resolve().parents[2] / "fixtures" / "samples"


def read(name: str) -> str:
    """Return a sample, such as ``mariadb-backup/binlog_info``, with its line ends as they are."""
    return (DIRECTORY / f"{name}.txt").read_bytes().decode("utf-8")
