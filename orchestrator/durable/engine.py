"""The workflow library (DBOS on SQLite): the only module that imports it.

It is imported by the functions that need it, because that takes a third of a second. Each of our
flows is a workflow of the library that calls `Engine.walk`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.durable import files, flows, journal, serial

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import ModuleType

    from dbos import DBOSClient, EnqueueOptions

    from orchestrator.durable.flows import Flow, Spec

Walk = Callable[["Spec"], None]

_APPLICATION = "xbvault"
_RUN, _PART = "run", "part"
"""Names of the workflows."""
_WAITING = "waiting"
"""A queue that nobody listens to: what stands in it begins when it is resumed."""
_one_at_a_time = threading.Lock()


class Engine:
    """The library, launched on a journal; `launch_engine` makes one.

    Args:
        path: The journal.
        client: The library's client for flows that go on; not needed for new ones.
        queue: The queue through which they do.
    """

    walk: ClassVar[Walk | None] = None
    """What the workflows call. A process drives one flow at a time."""

    def __init__(self, path: Path, client: DBOSClient | None, queue: str) -> None:
        self._path = path
        self._client = client
        self._queue = queue

    def start_flow(self, flow: Flow, walk: Walk) -> None:
        """Begin a flow that the journal does not have."""
        dbos = load_library()
        Engine.walk = walk
        with (
            files.translate_errors(self._path),
            dbos.SetWorkflowID(flow.name, workflow_id_reuse_policy="reject"),
        ):
            dbos.DBOS.start_workflow(_register_workflow(flow.spec["kind"] == "run"), flow.spec)

    def resume_flow(self, name: str, walk: Walk) -> None:
        """Go on with a flow that was cut off."""
        Engine.walk = walk
        with files.translate_errors(self._path):
            self._required_client.resume_workflow(name, queue_name=self._queue)

    def rewind_flow(self, name: str, step: int, walk: Walk) -> None:
        """Go on with a flow that failed, from a step on; what is journalled from there is lost."""
        Engine.walk = walk
        with files.translate_errors(self._path):
            self._required_client.rewind_workflow(name, start_step=step, queue_name=self._queue)

    @property
    def _required_client(self) -> DBOSClient:
        if self._client is None:
            raise AssertionError("the engine was launched for new flows only")
        return self._client


def load_library() -> ModuleType:
    """Import the library, silenced and without pickle; any thread may be the first."""
    with _loading:
        return _load_library()


_loading = threading.Lock()


@functools.cache
def _load_library() -> ModuleType:
    quiet = logging.getLogger("dbos")
    if not quiet.handlers:
        # It would write to stderr otherwise, advertisements included.
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
    import dbos  # noqa: PLC0415 - takes a third of a second

    _tame_library()
    return dbos


def _tame_library() -> None:
    """Change what the library would do with a journal that somebody else wrote or holds."""
    from dbos import _serialization, _sys_db, _sys_db_sqlite  # noqa: PLC0415 - parts of it

    sys_db: Any = _sys_db
    sqlite: Any = _sys_db_sqlite
    # A row that says it is a pickle would be loaded, whatever serializer is configured (dbos issue
    # 485); who can write the journal could run code as us.
    for verb in ("serialize", "deserialize"):
        setattr(_serialization.DefaultSerializer, verb, serial.refuse_pickle)
    # It would wait half a minute for a journal that another program holds, and then again, for
    # ever and in silence.
    sys_db.retriable_sqlite_exception = _is_never
    kind = sqlite.SQLiteSystemDatabase
    create_engine = kind._create_engine  # noqa: SLF001 - no option of its sets a connection up

    def create_impatient_engine(self: Any, url: str, options: dict[str, Any]) -> Any:
        engine = create_engine(self, url, options)
        sqlite.event.listen(engine, "connect", _limit_wait)
        return engine

    kind._create_engine = create_impatient_engine  # noqa: SLF001 - see above


def _is_never(_error: Exception) -> bool:
    return False


def _limit_wait(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute(f"PRAGMA busy_timeout = {journal.LOCKED_SECONDS * 1000:.0f}")


def run_step(name: str, function: Callable[[], Any]) -> Any:
    """Call a function inside a workflow and journal its result, or return the journalled one."""
    return load_library().DBOS.run_step({"name": name}, function)


def cancel_flow(path: Path, name: str) -> None:
    """Mark a flow as cancelled; who walks it ends at the next look."""
    with files.translate_errors(path), open_client(path) as client:
        client.cancel_workflow(name)


def delete_flow(path: Path, name: str) -> None:
    """Remove a flow that has ended from the journal."""
    with files.translate_errors(path), open_client(path) as client:
        client.delete_workflow(name)


def record_runs(path: Path, recorded: Sequence[Flow]) -> None:
    """Write the flows of new runs down, all of them or none; each begins when it is resumed."""
    with launch_engine(path, resuming=False):
        pass  # which makes the tables
    with (
        files.translate_errors(path),
        open_client(path) as client,
        # It takes its caller's transaction, and lends no connection to begin one on.
        client._sys_db.engine.begin() as transaction,  # noqa: SLF001 - see above
    ):
        for flow in recorded:
            options: EnqueueOptions = {
                "workflow_name": _RUN,
                "queue_name": _WAITING,
                "workflow_id": flow.name,
                "workflow_id_reuse_policy": "reject",
                "app_version": flows.FLOW_VERSION,
            }
            client.enqueue_in_transaction(transaction, options, flow.spec)


@contextlib.contextmanager
def open_client(path: Path) -> Iterator[DBOSClient]:
    """Open the library's client, which changes the journal and never runs anything."""
    client = load_library().DBOSClient(
        system_database_url=files.journal_url(path),
        serializer=serial.JournalSerializer(),
        application_name=_APPLICATION,
    )
    try:
        yield client
    finally:
        client.destroy()


