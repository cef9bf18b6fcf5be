"""Keys that the backup tool carries itself, sealed under the transition key.

The tool takes the transition key from an option file on tmpfs, which lives as long as the one
command that reads it. Nothing of it stands on a command line or in an environment.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
from typing import TYPE_CHECKING

from orchestrator import flavors, keys, sql
from orchestrator.errors import VerificationError
from orchestrator.facts.layout import KEYRING
from orchestrator.flavors import mysql_commands, mysql_files, mysql_keyrings
from orchestrator.flavors.mysql_keyrings import KeyringKind
from orchestrator.flavors.quoting import describe_names, unhex
from orchestrator.models import Check, Secret
from orchestrator.steps import records

if TYPE_CHECKING:
    from orchestrator.config import HostConfig
    from orchestrator.flavors.mysql_sql import MySQLDialect
    from orchestrator.models import Plan
    from orchestrator.remote import Remote
    from orchestrator.steps.registry import Tools

HEAD_BYTES = 154
"""What stands before the keys in the tool's file."""

LIST_ABSENT = """\
cd -- "$1"
xargs -0 sh -c 'for f do [ -s "$f" ] || printf "%s\\0" "$f"; done' list-absent
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeysFile:
    """The tool's file of sealed keys in a set.

    Attributes:
        path: Where it lies.
        count: How many keys it holds.
    """

    path: str
    count: int


def write_backup_options(tools: Tools, plan: Plan) -> str:
    """Write the options of the backup tool on the donor; return the file, empty if it needs none.

    Raises:
        SecretError: There is no transition key in Vault.
    """
    if not flavors.of(plan).carries_keys:
        return ""
    host = tools.config.host(plan.donor)
    key = records.read_transition_key(tools, plan) if plan.has_keyring else None
    text = mysql_commands.backup_options(
        transition_key=key,
        includes=_option_files(host),
    )
    return _write(tools.donor, plan, "backup.cnf", text)


def write_prepare_options(tools: Tools, plan: Plan) -> str:
    """Write the options of prepare on the recipient; return the file, empty if it needs none.

    Raises:
        SecretError: There is no transition key in Vault.
        VerificationError: The key in Vault is not the one that this set was made with.
    """
    if not flavors.tool_carries_keys(plan):
        return ""
    key = records.read_transition_key(tools, plan)
    found = tools.recipient.read_file(_fingerprint_path(tools, plan)).decode("ascii", "replace")
    if found.strip() != keys.fingerprint(key):
        raise VerificationError(
            f"the transition key at {tools.config.vault.mount}/{plan.key_path} is not the one that "
            "this backup set was made with",
            host=plan.recipient,
            hint="somebody changed the key in Vault; begin a new run",
        )
    text = mysql_commands.prepare_options(staging_dir=plan.staging_dir, transition_key=key)
    return _write(tools.recipient, plan, "prepare.cnf", text)


def write_restore_options(tools: Tools, plan: Plan) -> str:
    """Write the options of the restore on the recipient; return the file, empty if it needs none.

    Where the keyring is a file, the restored server gets one of its own, which waits beside the
    earlier one for the swap, and holds what that holds.

    Raises:
        SecretError: There is no transition key in Vault, or no token of the host's.
    """
    if not flavors.of(plan).carries_keys:
        return ""
    host = tools.config.host(plan.recipient)
    if not plan.has_keyring:
        text = mysql_commands.restore_options(
            staging_dir=plan.staging_dir, new_datadir=plan.new_datadir
        )
        return _write(tools.recipient, plan, "restore.cnf", text)
    kind = KeyringKind(plan.keyring)
    data_file = new_keyring_path(tools, plan) if host.keyring.is_file else ""
    if data_file:
        _begin_keyring(tools, plan, data_file)
    config_file = ""
    if kind.is_component or kind.uses_vault:
        name = kind.config_name if kind.is_component else f"{kind.value}.conf"
        text = keyring_config(tools, plan, data_file=data_file)
        config_file = _write(tools.recipient, plan, name, text)
    text = mysql_commands.restore_options(
        staging_dir=plan.staging_dir,
        new_datadir=plan.new_datadir,
        transition_key=records.read_transition_key(tools, plan),
        kind=kind,
        keyring_config=config_file,
        keyring_file=data_file,
    )
    return _write(tools.recipient, plan, "restore.cnf", text)


def remove_options(remote: Remote, plan: Plan) -> None:
    """Remove the option files of a host."""
    remote.run(["rm", "-rf", "--", plan.secret_dir])


def keyring_config(tools: Tools, plan: Plan, *, data_file: str) -> Secret:
    """Return the configuration of the recipient's keyring.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The clone.
        data_file: The file of its keys, where it keeps them in one.

    Raises:
        SecretError: The host's own token cannot be read.
    """
    host, kind = tools.config.host(plan.recipient), KeyringKind(plan.keyring)
    if not kind.uses_vault:
        return Secret.join(mysql_keyrings.component_keyring_file_conf(data_file))
    make = (
        mysql_keyrings.component_keyring_vault_conf
        if kind.is_component
        else mysql_keyrings.keyring_vault_conf
    )
    return make(
        vault_url=records.vault_address(tools, plan.recipient),
        mount=plan.own_mount,
        token=tools.recipient.read_secret(host.vault_env_file, "VAULT_TOKEN"),
        ca_file=host.vault_ca_file,
    )


def new_keyring_path(tools: Tools, plan: Plan) -> str:
    """Return where the restored server's file of keys waits for the swap."""
    file = tools.config.host(plan.recipient).keyring.data_file
    name = posixpath.basename(file)
    for place in (*plan.swap_places[1:], *plan.subfolders):
        if KEYRING in place.what.split(", "):
            return f"{place.new}/{name}"
    return f"{plan.new_datadir}/{name}"


