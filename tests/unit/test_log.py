"""Redaction by value, by name and by look; run files and listeners."""

from __future__ import annotations

import io
import json
import resource
import threading
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator import log
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VALUE = "correct-horse-battery-staple"


@pytest.fixture
def heard() -> Iterator[list[log.Event]]:
    """Every event that a listener gets."""
    log.configure()
    events: list[log.Event] = []
    end = log.subscribe(events.append)
    yield events
    end()


# By value.


@pytest.mark.parametrize(
    "text",
    [VALUE, f"login with {VALUE} failed", f"{VALUE}{VALUE}", f"a='{VALUE}'\n", f"x{VALUE}y"],
)
def test_known_value_is_masked_wherever_it_stands(text: str) -> None:
    """A secret that this process has met is masked in any text."""
    Secret(VALUE)
    assert VALUE not in log.redact_text(text)
    assert "***" in log.redact_text(text)


def test_value_inside_another_leaves_no_rest_of_it() -> None:
    """Where one secret is the beginning of another, the longer one is masked whole."""
    values = ["first-part", "first-part-and-more", "first-part-and-more-and-still-more"]
    for value in values:
        Secret(value)
    assert log.redact_text(f"<{'> <'.join(values)}>") == "<***> <***> <***>"


def test_text_without_secrets_is_left_alone() -> None:
    """Ordinary words stay as they are."""
    text = "mariadb-backup on db1 ended with status 1: No space left on device"
    assert log.redact_text(text) == text


# By look.


@pytest.mark.parametrize(
    "token",
    [
        "hvs.CAESIJaVeryLongTokenOfVault1234567890",
        "hvb.AAAAAQJaVeryLongBatchToken1234567890",
        "s.iUwkVM1sXSfMXxnKBxGO3pvR",
        "b.AAAAAQL0000000000000000000",
        "r.AAAAAQL0000000000000000000",
    ],
)
def test_token_of_vault_is_masked_although_nobody_knows_it(token: str) -> None:
    """What looks like a token of Vault or OpenBao is masked without having been met."""
    assert log.redact_text(f"error: {token} is not allowed") == "error: *** is not allowed"
    assert log.redact_text(f"VAULT_TOKEN={token}") == "VAULT_TOKEN=***"
    assert log.redact_text(f'"{token}"') == '"***"'


@pytest.mark.parametrize(
    "text", ["items.aLongNameOfSomeAttributeHere", "s.short", "bin.000001", "v2.3.4", "r.b"]
)
def test_what_only_resembles_a_token_stays(text: str) -> None:
    """Names with a dot in them are no tokens."""
    assert log.redact_text(text) == text


# By name.


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "VAULT_TOKEN",
        "client_token",
        "password",
        "MASTER_PASSWORD",
        "passwd",
        "secret",
        "private_key",
        "key_data",
        "transition_key",
    ],
)
@pytest.mark.parametrize("value", ["plain", 17, ["a"], {"b": "c"}])
def test_value_of_a_secret_name_is_masked(name: str, value: Any) -> None:
    """Whatever stands under such a name, in any depth."""
    assert log.redact({"a": [{name: value}]}) == {"a": [{name: "***"}]}


def test_empty_value_and_other_names_stay() -> None:
    """Nothing is masked that is not there, and paths and fingerprints may be read."""
    document = {"token": "", "password": None, "key_path": "transition-keys/b1", "tokens": 3}
    assert log.redact(document) == document


def test_secret_is_masked_wherever_it_is_handed_over() -> None:
    """A Secret inside lists, tuples and mappings is a mask."""
    value = {"a": Secret("x"), "b": [Secret("y"), (Secret("z"),)], "c": 1.5}
    assert log.redact(value) == {"a": "***", "b": ["***", ["***"]], "c": 1.5}


# Events.


def test_event_is_redacted_before_anybody_hears_it(heard: list[log.Event]) -> None:
    """Listeners get the masked event, by value and by name."""
    Secret(VALUE)
    log.get().info("notice", message=f"it is {VALUE}", token="abc", problems=[VALUE])
    (event,) = heard
    assert (event["message"], event["token"], event["problems"]) == ("it is ***", "***", ["***"])
    assert event["event"] == "notice"
    assert event["level"] == "info"
    assert event["timestamp"].endswith("Z")


