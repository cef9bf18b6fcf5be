"""Runs that survive: every step is journalled, and a run that was cut off goes on.

A run is a workflow whose stored input is the plan and the playbook. What the workflow library
(DBOS on SQLite) leaves to us is here as well: the run lock, the version gate, a JSON-only journal,
and the refusal of pickles.

::

    runs         the verbs: begin, resume, cancel, undo, forget, report, record, list, read
    drive        one process drives the flows of a run to their end
    engine       the library: launch, start, record, resume, rewind, cancel
    interpreter  walks the steps of a flow
    attempts     calls one step: retries, deadline, cancel
    records      what a reader sees of a run, and how its status is derived
    journal      the tables, read directly
    flows        what is stored of a run, and its names
    run_lock     one process works on a run at a time
    serial       values as JSON
    crash        where a process dies or halts if a test says so
    files        private files, and what goes wrong with them

The caller has called `orchestrator.steps.load` and `orchestrator.log.configure`.
"""

from orchestrator.durable.attempts import Session
from orchestrator.durable.records import PartRecord, RunRecord, StepRecord
from orchestrator.durable.runs import (
    begin_run,
    cancel_run,
    forget_run,
    list_runs,
    read_run,
    record_runs,
    report_run,
    resume_run,
    undo_run,
)
from orchestrator.durable.serial import JournalSerializer

__all__ = [
    "JournalSerializer",
    "PartRecord",
    "RunRecord",
    "Session",
    "StepRecord",
    "begin_run",
    "cancel_run",
    "forget_run",
    "list_runs",
    "read_run",
    "record_runs",
    "report_run",
    "resume_run",
    "undo_run",
]
