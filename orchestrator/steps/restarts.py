"""Whether the recipient was restarted while what it received may not have been on its disk.

What a stream has written reaches the disk when the kernel finds time, and at the latest with the swap,
which waits for it. A host that loses its power in between comes back with files of the right names and
lengths that are not what was received, and nothing in the journal of runs tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import InterruptedWorkError
from orchestrator.steps import records

if TYPE_CHECKING:
    from orchestrator.models import RunPlan
    from orchestrator.steps.registry import Tools

STREAMS = ("stream-backup", "fetch-backup-set")
"""Steps in which a recipient receives what it is to become; a run has one of them."""
BOOT_FILE = "boot-of-set"
"""File of a run, on the recipient: the boot, as the kernel names it, in which it began to receive."""
BOOT_ID = "/proc/sys/kernel/random/boot_id"

MAKE_FOLDERS = f"""\
set -eu
umask 077
run_dir=$2
install -d -m 0700 -- "$@"
cat {BOOT_ID} >"$run_dir/{BOOT_FILE}.new"
sync -- "$run_dir/{BOOT_FILE}.new"
mv -f -T -- "$run_dir/{BOOT_FILE}.new" "$run_dir/{BOOT_FILE}"
sync -- "$run_dir"
"""
_TELL_BOOTS = f'cat -- {BOOT_ID}; [ ! -e "$1/{BOOT_FILE}" ] || cat -- "$1/{BOOT_FILE}"'


def make_folders(tools: Tools, plan: RunPlan, *folders: str) -> None:
    """Make the run's folder and those that a set is received in, and note which boot this is."""
    words = [records.RUNS, plan.run_dir, *folders]
    tools.recipient.run(["sh", "-c", MAKE_FOLDERS, "make-folders", *words])


def need_same_boot(tools: Tools, plan: RunPlan) -> None:
    """Refuse a set that was received before the recipient was restarted.

    Raises:
        InterruptedWorkError: It was.
    """
    answer = tools.recipient.run(["sh", "-c", _TELL_BOOTS, "tell-boots", plan.run_dir])
    now, *noted = answer.text.split()
    if was_restarted(now, *noted):
        raise explain(plan)


def was_restarted(now: str, noted: str = "") -> bool:
    """Return whether it is another boot than the one that was noted, if one was.

    A run that began before this was noted has no such file, and is believed.
    """
    return bool(noted) and noted != now


def explain(plan: RunPlan) -> InterruptedWorkError:
    """Return the error of a set that was received in another boot."""
    return InterruptedWorkError(
        f"{plan.recipient} was restarted since it began to receive the set, and some of it may never "
        "have reached its disk",
        host=plan.recipient,
        hint="the run goes back to the stream; the recipient's data was not touched",
    )