def test_stack_of_a_fault_is_redacted(heard: list[log.Event]) -> None:
    """The text of an exception and its stack are masked as well."""
    Secret(VALUE)
    try:
        int(VALUE)
    except ValueError:
        log.get().exception("step.failed")
    (event,) = heard
    assert "ValueError: invalid literal for int() with base 10: '***'" in event["exception"]
    assert VALUE not in json.dumps(event)


def test_context_is_bound_inside_the_block_only(heard: list[log.Event]) -> None:
    """Run and step go with every event of the block, and of no other thread."""
    with log.bound(run_id="r1", step="one"):
        log.get().info("step.began")
        thread = threading.Thread(target=lambda: log.get().info("notice"))
        thread.start()
        thread.join()
    log.get().info("run.ended")
    assert [event.get("run_id") for event in heard] == ["r1", None, None]


def test_nothing_goes_to_stdout_or_stderr(
    heard: list[log.Event], capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer on stdout is not mixed with talk."""
    log.get().info("notice", message="hello")
    assert capsys.readouterr() == ("", "")
    assert len(heard) == 1


def test_subscription_ends() -> None:
    """After its end a listener hears nothing."""
    log.configure()
    events: list[log.Event] = []
    end = log.subscribe(events.append)
    log.get().info("notice")
    end()
    log.get().info("notice")
    assert len(events) == 1


# Run files.


def test_run_file_is_private_and_holds_the_runs_events(
    tmp_path: Path, heard: list[log.Event]
) -> None:
    """Mode 0600 in a folder 0700, one JSON document a line, of this run and inside the block."""
    path = tmp_path / "logs" / "r1.jsonl"
    log.get().info("notice", message="before", run_id="r1")
    with log.run_file("r1", path):
        log.get().info("step.began", run_id="r1", name="ünï ✓")
        log.get().info("step.began", run_id="r2")
        log.get().info("notice")
        # Another process follows the file while the run goes on.
        assert len(path.read_text("utf-8").splitlines()) == 1
    log.get().info("notice", message="after", run_id="r1")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    (event,) = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    assert (event["event"], event["name"]) == ("step.began", "ünï ✓")
    assert len(heard) == 5


def test_run_file_is_appended_to(tmp_path: Path) -> None:
    """A resumed run goes on in the file that it began."""
    log.configure()
    path = tmp_path / "r1.jsonl"
    for _ in range(2):
        with log.run_file("r1", path):
            log.get().info("run.began", run_id="r1")
    assert len(path.read_text("utf-8").splitlines()) == 2


def test_line_without_room_is_left_out_whole(tmp_path: Path) -> None:
    """A full disk raises nothing here, and leaves no half of a line for the next one to follow."""
    log.configure()
    path = tmp_path / "r1.jsonl"
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with log.run_file("r1", path):
        log.get().info("notice", run_id="r1", message="first")
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, most))
        try:
            log.get().info("notice", run_id="r1", message="second")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        log.get().info("notice", run_id="r1", message="third")
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [event["message"] for event in events] == ["first", "third"]


def test_run_file_holds_no_secret(tmp_path: Path) -> None:
    """What is written is masked, and what has no JSON form is written as masked text."""
    log.configure()
    Secret(VALUE)
    path = tmp_path / "r1.jsonl"
    with log.run_file("r1", path):
        log.get().info("notice", run_id="r1", what=Secret("zzzzzz"), where=tmp_path, why=VALUE)
    text = path.read_text("utf-8")
    assert VALUE not in text
    assert "zzzzzz" not in text
    assert json.loads(text)["where"] == str(tmp_path)


def test_lines_for_people() -> None:
    """Time, event, and the rest as words; what every line would repeat is left out."""
    stream = io.StringIO()
    listen = log.print_listener(stream)
    listen(
        {
            "event": "step.began",
            "level": "info",
            "timestamp": "2026-11-21T21:05:00.123Z",
            "run_id": "r1",
            "playbook": "clone",
            "step": "swap-datadir",
        }
    )
    assert stream.getvalue() == "21:05:00 step.began step=swap-datadir\n"
