"""All findings about a clone, and about one host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import flavors
from orchestrator.facts.preflight.accounts import judge_recipient_account
from orchestrator.facts.preflight.donor import judge_donor
from orchestrator.facts.preflight.findings import has_keyring, judge_readable, named
from orchestrator.facts.preflight.host import (
    judge_keepalive,
    judge_programs,
    judge_receiver,
    judge_tool,
)
from orchestrator.facts.preflight.pair import judge_pair
from orchestrator.facts.preflight.recipient import (
    judge_lock,
    judge_recipient,
    judge_recipient_keyring,
    judge_tool_keyring,
)
from orchestrator.facts.preflight.replication import judge_connection, judge_source
from orchestrator.facts.preflight.stream import judge_stream
from orchestrator.facts.preflight.vault import judge_kv_version, judge_mount, judge_vault
from orchestrator.flavors.interface import DONOR_PROGRAMS
from orchestrator.privileges.database import wanted_privileges

if TYPE_CHECKING:
    from orchestrator.config import Config, HostConfig
    from orchestrator.facts.preflight.findings import Found, Request
    from orchestrator.facts.survey import HostSurvey, OwnVault, Survey
    from orchestrator.models import Check


def judge(survey: Survey, config: Config, request: Request) -> tuple[Check, ...]:
    """Return every finding, good and bad, in a fixed order."""
    found: list[Check] = []
    sides = [(request.donor, survey.donor), (request.recipient, survey.recipient)]
    if survey.source is not None:
        sides.append((request.source, survey.source))
    found += [judge_readable(name, side.errors) for name, side in sides]
    donor, recipient = survey.donor.host, survey.recipient.host
    if donor:
        found += named(
            request.donor,
            judge_donor(donor, survey.donor, request, config=config.host(request.donor)),
        )
        found += named(request.donor, iter([("ssh-keepalive", judge_keepalive(donor))]))
    if request.source:
        found += named(request.source, judge_source(survey, config, request))
    if recipient:
        recipient_config = config.host(request.recipient)
        wanted = wanted_privileges(recipient_config.flavor, recipient.server_version)
        account = judge_recipient_account(survey, request, wanted)
        if account is not None:
            found += named(request.recipient, iter([("recipient-privileges", account)]))
        judged = judge_recipient(recipient, survey.recipient, request, config=recipient_config)
        found += named(request.recipient, judged)
        found += named(request.recipient, iter([("ssh-keepalive", judge_keepalive(recipient))]))
        if has_keyring(survey):
            keyring = (
                judge_tool_keyring(recipient, survey.recipient.places, recipient_config)
                if flavors.of(recipient_config).carries_keys
                else judge_recipient_keyring(
                    recipient, recipient_config.key_mount, config.vault.transition_mount
                )
            )
            found += named(request.recipient, iter([("recipient-keyring", keyring)]))
    if survey.connection:
        found += named(request.recipient, judge_connection(survey.connection, config, request))
    if donor and recipient:
        found += named("", judge_pair(survey, donor, recipient, config, request))
        found += named("", judge_stream(survey, config, request))
        receiver = judge_receiver(recipient, request.recipient, survey.vault.ssh_ca)
        found += named(request.recipient, iter([("receiver", receiver)]))
    found += named(request.recipient, judge_lock(survey, request))
    found += named("", judge_vault(survey, config, request))
    return tuple(found)


def judge_host(
    name: str, side: HostSurvey, config: HostConfig, vault: OwnVault
) -> tuple[Check, ...]:
    """Return the findings about one host by itself, for ``hosts check``.

    Args:
        name: The host.
        side: What it told.
        config: Its configuration.
        vault: What Vault told of it.
    """
    found: list[tuple[str, Found]] = []
    host = side.host
    if host is not None:
        found += [
            ("programs", judge_programs(host, config, DONOR_PROGRAMS)),
            ("tool-version", judge_tool(host, config)),
            ("ssh-keepalive", judge_keepalive(host)),
            ("receiver", judge_receiver(host, name, vault.ssh_ca)),
            (
                "server",
                (
                    True,
                    f"{host.server_version or 'none'}, "
                    f"{'running' if host.is_running else 'not running'} in {host.datadir}",
                    "",
                ),
            ),
        ]
    if vault.kv_version is not None:
        found.append(("vault-mounts", judge_mount(config, vault.kv_version)))
        if host and host.server_version and vault.kv_version and config.keyring.uses_vault:
            found.append(("vault-keyring-mount", judge_kv_version(host, config, vault.kv_version)))
    if vault.token_ok is not None:
        found.append(
            (
                "vault-host-token",
                (
                    vault.token_ok,
                    "its own token reads its own mount"
                    if vault.token_ok
                    else "its own token does not read its own mount",
                    "issue a token for the host again, see `xbvault vault init --help`",
                ),
            )
        )
    return (judge_readable(name, side.errors), *named(name, iter(found)))
