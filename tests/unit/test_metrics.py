"""Metrics of records and sets made of plain values, read back as Prometheus reads them."""

from __future__ import annotations

import dataclasses
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import stored_sets
from drilled import make_drill_record, make_steps
from prometheus_client.parser import text_string_to_metric_families
from stored_runs import make_backup, make_backup_plan, make_restore, make_restore_plan

from orchestrator import config, metrics
from orchestrator.catalogue import KeyState, StoredSet
from orchestrator.errors import (
    CommandError,
    ConfigError,
    HostUnreachableError,
    OrchestratorError,
    SecretError,
    VerificationError,
)
from orchestrator.models import Coordinates
from orchestrator.repository.manifest import BINLOGS, ArchivedLog
from orchestrator.repository.sets import Folder, SetReport, State, judge_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from orchestrator.config import Config
    from orchestrator.durable import RunRecord
    from orchestrator.metrics import Sample

SET = (("host", "db1"), ("repository", "store"))
MASTER = (("host", "master"),)
AN_END = datetime(2026, 11, 22, 4, 0, 30, tzinfo=UTC).timestamp()
SUCCESS = "xbvault_backup_last_success"


def at(hour: int, minute: int = 0) -> float:
    """Return a moment of the day of the records in Unix time."""
    return datetime(2026, 11, 21, hour, minute, tzinfo=UTC).timestamp()


def read(samples: Iterable[Sample]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what Prometheus makes of samples: by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.format_samples(samples))
        for sample in family.samples
    }


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    """Return a configuration whose files lie in a folder of the test."""
    document = {
        "journal": {"directory": str(tmp_path / "state")},
        "metrics": {"textfile": str(tmp_path / "xbvault.prom")},
        "hosts": {"db1": {"vault_mount": "m"}},
        "repositories": {"store": {"path": "/srv/a"}, "away": {"path": "/srv/a"}},
    }
    return config.parse(document)


class Journal:
    """Records in the place of the journal's, the newest first."""

    def __init__(self) -> None:
        self.records: Sequence[RunRecord] = ()
        self.read: list[str] = []

    def collect(self) -> list[Sample]:
        """Return the samples of these records."""
        return metrics.collect_runs(self.records, self._read_run)

    def _read_run(self, run_id: str) -> RunRecord:
        self.read.append(run_id)
        return next(record for record in self.records if record.run_id == run_id)


@pytest.fixture
def journal() -> Journal:
    """Return an empty journal."""
    return Journal()


def test_the_last_good_backup_and_the_last_failure_are_told(
    journal: Journal,
) -> None:
    """Of each host in each repository; older ones, and those that go on, are not looked at."""
    journal.records = (
        make_backup("going", "09", status="running", ended_at=""),
        make_backup("undone", "08", status="undone"),
        make_backup("bad", "07", status="failed"),
        make_backup("good", "06"),
        make_backup("worse", "05", status="failed"),
        make_backup("old", "04"),
        make_backup("other", "03", plan=make_backup_plan("other", repository="away")),
    )
    found = read(journal.collect())
    assert found[f"{SUCCESS}_timestamp_seconds", SET] == at(6, 1)
    assert found[f"{SUCCESS}_stored_bytes", SET] == 1300
    assert found[f"{SUCCESS}_streamed_bytes", SET] == 1234
    assert found[f"{SUCCESS}_duration_seconds", SET] == 60
    steps = {
        dict(labels)["step"]: value
        for (name, labels), value in found.items()
        if name == f"{SUCCESS}_step_seconds" and ("repository", "store") in labels
    }
    assert steps == {"store-backup": 40.5, "write-manifest": 2.0}
    assert found["xbvault_backup_last_failure_timestamp_seconds", SET] == at(7, 1)
    assert found["xbvault_backup_last_succeeded", SET] == 0
    away = (("host", "db1"), ("repository", "away"))
    assert found["xbvault_backup_last_succeeded", away] == 1
    assert ("xbvault_backup_last_failure_timestamp_seconds", away) not in found
    assert sorted(journal.read) == ["bad", "good", "other"]


