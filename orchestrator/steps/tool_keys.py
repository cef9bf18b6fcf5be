"""Keys that the backup tool carries itself, sealed under the transition key.

The tool takes the transition key from an option file on tmpfs, which lives as long as the one
command that reads it. Nothing of it stands on a command line or in an environment.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
from typing import TYPE_CHECKING

from orchestrator import flavors, keys, numerals, sql
from orchestrator.errors import VerificationError
from orchestrator.facts import hosts, instances
from orchestrator.flavors import (
    backup_sets,
    mysql_commands,
    mysql_files,
    mysql_keyrings,
    mysql_output,
    mysql_sets,
)
from orchestrator.flavors.mysql import MySQLDialect
from orchestrator.flavors.mysql_keyrings import KeyringKind
from orchestrator.flavors.quoting import describe_names, unhex
from orchestrator.models import CLONES, BackupPlan, Check, RestorePlan
from orchestrator.steps import key_names, keyrings, records, tool_failures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.config import Config
    from orchestrator.models import Coordinates, Plan, RunPlan, Secret
    from orchestrator.remote import Remote
    from orchestrator.steps.registry import Tools

BACKUP_OPTIONS = "backup.cnf"
PREPARE_OPTIONS = "prepare.cnf"
RESTORE_OPTIONS = "restore.cnf"
"""Names of the option files, in `Plan.secret_dir`."""
DONOR_KEYS = "donor-keys"
"""File in the run's folder: by what the master keys of a set's donor are known."""
_MOST_KEYS = 100_000
TABLESPACES = "tablespaces.json"
"""File of a stored set that lists the encrypted tablespaces that it must hold."""

LIST_ABSENT = """\
cd -- "$1"
xargs -0 sh -c 'for f do [ -s "$f" ] || printf "%s\\0" "$f"; done' list-absent
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeysFile:
    """The tool's file of sealed keys in a set.

    Attributes:
        path: Where it lies.
        count: How many tablespaces it holds a key of.
    """

    path: str
    count: int


def write_backup_options(tools: Tools, plan: RunPlan) -> str:
    """Write the options of the backup tool on the donor; return the file, empty if it needs none.

    Raises:
        SecretError: There is no transition key in Vault.
    """
    if not flavors.of(plan).carries_keys:
        return ""
    host = tools.config.host(plan.donor)
    text = make_backup_options(
        tools.config,
        plan,
        datadir=hosts.read_host(tools.donor, host).real_datadir,
        transition_key=records.read_transition_key(tools, plan) if plan.has_keyring else None,
    )
    return keyrings.write_option_file(tools.donor, plan, BACKUP_OPTIONS, text)


def make_backup_options(
    config: Config, plan: RunPlan, *, datadir: str, transition_key: Secret | None
) -> Secret:
    """Return the option file of the backup tool on the donor.

    Args:
        config: The configuration.
        plan: The clone.
        datadir: Of the donor.
        transition_key: Seals the tablespace keys; None where the donor has no keyring.
    """
    file = config.host(plan.donor).server.defaults_file
    return mysql_commands.backup_options(
        server_version=plan.server_version,
        datadir=datadir,
        transition_key=transition_key,
        includes=(file,) if file else (),
    )


def write_prepare_options(tools: Tools, plan: Plan) -> str:
    """Write the options of prepare on the recipient; return the file, empty if it needs none.

    Raises:
        SecretError: There is no transition key in Vault.
        VerificationError: The key in Vault is not the one that this set was made with.
    """
    if not flavors.of(plan).carries_keys:
        return ""
    if not plan.has_keyring:
        text = mysql_commands.prepare_options(staging_dir=plan.staging_dir, transition_key=None)
        return keyrings.write_option_file(tools.recipient, plan, PREPARE_OPTIONS, text)
    key = records.read_transition_key(tools, plan)
    found = tools.recipient.read_file(fingerprint_path(tools, plan)).decode("ascii", "replace")
    if found.strip() != keys.fingerprint(key):
        raise VerificationError(
            f"the transition key at {tools.config.vault.mount}/{plan.key_path} is not the one that "
            "this backup set was made with",
            host=plan.recipient,
            hint="somebody changed the key in Vault; begin a new run",
        )
    text = mysql_commands.prepare_options(staging_dir=plan.staging_dir, transition_key=key)
    return keyrings.write_option_file(tools.recipient, plan, PREPARE_OPTIONS, text)


