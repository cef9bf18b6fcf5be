"""Steps that give the recipient back what it had before a run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator import flavors, service
from orchestrator.errors import PreconditionError, VerificationError
from orchestrator.facts import hosts, instances
from orchestrator.flavors.interface import account_name
from orchestrator.models import COPIES, STORING
from orchestrator.steps import (
    cleanup,
    fan_out,
    keyrings,
    places,
    records,
    replication,
    restore,
    servers,
)
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import Plan, RunPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwapState:
    """How far a run's swap has come.

    Attributes:
        phase: As the recipient has it written down; empty if nothing was renamed.
        swapped: The datadir in place is the run's.
        half_swapped: It was cut off, on its way forward or back.
    """

    phase: str
    swapped: bool
    half_swapped: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestoredDatadir:
    """What stands in place after an undo.

    Attributes:
        swapped_back: Whether a swap had to be taken back.
        is_running: Whether the earlier server runs again.
        replicates: Whether it replicates again.
    """

    swapped_back: bool
    is_running: bool
    replicates: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class DroppedAccount:
    """A replication account that is gone.

    Attributes:
        user: Its name.
    """

    user: str


@step("check-latest-swap", role="recipient", repeat=Repeat.SAFE, after_others=True, forms=COPIES)
def check_latest_swap(tools: Tools, plan: Plan) -> SwapState:
    """See that the earlier datadir can be put back, before anything is changed.

    Args:
        tools: The door to the recipient.
        plan: The run's plan.

    Returns:
        How far the swap has come.

    Raises:
        PreconditionError: The earlier datadir is not there any more, or a later run has swapped.

    Repeat:
        Changes nothing, ever.
    """
    return _read_swap(tools, plan)


@step(
    "stop-remote-jobs",
    role="both",
    repeat=Repeat.SAFE,
    after_others=True,
    forms=(*COPIES, *STORING),
)
def stop_remote_jobs(tools: Tools, plan: RunPlan) -> cleanup.Removed:
    """Stop every remote job of the run, on both hosts.

    A run whose process was killed while it stood ready for a common stream says here that it is out.

    Args:
        tools: The doors to both hosts.
        plan: The run's plan.

    Returns:
        Their names.

    Raises:
        CommandError: A job cannot be stopped.

    Repeat:
        What has ended is no error.
    """
    # Once it has ended, the others may remove what they had in common.
    if plan.group and records.read_record(tools, plan).get("state") != records.DESTROYED:
        fan_out.leave(tools, plan)
    return cleanup.Removed(names=cleanup.stop_jobs(tools, plan))


@step(
    "restore-datadir",
    role="recipient",
    repeat=Repeat.SAFE,
    deadline_seconds=7200,
    after_others=True,
    forms=COPIES,
)
def restore_datadir(tools: Tools, plan: Plan) -> RestoredDatadir:
    """Give the recipient its earlier datadir, option file and server back.

    Args:
        tools: The doors to the recipient.
        plan: The run's plan.

    Returns:
        What stands in place.

    Raises:
        PreconditionError: The earlier datadir is not there any more, or a later run has swapped.
        SecretError: The earlier server does not start for want of its keys.
        CommandError: It does not start for another reason; its first error is shown.
        VerificationError: It does not answer.

    Repeat:
        A list and a phase on the recipient tell how far it came; the rest is done.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    swap = _read_swap(tools, plan)
    if swap.swapped or swap.half_swapped:
        if hosts.is_server_running(remote, plan.datadir):
            service.stop_server(remote, host, timeout_seconds=tools.seconds_left())
        if swap.phase == places.NOT_BEGUN:
            places.write_down(tools, plan, "out")
        places.go_back(tools, plan)
    service.take_environment(remote, host)
    _restore_drop_in(tools, plan)
    keyrings.restore_server_config(tools, plan)
    runs = hosts.is_server_running(remote, plan.datadir)
    if restore.was_running(tools, plan) and not runs:
        servers.start_server(tools, plan, timeout_seconds=tools.seconds_left())
        runs = instances.is_answering(remote, host)
        if not runs:
            raise VerificationError(
                "the earlier server was started but does not answer", host=plan.recipient
            )
    return RestoredDatadir(
        swapped_back=swap.half_swapped or swap.phase != places.NOT_BEGUN,
        is_running=runs,
        replicates=runs
        and instances.read_replication(remote, host, flavors.dialect_of(plan)) is not None,
    )


@step(
    "drop-replication-account", role="source", repeat=Repeat.SAFE, after_others=True, forms=COPIES
)
def drop_replication_account(tools: Tools, plan: Plan) -> DroppedAccount:
    """Drop the account that the run created on the source, and its password in Vault.

    Args:
        tools: The doors to the source and to Vault.
        plan: The run's plan.

    Returns:
        Its name.

    Raises:
        CommandError: The source refuses.

    Repeat:
        What is gone is no error.
    """
    if not plan.makes_account or replication.read_account(tools, plan) is None:
        return DroppedAccount(user="")
    user = account_name(plan.run_id)
    replication.drop_accounts(tools, plan, user=user, path=plan.account_path)
    return DroppedAccount(user=user)


def _read_swap(tools: Tools, plan: Plan) -> SwapState:
    """Read how far the swap has come; refuse what cannot be taken back."""

    def is_there(path: str) -> bool:
        return tools.recipient.run(["test", "-e", path], check=False).status == 0

    phase = places.read_phase(tools, plan)
    swapped = phase == places.SWAPPED
    if swapped and not restore.is_swapped(tools, plan):
        raise PreconditionError(
            f"run {plan.run_id} is not the latest swap on {plan.recipient}",
            host=plan.recipient,
            hint="undo the later run first",
        )
    if swapped and is_there(f"{plan.run_dir}/forgotten"):
        raise PreconditionError(
            f"the earlier datadir of run {plan.run_id} was given up",
            host=plan.recipient,
            hint="what `runs forget` gave up cannot be had back",
        )
    missing = [
        place.old
        for place in plan.swap_places
        if not (place.is_whole and not is_there(restore.had_datadir_path(plan)))
        and not is_there(place.old)
    ]
    if swapped and missing:
        raise PreconditionError(
            f"the earlier datadir {missing[0]} is not there any more",
            host=plan.recipient,
            hint="somebody removed it or moved it away; nothing was changed",
        )
    half_swapped = places.is_half_done(phase)
    if phase == places.NOT_BEGUN and plan.swap_places[0].is_whole:
        # Renamed by hand, or by a version that wrote no phase down.
        half_swapped = is_there(plan.old_datadir) and is_there(plan.new_datadir)
    return SwapState(phase=phase, swapped=swapped, half_swapped=half_swapped)


def _restore_drop_in(tools: Tools, plan: Plan) -> None:
    remote, kept = tools.recipient, restore.kept_drop_in_path(plan)
    if remote.run(["test", "-e", kept], check=False).status != 0:
        return
    text = remote.read_file(kept)
    path = restore.drop_in_path(tools, plan)
    if text:
        remote.write_file(path, text, mode=0o644)
    else:
        remote.run(["rm", "-f", "--", path])