def test_an_interrupted_backup_is_a_failure_from_its_begin_on(
    journal: Journal,
) -> None:
    """Nobody wrote down when its process died."""
    journal.records = (make_backup("cut", "09", status="interrupted", ended_at=""),)
    found = read(journal.collect())
    assert found == {
        ("xbvault_backup_last_failure_timestamp_seconds", SET): at(9),
        ("xbvault_backup_last_succeeded", SET): 0,
    }


def test_the_last_restore_of_a_host_is_told_with_its_verdict(
    journal: Journal,
) -> None:
    """A check that did not pass is no success, whatever the run says."""
    other = make_restore_plan("r2", host="db3")
    journal.records = (
        make_restore("r1", "05"),
        make_restore("r0", "04", status="failed"),
        make_restore("r2", "03", status="failed", plan=other),
    )
    found = read(journal.collect())
    host = (("host", "db2"),)
    assert found["xbvault_restore_last_timestamp_seconds", host] == at(5, 1)
    assert found["xbvault_restore_last_succeeded", host] == 1
    assert found["xbvault_restore_last_duration_seconds", host] == 60
    assert found["xbvault_restore_last_step_seconds", (*host, ("step", "fetch-backup-set"))] == 30
    assert found["xbvault_restore_last_succeeded", (("host", "db3"),)] == 0
    check = {"name": "tables-equal", "ok": False, "evidence": "differ", "host": "db2"}
    step = dataclasses.replace(journal.records[0].steps[1], result={"checks": [check]})
    journal.records = (make_restore("r1", "05", steps=(step,)),)
    assert read(journal.collect())["xbvault_restore_last_succeeded", host] == 0


def test_the_last_drill_of_a_host_is_told_with_recovery_time_and_point(journal: Journal) -> None:
    """By the host whose backup it was, and not by the scratch host."""
    journal.records = (make_drill_record(),)
    found = read(journal.collect())
    assert found["xbvault_drill_last_succeeded", MASTER] == 1
    assert found["xbvault_drill_last_timestamp_seconds", MASTER] == AN_END
    assert found["xbvault_drill_last_recovery_time_seconds", MASTER] == 9
    assert found["xbvault_drill_last_recovery_point_seconds", MASTER] == 24620
    assert not [name for name, _ in found if name.startswith("xbvault_restore")]


def fail_drill(error: OrchestratorError, **changes: Any) -> RunRecord:
    """Return the record of a later drill that failed in its fetch."""
    told = error.as_json()
    steps = make_steps("fetch-backup-set", told)
    return make_drill_record(run_id="later", steps=steps, error=told, **changes)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
@pytest.mark.parametrize(
    "error", [VerificationError("another part"), SecretError("the keys were destroyed")]
)
def test_a_drill_that_found_something_is_told_though_it_was_cancelled(
    journal: Journal, error: OrchestratorError, status: str
) -> None:
    """The good one before it does not hide it, nor do its times stay."""
    journal.records = (fail_drill(error, status=status), make_drill_record())
    found = read(journal.collect())
    assert found["xbvault_drill_last_succeeded", MASTER] == 0
    assert ("xbvault_drill_last_recovery_time_seconds", MASTER) not in found
    assert journal.read == ["later"]


def test_a_drill_that_somebody_cancelled_is_none(journal: Journal) -> None:
    """It says nothing about the set; while it has failed alone, it counts."""
    journal.records = (fail_drill(CommandError("cut"), status="cancelled"), make_drill_record())
    assert read(journal.collect())["xbvault_drill_last_succeeded", MASTER] == 1
    journal.records = (fail_drill(CommandError("cut"), status="failed"), make_drill_record())
    assert read(journal.collect())["xbvault_drill_last_succeeded", MASTER] == 0