def write_restore_options(tools: Tools, plan: Plan) -> str:
    """Write the options of the restore on the recipient; return the file, empty if it needs none.

    Where the keyring is a file, the restored server gets one of its own, which waits beside the
    earlier one for the swap, and holds what that holds; also where the donor has no keyring, for
    the recipient's own options may want one.

    Raises:
        SecretError: There is no transition key in Vault, or no token of the host's.
        VerificationError: The tool would put files of the set outside of the new datadir.
    """
    if not flavors.of(plan).carries_keys:
        return ""
    _check_inside(tools, plan)
    # Before the token is written down, for it would stay there if Vault did not answer.
    transition_key = records.read_transition_key(tools, plan) if plan.has_keyring else None
    keyrings.prepare_target(tools, plan)
    set_options = _read_set_options(tools, plan)
    _record_donor_keys(tools, plan, set_options)
    text = make_restore_options(
        tools.config,
        plan,
        tool_version=hosts.read_host(
            tools.recipient, tools.config.host(plan.recipient)
        ).tool_version,
        set_options=set_options,
        transition_key=transition_key,
    )
    return keyrings.write_option_file(tools.recipient, plan, RESTORE_OPTIONS, text)


def make_restore_options(
    config: Config,
    plan: Plan,
    *,
    tool_version: str,
    set_options: Mapping[str, str],
    transition_key: Secret | None,
) -> Secret:
    """Return the option file of the restore on the recipient.

    Args:
        config: The configuration.
        plan: The clone.
        tool_version: Of the recipient.
        set_options: Of the set's ``backup-my.cnf``.
        transition_key: Opens the set's keys; None where it has none.
    """
    return mysql_commands.restore_options(
        tool_version=tool_version,
        new_datadir=plan.new_datadir,
        set_options=set_options,
        keyring=keyrings.target_keyring(config, plan)
        if plan.has_keyring and plan.keyring
        else None,
        transition_key=transition_key,
    )


def remove_options(remote: Remote, plan: RunPlan) -> None:
    """Remove the option files of a host."""
    remote.run(["rm", "-rf", "--", plan.secret_dir])


def need_new_key(tools: Tools, plan: Plan, *, words: str) -> None:
    """See that the new master key is where the recipient's server will look for it.

    Raises:
        SecretError: Vault does not say.
        VerificationError: It is not there.
    """
    if flavors.tool_carries_keys(plan):
        options = _read_set_options(tools, plan)
        key_names.need_new_key(tools, plan, words=words, set_options=options)


def finish_restore(
    tools: Tools, plan: Plan, *, coordinates: Coordinates, owner: str, words: str
) -> None:
    """See that every header was rewritten, and make of the restored files a datadir.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The clone.
        coordinates: Of the set.
        owner: User and group that the server runs as.
        words: What the tool wrote to stderr.

    Raises:
        VerificationError: It has not rewritten as many headers as the set has keys.
    """
    if not flavors.of(plan).carries_keys:
        return
    remote = tools.recipient
    left = mysql_files.list_leftovers(coordinates)
    remote.run(["rm", "-f", "--", *(f"{plan.new_datadir}/{name}" for name in left)])
    if plan.has_keyring:
        _check_headers(tools, plan, words)
    if not plan.keyring:
        return
    keyrings.finish_keyring(tools, plan, owner=owner)


def read_keys_file(tools: Tools, plan: Plan, folder: str = "") -> KeysFile:
    """Read how many keys the set's file of sealed keys holds.

    Args:
        tools: The door to the recipient.
        plan: The run's plan.
        folder: Where the set is; empty for the staging directory, where prepare puts a chain together.

    Raises:
        VerificationError: It is not there, or was cut.
    """
    name = flavors.of(plan).set_files(plan.tool_version).keys
    path = f"{folder or plan.staging_dir}/{name}"
    if tools.recipient.run(["test", "-s", path], check=False).status != 0:
        raise VerificationError(
            f"the backup set has no {name}, although the donor's tables are encrypted",
            host=plan.recipient,
            hint="does the backup tool find the donor's keyring? see the end of its words",
        )
    found = mysql_sets.parse_keys(tools.recipient.read_file(path))
    return KeysFile(path=path, count=found.tablespaces)


def record_set(tools: Tools, plan: RunPlan) -> None:
    """Write down, before the stream, which encrypted tablespaces the set must hold.

    Beside them stands the fingerprint of the transition key that seals it.
    """
    if not plan.has_keyring or (flavors.needs_transition_mount(plan) and plan.form in CLONES):
        return
    tools.recipient.write_file(list_path(tools, plan), json.dumps(_read_files(tools, plan)))
    if isinstance(plan, BackupPlan):
        return  # a stored set outlives this host's folder; the key's own record has its fingerprint
    key = records.read_transition_key(tools, plan)
    tools.recipient.write_file(fingerprint_path(tools, plan), keys.fingerprint(key))


def drop_carried_configs(tools: Tools, plan: Plan) -> None:
    """Remove the configuration of the donor's keyring from a received set.

    Newer tools put it there; that of a keyring in Vault holds the donor's token.
    """
    if flavors.of(plan).carries_keys:
        folders = (plan.staging_dir, *plan.increment_dirs)
        carried = (f"{folder}/{name}" for folder in folders for name in mysql_sets.CARRIED_CONFIGS)
        tools.recipient.run(["rm", "-f", "--", *carried])


