"""Several clones from one reading of the donor (decision 0017).

Each clone is a run of its own. It arms its receiver, and starts its branch on the donor: a remote
job that reads a FIFO into a buffer and sends on what it gets. When all have done so, one of them
starts the job that runs the backup tool and gives its output to all FIFOs. Nothing of it is led by
a process that could be missed: what has been agreed on stands in `RunPlan.group_dir` on the donor, and
each file there is made once.

A run that comes too late, whose branch breaks, or that has to go back to the stream, streams alone.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from orchestrator import jobs, log, wire
from orchestrator.errors import CommandError
from orchestrator.host import script

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.jobs import JobState
    from orchestrator.models import RunPlan
    from orchestrator.steps.registry import Tools

SEND = "send-backup"
RECEIVE = "receive-backup"
"""Names of a stream's two jobs."""
READ = "read-donor"
BUFFER = "mbuffer"
BUFFER_MEBIBYTES = 64
"""Of each branch; what it takes in while its connection falters."""
TOOL_ENDS_SECONDS = 120.0
"""Longest time from the end of all output to the end of the backup tool."""
_ALONE = "alone"
_READY = "ready"
_OUT = "out"
_BRANCHES = "branches"


def job_name(plan: RunPlan) -> str:
    """Return the name of the job that reads the donor for the whole group."""
    return f"{plan.group}.{READ}"


def fifo_path(plan: RunPlan) -> str:
    """Return the FIFO, on the donor, from which the run's branch gets the stream."""
    return f"{plan.run_dir}/stream"


def branch_stage(plan: RunPlan) -> jobs.Stage:
    """Return the first stage of a branch, which buffers what comes from the FIFO."""
    return jobs.Stage(
        argv=(BUFFER, "-q", "-m", f"{BUFFER_MEBIBYTES}M", "-i", fifo_path(plan)),
    )


def is_alone(tools: Tools, plan: RunPlan) -> bool:
    """Return whether this attempt of the run has a stream of its own."""
    if not plan.group or tools.attempt > 1:
        return True
    return tools.recipient.run(["test", "-e", f"{plan.run_dir}/{_ALONE}"], check=False).status == 0


def choose(tools: Tools, plan: RunPlan) -> bool:
    """Decide, before a stream begins, whether the run takes part; return whether it does.

    The reading happens once. A run that finds it begun, and itself without a branch that lives, has
    missed it.
    """
    if is_alone(tools, plan):
        return False
    if jobs.read_job(tools.donor, job_name(plan)).exists:
        tools.recipient.write_file(f"{plan.run_dir}/{_ALONE}", "")
        log.get().info("notice", message="the common stream was missed; this run streams alone")
        return False
    _withdraw(tools, plan)
    tools.donor.run(
        ["install", "-d", "-m", "0700", "/var/lib/xbvault/runs", plan.run_dir, plan.group_dir]
    )
    tools.donor.run(["rm", "-f", "--", fifo_path(plan)])
    tools.donor.run(["mkfifo", "-m", "0600", "--", fifo_path(plan)])
    return True


def is_alive(tools: Tools, plan: RunPlan) -> bool:
    """Return whether the common reading goes on or ended well with this run, or can yet begin."""
    state = jobs.read_job(tools.donor, job_name(plan))
    if not state.exists:
        return True
    if state.is_cut or any(state.statuses):
        return False
    return plan.run_id in _read_branches(tools, plan)


def join(
    tools: Tools,
    plan: RunPlan,
    make_stages: Callable[[], tuple[jobs.Stage, ...]],
    *,
    lease_seconds: int,
) -> bool:
    """Say that the branch stands, wait for the others, and see that the reading begins.

    Args:
        tools: The door to the donor.
        plan: The clone.
        make_stages: Makes what reads the donor, and what that needs.
        lease_seconds: Of the job that reads.

    Returns:
        Whether this call began it.

    Raises:
        CommandError: It began without this run.
    """
    if not jobs.read_job(tools.donor, job_name(plan)).exists:
        _withdraw(tools, plan)
        tools.donor.write_file(_mark(plan, _READY, plan.run_id), "")
        _wait_for_others(tools, plan)
    if plan.run_id not in _read_branches(tools, plan):
        raise CommandError(
            f"the donor is being read without {plan.recipient}, which came too late",
            host=plan.recipient,
            hint=f"`xbvault runs resume {plan.run_id}` streams to it alone",
        )
    if jobs.read_job(tools.donor, job_name(plan)).exists:
        return False
    stages = make_stages()
    return jobs.start_job(
        tools.donor,
        jobs.JobSpec(
            name=job_name(plan),
            stages=(*stages, _distribute(tools, plan)),
            count_after=len(stages) - 1,
            throttle=plan.throttle,
            niceness=wire.NICENESS if plan.nice else 0,
            lease_seconds=lease_seconds,
        ),
    )


