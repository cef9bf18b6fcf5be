"""One clone of several, in a process of its own: ``python -m orchestrator.cli.child``.

`groups` starts it, with a document on stdin: ``config`` (path) and ``run_id`` of a run that stands
in the journal. How the run comes out stands there as well; the exit status is that of its error, and
the error itself is printed as JSON, for it may be about the journal or who holds the run.
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback

import click

from orchestrator import log
from orchestrator.cli import follow, process
from orchestrator.cli.call import Call
from orchestrator.errors import OrchestratorError


def main() -> int:
    """Do what stdin says; return the exit status."""
    document = json.load(sys.stdin)
    call = Call(config_option=document["config"], as_json=True)
    config, backend = call.load_config(), call.backend
    try:
        follow.go(call, document["run_id"], (), lambda: backend.resume_run(config, call.run_id))
    except OrchestratorError as error:
        _tell(error)
        return error.exit_status
    except Exception as error:  # noqa: BLE001 - the outermost frame: told, never swallowed
        _tell(OrchestratorError(f"{type(error).__name__}: {error}", hint=traceback.format_exc()))
        return 1
    return 0


def _tell(error: OrchestratorError) -> None:
    with contextlib.suppress(OSError):  # whoever started us may be gone
        click.echo(json.dumps(log.redact(error.as_json())))


if __name__ == "__main__":
    process.begin()
    try:
        sys.exit(main())
    finally:
        process.end()