def judge_set(tools: Tools, plan: Plan) -> list[Check]:
    """Judge whether a received set holds every encrypted tablespace, and its keys.

    The tool has been seen to leave encrypted tables out and to say that all is well.
    """
    if not flavors.tool_carries_keys(plan):
        return []
    try:
        count, problem = read_keys_file(tools, plan, plan.newest_dir).count, ""
    except VerificationError as error:
        count, problem = 0, error.message
    files = parse_files(tools.recipient.read_file(list_path(tools, plan)))
    absent = _list_absent(tools, plan, files)
    if absent and not isinstance(plan, RestorePlan):
        still = _read_files(tools, plan)  # what was dropped meanwhile need not be there
        absent = [name for name in absent if still.get(name) == files[name]]
    return [
        Check(
            name="sealed-keys",
            host=plan.recipient,
            ok=not problem and (count > 0 or not files),
            evidence=problem or f"{count} keys sealed under the transition key",
        ),
        Check(
            name="encrypted-files",
            host=plan.recipient,
            ok=not absent,
            evidence=f"all {len(files)} encrypted tablespaces were received"
            if not absent
            else f"not received: {describe_names(absent)}",
        ),
    ]


def parse_files(content: bytes) -> dict[str, str]:
    """Return files by tablespace from what `record_set` wrote.

    Raises:
        VerificationError: It is none.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"the list of tablespaces cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise VerificationError("the list of tablespaces is not whole")
    return found


def judge_separation(tools: Tools, plan: Plan) -> list[Check]:
    """Judge whether donor and recipient have no key in common, as far as their servers tell."""
    statement = MySQLDialect(plan.server_version).keys_sql
    checks = []
    if statement:
        ours = _read_key_ids(tools, tools.recipient, statement)
        theirs = (
            _recall_donor_keys(tools, plan)
            if isinstance(plan, RestorePlan)
            else _read_key_ids(tools, tools.donor, statement)
        )
        checks.append(
            _judge_own_new(tools, plan, ours, theirs)
            if isinstance(plan, RestorePlan) and plan.is_homecoming
            else _judge_names(plan, ours, theirs)
        )
    if KeyringKind(plan.keyring).uses_vault and plan.donor_mount:
        host = tools.config.host(plan.recipient)
        token = tools.recipient.read_secret(host.vault_env_file, "VAULT_TOKEN")
        as_host = tools.vault.with_token(token)
        paths = (f"{plan.donor_mount}/1", f"{plan.donor_mount}/data/1")
        refused = not any(as_host.can_read(path) for path in paths)
        checks.append(
            Check(
                name="donor-mount-refused",
                host=plan.recipient,
                ok=refused,
                evidence=f"the recipient's token is {'refused' if refused else 'accepted'} on "
                f"{plan.donor_mount}",
            )
        )
    return checks


def _judge_names(plan: Plan, ours: set[str], theirs: set[str]) -> Check:
    """Judge whether no name of a key is held by both servers."""
    shared = sorted(theirs & ours)
    return Check(
        name="keys-not-shared",
        host=plan.recipient,
        ok=bool(ours) and not shared,
        evidence=f"held by both: {describe_names(shared)}"
        if shared
        else f"{len(ours)} keys, none of them one of the donor's {len(theirs)}",
    )


def _judge_own_new(tools: Tools, plan: Plan, ours: set[str], theirs: set[str]) -> Check:
    """Judge whether a host that gets back a set of its own has a new master key.

    Its keyring still holds the set's keys, which are its own earlier ones. Vault's names tell which
    key the run made; a file's do not, so there it is some master key that the set's server did not
    have. Keys of another kind, such as those of binary logs, open no tablespace.

    Args:
        tools: The door to the recipient.
        plan: The restore.
        ours: Names of the keys that the server holds.
        theirs: Names of the master keys that it had when the set was made.
    """
    made = {name for name in ours if name.startswith(mysql_keyrings.master_key_id(""))}
    if KeyringKind(plan.keyring).uses_vault:
        new = key_names.need_names(tools, plan.run_id).new
        made = {name for name in made if mysql_keyrings.stored_name(name) in new}
    fresh = sorted(made - theirs)
    return Check(
        name="keys-not-shared",
        host=plan.recipient,
        ok=bool(fresh),
        evidence=(
            f"not one of the {len(theirs)} master keys of the set: {describe_names(fresh)}"
            if fresh
            else f"no master key but those that {plan.recipient} had when the set was made"
        )
        + f"; its {len(ours & theirs)} earlier ones were not judged: the set was made of "
        f"{plan.recipient} itself",
    )


def _read_key_ids(tools: Tools, remote: Remote, statement: str) -> set[str]:
    """Return the names of the keys that a host's server holds."""
    rows = sql.query(remote, tools.config.host(remote.name), statement)
    return {unhex(row["key_id"]) for row in rows}