@contextlib.contextmanager
def launch_engine(path: Path, *, resuming: bool) -> Iterator[Engine]:
    """Launch the library for the block.

    Name of executor and queue are new for each process: so the library recovers nobody's run by
    itself, and takes none that another process resumes.

    Args:
        path: The journal.
        resuming: Whether a flow goes on; the journal has its tables then.

    Raises:
        JournalError: The journal cannot be written.
    """
    name = f"cli-{uuid.uuid4().hex}"
    with _one_at_a_time, contextlib.ExitStack() as stack:
        client: DBOSClient | None = None
        if resuming:
            with files.translate_errors(path):
                client = stack.enter_context(open_client(path))
                # Before the launch: a later queue is seen only at the next full second.
                client.register_queue(name, polling_interval_sec=0.1)
            stack.callback(_delete_queue, client, name)
        with files.translate_errors(path):
            _launch(path, name, stack)
        yield Engine(path, client, name)


def _launch(path: Path, name: str, stack: contextlib.ExitStack) -> None:
    dbos = load_library()
    for is_run in (True, False):
        _register_workflow(is_run)
    dbos.DBOS(
        config={
            "name": _APPLICATION,
            "system_database_url": files.journal_url(path),
            "executor_id": name,
            "application_version": flows.FLOW_VERSION,
            "serializer": serial.JournalSerializer(),
            "log_level": "CRITICAL",
            # Nobody is notified here, but the end of a run waits for this poll.
            "notification_listener_polling_interval_sec": 0.05,
        }
    )
    stack.callback(_destroy, dbos)
    dbos.DBOS.listen_queues([name])
    dbos.DBOS.launch()


def _destroy(dbos: ModuleType) -> None:
    Engine.walk = None
    dbos.DBOS.destroy()


def _delete_queue(client: DBOSClient, name: str) -> None:
    with contextlib.suppress(Exception):
        # A leftover row does no harm, and must not hide why the run ended.
        client.delete_queue(name)


@functools.cache
def _register_workflow(is_run: bool) -> Any:  # noqa: FBT001 - the key of the cache
    """Return the workflow function for runs, or the one for flows that are part of a run."""

    def walk(spec: Spec) -> None:
        current = Engine.walk
        if current is None:
            raise AssertionError("a flow was handed out that nobody drives")
        current(spec)

    name = _RUN if is_run else _PART
    return load_library().DBOS.workflow(name=name, max_recovery_attempts=None)(walk)
