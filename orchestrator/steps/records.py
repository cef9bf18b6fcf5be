"""What a run writes down beside its transition key, before it does what cannot be seen otherwise.

The record is the custom metadata of ``transition-keys/<backup_id>``. It outlives the key: after a
clone all versions of the key are destroyed and the record stays, saying when and by which run. Runs
that share a key have each a record of its own, at ``transition-keys/<backup_id>.<run_id>``.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from orchestrator import lock
from orchestrator.errors import SecretError
from orchestrator.models import KeyVersions, Secret
from orchestrator.repository import set_keys

if TYPE_CHECKING:
    from orchestrator.models import RunPlan
    from orchestrator.steps.registry import Tools

RUNS = "/var/lib/xbvault/runs"
"""Folder on the recipient; each run has one of its own in it, see `RunPlan.run_dir`."""
DESTROYED = set_keys.DESTROYED
"""The record's state from the end of its run on: no version of the key can be read any more."""
_VERSIONS = re.compile(r"donor=([0-9]{1,9}) own=([0-9]{1,9})")


def read_record(tools: Tools, plan: RunPlan) -> dict[str, str]:
    """Return the record; empty if there is none."""
    return read_record_at(tools, plan.record_path)


def read_record_at(tools: Tools, path: str) -> dict[str, str]:
    """Return the record at a path; empty if there is none."""
    metadata = tools.vault.read_metadata(tools.config.vault.mount, path)
    return dict(metadata.custom) if metadata else {}


def update_record(tools: Tools, plan: RunPlan, changes: dict[str, str]) -> None:
    """Add to the record. Only the run that holds the recipient lock writes it."""
    record = read_record(tools, plan)
    if all(record.get(key) == value for key, value in changes.items()):
        return
    tools.vault.write_custom_metadata(
        tools.config.vault.mount, plan.record_path, {**record, **changes}
    )


def have_others_ended(tools: Tools, plan: RunPlan) -> bool:
    """Return whether every other run of the group has come to its end; true without a group.

    Each run says so in its own record before it asks. So of two that end at once, one at least
    finds that both have.
    """
    return all(
        read_record_at(tools, plan.record_path_of(run)).get("state") == DESTROYED
        for run in plan.group_runs
        if run != plan.run_id
    )


def need_age_recipient(tools: Tools, plan: RunPlan) -> str:
    """Return the public key that a stored backup is encrypted to, from its record.

    Raises:
        SecretError: None is recorded.
    """
    found = read_record(tools, plan).get(set_keys.AGE_RECIPIENT, "")
    if not found:
        raise SecretError(
            f"no public key is recorded for backup set {plan.backup_id}",
            hint="an earlier step did not do its work; begin a new run",
        )
    return found


def read_transition_key(tools: Tools, plan: RunPlan) -> Secret:
    """Fetch the transition key from Vault.

    Raises:
        SecretError: It is not there, or not there any more.
    """
    found = tools.vault.read_secret(tools.config.vault.mount, plan.key_path)
    if not found or "key" not in found:
        raise SecretError(
            f"no transition key at {tools.config.vault.mount}/{plan.key_path}",
            hint="was it destroyed? `xbvault runs list` shows what ended; begin a new run",
        )
    return found["key"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transition:
    """The transition mount of one attempt, as it was recorded before its first write.

    Attributes:
        mount: Its path in Vault.
        versions: The counts, by key id.
    """

    mount: str
    versions: tuple[KeyVersions, ...]

    @property
    def first_new(self) -> int:
        """The oldest of the new versions over all key ids."""
        return min((v.first_new for v in self.versions), default=1)


def transition_path(tools: Tools, plan: RunPlan) -> str:
    """Return the path of this attempt's transition mount."""
    name = plan.run_id if tools.attempt == 1 else f"{plan.run_id}.{tools.attempt}"
    return f"{tools.config.vault.transition_mount}/{plan.recipient}/{name}"


def read_transition(tools: Tools, plan: RunPlan) -> Transition | None:
    """Return what was recorded of this attempt's transition mount; None before that."""
    record = read_record(tools, plan)
    prefix = f"a{tools.attempt}."
    if f"{prefix}mount" not in record:
        return None
    versions = []
    for name, value in sorted(record.items()):
        found = _VERSIONS.fullmatch(value)
        if name.startswith(f"{prefix}k") and found:
            versions.append(
                KeyVersions(
                    key_id=name.removeprefix(f"{prefix}k"),
                    donor=int(found.group(1)),
                    own=int(found.group(2)),
                )
            )
    return Transition(mount=record[f"{prefix}mount"], versions=tuple(versions))


def need_transition(tools: Tools, plan: RunPlan) -> Transition:
    """Return what was recorded of this attempt's transition mount.

    Raises:
        SecretError: Nothing was.
    """
    found = read_transition(tools, plan)
    if found is None:
        raise SecretError(
            f"no transition mount is recorded for run {plan.run_id}",
            hint="an earlier step did not do its work; begin a new run",
        )
    return found


def record_transition(tools: Tools, plan: RunPlan, transition: Transition) -> None:
    """Write the counts down, and mark the recipient as changed by this run."""
    prefix = f"a{tools.attempt}."
    update_record(
        tools,
        plan,
        {
            f"{prefix}mount": transition.mount,
            **{f"{prefix}k{v.key_id}": f"donor={v.donor} own={v.own}" for v in transition.versions},
        },
    )
    lock.mark_change(tools.recipient, run=plan.run_id, fence=tools.fence)


def vault_address(tools: Tools, host: str) -> str:
    """Return Vault's URL as a host reaches it."""
    return (tools.config.host(host).vault_address or tools.vault.address).rstrip("/")
