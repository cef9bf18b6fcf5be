"""The document of a drill: its keys, its phases, and how its verdict is found."""

from __future__ import annotations

import dataclasses
import json

import pytest
from drilled import (
    DIGEST,
    PAST,
    POINT,
    RUN_ID,
    make_drill_record,
    make_report_part,
    make_steps,
)

from orchestrator import models, report, summary
from orchestrator.durable import PartRecord, RunRecord, StepRecord
from orchestrator.errors import (
    CommandError,
    OrchestratorError,
    SecretError,
    SecretStoreUnavailableError,
    VerificationError,
)


def fail(error: OrchestratorError, status: str = "failed", step: str = "start-server") -> RunRecord:
    """Return the record of a drill that failed in a step."""
    told = error.as_json()
    return make_drill_record(status=status, steps=make_steps(step, told), error=told)


def test_every_key_is_there_whatever_happened() -> None:
    """In one order: before a drill began, after it failed at once, and after it passed."""
    keys = list(summary.build_empty_drill_document())
    records = [
        make_drill_record(),
        make_drill_record(steps=(), status="running"),
        fail(CommandError("it broke"), step="check-restore-preconditions"),
        make_drill_record(parts=(make_report_part(*PAST),)),
    ]
    for record in records:
        document = summary.build_document(record)
        assert list(document) == keys
        json.dumps(document)
        assert [phase["name"] for phase in document["phases"]] == list(summary.ALWAYS)


def test_what_a_drill_found_is_told() -> None:
    """Each part from its step; the report and the trend from the part that wrote it."""
    document = summary.build_document(make_drill_record(parts=(make_report_part(*PAST),)))
    assert (document["verdict"], document["status"]) == ("passed", "succeeded")
    assert (document["host"], document["set_host"]) == ("replica", "master")
    assert (document["kept"], document["torn_down"]) == (False, True)
    assert document["recovery_point"] == POINT
    assert document["recovery_time"] == {"answers_sql_seconds": 9.0, "proved_seconds": 18.0}
    assert document["ended_at"] == "2026-11-22T04:00:20.000Z"
    assert document["trend"] == [models.as_json(past) for past in PAST]
    assert document["report"] == {
        "directory": "/var/lib/xbvault/drills/run",
        "files": dict.fromkeys(report.FILES, DIGEST),
    }


def test_the_evidence_is_the_same_with_and_without_a_report() -> None:
    """Otherwise each resume would write another one."""
    before = summary.build_evidence(make_drill_record())
    after = summary.build_evidence(make_drill_record(parts=(make_report_part(*PAST),)))
    assert before == after
    assert {"trend", "report"} & set(before) == set()


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        (make_drill_record(), "passed"),
        (make_drill_record(status="cleaning"), "passed"),
        (make_drill_record(steps=(), status="running"), ""),
        (make_drill_record(steps=make_steps("stop-server"), status="interrupted"), ""),
        (make_drill_record(steps=make_steps("stop-server"), status="cancelled"), "incomplete"),
        (fail(CommandError("it broke")), "incomplete"),
        (fail(SecretStoreUnavailableError("sealed")), "incomplete"),
        (fail(VerificationError("another part")), "failed"),
        (fail(VerificationError("another part"), status="cancelled"), "failed"),
        (fail(SecretError("the keys were destroyed")), "failed"),
        (fail(VerificationError("not restored"), step="restore-datadir"), "failed"),
    ],
)
def test_the_verdict(record: RunRecord, verdict: str) -> None:
    """Passed needs every step; what no retry mends has failed; anything else proves nothing."""
    assert summary.build_document(record)["verdict"] == verdict


def test_a_bad_finding_fails_a_drill_that_did_not_stop_for_it() -> None:
    """No exception is not success."""
    bad = {"name": "tables-open", "ok": False, "evidence": "cannot be opened: shop.a", "host": "r"}
    steps = tuple(
        dataclasses.replace(step, result={"checks": [bad]})
        if step.name == "verify-encryption"
        else step
        for step in make_steps()
    )
    assert summary.judge_drill(make_drill_record(steps=steps)) == report.FAILED


