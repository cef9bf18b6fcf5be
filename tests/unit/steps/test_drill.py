"""The steps of a drill alone, each five times over."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyrage
import pytest
from drilled import BACKUP_ID, PAST, make_clone_drill_plan, make_drill_plan, make_drill_record
from fake_remote import FakeRemote

from orchestrator import bundle, keys, models, report, summary
from orchestrator import config as config_module
from orchestrator.errors import (
    CancelledError,
    HostUnreachableError,
    PreconditionError,
    SecretError,
    VerificationError,
)
from orchestrator.facts import instances
from orchestrator.repository import set_keys, trial
from orchestrator.steps import drill
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from collections.abc import Callable

    from fake_remote import Call

    from orchestrator.models import Secret
    from orchestrator.remote import Result

PART = f"/srv/backups/{BACKUP_ID}/part-000001.age"
SEALED = f"/srv/backups/{BACKUP_ID}/key-bundle.json"
BINLOG_INFO = "/var/lib/xbvault/runs/{}/binlog_info.1"
CLIENT = ("mariadb", "--batch")


class FakeVault:
    """The keys of one set."""

    def __init__(self) -> None:
        identity, self.recipient = keys.new_age_identity()
        self.held = {"key": keys.new_transition_key(), set_keys.AGE_IDENTITY: identity}
        self.destroyed = False

    def read_secret(self, _mount: str, path: str, **_options: Any) -> dict[str, Secret] | None:
        """Give the keys, unless they were destroyed."""
        assert path == f"transition-keys/{BACKUP_ID}"
        return None if self.destroyed else self.held

    def read_metadata(self, _mount: str, _path: str) -> None:
        """Know nothing."""


@dataclasses.dataclass
class Stand:
    """What a step of a drill works with."""

    tools: Tools
    vault: FakeVault
    store: FakeRemote
    scratch: FakeRemote
    live: FakeRemote

    def store_set(self, clear: bytes, sealed: bytes = b"") -> None:
        """Put the beginning of a set into the repository."""
        to = pyrage.x25519.Recipient.from_str(self.vault.recipient)
        encrypted = pyrage.encrypt(clear, [to])[: trial.BEGINNING_BYTES]
        self.store.answer("head", stdout=encrypted)
        whole = {"1": {1: keys.new_page_key()}, "2": {1: keys.new_page_key()}}
        self.store.files[SEALED] = sealed or bundle.seal_bundle(
            whole, self.vault.held["key"], BACKUP_ID
        )


@pytest.fixture
def stand() -> Stand:
    """A repository with a set, a scratch host, and the host that the set was made of."""
    host = {"flavor": "mariadb"}
    config = config_module.parse(
        {
            "hosts": {
                "master": {**host, "vault_mount": "m"},
                "replica": {**host, "vault_mount": "r"},
            },
            "repositories": {"store": {"path": "/srv/backups"}},
        }
    )
    vault = FakeVault()
    store, scratch, live = FakeRemote("store"), FakeRemote("replica"), FakeRemote("master")
    scratch.answer("test")
    scratch.files[BINLOG_INFO.format(make_drill_plan().run_id)] = b"bin.000002\t4711\t0-11-700\n"
    tools = Tools(
        config=config, vault=cast("Any", vault), donor=store, recipient=scratch, upstream=live
    )
    found = Stand(tools=tools, vault=vault, store=store, scratch=scratch, live=live)
    found.store_set(b"x" * (3 * trial.BEGINNING_BYTES))
    return found


# --- try-wrong-keys ---


def test_wrong_keys_are_refused_and_the_right_ones_open(stand: Stand) -> None:
    """Both of them, on the same bytes; and again, with other wrong keys."""
    for _ in range(2):
        found = drill.try_wrong_keys(stand.tools, make_drill_plan())
        assert [(check.name, check.ok) for check in found.checks] == [
            ("wrong-identity-refused", True),
            ("wrong-key-refused", True),
        ]
    (call, *_) = stand.store.ran("head")
    assert call.argv == ("head", "-c", str(trial.BEGINNING_BYTES), "--", PART)
    assert call.stdin == b""


def test_a_set_of_a_server_without_keys_has_no_bundle(stand: Stand) -> None:
    """Its stream is tried alone."""
    del stand.store.files[SEALED]
    found = drill.try_wrong_keys(stand.tools, make_drill_plan(has_keyring=False))
    assert [check.name for check in found.checks] == ["wrong-identity-refused"]


def test_a_set_without_its_keys_is_not_tried(stand: Stand) -> None:
    """That they were destroyed is what is said then."""
    stand.vault.destroyed = True
    with pytest.raises(SecretError):
        drill.try_wrong_keys(stand.tools, make_drill_plan())


def test_what_opens_with_no_key_at_all_is_no_proof(stand: Stand) -> None:
    """A damaged set refuses wrong keys as well, and must not pass for a protected one."""
    stand.store.answer("head", stdout=b"age-encryption.org/v1\n-> X25519 spoilt\n")
    with pytest.raises(VerificationError, match="wrong-identity-refused") as caught:
        drill.try_wrong_keys(stand.tools, make_drill_plan())
    assert caught.value.host == "store"
    stand.store_set(b"x", sealed=b"{}")
    with pytest.raises(VerificationError, match="wrong-key-refused"):
        drill.try_wrong_keys(stand.tools, make_drill_plan())


def test_a_wrong_key_that_opens_fails_the_drill(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one finding that nobody wants to see."""
    held = stand.vault.held
    monkeypatch.setattr(keys, "new_age_identity", lambda: (held[set_keys.AGE_IDENTITY], ""))
    monkeypatch.setattr(keys, "new_transition_key", lambda: held["key"])
    with pytest.raises(VerificationError, match="wrong-identity-refused") as caught:
        drill.try_wrong_keys(stand.tools, make_drill_plan())
    assert len(caught.value.problems) == 2


