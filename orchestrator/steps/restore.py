"""Steps that put the prepared set in place, on the recipient."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING

from orchestrator import flavors, jobs, log, numerals, service
from orchestrator.errors import (
    CommandError,
    PreconditionError,
    SecretError,
    VerificationError,
)
from orchestrator.facts import hosts, instances
from orchestrator.flavors import option_files
from orchestrator.flavors.interface import DROP_IN
from orchestrator.flavors.mysql_output import Phase
from orchestrator.models import COPIES
from orchestrator.steps import (
    key_names,
    keyrings,
    outcomes,
    places,
    records,
    restarts,
    servers,
    stream,
    tokens,
    tool_failures,
    tool_keys,
)
from orchestrator.steps.registry import Repeat, Tools, step

if TYPE_CHECKING:
    from orchestrator.models import Plan
    from orchestrator.remote import Remote

SERVER_SECONDS = 600
RANGES = "key-versions.json"
"""File in the run's folder: key versions that the earlier datadir needs, and the first new."""

WAS_RUNNING = "was-running"
"""File in the run's folder: whether the earlier server ran when the run came to it."""

YES, NO = "yes", "no"
_STANDING_LINES = 8

GATHER = """\
set -eu
[ -d "$1" ] || exit 0
cd -- "$1"
find . -mindepth 1 -type d -exec sh -c 'for d do mkdir -p -- "$0/$d"; done' "$2" {} +
find . -mindepth 1 ! -type d -exec sh -c 'for f do mv -f -- "$f" "$0/$f"; done' "$2" {} +
cd /
rm -r -- "$1"
"""
"""Renames the files of a half-moved directory back into the staging directory, if there is one."""

_GIVE_TO = 'chown -R "$1" -- "$3" && chmod "$2" -- "$3"'
"""Gives a data directory its owner and its mode."""

STANDING = f"""\
set -eu
run_dir=$1 mark=$2 datadir=$3 old=$4
tell() {{
    line=
    if [ -f "$1" ]; then line=$(head -n 1 -- "$1"); fi
    printf '%s\\n' "$line"
}}
tell "$run_dir/{places.IDENTITY}"
tell "$run_dir/swap.phase"
tell "$run_dir/was-running"
stat -c %i.%W -- "$mark" 2>/dev/null || echo
if [ -e "$datadir" ]; then echo yes; else echo no; fi
if [ -d "$old" ]; then echo yes; else echo no; fi
tell "$run_dir/{restarts.BOOT_FILE}"
tell {restarts.BOOT_ID}
echo end
"""
"""Prints how far a swap has come, one line each: `Standing`."""

FIND_RUN = """\
set -eu
wanted=$(stat -c %i.%W -- "$1" 2>/dev/null) || exit 0
for file in "$2"/*/"$3"; do
    [ -f "$file" ] || continue
    found=$(head -n 1 -- "$file")
    if [ "$found" = "$wanted" ]; then
        file=${file%/*}
        printf '%s\\n' "${file##*/}"
        exit
    fi
done
"""
"""Prints the run that has recorded a directory's identity, if there is one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a swap has come, as it was found.

    Attributes:
        recorded: Identity of the directory that the run made; empty before.
        phase: As `places.read_phase`.
        was_running: What was recorded of the earlier server, ``yes`` or ``no``; empty before.
        in_place: Identity of the directory in place; empty if there is none.
        has_datadir: Whether there is a datadir.
        has_old: Whether an earlier one was set aside.
        was_restarted: Whether the recipient was, since it began to receive the set.
    """

    recorded: str
    phase: str
    was_running: str
    in_place: str
    has_datadir: bool
    has_old: bool
    was_restarted: bool

    @property
    def is_swapped(self) -> bool:
        """Whether the datadir in place is the one that this run made."""
        is_ours = bool(self.recorded) and self.in_place == self.recorded
        return is_ours and self.phase == places.SWAPPED

    @property
    def may_be_lost(self) -> bool:
        """Whether what waits for the swap may not have reached the disk: the swap sees to that."""
        return self.was_restarted and self.phase == places.NOT_BEGUN


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovedSet:
    """A set that was moved into a new data directory.

    Attributes:
        path: The directory.
        inode: Its inode, by which it is recognised after a rename.
        owner: Its owner and group.
        mode: Its mode.
    """

    path: str
    inode: int
    owner: str
    mode: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoppedServer:
    """The recipient's server before the swap.

    Attributes:
        was_running: Whether it ran when the run came to it.
    """

    was_running: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Swap:
    """What stands where after the swap.

    Attributes:
        datadir: The new data.
        old_datadir: The earlier data; empty if there was none.
    """

    datadir: str
    old_datadir: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartedServer:
    """A server that answers.

    Attributes:
        version: Its version.
        keys_from: Where it reads its keys.
        read_only: Whether it refuses writes of ordinary accounts.
    """

    version: str
    keys_from: str
    read_only: bool


