"""The places of a swap on the recipient: their folders, their list, and the script that swaps them.

How the script works stands in ``orchestrator/host/swap.sh``. The list is written before its first
rename and never changed; the phase says how far it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import host, log
from orchestrator.errors import InterruptedWorkError, VerificationError
from orchestrator.facts.layout import VAULT
from orchestrator.models import RestorePlan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.models import Place, Plan
    from orchestrator.steps.registry import Tools

SWAPPED, RESTORED, NOT_BEGUN = "swapped", "restored", ""
SWAP_SECONDS = 1800
MARK = "mysql"
"""The schema that every datadir has: its identity tells whose the datadir is, where the datadir
itself is never renamed."""

IDENTITY = "new-datadir-inode"
"""File in the run's folder: the identity of the directory that the run made."""

NO_SCHEMAS = (VAULT, "lost+found")
"""The backup tool takes a directory of the donor's datadir for an empty schema."""

MAKE_VAULT = """\
set -eu
[ ! -L "$1/$2" ] || { echo "$1/$2 is a symbolic link" >&2; exit 3; }
mkdir -p -- "$1/$2"
chown --reference="$1" -- "$1/$2"
chmod 0700 -- "$1/$2"
"""
"""Owned by the server's account, because a backup of it walks through all directories."""

DISTRIBUTE = """\
set -eu
from=$1 path=$2 to=$3 owner=$4
shift 4
exec 9<"$from"
flock 9
mkdir -p -- "$to"
rm -f -- "$to/.part"
same=
[ "$(stat -c %d -- "$from")" != "$(stat -c %d -- "$to")" ] || same=1
IFS=
for pattern; do
    for file in "$from"/$pattern; do
        [ -f "$file" ] || continue
        if [ "$same" ]; then
            mv -f -T -- "$file" "$to/${file##*/}"
        else
            cp -a -T -- "$file" "$to/.part"
            sync -- "$to/.part"
            mv -f -T -- "$to/.part" "$to/${file##*/}"
            sync -- "$to"
            rm -- "$file"
        fi
    done
done
chown -R -- "$owner" "$to"
if [ -d "$path" ]; then chmod --reference="$path" -- "$to"; else chmod 0700 -- "$to"; fi
sync -f -- "$to"
"""
"""Takes the files of one place out of a new datadir. It can be cut off and begun again: a file is
removed when its copy is on disk."""

REMOVE_EMPTY = 'for d do if [ -d "$d" ]; then rmdir --ignore-fail-on-non-empty -- "$d"; fi; done'


def read_phase(tools: Tools, plan: Plan) -> str:
    """Return how far the swap came; `NOT_BEGUN` if nothing was ever renamed."""
    found = tools.recipient.run(["cat", "--", f"{plan.run_dir}/swap.phase"], check=False)
    return found.text.strip()


def is_half_done(phase: str) -> bool:
    """Return whether a swap was cut off in this phase."""
    return phase not in (NOT_BEGUN, SWAPPED, RESTORED)


def need_whole_swap(tools: Tools, plan: Plan) -> None:
    """Refuse to remove anything while the swap is half done.

    Raises:
        InterruptedWorkError: It is.
    """
    phase = read_phase(tools, plan)
    if is_half_done(phase):
        raise InterruptedWorkError(
            f"the swap of run {plan.run_id} is half done ({phase})",
            host=plan.recipient,
            hint=f"`xbvault runs resume {plan.run_id}`, or `xbvault runs undo {plan.run_id}`",
        )


def mark_path(plan: Plan) -> str:
    """Return the directory in place whose identity tells which run made the datadir."""
    return plan.datadir if plan.swap_places[0].is_whole else f"{plan.datadir}/{MARK}"


def swap_record(plan: Plan) -> str:
    """Return the file on the recipient that holds the new directory's identity."""
    return f"{plan.run_dir}/{IDENTITY}"


def new_mark_path(plan: Plan) -> str:
    """Return the same directory while it waits for the swap."""
    return plan.new_datadir if plan.swap_places[0].is_whole else f"{plan.new_datadir}/{MARK}"


def ignored_directories(plan: Plan) -> tuple[str, ...]:
    """Return what the server must not take for a schema."""
    return () if plan.swap_places[0].is_whole else (VAULT,)


def make_vaults(tools: Tools, plan: Plan) -> None:
    """Make our hidden folder in every place whose entries are exchanged."""
    for place in _exchanged(plan):
        tools.recipient.run(["sh", "-c", MAKE_VAULT, "make-vault", place.path, VAULT])


