"""What every registered step has: a docstring in four sections, a frozen result, a place to stand."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator import errors, models, playbook, steps
from orchestrator.steps.registry import REGISTRY, ROLES, Repeat, StepInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

steps.load()
# Tests of the engine register steps of their own in the same process.
STEPS = {
    name: info
    for name, info in REGISTRY.items()
    if info.function.__module__.startswith("orchestrator.")
}
PLAYBOOKS = {book.name: book for book in playbook.list_playbooks()}
SECTIONS = ["Args", "Returns", "Raises", "Repeat"]
HEADING = re.compile(r"^(\w+):$", re.MULTILINE)
ENTRY = re.compile(r"^    (\w+): \S", re.MULTILINE)


def sections(info: StepInfo) -> dict[str, str]:
    """Return the sections of a step's docstring in their order."""
    text = inspect.cleandoc(info.function.__doc__ or "")
    parts = HEADING.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def result_type(info: StepInfo) -> Any:
    """Return the annotation of a step's result, resolved."""
    names = {**vars(models), **vars(module_of(info.function))}
    return typing.get_type_hints(info.function, names)["return"]


def module_of(thing: Any) -> types.ModuleType:
    """Return the module that defines a function or class."""
    return sys.modules[thing.__module__]


def test_there_are_steps() -> None:
    """The registry is filled, by every module of the room that defines steps."""
    room = Path(steps.__file__).parent
    defining = {
        path.stem
        for path in room.glob("*.py")
        if path.stem != "registry" and re.search(r"^@step\(", path.read_text("utf-8"), re.MULTILINE)
    }
    assert defining == set(steps.MODULES)
    assert {info.function.__module__.rpartition(".")[2] for info in STEPS.values()} == defining


@pytest.mark.parametrize("info", STEPS.values(), ids=STEPS)
def test_docstring_has_the_four_sections(info: StepInfo) -> None:
    """A line that says what it does, then Args, Returns, Raises and Repeat, none of them empty."""
    text = inspect.cleandoc(info.function.__doc__ or "")
    summary, _, rest = text.partition("\n")
    assert info.summary == summary
    assert summary.endswith(".")
    assert rest.startswith("\n")
    found = sections(info)
    assert list(found) == SECTIONS
    assert all(body.strip() for body in found.values())


@pytest.mark.parametrize("info", STEPS.values(), ids=STEPS)
def test_docstring_names_what_there_is(info: StepInfo) -> None:
    """Args are the parameters in their order, and Raises are classes of ours."""
    found = sections(info)
    assert ENTRY.findall(found["Args"]) == list(inspect.signature(info.function).parameters)
    raised = ENTRY.findall(found["Raises"])
    assert raised
    assert set(raised) <= set(errors.classes())


@pytest.mark.parametrize("info", STEPS.values(), ids=STEPS)
def test_name_is_that_of_the_function(info: StepInfo) -> None:
    """The journal's name is the function's with hyphens: verb and noun."""
    assert info.name == info.function.__name__.replace("_", "-")
    assert re.fullmatch(r"[a-z]+(?:-[a-z]+)+", info.name)


@pytest.mark.parametrize("info", STEPS.values(), ids=STEPS)
def test_parameters_are_tools_plan_and_declared_values(info: StepInfo) -> None:
    """A step gets the doors, the plan, and the plain values that it declared."""
    parameters = list(inspect.signature(info.function).parameters)
    assert parameters[:2] == ["tools", "plan"]
    assert parameters[2:] == list(info.values)


@pytest.mark.parametrize("info", STEPS.values(), ids=STEPS)
def test_result_can_be_journalled(info: StepInfo) -> None:
    """The result is a frozen dataclass of JSON values, no secret among them, or nothing."""
    kind = result_type(info)
    assert kind is type(None) or is_frozen(kind)
    assert list(not_json(kind)) == []


def is_frozen(kind: Any) -> bool:
    """Return whether a type is a dataclass that nobody can alter."""
    parameters = getattr(kind, "__dataclass_params__", None)
    return isinstance(kind, type) and parameters is not None and bool(parameters.frozen)


def not_json(kind: Any) -> Iterator[Any]:
    """Yield the parts of a type that `models.from_json` could not make again from JSON."""
    if kind in (str, int, float, bool, type(None)):
        return
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_frozen(kind):
        for hint in typing.get_type_hints(kind, {**vars(models), **vars(module_of(kind))}).values():
            yield from not_json(hint)
    elif origin in (typing.Union, types.UnionType):
        others = [argument for argument in arguments if argument is not type(None)]
        if len(others) != 1:  # from_json takes the first one
            yield kind
        yield from not_json(others[0])
    elif origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        yield from not_json(arguments[0])
    elif origin is dict and arguments[0] is str:
        yield from not_json(arguments[1])
    else:
        yield kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrong:
    """A result that no journal should take."""

    secret: models.Secret
    pair: tuple[int, str]
    either: int | str
    anything: Any


def test_what_cannot_be_journalled_is_noticed() -> None:
    """The check above sees a secret, a pair, a choice and anything at all."""
    assert len(list(not_json(Wrong))) == 4


@pytest.mark.parametrize("info", STEPS.values(), ids=STEPS)
def test_role_repeat_and_deadline(info: StepInfo) -> None:
    """Every step chooses what a second run of it does, where it acts, and how long it may take."""
    assert info.role in ROLES
    assert (info.repeat is Repeat.BACK) == bool(info.back_to)
    assert 0 < info.deadline_seconds <= 7 * 86400


@pytest.mark.parametrize("book", PLAYBOOKS.values(), ids=PLAYBOOKS)
def test_steps_that_go_back_find_where_to(book: playbook.Playbook) -> None:
    """In every shipped playbook, the step that a BACK step names stands earlier."""
    for part in (book.steps, book.cleanup):
        names = [line.use for line in part]
        for index, name in enumerate(names):
            if STEPS[name].repeat is Repeat.BACK:
                assert STEPS[name].find_back_to(names[:index])


def test_a_step_goes_back() -> None:
    """The rule above is about something: some steps go back to a stream."""
    backs = {info.name: info.back_to for info in STEPS.values() if info.repeat is Repeat.BACK}
    assert backs == {
        "verify-backup-set": ("stream-backup",),
        "prepare-backup-set": ("stream-backup", "fetch-backup-set"),
        "stop-server": ("stream-backup", "fetch-backup-set"),
        "swap-datadir": ("stream-backup", "fetch-backup-set"),
        "verify-stored-set": ("store-backup",),
        "verify-fetched-set": ("fetch-backup-set",),
        "verify-copied-set": ("copy-stored-set",),
        "verify-stored-binlogs": ("store-binlogs",),
    }


def test_every_step_is_used_and_every_used_step_is_there() -> None:
    """No step lies about that no shipped playbook uses."""
    used = {line.use for book in PLAYBOOKS.values() for line in (*book.steps, *book.cleanup)}
    assert used == set(STEPS)
