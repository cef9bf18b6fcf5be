"""Names of keys in the recipient's own mount of Vault: what a restore put there, and who needs which.

A run adds keys there, and only `runs forget` removes any.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from orchestrator import flavors, numerals
from orchestrator.errors import SecretError, VerificationError
from orchestrator.flavors import mysql_keyrings, mysql_output
from orchestrator.flavors.mysql_keyrings import KeyringKind
from orchestrator.steps import records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.models import Plan
    from orchestrator.steps.registry import Tools

NAMES = "key-names.json"
"""File in the run's folder: names of keys in the recipient's mount, see `KeyNames`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyNames:
    """Names of keys in the recipient's own mount, as a run has found them.

    Attributes:
        before: Those that were there before the restore.
        new: That of the new master key, with what else has appeared since.
        earlier: Those that the earlier datadir may need.
    """

    before: frozenset[str]
    new: frozenset[str] = frozenset()
    earlier: frozenset[str] = frozenset()


def record_before(tools: Tools, plan: Plan) -> None:
    """Write down, before a restore, which names are there: the new one is known by them."""
    write_names(tools, plan, KeyNames(before=_list_names(tools, plan)))


def need_new_key(tools: Tools, plan: Plan, *, words: str, set_options: Mapping[str, str]) -> None:
    """See that the new master key is in the recipient's own mount.

    A tool was seen to end well that had stored it nowhere.

    Args:
        tools: The doors to the recipient and to Vault.
        plan: The clone.
        words: What the tool wrote to stderr.
        set_options: Of the set's ``backup-my.cnf``.

    Raises:
        SecretError: Vault does not say.
        VerificationError: It is not there.
    """
    if not KeyringKind(plan.keyring).uses_vault:
        return
    before = need_names(tools, plan.run_id).before
    there = _list_names(tools, plan)
    said = mysql_output.parse_new_master_key(words) or ""
    found = find_new_key(before, there, said=said, reused=_find_reused(plan, set_options))
    if not found:
        raise VerificationError(
            f"the tool has ended well, but its new master key {said or 'without a name'} is not in "
            f"{plan.own_mount}",
            host=plan.recipient,
            hint=f"{_explain_mount(tools, plan)}; mend it, then `xbvault runs resume` restores "
            "again; the earlier data was not touched",
        )
    write_names(tools, plan, KeyNames(before=before, new=found))


def find_new_key(
    before: frozenset[str], there: frozenset[str], *, said: str, reused: str = ""
) -> frozenset[str]:
    """Return the names of what a restore put into a mount; empty if its new key is not there.

    Args:
        before: Names that were there before it.
        there: Names that are there now.
        said: What the tool calls the key; empty where it does not say.
        reused: What a tool may call it that takes a key which is there already, and does not say.
    """
    appeared = there - before
    if said:
        named = mysql_keyrings.stored_name(mysql_keyrings.master_key_id(said))
        return appeared | {named} if named in there else frozenset()
    if not appeared and reused:
        named = mysql_keyrings.stored_name(mysql_keyrings.master_key_id(reused))
        return frozenset({named} & there)
    return appeared


def record_needed(tools: Tools, plan: Plan, *, has_data: bool) -> None:
    """Write down which names the earlier datadir may need, for `runs forget`.

    All that are there but what the restore has put there: which of them an earlier server used is
    known to it alone.
    """
    if not flavors.tool_carries_keys(plan) or not KeyringKind(plan.keyring).uses_vault:
        return
    names = need_names(tools, plan.run_id)
    earlier = _list_names(tools, plan) - names.new if has_data else frozenset()
    write_names(tools, plan, dataclasses.replace(names, earlier=earlier))


def unneeded_names(mine: KeyNames, in_place: KeyNames, others: list[KeyNames]) -> tuple[str, ...]:
    """Return the names that only the earlier datadir of a run needed.

    What a server has made since a swap stands in no list of it, and is never among them.

    Args:
        mine: Of the run whose earlier datadir is given up.
        in_place: Of the run that made the datadir in place; it may be the same.
        others: Of the runs whose earlier datadirs are still there.
    """
    needed = in_place.new.union(*(other.earlier for other in others))
    return tuple(sorted(n for n in mine.earlier - needed if mysql_keyrings.is_servers_own(n)))


