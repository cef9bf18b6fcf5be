"""Kills inside steps: a process that ends by SIGKILL at an act on a host or in Vault.

``ACT_KILLS=<n>:<file>``: inside a step, the process dies while a long act goes on, or when an act
has ended, at the first one that the file does not have yet. What it met is added to the file, so
that the next process comes further; each n-th in the file kills. `install` puts this between the
steps and their doors; the product knows nothing of it.

``COMMAND_KILLS`` says the same of commands that are no run, such as an expiry: of the doors to the
repositories and to Vault that they open.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from orchestrator.models import Secret

if TYPE_CHECKING:
    from orchestrator.remote import Remote
    from orchestrator.steps.registry import StepInfo, Tools
    from orchestrator.vault import Vault

VARIABLE = "ACT_KILLS"
COMMAND_VARIABLE = "COMMAND_KILLS"
COMMAND = "command"
"""Stands for the step, where there is none."""
LONG_SECONDS = 0.15
"""An act that takes longer is cut while it goes on, too."""

HIDDEN = "(secret)"
MOST_STATEMENTS = 4
"""SQL is a secret to us; a step that polls says the same one over and over."""
_READS = ("read_", "list_", "lookup_", "has_", "can_", "with_", "host_key_")
"""A kill after an act that changes nothing is one after the act before it."""
_READING_COMMANDS = ("test", "cat", "stat", "ls")
_VARYING = re.compile(r"[0-9a-f]{8,}|\d+")
_NEW_EACH_TIME = re.compile(r"AAAA[\w+/]{20,}|\bexpire-[0-9a-f]{8}\b")
"""Public keys, and the names of expiries."""
_LONGEST_WORD = 200


def install() -> None:
    """Let every step of this process have watched doors."""
    from orchestrator.steps import session  # noqa: PLC0415 - it is heavy, and not always wanted

    give = session.Session.tools

    def tools(self: session.Session, info: StepInfo, *arguments: Any) -> Tools:
        return watch_doors(info.name, give(self, info, *arguments))

    setattr(session.Session, give.__name__, tools)  # for mypy, methods are never assigned to


def install_for_commands() -> None:
    """Let commands that are no run have watched doors."""
    from orchestrator import catalogue, key_uses  # noqa: PLC0415 - as above

    acts = _make_acts(COMMAND_VARIABLE, COMMAND)
    for module, opens in ((catalogue, "open_repository"), (key_uses, "open_vault")):
        setattr(module, opens, _watch_what_is_opened(opens, getattr(module, opens), acts))


def _watch_what_is_opened(opens: str, function: Callable[..., Any], acts: _Acts) -> Any:
    def open_watched(*arguments: Any) -> _Door:
        name = "vault" if opens == "open_vault" else str(arguments[1])
        return _Door(name, function(*arguments), acts)

    return open_watched


def watch_doors(step: str, tools: Tools) -> Tools:
    """Return the tools, with doors that may kill."""
    acts = _make_acts(VARIABLE, step)
    return dataclasses.replace(
        tools,
        vault=cast("Vault", _Door("vault", tools.vault, acts)),
        donor=cast("Remote", _Door("donor", tools.donor, acts)),
        recipient=cast("Remote", _Door("recipient", tools.recipient, acts)),
    )


def _make_acts(variable: str, step: str) -> _Acts:
    every, _, path = os.environ[variable].partition(":")
    return _Acts(step, int(every), Path(path))


class _Door:
    """Stands before a door; every call goes through the acts."""

    def __init__(self, name: str, door: object, acts: _Acts) -> None:
        self._name = name
        self._door = door
        self._acts = acts

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._door, name)
        return functools.partial(self._call, name, found) if callable(found) else found

    def _call(self, name: str, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        script = _digest(more.get("stdin", ""))
        words = _words([*arguments, *(more[key] for key in more if key != "stdin")])
        act = self._acts.tell_apart(" ".join((self._name, name, *words, script)))
        timer = threading.Timer(LONG_SECONDS, self._acts.meet, [f"{act} (under way)"])
        timer.daemon = True
        timer.start()
        try:
            return function(*arguments, **more)
        finally:
            timer.cancel()
            self._acts.meet(act, changes=not _is_read(name, arguments))


class _Acts:
    """The acts of one step, and the file of those that were met before."""

    def __init__(self, step: str, every: int, path: Path) -> None:
        self._step = step
        self._every = every
        self._path = path
        self._guard = threading.Lock()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._met = [tuple(json.loads(line)) for line in lines]
        self._statements: Counter[str] = Counter()

    def tell_apart(self, act: str) -> str:
        """Return the act with its number where its words do not say what it does."""
        if HIDDEN not in act:
            return act
        with self._guard:
            self._statements[act] += 1
            return f"{act} {min(self._statements[act], MOST_STATEMENTS)}"

    def meet(self, act: str, *, changes: bool = True) -> None:
        """Die here if the act was not met before and its turn has come.

        One that changes nothing counts only if it is the first of its step.
        """
        with self._guard:
            is_first = all(step != self._step for step, _ in self._met)
            if (self._step, act) in self._met or not (changes or is_first):
                return
            self._met.append((self._step, act))
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([self._step, act]) + "\n")
            if len(self._met) % self._every == 0:
                _die()


def _is_read(name: str, arguments: tuple[Any, ...]) -> bool:
    if name == "run":
        return arguments[0][0] in _READING_COMMANDS
    return name.startswith(_READS)


def _words(value: object) -> list[str]:
    """Return what tells an act from others: no time limits, fences, contents, values of a record."""
    if isinstance(value, Mapping | list | tuple):
        return [word for item in value for word in _words(item)]
    if isinstance(value, Secret):
        return [HIDDEN]
    if isinstance(value, str):
        is_content = len(value) > _LONGEST_WORD or value.isdigit()
        return [] if is_content else [_NEW_EACH_TIME.sub("", value)]
    return [str(value)] if isinstance(value, int) else []


def _digest(stdin: object) -> str:
    """Return what tells a script from others; positions in it differ from process to process."""
    if isinstance(stdin, Secret):
        return HIDDEN
    text = stdin if isinstance(stdin, str) else ""
    return hashlib.sha256(_VARYING.sub("", text).encode()).hexdigest()[:8]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