@pytest.mark.parametrize("status", ["undone", "forgotten"])
def test_a_kept_drill_stays_told_when_its_host_was_given_back(
    journal: Journal, status: str
) -> None:
    """As of the moment when it ended, and not of that."""
    ended_at = "2026-11-29T04:00:00.000Z"
    journal.records = (make_drill_record(status=status, ended_at=ended_at),)
    found = read(journal.collect())
    assert found["xbvault_drill_last_succeeded", MASTER] == 1
    last = datetime.fromisoformat(make_drill_record().steps[-1].ended_at).timestamp()
    assert found["xbvault_drill_last_timestamp_seconds", MASTER] == last


def test_a_drill_with_a_bad_check_has_not_succeeded(journal: Journal) -> None:
    """Whatever its status says."""
    bad = {"name": "tables-open", "ok": False, "evidence": "shop.a", "host": "replica"}
    first, *others = make_steps()
    steps = (dataclasses.replace(first, result={"checks": [bad]}), *others)
    journal.records = (make_drill_record(steps=steps),)
    assert read(journal.collect())["xbvault_drill_last_succeeded", MASTER] == 0


def test_clones_are_not_told_of(journal: Journal) -> None:
    """Only what is stored, and what was made of it."""
    journal.records = (make_backup("c", "01", plan=make_plan_of_a_clone()),)
    assert journal.collect() == []
    assert metrics.format_samples([]) == ""


def make_plan_of_a_clone() -> object:
    """Return the plan of a clone."""
    from cli_lab import make_plan  # noqa: PLC0415 - one test

    return make_plan()


def make_stored(
    number: int, *, keys: str = "active", host: str = "db1", state: State | None = None
) -> StoredSet:
    """Return a set of the catalogue."""
    manifest = stored_sets.make_set(number, host=host)
    report = judge_folder(stored_sets.make_folder(manifest))
    if state is not None:
        report = SetReport(name=report.name, state=state)
    return StoredSet(repository="store", report=report, keys=KeyState(state=keys))


def test_sets_are_counted_by_what_they_are_worth(settings: Config) -> None:
    """The newest is one that can be restored; what is nobody's is not told of."""
    foreign = StoredSet(
        repository="store",
        report=judge_folder(Folder(name="lost+found")),
        keys=KeyState(state="unknown"),
    )
    listed = {
        "store": (
            make_stored(1),
            make_stored(2),
            make_stored(3, keys="destroyed"),
            make_stored(4, state=State.NO_MANIFEST),
            make_stored(5, host="db2", keys="destroyed"),
            foreign,
        ),
        "away": (),
    }
    samples, errors = metrics.collect_sets(settings, lambda name: listed[name])
    assert errors == []
    found = read(samples)
    size = stored_sets.make_manifest().stored_bytes
    second = stored_sets.make_set(2)
    assert found == {
        ("xbvault_repository_read_succeeded", (("repository", "away"),)): 1,
        ("xbvault_repository_read_succeeded", (("repository", "store"),)): 1,
        ("xbvault_stored_sets", (*SET, ("state", "complete"))): 3,
        ("xbvault_stored_sets", (*SET, ("state", State.NO_MANIFEST.value))): 1,
        ("xbvault_stored_bytes", SET): 3 * size,
        ("xbvault_stored_newest_timestamp_seconds", SET): second.ended.timestamp(),
        ("xbvault_stored_sets", (("host", "db2"), SET[1], ("state", "complete"))): 1,
        ("xbvault_stored_bytes", (("host", "db2"), SET[1])): size,
    }