@step(
    "move-backup-set", role="recipient", repeat=Repeat.RESTART, deadline_seconds=86400, forms=COPIES
)
def move_backup_set(tools: Tools, plan: Plan) -> MovedSet:
    """Move the prepared set into a new data directory beside the one in place.

    Files that the recipient keeps in other directories are taken there, so that the swap, for which
    the server stands, has nothing to copy.

    Args:
        tools: The door to the recipient.
        plan: The clone.

    Returns:
        The new directory, owned as the earlier one was.

    Raises:
        SecretError: The tool could not put the new master key into the recipient's keyring.
        CommandError: It failed for another reason.
        VerificationError: The new directory does not hold the system tablespace, or the recipient's
            mount in Vault does not have the new master key.

    Repeat:
        Moved already: changes nothing. A half-moved set is renamed back into the staging directory
        and moved again.
    """
    flavor = flavors.of(plan)
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    record = places.swap_record(plan)
    if remote.run(["test", "-s", record], check=False).status != 0:
        name = plan.job_name("move-backup-set", tools.attempt)
        state = jobs.read_job(remote, name)
        if state.exists and not state.running and (state.died or any(state.statuses)):
            jobs.remove_job(remote, name, fence=tools.fence)
            state = jobs.read_job(remote, name)
        options_file = ""
        is_copied = flavors.tool_carries_keys(plan)
        if not state.exists:
            if is_copied:
                remote.run(["rm", "-rf", "--", *places.list_new(plan)], timeout_seconds=600)
            else:
                _gather(tools, plan)
            remote.run(["install", "-d", "-m", "0700", "--", plan.new_datadir])
            options_file = tool_keys.write_restore_options(tools, plan)
        jobs.start_job(
            remote,
            jobs.JobSpec(
                name=name,
                stages=(
                    jobs.Stage(
                        argv=flavor.restore_command(
                            flavor.programs(host),
                            staging_dir=plan.staging_dir,
                            new_datadir=plan.new_datadir,
                            parallel=plan.parallel,
                            rekey=is_copied,
                            options_file=options_file,
                        )
                    ),
                ),
                count_after=jobs.COUNT_WRITES if is_copied else jobs.COUNT_NONE,
                directory="/",
                fence=tools.fence,
                lease_seconds=tools.config.clone.job_lease_seconds,
            ),
        )
        state = jobs.wait_for_job(
            remote,
            name,
            deadline_seconds=tools.seconds_left(),
            expected_bytes=_measure(remote, plan.staging_dir) if is_copied else 0,
            check=tools.check_cancelled,
        )
        if flavor.carries_keys:
            tool_keys.remove_options(remote, plan)
            if error := tool_failures.explain_failure(tools, plan, state, Phase.RESTORE):
                raise error
        outcomes.need_success(
            state, f"{flavor.own.backup}, putting the set in place,", plan.recipient
        )
        owner, mode = _owner_and_mode(tools, plan)
        words = jobs.read_job_stderr(remote, name, 0)
        _need_new_key(tools, plan, name, words)
        coordinates = stream.read_set_coordinates(tools, plan)
        tool_keys.finish_restore(tools, plan, coordinates=coordinates, owner=owner, words=words)
        remote.run(
            ["sh", "-c", _GIVE_TO, "give-to", owner, mode, plan.new_datadir],
            timeout_seconds=SERVER_SECONDS,
        )
        places.distribute(tools, plan, owner=owner)
        home = places.find_new_home(plan, "ibdata*")
        found = remote.run(["test", "-s", f"{home}/ibdata1"], check=False)
        if found.status != 0:
            raise VerificationError(
                f"{plan.new_datadir} has no system tablespace although the move ended well",
                host=plan.recipient,
                hint="`xbvault runs resume` moves it again; the earlier data was not touched",
            )
        remote.write_file(record, f"{read_identity(tools, places.new_mark_path(plan))}\n")
    inode = parse_identity(remote.read_file(record).decode("ascii", "replace"))
    at, ask = plan.new_datadir, ("stat", "-c", "%U:%G %a", "--")
    told = remote.run([*ask, at], check=False)
    if told.status != 0:
        at = plan.datadir  # the swap has been done already
        told = remote.run([*ask, at])
    owner, _, mode = told.text.strip().rpartition(" ")
    if owner.partition(":")[0] != host.server.owner:
        raise VerificationError(
            f"{at} belongs to {owner}, not to {host.server.owner}",
            host=plan.recipient,
            hint="`xbvault runs resume` tries again",
        )
    return MovedSet(path=at, inode=inode, owner=owner, mode=mode)