def distribute(tools: Tools, plan: Plan, *, owner: str) -> None:
    """Take out of the new datadir what belongs elsewhere, so that the swap is renames alone."""
    strangers = [f"{plan.new_datadir}/{name}" for name in NO_SCHEMAS]
    tools.recipient.run(["rm", "-rf", "--", *strangers])
    make_vaults(tools, plan)
    for place in (*plan.swap_places[1:], *plan.subfolders):
        words = [plan.new_datadir, place.path, place.new, owner, *place.patterns]
        tools.recipient.run(
            ["sh", "-c", DISTRIBUTE, "distribute", *words], timeout_seconds=tools.seconds_left()
        )


def find_new_home(plan: Plan, file: str) -> str:
    """Return where a file of the new datadir waits whose name stands in a place's patterns."""
    for place in (*plan.swap_places[1:], *plan.subfolders):
        if file in place.patterns:
            return place.new
    return plan.new_datadir


def go_forward(tools: Tools, plan: Plan) -> None:
    """Put the new in place, from wherever the swap stands.

    Raises:
        CommandError: A rename failed; `go_back` and `go_forward` both go on from there.
    """
    if read_phase(tools, plan) in (NOT_BEGUN, RESTORED):
        _write_list(tools, plan)
    _run(tools, plan, "forward")


def write_down(tools: Tools, plan: Plan, phase: str) -> None:
    """Write list and phase down for a swap that was begun without them."""
    _write_list(tools, plan)
    tools.recipient.write_file(f"{plan.run_dir}/swap.phase", f"{phase}\n")


def go_back(tools: Tools, plan: Plan) -> None:
    """Put the earlier back in place, from wherever the swap stands.

    Raises:
        CommandError: A rename failed; it goes on from there when it is called again.
    """
    _run(tools, plan, "back")


def swap_list(places: Iterable[Place]) -> str:
    """Return the list that the script works on.

    Raises:
        VerificationError: A path or pattern could not stand on a line of its own.
    """
    lines: list[str] = []
    for place in places:
        lines += ["whole" if place.is_whole else "entries", place.path, place.old, place.new]
        lines += [f"+{pattern}" for pattern in place.patterns]
        lines += [f"-{name}" for name in place.left_alone]
        lines.append(".")
    odd = [line for line in lines if "\n" in line or "\0" in line]
    if odd:
        raise VerificationError(f"a path of the swap has a line break: {odd[0]!r}")
    return "\n".join([*lines, "end", ""])


def list_new(plan: Plan) -> tuple[str, ...]:
    """Return the directories in which the new files of a run wait, every one checked to be ours."""
    new = {place.new for place in plan.swap_places}
    return tuple(path for path in list_removable(plan, old=False) if path in new)


def list_removable(plan: Plan, *, old: bool) -> tuple[str, ...]:
    """Return what the run has put beside the recipient's data, every path checked to be ours.

    Args:
        plan: The run's plan.
        old: Those that keep what was set aside, instead of staging and what was not swapped in.

    Raises:
        VerificationError: One of them does not have a name of ours.
    """
    places = plan.swap_places
    paths = (
        [path for place in places for path in (place.old, f"{place.old}.stray")]
        if old
        else [plan.staging_dir, *(place.new for place in places)]
    )
    if not old and isinstance(plan, RestorePlan):
        paths += [*plan.increment_dirs, *([plan.logs_file] if plan.replay else [])]
    for path in paths:
        beside, inside = (
            any(path.startswith(f"{place.path}{form}") for place in places)
            for form in (".xbvault-", f"/{VAULT}/")
        )
        if not (beside or inside) or plan.run_id not in path:
            raise VerificationError(f"not a directory of ours: {path}", host=plan.recipient)
    return tuple(paths)


def remove_empty_vaults(tools: Tools, plan: Plan) -> None:
    """Remove our hidden folders that keep nothing any more.

    Where nothing was set aside, an empty folder still tells the way back that its filesystem is
    mounted; it goes when that way has been taken.
    """
    empty = [f"{place.path}/{VAULT}" for place in _exchanged(plan)]
    if read_phase(tools, plan) == RESTORED:
        empty = [*(place.old for place in _exchanged(plan)), *empty]
    if empty:
        tools.recipient.run(["sh", "-c", REMOVE_EMPTY, "remove-empty", *empty])


def _write_list(tools: Tools, plan: Plan) -> None:
    tools.recipient.write_file(f"{plan.run_dir}/swap.list", swap_list(plan.swap_places))


def _exchanged(plan: Plan) -> list[Place]:
    return [place for place in plan.swap_places if not place.is_whole]


def _run(tools: Tools, plan: Plan, way: str) -> None:
    result = tools.recipient.run(
        ["sh", "-s", "--", way, plan.run_dir],
        stdin=host.script("swap.sh"),
        timeout_seconds=SWAP_SECONDS,
    )
    for line in result.text.split("\n"):
        if line.startswith("stray "):
            message = f"appeared during the swap and was set aside: {line.removeprefix('stray ')}"
            log.get().info("notice", message=message)
