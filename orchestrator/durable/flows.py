"""What is stored of a run: its flows, their names, and the names of their steps.

A run is a flow of its own name. Clean-up, undo, cancel and forget of a run are flows as well,
named ``cleanup:RUN:<cause>``, ``undo:RUN``, ``cancel:RUN`` and ``forget:RUN``; the report of a drill
is ``report:RUN``. All of it is part of the journal's format: what changes here needs a new `FLOW_VERSION`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from orchestrator import models

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.models import RunPlan
    from orchestrator.playbook import Playbook, PlaybookStep

FLOW_VERSION = "flow-1"
"""Format of a run's stored input and of its step names. A new one does not resume runs of an old
one; the library's own default would change with every release and strand them silently."""

_PARTS = (
    "cleanup:{}:success",
    "undo:{}",
    "cleanup:{}:undo",
    "cancel:{}",
    "cleanup:{}:cancel",
    "forget:{}",
    "report:{}",
)
_STEP_NAME = re.compile(r"([0-9]{1,9})\.([^.]+)(?:\.([0-9]{1,9}))?")

_KINDS = {
    "kind": str,
    "run_id": str,
    "plan": dict,
    "playbook": dict,
    "steps": list,
    "cleanup": list,
    "attempt": int,
    "flow": str,
    "began_at": str,
}
"""What must stand in a stored input."""

StoredStep = TypedDict("StoredStep", {"use": str, "on": str, "with": dict[str, Any]})


class StoredPlaybook(TypedDict):
    """The playbook that a flow was made from."""

    name: str
    text: str


class Spec(TypedDict):
    """The stored input of a flow: all that a later process needs to go on with it."""

    kind: str
    run_id: str
    plan: dict[str, Any]
    playbook: StoredPlaybook
    steps: list[StoredStep]
    cleanup: list[StoredStep]
    attempt: int
    flow: str
    began_at: NotRequired[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """A flow to be driven to its end: its name, and its input if it is new."""

    name: str
    spec: Spec


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepName:
    """What the name of a journalled step says: its place, the step, and the round."""

    index: int
    step: str
    round: int = 1

    def __str__(self) -> str:
        return f"{self.index:02d}.{self.step}" + (f".{self.round}" if self.round > 1 else "")

    @classmethod
    def parse(cls, text: str) -> StepName | None:
        """Return what a name says, or None if it is none of ours."""
        found = _STEP_NAME.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            return None
        return cls(index=int(found[1]), step=found[2], round=int(found[3] or 1))


def part_names(run_id: str) -> list[str]:
    """Return the names of all flows that a run may have beside its own, in their order."""
    return [part.format(run_id) for part in _PARTS]


def make_spec(kind: str, plan: RunPlan, playbook: Playbook) -> Spec:
    """Return the input of a new flow.

    Raises:
        ConfigError: A step of the playbook takes no part in such runs.
    """
    playbook.need_form(plan.form)
    return {
        "kind": kind,
        "run_id": plan.run_id,
        "plan": models.as_json(plan),
        "playbook": {"name": playbook.name, "text": playbook.text},
        "steps": _stored_steps(playbook.steps),
        "cleanup": _stored_steps(playbook.cleanup),
        "attempt": 1,
        "flow": FLOW_VERSION,
    }


def check_spec(stored: Any) -> Spec:
    """Return a stored input, looked at: every later reader takes it as it is.

    Raises:
        ValueError: It is none.
    """
    problem = _find_problem(stored)
    if problem:
        raise ValueError(problem)
    models.read_plan(stored["plan"])
    spec: Spec = stored
    return spec


def _find_problem(stored: Any) -> str:
    if not isinstance(stored, dict):
        return "it is no table"
    for name, kind in _KINDS.items():
        if not isinstance(stored.get(name), kind):
            return f"{name} is missing or of another kind"
    if not all(isinstance(stored["playbook"].get(key), str) for key in ("name", "text")):
        return "its playbook has no name or text"
    steps = (*stored["steps"], *stored["cleanup"])
    if not all(isinstance(step, dict) and isinstance(step.get("use"), str) for step in steps):
        return "a step has no name"
    return ""


def make_flows(spec: Spec) -> list[Flow]:
    """Return a flow and the clean-up that follows it, where there is one."""
    run_id, kind = spec["run_id"], spec["kind"]
    is_run = kind == "run"
    flows = [Flow(name=run_id if is_run else f"{kind}:{run_id}", spec=spec)]
    if spec["cleanup"]:
        cleanup: Spec = {**spec, "kind": "cleanup", "steps": spec["cleanup"], "cleanup": []}
        cause = "success" if is_run else kind
        flows.append(Flow(name=f"cleanup:{run_id}:{cause}", spec=cleanup))
    return flows


def make_return(back_to: str, error: dict[str, Any]) -> dict[str, Any]:
    """Return the journalled result of a step that sends the run back."""
    return {"back_to": back_to, "error": error}


def is_return(result: Any) -> bool:
    """Say whether a step's journalled result sends the run back."""
    return isinstance(result, dict) and set(result) == {"back_to", "error"}


def _stored_steps(steps: Iterable[PlaybookStep]) -> list[StoredStep]:
    return [{"use": step.use, "on": step.on, "with": step.values} for step in steps]
