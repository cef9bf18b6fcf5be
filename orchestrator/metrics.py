"""Metrics for Prometheus, as text files for node_exporter: of the journal, and of the catalogue.

Every metric stands in `METRICS`, which ``docs/reference/metrics.md`` explains. What the journal
tells goes to ``metrics.textfile``, after each run; what the catalogue tells takes the repositories'
hosts and Vault, and goes to a file beside it, on ``xbvault metrics --write`` alone, so that the one
never takes the other's place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator import catalogue, durable, models, replays, report, summary
from orchestrator.config import expand_path
from orchestrator.errors import ConfigError
from orchestrator.repository import binlogs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from orchestrator.catalogue import StoredSet
    from orchestrator.config import Config
    from orchestrator.durable import RunRecord

RUNS: Final = 1000
"""So many of the newest runs are looked at."""
KEPT: Final = "succeeded"
FAILED: Final = ("failed", "interrupted")
PUT_BACK: Final = ("undone", "forgotten")
"""A drill that kept its server has ended before that, and its verdict stands."""
_MODE: Final = 0o644


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A gauge.

    Attributes:
        name: Its name; dashboards rely on it, so none is changed or taken away.
        labels: What tells its samples apart.
        meaning: One line.
    """

    name: str
    labels: tuple[str, ...]
    meaning: str


Sample = tuple[str, tuple[str, ...], float]
"""Name of a metric, the values of its labels, the value."""

_SET: Final = ("host", "repository")
_HOST: Final = ("host",)
METRICS: Final = tuple(
    Metric(name=f"xbvault_{name}", labels=labels, meaning=meaning)
    for name, labels, meaning in (
        (
            "backup_last_success_timestamp_seconds",
            _SET,
            "When the last good backup ended that was not undone, in Unix time.",
        ),
        (
            "backup_last_success_stored_bytes",
            _SET,
            "What the last good backup takes in the repository.",
        ),
        (
            "backup_last_success_streamed_bytes",
            _SET,
            "Size of the stream of the last good backup, encrypted.",
        ),
        (
            "backup_last_success_duration_seconds",
            _SET,
            "Time of the last good backup, from its beginning to its end.",
        ),
        (
            "backup_last_success_step_seconds",
            (*_SET, "step"),
            "Time of each step of the last good backup.",
        ),
        (
            "backup_last_failure_timestamp_seconds",
            _SET,
            "When the last backup failed, or began that was interrupted, in Unix time.",
        ),
        (
            "backup_last_succeeded",
            _SET,
            "Whether the newest backup that has ended, or was interrupted, is good: 1 or 0.",
        ),
        (
            "restore_last_timestamp_seconds",
            _HOST,
            "When the last restore to the host ended, or began that was interrupted, in Unix time.",
        ),
        (
            "restore_last_succeeded",
            _HOST,
            "Whether that restore succeeded, with every check passed: 1 or 0.",
        ),
        (
            "restore_last_duration_seconds",
            _HOST,
            "Time of that restore, from its beginning to its end; not of one that was interrupted.",
        ),
        (
            "restore_last_step_seconds",
            ("host", "step"),
            "Time of each step of that restore, as far as it came.",
        ),
        (
            "drill_last_timestamp_seconds",
            _HOST,
            "When the last drill with a backup of the host ended, in Unix time.",
        ),
        (
            "drill_last_succeeded",
            _HOST,
            "Whether that drill passed, with every check: 1 or 0.",
        ),
        (
            "drill_last_recovery_time_seconds",
            _HOST,
            "Recovery time of that drill, until the restored server answered SQL.",
        ),
        (
            "drill_last_recovery_point_seconds",
            _HOST,
            "Recovery point of that drill: what the live host had beyond the backup, in time.",
        ),
        (
            "repository_read_succeeded",
            ("repository",),
            "Whether the repository could be listed: 1 or 0.",
        ),
        ("stored_sets", (*_SET, "state"), "Backup sets in the repository, by what they are worth."),
        ("stored_bytes", _SET, "What the backup sets of the host take in the repository."),
        (
            "stored_newest_timestamp_seconds",
            _SET,
            "Which moment's state the newest set has that is whole, with its keys, in Unix time.",
        ),
        (
            "archive_until_timestamp_seconds",
            _SET,
            "Up to which moment binary logs of the host are archived, in Unix time.",
        ),
        (
            "archive_gaps",
            _SET,
            "Gaps between the archives of binary logs that are in the repository.",
        ),
    )
)
"""Every metric there is, in the order of the files."""


def read_runs(config: Config) -> list[Sample]:
    """Return what the journal tells of backups and restores.

    Raises:
        JournalError: The journal cannot be read.
    """
    return collect_runs(
        durable.list_runs(config, RUNS), lambda run_id: durable.read_run(config, run_id)
    )


