"""Plans of every version, from recorded facts: the exact commands, as a person has read them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import compatibility
import golden
import pytest
import recorded
from click.testing import CliRunner

from orchestrator import models
from orchestrator.cli.call import Call
from orchestrator.cli.main import app
from orchestrator.errors import PreconditionError
from orchestrator.flavors import mysql_versions
from orchestrator.flavors.versions import read_numbers

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

TOOLS = sorted(
    {tool for row in compatibility.SERVERS for tool in (row.tool, row.refused) if tool}
    | {"2.4.10", "2.4.29", "8.0.35-34"}
)
PAIRS = [(row.first, tool) for row in compatibility.SERVERS for tool in TOOLS]
REFUSED = [pair for pair in PAIRS if mysql_versions.judge_tool(*pair)]
BARE = "mysql-9.7.4-component_keyring_file"


@pytest.fixture(autouse=True)
def _no_foreign_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the secrets of other tests: words of a plan that read the same would be masked."""
    known = {token.reveal() for token in recorded.TOKENS.values()}
    monkeypatch.setattr(models, "_KNOWN_VALUES", known)


def call_plan(backend: recorded.RecordedBackend, *options: str) -> Result:
    """Call ``xbvault clone --plan`` over recorded hosts."""
    words = ["--config", str(backend.path), "clone", recorded.DONOR, recorded.RECIPIENT, "--plan"]
    return CliRunner().invoke(
        app, [*words, *options], obj=Call(backend=backend, is_interactive=lambda: False)
    )


def format_plan(document: dict[str, Any]) -> str:
    """Return everything that the document of a plan tells, for a reader."""
    plan = {name: value for name, value in document["plan"].items() if name != "commands"}
    sections = {
        "plan": "\n".join(f"{name} = {json.dumps(value)}" for name, value in plan.items()),
        "vault paths": "\n".join(f"{k} = {v}" for k, v in document["vault_paths"].items()),
    }
    for step in document["steps"]:
        if step["commands"]:
            sections[step["name"]] = "\n".join(f"$ {command}" for command in step["commands"])
    sections["checks"] = "\n".join(
        f"{'ok ' if check['ok'] else 'BAD'} {check['host'] or '-'} {check['name']}: "
        f"{check['evidence']}" + (f" (hint: {check['hint']})" if check["hint"] else "")
        for check in document["checks"]
    )
    return golden.format_sections(sections)


