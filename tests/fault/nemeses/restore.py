"""What breaks while the prepared set is put in place, beside the datadir that is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemesis import Moment, nemesis
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stand import Stand

RESTORE = [Moment(step="move-backup-set", gate=OURS.restore_gate)]


@nemesis(
    "restore-killed",
    moments=RESTORE,
    comes=["CommandError"],
    says=["was killed by signal 9"],
    flavors=["mysql"],
)
def _restore_killed(stand: Stand) -> Iterator[None]:
    """The backup tool is killed while it puts the prepared set into the new data directory."""
    stand.on("replica", f"pkill -KILL -f -- '[-]{OURS.restore_word[1:]}'")
    yield


@nemesis(
    "recipient-disk-full-at-the-restore",
    moments=RESTORE,
    comes=["CommandError"],
    says=["space"],
    flavors=["mysql"],
)
def _full_at_the_restore(stand: Stand) -> Iterator[None]:
    """The recipient's filesystem is full when the prepared set is put into the new data directory."""
    stand.fill("replica", "/var/lib")
    yield
    stand.make_room("replica", "/var/lib")
