"""What must hold of the recipient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import flavors
from orchestrator.facts import layout
from orchestrator.facts.preflight.host import judge_programs, judge_tool
from orchestrator.flavors import mysql_keyrings
from orchestrator.flavors.file_sets import KEYRING_BACKUP
from orchestrator.flavors.mysql_keyrings import KeyringKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.config import HostConfig
    from orchestrator.facts.hosts import HostFacts
    from orchestrator.facts.places import Places
    from orchestrator.facts.preflight.findings import Found, Request
    from orchestrator.facts.survey import HostSurvey, Survey


def judge_recipient(
    host: HostFacts, side: HostSurvey, request: Request, *, config: HostConfig
) -> Iterator[tuple[str, Found]]:
    """Yield the findings about a recipient."""
    owner = config.server.owner
    yield "programs", judge_programs(host, config)
    yield "tool-version", judge_tool(host, config)
    yield (
        "recipient-datadir",
        (
            not host.has_data or request.replace,
            f"{host.datadir} has data" if host.has_data else f"{host.datadir} is free",
            "look at what it holds, then use --replace: it is set aside, not removed",
        ),
    )
    yield "recipient-server", _judge_recipient_server(host, side, request)
    problems = layout.list_problems(host, side.places, owner=owner)
    yield (
        "datadir-layout",
        (
            not problems,
            "; ".join(problems)
            or layout.describe(layout.make_layout(host, side.places, request.run_id), host),
            "mend these, or see docs/how-to/set-up-your-hosts.md for the layouts that can be swapped",
        ),
    )
    profile, denied = layout.list_denied(host, side.places)
    files = side.places.profile_files if side.places else ()
    yield (
        "apparmor",
        (
            not denied,
            f"the profile {profile} denies {', '.join(denied)}"
            if denied
            else f"the profile {profile} is in force, and lets the server write where it must"
            if profile
            else "no profile is in force for the server",
            f"allow `{(denied or ('',))[0]}/** rwk,` in {(files or ('the profile',))[-1]}, "
            "then load it again with apparmor_parser -r",
        ),
    )
    lacking = flavors.of(config).list_unlogged(host.options, host.server_version)
    yield (
        "recipient-options",
        (
            not lacking,
            ", ".join(lacking) or "its binary log is on, and gets what it replicates",
            "set log_bin and log_slave_updates=ON, so that the replica can be a source later",
        ),
    )
    kept = (".xbvault-old-", "/.xbvault/old-")
    left = [path for path in host.siblings if not any(form in path for form in kept)]
    yield (
        "leftovers",
        (
            not any(request.run_id in path for path in left),
            ", ".join(left) if left else "none beside the datadir",
            "an earlier run of this name left them; look at `xbvault runs list`",
        ),
    )


def judge_recipient_keyring(host: HostFacts, mount: str, transition_mount: str) -> Found:
    """Judge where the recipient's server will look for its keys."""
    own_url = host.options.get("hashicorp_key_management_vault_url", "")
    if not any("hashicorp_key_management" in " ".join(pair) for pair in host.options.items()):
        return (
            False,
            "the options do not load hashicorp_key_management",
            "add plugin-load-add=hashicorp_key_management and its options on the recipient",
        )
    hint = f"set hashicorp-key-management-vault-url=…/v1/{mount} in the recipient's options"
    if f"/v1/{transition_mount}/" in own_url:
        run_id = own_url.rstrip("/").rpartition("/")[2].partition(".")[0]
        hint = f"a clone that has not ended left it so: `xbvault runs cancel {run_id}`"
    return (
        own_url.rstrip("/").endswith(f"/v1/{mount}"),
        f"vault url {own_url or 'not set'}, mount {mount}",
        hint,
    )


def judge_tool_keyring(host: HostFacts, found: Places | None, config: HostConfig) -> Found:
    """Judge where the backup tool will put the recipient's new master key."""
    if not config.keyring.kind:
        return (
            False,
            "hosts.*.keyring of the recipient says no kind",
            "name the keyring that the recipient's server has, such as component_keyring_file",
        )
    if not host.server_version or not host.tool_version:
        return False, "the versions of server and backup tool are not known", "see `programs`"
    left = [f for f in found.files if f.what == KEYRING_BACKUP and f.bytes] if found else []
    if left:
        return (
            False,
            f"{config.keyring.data_file}.backup lies beside the keyring",
            "the server would take it for its keyring at its next start: move it away, if the "
            "keyring is whole",
        )
    kind = KeyringKind(config.keyring.kind)
    reason = mysql_keyrings.judge_keyring(
        kind,
        server_version=host.server_version,
        is_percona="percona" in host.server_banner.lower(),
        tool_version=host.tool_version,
    )
    options = {
        KeyringKind.VAULT_PLUGIN: ("keyring_vault_config", config.keyring.config_file),
        KeyringKind.FILE_PLUGIN: ("keyring_file_data", config.keyring.data_file),
    }
    name, path = options.get(kind, ("", ""))
    if not reason and name and host.options.get(name, "") != path:
        reason = f"{name} is {host.options.get(name) or 'not set'}, and {path} in hosts.*.keyring"
    if not reason and name and kind.value not in host.options.get("early_plugin_load", ""):
        reason = f"early_plugin_load does not name {kind.library}"
    return (
        not reason,
        reason or f"{kind.value}, new master key of its own",
        "see hosts.*.keyring in docs/reference/configuration.md",
    )


def _judge_recipient_server(host: HostFacts, side: HostSurvey, request: Request) -> Found:
    instance = side.instance
    if instance is None and host.is_running:
        return False, "the server that runs cannot be asked", "let the account in that works there"
    if instance is None:
        return True, "no server runs", ""
    if instance.replicas:
        return (
            False,
            f"is a source: {', '.join(instance.replicas)} read its binary log",
            "move its replicas elsewhere first",
        )
    if not request.replace:
        return (
            False,
            f"a server runs in {host.datadir}",
            "use --replace to set it aside, if this is the host that you mean",
        )
    if not instance.is_on("read_only") and instance.user_schemas:
        return (
            False,
            f"a server that takes writes runs here ({instance.user_schemas} user schemas)",
            "set read_only=ON there first, if its data may be set aside",
        )
    return True, "a read-only or empty server runs; it is stopped just before the swap", ""


def judge_lock(survey: Survey, request: Request) -> Iterator[tuple[str, Found]]:
    """Yield the finding about the recipient lock, if it could be read."""
    state = survey.lock
    if state is None:
        return
    taken = bool(state.run) and state.live and state.run != request.run_id
    yield (
        "recipient-lock",
        (
            not taken,
            f"run {state.run} of {state.holder} holds {request.recipient}" if taken else "free",
            "wait until that run has ended, or cancel it",
        ),
    )