def remove_names(tools: Tools, plan: Plan, names: tuple[str, ...]) -> None:
    """Remove keys from the recipient's own mount, with the host's own token; for good.

    The orchestrator's may not, for nothing else of a run removes a key there.

    Raises:
        SecretError: Vault refuses.
    """
    if not names:
        return
    host = tools.config.host(plan.recipient)
    token = tools.recipient.read_secret(host.vault_env_file, "VAULT_TOKEN")
    own = tools.vault.with_token(token)
    for name in names:
        own.remove_secret(plan.own_mount, name, kv_version=host.kv_version)


def list_there(tools: Tools, plan: Plan, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of some names that are in the recipient's own mount."""
    there = _list_names(tools, plan)
    return tuple(name for name in names if name in there)


def write_names(tools: Tools, plan: Plan, names: KeyNames) -> None:
    """Write the names down in the run's folder."""
    found = {field: sorted(values) for field, values in dataclasses.asdict(names).items()}
    tools.recipient.write_file(_names_path(plan.run_id), json.dumps(found) + "\n")


def read_names(tools: Tools, run_id: str) -> KeyNames | None:
    """Return the names that a run has written down; None if it did not.

    Raises:
        VerificationError: What it wrote is not to be understood.
    """
    path = _names_path(run_id)
    if not run_id or tools.recipient.run(["test", "-s", path], check=False).status != 0:
        return None
    return parse_names(tools.recipient.read_file(path))


def need_names(tools: Tools, run_id: str) -> KeyNames:
    """Return the names that a run has written down.

    Raises:
        VerificationError: It did not, or what it wrote is not to be understood.
    """
    found = read_names(tools, run_id)
    if found is None:
        raise VerificationError(
            f"run {run_id} has not written down which keys were in the recipient's mount",
            host=tools.recipient.name,
            hint="`xbvault runs cancel`, then begin a new run; the earlier data was not touched",
        )
    return found


def parse_names(content: bytes) -> KeyNames:
    """Return the names in a file that `write_names` has written.

    Raises:
        VerificationError: It is none.
    """
    try:
        found = json.loads(content)
        names = {field.name: found[field.name] for field in dataclasses.fields(KeyNames)}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise VerificationError(f"{NAMES} of a run cannot be read: {error}") from error
    is_whole = all(
        isinstance(values, list) and all(isinstance(value, str) for value in values)
        for values in names.values()
    )
    if not is_whole:
        raise VerificationError(f"{NAMES} of a run is not whole")
    return KeyNames(**{field: frozenset(values) for field, values in names.items()})


def _list_names(tools: Tools, plan: Plan) -> frozenset[str]:
    kv_version = tools.config.host(plan.recipient).kv_version
    return frozenset(tools.vault.list_secrets(plan.own_mount, kv_version=kv_version))


def _find_reused(plan: Plan, set_options: Mapping[str, str]) -> str:
    """Return what tools of series 2.4 call their new key: after the donor, with its next number."""
    uuid, number = set_options.get("server_uuid", ""), set_options.get("master_key_id", "")
    if not plan.tool_version.startswith("2.4.") or not uuid or not numerals.is_whole(number):
        return ""
    return f"{uuid}-{int(number) + 1}"


def _explain_mount(tools: Tools, plan: Plan) -> str:
    """Return what may be wrong with the recipient's mount."""
    wanted = tools.config.host(plan.recipient).kv_version
    try:
        found = tools.vault.read_kv_version(plan.own_mount)
    except SecretError as error:
        return error.message
    if found != wanted:
        return (
            f"{plan.own_mount} is KV version {found}, not {wanted}: there the keyring reports "
            "success and stores the key nowhere"
        )
    return "see that the keyring of the recipient uses this mount"


def _names_path(run_id: str) -> str:
    return f"{records.RUNS}/{run_id}/{NAMES}"
