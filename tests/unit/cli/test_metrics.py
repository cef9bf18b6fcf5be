"""``xbvault metrics``: what is printed and written, and how it ends, of plain samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cli_lab import CommandLine, FakeBackend

from orchestrator.errors import HostUnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.config import Config
    from orchestrator.metrics import Sample

OF_RUNS: list[Sample] = [("xbvault_backup_last_succeeded", ("db1", "store"), True)]
STORED: list[Sample] = [("xbvault_repository_read_succeeded", ("store",), 1)]


class Told(FakeBackend):
    """Samples that a test puts down, and files that are not there."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []

    def collect_metrics(
        self, config: Config
    ) -> tuple[Sequence[Sample], Sequence[Sample], Sequence[Exception]]:
        """Return them."""
        return OF_RUNS, STORED, self.errors

    def write_metrics(self, config: Config) -> Path | None:
        """Write nothing."""
        self.asked.append("write_metrics")
        return Path(config.metrics.textfile)

    def write_stored_metrics(self, config: Config, samples: Iterable[Sample]) -> Path | None:
        """Write nothing."""
        assert samples == STORED
        self.asked.append("write_stored_metrics")
        return Path("/x/xbvault-repositories.prom")


@pytest.fixture
def told(command_line: CommandLine) -> CommandLine:
    """Return a command line over these samples, with a file configured."""
    with command_line.config.open("a") as stream:
        stream.write('[metrics]\ntextfile = "/x/xbvault.prom"\n')
    return CommandLine(Told(), command_line.config)


@pytest.mark.parametrize("option", [(), ("--print",)])
def test_metrics_are_printed_as_prometheus_reads_them(
    told: CommandLine, option: tuple[str, ...]
) -> None:
    """Nothing is written."""
    lines = told.call("metrics", *option).stdout.splitlines()
    assert 'xbvault_backup_last_succeeded{host="db1",repository="store"} 1.0' in lines
    assert 'xbvault_repository_read_succeeded{repository="store"} 1.0' in lines
    assert told.backend.asked == []


def test_metrics_are_written_to_both_files(told: CommandLine) -> None:
    """Their names are printed."""
    files = ["/x/xbvault.prom", "/x/xbvault-repositories.prom"]
    assert told.call("metrics", "--write").stdout.splitlines() == files
    assert told.backend.asked == ["write_metrics", "write_stored_metrics"]
    document = told.document("metrics", "--write")
    assert list(document) == ["status", "files", "samples", "error"]
    assert (document["status"], document["files"]) == ("written", files)
    assert document["samples"][0] == {
        "name": "xbvault_backup_last_succeeded",
        "labels": {"host": "db1", "repository": "store"},
        "value": 1.0,
    }


def test_a_repository_that_cannot_be_read_ends_the_command_after_the_rest(
    told: CommandLine,
) -> None:
    """With its error's exit status; a fault of ours comes before it."""
    assert isinstance(told.backend, Told)
    told.backend.errors = [HostUnreachableError("no answer", host="store")]
    result = told.call("metrics", "--write", "--json")
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert (document["status"], len(document["files"])) == ("failed", 2)
    assert document["error"]["message"] == "no answer"
    assert "xbvault_backup_last_succeeded" in told.call("metrics").stdout
    told.backend.errors.append(KeyError("odd"))
    assert told.call("metrics").exit_code == 1


def test_writing_needs_a_file_and_no_second_word(command_line: CommandLine) -> None:
    """Both are wrong arguments."""
    result = command_line.call("metrics", "--write")
    assert result.exit_code == 2
    assert "no file for metrics is configured" in result.stderr
    assert command_line.call("metrics", "--write", "--print").exit_code == 2
