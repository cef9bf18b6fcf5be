"""What no linter checks about the sources: doors, secrets, event names, excuses."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator import log

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "orchestrator"
SOURCES = {path: path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {path: ast.parse(text) for path, text in SOURCES.items()}
WRITTEN = [
    path
    for folder in ("orchestrator", "playbooks", "fixtures", "tests")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".sh", ".yaml") and path != Path(__file__)
]
REVEALING = {"remote", "vault", "bundle", "keys", "models"}
DOORS = {
    "hvac": {"vault"},
    "paramiko": {"remote"},
    "fabric": {"remote"},
    "dbos": {"durable"},
    "sqlalchemy": set(),
    "pickle": set(),
    "pyrage": {"keys"},
    "apprise": {"notices"},
    "prometheus_client": {"metrics"},
}
"""Libraries, and the rooms that may import them."""
LEVELS = ("debug", "info", "warning", "error", "critical", "exception")


def room(path: Path) -> str:
    """Return the room of a source file: a module or a package directly below ours."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def uses(name: str) -> set[str]:
    """Return the rooms whose code uses an attribute or name, or spells it for getattr."""
    found = set()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            spelled = isinstance(node, ast.Constant) and node.value == name
            if spelled or name in (getattr(node, "attr", ""), getattr(node, "id", "")):
                found.add(room(path))
    return found


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the top names of all that a module imports, in functions as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def test_sources_are_there() -> None:
    """What is checked here is the whole package."""
    assert len(SOURCES) > 40
    assert {"remote", "vault", "durable", "steps", "cli"} <= {room(path) for path in SOURCES}


def test_secrets_are_revealed_at_the_doors_only() -> None:
    """Only the rooms that send, store, seal, make or measure a secret see its value."""
    assert uses("reveal") <= REVEALING
    assert {"remote", "vault", "bundle", "keys"} <= uses("reveal")


def test_known_values_are_for_redaction_only() -> None:
    """Only the log asks for the values that were met."""
    assert uses("known_secret_values") == {"log"}
    assert uses("_KNOWN_VALUES") == {"models"}


@pytest.mark.parametrize("library", DOORS)
def test_libraries_have_one_door(library: str) -> None:
    """What reaches outside is imported by its door alone; pickle by nobody."""
    found = {room(path) for path, tree in TREES.items() if library in imports(tree)}
    assert found == DOORS[library]


def test_processes_are_started_without_a_shell() -> None:
    """Commands are argument lists: no shell=True, no os.system, no os.popen."""
    offences = [
        (path.name, node.lineno)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.keyword) and node.arg == "shell" and not is_false(node.value))
        or (isinstance(node, ast.Attribute) and node.attr in ("system", "popen", "getoutput"))
    ]
    assert offences == []


def is_false(node: ast.expr) -> bool:
    """Return whether an expression is the word False."""
    return isinstance(node, ast.Constant) and node.value is False


def test_host_keys_are_never_accepted_unseen() -> None:
    """No policy that adds or only warns, and none of OpenSSH's ways of switching the check off."""
    loose = re.compile(
        r"AutoAddPolicy|WarningPolicy|accept-new|StrictHostKeyChecking[= \"':]+(?:no|off|ask)\b"
    )
    texts = {**SOURCES, **{path: path.read_text("utf-8") for path in PACKAGE.rglob("*.sh")}}
    assert [path.name for path, text in texts.items() if loose.search(text)] == []


def test_certificates_are_always_checked() -> None:
    """Nothing switches the verification of a server's certificate off."""
    offences = [
        (path.name, node.lineno)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.keyword) and node.arg == "verify" and is_false(node.value))
        or (isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith("CERT_NONE"))
    ]
    assert offences == []


def events() -> dict[str, set[str]]:
    """Return the event names in the sources, each with the rooms that use it."""
    found: dict[str, set[str]] = {}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Call)
                and ast.unparse(node.func.value.func).endswith("log.get")
            ):
                for name in names_in(node.args[0]):
                    found.setdefault(name, set()).add(room(path))
    return found


def names_in(node: ast.expr) -> Iterator[str]:
    """Yield the names that an event's expression can give."""
    if isinstance(node, ast.IfExp):
        yield from names_in(node.body)
        yield from names_in(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        yield f"not a fixed name: {ast.unparse(node)}"


def test_events_have_fixed_names() -> None:
    """Every event that is logged is in the list, and every one in the list is logged."""
    assert set(events()) == set(log.EVENTS)
    assert len(log.EVENTS) == len(set(log.EVENTS))


def test_loggers_come_from_our_log_only() -> None:
    """Nobody makes a logger beside `log.get`, so that nothing misses the redaction."""
    asking = re.compile(r"structlog\.get_logger|logging\.getLogger\(|\bprint\(")
    found = {
        (room(path), match.group())
        for path, text in SOURCES.items()
        for match in asking.finditer(text)
    }
    quieting = {(name, "logging.getLogger(") for name in ("log", "durable", "remote")}
    assert found - quieting == {("log", "structlog.get_logger")}


def test_nothing_is_left_to_be_done() -> None:
    """No reminder stands in code, tests or the laboratory."""
    reminder = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
    offences = [
        str(path.relative_to(ROOT)) for path in WRITTEN if reminder.search(path.read_text("utf-8"))
    ]
    assert offences == []


def test_every_exception_from_a_rule_says_why() -> None:
    """A `noqa`, an ignored type, a line without coverage: the reason is beside it or above."""
    excuse = re.compile(r"#\s*(?:noqa|type: ignore|pragma: no cover)[^\n]*")
    reasoned = re.compile(
        r"# (?:noqa: [A-Z0-9]+(?:, [A-Z0-9]+)* --? \w|type: ignore\[[a-z-]+(?:, [a-z-]+)*\]  # \w"
        r"|pragma: no cover --? \w)"
    )
    offences = []
    for path in WRITTEN:
        has_reason = False  # the line above is a comment, or has one itself
        for line in path.read_text("utf-8").splitlines() if path.suffix == ".py" else ():
            match = excuse.search(line)
            if match:
                has_reason = has_reason or reasoned.match(match.group()) is not None
                if not has_reason:
                    offences.append(f"{path.relative_to(ROOT)}: {line.strip()}")
            else:
                has_reason = line.strip().startswith("# ")
    assert offences == []
