"""What preflight says of a MySQL recipient's mount in Vault."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import surveys
from surveys import REQUEST, change, make_survey, make_token

from orchestrator import config as config_module
from orchestrator.errors import CommandError
from orchestrator.facts import preflight
from orchestrator.facts.preflight.vault import judge_vault
from orchestrator.facts.survey import (
    OwnVault,
    list_token_holders,
    needed_by_host,
    needed_capabilities,
)

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.facts.preflight.findings import Found
    from orchestrator.facts.survey import Survey

PLUGIN = {"kind": "keyring_vault", "config_file": "/etc/mysql/keyring_vault.conf"}
COMPONENT = {"kind": "component_keyring_vault"}
FILE = {"kind": "component_keyring_file", "data_file": "/var/lib/mysql-keyring/keyring"}


def make_config(recipient: dict[str, Any], donor: dict[str, Any] | None = None) -> Config:
    """Return a configuration of two hosts with MySQL and these keyrings."""
    hosts = {
        name: {"flavor": "mysql", "vault_mount": f"keys/{name}", "keyring": keyring}
        for name, keyring in (("db1", donor or FILE), ("db2", recipient))
    }
    return config_module.parse({"vault": {"address": "https://vault.example:8200"}, "hosts": hosts})


def make_mysql_survey(
    config: Config, *, server_version: str, kv_version: int, **vault: Any
) -> Survey:
    """Return a survey in which every finding about Vault is good, but for what is given."""
    holders = list_token_holders(config, "db1", "db2")
    needed = needed_capabilities(config, "db1", "db2", REQUEST.run_id, REQUEST.backup_id)
    survey = change(
        make_survey(),
        "vault",
        capabilities=dict(needed),
        kv_versions={"xbvault": 2, "keys/db2": kv_version},
        max_versions={},
        host_tokens={name: make_token() for name in holders},
        reads_own=dict.fromkeys(holders, True),
        donor_key_ids=(),
        host_capabilities={name: needed_by_host(config, name) for name in holders},
    )
    survey = change(survey, "vault", **vault)
    return change(survey, "recipient.host", server_version=server_version)


def judge(survey: Survey, config: Config) -> list[tuple[str, Found]]:
    """Return the findings about Vault."""
    return list(judge_vault(survey, config, REQUEST))


@pytest.mark.parametrize(
    ("keyring", "server_version", "kv_version"),
    [
        (PLUGIN, "5.7.30", 1),
        (PLUGIN, "8.0.36", 1),
        ({**PLUGIN, "kv_version": 2}, "8.0.36", 2),
        ({**PLUGIN, "kv_version": 2}, "5.7.33", 2),
        (COMPONENT, "8.4.0", 2),
        ({**COMPONENT, "kv_version": 1}, "8.4.0", 1),
    ],
)
def test_a_mount_that_the_keyring_can_use(
    keyring: dict[str, Any], server_version: str, kv_version: int
) -> None:
    """Nothing is amiss, and nothing is asked of the donor's mount, nor of kept versions."""
    config = make_config(keyring, donor=COMPONENT)
    survey = make_mysql_survey(config, server_version=server_version, kv_version=kv_version)
    found = judge(survey, config)
    assert [name for name, (ok, _, _) in found if not ok] == []
    names = [name for name, _ in found]
    assert "vault-keyring-mount" in names
    assert "vault-max-versions" not in names
    assert not any("keys/db1" in path for path in survey.vault.capabilities)


@pytest.mark.parametrize("server_version", ["5.7.21", "5.7.32", "8.0.11", "8.0.22"])
def test_a_plugin_that_would_lose_the_key_is_refused(server_version: str) -> None:
    """In a version 2 mount it reports success and stores the key nowhere."""
    config = make_config({**PLUGIN, "kv_version": 2})
    survey = make_mysql_survey(config, server_version=server_version, kv_version=2)
    ((name, (_, evidence, hint)),) = [f for f in judge(survey, config) if not f[1][0]]
    assert name == "vault-keyring-mount"
    assert evidence == (
        f"keyring_vault of {server_version} cannot use KV version 2, as keys/db2 is: it reports "
        "success and stores the key nowhere"
    )
    assert "kv_version = 1" in hint


def test_a_mount_of_another_version_is_refused_with_both_reasons() -> None:
    """It is not what the configuration says, and the plugin could not use it either."""
    config = make_config(PLUGIN)
    survey = make_mysql_survey(config, server_version="5.7.30", kv_version=2)
    bad = {name: evidence for name, (ok, evidence, _) in judge(survey, config) if not ok}
    assert set(bad) == {"vault-mounts", "vault-keyring-mount"}
    assert bad["vault-mounts"] == "keys/db2 is KV version 2, not 1"