def finish_restore(tools: Tools, plan: Plan, *, owner: str, words: str) -> None:
    """See that every header was rewritten, and make of the restored files a datadir.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The clone.
        owner: User and group that the server runs as.
        words: What the tool wrote to stderr.

    Raises:
        VerificationError: It has not rewritten as many headers as the set has keys.
    """
    if not flavors.of(plan).carries_keys:
        return
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    remote.run(
        ["sh", "-c", 'cd -- "$1" && shift && rm -f -- "$@"', "tidy", plan.new_datadir]
        + list(mysql_files.list_left_files(plan.tool_version))
    )
    if not plan.has_keyring:
        return
    keys_file = read_keys_file(tools, plan)
    rewritten = mysql_commands.count_rewritten_headers(words)
    if rewritten < keys_file.count:
        raise VerificationError(
            f"the tool gave {rewritten} of {keys_file.count} tablespaces the new master key",
            host=plan.recipient,
            hint="`xbvault runs cancel`, then begin a new run; the earlier data was not touched",
        )
    kind = KeyringKind(plan.keyring)
    if host.keyring.is_file:
        file = new_keyring_path(tools, plan)
        remote.run(["chown", owner, "--", file])
        remote.run(["chmod", "0640", "--", file])
    if kind.is_component and not host.keyring.config_file:
        text = keyring_config(tools, plan, data_file=host.keyring.data_file)
        path = f"{plan.new_datadir}/{kind.config_name}"
        remote.write_file(path, text, mode=0o640, owner=owner)
        manifest = mysql_keyrings.manifest_text(kind)
        remote.write_file(f"{plan.new_datadir}/mysqld.my", manifest, mode=0o444, owner=owner)


def write_server_config(tools: Tools, plan: Plan) -> None:
    """Write the configuration of a keyring that stands outside of the datadir, once.

    What stood there before is kept for undo.
    """
    host = tools.config.host(plan.recipient)
    file = host.keyring.config_file
    if not flavors.tool_carries_keys(plan) or not file:
        return
    remote, kept = tools.recipient, kept_config_path(plan)
    if remote.run(["test", "-e", kept], check=False).status != 0:
        there = remote.run(["test", "-e", file], check=False).status == 0
        remote.write_file(kept, remote.read_secret(file) if there else "")
    text = keyring_config(tools, plan, data_file=host.keyring.data_file)
    remote.write_file(file, text, mode=0o600, owner=host.server.owner)


def restore_server_config(tools: Tools, plan: Plan) -> None:
    """Give a keyring that stands outside of the datadir the configuration that it had."""
    remote, kept = tools.recipient, kept_config_path(plan)
    host = tools.config.host(plan.recipient)
    if remote.run(["test", "-e", kept], check=False).status != 0:
        return
    if remote.run(["test", "-s", kept], check=False).status == 0:
        content = remote.read_secret(kept)
        remote.write_file(host.keyring.config_file, content, mode=0o600, owner=host.server.owner)
    else:
        remote.run(["rm", "-f", "--", host.keyring.config_file])


