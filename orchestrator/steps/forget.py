"""Steps that give up, on purpose, what undo would need."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, TypeVar

from orchestrator import log
from orchestrator.errors import PreconditionError
from orchestrator.facts.layout import VAULT
from orchestrator.flavors.interface import account_name
from orchestrator.flavors.mysql_keyrings import KeyringKind
from orchestrator.models import COPIES
from orchestrator.steps import cleanup, key_names, keyrings, places, replication, restore
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.models import Plan

T = TypeVar("T")

NOT_OF_A_RUN = "the datadir in place is not of a run"
DOES_NOT_SAY = "another datadir set aside does not say what it needs"
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
    """Key versions that were destroyed in the recipient's own mount, or keys removed from it.

    Attributes:
        versions: By key id, ascending.
        kept_because: Why nothing was destroyed, where that is so.
        names: Keys of MySQL, by their names in the mount.
    """

    versions: dict[str, tuple[int, ...]]
    kept_because: str
    names: tuple[str, ...] = ()


@step(
    "remove-old-datadir",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=7200,
    after_others=True,
    forms=COPIES,
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
    remote.run(["rm", "-f", "--", keyrings.kept_config_path(plan)])
    remote.run(["rm", "-rf", "--", *paths], timeout_seconds=tools.seconds_left())
    places.remove_empty_vaults(tools, plan)
    return cleanup.Removed(names=paths)


@step(
    "destroy-unused-key-versions",
    role="recipient",
    repeat=Repeat.SAFE,
    after_others=True,
    forms=COPIES,
)
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
    if plan.keyring:
        return _remove_unneeded_names(tools, plan)
    in_place = restore.read_ranges(tools, restore.find_run_in_place(tools, plan))
    if in_place is None:
        return DestroyedVersions(versions={}, kept_because=NOT_OF_A_RUN)
    others = _read_others(tools, plan, restore.read_ranges)
    if others is None:
        return DestroyedVersions(versions={}, kept_because=DOES_NOT_SAY)
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


@step("drop-earlier-accounts", role="source", repeat=Repeat.SAFE, after_others=True, forms=COPIES)
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
    if not plan.replicates:
        return cleanup.Removed(names=())
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


def _remove_unneeded_names(tools: Tools, plan: Plan) -> DestroyedVersions:
    if not KeyringKind(plan.keyring).uses_vault:
        return DestroyedVersions(versions={}, kept_because="the keyring is a file of the host")
    mine = key_names.read_names(tools, plan.run_id)
    run_in_place = restore.find_run_in_place(tools, plan)
    in_place = key_names.read_names(tools, run_in_place)
    others = _read_others(tools, plan, key_names.read_names)
    kept_because = ""
    if mine is None:
        kept_because = "the run has not written down which keys its earlier datadir needed"
    elif in_place is None or run_in_place < plan.run_id:  # run ids sort by time
        kept_because = NOT_OF_A_RUN
    elif others is None:
        kept_because = DOES_NOT_SAY
    if mine is None or in_place is None or others is None or kept_because:
        return DestroyedVersions(versions={}, kept_because=kept_because)
    names = key_names.list_there(tools, plan, key_names.unneeded_names(mine, in_place, others))
    key_names.remove_names(tools, plan, names)
    log.get().info("notice", removed=len(names))
    return DestroyedVersions(versions={}, kept_because="", names=names)


def _read_others(
    tools: Tools, plan: Plan, read: Callable[[Tools, str], T | None]
) -> list[T] | None:
    """Return what the other datadirs set aside need; None if one of them does not say."""
    bases = (f"{plan.datadir}.xbvault-old-", f"{plan.datadir}/{VAULT}/old-")
    listed = tools.recipient.run(["sh", "-c", LIST_OLD, "list-old", *bases], check=False).text
    needs = []
    for path in listed.split("\n"):
        run_id = next((path.removeprefix(base) for base in bases if path.startswith(base)), "")
        if run_id in ("", plan.run_id):
            continue
        found = read(tools, run_id)
        if found is None:
            return None
        needs.append(found)
    return needs
