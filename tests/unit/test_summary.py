from __future__ import annotations

import dataclasses

from cli_lab import make_plan, make_record

from orchestrator import config, summary
from orchestrator.durable import StepRecord


def make_step(name: str, index: int = 0, **more: object) -> StepRecord:
    """Return a step that succeeded."""
    step = StepRecord(index=index, name=name, status="succeeded", seconds=1.5)
    return dataclasses.replace(step, **more)  # type: ignore[arg-type]  # any field


def test_document_is_built_from_step_results() -> None:
    """Each part comes from the result of its step."""
    document = summary.build_document(make_record())
    assert document["bytes_streamed"] == 42
    assert document["coordinates"]["file"] == "binlog.000004"
    assert document["replication"] == {"io_running": True, "seconds_behind": 0}
    assert [check["name"] for check in document["checks"]] == ["bytes-equal"]
    assert document["seconds"]["total"] == 5.5


def test_a_run_that_did_not_come_far_has_every_key_all_the_same() -> None:
    """Scripts can rely on the keys, whatever happened."""
    document = summary.build_document(make_record(steps=(), status="failed"))
    assert list(document) == list(summary.build_empty_document())
    empty = summary.build_empty_document()
    for key in ("seconds", "bytes_streamed", "transfer", "coordinates", "replication", "checks"):
        assert document[key] == empty[key]


def test_full_document_adds_steps_and_parts() -> None:
    """`runs show --json` has the same keys and three more."""
    record = make_record()
    full, short = summary.build_full_document(record), summary.build_document(record)
    assert {key: full[key] for key in short} == short
    assert set(full) - set(short) == {"progress", "steps", "parts"}
    assert full["progress"] == []
    assert summary.build_full_document(record, [{"bytes": 1}])["progress"] == [{"bytes": 1}]
    assert full["steps"][0]["result"] == {"bytes": 42, "seconds": 4.1}


def test_a_later_finding_takes_the_place_of_an_earlier_one() -> None:
    """Same name on the same host: the last answer counts; other hosts are other findings."""

    def check(host: str, evidence: str) -> dict[str, object]:
        return {"name": "alive", "ok": True, "evidence": evidence, "host": host}

    steps = (
        make_step("a", result={"checks": [check("x", "early"), check("y", "only")]}),
        make_step("b", result={"checks": [check("x", "late")]}),
        make_step("c", result=None),
    )
    found = [(c.host, c.evidence) for c in summary.collect_checks(steps)]
    assert found == [("x", "late"), ("y", "only")]


def test_a_step_done_again_counts_with_all_its_attempts() -> None:
    """After a return to the stream its time is the sum, and its bytes are the last ones."""
    record = make_record(
        steps=(
            make_step("stream-backup", result={"bytes": 10}),
            make_step("prepare", 1, result={"back_to": "stream-backup", "error": {}}),
            make_step("stream-backup", attempt=2, result={"bytes": 20}),
            make_step("prepare", 1, status="pending", attempt=2, seconds=0.0),
        )
    )
    document = summary.build_document(record)
    assert document["seconds"] == {"stream-backup": 3.0, "prepare": 1.5, "total": 4.5}
    assert document["bytes_streamed"] == 20


def test_a_transfer_of_an_earlier_version_has_every_key() -> None:
    """A journal that knows bytes and seconds alone is read, and what it lacks is empty."""
    assert summary.read_transfer(make_record().steps) == {
        "bytes": 42,
        "seconds": 4.1,
        "bytes_per_second": 10,
        "bottleneck": "",
        "evidence": "",
        "cpu_seconds": {},
        "held_up_share": None,
        "connection": None,
    }


def test_a_stream_that_did_not_end_is_no_transfer() -> None:
    """Of several attempts the last that ended counts; one that failed tells nothing."""
    ended = make_step("stream-backup", result={"bytes": 10, "seconds": 2.0})
    failed = make_step("stream-backup", status="failed", attempt=2, result=None)
    assert summary.read_transfer([failed]) is None
    found = summary.read_transfer([ended, failed])
    assert found is not None
    assert found["bytes_per_second"] == 5


def test_pending_steps_have_no_time() -> None:
    """Only what began is in `seconds`."""
    steps = (make_step("a"), make_step("b", 1, status="pending", seconds=0.0))
    assert summary.read_seconds(make_record(steps=steps)) == {"a": 1.5, "total": 1.5}


def test_elapsed_time_is_unknown_until_the_end() -> None:
    """A run under way has no time on the clock yet."""
    assert summary.read_elapsed(make_record()) == 8.5
    assert summary.read_elapsed(make_record(ended_at="")) is None


def test_vault_paths_follow_the_configuration() -> None:
    """Every path is below the mounts that the configuration names."""
    document = {
        "vault": {"mount": "ours", "transition_mount": "ours-transition", "ssh_mount": "ca"},
        "hosts": {"a": {"vault_mount": "keys/a"}},
    }
    paths = summary.list_vault_paths(config.parse(document), make_plan())
    assert paths["transition_keys"].startswith("ours/transition-keys/")
    assert paths["transition_mount"].startswith("ours-transition/replica/")
    assert paths["replication_account"].startswith("ours/replication/master/replica/")
    assert paths["stream_credential"] == "ca"