@step(
    "stop-server",
    role="recipient",
    repeat=Repeat.BACK,
    back_to=restarts.STREAMS,
    deadline_seconds=1800,
    forms=COPIES,
)
def stop_server(tools: Tools, plan: Plan) -> StoppedServer:
    """Stop the server that runs in the earlier datadir, just before the swap.

    Args:
        tools: The door to the recipient.
        plan: The clone.

    Returns:
        Whether it ran.

    Raises:
        PreconditionError: It takes writes now, or has become a source.
        CommandError: It does not stop.
        InterruptedWorkError: The recipient was restarted since it began to receive the set.

    Repeat:
        What was found at the first time is recorded on the recipient and kept. On a host that was
        restarted, the run goes back to the stream.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    facts = hosts.read_brief(remote, plan.datadir)
    record = f"{plan.run_dir}/{WAS_RUNNING}"
    standing = read_standing(tools, plan)
    if standing.is_swapped:
        return StoppedServer(was_running=standing.was_running == YES)
    if standing.may_be_lost:
        raise restarts.explain(plan)
    if facts.is_running:
        instance = instances.read_instance(remote, host)
        if instance.replicas or (not instance.is_on("read_only") and instance.user_schemas):
            raise PreconditionError(
                f"the server on {plan.recipient} is a source or takes writes now",
                host=plan.recipient,
                hint="set it read-only, or cancel this run; nothing was swapped",
            )
    if not standing.was_running:
        _record_ranges(tools, plan, has_data=facts.has_data)
        key_names.record_needed(tools, plan, has_data=facts.has_data)
        remote.write_file(record, f"{YES if facts.is_running else NO}\n")
    if facts.is_running:
        service.stop_server(remote, host, timeout_seconds=tools.seconds_left())
        if hosts.is_server_running(remote, plan.datadir):
            raise VerificationError(
                "the server still runs after its stop command ended",
                host=plan.recipient,
                hint="see hosts.*.service.stop",
            )
    return StoppedServer(was_running=was_running(tools, plan))


@step("swap-datadir", role="recipient", repeat=Repeat.BACK, back_to=restarts.STREAMS, forms=COPIES)
def swap_datadir(tools: Tools, plan: Plan) -> Swap:
    """Set the earlier datadir aside and put the new one in its place, by renames alone.

    Args:
        tools: The door to the recipient.
        plan: The clone.

    Returns:
        What stands where.

    Raises:
        PreconditionError: A server runs in the datadir.
        CommandError: A rename failed; the earlier datadir is back, and its server runs if it did.
        InterruptedWorkError: The recipient was restarted since it began to receive the set.

    Repeat:
        A list and a phase on the recipient tell how far it came; the rest is done. On a host that was
        restarted before the first rename, the run goes back to the stream.
    """
    remote, standing = tools.recipient, read_standing(tools, plan)
    if standing.may_be_lost:
        raise restarts.explain(plan)
    if not standing.is_swapped:
        phase = standing.phase
        if phase == places.RESTORED or (phase == places.NOT_BEGUN and standing.was_running == YES):
            stop_server(tools, plan)  # an attempt that failed may have started it again
        if hosts.is_server_running(remote, plan.datadir):
            raise PreconditionError(
                f"a server runs in {plan.datadir}",
                host=plan.recipient,
                hint="something started it again; stop it, then `xbvault runs resume`",
            )
        if standing.has_datadir:
            remote.write_file(had_datadir_path(plan), "")
        try:
            places.go_forward(tools, plan)
        except CommandError as error:
            raise _give_back(tools, plan, error) from error
        standing = read_standing(tools, plan)
    if not standing.is_swapped:
        raise VerificationError(
            f"{plan.datadir} is not the new directory after the swap", host=plan.recipient
        )
    return Swap(datadir=plan.datadir, old_datadir=plan.old_datadir if standing.has_old else "")


@step("start-server", role="recipient", repeat=Repeat.SAFE, deadline_seconds=7200, forms=COPIES)
def start_server(tools: Tools, plan: Plan) -> StartedServer:
    """Start the new server quietly: no replication, no events, read-only.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The clone.

    Returns:
        What the server says.

    Raises:
        SecretError: It does not start for want of its keys.
        CommandError: It does not start for another reason; its first error is shown.
        VerificationError: It runs, but not as it should.

    Repeat:
        It runs already as it should: changes nothing. Otherwise it is started again.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    url = ""
    if flavors.needs_transition_mount(plan):
        mount = records.need_transition(tools, plan).mount
        url = f"{records.vault_address(tools, plan.recipient)}/v1/{mount}"
        service.give_environment(remote, host, tokens.ensure_transition_token(tools, plan))
    keyrings.write_server_config(tools, plan)
    keep_drop_in(tools, plan)
    write_drop_in(
        tools,
        plan,
        flavors.of(plan).quiet_drop_in(
            run_id=plan.run_id,
            version=plan.server_version,
            vault_url=url,
            ignored_directories=places.ignored_directories(plan),
        ),
    )
    if hosts.is_server_running(remote, plan.datadir):
        facts = instances.read_instance(remote, host)
        if _runs_quietly(facts, url):
            log.get().info("step.unchanged", reason="the server runs")
            return _started(facts)
        service.stop_server(remote, host, timeout_seconds=tools.seconds_left())
    servers.start_server(tools, plan, timeout_seconds=tools.seconds_left())
    facts = instances.read_instance(remote, host)
    if not _runs_quietly(facts, url):
        raise VerificationError(
            f"the server does not follow {flavors.config_dir(host)}/{DROP_IN}",
            host=plan.recipient,
            hint="does it read that directory? see hosts.*.server.config_dir",
        )
    return _started(facts)