def _record_donor_keys(tools: Tools, plan: Plan, set_options: Mapping[str, str]) -> None:
    """Write down what the donor's master keys were called, where it may not be there to be asked."""
    uuid, number = set_options.get("server_uuid", ""), set_options.get("master_key_id", "")
    if isinstance(plan, RestorePlan) and uuid and numerals.is_whole(number):
        tools.recipient.write_file(f"{plan.run_dir}/{DONOR_KEYS}", f"{uuid} {number}\n")


def _recall_donor_keys(tools: Tools, plan: RestorePlan) -> set[str]:
    """Return the names of the master keys that the donor of a set had; none where it did not say.

    A server names its master keys after itself, and numbers them.
    """
    path = f"{plan.run_dir}/{DONOR_KEYS}"
    if tools.recipient.run(["test", "-s", path], check=False).status != 0:
        return set()
    uuid, _, number = tools.recipient.read_file(path).decode("ascii", "replace").partition(" ")
    newest = min(numerals.parse_whole(number.strip()), _MOST_KEYS)
    return {mysql_keyrings.master_key_id(f"{uuid}-{each}") for each in range(1, newest + 1)}


def _read_files(tools: Tools, plan: RunPlan) -> dict[str, str]:
    if not flavors.of(plan).carries_keys:
        host, dialect = tools.config.host(plan.donor), flavors.dialect_of(plan)
        return {space.name: "" for space in instances.read_tablespaces(tools.donor, host, dialect)}
    statement = MySQLDialect(plan.server_version).encrypted_files_sql
    rows = sql.query(tools.donor, tools.config.host(plan.donor), statement, timeout_seconds=300)
    return {unhex(row["name"]): posixpath.normpath(unhex(row["path"])) for row in rows}


def _list_absent(tools: Tools, plan: Plan, files: dict[str, str]) -> list[str]:
    changed = mysql_sets.CHANGES if plan.increment_dirs else ""
    inside = {name: f"{path}{changed}" for name, path in files.items() if not path.startswith("/")}
    result = tools.recipient.run(
        ["sh", "-c", LIST_ABSENT, "list-absent", plan.newest_dir],
        stdin="".join(f"{path}\0" for path in inside.values()),
        timeout_seconds=300,
    )
    absent = set(result.text.split("\0"))
    return [name for name, path in inside.items() if path in absent]


def _check_inside(tools: Tools, plan: Plan) -> None:
    """Refuse a set with files that the tool would put back to where they were on the donor.

    The preflight has refused such a donor; a table can have been made there since.

    Raises:
        VerificationError: It has some.
    """
    path = f"{plan.staging_dir}/{mysql_sets.TABLESPACES}"
    if tools.recipient.run(["test", "-s", path], check=False).status != 0:
        return  # tools of series 2.4 write none
    text = tools.recipient.read_file(path).decode("utf-8", "replace")
    outside = mysql_sets.parse_tablespaces(text)
    if outside:
        raise VerificationError(
            f"the set has data files outside of the datadir: {describe_names(outside)}",
            host=plan.recipient,
            hint=f"move these tables into the donor's datadir; {tool_failures.NEW_RUN}",
        )


def _check_headers(tools: Tools, plan: Plan, words: str) -> None:
    """See that the tool gave every tablespace the new master key.

    Raises:
        VerificationError: It has not rewritten as many headers as the set has keys.
    """
    keys_file = read_keys_file(tools, plan)
    rewritten = mysql_output.count_rewritten_headers(words)
    if rewritten < keys_file.count:
        raise VerificationError(
            f"the tool gave {rewritten} of {keys_file.count} tablespaces the new master key",
            host=plan.recipient,
            hint=tool_failures.NEW_RUN,
        )


def _read_set_options(tools: Tools, plan: Plan) -> dict[str, str]:
    """Read the options of the donor's server that the tool has put into the set."""
    content = tools.recipient.read_file(f"{plan.staging_dir}/{backup_sets.OPTIONS}")
    return mysql_sets.parse_set_options(content.decode("utf-8", "replace"))


def list_path(tools: Tools, plan: RunPlan) -> str:
    """Return the file that lists the encrypted tablespaces of this attempt's set."""
    if isinstance(plan, BackupPlan):
        return f"{plan.set_dir}/{TABLESPACES}"
    return f"{plan.run_dir}/tablespaces.{tools.attempt}.json"


def fingerprint_path(tools: Tools, plan: RunPlan) -> str:
    """Return the file with the fingerprint of the key that this attempt's set is sealed under."""
    return f"{plan.run_dir}/key-fingerprint.{tools.attempt}"
