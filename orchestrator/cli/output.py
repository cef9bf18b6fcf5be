"""Printing: tables, documents, errors, questions. stdout is the answer, stderr the talk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from orchestrator.errors import ConfigError, OrchestratorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.cli.call import Call
    from orchestrator.models import Check

_BYTES_STEP = 1024
_MINUTE = 60
_CANCELLED = 130


def print_document(document: Any) -> None:
    """Print one JSON document on stdout, with secrets masked."""
    from orchestrator.log import redact  # noqa: PLC0415 - structlog costs start-up time

    click.echo(json.dumps(redact(document), indent=2, ensure_ascii=False))


def talk(text: str) -> None:
    """Print a line on stderr."""
    click.echo(text, err=True)


def format_bytes(size: float) -> str:
    """Return a size such as ``118 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < _BYTES_STEP:
            return f"{size:.0f} {unit}" if unit in "B KiB MiB" else f"{size:.1f} {unit}"
        size /= _BYTES_STEP
    return f"{size:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """Return a duration such as ``4.2 s``, ``2:05`` or ``1:02:03``."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns, the last one unpadded."""
    table = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def format_checks(checks: Sequence[Check]) -> str:
    """Return findings as a table, the hints of failed ones below."""
    rows = [
        (check.name, check.host, "✓" if check.ok else "✗", " ".join(check.evidence.split()))
        for check in checks
    ]
    lines = [format_table(("check", "host", "ok", "evidence"), rows)]
    lines += [
        f"hint: {check.name}{f' on {check.host}' if check.host else ''}: {check.hint}"
        for check in checks
        if check.hint and not check.ok
    ]
    return "\n".join(lines)


def format_finding(check: Check) -> str:
    """Return one finding as a line of an error's problems."""
    where = f" on {check.host}" if check.host else ""
    hint = f" ({check.hint})" if check.hint else ""
    return f"{check.name}{where}: {' '.join(check.evidence.split())}{hint}"


def format_transfer(transfer: dict[str, Any]) -> str:
    """Return how a stream went and what limited it, as one line."""
    rate = f"{format_bytes(transfer['bytes_per_second'])}/s"
    line = f"transfer: {format_bytes(transfer['bytes'])} in {format_seconds(transfer['seconds'])}, {rate}"
    if not transfer["evidence"]:
        return line
    limit = transfer["bottleneck"]
    said = f"limited by {limit}" if limit else "what limited it is not known"
    return f"{line}; {said} ({transfer['evidence']})"


def require_consent(call: Call, *, yes: bool) -> None:
    """See to it that something may be changed, or that somebody can be asked.

    Raises:
        ConfigError: Nobody is there to be asked, and ``--yes`` was not given.
    """
    if not yes and not call.is_interactive():
        raise ConfigError(
            "nobody to ask: stdin is no terminal",
            hint="give --yes to go on without a question",
        )


def confirm(question: str) -> None:
    """Ask before something is changed; a no ends the command."""
    if not click.confirm(question, err=True):
        talk("cancelled: nothing was changed")
        click.get_current_context().exit(_CANCELLED)


def format_error(error: OrchestratorError, run_id: str = "") -> str:
    """Return an error as the lines that stderr gets."""
    where = f" [{error.host}]" if error.host and error.host not in error.message else ""
    lines = [f"error: {error.message}{where}"]
    lines += [f"  {problem}" for problem in error.problems]
    stderr = str(error.context().get("stderr", "")).strip()
    lines += [f"  | {line}" for line in stderr.splitlines()]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    if run_id:
        lines.append(f"run: {run_id}")
    return "\n".join(lines)


def fail(call: Call, error: OrchestratorError) -> None:
    """Print an error of ours on stderr, and with ``--json`` as the document on stdout."""
    from orchestrator.log import redact_text  # noqa: PLC0415 - structlog costs start-up time

    talk(redact_text(format_error(error, call.run_id)))
    if call.as_json:
        print_document(_failure(call, error.as_json()))


def fail_foreign(call: Call, error: Exception, trace: str) -> None:
    """Print an error that is not ours, with its stack trace."""
    from orchestrator.log import redact_text  # noqa: PLC0415 - structlog costs start-up time

    talk(redact_text(trace.rstrip()))
    talk("error: this is a fault of xbvault, not of your set-up")
    if call.run_id:
        talk(f"run: {call.run_id}")
    if call.as_json:
        message = f"{type(error).__name__}: {error}"
        print_document(_failure(call, {"error": "OrchestratorError", "message": message}))


def _failure(call: Call, error: dict[str, Any]) -> dict[str, Any]:
    document = dict(call.document)
    if call.run_id:
        document["run_id"] = call.run_id
    if document.get("status") in (None, ""):
        document["status"] = "failed"
    document["error"] = error
    return document