def had_datadir_path(plan: Plan) -> str:
    """Return the file on the recipient that says that there was a datadir before the swap."""
    return f"{plan.run_dir}/had-datadir"


def read_identity(tools: Tools, path: str) -> str:
    """Return inode and birth time of a directory on the recipient; empty if it is not there.

    They stay with it through every rename. The inode alone is not enough: that of a directory
    which was removed is given to another one.
    """
    return tools.recipient.run(["stat", "-c", "%i.%W", "--", path], check=False).text.strip()


def parse_identity(text: str) -> int:
    """Return the inode in what `read_identity` returns.

    Raises:
        VerificationError: It is none.
    """
    found = re.fullmatch(r"([0-9]{1,20})\.-?[0-9]{1,20}\n?", text)
    if not found:
        raise VerificationError(f"no identity of a directory: {text[:80]!r}")
    return int(found.group(1))


def is_swapped(tools: Tools, plan: Plan) -> bool:
    """Return whether the datadir in place is the one that this run made."""
    return read_standing(tools, plan).is_swapped


def read_standing(tools: Tools, plan: Plan) -> Standing:
    """Return how far the swap has come, in one command.

    Raises:
        CommandError: A file that tells it cannot be read.
        VerificationError: The answer was cut off.
    """
    words = [plan.run_dir, places.mark_path(plan), plan.datadir, plan.old_datadir]
    answer = tools.recipient.run(["sh", "-c", STANDING, "standing", *words])
    return parse_standing(answer.text)