def test_a_mount_that_is_not_there() -> None:
    """Nothing is said of what the keyring could do with it."""
    config = make_config(PLUGIN)
    survey = make_mysql_survey(config, server_version="5.7.30", kv_version=0)
    bad = {name: evidence for name, (ok, evidence, _) in judge(survey, config) if not ok}
    assert bad == {"vault-mounts": "keys/db2 is not there"}


@pytest.mark.parametrize(
    ("keyring", "path", "policy"),
    [
        (PLUGIN, "keys/db2/1", "keys/db2/*"),
        (COMPONENT, "keys/db2/data/1", "keys/db2/data/*"),
        (COMPONENT, "keys/db2/config", "keys/db2/config"),
    ],
)
def test_a_recipients_token_must_be_able_to_store_keys(
    keyring: dict[str, Any], path: str, policy: str
) -> None:
    """What it lacks is named by the path of its policy, in the form of the mount's version."""
    config = make_config(keyring)
    kv_version = config.host("db2").kv_version
    rights = {**needed_by_host(config, "db2"), path: ("deny",)}
    survey = make_mysql_survey(
        config,
        server_version="8.4.0",
        kv_version=kv_version,
        host_capabilities={"db2": rights},
    )
    bad = {name: found for name, (ok, *found) in judge(survey, config) if not ok}
    assert "vault-host-capabilities" in bad
    assert f" on {policy}" in bad["vault-host-capabilities"][0]
    assert "xbvault-host-db2" in bad["vault-host-capabilities"][1]


def test_the_orchestrator_must_see_the_names_of_keys() -> None:
    """Without that it could not tell whether the new key is there."""
    for keyring, path in ((PLUGIN, "keys/db2/"), (COMPONENT, "keys/db2/metadata/")):
        config = make_config(keyring)
        needed = needed_capabilities(config, "db1", "db2", REQUEST.run_id, REQUEST.backup_id)
        assert [p for p in needed if p.startswith("keys/")] == [path]
        survey = make_mysql_survey(
            config,
            server_version="8.0.36" if keyring is PLUGIN else "8.4.0",
            kv_version=config.host("db2").kv_version,
            capabilities={**needed, path: ("deny",)},
        )
        ((name, (_, evidence, _)),) = [f for f in judge(survey, config) if not f[1][0]]
        assert (name, evidence) == ("vault-capabilities", f"the token lacks list on {path}")


def test_a_keyring_in_a_file_needs_nothing_of_vault() -> None:
    """No mount, no token of either host, and no right on a mount of theirs."""
    config = make_config(FILE)
    error = CommandError("no file /etc/mysql/vault.env")
    survey = make_mysql_survey(config, server_version="9.7.1", kv_version=2)
    survey = change(survey, "vault", kv_versions={"xbvault": 2})
    for side in ("donor", "recipient"):
        survey = change(survey, side, token=None, token_error=error)
    assert list_token_holders(config, "db1", "db2") == ()
    found = judge(survey, config)
    assert [name for name, (ok, _, _) in found if not ok] == []
    assert not {"vault-host-token", "vault-recipient-separate"} & {name for name, _ in found}


def test_the_recipients_token_is_missed_where_its_keyring_is_in_vault() -> None:
    """The donor's is not: its backup tool uses its server's keyring by itself."""
    config = make_config(PLUGIN, donor=PLUGIN)
    error = CommandError("no file /etc/mysql/vault.env")
    survey = make_mysql_survey(config, server_version="5.7.30", kv_version=1)
    for side in ("donor", "recipient"):
        survey = change(survey, side, token=None, token_error=error)
    bad = [(name, evidence) for name, (ok, evidence, _) in judge(survey, config) if not ok]
    assert bad == [("vault-host-token", "db2: no file /etc/mysql/vault.env")]


@pytest.mark.parametrize(
    ("kv_version", "bad"),
    [(1, []), (2, ["vault-mounts", "vault-keyring-mount"]), (0, ["vault-mounts"]), (None, [])],
)
def test_one_host_by_itself_with_its_mount(kv_version: int | None, bad: list[str]) -> None:
    """`hosts check` reads the version of the mount back, and says when it does not fit."""
    config = make_config(PLUGIN)
    side = change(make_survey(), "recipient.host", server_version="5.7.30").recipient
    side = dataclasses.replace(side, errors=())
    found = preflight.judge_host(
        "db2",
        side,
        config.host("db2"),
        OwnVault(ssh_ca=surveys.CA, token_ok=True, kv_version=kv_version),
    )
    about = [check for check in found if check.name.startswith("vault-")]
    assert [check.name for check in about if not check.ok] == bad
