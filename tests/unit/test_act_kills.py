"""The acts at which a test kills the orchestrator inside a step."""

from __future__ import annotations

import functools
import json
import time
from typing import TYPE_CHECKING, Any

import act_kills
import pytest

from orchestrator import catalogue, key_uses
from orchestrator.models import Secret
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Killed(BaseException):
    """Stands for SIGKILL."""


class Door:
    """A host and a Vault on which every act succeeds."""

    address = "https://vault"

    def __init__(self, acted: list[str]) -> None:
        self._acted = acted

    def run(self, argv: list[str], *, stdin: object = "", timeout_seconds: float = 60.0) -> str:
        """Sleep, if that is the command."""
        self._acted.append(argv[0])
        if argv[0] == "sleep":
            time.sleep(float(argv[1]))
        return "ended"

    def read_secret(self, path: str) -> str:
        """Change nothing."""
        return path

    def write_file(self, path: str, content: str) -> None:
        """Take any content."""
        self._acted.append(path)


class Process:
    """What one process after the other does in a step, and at which act each is killed."""

    def __init__(self, record: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
        self.record = record
        self.acted: list[str] = []
        monkeypatch.setenv(act_kills.VARIABLE, f"{every}:{record}")
        monkeypatch.setattr(act_kills, "_die", self._die)

    def do(self, step: str, acts: Callable[[Any], object]) -> bool:
        """Do a step in a new process; tell whether it came to its end."""
        door: Any = Door(self.acted)
        tools = Tools(config=door, vault=door, donor=door, recipient=door)
        try:
            acts(act_kills.watch_doors(step, tools))
        except Killed:
            return False
        return True

    def names(self) -> list[str]:
        """Return the acts that were met."""
        return [json.loads(line)[1] for line in self.record.read_text().splitlines()]

    def _die(self) -> None:
        raise Killed


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Process:
    """Processes of which every one is killed at the first act that is new."""
    return Process(tmp_path / "acts", monkeypatch, every=1)


def test_each_process_comes_one_act_further(process: Process) -> None:
    """An act is done before it kills; what changes nothing does not, but where a step begins."""

    def step(tools: Any) -> None:
        tools.vault.read_secret("a")
        tools.donor.run(["mkdir", "b"])
        tools.recipient.run(["test", "-e", "c"])
        tools.recipient.run(["mkdir", "b"])
        assert tools.vault.address == "https://vault"

    assert [process.do("one", step) for _ in range(4)] == [False, False, False, True]
    assert process.acted[:4] == ["mkdir", "mkdir", "test", "mkdir"]
    assert [name.split()[:2] for name in process.names()] == [
        ["vault", "read_secret"],
        ["donor", "run"],
        ["recipient", "run"],
    ]
    assert process.do("two", step) is False


def test_what_varies_makes_no_new_act(process: Process) -> None:
    """Time limits, fences, positions, contents and secrets differ in each process."""

    def step(number: int, tools: Any) -> None:
        tools.donor.run(
            ["sh", "verb", str(number)], stdin=f"at {number}", timeout_seconds=1 / number
        )
        tools.donor.write_file("/file", str(number) * 300)
        tools.donor.run(["mariadb"], stdin=Secret(f"SELECT {number}"))

    ends = [process.do("one", functools.partial(step, number)) for number in (1, 2, 3, 4)]
    assert ends == [False, False, False, True]


def test_statements_are_told_apart_by_their_number(process: Process) -> None:
    """Of statements, which are secrets, the first four of a step kill: a poll goes on for ever."""

    def poll(tools: Any) -> None:
        for _ in range(50):
            tools.donor.run(["mariadb"], stdin=Secret("SELECT a_long_statement"))

    assert [process.do("one", poll) for _ in range(5)] == [False] * 4 + [True]
    assert "a_long_statement" not in process.record.read_text()


def test_a_sample_kills_at_each_nth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acts that do not kill are met all the same."""
    process = Process(tmp_path / "acts", monkeypatch, every=3)

    def step(tools: Any) -> None:
        for name in "abcdefgh":
            tools.donor.run(["mkdir", name])

    assert [process.do("one", step) for _ in range(3)] == [False, False, True]
    assert len(process.names()) == 8


def test_a_long_act_is_cut_while_it_goes_on(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It kills twice: under way, in whatever thread it runs, and at its end."""
    killed_at: list[float] = []
    monkeypatch.setattr(act_kills, "_die", lambda: killed_at.append(time.monotonic()))
    began = time.monotonic()
    assert process.do("one", lambda tools: tools.donor.run(["sleep", "0.6"]))
    under_way, ended = (at - began for at in killed_at)
    assert act_kills.LONG_SECONDS <= under_way < 0.6 <= ended
    assert process.names()[0] == f"{process.names()[1]} (under way)"


def test_commands_that_are_no_run_open_watched_doors(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each door that they open counts into one record, and the names of expiries are all one."""
    monkeypatch.setenv(act_kills.COMMAND_VARIABLE, f"1:{process.record}")
    door = Door(process.acted)

    def do(name: str) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(catalogue, "open_repository", lambda _config, _name: door)
            patch.setattr(key_uses, "open_vault", lambda _config: door)
            act_kills.install_for_commands()
            config: Any = None
            try:
                remote: Any = catalogue.open_repository(config, "store")
                remote.run(["take", name])
                vault: Any = key_uses.open_vault(config)
                vault.write_file("/file", "text")
            except Killed:
                return False
        return True

    names = ["expire-0000000a", "expire-0000000b", "expire-0000000c"]
    assert [do(name) for name in names] == [False, False, True]
    assert [name.split()[0] for name in process.names()] == ["store", "vault"]
