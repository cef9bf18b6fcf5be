"""Playbooks: YAML files that read like a runbook, checked whole against the step registry.

A playbook is a flat list of steps, each with its role and plain values, and a ``cleanup:`` list
that runs after success, undo or cancel. It has no conditions, loops or templates. Whoever asks
has called `orchestrator.steps.load` before, for only registered steps are known here.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os.path
import re
import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ConfigError
from orchestrator.steps.registry import REGISTRY, ROLES, Repeat, StepInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = 1
_KEYS = ("name", "summary", "version", "steps", "cleanup")
_STEP_KEYS = ("use", "on", "with")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_SUFFIXES = (".yaml", ".yml")
_TRUTH = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_BOOL_TAG = "tag:yaml.org,2002:bool"
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 80, 80
_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlaybookStep:
    """One line of a playbook.

    Attributes:
        use: Name of the step.
        on: Role of the host that it acts on.
        values: Plain values for the step (``with`` in the file).
    """

    use: str
    on: str
    values: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Playbook:
    """A checked playbook.

    Attributes:
        name: What `xbvault playbook list` calls it.
        summary: One line for the reader.
        steps: The steps in their order.
        cleanup: The steps of the clean-up run.
        text: The whole file, as it is stored with every run.
    """

    name: str
    summary: str
    steps: tuple[PlaybookStep, ...]
    cleanup: tuple[PlaybookStep, ...] = ()
    text: str = ""

    @property
    def forms(self) -> frozenset[str]:
        """Forms of runs that all its steps take part in."""
        return _common_forms((*self.steps, *self.cleanup))

    def need_form(self, form: str) -> None:
        """See that a run of a form can follow it.

        Raises:
            ConfigError: A step of it takes no part in such runs.
        """
        for step in (*self.steps, *self.cleanup):
            if form not in REGISTRY[step.use].forms:
                raise ConfigError(
                    f"playbook {self.name}: step {step.use!r} takes no part in a {form}",
                    hint=f"name a playbook whose steps all do, such as {form!r}",
                )


def load_playbook(name_or_path: str) -> Playbook:
    """Read and check a playbook, shipped (by its name) or of one's own (by its path).

    Args:
        name_or_path: ``clone``, or ``./mine.yaml``.

    Raises:
        ConfigError: There is none, it cannot be read, or it has problems; all are listed.
    """
    is_path = "/" in name_or_path or name_or_path.endswith(_SUFFIXES)
    path = Path(name_or_path) if is_path else _shipped_directory() / f"{name_or_path}.yaml"
    if not is_path and not os.path.isfile(path):  # noqa: PTH113 - never raises
        known = _shipped_names()
        raise ConfigError(
            f"no playbook {name_or_path!r}{_suggestion(name_or_path, known)}",
            hint=f"known: {', '.join(known)}; or give the path of a file",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # a name with a zero byte is a plain ValueError
        raise ConfigError(f"cannot read playbook {path}: {error}") from error
    return parse_playbook(text, path.name)


def list_playbooks() -> tuple[Playbook, ...]:
    """Return the shipped playbooks, by name.

    Raises:
        ConfigError: A shipped playbook has problems.
    """
    return tuple(load_playbook(name) for name in _shipped_names())


def parse_playbook(text: str, name: str = "playbook") -> Playbook:
    """Check the text of a playbook.

    Args:
        text: The whole file.
        name: What messages call it.

    Raises:
        ConfigError: It is not YAML, or has problems; each is listed with its path.
    """
    document = _read_yaml(text, name)
    if not isinstance(document, dict):
        raise ConfigError(f"playbook {name}: must be a mapping with {', '.join(_KEYS)}")
    problems = [
        f"{key}: unknown key{_suggestion(str(key), _KEYS)}" for key in document if key not in _KEYS
    ]
    problems += _check_head(document)
    steps, found = _check_list(document, "steps")
    problems += found
    cleanup, found = _check_list(document, "cleanup")
    problems += found
    if not problems and not _common_forms((*steps, *cleanup)):
        problems.append("steps: they are of different kinds of runs; no run takes all of them")
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError(
            f"{count} in playbook {name}",
            hint="docs/reference/steps.md lists the steps, their roles and values",
            problems=problems,
        )
    return Playbook(
        name=document["name"],
        summary=document["summary"],
        steps=tuple(steps),
        cleanup=tuple(cleanup),
        text=text,
    )


def _shipped_directory() -> Path:
    """Return the folder of the shipped playbooks: in the wheel, else in the checkout."""
    inside = Path(__file__).parent / "playbooks"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "playbooks"


def _shipped_names() -> list[str]:
    return sorted(path.stem for path in _shipped_directory().glob("*.yaml"))


def _suggestion(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _read_yaml(text: str, name: str) -> Any:
    import yaml  # noqa: PLC0415 - costs 15 ms that most commands need not pay

    class Loader(yaml.SafeLoader):
        """YAML 1.1 reads the key ``on`` as true; here only true and false are truth values."""

        yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own shape of this attribute
            first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL_TAG]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's own signature
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in seen:
                    # PyYAML lets the last one win silently; a runbook must not.
                    raise yaml.MarkedYAMLError(
                        problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver(_BOOL_TAG, _TRUTH, list("tTfF"))
    try:
        # A subclass of SafeLoader: nothing but plain values is ever made.
        return yaml.load(text, Loader=Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"playbook {name} is not YAML: {line}{error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"playbook {name} is not YAML: {error}") from error
    # What looks like a date, a number or a tagged value and is none, PyYAML lets Python refuse; a
    # thousand brackets are too deep for it.
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"playbook {name}: a value is not what it looks like: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"playbook {name} is nested too deeply") from error


def _check_head(document: dict[Any, Any]) -> list[str]:
    problems = []
    name = document.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        problems.append(f"name: must be a word of a-z, 0-9 and '-', is {_shown(name)}")
    summary = document.get("summary")
    if not isinstance(summary, str) or not summary.strip() or not summary.strip().isprintable():
        problems.append(f"summary: must be a line of text, is {_shown(summary)}")
    version = document.get("version")
    if version != VERSION or isinstance(version, bool):
        problems.append(f"version: must be {VERSION}, is {_shown(version)}")
    return problems


def _check_list(document: dict[Any, Any], key: str) -> tuple[list[PlaybookStep], list[str]]:
    entries = document.get(key)
    if entries is None and key == "cleanup":
        return [], []
    if not isinstance(entries, list) or (not entries and key == "steps"):
        return [], [f"{key}: must be a list of steps"]
    steps: list[PlaybookStep] = []
    problems: list[str] = []
    earlier: list[str] = []
    for index, entry in enumerate(entries):
        where = f"{key}[{index}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("use"), str):
            problems.append(f"{where}: must be a mapping with {', '.join(_STEP_KEYS)}")
            continue
        found = _check_step(where, entry, earlier)
        problems += found
        earlier.append(entry["use"])
        if not found:
            values = entry.get("with") or {}
            steps.append(PlaybookStep(use=entry["use"], on=entry["on"], values=values))
    return steps, problems


def _common_forms(steps: Iterable[PlaybookStep]) -> frozenset[str]:
    return frozenset.intersection(*(REGISTRY[step.use].forms for step in steps))


def _check_step(where: str, entry: dict[Any, Any], earlier: list[str]) -> list[str]:
    use = entry["use"]
    problems = [
        f"{where}.{key}: unknown key{_suggestion(str(key), _STEP_KEYS)}"
        for key in entry
        if key not in _STEP_KEYS
    ]
    if use in earlier:
        problems.append(f"{where}.use: step {use!r} stands twice")
    info = REGISTRY.get(use)
    if info is None:
        return [*problems, f"{where}.use: unknown step {use!r}{_suggestion(use, REGISTRY)}"]
    on = entry.get("on")
    if on not in ROLES:
        problems.append(f"{where}.on: must be one of {', '.join(ROLES)}, is {_shown(on)}")
    elif on != info.role:
        problems.append(f"{where}.on: step {use!r} acts on {info.role!r}, not on {_shown(on)}")
    if info.repeat is Repeat.BACK and not info.find_back_to(earlier):
        back_to = " or ".join(map(repr, info.back_to))
        problems.append(
            f"{where}.use: step {use!r} goes back to {back_to}, which does not stand earlier"
        )
    return problems + _check_values(f"{where}.with", entry.get("with"), info)


def _check_values(where: str, given: Any, info: StepInfo) -> list[str]:
    values = {} if given is None else given
    if not isinstance(values, dict):
        return [f"{where}: must be a mapping, is {_shown(given)}"]
    problems = []
    for key, value in values.items():
        kind = info.values.get(key)
        if kind is None:
            problems.append(f"{where}.{key}: unknown value{_suggestion(str(key), info.values)}")
        elif not _is_kind(value, kind):
            wanted = _TYPE_NAMES.get(kind, kind.__name__)
            problems.append(f"{where}.{key}: must be {wanted}, is {_shown(value)}")
    parameters = inspect.signature(info.function).parameters
    problems += [
        f"{where}.{key}: is required"
        for key in info.values
        if key not in values
        and key in parameters
        and parameters[key].default is inspect.Parameter.empty
    ]
    return problems


def _shown(value: Any) -> str:
    """Return a value for a message, cut: a few aliases make one whose repr fills the memory."""
    return _REPR.repr(value)


def _is_kind(value: Any, kind: type) -> bool:
    if isinstance(value, bool) and kind is not bool:
        return False
    if isinstance(value, str) and not value.isprintable():
        return False
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)
