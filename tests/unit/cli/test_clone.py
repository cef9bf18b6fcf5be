from __future__ import annotations

import json

import pytest
from cli_lab import RUN_ID, CommandLine, make_plan, make_record

from orchestrator import summary
from orchestrator.errors import (
    CancelledError,
    OrchestratorError,
    SecretError,
    VerificationError,
)
from orchestrator.models import Check, Secret

CLONE = ("clone", "master", "replica")


def test_success_prints_the_checks_and_the_replication_facts(command_line: CommandLine) -> None:
    """At the end stdout has the table of checks and the facts of replication."""
    result = command_line.call(*CLONE, "--yes")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any(line.split() == ["bytes-equal", "✓", "42", "on", "both", "ends"] for line in lines)
    assert any(line.split() == ["io_running", "yes"] for line in lines)
    assert any(line.split() == ["gtid", "0-1-99"] for line in lines)
    assert lines[-1].startswith(f"succeeded: {RUN_ID}, master → replica")


def test_options_reach_the_plan_and_absent_ones_leave_it_to_the_configuration(
    command_line: CommandLine,
) -> None:
    """Options that were not given are None, so that the configuration decides."""
    command_line.call(*CLONE, "--yes")
    given: dict[str, object] = {
        "parallel": None,
        "replace": False,
        "require_encryption": False,
        "checksums": None,
        "source": None,
        "throttle": None,
        "nice": None,
        "relay": None,
        "compress": None,
    }
    assert command_line.backend.options == given
    words = "--parallel 8 --replace --require-encryption --checksums sample --source master"
    words += " --throttle 50M --no-nice --relay --compress zstd:3"
    command_line.call(*CLONE, "--yes", *words.split())
    given = {
        "parallel": 8,
        "replace": True,
        "require_encryption": True,
        "checksums": "sample",
        "source": "master",
        "throttle": "50M",
        "nice": False,
        "relay": True,
        "compress": "zstd:3",
    }
    assert command_line.backend.options == given


def test_json_is_one_document_with_every_key_and_no_talk(command_line: CommandLine) -> None:
    """One document with the fixed keys on stdout, and nothing on stderr."""
    command_line.backend.events = [{"event": "step.began", "step": "stream-backup"}]
    result = command_line.call(*CLONE, "--yes", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert list(document) == list(summary.build_empty_document())
    assert document["bytes_streamed"] == 42
    assert document["coordinates"] == {"file": "binlog.000004", "position": 342, "gtid": "0-1-99"}


def test_json_with_verbose_talks_on_stderr(command_line: CommandLine) -> None:
    """With --verbose every event is a line on stderr, and stdout stays one document."""
    command_line.backend.events = [{"event": "step.began", "step": "stream-backup"}]
    result = command_line.call(*CLONE, "--yes", "--json", "-v")
    assert "step.began step=stream-backup" in result.stderr
    json.loads(result.stdout)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("clone", "master", "nowhere"), 2, "unknown host 'nowhere'"),
        (("clone", "nowhere", "replica"), 2, "unknown host 'nowhere'"),
        (("clone", "master", "master"), 3, "master is donor and recipient at once"),
        (
            ("clone", "master", "replica", "--source", "replica"),
            3,
            "replica is source and recipient at once",
        ),
        (("clone", "master", "replica", "--source", "nowhere"), 2, "unknown host 'nowhere'"),
        (("clone", "master", "replica"), 2, "nobody to ask"),
    ],
)
def test_bad_arguments_contact_nothing(
    command_line: CommandLine, arguments: tuple[str, ...], status: int, words: str
) -> None:
    """Unknown hosts, a clone onto itself and a missing --yes end before any host is asked."""
    result = command_line.call(*arguments)
    assert result.exit_code == status
    assert f"error: {words}" in result.stderr
    assert "hint: " in result.stderr
    assert command_line.backend.asked == []


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--throttle", "0", "must be bytes per second above 0, such as 50M or 1G, or none, is '0'"),
        ("--throttle", "-5M", "must be bytes per second above 0"),
        ("--throttle", "quick", "must be bytes per second above 0"),
        ("--throttle", "", "must be bytes per second above 0"),
        ("--compress", "zstd:20", "must be auto, none, zstd or zstd:LEVEL, of 1 to 19"),
        ("--compress", "gzip", "must be auto, none, zstd"),
        ("--compress", "", "must be auto, none, zstd"),
    ],
)
def test_an_option_that_means_nothing_contacts_nothing(
    command_line: CommandLine, option: str, value: str, words: str
) -> None:
    """Exit status 2, with what would mean something."""
    result = command_line.call(*CLONE, "--yes", option, value)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': {words}" in result.stderr
    assert command_line.backend.asked == []