def test_archives_of_binary_logs_say_how_far_they_reach(settings: Config) -> None:
    """And how many gaps there are between them; they are no backup."""
    logs = (ArchivedLog(name="bin.000007", bytes=9, began_at="2026-11-21T00:00:00Z"),)
    later = (ArchivedLog(name="bin.000009", bytes=9, began_at="2026-11-22T00:00:00Z"),)
    listed = [make_stored(1)]
    for number, found in ((2, logs), (3, later)):
        stored = make_stored(number)
        assert stored.report.manifest
        manifest = dataclasses.replace(
            stored.report.manifest,
            kind=BINLOGS,
            binlogs=found,
            coordinates=Coordinates(file="bin.000008", position=4),
        )
        report = dataclasses.replace(stored.report, manifest=manifest)
        listed.append(dataclasses.replace(stored, report=report))
    samples, _ = metrics.collect_sets(settings, lambda name: listed if name == "store" else ())
    found_samples = {name: value for name, labels, value in samples if "db1" in labels}
    until = listed[2].report.manifest
    newest = listed[0].report.manifest
    assert until
    assert newest
    assert found_samples["xbvault_archive_gaps"] == 1
    assert found_samples["xbvault_archive_until_timestamp_seconds"] == until.ended.timestamp()
    assert found_samples["xbvault_stored_newest_timestamp_seconds"] == newest.ended.timestamp()


def test_a_repository_that_cannot_be_read_is_told_of_as_such(settings: Config) -> None:
    """And the others all the same."""

    def list_sets(name: str) -> Sequence[StoredSet]:
        if name == "away":
            raise HostUnreachableError("no answer", host=name)
        return ()

    samples, errors = metrics.collect_sets(settings, list_sets)
    assert [str(error) for error in errors] == ["no answer"]
    assert samples == [
        ("xbvault_repository_read_succeeded", ("away",), 0),
        ("xbvault_repository_read_succeeded", ("store",), 1),
    ]


def test_the_file_is_replaced_as_a_whole_and_can_be_read_by_others(tmp_path: Path) -> None:
    """node_exporter runs as somebody else, and may read at any instant."""
    path = tmp_path / "xbvault.prom"
    path.write_text("old")
    before = path.stat().st_ino
    metrics.write_text(path, "é\n")
    assert path.stat().st_ino != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.read_text("utf-8") == "é\n"
    assert [file.name for file in tmp_path.iterdir()] == ["xbvault.prom"]


def test_what_the_catalogue_tells_goes_to_a_file_of_its_own(
    settings: Config, tmp_path: Path
) -> None:
    """Neither takes the other's place."""
    (tmp_path / "xbvault.prom").write_text("journal")
    sample = ("xbvault_repository_read_succeeded", ("store",), 1.0)
    assert metrics.write_sets(settings, [sample]) == tmp_path / "xbvault-repositories.prom"
    assert (tmp_path / "xbvault.prom").read_text() == "journal"
    assert (tmp_path / "xbvault-repositories.prom").read_text() == metrics.format_samples([sample])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With a hint; nothing is left beside it."""
    (tmp_path / "xbvault.prom").mkdir()
    with pytest.raises(ConfigError, match=r"cannot write .*xbvault\.prom") as caught:
        metrics.write_text(tmp_path / "xbvault.prom", "")
    assert "metrics.textfile" in caught.value.hint
    assert [file.name for file in tmp_path.iterdir()] == ["xbvault.prom"]
    with pytest.raises(ConfigError, match="No such file"):
        metrics.write_text(tmp_path / "no" / "x.prom", "")


def test_nothing_is_written_where_no_file_is_configured(settings: Config) -> None:
    """And the journal is not read."""
    other = settings.model_copy(update={"metrics": config.MetricsConfig()})
    assert metrics.write_runs(other) is None
    assert metrics.write_sets(other, []) is None


def test_a_sample_that_nobody_described_is_a_fault() -> None:
    """Each metric stands in the table that the page is held to."""
    with pytest.raises(KeyError, match="xbvault_odd"):
        metrics.format_samples([("xbvault_odd", (), 1)])


def test_every_metric_is_a_gauge_with_a_sentence() -> None:
    """Names as Prometheus wants them: units at the end, one meaning each."""
    names = [metric.name for metric in metrics.METRICS]
    assert len(set(names)) == len(names)
    for metric in metrics.METRICS:
        assert metric.name.startswith("xbvault_")
        assert metric.meaning.endswith(".")
        assert metrics.find_labels(metric.name) == metric.labels