def test_phases_tell_how_far_a_drill_came() -> None:
    """Time at work only, with every round of a step that the run went back to."""
    again = (
        *make_steps("prepare-backup-set", CommandError("cut").as_json())[:5],
        *(dataclasses.replace(step, attempt=2) for step in make_steps("swap-datadir")[1:]),
    )
    told = {phase["name"]: phase for phase in summary.describe_phases(again)}
    assert (told["fetch"]["status"], told["fetch"]["seconds"]) == ("done", 4.0)
    assert (told["prepare"]["status"], told["prepare"]["seconds"]) == ("done", 4.0)
    assert (told["move"]["status"], told["move"]["offset_seconds"]) == ("failed", 9.0)
    assert (told["start"]["status"], told["start"]["began_at"]) == ("not reached", "")
    document = summary.build_document(make_drill_record(steps=again, status="failed"))
    assert document["recovery_time"] == {"answers_sql_seconds": None, "proved_seconds": None}


def test_a_step_that_a_resume_did_again_counts_with_the_time_of_its_work() -> None:
    """The journal has its last try alone; the distance of the recovery point is no time of work."""
    times = {"fetch-backup-set": 600.0, "prepare-backup-set": 0.25, summary.POINT_STEP: 24620.0}
    steps = tuple(
        dataclasses.replace(step, result={**(step.result or {}), "seconds": times[step.name]})
        if step.name in times
        else step
        for step in make_steps()
    )
    told = {phase["name"]: phase for phase in summary.describe_phases(steps)}
    assert (told["fetch"]["seconds"], told["prepare"]["offset_seconds"]) == (601.0, 602.0)
    assert (told["prepare"]["seconds"], told["verify"]["seconds"]) == (2.0, 6.0)
    document = summary.build_document(make_drill_record(steps=steps))
    answers = document["recovery_time"]["answers_sql_seconds"]
    assert answers == told["start"]["offset_seconds"] + 1.0 == 608.0


def test_a_phase_under_way_is_running() -> None:
    """As `runs show` tells it meanwhile."""
    steps = (
        *make_steps("stop-server")[:6],
        StepRecord(index=6, name="stop-server", status="running", began_at="x", seconds=0.5),
    )
    told = {phase["name"]: phase["status"] for phase in summary.describe_phases(steps)}
    assert (told["prepare"], told["move"], told["start"]) == ("done", "running", "not reached")


def test_a_host_that_got_its_data_back_by_a_cancel_is_told() -> None:
    """Whoever did it, the same step did."""
    undone = PartRecord(
        name=f"cancel:{RUN_ID}",
        kind="cancel",
        status="succeeded",
        began_at="2026-11-22T04:01:00.000Z",
        ended_at="2026-11-22T04:01:30.000Z",
        steps=(
            StepRecord(
                index=2,
                name=summary.TEAR_DOWN_STEP,
                status="succeeded",
                ended_at="2026-11-22T04:01:20.000Z",
            ),
        ),
    )
    failed = fail(VerificationError("another part"), status="cancelled")
    assert not summary.build_document(failed)["torn_down"]
    document = summary.build_document(dataclasses.replace(failed, parts=(undone,)))
    assert document["torn_down"]
    assert document["ended_at"] == "2026-11-22T04:01:20.000Z"


def test_a_drill_of_the_past_is_told_in_short() -> None:
    """What the trend of a later one shows."""
    assert summary.build_past_drill(make_drill_record()) == report.PastDrill(
        run_id=RUN_ID,
        backup_id=make_drill_record().plan.backup_id,
        set_host="master",
        began_at="2026-11-22T04:00:00.000Z",
        verdict="passed",
        answers_sql_seconds=9.0,
        recovery_point_seconds=24620.0,
    )
