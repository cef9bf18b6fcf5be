"""The recipient's keyring: where the backup tool puts the new master key, and the server finds it.

A keyring in a file is one of the places of the swap. One in Vault is the recipient's own mount,
which the donor's keyring has no part in.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from orchestrator import flavors
from orchestrator.flavors import mysql_keyrings
from orchestrator.flavors.file_sets import KEYRING
from orchestrator.flavors.mysql_commands import TargetKeyring
from orchestrator.flavors.mysql_keyrings import KeyringKind
from orchestrator.models import Secret
from orchestrator.steps import key_names, records

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.models import Plan, RunPlan
    from orchestrator.remote import Remote
    from orchestrator.steps.registry import Tools


PLACE_KEYRING = """\
set -eu
if [ "$1" != "$2" ] && [ -e "$1" ]; then
    mkdir -p -- "${2%/*}"
    mv -f -T -- "$1" "$2"
fi
[ -e "$2" ] || exit 0
chown -- "$3" "$2"
chmod 0640 -- "$2"
"""
"""A keyring that the tool had nothing to put into is made by the server."""


def keyring_config(tools: Tools, plan: Plan, *, data_file: str) -> Secret:
    """Return the configuration of the recipient's keyring.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The clone.
        data_file: The file of its keys, where it keeps them in one.

    Raises:
        SecretError: The host's own token cannot stand in it.
    """
    file = tools.config.host(plan.recipient).vault_env_file
    return make_keyring_config(
        tools.config,
        plan,
        data_file=data_file,
        vault_url=records.vault_address(tools, plan.recipient),
        token=mysql_keyrings.check_token(tools.recipient.read_secret(file, "VAULT_TOKEN"), file)
        if KeyringKind(plan.keyring).uses_vault
        else Secret(""),
    )


def make_keyring_config(
    config: Config, plan: Plan, *, data_file: str, vault_url: str, token: Secret
) -> Secret:
    """Return the configuration of the recipient's keyring.

    Args:
        config: The configuration.
        plan: The clone.
        data_file: The file of its keys, where it keeps them in one.
        vault_url: Vault as the recipient reaches it.
        token: The recipient's own.
    """
    host, kind = config.host(plan.recipient), KeyringKind(plan.keyring)
    if not kind.uses_vault:
        return Secret.join(mysql_keyrings.component_keyring_file_conf(data_file))
    if kind.is_component:
        return mysql_keyrings.component_keyring_vault_conf(
            vault_url=vault_url,
            mount=plan.own_mount,
            token=token,
            ca_file=host.vault_ca_file,
            kv_version=host.kv_version,
        )
    return mysql_keyrings.keyring_vault_conf(
        vault_url=vault_url,
        mount=plan.own_mount,
        token=token,
        ca_file=host.vault_ca_file,
        # older plugins know no such option
        kv_version=None if host.kv_version == 1 else host.kv_version,
    )


def target_keyring(config: Config, plan: Plan) -> TargetKeyring:
    """Return where the tool puts the new master key."""
    kind = KeyringKind(plan.keyring)
    if kind is KeyringKind.FILE_PLUGIN:
        file = waiting_keyring_path(config, plan)
    else:
        name = kind.config_name if kind.is_component else f"{kind.value}.conf"
        file = f"{plan.secret_dir}/{name}"
    directory = config.host(plan.recipient).keyring.plugin_dir
    return TargetKeyring(kind=kind, config=file, plugin_dir=directory)


def prepare_target(tools: Tools, plan: Plan) -> None:
    """Make ready on the recipient where the tool puts the new master key.

    A keyring in a file is begun also where the donor has none, for the recipient's own options may
    want one. Where that is Vault, the names that are there are written down, so that the new one is known by
    them afterwards.
    """
    file = ""
    if tools.config.host(plan.recipient).keyring.is_file:
        file = waiting_keyring_path(tools.config, plan)
        _begin_keyring(tools, plan, file)
    if not plan.has_keyring:
        return
    target = target_keyring(tools.config, plan)
    if target.kind.uses_vault:
        key_names.record_before(tools, plan)
    if target.config != file:
        text = keyring_config(tools, plan, data_file=file)
        write_option_file(tools.recipient, plan, posixpath.basename(target.config), text)


def new_keyring_path(config: Config, plan: Plan) -> str:
    """Return where the restored server's file of keys waits for the swap."""
    file = config.host(plan.recipient).keyring.data_file
    name = posixpath.basename(file)
    for place in (*plan.swap_places[1:], *plan.subfolders):
        if KEYRING in place.what.split(", "):
            return f"{place.new}/{name}"
    return f"{plan.new_datadir}/{name}"


def waiting_keyring_path(config: Config, plan: Plan) -> str:
    """Return the file of keys that the tool writes to; it restores into an empty directory only."""
    path = new_keyring_path(config, plan)
    return f"{plan.run_dir}/keyring.new" if path.startswith(f"{plan.new_datadir}/") else path


def finish_keyring(tools: Tools, plan: Plan, *, owner: str) -> None:
    """Give the new keyring to the server, and a component its configuration in the datadir.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The clone.
        owner: User and group that the server runs as.
    """
    remote, host = tools.recipient, tools.config.host(plan.recipient)
    kind = KeyringKind(plan.keyring)
    if host.keyring.is_file:
        waiting, file = (
            path(tools.config, plan) for path in (waiting_keyring_path, new_keyring_path)
        )
        remote.run(["sh", "-c", PLACE_KEYRING, "place-keyring", waiting, file, owner])
    if kind.is_component and not host.keyring.config_file:
        text = keyring_config(tools, plan, data_file=host.keyring.data_file)
        path = f"{plan.new_datadir}/{kind.config_name}"
        mode = 0o600 if kind.uses_vault else 0o640
        remote.write_file(path, text, mode=mode, owner=owner)
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
        there = remote.run(["test", "-s", file], check=False).status == 0
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


def write_option_file(remote: Remote, plan: RunPlan, name: str, text: Secret) -> str:
    """Write a file for a tool to the run's folder on tmpfs; return its path."""
    path = f"{plan.secret_dir}/{name}"
    remote.run(["install", "-d", "-m", "0700", "--", posixpath.dirname(plan.secret_dir)])
    remote.run(["install", "-d", "-m", "0700", "--", plan.secret_dir])
    remote.write_file(path, text)
    return path


def _begin_keyring(tools: Tools, plan: Plan, path: str) -> None:
    """Begin the restored server's file of keys with what the earlier server's holds."""
    remote, earlier = tools.recipient, tools.config.host(plan.recipient).keyring.data_file
    remote.run(["install", "-d", "-m", "0700", "--", posixpath.dirname(path)])
    remote.run(["rm", "-f", "--", path])
    if remote.run(["test", "-s", earlier], check=False).status == 0:
        remote.run(["cp", "-p", "--", earlier, path])