def test_a_bad_configuration_lists_every_problem(command_line: CommandLine) -> None:
    """Each problem stands on a line of its own, with its path."""
    command_line.config.write_text('[hosts.a]\nssh_port = 70000\nvault_mont = "x"\n')
    result = command_line.call(*CLONE, "--yes")
    assert result.exit_code == 2
    problems = [line for line in result.stderr.splitlines() if line.startswith("  ")]
    assert sorted(line.split(":")[0].strip() for line in problems) == [
        "hosts.a.ssh_port",
        "hosts.a.vault_mont",
        "hosts.a.vault_mount",
    ]


def test_failed_preconditions_end_before_a_run_begins(command_line: CommandLine) -> None:
    """A bad finding of the preflight is refused without a question and without a run."""
    command_line.backend.checks = (
        Check(name="space", ok=False, evidence="1 GB free", host="replica", hint="free some"),
        Check(name="recipient-datadir", ok=False, evidence="not empty", host="replica"),
    )
    result = command_line.call(*CLONE, "--yes")
    assert result.exit_code == 3
    assert "replica: space: 1 GB free (hint: free some)" in result.stderr
    assert "recipient-datadir: not empty" in result.stderr
    assert not any(name.startswith("begin_run") for name in command_line.backend.asked)


def test_the_person_is_told_whom_a_sibling_follows(command_line: CommandLine) -> None:
    """The host that the recipient will follow stands in the question, where it is not the donor."""
    command_line.backend.plan = make_plan(source="primary")
    command_line.answers = "n\n"
    result = command_line.call(*CLONE, "--source", "master")
    assert "source     primary, which the recipient will follow" in result.stderr


def test_plan_shows_everything_and_begins_nothing(command_line: CommandLine) -> None:
    """--plan prints directories, Vault paths, steps, commands and findings, and ends."""
    result = command_line.call(*CLONE, "--plan")
    assert result.exit_code == 0
    for words in (
        "/var/lib/mysql.staging",
        "xbvault/transition-keys/20261121T210500Z-master-9f8e",
        "[1/3] stream-backup (both): Do stream-backup.",
        "$ master: mariadb-backup --backup --stream=xbstream",
        "vault-health",
    ):
        assert words in result.stdout
    assert not any(name.startswith("begin_run") for name in command_line.backend.asked)


def test_plan_as_json_holds_the_same(command_line: CommandLine) -> None:
    """--plan --json is one document; nothing in it is masked, for nothing in it is a secret."""
    document = command_line.document(*CLONE, "--plan")
    assert document["status"] == "planned"
    assert document["plan"]["old_datadir"] == "/var/lib/mysql.old"
    assert document["steps"][0]["commands"] == list(make_plan().commands["stream-backup"])
    assert "***" not in json.dumps(document)