def collect_runs(newest: Iterable[RunRecord], read_run: Callable[[str], RunRecord]) -> list[Sample]:
    """Return what records tell of backups, restores and drills.

    Args:
        newest: The newest runs first; their steps are not needed.
        read_run: Returns the record of one of them with its steps.
    """
    chosen: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for record in newest:
        plan = record.plan
        is_over = record.status == KEPT or record.status in FAILED
        if plan.form == models.BACKUP and is_over:
            found = chosen["backup", plan.donor, plan.recipient]
            found.setdefault("last", record.run_id)
            found.setdefault("good" if record.status == KEPT else "bad", record.run_id)
        elif plan.form == models.RESTORE and is_over:
            chosen["restore", plan.recipient].setdefault("last", record.run_id)
        elif isinstance(plan, models.DrillPlan) and (is_over or _has_verdict(record)):
            chosen["drill", plan.set_host].setdefault("last", record.run_id)
    names = {run for found in chosen.values() for run in found.values()}
    records = {run: read_run(run) for run in sorted(names)}
    samples: list[Sample] = []
    for (form, *labels), found in sorted(chosen.items()):
        of = {word: records[run] for word, run in found.items()}
        samples += _DESCRIBE[form](tuple(labels), of)
    return samples


def collect_sets(
    config: Config, list_sets: Callable[[str], Sequence[StoredSet]]
) -> tuple[list[Sample], list[Exception]]:
    """Return what the catalogue tells of the repositories, and why some could not be read.

    Args:
        config: The configuration.
        list_sets: Lists the folders of one repository.
    """
    samples: list[Sample] = []
    errors: list[Exception] = []
    for name in sorted(config.repositories):
        try:
            listed = list_sets(name)
        except Exception as error:  # noqa: BLE001 - the others are told of all the same
            errors.append(error)
            samples.append(("xbvault_repository_read_succeeded", (name,), 0))
            continue
        samples.append(("xbvault_repository_read_succeeded", (name,), 1))
        samples += _describe_sets(name, listed)
    return samples, errors


