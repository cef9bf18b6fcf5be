"""The step registry: what a playbook can name, and what the engine must know about it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.models import CLONE

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.facts.look import Look
    from orchestrator.models import RunPlan
    from orchestrator.remote import Remote
    from orchestrator.vault import Vault

StepFunction = Callable[..., Any]
F = TypeVar("F", bound=StepFunction)

ROLES = ("donor", "recipient", "both", "source")
"""The source is the donor, unless the new replica follows another host."""


class Repeat(enum.Enum):
    """What happens when a step that was cut off is run again."""

    SAFE = "safe"
    """It finds the work done, or does the rest."""
    RESTART = "restart"
    """It throws the partial work away and begins again."""
    BACK = "back"
    """As `SAFE`; but where what it works on cannot be trusted any more, it raises
    `InterruptedWorkError`, and the run goes back to the step that `back_to` names."""
    ASK = "ask"
    """It raises `InterruptedWorkError`, and a person decides."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepInfo:
    """A registered step.

    Attributes:
        name: As the playbook, the journal and the command line say it; it never changes.
        function: ``function(tools, plan, **values)``; the result is a frozen dataclass or None.
        role: Host that it acts on.
        repeat: What running it again does.
        back_to: With `Repeat.BACK`: the step that the run goes back to; where it takes part in
            several forms of runs, one for each, of which a playbook has one.
        deadline_seconds: Longest time it may take, attempts included.
        summary: First line of its docstring.
        values: Names of the plain values that a playbook may give it, with their types.
        needs_lock: Whether it may act only while this run holds the recipient lock.
        needs_server: Whether the recipient's new server must run, and is started again if not.
        after_others: Whether it may act although another run has changed the recipient since.
        forms: Forms of runs that it takes part in.
    """

    name: str
    function: StepFunction
    role: str
    repeat: Repeat
    back_to: tuple[str, ...]
    deadline_seconds: float
    summary: str
    values: dict[str, type]
    needs_lock: bool = True
    needs_server: bool = False
    after_others: bool = False
    forms: frozenset[str] = frozenset({CLONE})

    def find_back_to(self, steps: Iterable[str]) -> str:
        """Return the step, of those that stand in a playbook, that the run goes back to.

        Args:
            steps: Their names. Empty is returned if there is none of it among them.
        """
        return next((name for name in steps if name in self.back_to), "")


REGISTRY: dict[str, StepInfo] = {}


def step(
    name: str,
    *,
    role: str,
    repeat: Repeat,
    back_to: str | tuple[str, ...] = (),
    deadline_seconds: float = 600,
    values: dict[str, type] | None = None,
    needs_lock: bool = True,
    needs_server: bool = False,
    after_others: bool = False,
    forms: tuple[str, ...] = (CLONE,),
) -> Callable[[F], F]:
    """Register a function as a step.

    Args:
        name: The function's name with hyphens.
        role: ``donor``, ``recipient``, ``both`` or ``source``.
        repeat: What running it again does.
        back_to: With `Repeat.BACK`: the step that the run goes back to.
        deadline_seconds: Longest time it may take.
        values: Plain values that a playbook may give it.
        needs_lock: Whether it may act only while this run holds the recipient lock.
        needs_server: Whether the recipient's new server must run, and is started again if not.
        after_others: Whether it may act although another run has changed the recipient since.
        forms: Forms of runs that it takes part in.
    """

    def register(function: F) -> F:
        if name in REGISTRY or name != function.__name__.replace("_", "-") or role not in ROLES:
            raise ValueError(f"step {name!r}: wrong or used name, or unknown role")
        if (repeat is Repeat.BACK) != bool(back_to):
            raise ValueError(f"step {name!r}: back_to goes with Repeat.BACK")
        REGISTRY[name] = StepInfo(
            name=name,
            function=function,
            role=role,
            repeat=repeat,
            back_to=(back_to,) if isinstance(back_to, str) else back_to,
            deadline_seconds=deadline_seconds,
            summary=(function.__doc__ or "").strip().partition("\n")[0],
            values=values or {},
            needs_lock=needs_lock,
            needs_server=needs_server,
            after_others=after_others,
            forms=frozenset(forms),
        )
        return function

    return register


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tools:
    """What a step works with: the configuration, and the doors to the outside.

    Attributes:
        config: The configuration of this process.
        vault: The door to Vault.
        donor: The door to the donor.
        recipient: The door to the recipient.
        upstream: The door to the host that the replica follows, where it is not the donor.
        attempt: How often the run went back to the stream, plus one; names what must be new then.
        fence: Fencing number of the recipient lock that this process holds; 0 before it is taken.
        check_cancelled: Raises `CancelledError` or `LockHeldError` when the run must end now.
        seconds_left: Time until the step's deadline.
        look: What this process has found out about the run's hosts before it began; None if another
            process did.
    """

    config: Config
    vault: Vault
    donor: Remote
    recipient: Remote
    upstream: Remote | None = None
    attempt: int = 1
    fence: int = 0
    check_cancelled: Callable[[], None] = lambda: None
    seconds_left: Callable[[], float] = lambda: 600.0
    look: Look | None = None

    @property
    def source(self) -> Remote:
        """The door to the host that the replica follows."""
        return self.upstream or self.donor

    def on(self, plan: RunPlan, host: str) -> Remote:
        """Return the door to a host of the plan by its name."""
        return self.donor if host == plan.donor else self.recipient