# --- measure-recovery-point ---


def answer_live(stand: Stand, position: str, now: str) -> None:
    """Let the live host answer both questions in one session."""

    def answer(call: Call) -> Result:
        from orchestrator.remote import Result  # noqa: PLC0415 - of this helper alone

        mark = call.stdin.decode().partition("SELECT '")[2].partition("'")[0]
        end = call.stdin.decode().partition("' AS ")[2].partition(";")[0]
        text = f"pos\n{position}\n{end}\n{mark}\nnow\n{now}\n{end}\n{mark}\n"
        return Result(status=0, stdout=text.encode(), stderr="")

    stand.live.answers[CLIENT] = answer


def test_the_recovery_point_is_measured_by_the_live_host(stand: Stand) -> None:
    """By its clock and its position; and anew each time."""
    answer_live(stand, "0-11-800", "2026-11-21 21:20:00.500")
    found = drill.measure_recovery_point(stand.tools, make_drill_plan())
    assert found == drill.RecoveryPoint(
        host="master",
        reached=True,
        reason="",
        at="2026-11-21T21:20:00.500Z",
        position="0-11-800",
        set_position="0-11-700",
        set_ended_at="2026-11-21T21:10:00.000Z",
        seconds=600.5,
        transactions=100,
    )
    answer_live(stand, "0-11-801", "2026-11-21 21:20:01.000")
    assert drill.measure_recovery_point(stand.tools, make_drill_plan()).transactions == 101


@pytest.mark.parametrize("live", ["", "master"])
def test_a_live_host_that_is_not_known_is_no_failure(stand: Stand, live: str) -> None:
    """Neither is one to which there is no door."""
    tools = dataclasses.replace(stand.tools, upstream=None)
    found = drill.measure_recovery_point(tools, make_drill_plan(live_host=live))
    assert (found.reached, found.seconds, found.transactions) == (False, None, None)
    assert "not configured" in found.reason


def test_a_live_host_that_is_gone_is_no_failure(stand: Stand) -> None:
    """A drill prepares for just that; what it would say is not believed either."""
    stand.live.is_unreachable = True
    found = drill.measure_recovery_point(stand.tools, make_drill_plan())
    assert found.reason.startswith("the donor could not be reached: ")
    stand.live.is_unreachable = False
    stand.live.answer(*CLIENT, stdout="nonsense")
    assert not drill.measure_recovery_point(stand.tools, make_drill_plan()).reached


def test_the_recovery_point_of_a_clone_is_measured_from_the_end_of_its_stream(
    stand: Stand,
) -> None:
    """By its donor's clock alone, which both moments are of."""
    answer_live(stand, "0-11-800", "2026-11-21 21:20:00.500")
    tools = dataclasses.replace(stand.tools, donor=stand.live, upstream=None)
    plan = make_clone_drill_plan()
    ended = f"/var/lib/xbvault/jobs/{plan.run_id}.send-backup/ended"
    stand.live.answer("stat", "-c", "%Y", "--", ended, stdout="1795295400\n")
    found = drill.measure_recovery_point(tools, plan)
    assert (found.host, found.reached, found.transactions) == ("master", True, 100)
    assert found.set_ended_at == "2026-11-21T21:10:00.000Z"
    assert found.seconds == 600.5


def test_a_cancel_is_not_taken_for_a_host_that_is_gone(stand: Stand) -> None:
    """It ends the step."""
    stand.live.answers[CLIENT] = CancelledError("cancelled")
    with pytest.raises(CancelledError):
        drill.measure_recovery_point(stand.tools, make_drill_plan())


