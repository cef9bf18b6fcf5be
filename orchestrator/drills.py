"""Filing the report of a drill: its evidence and the drills before it, as the journal has them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from orchestrator import durable, log, models, playbook, summary

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.durable import RunRecord
    from orchestrator.durable.attempts import OpenSession
    from orchestrator.report import PastDrill

PLAYBOOK: Final = "drill-report"
TREND: Final = 20
"""So many drills before this one are shown."""
LOOKED_AT: Final = 1000
"""Of so many of the newest runs, the drills are taken."""


def write_report(config: Config, run_id: str, open_session: OpenSession) -> RunRecord:
    """Write the report of a drill that has ended, well or not, unless it is written.

    Its SHA-256 stands in the journal, with the step that wrote it.

    Raises:
        PreconditionError: The directory cannot be written to.
        LockHeldError: Another process works on the run.
        JournalError: The journal cannot be read or written.
    """
    record = durable.read_run(config, run_id)
    evidence = log.redact(summary.build_evidence(record))
    trend = [models.as_json(past) for past in list_past(config, record)]
    values = {
        "evidence": json.dumps(evidence, sort_keys=False),
        "trend": json.dumps(trend, sort_keys=False),
    }
    book = playbook.load_playbook(PLAYBOOK)
    return durable.report_run(config, record.run_id, open_session, book, values, same="evidence")


def list_past(config: Config, record: RunRecord) -> list[PastDrill]:
    """Return the drills that began before this one and have ended, the oldest first."""
    found = [
        each.run_id
        for each in durable.list_runs(config, LOOKED_AT)
        if each.plan.form == record.plan.form and each.began_at < record.began_at
    ]
    past = [summary.build_past_drill(durable.read_run(config, run_id)) for run_id in found[:TREND]]
    return [each for each in reversed(past) if each.verdict]