def kept_config_path(plan: Plan) -> str:
    """Return the file on the recipient that keeps the keyring's earlier configuration."""
    return f"{plan.run_dir}/keyring.before"


def read_keys_file(tools: Tools, plan: Plan) -> KeysFile:
    """Read how many keys the set's file of sealed keys holds.

    Raises:
        VerificationError: It is not there, or was cut.
    """
    name = flavors.of(plan).set_files(plan.tool_version).keys
    path = f"{plan.staging_dir}/{name}"
    size = tools.recipient.run(["stat", "-c", "%s", "--", path], check=False)
    if size.status != 0:
        raise VerificationError(
            f"the backup set has no {name}, although the donor's tables are encrypted",
            host=plan.recipient,
            hint="does the backup tool find the donor's keyring? see the end of its words",
        )
    head = tools.recipient.run(["head", "-c", str(HEAD_BYTES), "--", path]).stdout
    count = mysql_files.count_keys(head, int(size.text))
    return KeysFile(path=path, count=count)


def record_set(tools: Tools, plan: Plan) -> None:
    """Write down, before the stream, which encrypted tablespaces the set must hold.

    Beside them stands the fingerprint of the transition key that seals it.
    """
    if not flavors.tool_carries_keys(plan):
        return
    tools.recipient.write_file(_list_path(tools, plan), json.dumps(_read_files(tools, plan)))
    key = records.read_transition_key(tools, plan)
    tools.recipient.write_file(_fingerprint_path(tools, plan), keys.fingerprint(key))


def judge_set(tools: Tools, plan: Plan) -> list[Check]:
    """Judge whether a received set holds every encrypted tablespace, and its keys.

    The tool has been seen to leave encrypted tables out and to say that all is well.
    """
    if not flavors.tool_carries_keys(plan):
        return []
    try:
        count, problem = read_keys_file(tools, plan).count, ""
    except VerificationError as error:
        count, problem = 0, error.message
    files = parse_files(tools.recipient.read_file(_list_path(tools, plan)))
    absent = _list_absent(tools, plan, files)
    if absent:
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


def _read_files(tools: Tools, plan: Plan) -> dict[str, str]:
    dialect: MySQLDialect = flavors.dialect_of(plan)  # type: ignore[assignment]
    rows = sql.query(
        tools.donor, tools.config.host(plan.donor), dialect.encrypted_files_sql, timeout_seconds=300
    )
    return {unhex(row["name"]): posixpath.normpath(unhex(row["path"])) for row in rows}


def _list_absent(tools: Tools, plan: Plan, files: dict[str, str]) -> list[str]:
    inside = {name: path for name, path in files.items() if not path.startswith("/")}
    result = tools.recipient.run(
        ["sh", "-c", LIST_ABSENT, "list-absent", plan.staging_dir],
        stdin="".join(f"{path}\0" for path in inside.values()),
        timeout_seconds=300,
    )
    absent = set(result.text.split("\0"))
    return [name for name, path in inside.items() if path in absent]


def _begin_keyring(tools: Tools, plan: Plan, path: str) -> None:
    """Begin the restored server's file of keys with what the earlier server's holds."""
    remote, earlier = tools.recipient, tools.config.host(plan.recipient).keyring.data_file
    remote.run(["install", "-d", "-m", "0700", "--", posixpath.dirname(path)])
    remote.run(["rm", "-f", "--", path])
    if remote.run(["test", "-s", earlier], check=False).status == 0:
        remote.run(["cp", "-p", "--", earlier, path])


def _option_files(host: HostConfig) -> tuple[str, ...]:
    named = (host.server.options_file, host.server.defaults_file)
    return tuple(file for file in named if file)


def _write(remote: Remote, plan: Plan, name: str, text: Secret) -> str:
    path = f"{plan.secret_dir}/{name}"
    remote.run(["install", "-d", "-m", "0700", "--", posixpath.dirname(plan.secret_dir)])
    remote.run(["install", "-d", "-m", "0700", "--", plan.secret_dir])
    remote.write_file(path, text)
    return path


def _list_path(tools: Tools, plan: Plan) -> str:
    return f"{plan.run_dir}/tablespaces.{tools.attempt}.json"


def _fingerprint_path(tools: Tools, plan: Plan) -> str:
    return f"{plan.run_dir}/key-fingerprint.{tools.attempt}"
