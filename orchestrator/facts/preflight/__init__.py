"""Judges a survey: may this clone begin? Pure, so that every finding can be tried without a host.

All problems are found at once. The names of the findings are fixed; they stand in
``docs/reference/checks.md``.
"""

from orchestrator.facts.preflight.archive import judge_archive
from orchestrator.facts.preflight.backup import judge_backup, judge_copy
from orchestrator.facts.preflight.findings import Request
from orchestrator.facts.preflight.judge import judge, judge_host
from orchestrator.facts.preflight.pair import server_id_of
from orchestrator.facts.preflight.report import describe, raise_for
from orchestrator.facts.preflight.restored import judge_restore
from orchestrator.facts.preflight.stream import choose_compression, needs_relay

__all__ = [
    "Request",
    "choose_compression",
    "describe",
    "judge",
    "judge_archive",
    "judge_backup",
    "judge_copy",
    "judge_host",
    "judge_restore",
    "needs_relay",
    "raise_for",
    "server_id_of",
]
