"""What is told of a run when it has ended: metrics and notices. Neither ever fails a run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from orchestrator.cli import output
from orchestrator.errors import ConfigError, OrchestratorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.cli.call import Call
    from orchestrator.config import Config
    from orchestrator.durable import RunRecord


@contextlib.contextmanager
def after(call: Call, run_id: str, *, is_told: bool) -> Iterator[None]:
    """Tell of a run when what is inside the block has ended, however it did.

    Args:
        call: The call.
        run_id: The run.
        is_told: Whether a notice of its end is sent, where one is wanted.
    """
    try:
        yield
    except Exception as error:
        _tell_end(call, run_id, _as_ours(error), is_told=is_told)
        raise
    _tell_end(call, run_id, None, is_told=is_told)


def tell_failure(call: Call, error: Exception) -> None:
    """Send the notice of what failed without a run, where nobody was there to see it."""
    if not call.attempt:
        return

    def warn(about: str, found: OrchestratorError) -> None:
        output.talk(f"note: {about}: {found.message}")

    def tell() -> None:
        from orchestrator import notices  # noqa: PLC0415 - late, for the start-up

        config = call.load_config()
        if notices.is_wanted(config, is_good=False):
            notice = notices.describe_failure(call.attempt, _as_ours(error))
            _report_failed(call.backend.send_notice(config, notice).failed, warn)

    _try("the notice was not sent", tell, warn)


def _tell_end(call: Call, run_id: str, error: OrchestratorError | None, *, is_told: bool) -> None:
    try:
        config = call.load_config()
    except OrchestratorError:  # it has changed since the run began
        return
    if not (config.metrics.textfile or config.notices.urls_file):
        return

    def warn(about: str, found: OrchestratorError) -> None:
        with contextlib.suppress(Exception):
            call.backend.warn(config, run_id, about, found)

    record: list[RunRecord] = []
    _try("the run cannot be told of", lambda: record.extend(_read(call, config, run_id)), warn)
    if record and config.metrics.textfile:
        _try("the metrics were not written", lambda: _write_metrics(call, config, record[0]), warn)
    if is_told and config.notices.urls_file:
        _try(
            "the notice was not sent",
            lambda: _send(call, config, record[0] if record else None, error, warn),
            warn,
        )


def _read(call: Call, config: Config, run_id: str) -> Iterator[RunRecord]:
    with contextlib.suppress(ConfigError):  # it never began
        yield call.backend.read_run(config, run_id)


def _write_metrics(call: Call, config: Config, record: RunRecord) -> None:
    from orchestrator import models  # noqa: PLC0415 - late, for the start-up

    if record.plan.form in (models.BACKUP, *models.RESTORES):
        call.backend.write_metrics(config)


def _send(
    call: Call,
    config: Config,
    record: RunRecord | None,
    error: OrchestratorError | None,
    warn: Callable[[str, OrchestratorError], None],
) -> None:
    from orchestrator import notices  # noqa: PLC0415 - late, for the start-up

    if record is None:
        notice = notices.describe_failure(
            f"run {call.run_id}: did not begin", error or OrchestratorError("no run")
        )
    elif record.status == "running":  # another process does it, and will tell
        return
    else:
        notice = notices.describe_run(record, error)
    if notices.is_wanted(config, is_good=notice.is_good):
        _report_failed(call.backend.send_notice(config, notice).failed, warn)


def _report_failed(failed: tuple[str, ...], warn: Callable[[str, OrchestratorError], None]) -> None:
    if failed:
        warn(
            "the notice did not go to all",
            OrchestratorError(f"the notice did not go to {'; '.join(failed)}"),
        )


def _try(
    about: str, act: Callable[[], None], warn: Callable[[str, OrchestratorError], None]
) -> None:
    """Do what must not fail a run: whatever goes wrong is a warning."""
    try:
        act()
    except Exception as error:  # noqa: BLE001 - a run never fails for what is told of it
        warn(about, _as_ours(error))


def _as_ours(error: Exception) -> OrchestratorError:
    if isinstance(error, OrchestratorError):
        return error
    return OrchestratorError(f"{type(error).__name__}: {error}")