def test_a_set_whose_position_is_not_to_be_read_fails(stand: Stand) -> None:
    """That is the set's own fault."""
    stand.scratch.files[BINLOG_INFO.format(make_drill_plan().run_id)] = b"nonsense"
    with pytest.raises(VerificationError):
        drill.measure_recovery_point(stand.tools, make_drill_plan())


# --- verify-isolation ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quiet:
    """What a server says of itself."""

    read_only: bool = True
    replicates: bool = False

    def is_on(self, name: str) -> bool:
        """Return whether a variable is on."""
        return self.read_only and name == "read_only"


@pytest.mark.parametrize(
    ("server", "scheduler", "is_isolated"),
    [
        (Quiet(), "OFF", True),
        (Quiet(), "DISABLED", True),
        (Quiet(), "ON", False),
        (Quiet(read_only=False), "OFF", False),
        (Quiet(replicates=True), "OFF", False),
    ],
)
def test_a_server_is_isolated_if_it_does_nothing_by_itself(
    stand: Stand,
    monkeypatch: pytest.MonkeyPatch,
    server: Quiet,
    scheduler: str,
    is_isolated: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Each of the three is enough to fail the drill."""
    monkeypatch.setattr(instances, "read_instance", lambda *_: server)
    stand.scratch.answer(*CLIENT, stdout=f"event_scheduler\n{scheduler}\n")
    act: Callable[[], drill.Findings] = lambda: drill.verify_isolation(  # noqa: E731 - called twice
        stand.tools, make_drill_plan()
    )
    if is_isolated:
        assert act() == act()
        assert [(check.name, check.ok) for check in act().checks] == [("server-isolated", True)]
        return
    with pytest.raises(VerificationError, match="server-isolated"):
        act()


def test_a_server_that_does_not_answer_is_not_isolated(stand: Stand) -> None:
    """Nothing is concluded from silence."""
    stand.scratch.is_unreachable = True
    with pytest.raises(HostUnreachableError):
        drill.verify_isolation(stand.tools, make_drill_plan())


# --- write-drill-report ---


def write(stand: Stand, directory: Path, **evidence: Any) -> drill.WrittenReport:
    """Write a report, as its flow does."""
    told = summary.build_evidence(make_drill_record()) | evidence
    return drill.write_drill_report(
        stand.tools,
        make_drill_plan(report_dir=str(directory)),
        evidence=json.dumps(told),
        trend=json.dumps([models.as_json(past) for past in PAST]),
    )


def test_a_report_is_written_with_its_sums(stand: Stand, tmp_path: Path) -> None:
    """Into a directory that is made; a second time changes nothing."""
    directory = tmp_path / "audit" / "november"
    written = write(stand, directory)
    assert written.directory == str(directory)
    assert written.trend == PAST
    assert sorted(path.name for path in directory.iterdir()) == sorted(report.FILES)
    for name, digest in written.files.items():
        assert hashlib.sha256((directory / name).read_bytes()).hexdigest() == digest
    assert write(stand, directory) == written
    assert write(stand, directory, verdict="failed").files != written.files


def test_a_report_without_evidence_is_refused(stand: Stand, tmp_path: Path) -> None:
    """A playbook of somebody's own that names the step gives it none."""
    with pytest.raises(PreconditionError, match="nothing to tell"):
        drill.write_drill_report(stand.tools, make_drill_plan(report_dir=str(tmp_path)))


def test_a_directory_that_cannot_be_written_to_is_named(stand: Stand, tmp_path: Path) -> None:
    """With what can be done."""
    (tmp_path / "file").write_text("")
    with pytest.raises(PreconditionError, match="cannot be written") as caught:
        write(stand, tmp_path / "file" / "audit")
    assert "runs resume" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "whose"),
    [(b'{"run_id": "earlier"}', "earlier"), (b"\xff", "something else"), (b"7", "something else")],
)
def test_the_report_of_another_drill_is_never_written_over(
    stand: Stand, tmp_path: Path, content: bytes, whose: str
) -> None:
    """Also when it was filed while this drill was under way."""
    (tmp_path / report.JSON).write_bytes(content)
    with pytest.raises(PreconditionError, match=f"report of {whose}, and is not") as caught:
        write(stand, tmp_path)
    assert "move it elsewhere, then `xbvault runs resume" in caught.value.hint
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [content]


def test_a_report_that_is_not_what_was_written_is_noticed(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is not believed."""
    kept = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: kept(path)[:-1])
    with pytest.raises(VerificationError, match="not what was written"):
        write(stand, tmp_path)