def leave(tools: Tools, plan: RunPlan) -> None:
    """Tell the others not to wait for this run."""
    tools.donor.run(["install", "-d", "-m", "0700", "/var/lib/xbvault/runs", plan.group_dir])
    tools.donor.run(["rm", "-f", "--", _mark(plan, _READY, plan.run_id)])
    tools.donor.write_file(_mark(plan, _OUT, plan.run_id), "")


def wait_for_reading(tools: Tools, plan: RunPlan) -> JobState:
    """Return how the common reading ended; called when this run's branch has ended."""
    return jobs.wait_for_job(
        tools.donor,
        job_name(plan),
        deadline_seconds=TOOL_ENDS_SECONDS,
        check=tools.check_cancelled,
    )


def was_dropped(tools: Tools, branch: str) -> bool:
    """Return whether a branch was stopped because it held the others up."""
    mark = f"{jobs.BASE}/jobs/{branch}/dropped"
    return tools.donor.run(["test", "-e", mark], check=False).status == 0


def remove(tools: Tools, plan: RunPlan) -> str:
    """Stop the common reading and remove what stands of it on the donor; return the job's name."""
    jobs.remove_job(tools.donor, job_name(plan))
    tools.donor.run(["rm", "-rf", "--", plan.group_dir])
    return job_name(plan)


def _mark(plan: RunPlan, what: str, run: str) -> str:
    return f"{plan.group_dir}/{what}.{run}"


def _withdraw(tools: Tools, plan: RunPlan) -> None:
    """Take back what an earlier entry of the step has said."""
    marks = [_mark(plan, what, plan.run_id) for what in (_READY, _OUT)]
    tools.donor.run(["rm", "-f", "--", *marks])


def _wait_for_others(tools: Tools, plan: RunPlan) -> None:
    """Wait until every run of the group stands or is out, and have it written down who takes part.

    Who is not there in time is left behind.
    """
    end = time.monotonic() + tools.config.clone.gather_seconds
    wanted = set(plan.group_runs)
    while True:
        tools.check_cancelled()
        names = tools.donor.run(["ls", "-1", "--", plan.group_dir]).text.split()
        if _BRANCHES in names:
            return
        said = {run: what for what, _, run in (name.partition(".") for name in names)}
        ready = sorted(run for run in wanted if said.get(run) == _READY)
        if wanted <= said.keys() or time.monotonic() > end:
            break
        time.sleep(0.3)
    mine = _mark(plan, _BRANCHES, plan.run_id)
    tools.donor.write_file(mine, "".join(f"{run}\n" for run in ready))
    # A link is made once: whoever is first decides.
    tools.donor.run(["ln", "-T", "--", mine, f"{plan.group_dir}/{_BRANCHES}"], check=False)


def _read_branches(tools: Tools, plan: RunPlan) -> list[str]:
    """Return the runs that take part; none before that is decided."""
    found = tools.donor.run(["cat", "--", f"{plan.group_dir}/{_BRANCHES}"], check=False)
    return [run for run in found.text.split("\n") if run] if found.status == 0 else []


def _distribute(tools: Tools, plan: RunPlan) -> jobs.Stage:
    branches: list[str] = []
    for run in _read_branches(tools, plan):
        other = dataclasses.replace(plan, run_id=run)
        branches += [other.job_name(SEND), fifo_path(other)]
    settings = (
        jobs.BASE,
        job_name(plan),
        str(BUFFER_MEBIBYTES * 1024 * 1024),
        str(tools.config.clone.branch_stall_seconds),
    )
    return jobs.Stage(argv=("sh", "-c", script("fan_out.sh"), "fan-out", *settings, *branches))
