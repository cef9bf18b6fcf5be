"""One step, called until it ends: attempts, its deadline, and whether the run was cancelled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator import log
from orchestrator.durable import crash
from orchestrator.errors import CancelledError, CommandError, OrchestratorError, RemoteError
from orchestrator.steps.registry import Repeat, StepInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.config import Config
    from orchestrator.models import RunPlan
    from orchestrator.steps.registry import Tools

RETRY_WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Waits between the attempts at a step that failed on a transient error."""
_CANCEL_POLL_SECONDS = 1.0


class Session(Protocol):
    """What the steps of one process entry share: connections, and the recipient lock."""

    def tools(
        self,
        info: StepInfo,
        attempt: int,
        check_cancelled: Callable[[], None],
        seconds_left: Callable[[], float],
    ) -> Tools:
        """Return what a step works with."""

    def start_server(self, tools: Tools, plan: RunPlan) -> bool:
        """Start the recipient's new server again; return whether it did not run."""

    def need_unended(self) -> None:
        """Refuse to begin to cancel a run that has ended by another copy of its journal."""

    def end(self, status: str) -> None:
        """Close everything; called once, with succeeded, failed, cancelled or detached."""


OpenSession = Callable[["Config", "RunPlan"], Session]


class Attempts:
    """Calls the steps of one flow.

    Args:
        session: Where they get their tools from.
        is_cancelled: Asks the journal whether the run was cancelled.
    """

    def __init__(self, session: Session, is_cancelled: Callable[[], bool]) -> None:
        self._session = session
        self._is_cancelled = is_cancelled

    def call_step(
        self, info: StepInfo, plan: RunPlan, values: Mapping[str, Any], attempt: int
    ) -> Any:
        """Call a step, again if it may be repeated and its error says that it may help."""
        watch = _Watch(info, plan.run_id, self._is_cancelled)
        may_repeat = info.repeat is not Repeat.ASK
        may_start = info.needs_server
        for number, wait in enumerate((*RETRY_WAITS_SECONDS, None), start=1):
            watch.check()
            tools: Tools | None = None
            try:
                tools = self._session.tools(info, attempt, watch.check, watch.seconds_left)
                crash.die_at(info.name, "inside")
                return info.function(tools, plan, **values)
            except OrchestratorError as error:
                if not may_repeat or wait is None:
                    raise
                if may_start and tools and not error.transient and self._start_server(tools, plan):
                    may_start = False
                    log.get().warning("step.retried", number=number, **error.as_json())
                    continue
                if not error.transient:
                    raise
                if wait > watch.seconds_left():
                    raise
                log.get().warning(
                    "step.retried", number=number, wait_seconds=wait, **error.as_json()
                )
            watch.pause(wait)
        raise AssertionError("the last attempt returns or raises")

    def _start_server(self, tools: Tools, plan: RunPlan) -> bool:
        """Start the recipient's server if that is what a step failed on; returns whether it was.

        Raises:
            OrchestratorError: It does not start; the cause of that is the cause of all.
        """
        try:
            return self._session.start_server(tools, plan)
        except OrchestratorError as error:
            if not isinstance(error, RemoteError) or not error.transient:
                raise
            log.get().warning("notice", about="the server was not started again", **error.as_json())
            return False


class _Watch:
    """Looks whether a step must end; a session's threads look as well."""

    def __init__(self, info: StepInfo, run_id: str, is_cancelled: Callable[[], bool]) -> None:
        self._info = info
        self._run_id = run_id
        self._is_cancelled = is_cancelled
        self._deadline = time.monotonic() + info.deadline_seconds
        self._look_at = 0.0
        self._guard = threading.Lock()

    def seconds_left(self) -> float:
        """Return the time until the step's deadline."""
        return max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Raise if the run was cancelled or the step is late; asks the journal once a second."""
        with self._guard:
            now = time.monotonic()
            if now > self._deadline:
                raise CommandError(
                    f"step {self._info.name} did not end within {self._info.deadline_seconds:g} s"
                )
            if now < self._look_at:
                return
            self._look_at = now + _CANCEL_POLL_SECONDS
            if self._is_cancelled():
                raise CancelledError(f"run {self._run_id} was cancelled")

    def pause(self, seconds: float) -> None:
        """Wait, looking."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            self.check()