def parse_standing(text: str) -> Standing:
    """Return what the script of `read_standing` wrote.

    Raises:
        VerificationError: It is not whole.
    """
    lines = text.split("\n")
    if lines[_STANDING_LINES:] != ["end", ""]:
        raise VerificationError(f"cannot read how far the swap is: {text[-80:]!r}")
    recorded, phase, was_running, in_place, has_datadir, has_old, noted, now, *_ = lines
    return Standing(
        recorded=recorded.strip(),
        phase=phase.strip(),
        was_running=was_running.strip(),
        in_place=in_place,
        has_datadir=has_datadir == YES,
        has_old=has_old == YES,
        was_restarted=restarts.was_restarted(now.strip(), noted.strip()),
    )


def was_running(tools: Tools, plan: Plan) -> bool:
    """Return whether the recipient's earlier server ran when the run came to it."""
    return read_standing(tools, plan).was_running == YES


def keep_drop_in(tools: Tools, plan: Plan) -> None:
    """Keep an earlier drop-in of ours for undo, once."""
    path = drop_in_path(tools, plan)
    kept = kept_drop_in_path(plan)
    if tools.recipient.run(["test", "-e", kept], check=False).status == 0:
        return
    earlier = b""
    if tools.recipient.run(["test", "-e", path], check=False).status == 0:
        earlier = tools.recipient.read_file(path)
    tools.recipient.write_file(kept, earlier)


def kept_drop_in_path(plan: Plan) -> str:
    """Return the file on the recipient that keeps the earlier option file; empty if none was."""
    return f"{plan.run_dir}/{DROP_IN}.before"


def drop_in_path(tools: Tools, plan: Plan) -> str:
    """Return the path of our option file on the recipient."""
    return f"{flavors.config_dir(tools.config.host(plan.recipient))}/{DROP_IN}"


def write_drop_in(tools: Tools, plan: Plan, text: str) -> None:
    """Write our option file on the recipient."""
    tools.recipient.write_file(drop_in_path(tools, plan), text, mode=0o644)


def find_run_in_place(tools: Tools, plan: Plan) -> str:
    """Return the run that made the datadir in place; empty if none did."""
    words = [places.mark_path(plan), records.RUNS, places.IDENTITY]
    return tools.recipient.run(["sh", "-c", FIND_RUN, "find-run", *words]).text.strip()


def read_ranges(tools: Tools, run_id: str) -> dict[str, dict[str, int]] | None:
    """Return the key versions that a run has written down, by key id; None if it did not.

    Raises:
        VerificationError: What it wrote is not to be understood.
    """
    path = f"{records.RUNS}/{run_id}/{RANGES}"
    if not run_id or tools.recipient.run(["test", "-s", path], check=False).status != 0:
        return None
    return parse_ranges(tools.recipient.read_file(path))


