"""A prepare with a transition key that is not the set's, by the tool that carries the keys itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orchestrator import flavors, keys, log
from orchestrator.flavors import backup_sets, mysql_commands, mysql_output, mysql_sets
from orchestrator.flavors.mysql_output import Phase, ToolCause
from orchestrator.models import Check
from orchestrator.steps import keyrings, prepare, tool_keys

if TYPE_CHECKING:
    from orchestrator.models import Plan
    from orchestrator.steps.registry import Tools

FOLDER: Final = "wrong-key"
"""In the run's folder on the recipient; it goes when the tool has ended."""
OPTIONS: Final = "wrong-key.cnf"
SECONDS: Final = 120

COPY: Final = """\
set -eu
from=$1 to=$2 checkpoints=$3
shift 3
rm -rf -- "$to"
install -d -m 0700 -- "$to"
for name; do
    [ ! -e "$from/$name" ] || cp -- "$from/$name" "$to/$name"
done
sed 's/^backup_type = .*/backup_type = full-backuped/' "$from/$checkpoints" >"$to/$checkpoints"
echo 'not read: the keys come first' >"$to/xtrabackup_logfile"
"""
"""Makes a set of what the tool looks at before its data; that of a prepared set says so no more."""


def try_prepare(tools: Tools, plan: Plan) -> Check | None:
    """Let the tool prepare what it looks at first of a set, with a transition key made for this.

    The set's own key has opened the same file of keys, for the set was prepared with it.

    Args:
        tools: The door to the recipient.
        plan: The run, whose set lies prepared in the staging directory.

    Returns:
        Whether the tool refused, and for that reason; None where the set has no key to open, for
        then the tool looks at none.
    """
    held = tool_keys.read_keys_file(tools, plan)
    if not held.count:
        return None
    remote, flavor = tools.recipient, flavors.of(plan)
    files, folder = flavor.set_files(plan.server_version), f"{plan.run_dir}/{FOLDER}"
    names = (backup_sets.OPTIONS, files.info, files.keys, mysql_sets.TABLESPACES)
    try:
        remote.run(["sh", "-c", COPY, FOLDER, plan.staging_dir, folder, files.checkpoints, *names])
        wrong = keys.new_transition_key()
        text = mysql_commands.prepare_options(staging_dir=folder, transition_key=wrong)
        command = flavor.prepare_command(
            flavor.programs(tools.config.host(plan.recipient)),
            staging_dir=folder,
            memory_bytes=prepare.LEAST_PREPARE_BYTES,
            options_file=keyrings.write_option_file(remote, plan, OPTIONS, text),
        )
        result = remote.run(command, check=False, timeout_seconds=SECONDS)
    finally:
        remote.run(["rm", "-rf", "--", folder, plan.secret_dir])
    found = mysql_output.explain_tool_failure(result.stderr, Phase.PREPARE)
    refused = result.status != 0 and found.cause is ToolCause.WRONG_TRANSITION_KEY
    tool = flavor.own.backup
    return Check(
        name="wrong-key-refused",
        host=plan.recipient,
        ok=refused,
        evidence=f"{tool} opens none of the {held.count} keys with a new transition key, and has "
        "prepared the set with its own"
        if refused
        else f"{tool} --prepare with a new transition key ended with {result.status}: "
        f"{log.redact_text(found.words)}",
    )