@pytest.mark.parametrize("cell", recorded.CELLS)
def test_the_plan_of_a_version_is_what_was_read_and_approved(cell: str) -> None:
    """Commands, option files, SQL, places and checks; nothing stands in the way of the clone."""
    result = call_plan(recorded.RecordedBackend(cell), "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 0, document["error"]
    made = format_plan(document)
    assert made == golden.read(f"plan-{cell}", made=made, directory=golden.PLANS)
    shown = {step["name"] for step in document["steps"] if step["commands"]}
    assert shown == set(document["plan"]["commands"])


@pytest.mark.parametrize("cell", ["mariadb-10.11.19-hashicorp_key_management", BARE])
def test_a_gentle_plan_is_what_was_read_and_approved(cell: str) -> None:
    """The stream's two commands and its findings, with a throttle, a priority and a compression."""
    options = ("--json", "--throttle", "50M", "--nice", "--compress", "zstd:3")
    result = call_plan(recorded.RecordedBackend(cell), *options)
    document = json.loads(result.stdout)
    assert result.exit_code == 0, document["error"]
    names = {"throttle", "priority", "compression"}
    document["checks"] = [check for check in document["checks"] if check["name"] in names]
    document["steps"] = [step for step in document["steps"] if step["name"] == "stream-backup"]
    kept = ("throttle", "nice", "compress", "compress_reason", "ciphers", "expected_stream_bytes")
    document["plan"] = {name: document["plan"][name] for name in kept}
    document["vault_paths"] = {}
    made = format_plan(document)
    assert made == golden.read(f"gentle-{cell}", made=made, directory=golden.PLANS)


def test_every_approved_plan_is_of_a_cell() -> None:
    """None is left of a cell that was taken away."""
    names = {path.stem for path in golden.PLANS.glob("plan-*.txt")}
    assert names == {f"plan-{cell}" for cell in recorded.CELLS}


@pytest.mark.parametrize("row", compatibility.SERVERS, ids=lambda row: row.shown)
def test_every_row_of_the_table_has_a_plan(row: compatibility.Row) -> None:
    """Of a server between its first and its last."""
    first, last = read_numbers(row.first), read_numbers(row.last)
    found = [read_numbers(cell.split("-")[1]) for cell in recorded.CELLS]
    bounds = (first[:2], first), (last[:2], last)
    if row.shown.startswith("9.0"):  # a row of several series, of which the table names one server
        bounds = ((9, 0), first), ((9, 6), (9, 6, 99))
    assert any(bounds[0][1] <= numbers <= bounds[1][1] for numbers in found), row.shown


@pytest.mark.parametrize("cell", recorded.CELLS)
def test_a_plan_for_a_reader_holds_the_same_commands_and_no_secret(cell: str) -> None:
    """Each line of a command stands in the text, behind its step; keys and tokens are masked."""
    document = json.loads(call_plan(recorded.RecordedBackend(cell), "--json").stdout)
    text = call_plan(recorded.RecordedBackend(cell)).stdout
    lines = {line.strip().removeprefix("$ ") for line in text.splitlines()}
    commands = [c for step in document["steps"] for c in step["commands"]]
    assert [line for c in commands for line in c.splitlines() if line.strip() not in lines] == []
    whole = f"{text}{json.dumps(document)}"
    assert [secret for secret in models.known_secret_values() if secret in whole] == []
    if not cell.startswith("mariadb"):
        assert whole.count('transition-key=\\"***\\"') > 0


@pytest.mark.parametrize(("server", "tool"), REFUSED)
def test_a_pair_that_does_not_fit_is_refused_with_the_reason(server: str, tool: str) -> None:
    """Exit status 3 before anything is touched, and both hosts' check says which tool to take."""
    versions = recorded.Versions(
        server=f"mysqld  Ver {server} for Linux on x86_64 (MySQL Community Server - GPL)",
        tool=f"xtrabackup version {tool} based on MySQL server {server} Linux (x86_64)",
    )
    result = call_plan(recorded.RecordedBackend(BARE, versions), "--json")
    document = json.loads(result.stdout)
    found = [check for check in document["checks"] if check["name"] == "tool-version"]
    reason = mysql_versions.judge_tool(server, tool)
    assert result.exit_code == PreconditionError.exit_status == 3
    assert [(check["host"], check["ok"], check["hint"]) for check in found] == [
        (recorded.DONOR, False, reason),
        (recorded.RECIPIENT, False, reason),
    ]
    assert all(server in check["evidence"] and tool in check["evidence"] for check in found)
    assert reason in str(document["error"])


def test_the_pairs_that_do_not_fit_are_many_and_those_that_fit_are_tried_as_well() -> None:
    """Each row has a tool that fits and one that does not."""
    fitting = {pair for pair in PAIRS if pair not in REFUSED}
    for row in compatibility.SERVERS:
        assert (row.first, row.tool) in fitting
        assert any(server == row.first for server, _ in REFUSED)


def test_a_recipient_without_a_kind_of_keyring_is_refused_with_words(tmp_path: Path) -> None:
    """A plan is refused, and not broken off, where the configuration says no kind of keyring."""
    backend = recorded.RecordedBackend("mysql-9.7.4-component_keyring_file")
    text = backend.path.read_text("utf-8")
    backend.path = tmp_path / "xbvault.toml"
    backend.path.write_text(re.sub(r"(?m)^(kind|data_file) = .*\n", "", text), encoding="utf-8")
    result = call_plan(backend, "--json")
    assert result.exit_code == 3, result.output
    bad = {check["name"] for check in json.loads(result.stdout)["checks"] if not check["ok"]}
    assert "recipient-keyring" in bad
