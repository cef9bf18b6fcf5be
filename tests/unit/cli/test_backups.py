"""``xbvault backups``: what is printed and how it ends, of sets made of plain values."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
import stored_sets
from cli_lab import CommandLine, FakeBackend

from orchestrator import catalogue
from orchestrator.catalogue import KeyState, StoredSet, Verdict
from orchestrator.cli.keys import build_listed_keys
from orchestrator.errors import (
    HostUnreachableError,
    OrchestratorError,
    SecretError,
    VerificationError,
)
from orchestrator.key_uses import LastUse
from orchestrator.models import Check
from orchestrator.repository.sets import Folder, SetReport, State, judge_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from orchestrator.config import Config

WHOLE = StoredSet(
    repository="store",
    report=judge_folder(stored_sets.make_folder(stored_sets.make_manifest())),
    keys=KeyState(state="active"),
)
FOREIGN = StoredSet(
    repository="store",
    report=judge_folder(Folder(name="\x1b[31mlost\nfound")),
    keys=KeyState(state="unknown"),
)
CUT = StoredSet(
    repository="store2",
    report=SetReport(name=stored_sets.OTHER_ID, state=State.NO_MANIFEST),
    keys=KeyState(state="unknown"),
)
PROVED = Check(name="stored-manifest", ok=True, evidence="its MAC fits", host="store")
KEYS = {
    *("backup_id", "repository", "host", "state", "keys", "kind", "base_backup_id", "flavor"),
    *(
        "server_version",
        "began_at",
        "ended_at",
        "stored_bytes",
        "stream_bytes",
        "parts",
        "problems",
    ),
}


class Catalogue(FakeBackend):
    """A catalogue of these sets, with the verdicts that a test puts down."""

    def __init__(self) -> None:
        super().__init__()
        self.sets: tuple[StoredSet, ...] = (WHOLE, CUT, FOREIGN)
        self.errors: dict[str, OrchestratorError] = {}

    def list_backups(
        self, config: Config, repository: str, host: str, failed: list[OrchestratorError]
    ) -> Sequence[StoredSet]:
        """Return all, but for those of repositories that cannot be read."""
        self.asked.append(f"list {repository} {host}".strip())
        failed += self.errors.values()
        return [each for each in self.sets if each.repository not in self.errors]

    def list_verifiable_backups(self, config: Config, repository: str) -> Sequence[StoredSet]:
        """Return those that are sets."""
        return [each for each in self.sets if each.report.state not in catalogue.NO_SETS]

    def find_backups(self, config: Config, wanted: str, repository: str) -> Sequence[StoredSet]:
        """Return those of that name."""
        self.asked.append(f"find {wanted} {repository}".strip())
        return [each for each in self.sets if each.report.name == wanted]

    def find_chains(self, config: Config, wanted: str, repository: str) -> Sequence[StoredSet]:
        """Return the same: these are full sets."""
        return self.find_backups(config, wanted, repository)

    def verify_backups(
        self,
        config: Config,
        wanted: Sequence[StoredSet],
        say: Callable[[catalogue.Progress], None],
    ) -> Iterator[Verdict]:
        """Give the verdict that was put down for the repository; else a good one."""
        for each in wanted:
            error = self.errors.get(each.repository)
            if isinstance(error, HostUnreachableError):
                raise error
            yield Verdict(stored=each, checks=(PROVED,), seconds=1.5, error=error)


@pytest.fixture
def line(tmp_path: Path, command_line: CommandLine) -> CommandLine:
    """Return the command line with the catalogue under it."""
    return dataclasses.replace(command_line, backend=Catalogue())


def catalogue_of(line: CommandLine) -> Catalogue:
    """Return what is under the command line."""
    assert isinstance(line.backend, Catalogue)
    return line.backend


def test_the_list_has_every_key_of_every_folder(line: CommandLine) -> None:
    """What only a manifest knows is null without one."""
    listed = line.document("backups", "list")
    assert [set(item) for item in listed] == [KEYS] * 3
    whole, cut, foreign = listed
    assert (whole["state"], whole["parts"], whole["kind"]) == ("complete", 3, "full")
    assert (cut["state"], cut["parts"], cut["kind"], cut["host"]) == (
        "no-manifest",
        None,
        None,
        "db1",
    )
    assert (foreign["state"], foreign["host"]) == ("foreign", None)
    assert line.backend.asked == ["list"]


def test_a_hostile_name_does_nothing_to_a_terminal(line: CommandLine) -> None:
    """It stands on one line, with its control characters written out."""
    text = line.call("backups", "list", "--repo", "store", "--host", "db1").stdout
    assert "\x1b" not in text
    assert len(text.splitlines()) == 4
    assert line.backend.asked == ["list store db1"]


def test_an_empty_list_says_so(line: CommandLine) -> None:
    """In words, and as an empty list."""
    catalogue_of(line).sets = ()
    assert line.call("backups", "list").stdout == "no backups\n"
    assert line.document("backups", "list") == []


def test_a_repository_that_cannot_be_read_hides_no_other(line: CommandLine) -> None:
    """What was found is told, and then what was not."""
    catalogue_of(line).errors["store2"] = HostUnreachableError("no answer", host="store2")
    result = line.call("backups", "list")
    assert (result.exit_code, len(result.stdout.splitlines())) == (4, 3)
    assert "no answer" in result.stderr
    result = line.call("backups", "list", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, len(document["sets"])) == (4, 2)
    assert document["error"]["message"] == "no answer"


def test_show_tells_a_reader_and_a_program(line: CommandLine) -> None:
    """The document has the whole manifest; the text its coordinates, sizes and checks."""
    document = line.document("backups", "show", stored_sets.BACKUP_ID)
    assert set(document) == KEYS | {"manifest"}
    assert document["manifest"]["deployment"] == stored_sets.DEPLOYMENT
    text = line.call("backups", "show", stored_sets.BACKUP_ID).stdout
    for words in ("state: complete", "bin.000002:5878450, GTID 0-1-2", "tables summed up: 1", "✓"):
        assert words in text
    assert line.document("backups", "show", stored_sets.OTHER_ID)["manifest"] is None


def test_show_of_a_set_in_two_places_wants_one_named(line: CommandLine) -> None:
    """It says in which."""
    catalogue_of(line).sets = (WHOLE, dataclasses.replace(WHOLE, repository="store2"))
    result = line.call("backups", "show", stored_sets.BACKUP_ID)
    assert result.exit_code == 2
    assert "store, store2" in result.stderr
    assert "--repo" in result.stderr


def test_a_verified_set(line: CommandLine) -> None:
    """Exit 0, with every key."""
    result = line.call("backups", "verify", stored_sets.BACKUP_ID)
    assert result.exit_code == 0
    assert f"{stored_sets.BACKUP_ID} in store: verified, in 1.5 s" in result.stdout
    document = line.document("backups", "verify", stored_sets.BACKUP_ID)
    assert set(document) == {"status", "sets", "error"}
    (found,) = document["sets"]
    assert set(found) == {"backup_id", "repository", "ok", "checks", "seconds", "error"}
    assert (document["status"], found["ok"], found["error"]) == ("verified", True, None)


BAD = VerificationError("part-000002.age of x is not what the backup stored", hint="do not use it")
GONE = SecretError("the keys of x were destroyed on 2026-11-22 by ops", hint="take another one")


@pytest.mark.parametrize(
    ("errors", "status", "words"),
    [
        ({"store": BAD}, 6, "part-000002.age of x"),
        ({"store": GONE}, 5, "destroyed on 2026-11-22 by ops"),
        ({"store": GONE, "store2": BAD}, 6, "2 of 2 backup sets are not verified"),
        ({"store2": GONE}, 5, "destroyed on"),
    ],
)
def test_what_is_not_verified_ends_with_the_status_of_its_cause(
    line: CommandLine, errors: dict[str, OrchestratorError], status: int, words: str
) -> None:
    """A set that is not whole counts for more than one without its keys; all are told."""
    catalogue_of(line).errors = errors
    catalogue_of(line).sets = (WHOLE, dataclasses.replace(WHOLE, repository="store2"))
    result = line.call("backups", "verify", "--all", "--json")
    document: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == status
    assert (document["status"], len(document["sets"])) == ("failed", 2)
    assert words in document["error"]["message"]
    assert {each["repository"] for each in document["sets"] if not each["ok"]} == set(errors)
    text = line.call("backups", "verify", "--all").stdout
    assert text.count("not verified") == len(errors)


def test_a_host_that_is_gone_ends_it_with_what_was_found_before(line: CommandLine) -> None:
    """The sets that were looked at stand in the document."""
    catalogue_of(line).errors = {"store2": HostUnreachableError("nothing answers", host="store2")}
    catalogue_of(line).sets = (WHOLE, dataclasses.replace(WHOLE, repository="store2"))
    result = line.call("backups", "verify", "--all", "--json")
    assert result.exit_code == 4
    assert [each["ok"] for each in json.loads(result.stdout)["sets"]] == [True]


@pytest.mark.parametrize("arguments", [(), ("--all", stored_sets.BACKUP_ID)], ids=["none", "both"])
def test_verify_wants_one_or_all(line: CommandLine, arguments: tuple[str, ...]) -> None:
    """Not neither, and not both."""
    result = line.call("backups", "verify", *arguments)
    assert result.exit_code == 2
    assert "name a backup, or give --all" in result.stderr
    assert line.backend.asked == []


def test_all_of_nothing_is_no_fault(line: CommandLine) -> None:
    """Folders that are no sets are not verified."""
    catalogue_of(line).sets = (CUT, FOREIGN)
    assert line.call("backups", "verify", "--all").stdout == "no backups\n"


@pytest.mark.parametrize(
    ("days", "is_old"), [(0, False), (40, True), (41, False)], ids=["none", "old", "younger"]
)
def test_keys_say_how_old_they_are_and_who_used_them(days: int, *, is_old: bool) -> None:
    """In days, rounded down; and only keys that can still be read are too old."""
    now = dt.datetime(2026, 12, 31, 12, tzinfo=dt.UTC)
    stored = dataclasses.replace(
        WHOLE, keys=KeyState(state="active", created_at="2026-11-21T11:00:00+00:00")
    )
    use = LastUse(at="2026-12-01T00:00:00+00:00", by="token")
    item = build_listed_keys(stored, use, days, now)
    assert (item["age_days"], item["is_old"]) == (40, is_old)
    assert (item["last_used_at"], item["last_used_by"]) == (use.at, "token")
    gone = dataclasses.replace(stored, keys=dataclasses.replace(stored.keys, state="destroyed"))
    item = build_listed_keys(gone, None, days, now)
    assert (item["is_old"], item["last_used_at"]) == (False, None)
