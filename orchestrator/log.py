"""Logging: event names, redaction, a JSON-lines file per run, listeners.

An event is a fixed name with key-value pairs, never a formatted sentence. The same stream feeds
the run's file (``<state>/logs/<run>.jsonl``), the live view of the process that does the run
(through `subscribe`), and ``runs watch`` in another process (which reads the file).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, TextIO

from orchestrator import models

if TYPE_CHECKING:
    from pathlib import Path

Event = MutableMapping[str, Any]
Listener = Callable[[Event], None]

EVENTS = (
    "run.began",
    "run.ended",
    "run.failed",
    "step.began",
    "step.unchanged",
    "step.retried",
    "step.went_back",
    "step.ended",
    "step.failed",
    "command.failed",
    "job.started",
    "relay.opened",
    "job.attached",
    "job.progress",
    "job.ended",
    "job.stopped",
    "keys.read_not_noted",
    "lock.taken",
    "lock.released",
    "lock.lost",
    "token.renewed",
    "deployment.made",
    "set.published",
    "set.removed",
    "expiry.still_held",
    "notice",
)
"""Every event name. A contract test looks for others in the sources."""

_SECRET_NAME = re.compile(
    r"(?i)(token|password|passwd|secret|private_key|key_data|transition_key)$"
)
_VAULT_TOKEN = re.compile(r"\b(?:hv[sb]|[sbr])\.[A-Za-z0-9_-]{20,}")

_listeners: list[Listener] = []
_files: dict[str, int] = {}
_guard = threading.Lock()


def redact_text(text: str) -> str:
    """Return the text with every known secret value, and all that looks like a token, masked."""
    # The longest first: of a value that begins like another one, no end may be left over.
    for value in sorted(models.known_secret_values(), key=len, reverse=True):
        if value in text:
            text = text.replace(value, models.MASK)
    return _VAULT_TOKEN.sub(models.MASK, text)


def redact(value: Any) -> Any:
    """Return the value with secrets masked by value, and by name inside mappings."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, models.Secret):
        return models.MASK
    if isinstance(value, dict):
        return {
            key: models.MASK if _SECRET_NAME.search(str(key)) and item else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def _redact_event(_logger: Any, _method: str, event: Event) -> Event:
    cleaned: Event = redact(dict(event))
    return cleaned


def _hand_out(_logger: Any, _method: str, event: Event) -> Event:
    import structlog  # noqa: PLC0415 - takes a quarter of a second, for it imports rich

    for listener in tuple(_listeners):
        listener(event)
    run_id = str(event.get("run_id", ""))
    with _guard:
        descriptor = _files.get(run_id)
        if descriptor is not None:
            _append(descriptor, json.dumps(event, default=str, ensure_ascii=False) + "\n")
    raise structlog.DropEvent


def _append(descriptor: int, line: str) -> None:
    """Append a line as a whole, or not at all where there is no room for it.

    Then the journal has none either and says so; this must not hide it.
    """
    content = line.encode("utf-8", "backslashreplace")
    with contextlib.suppress(OSError):
        size = os.fstat(descriptor).st_size
        try:
            is_whole = os.write(descriptor, content) == len(content)
        except OSError:
            is_whole = False
        if not is_whole:
            os.ftruncate(descriptor, size)


def configure() -> None:
    """Set structlog up; events go to listeners and run files only, never to stdout."""
    import structlog  # noqa: PLC0415 - takes a quarter of a second, for it imports rich

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact_event,
            _hand_out,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        cache_logger_on_first_use=False,
    )
    for name in ("paramiko", "urllib3", "dbos", "fabric", "invoke"):
        quiet = logging.getLogger(name)
        quiet.handlers = [logging.NullHandler()]
        quiet.propagate = False
        # paramiko's formatting of debug lines alone costs milliseconds a command
        quiet.setLevel(logging.CRITICAL + 1)


def get() -> Any:
    """Return a logger that carries what was bound with `bound`."""
    import structlog  # noqa: PLC0415 - takes a quarter of a second, for it imports rich

    return structlog.get_logger()


@contextlib.contextmanager
def bound(**context: Any) -> Iterator[None]:
    """Bind context, such as ``run_id`` and ``step``, to every event inside the block."""
    import structlog  # noqa: PLC0415 - takes a quarter of a second, for it imports rich

    with structlog.contextvars.bound_contextvars(**context):
        yield


def subscribe(listener: Listener) -> Callable[[], None]:
    """Call the listener with every event; the answer ends the subscription."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


@contextlib.contextmanager
def run_file(run_id: str, path: Path) -> Iterator[None]:
    """Append the events of a run to a JSON-lines file (mode 0600) inside the block."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with _guard:
        _files[run_id] = descriptor
    try:
        yield
    finally:
        with _guard:
            _files.pop(run_id, None)
        os.close(descriptor)


def print_listener(stream: TextIO | None = None) -> Listener:
    """Return a listener that writes readable lines to stderr, for terminals without a live view."""
    out = stream or sys.stderr

    def listen(event: Event) -> None:
        rest = {
            key: value
            for key, value in event.items()
            if key not in ("event", "level", "timestamp", "run_id", "playbook")
        }
        words = " ".join(f"{key}={value}" for key, value in rest.items())
        out.write(f"{str(event.get('timestamp', ''))[11:19]} {event['event']} {words}\n")
        out.flush()

    return listen
