"""Full disks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemesis import GOES_ON, Moment, before, in_stream, nemesis
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stand import Stand


@nemesis(
    "recipient-disk-full-in-staging",
    moments=in_stream(OURS.extract_gate),
    comes=["CommandError"],
    says=["space"],
    sample=True,
)
def _full_in_staging(stand: Stand) -> Iterator[None]:
    """The recipient's filesystem is full in the middle of the stream."""
    stand.fill("replica", "/var/lib")
    yield
    stand.make_room("replica", "/var/lib")


@nemesis(
    "recipient-disk-full",
    moments=[
        Moment(step="prepare-backup-set", gate=OURS.prepare_gate),
        *before(
            "move-backup-set",
            "stop-server",
            "swap-datadir",
            "start-server",
            "start-replication",
            "rebuild-aria-tables",
            "restart-on-own-mount",
            "remove-job-files",
        ),
    ],
    comes=[GOES_ON, "CommandError", "VerificationError", "RemoteError"],
    says=["space"],
    # A MySQL that waits for space looks once a minute.
    options="catch_up_seconds = 80",
)
def _full(stand: Stand) -> Iterator[None]:
    """The recipient's filesystem is full until the run has given up."""
    stand.fill("replica", "/var/lib")
    yield
    stand.make_room("replica", "/var/lib")