def parse_ranges(content: bytes) -> dict[str, dict[str, int]]:
    """Return the key versions in a file that `stop_server` has written.

    Raises:
        VerificationError: It is none.
    """
    try:
        found = json.loads(content)
        is_whole = all(
            {"low", "high", "first_new"} <= set(ranges)
            and all(isinstance(n, int) and n >= 0 for n in ranges.values())
            for ranges in found.values()
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise VerificationError(f"{RANGES} of a run cannot be read: {error}") from error
    if not is_whole:
        raise VerificationError(f"{RANGES} of a run is not whole")
    ranges: dict[str, dict[str, int]] = found
    return ranges


def _record_ranges(tools: Tools, plan: Plan, *, has_data: bool) -> None:
    """Write down which key versions the earlier datadir needs, for `runs forget`, and the new.

    From the first that it was made with: InnoDB tells of its pages, but Aria tables and the redo
    log keep the version of their making. To the newest that its server can have seen: the new pair
    stands in its mount already.
    """
    if not flavors.needs_transition_mount(plan):
        return
    earlier = read_ranges(tools, find_run_in_place(tools, plan)) or {}
    ranges = {
        v.key_id: {
            "low": earlier.get(v.key_id, {}).get("first_new", 1),
            "high": v.first_new + 1 if has_data else 0,
            "first_new": v.first_new,
        }
        for v in records.need_transition(tools, plan).versions
    }
    tools.recipient.write_file(f"{plan.run_dir}/{RANGES}", json.dumps(ranges) + "\n")


def _need_new_key(tools: Tools, plan: Plan, name: str, words: str) -> None:
    """See that the new master key is in its keyring; without it the set must be restored again."""
    try:
        tool_keys.need_new_key(tools, plan, words=words)
    except VerificationError:
        jobs.remove_job(tools.recipient, name, fence=tools.fence)
        raise


def _measure(remote: Remote, directory: str) -> int:
    """Return the size of a set, for progress; 0 if that takes long."""
    words = remote.run(["timeout", "30", "du", "-sb", "--", directory], check=False).text.split()
    return int(words[0]) if words and numerals.is_whole(words[0]) else 0


def _gather(tools: Tools, plan: Plan) -> None:
    tools.recipient.run(
        ["sh", "-c", GATHER, "gather", plan.new_datadir, plan.staging_dir],
        timeout_seconds=SERVER_SECONDS,
    )


def _owner_and_mode(tools: Tools, plan: Plan) -> tuple[str, str]:
    facts = hosts.read_brief(tools.recipient, plan.datadir)
    owner = tools.config.host(plan.recipient).server.owner
    if facts.datadir_owner.startswith(f"{owner}:"):
        return facts.datadir_owner, facts.datadir_mode
    return f"{owner}:{owner}", "0700"


def _give_back(tools: Tools, plan: Plan, error: CommandError) -> CommandError:
    """Take a swap back that failed; return the error to raise, which says what stands."""
    message = f"the datadir could not be swapped: {error.message}"
    half = "mend the cause; `xbvault runs resume` goes on, `xbvault runs undo` takes it back"
    hint = "the earlier datadir is in place; mend the cause, then `xbvault runs resume`"
    if error.status is None:
        hint = half  # the connection broke; for all we know the swap goes on
    else:
        try:
            if places.read_phase(tools, plan) != places.NOT_BEGUN:
                places.go_back(tools, plan)
        except CommandError as second:
            message += f"; nor could it be taken back: {second.message}"
            hint = half
        else:
            message += _start_earlier(tools, plan)
    return CommandError(
        message, host=plan.recipient, hint=hint, status=error.status, stderr=error.stderr
    )


def _start_earlier(tools: Tools, plan: Plan) -> str:
    """Start the server in the earlier datadir again, if it ran; return what is to be said of it."""
    if not was_running(tools, plan) or hosts.is_server_running(tools.recipient, plan.datadir):
        return ""
    try:
        servers.start_server(tools, plan, timeout_seconds=SERVER_SECONDS)
    except (CommandError, SecretError) as error:
        return f"; the earlier server could not be started: {error.message}"
    return ""


def _runs_quietly(facts: instances.InstanceFacts, url: str) -> bool:
    ours = facts.variables.get("hashicorp_key_management_vault_url", "")
    return facts.is_on("read_only") and (not url or ours.rstrip("/") == url)


def _started(facts: instances.InstanceFacts) -> StartedServer:
    return StartedServer(
        version=facts.variables.get("version", ""),
        keys_from=facts.variables.get("hashicorp_key_management_vault_url", ""),
        read_only=facts.is_on("read_only"),
    )


def wants_event_scheduler(tools: Tools, plan: Plan) -> bool:
    """Return what the recipient's own option files say, our drop-in left out."""
    flavor, host = flavors.of(plan), tools.config.host(plan.recipient)
    command = [flavor.programs(host).print_defaults]
    if host.server.options_file:
        command.append(f"--defaults-file={host.server.options_file}")
    text = tools.recipient.run([*command, *flavor.option_groups]).text
    own = [line for line in text.split("\n") if line != "--event_scheduler=OFF"]
    options = option_files.parse_print_defaults("\n".join(own))
    return option_files.is_on(options.get("event_scheduler", flavor.default_event_scheduler))