def format_samples(samples: Iterable[Sample]) -> str:
    """Return samples in the text format of Prometheus, in the order of `METRICS`."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest  # noqa: PLC0415 - late

    registry = CollectorRegistry()
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_name[sample[0]].append(sample)
    for metric in METRICS:
        if metric.name not in by_name:
            continue
        gauge = Gauge(metric.name, metric.meaning, metric.labels, registry=registry)
        for _, labels, value in by_name.pop(metric.name):
            gauge.labels(*labels).set(value)
    if by_name:
        raise KeyError(f"metrics that nobody has described: {sorted(by_name)}")
    return generate_latest(registry).decode("utf-8")


def find_labels(name: str) -> tuple[str, ...]:
    """Return the labels of a metric."""
    return next(metric.labels for metric in METRICS if metric.name == name)


def write_runs(config: Config) -> Path | None:
    """Write what the journal tells to ``metrics.textfile``; None where none is configured.

    Raises:
        ConfigError: The file cannot be written.
        JournalError: The journal cannot be read.
    """
    if not config.metrics.textfile:
        return None
    path = expand_path(config.metrics.textfile)
    with _one_at_a_time(config):
        write_text(path, format_samples(read_runs(config)))
    return path


def write_sets(config: Config, samples: Iterable[Sample]) -> Path | None:
    """Write what the catalogue tells to the file beside it; None where none is configured.

    Raises:
        ConfigError: The file cannot be written.
    """
    if not config.metrics.textfile:
        return None
    path = find_sets_file(expand_path(config.metrics.textfile))
    write_text(path, format_samples(samples))
    return path


def find_sets_file(path: Path) -> Path:
    """Return the file for the catalogue's metrics, beside that for the journal's."""
    return path.with_name(f"{path.stem}-repositories{path.suffix}")


def write_text(path: Path, text: str) -> None:
    """Put a text in the place of a file that others may read, all at once.

    Raises:
        ConfigError: It cannot be written.
    """
    partial = ""
    try:
        # node_exporter reads names that end in .prom alone
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), _MODE)
            stream.write(text)
        Path(partial).replace(path)
    except OSError as error:
        if partial:
            with contextlib.suppress(OSError):
                Path(partial).unlink()
        raise ConfigError(
            f"cannot write {path}: {error.strerror}",
            hint="see that the directory of metrics.textfile is there, and that this user may "
            "write to it",
        ) from error


@contextlib.contextmanager
def _one_at_a_time(config: Config) -> Iterator[None]:
    """Let nobody who read the journal earlier write later."""
    import fcntl  # noqa: PLC0415 - with what needs it

    path = config.state_directory / "metrics.lock"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot open {path}: {error.strerror}", hint="see to the journal's directory"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _describe_backups(labels: tuple[str, ...], of: Mapping[str, RunRecord]) -> Iterator[Sample]:
    good, bad = of.get("good"), of.get("bad")
    if good is not None:
        document = summary.build_document(good)
        prefix = "xbvault_backup_last_success"
        yield f"{prefix}_timestamp_seconds", labels, _read_moment(good)
        yield f"{prefix}_stored_bytes", labels, document["stored_bytes"]
        yield f"{prefix}_streamed_bytes", labels, document["bytes_streamed"]
        yield f"{prefix}_duration_seconds", labels, summary.read_elapsed(good) or 0.0
        for step, seconds in _list_steps(good):
            yield f"{prefix}_step_seconds", (*labels, step), seconds
    if bad is not None:
        yield "xbvault_backup_last_failure_timestamp_seconds", labels, _read_moment(bad)
    yield "xbvault_backup_last_succeeded", labels, of["last"].status == KEPT


def _describe_restores(labels: tuple[str, ...], of: Mapping[str, RunRecord]) -> Iterator[Sample]:
    last = of["last"]
    checks = summary.collect_checks(last.steps)
    is_good = last.status == KEPT and all(check.ok for check in checks)
    yield "xbvault_restore_last_timestamp_seconds", labels, _read_moment(last)
    yield "xbvault_restore_last_succeeded", labels, is_good
    elapsed = summary.read_elapsed(last)
    if elapsed is not None:
        yield "xbvault_restore_last_duration_seconds", labels, elapsed
    for step, seconds in _list_steps(last):
        yield "xbvault_restore_last_step_seconds", (*labels, step), seconds


def _describe_drills(labels: tuple[str, ...], of: Mapping[str, RunRecord]) -> Iterator[Sample]:
    last = of["last"]
    document = summary.build_drill_document(last)
    is_good = document["verdict"] == report.PASSED
    yield "xbvault_drill_last_timestamp_seconds", labels, _read_drill_end(last)
    yield "xbvault_drill_last_succeeded", labels, is_good
    answers = document["recovery_time"]["answers_sql_seconds"]
    if answers is not None:
        yield "xbvault_drill_last_recovery_time_seconds", labels, answers
    behind = (document["recovery_point"] or {}).get("seconds")
    if behind is not None:
        yield "xbvault_drill_last_recovery_point_seconds", labels, behind


_DESCRIBE: Final[dict[str, Callable[..., Iterator[Sample]]]] = {
    "backup": _describe_backups,
    "restore": _describe_restores,
    "drill": _describe_drills,
}


def _describe_sets(repository: str, listed: Sequence[StoredSet]) -> Iterator[Sample]:
    of: dict[str, list[StoredSet]] = defaultdict(list)
    for each in listed:
        if each.host:
            of[each.host].append(each)
    for host, sets in sorted(of.items()):
        labels = (host, repository)
        counts: dict[str, int] = defaultdict(int)
        for each in sets:
            counts[each.report.state.value] += 1
        for state, count in sorted(counts.items()):
            yield "xbvault_stored_sets", (*labels, state), count
        manifests = [each.report.manifest for each in sets if each.report.manifest]
        yield "xbvault_stored_bytes", labels, sum(found.stored_bytes for found in manifests)
        newest = catalogue.find_newest(sets)
        if newest is not None:
            yield "xbvault_stored_newest_timestamp_seconds", labels, _as_seconds(newest.ended_at)
        archives = binlogs.sort_archives(replays.list_sound(sets), host)
        if archives:
            until = _as_seconds(archives[-1].ended_at)
            yield "xbvault_archive_until_timestamp_seconds", labels, until
            yield "xbvault_archive_gaps", labels, len(binlogs.find_gaps(archives))


def _list_steps(record: RunRecord) -> Iterator[tuple[str, float]]:
    for step, seconds in summary.read_seconds(record).items():
        if step != "total":
            yield step, seconds


def _has_verdict(record: RunRecord) -> bool:
    """Return whether a drill that was ended in another way has found out what it was to find out.

    One that found something against the set is cancelled at once; one that kept its server is undone
    or forgotten later.
    """
    is_found = record.status == "cancelled" and summary.is_verdict(record.error)
    return is_found or record.status in PUT_BACK


def _read_drill_end(record: RunRecord) -> float:
    """Return when a drill ended, in Unix time; what was put back later does not count."""
    steps = record.steps if record.status in PUT_BACK else ()
    ended = max((step.ended_at for step in steps), default="")
    return _as_seconds(ended) if ended else _read_moment(record)


def _read_moment(record: RunRecord) -> float:
    return _as_seconds(record.ended_at or record.began_at)


def _as_seconds(moment: str) -> float:
    return dt.datetime.fromisoformat(moment).timestamp()
