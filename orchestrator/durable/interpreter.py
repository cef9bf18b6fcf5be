"""The interpreter: walks the steps of a flow, each of which is journalled when it has ended."""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orchestrator import log, models
from orchestrator.durable import crash, flows
from orchestrator.errors import InterruptedWorkError, OrchestratorError
from orchestrator.steps.registry import REGISTRY, Repeat, StepInfo

if TYPE_CHECKING:
    from orchestrator.durable.attempts import Attempts
    from orchestrator.durable.flows import Spec
    from orchestrator.models import RunPlan

MOST_RETURNS = 3
"""A run goes back at most this often by itself each time that it is begun or resumed."""

RunStep = Callable[[str, Callable[[], Any]], Any]
"""Calls a function and journals its result under a name; or only returns what is journalled."""


class Interpreter:
    """Walks the steps of one flow.

    Everything that decides the way (which step, which round) comes from the stored input and the
    journalled results, so that a replay takes the same way; the rest happens inside a step.

    Args:
        run_step: Journals a step.
        attempts: Calls a step.
    """

    def __init__(self, run_step: RunStep, attempts: Attempts) -> None:
        self._run_step = run_step
        self._attempts = attempts
        self._returns = 0

    def walk(self, spec: Spec) -> None:
        """Do the steps that the journal does not have, in their order."""
        plan = models.read_plan(spec["plan"])
        steps = spec["steps"]
        places = {entry["use"]: index for index, entry in enumerate(steps)}
        index, returns = 0, 0
        while index < len(steps):
            entry = steps[index]
            info = REGISTRY[entry["use"]]
            attempt = spec["attempt"] + returns
            name = flows.StepName(index=index, step=info.name, round=returns + 1)
            place = {"index": index, "of": len(steps), "attempt": attempt}
            call = functools.partial(self._attempts.call_step, info, plan, entry["with"], attempt)
            back_to = info.find_back_to(places)
            with log.bound(step=info.name, host=_name_host(plan, info.role)):
                result = self._do_step(str(name), info, place, call, back_to)
            went_back = flows.is_return(result)
            index = places[result["back_to"]] if went_back else index + 1
            returns += went_back

    def _do_step(
        self,
        name: str,
        info: StepInfo,
        place: dict[str, int],
        call: Callable[[], Any],
        back_to: str,
    ) -> Any:
        """Do a step, or return its result from the journal and say nothing."""
        acted = False
        began = time.monotonic()

        def act() -> Any:
            nonlocal acted
            acted = True
            log.get().info("step.began", **place)
            return self._act(info, call, back_to)

        result = self._run_step(name, act)
        if acted:
            if not flows.is_return(result):
                seconds = round(time.monotonic() - began, 3)
                log.get().info("step.ended", **place, seconds=seconds)
            crash.die_at(info.name, "committed")
        return result

    def _act(self, info: StepInfo, call: Callable[[], Any], back_to: str) -> Any:
        """Return what is to be journalled: the step's result, or where the run goes back to."""
        try:
            crash.die_at(info.name, "before")
            document = _mask(models.as_json(call()))
            crash.die_at(info.name, "after")
        except InterruptedWorkError as error:
            if info.repeat is not Repeat.BACK or self._returns >= MOST_RETURNS:
                log.get().error("step.failed", **error.as_json())
                raise
            self._returns += 1
            log.get().warning("step.went_back", back_to=back_to, **error.as_json())
            return flows.make_return(back_to, log.redact(error.as_json()))
        except OrchestratorError as error:
            log.get().error("step.failed", **error.as_json())
            raise
        except Exception as error:
            fault = _make_fault(info, error)
            log.get().error("step.failed", **fault.as_json(), stack=traceback.format_exc())
            raise fault from error
        return document


def _name_host(plan: RunPlan, role: str) -> str:
    if role == "both":
        return f"{plan.donor},{plan.recipient}"
    named = {"donor": plan.donor, "source": plan.source_host}
    return named.get(role, plan.recipient)


def _make_fault(info: StepInfo, error: Exception) -> OrchestratorError:
    """Return a fault of ours as an error that the journal can carry."""
    return OrchestratorError(
        log.redact_text(f"step {info.name} broke: {type(error).__name__}: {error}"),
        hint="this is a fault in xbvault; the run's log has the stack trace",
    )


def _mask(document: Any) -> Any:
    """Return a step's result with every known secret value blotted out."""
    if isinstance(document, str):
        return log.redact_text(document)
    if isinstance(document, dict):
        return {key: _mask(item) for key, item in document.items()}
    if isinstance(document, list):
        return [_mask(item) for item in document]
    return document
