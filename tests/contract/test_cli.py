"""What every command of the command line has in common."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from orchestrator.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
EXPECTED = {
    "backup",
    "binlogs archive",
    "binlogs list",
    "backups copy",
    "backups expire",
    "backups list",
    "backups show",
    "backups verify",
    "clone",
    "config check",
    "config example",
    "drill",
    "explain",
    "hosts check",
    "hosts receiver",
    "keys audit",
    "keys list",
    "keys revoke",
    "metrics",
    "notices test",
    "playbook check",
    "playbook list",
    "playbook show",
    "restore",
    "runs cancel",
    "runs forget",
    "runs list",
    "runs resume",
    "runs show",
    "runs undo",
    "runs watch",
    "schedule backup",
    "schedule binlogs",
    "schedule drill",
    "schedule expire",
    "vault check",
    "vault init",
}
CHANGES = {
    "drill",
    "backup",
    "backups copy",
    "binlogs archive",
    "backups expire",
    "clone",
    "keys revoke",
    "restore",
    "runs cancel",
    "runs undo",
    "runs forget",
    "vault init",
}
"""Commands that change something which a person would want to be asked about."""
NO_DOCUMENT = {"config example", "hosts receiver"}
"""They print TOML and a script, which are documents already."""
AVOIDED = re.compile(
    r"\b(master|slave|secondary|primary|snapshot|dump|box|task|workflow)\b", re.IGNORECASE
)
"""Words that the house's list of words replaces."""


def walk(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command and group under one, with its words."""
    if path:
        yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from walk(child, f"{path} {name}".strip())


COMMANDS = {path: c for path, c in walk(app) if not isinstance(c, click.Group)}


def test_the_commands_are_those_that_scripts_rely_on() -> None:
    """No command is missing, none is there that nobody decided on."""
    assert set(COMMANDS) == EXPECTED


@pytest.mark.parametrize(("path", "command"), list(walk(app)))
def test_every_command_and_option_has_help(path: str, command: click.Command) -> None:
    """One line that ends with a full stop, and a text for every option."""
    assert command.help
    assert command.help.strip().partition("\n")[0].endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, (path, parameter.name)
    result = CliRunner().invoke(app, [*path.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


@pytest.mark.parametrize(("path", "command"), list(COMMANDS.items()))
def test_every_command_has_json(path: str, command: click.Command) -> None:
    """What lists or reports does so as a document as well."""
    has_json = any("--json" in parameter.opts for parameter in command.params)
    assert has_json == (path not in NO_DOCUMENT)


@pytest.mark.parametrize(("path", "command"), list(COMMANDS.items()))
def test_what_changes_something_can_be_told_not_to_ask(path: str, command: click.Command) -> None:
    """--yes stands on exactly those commands that ask."""
    has_yes = any("--yes" in parameter.opts for parameter in command.params)
    assert has_yes == (path in CHANGES)


@pytest.mark.parametrize(("path", "command"), list(walk(app)))
def test_help_speaks_the_words_of_the_house(path: str, command: click.Command) -> None:
    """One word for one thing, in help texts and in the names of options."""
    texts = [command.help or "", path]
    for parameter in command.params:
        texts += [*parameter.opts, getattr(parameter, "help", None) or ""]
    assert [word for text in texts for word in AVOIDED.findall(text)] == []


def test_no_option_takes_a_secret() -> None:
    """A secret never stands in a command line; an option may name a file that holds one."""
    options = [option for c in COMMANDS.values() for p in c.params for option in p.opts]
    suspicious = re.compile(r"(token|password|secret|key)$")
    assert [o for o in options if suspicious.search(o)] == ["--issue-token"]


def test_the_group_documents_every_exit_status() -> None:
    """The statuses of the error classes stand in the help of the group."""
    from orchestrator import errors  # noqa: PLC0415 - the one test that needs them

    text = app.help or ""
    for status in {cls.exit_status for cls in errors.classes().values()} | {0}:
        assert re.search(rf"\b{status} \w", text), status


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, from outside the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment,
    )


HEAVY = (
    "dbos",
    "fabric",
    "apprise",
    "hvac",
    "jinja2",
    "paramiko",
    "prometheus_client",
    "pydantic",
    "rich",
    "sqlalchemy",
    "structlog",
    "yaml",
)


@pytest.mark.parametrize("arguments", ["['--version']", "['--help']", "['clone', '--help']"])
def test_start_up_imports_nothing_heavy(arguments: str) -> None:
    """Version and help need click alone, which is what keeps them fast."""
    code = f"""
import sys
from orchestrator.cli.main import app
app({arguments}, standalone_mode=False)
print(*[name for name in {HEAVY!r} if name in sys.modules])
"""
    assert run_python(code).stdout.splitlines()[-1] == ""


def test_listing_runs_does_not_load_what_reaches_out(tmp_path: Path) -> None:
    """`runs list` needs the journal, but neither SSH nor Vault."""
    config = tmp_path / "xbvault.toml"
    config.write_text(f'journal.directory = "{tmp_path}"\nhosts.a.vault_mount = "keys/a"\n')
    code = f"""
import sys
from orchestrator.cli.main import app
app(["--config", {str(config)!r}, "runs", "list"], standalone_mode=False)
print(*[name for name in ("fabric", "paramiko", "hvac") if name in sys.modules])
"""
    assert run_python(code).stdout.splitlines() == ["no runs", ""]
