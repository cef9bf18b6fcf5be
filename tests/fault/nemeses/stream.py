"""What breaks in the stream from donor to recipient."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from nemesis import GOES_ON, Moment, before, in_stream, nemesis
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stand import Stand

STREAM = in_stream(OURS.backup_gate)
STALLS = f"stall_seconds = {OURS.stall_seconds}"
FILTER = Path(__file__).parents[1] / "stream_filter.py"
_FILTERED = """\
#!/bin/bash
# The backup tool, whose stream is spoiled on its way; statuses and counts stay those of a good one.
set -o pipefail
case " $* " in
    *--backup*) {real} "$@" | python3 /usr/local/sbin/stream_filter.py {how} ;;
    *) exec {real} "$@" ;;
esac
"""


@nemesis(
    "backup-tool-killed",
    moments=STREAM,
    comes=["CommandError"],
    says=[f"{OURS.backup_tool} was killed by signal 9"],
)
def _backup_tool_killed(stand: Stand) -> Iterator[None]:
    """The donor's backup tool is killed in the middle of the stream."""
    stand.signal_on("master", OURS.backup_tool, "KILL")
    yield


@nemesis(
    "backup-tool-stopped",
    moments=STREAM,
    comes=["CommandError"],
    says=["stalled: no byte"],
    options=STALLS,
)
def _backup_tool_stopped(stand: Stand) -> Iterator[None]:
    """The donor's backup tool is stopped (SIGSTOP) for good in the middle of the stream."""
    stand.signal_on("master", OURS.backup_tool, "STOP")
    yield


@nemesis("backup-tool-slowed", moments=STREAM, comes=[GOES_ON], mends_after_seconds=4)
def _backup_tool_slowed(stand: Stand) -> Iterator[None]:
    """The donor's backup tool stands still for some seconds, and goes on."""
    stand.signal_on("master", OURS.backup_tool, "STOP")
    yield
    stand.signal_on("master", OURS.backup_tool, "CONT")


@nemesis(
    "extraction-tool-killed",
    moments=STREAM,
    comes=["CommandError"],
    says=[f"{OURS.stream_tool} was killed by signal 9"],
)
def _extraction_tool_killed(stand: Stand) -> Iterator[None]:
    """The recipient's extraction tool is killed in the middle of the stream."""
    stand.signal_on("replica", OURS.stream_tool, "KILL")
    yield


@nemesis(
    "extraction-tool-stopped",
    moments=STREAM,
    comes=["CommandError"],
    says=["stalled: no byte"],
    options=STALLS,
)
def _extraction_tool_stopped(stand: Stand) -> Iterator[None]:
    """The recipient's extraction tool is stopped (SIGSTOP) for good in the middle of the stream."""
    stand.signal_on("replica", OURS.stream_tool, "STOP")
    yield


@nemesis(
    "donor-and-recipient-apart-for-a-moment",
    moments=[*STREAM, *before("start-replication", "wait-for-replication", "verify-replication")],
    comes=[GOES_ON],
    mends_after_seconds=5,
)
def _apart_for_a_moment(stand: Stand) -> Iterator[None]:
    """The network between donor and recipient is cut for five seconds."""
    with stand.apart("master", "replica"):
        yield


@nemesis(
    "donor-cannot-reach-recipient",
    moments=before("stream-backup"),
    comes=["RemoteError", "CommandError"],
    says=["the way from master"],
)
def _cannot_reach(stand: Stand) -> Iterator[None]:
    """There is no way from the donor to the recipient when the stream is to begin."""
    with stand.apart("master", "replica"):
        yield


@nemesis(
    "donor-and-recipient-apart",
    moments=[*STREAM, *before("wait-for-replication")],
    comes=["CommandError", "VerificationError"],
    says=["ssh ended", "did not catch up"],
    options="catch_up_seconds = 20",
)
def _apart(stand: Stand) -> Iterator[None]:
    """The network between donor and recipient is cut until the run has given up."""
    with stand.apart("master", "replica"):
        yield


@contextlib.contextmanager
def _spoiled(stand: Stand, how: str) -> Iterator[None]:
    """Put a filter behind the donor's backup tool."""
    with stand.in_place_of("master", OURS.backup_tool) as (program, real):
        script = program.with_name("stream_filter.py")
        shutil.copyfile(FILTER, script)
        program.write_text(_FILTERED.format(real=real, how=how), encoding="utf-8")
        program.chmod(0o755)
        try:
            yield
        finally:
            script.unlink()


@nemesis(
    "stream-cut-in-a-chunk",
    moments=before("stream-backup"),
    comes=["CommandError"],
    says=[f"{OURS.stream_tool} ended with status 1", f"{OURS.backup_tool} failed"],
)
def _cut_in_a_chunk(stand: Stand) -> Iterator[None]:
    """The stream ends in the middle of a chunk, and the backup tool says that all went well."""
    with _spoiled(stand, "cut-in-chunk"):
        yield


@nemesis(
    "stream-cut-at-a-file-boundary",
    moments=before("stream-backup"),
    comes=[GOES_ON, "VerificationError"],
    says=["the received backup set is not whole"],
    sample=True,
)
def _cut_at_a_file(stand: Stand) -> Iterator[None]:
    """The stream ends between two files; the backup tool and the extraction say all went well."""
    with _spoiled(stand, "cut-at-file"):
        yield


@nemesis(
    "byte-flipped-in-the-stream",
    moments=before("stream-backup"),
    comes=["CommandError"],
    says=[f"{OURS.stream_tool} ended with status 1", f"{OURS.backup_tool} failed"],
    sample=True,
)
def _byte_flipped(stand: Stand) -> Iterator[None]:
    """One byte of a table's pages is flipped on its way to the recipient."""
    with _spoiled(stand, "flip"):
        yield


@nemesis(
    "prepare-killed",
    moments=[Moment(step="prepare-backup-set", gate=OURS.prepare_gate)],
    comes=[GOES_ON],
)
def _prepare_killed(stand: Stand) -> Iterator[None]:
    """The backup tool is killed while it prepares; the run goes back to the stream by itself."""
    stand.on("replica", "pkill -KILL -f -- '[-]-prepare'")
    yield
