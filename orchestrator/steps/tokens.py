"""The transition token: a periodic token of the recipient's own token role.

It lives from prepare to the restart on the recipient's own mount, is renewed all the while by the
session, and is revoked by its recorded accessor. It stands in a 0600 file on the recipient's tmpfs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import flavors
from orchestrator.errors import SecretError, SecretStoreUnavailableError
from orchestrator.facts import survey
from orchestrator.jobs import SIGNALLED
from orchestrator.models import Secret
from orchestrator.privileges import vault as vault_rights
from orchestrator.steps import outcomes, records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.models import Plan, RunPlan
    from orchestrator.remote import Remote
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
    if flavors.needs_transition_mount(plan):
        key_ids = [counts.key_id for counts in records.need_transition(tools, plan).versions]
        _check_host_token(tools, tools.recipient, plan.own_mount, key_ids)


def explain_missing_keys(
    tools: Tools, plan: RunPlan, host: str, *, status: int, words: str
) -> SecretError | None:
    """Return why a tool got no keys from Vault; None if it did not fail on that.

    Its words do not tell a sealed Vault from a token that is refused, so Vault is asked.

    Args:
        tools: The doors to the hosts and to Vault.
        plan: The clone.
        host: Where the tool ran.
        status: How it ended; who was killed did not end on that, whatever it wrote before.
        words: What it wrote to stderr.
    """
    line = outcomes.find_vault_line(words)
    if not line or status == 0 or status in SIGNALLED:
        return None
    begin = f"the backup tool on {host} got no keys from Vault"
    try:
        tools.vault.lookup_token()
        if host == plan.donor:
            _check_host_token(tools, tools.donor, plan.donor_mount, ["1"])
    except SecretError as error:
        return type(error)(f"{begin}: {error.message}", host=host, hint=error.hint)
    return SecretStoreUnavailableError(
        f"{begin}, which answers now: {line}",
        host=host,
        hint=f"see that {host} reaches Vault, then `xbvault runs resume`",
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


def _check_host_token(tools: Tools, remote: Remote, mount: str, key_ids: Sequence[str]) -> None:
    path = tools.config.host(remote.name).vault_env_file
    own = tools.vault.with_token(remote.read_secret(path, "VAULT_TOKEN"))
    for key_id in key_ids:
        try:
            readable = own.can_read(f"{mount}/data/{key_id}")
        except SecretError as error:
            if error.transient:
                raise
            raise survey.make_token_error(error, remote.name, path) from error
        if not readable:
            raise SecretError(
                f"the Vault token of host {remote.name} may not read {mount}",
                host=remote.name,
                hint=f"`xbvault vault check` says what its policy lacks; its token is in {path}",
            )
