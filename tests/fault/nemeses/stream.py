"""What breaks in the stream from donor to recipient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemesis import in_stream, nemesis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stand import Stand


@nemesis(
    "backup-tool-killed",
    moments=in_stream("master:mariadb-backup"),
    comes=["CommandError"],
    says=["send-backup failed"],
    sample=True,
)
def _backup_tool_killed(stand: Stand) -> Iterator[None]:
    """The donor's backup tool is killed in the middle of the stream."""
    stand.signal_on("master", "mariadb-backup", "KILL")
    yield
