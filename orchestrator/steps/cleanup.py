"""Steps of the clean-up, after success, cancel or undo: what a run made and nobody needs any more.

Nothing in a recipient's own mount is ever destroyed here.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING

from orchestrator import jobs, service
from orchestrator.errors import VerificationError
from orchestrator.models import ARCHIVE, BACKUP, CLONES, COPIES, STORING
from orchestrator.repository import set_keys
from orchestrator.steps import fan_out, places, records, tokens
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import Plan, RunPlan

MOST_ATTEMPTS = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed.

    Attributes:
        names: Paths on hosts or in Vault.
    """

    names: tuple[str, ...]


@step(
    "revoke-transition-token", role="recipient", repeat=Repeat.SAFE, after_others=True, forms=COPIES
)
def revoke_transition_token(tools: Tools, plan: Plan) -> Removed:
    """Revoke the run's transition tokens, and take their files from the recipient.

    Args:
        tools: The doors to Vault and to the recipient.
        plan: The run's plan.

    Returns:
        Which files went.

    Raises:
        SecretError: Vault refuses.

    Repeat:
        A token that is gone is no error.
    """
    tokens.revoke_transition_tokens(tools, plan)
    service.take_environment(tools.recipient, tools.config.host(plan.recipient))
    tools.recipient.run(["rm", "-rf", "--", plan.secret_dir])
    tools.donor.run(["rm", "-rf", "--", plan.secret_dir])
    return Removed(names=(plan.secret_dir,))


@step(
    "remove-transition-mount", role="recipient", repeat=Repeat.SAFE, after_others=True, forms=COPIES
)
def remove_transition_mount(tools: Tools, plan: Plan) -> Removed:
    """Remove the transition mounts of every attempt, and the key bundles.

    Args:
        tools: The doors to Vault and to the recipient.
        plan: The run's plan.

    Returns:
        What went.

    Raises:
        SecretError: Vault refuses.
        VerificationError: A mount is still there afterwards.

    Repeat:
        What is gone is no error.
    """
    record = records.read_record(tools, plan)
    mounts = sorted(value for name, value in record.items() if name.endswith(".mount"))
    for mount in mounts:
        if tools.vault.has_mount(mount):
            tools.vault.remove_mount(mount)
        if tools.vault.has_mount(mount):
            raise VerificationError(f"the transition mount {mount} is still there")
    bundles = [f"{plan.run_dir}/keys.{n}.bundle" for n in range(1, MOST_ATTEMPTS + 1)]
    tools.recipient.run(["rm", "-f", "--", *bundles])
    return Removed(names=tuple(mounts))


@step(
    "destroy-transition-key",
    role="recipient",
    repeat=Repeat.SAFE,
    after_others=True,
    forms=(*CLONES, BACKUP, ARCHIVE),
)
def destroy_transition_key(tools: Tools, plan: RunPlan) -> Removed:
    """Destroy every version of the transition key, and keep its record.

    A clone needs no later restore, so its key has served. One that several runs share is destroyed
    by the last of them to end. The keys of a backup stay while another repository has the set.

    Args:
        tools: The door to Vault.
        plan: The run's plan.

    Returns:
        Its path.

    Raises:
        SecretError: Vault refuses.
        VerificationError: A version can still be read.

    Repeat:
        Destroyed already: changes nothing.
    """
    mount = tools.config.vault.mount
    end = {
        "state": records.DESTROYED,
        "destroyed": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "destroyed_by": plan.run_id,
    }
    if plan.group:
        if records.read_record(tools, plan).get("state") != records.DESTROYED:
            records.update_record(tools, plan, end)
        if not records.have_others_ended(tools, plan):
            return Removed(names=())
    metadata = tools.vault.read_metadata(mount, plan.key_path)
    if metadata is None or set_keys.find_others(metadata.custom, plan.recipient):
        return Removed(names=())
    alive = [number for number, version in metadata.versions.items() if not version.destroyed]
    if alive:
        tools.vault.destroy_versions(mount, plan.key_path, alive)
    if metadata.custom.get("state") != records.DESTROYED:
        tools.vault.write_custom_metadata(mount, plan.key_path, {**metadata.custom, **end})
    if tools.vault.read_secret(mount, plan.key_path) is not None:
        raise VerificationError(f"the transition key at {mount}/{plan.key_path} can still be read")
    return Removed(names=(f"{mount}/{plan.key_path}",))


@step(
    "remove-staging",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=7200,
    after_others=True,
    forms=COPIES,
)
def remove_staging(tools: Tools, plan: Plan) -> Removed:
    """Remove the staging directory, and a new data directory that was not swapped in.

    Args:
        tools: The door to the recipient.
        plan: The run's plan.

    Returns:
        What went.

    Raises:
        CommandError: They cannot be removed.
        InterruptedWorkError: The swap is half done, so that one of them may hold what is needed.

    Repeat:
        What is gone is no error.
    """
    paths = places.list_removable(plan, old=False)
    places.need_whole_swap(tools, plan)
    tools.recipient.run(["rm", "-rf", "--", *paths], timeout_seconds=tools.seconds_left())
    places.remove_empty_vaults(tools, plan)
    return Removed(names=paths)


@step(
    "remove-job-files",
    role="both",
    repeat=Repeat.SAFE,
    after_others=True,
    forms=(*COPIES, *STORING),
)
def remove_job_files(tools: Tools, plan: RunPlan) -> Removed:
    """Stop what still runs of the run's remote jobs, and remove their files on both hosts.

    Args:
        tools: The doors to both hosts.
        plan: The run's plan.

    Returns:
        Their names.

    Raises:
        CommandError: A job cannot be stopped.

    Repeat:
        What is gone is no error.
    """
    names = stop_jobs(tools, plan)
    for remote in (tools.donor, tools.recipient):
        for name in names:
            jobs.remove_job(remote, name, fence=tools.fence)
    tools.donor.run(["rm", "-rf", "--", plan.run_dir])
    if plan.group and records.have_others_ended(tools, plan):
        names = (*names, fan_out.remove(tools, plan))
    return Removed(names=names)


@step(
    "remove-run-files",
    role="recipient",
    repeat=Repeat.SAFE,
    after_others=True,
    forms=(*COPIES, *STORING),
)
def remove_run_files(tools: Tools, plan: RunPlan) -> Removed:
    """Remove what the run remembered on the recipient for undo and forget.

    Args:
        tools: The door to the recipient.
        plan: The run's plan.

    Returns:
        The folder.

    Raises:
        CommandError: It cannot be removed.

    Repeat:
        What is gone is no error.
    """
    tools.recipient.run(["rm", "-rf", "--", plan.run_dir])
    return Removed(names=(plan.run_dir,))


def stop_jobs(tools: Tools, plan: RunPlan) -> tuple[str, ...]:
    """Stop every remote job of the run on both hosts; return their names."""
    found = set()
    for remote in (tools.donor, tools.recipient):
        listed = remote.run(["ls", "-1", f"{jobs.BASE}/jobs"], check=False).text.split("\n")
        for name in listed:
            if name.startswith(f"{plan.run_id}.") and jobs.NAME.fullmatch(name):
                jobs.stop_job(remote, name, fence=tools.fence)
                found.add(name)
    return tuple(sorted(found))