def test_plan_with_a_failed_precondition_exits_3_and_shows_all(command_line: CommandLine) -> None:
    """The plan and every finding are printed, and the exit status says that it may not begin."""
    command_line.backend.checks += (Check(name="space", ok=False, evidence="1 GB free"),)
    result = command_line.call(*CLONE, "--plan", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 3
    assert document["status"] == "failed"
    assert [check["ok"] for check in document["checks"]] == [True, False]
    assert document["error"]["error"] == "PreconditionError"


def test_a_yes_at_the_terminal_begins_after_showing_what_is_set_aside(
    command_line: CommandLine,
) -> None:
    """The question comes with donor, recipient, datadir and where the old one will stand."""
    command_line.backend.plan = make_plan(replace=True)
    command_line.answers = "y\n"
    result = command_line.call(*CLONE)
    assert result.exit_code == 0
    assert "set aside as /var/lib/mysql.old" in result.stderr
    assert "Clone master to replica?" in result.stderr
    assert f"begin_run {RUN_ID}" in command_line.backend.asked


def test_a_no_at_the_terminal_changes_nothing(command_line: CommandLine) -> None:
    """A no ends with 130, and no run has begun."""
    command_line.answers = "n\n"
    result = command_line.call(*CLONE)
    assert result.exit_code == 130
    assert "nothing was changed" in result.stderr
    assert not any(name.startswith("begin_run") for name in command_line.backend.asked)


def test_a_failed_run_says_how_it_goes_on(command_line: CommandLine) -> None:
    """Message, problems, hint and run id on stderr; the exit status of the error's class."""
    command_line.backend.failure = VerificationError(
        "1 table differs", host="replica", problems=["shop.orders"]
    )
    command_line.backend.records[RUN_ID] = make_record(status="failed")
    result = command_line.call(*CLONE, "--yes")
    assert result.exit_code == 6
    assert result.stderr.splitlines()[-4:] == [
        "error: 1 table differs [replica]",
        "  shop.orders",
        f"hint: `xbvault runs resume {RUN_ID}` goes on from here",
        f"run: {RUN_ID}",
    ]


def test_a_failed_run_as_json_keeps_what_was_done(command_line: CommandLine) -> None:
    """The document of a failure has every key, the work done so far and the error."""
    command_line.backend.failure = SecretError("refused")
    command_line.backend.records[RUN_ID] = make_record(status="failed")
    result = command_line.call(*CLONE, "--yes", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 5
    assert list(document) == list(summary.build_empty_document())
    assert (document["status"], document["bytes_streamed"]) == ("failed", 42)
    assert document["error"]["message"] == "refused"


def test_a_cancelled_run_exits_130_with_its_own_status(command_line: CommandLine) -> None:
    """Cancelled from elsewhere: the status is cancelled, not failed."""
    command_line.backend.failure = CancelledError("the run was cancelled")
    command_line.backend.records[RUN_ID] = make_record(status="cancelled")
    result = command_line.call(*CLONE, "--yes", "--json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["status"] == "cancelled"


def test_a_foreign_error_shows_its_trace_without_secrets(command_line: CommandLine) -> None:
    """A fault of ours exits 1 with the stack trace, and a known secret in it is masked."""
    Secret("hunter2-in-the-trace")
    command_line.backend.failure = RuntimeError("got hunter2-in-the-trace")
    result = command_line.call(*CLONE, "--yes", "--json")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "RuntimeError: got ***" in result.stderr
    assert json.loads(result.stdout)["error"]["message"] == "RuntimeError: got ***"
    assert "hunter2" not in result.output


def test_a_record_that_did_not_succeed_is_a_failure(command_line: CommandLine) -> None:
    """Success is what the record says, not that nothing was raised."""
    error = VerificationError("rows differ").as_json()
    command_line.backend.result = make_record(status="failed", error=error)
    result = command_line.call(*CLONE, "--yes")
    assert result.exit_code == 6
    assert "error: rows differ" in result.stderr


def test_a_secret_in_an_error_is_masked(command_line: CommandLine) -> None:
    """No message of ours carries a known secret to the terminal or into the document."""
    Secret("correct-horse-battery")
    command_line.backend.failure = OrchestratorError("with correct-horse-battery")
    result = command_line.call(*CLONE, "--yes", "--json")
    assert "correct-horse" not in result.output
    assert "error: with ***" in result.stderr


def test_steps_are_told_as_plain_lines_in_a_pipe(command_line: CommandLine) -> None:
    """Without a terminal every step is a line when it begins and one when it ends."""
    at = "2026-11-21T21:05:0{}.000000Z"
    progress = {"bytes": 123_731_968, "expected_bytes": 0, "bytes_per_second": 199_229_440}
    step = {"step": "stream-backup", "flow": "run"}
    command_line.backend.events = [
        {"event": "step.began", "timestamp": at.format(0), **step},
        {"event": "job.progress", "timestamp": at.format(1), **step, **progress},
        {"event": "step.ended", "timestamp": at.format(4), "seconds": 4.2, **step},
    ]
    result = command_line.call(*CLONE, "--yes")
    assert result.stderr.splitlines() == [
        "[1/4] stream-backup …",
        "[1/4] stream-backup … 118 MiB 190 MiB/s",
        "[1/4] stream-backup done 4.2 s",
    ]
