"""The transition token: a periodic token of the recipient's own token role.

It lives from prepare to the restart on the recipient's own mount, is renewed all the while by the
session, and is revoked by its recorded accessor. It stands in a 0600 file on the recipient's tmpfs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import SecretError
from orchestrator.facts import survey
from orchestrator.models import Secret
from orchestrator.privileges import vault as vault_rights
from orchestrator.steps import records

if TYPE_CHECKING:
    from orchestrator.models import Plan
    from orchestrator.steps.registry import Tools

NEARLY_EXPIRED_SECONDS = 30


def token_file(plan: Plan) -> str:
    """Return the file on the recipient's tmpfs that holds it as ``VAULT_TOKEN=…``."""
    return f"{plan.secret_dir}/transition.env"


def accessor_name(attempt: int) -> str:
    """Return the record's name for the accessor of an attempt's token."""
    return f"a{attempt}.accessor"


def ensure_transition_token(tools: Tools, plan: Plan) -> str:
    """See to it that a living transition token lies on the recipient; return its file.

    If the recorded one has expired, or its file went with a reboot, another is made.

    Raises:
        SecretError: Vault refuses one, or its policy does not let it read what the server will.
    """
    path = token_file(plan)
    accessor = records.read_record(tools, plan).get(accessor_name(tools.attempt), "")
    if accessor:
        known = tools.vault.lookup_accessor(accessor)
        there = tools.recipient.run(["test", "-f", path], check=False).status == 0
        if known and known.ttl_seconds > NEARLY_EXPIRED_SECONDS and there:
            tools.vault.renew_accessor(accessor)
            return path
        tools.vault.revoke_accessor(accessor)
    token, accessor = tools.vault.create_token(vault_rights.transition_role(plan.recipient))
    records.update_record(tools, plan, {accessor_name(tools.attempt): accessor})
    _check_rights(tools, plan, token)
    tools.recipient.run(["install", "-d", "-m", "0700", "/run/xbvault", plan.secret_dir])
    tools.recipient.write_file(path, Secret.join("VAULT_TOKEN=", token, "\n"))
    return path


def check_own_token(tools: Tools, plan: Plan) -> None:
    """See that the recipient's own token reads its own mount, before its server depends on it.

    Raises:
        SecretStoreUnavailableError: Vault does not answer.
        SecretError: The token is refused.
    """
    if not plan.has_keyring:
        return
    path = tools.config.host(plan.recipient).vault_env_file
    own = tools.vault.with_token(tools.recipient.read_secret(path, "VAULT_TOKEN"))
    for counts in records.need_transition(tools, plan).versions:
        try:
            readable = own.can_read(f"{plan.own_mount}/data/{counts.key_id}")
        except SecretError as error:
            if error.transient:
                raise
            raise survey.make_token_error(error, plan.recipient, path) from error
        if not readable:
            raise SecretError(
                f"the Vault token of host {plan.recipient} may not read {plan.own_mount}",
                host=plan.recipient,
                hint=f"`xbvault vault check` says what its policy lacks; its token is in {path}",
            )


def revoke_transition_tokens(tools: Tools, plan: Plan) -> int:
    """Revoke every transition token that the run has recorded; return how many."""
    record = records.read_record(tools, plan)
    names = [name for name in record if name.endswith(".accessor")]
    for name in names:
        tools.vault.revoke_accessor(record[name])
    tools.recipient.run(["rm", "-f", "--", token_file(plan)])
    return len(names)


def _check_rights(tools: Tools, plan: Plan, token: Secret) -> None:
    """Read with a transition token what the server will read: nobody else can tell its policy."""
    transition = records.need_transition(tools, plan)
    names = vault_rights.Names(
        run_id=transition.mount.rpartition("/")[2], key_id=transition.versions[0].key_id
    )
    rights = vault_rights.transition_rights(tools.config, plan.recipient, names)
    patterns = vault_rights.transition_rights(tools.config, plan.recipient)
    holder = tools.vault.with_token(token)
    for path, pattern in zip(rights, patterns, strict=True):
        try:
            holder.read_path(path)
        except SecretError as error:
            if error.transient:
                raise
            policy = vault_rights.policy_name(vault_rights.transition_role(plan.recipient))
            raise SecretError(
                f'Vault denies the transition token of {plan.recipient} "read" on {path}',
                host=plan.recipient,
                hint=f'the policy {policy} needs: path "{pattern}" {{ capabilities = ["read"] }}; '
                "`xbvault vault init` writes it, then `xbvault runs resume`",
            ) from error
