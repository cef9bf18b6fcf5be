"""The step that makes the received set consistent, on the recipient."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

from orchestrator import flavors, jobs, log
from orchestrator.errors import (
    InterruptedWorkError,
    PreconditionError,
    VerificationError,
)
from orchestrator.facts import hosts
from orchestrator.flavors import backup_sets, mariadb
from orchestrator.flavors.mysql_output import Phase
from orchestrator.models import COPIES, RestorePlan
from orchestrator.steps import (
    outcomes,
    records,
    restarts,
    tokens,
    tool_failures,
    tool_keys,
)
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.flavors.interface import Programs
    from orchestrator.models import Plan

LEAST_PREPARE_BYTES = 128 * 1024 * 1024
MOST_PREPARE_BYTES = 8 * 1024 * 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """What a set says about itself.

    Attributes:
        backup_type: Such as ``full-prepared``.
        to_lsn: Log sequence number that the set reaches.
        seconds: How long the work took.
    """

    backup_type: str
    to_lsn: str
    seconds: float


@step(
    "prepare-backup-set",
    role="recipient",
    repeat=Repeat.BACK,
    back_to=restarts.STREAMS,
    deadline_seconds=2 * 86400,
    forms=COPIES,
)
def prepare_backup_set(tools: Tools, plan: Plan) -> Checkpoints:
    """Make the received set consistent, with its keys from the transition mount.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The clone.

    Returns:
        The set's checkpoints, read back after the work.

    Raises:
        PreconditionError: There is no backup set in the staging directory.
        InterruptedWorkError: A prepare of this set was killed, or its lease ran out; or one of a chain
            has failed; or the recipient was restarted since it began to receive the set.
        SecretError: The tool failed for want of its keys.
        CommandError: It failed for another reason.
        VerificationError: It exited 0, but the set does not say that it is prepared.

    Repeat:
        Already prepared: changes nothing. Still running: attached to. Cut off half way, in
        whatever way, or failed with increments, or of a host that was restarted: raises
        InterruptedWorkError, and the run goes back to the stream.
    """
    name = plan.job_name("prepare-backup-set", tools.attempt)
    if (
        tools.recipient.run(["test", "-s", _options_file(plan.staging_dir)], check=False).status
        != 0
    ):
        raise PreconditionError(
            f"no backup set in {plan.staging_dir}",
            host=plan.recipient,
            hint="`xbvault runs cancel`, then begin a new run",
        )
    restarts.need_same_boot(tools, plan)
    state = jobs.read_job(tools.recipient, name)
    _check_cut(state, plan.recipient)
    if state.ended and any(state.statuses):
        # A prepare that failed may be tried again, but not one that may have put increments in.
        if plan.increment_dirs:
            raise InterruptedWorkError(
                "the prepare of this chain failed half way, and none of it is put in twice",
                host=plan.recipient,
                hint="the run goes back to the stream",
            )
        jobs.remove_job(tools.recipient, name, fence=tools.fence)
    token_file = ""
    if flavors.needs_transition_mount(plan):
        token_file = tokens.ensure_transition_token(tools, plan)
        for folder in (plan.staging_dir, *plan.increment_dirs):
            _retarget(tools, plan, folder)
    flavor, host = flavors.of(plan), tools.config.host(plan.recipient)
    free = hosts.read_brief(tools.recipient, plan.datadir)
    command = make_command(
        plan,
        flavor.programs(host),
        memory_bytes=min(
            max(free.memory_available_bytes // 4, LEAST_PREPARE_BYTES), MOST_PREPARE_BYTES
        ),
        options_file=tool_keys.write_prepare_options(tools, plan),
    )
    jobs.start_job(
        tools.recipient,
        jobs.JobSpec(
            name=name,
            stages=(jobs.Stage(argv=command, environment_file=token_file),),
            directory=plan.staging_dir,
            fence=tools.fence,
            lease_seconds=tools.config.clone.job_lease_seconds,
        ),
    )
    state = jobs.wait_for_job(
        tools.recipient,
        name,
        deadline_seconds=tools.seconds_left(),
        check=tools.check_cancelled,
        read_progress=flavor.read_prepare_progress,
    )
    _check_cut(state, plan.recipient)
    error = tokens.explain_missing_keys(
        tools, plan, plan.recipient, status=max(state.statuses, default=0), words=state.stderr
    ) or tool_failures.explain_failure(tools, plan, state, Phase.PREPARE)
    if flavor.carries_keys:
        tool_keys.remove_options(tools.recipient, plan)
    if error:
        raise error
    outcomes.need_success(state, f"{flavor.own.backup} --prepare", plan.recipient)
    return _read_prepared(tools, plan, state)


def make_command(
    plan: Plan, programs: Programs, *, memory_bytes: int, options_file: str
) -> tuple[str, ...]:
    """Return the command that makes a set consistent, with all that its chain adds to it.

    Args:
        plan: The run's plan.
        programs: The recipient's.
        memory_bytes: What it may use.
        options_file: Options that the run has written; empty where the tool takes none.
    """
    increments = ("", *plan.increment_dirs)
    commands = [
        flavors.of(plan).prepare_command(
            programs,
            staging_dir=plan.staging_dir,
            memory_bytes=memory_bytes,
            options_file=options_file,
            increment_dir=increment_dir,
            has_more=increment_dir != increments[-1],
        )
        for increment_dir in increments
    ]
    if len(commands) == 1:
        return commands[0]
    return ("sh", "-c", " && ".join(map(shlex.join, commands)))


def _options_file(folder: str) -> str:
    return f"{folder}/{backup_sets.OPTIONS}"


def _retarget(tools: Tools, plan: Plan, folder: str) -> None:
    mount = records.need_transition(tools, plan).mount
    text = tools.recipient.read_file(_options_file(folder)).decode("utf-8", "replace")
    changed = mariadb.retarget_options(
        text,
        vault_url=f"{records.vault_address(tools, plan.recipient)}/v1/{mount}",
        vault_ca=tools.config.host(plan.recipient).vault_ca_file,
    )
    if changed != text:
        tools.recipient.write_file(_options_file(folder), changed)


def _read_prepared(tools: Tools, plan: Plan, state: jobs.JobState) -> Checkpoints:
    files = flavors.of(plan).set_files(plan.server_version)
    text = tools.recipient.read_file(f"{plan.staging_dir}/{files.checkpoints}")
    values = backup_sets.parse_checkpoints(text.decode("utf-8", "replace"))
    kind = values.get("backup_type", "")
    flavor = flavors.of(plan)
    belied = flavor.find_contradictions(state.stderr)
    is_prepared = kind in flavor.prepared_types and backup_sets.is_completed(state.stderr)
    if isinstance(plan, RestorePlan) and plan.bases:
        is_prepared = is_prepared and values.get("to_lsn", "") == str(plan.to_lsn)
    if belied or not is_prepared:
        raise VerificationError(
            f"the tool says that it has prepared the set, and also: {log.redact_text(belied[0])}"
            if belied
            else f"the set does not say that it is prepared: backup_type={kind or '?'}, "
            f"to_lsn={values.get('to_lsn', '?')}",
            host=plan.recipient,
            hint="`xbvault runs cancel`, then begin a new run; the earlier data was not touched",
        )
    return Checkpoints(
        backup_type=kind, to_lsn=values.get("to_lsn", ""), seconds=round(state.seconds, 3)
    )


def _check_cut(state: jobs.JobState, host: str) -> None:
    # The tools give no guarantee for a set whose prepare was interrupted.
    if state.is_cut:
        raise InterruptedWorkError(
            "the prepare of this set was cut off: it cannot be trusted any more",
            host=host,
            hint="the run goes back to the stream",
        )
