"""Steps that give up, on purpose, what undo would need."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import log
from orchestrator.errors import PreconditionError
from orchestrator.facts.layout import VAULT
from orchestrator.flavors.interface import account_name
from orchestrator.steps import cleanup, places, replication, restore
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import Plan

LIST_OLD = """\
for base do
    for d in "$base"*; do
        case $d in *.stray) continue ;; esac
        if [ -d "$d" ]; then printf '%s\n' "$d"; fi
    done
done
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DestroyedVersions:
    """Key versions that were destroyed in the recipient's own mount.

    Attributes:
        versions: By key id, ascending.
        kept_because: Why nothing was destroyed, where that is so.
    """

    versions: dict[str, tuple[int, ...]]
    kept_because: str


@step(
    "remove-old-datadir",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=7200,
    after_others=True,
)
def remove_old_datadir(tools: Tools, plan: Plan) -> cleanup.Removed:
    """Remove what the run set aside: the datadir, and files in other directories. For good.

    Args:
        tools: The door to the recipient.
        plan: The run's plan.

    Returns:
        What went.

    Raises:
        PreconditionError: A server runs in it, or the run's own datadir was never put in place.
        CommandError: It cannot be removed.
        InterruptedWorkError: The swap is half done, so that it may be the only copy.

    Repeat:
        What is gone is no error.
    """
    remote = tools.recipient
    paths = places.list_removable(plan, old=True)
    places.need_whole_swap(tools, plan)
    if remote.run(["test", "-d", places.mark_path(plan)], check=False).status != 0:
        raise PreconditionError(
            f"there is no datadir at {plan.datadir}",
            host=plan.recipient,
            hint="the copy set aside may be the only one; nothing was removed",
        )
    remote.run(["install", "-d", "-m", "0700", "--", plan.run_dir])
    remote.write_file(f"{plan.run_dir}/forgotten", "")
    remote.run(["rm", "-rf", "--", *paths], timeout_seconds=tools.seconds_left())
    places.remove_empty_vaults(tools, plan)
    return cleanup.Removed(names=paths)


@step("destroy-unused-key-versions", role="recipient", repeat=Repeat.SAFE, after_others=True)
def destroy_unused_key_versions(tools: Tools, plan: Plan) -> DestroyedVersions:
    """Destroy the versions in the recipient's own mount that no datadir needs any more.

    Needed are the versions from the first one that the datadir in place was made with, and those
    that another datadir set aside was using when it was set aside.

    Args:
        tools: The doors to Vault and to the recipient.
        plan: The run's plan.

    Returns:
        What was destroyed, or why nothing was.

    Raises:
        SecretError: Vault refuses.

    Repeat:
        What is destroyed already is left alone.
    """
    in_place = restore.read_ranges(tools, restore.find_run_in_place(tools, plan))
    if in_place is None:
        return DestroyedVersions(versions={}, kept_because="the datadir in place is not of a run")
    others = _read_other_ranges(tools, plan)
    if others is None:
        return DestroyedVersions(
            versions={}, kept_because="another datadir set aside does not say what it needs"
        )
    destroyed: dict[str, tuple[int, ...]] = {}
    for key_id, counts in in_place.items():
        metadata = tools.vault.read_metadata(plan.own_mount, key_id)
        alive = [n for n, v in (metadata.versions if metadata else {}).items() if not v.destroyed]
        unused = unused_versions(
            alive,
            first_needed=counts["first_new"],
            ranges=[r[key_id] for r in others if key_id in r],
        )
        if unused:
            tools.vault.destroy_versions(plan.own_mount, key_id, list(unused))
            destroyed[key_id] = unused
    log.get().info("notice", destroyed={k: len(v) for k, v in destroyed.items()})
    return DestroyedVersions(versions=destroyed, kept_because="")


@step("drop-earlier-accounts", role="source", repeat=Repeat.SAFE, after_others=True)
def drop_earlier_accounts(tools: Tools, plan: Plan) -> cleanup.Removed:
    """Drop the accounts on the source that earlier clones of this recipient replicated with.

    Args:
        tools: The doors to the source and to Vault.
        plan: The run's plan.

    Returns:
        Their names.

    Raises:
        CommandError: The source refuses.

    Repeat:
        What is gone is no error.
    """
    folder = plan.account_path.rpartition("/")[0]
    dropped = []
    for run_id in tools.vault.list_secrets(tools.config.vault.mount, folder):
        if run_id < plan.run_id:  # run ids sort by time
            user = account_name(run_id)
            replication.drop_accounts(tools, plan, user=user, path=f"{folder}/{run_id}")
            dropped.append(user)
    return cleanup.Removed(names=tuple(dropped))


def unused_versions(
    alive: list[int], *, first_needed: int, ranges: list[dict[str, int]]
) -> tuple[int, ...]:
    """Return the versions that nobody needs.

    Args:
        alive: Versions that are not destroyed.
        first_needed: The oldest version that the datadir in place may need.
        ranges: ``low`` and ``high`` of each other datadir set aside.
    """
    return tuple(
        version
        for version in sorted(alive)
        if version < first_needed and not any(r["low"] <= version <= r["high"] for r in ranges)
    )


def _read_other_ranges(tools: Tools, plan: Plan) -> list[dict[str, dict[str, int]]] | None:
    """Return what the other datadirs set aside need; None if one of them does not say."""
    bases = (f"{plan.datadir}.xbvault-old-", f"{plan.datadir}/{VAULT}/old-")
    listed = tools.recipient.run(["sh", "-c", LIST_OLD, "list-old", *bases], check=False).text
    ranges = []
    for path in listed.split("\n"):
        run_id = next((path.removeprefix(base) for base in bases if path.startswith(base)), "")
        if run_id in ("", plan.run_id):
            continue
        found = restore.read_ranges(tools, run_id)
        if found is None:
            return None
        ranges.append(found)
    return ranges
