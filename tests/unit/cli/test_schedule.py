"""``xbvault schedule``: what is printed, and that what it names can be called."""

from __future__ import annotations

import os
import pwd
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from orchestrator.cli.main import app

if TYPE_CHECKING:
    from cli_lab import CommandLine

STORES = """
[repositories.store]
path = "/srv/xbvault"
[repositories.away]
path = "/srv/xbvault"
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of whoever runs the tests stands in what is printed."""
    for name in ("XDG_STATE_HOME", "VAULT_ADDR", "VAULT_CACERT", "VAULT_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stores(command_line: CommandLine) -> CommandLine:
    """A command line with two repositories."""
    with command_line.config.open("a") as stream:
        stream.write(STORES)
    return command_line


def find_command(words: list[str]) -> click.Command:
    """Return the command that the words of a scheduled call name, with its options checked."""
    assert Path(words[0]).is_absolute()
    rest = words[words.index("--config") + 2 :]
    command: click.Command = app
    while isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    command.make_parser(click.Context(command)).parse_args(list(rest))
    return command


@pytest.mark.parametrize(
    ("arguments", "ending", "name"),
    [
        (
            ("backup", "master", "--to", "store"),
            "backup master --to store --yes --json",
            "xbvault-backup-master-to-store",
        ),
        (
            ("backup", "master", "--to", "store", "--incremental", "--checksums", "sample"),
            "backup master --to store --incremental --checksums sample --yes --json",
            "xbvault-incremental-master-to-store",
        ),
        (
            ("drill", "latest:master", "replica", "--replicate", "600"),
            "drill latest:master replica --replicate 600 --yes --json",
            "xbvault-drill-master-on-replica",
        ),
        (("expire",), "backups expire --yes --json", "xbvault-expire"),
        (
            ("expire", "--repo", "away"),
            "backups expire --repo away --yes --json",
            "xbvault-expire-away",
        ),
    ],
)
def test_what_is_scheduled_is_a_command_that_asks_nobody(
    stores: CommandLine, arguments: tuple[str, ...], ending: str, name: str
) -> None:
    """Its words are ours, its paths absolute, and both forms say the same."""
    document = stores.document("schedule", *arguments)
    assert list(document) == [
        *("name", "command", "user", "calendar", "units", "cron", "notes", "error"),
    ]
    assert document["name"] == name
    assert " ".join(document["command"]).endswith(f"--config {stores.config} {ending}")
    find_command(document["command"])
    assert document["calendar"] == "*-*-* 02:00:00"
    assert document["user"] == pwd.getpwuid(os.geteuid()).pw_name
    service, timer = document["units"]
    assert f"ExecStart={shlex.join(document['command'])}\n" in service["content"]
    assert timer["path"] == f"/etc/systemd/system/{name}.timer"
    assert f"{shlex.join(document['command'])} >/dev/null\n" in document["cron"]["content"]
    assert stores.backend.asked == []


def test_the_only_repository_is_named_in_what_is_scheduled(command_line: CommandLine) -> None:
    """A second one that is configured later does not break the schedule."""
    with command_line.config.open("a") as stream:
        stream.write('[repositories.store]\npath = "/srv/xbvault"\n')
    assert "--to store" in command_line.call("schedule", "backup", "master").stdout


def test_the_files_are_ready_to_paste(stores: CommandLine) -> None:
    """On stdout stand the files and what is left to do; on stderr what a person should know."""
    result = stores.call("schedule", "backup", "master", "--to", "store", "--weekly", "Sun 03:10")
    lines = result.stdout.splitlines()
    assert lines[0] == "# /etc/systemd/system/xbvault-backup-master-to-store.service"
    assert "OnCalendar=Sun *-*-* 03:10:00" in lines
    assert any(line.startswith("# Then: systemctl daemon-reload") for line in lines)
    assert lines[-1].startswith("10 3 * * 0 ")
    assert result.stderr.startswith("note: vault.token_file is not set")


@pytest.mark.parametrize(
    ("kind", "units", "cron"), [("systemd", 2, False), ("cron", 0, True), ("both", 2, True)]
)
def test_one_form_can_be_asked_for(
    stores: CommandLine, kind: str, units: int, *, cron: bool
) -> None:
    """Where cron cannot say it, systemd alone is asked for."""
    arguments = ("schedule", "expire", "--format", kind)
    document = stores.document(*arguments)
    assert (len(document["units"]), document["cron"] is not None) == (units, cron)
    odd = stores.call(*arguments, "--at", "Sun *-*-1..7 02:00")
    assert odd.exit_code == (2 if cron else 0)
    text = stores.call(*arguments).stdout
    assert ("OnCalendar=" in text, "/etc/cron.d/" in text) == (bool(units), cron)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("backup", "nobody", "--to", "store"), "unknown host 'nobody'"),
        (("backup", "master"), "2 repositories are configured"),
        (("backup", "master", "--to", "no"), "unknown repository 'no'"),
        (("expire", "--repo", "no"), "unknown repository 'no'"),
        (("expire", "--at", "noon"), "'noon' is no schedule"),
        (("expire", "--daily", "25:00"), "'25:00' is no time of the day"),
        (("expire", "--weekly", "02:00"), "'02:00' is no day of the week"),
        (("expire", "--user", "a b"), "'a b' is no account"),
        (("expire", "--at", "daily", "--daily", "02:00"), "one of --at, --daily and --weekly"),
    ],
)
def test_what_cannot_be_scheduled_exits_2(
    stores: CommandLine, arguments: tuple[str, ...], said: str
) -> None:
    """Now, and not at two in the night."""
    result = stores.call("schedule", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_what_stands_in_the_environment_alone_is_told_of(
    stores: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timer has none of it; the journal's place is taken along."""
    stores.config.write_text(
        stores.config.read_text().replace('address = "https://vault.example:8200"', "", 1)
    )
    for name in ("VAULT_ADDR", "VAULT_CACERT", "VAULT_NAMESPACE"):
        monkeypatch.setenv(name, "https://v.example")
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib/state")
    document: dict[str, Any] = stores.document("schedule", "expire")
    assert [note.split()[0] for note in document["notes"]] == [
        "VAULT_ADDR",
        "VAULT_CACERT",
        "VAULT_NAMESPACE",
        "vault.token_file",
    ]
    assert "Environment=XDG_STATE_HOME=/var/lib/state\n" in document["units"][0]["content"]
    assert 'XDG_STATE_HOME="/var/lib/state"\n' in document["cron"]["content"]
