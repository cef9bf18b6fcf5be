"""Preflight: a good survey, and every finding made bad, one at a time and several at once."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import surveys
from surveys import CONFIG, REQUEST, change, make_host, make_instance, make_survey, make_token

from orchestrator import config as config_module
from orchestrator.errors import (
    ConfigError,
    HostKeyError,
    HostUnreachableError,
    LockHeldError,
    OrchestratorError,
    PreconditionError,
    SecretError,
    SecretStoreUnavailableError,
)
from orchestrator.facts import preflight
from orchestrator.facts.places import FoundFiles, Places
from orchestrator.facts.survey import HostSurvey, OwnVault, needed_capabilities
from orchestrator.lock import LockState
from orchestrator.models import Check
from orchestrator.privileges.vault import clone_rights

if TYPE_CHECKING:
    from orchestrator.config import Config
    from orchestrator.facts.survey import Survey

REPLACE = dataclasses.replace(REQUEST, replace=True)
PREFIX = "hashicorp_key_management_"


def judge(survey: Survey, config: Config = CONFIG, **changes: Any) -> tuple[Check, ...]:
    """Judge a survey for the usual request, with something in it changed."""
    return preflight.judge(survey, config, dataclasses.replace(REQUEST, **changes))


def bad(checks: tuple[Check, ...]) -> list[tuple[str, str]]:
    """Return name and host of the findings that do not hold."""
    return [(check.name, check.host) for check in checks if not check.ok]


def host(name: str, **changes: Any) -> Survey:
    """Return a good survey but for facts about a host."""
    side = "donor" if name == "db1" else "recipient"
    return change(make_survey(), f"{side}.host", **changes)


def instance(**changes: Any) -> Survey:
    """Return a good survey but for facts about the donor's server."""
    return change(make_survey(), "donor", instance=make_instance("1", **changes))


def running(**changes: Any) -> Survey:
    """Return a good survey but for a server that runs on the recipient."""
    survey = change(make_survey(), "recipient.host", server_pids=(99,), has_data=True)
    return change(survey, "recipient", instance=make_instance("2", **changes))


def vault(**changes: Any) -> Survey:
    """Return a good survey but for what Vault told."""
    return change(make_survey(), "vault", **changes)


def without(mapping: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return a mapping without some keys."""
    return {key: value for key, value in mapping.items() if key not in keys}


def options(**changes: str | None) -> dict[str, str]:
    """Return the recipient's options with some changed, or gone."""
    merged = {**make_host("db2").options, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def make_files(**changes: Any) -> FoundFiles:
    """Return a redo log on a filesystem of its own."""
    values: dict[str, Any] = {
        "what": "InnoDB redo log",
        "directory": "/srv/redo",
        "patterns": ("ib_logfile*",),
        "real": "/srv/redo",
        "filesystem": 7,
        "free_bytes": 10**10,
        "bytes": 0,
        "foreign": (),
    }
    return FoundFiles(**{**values, **changes})


GOOD_PROGRAMS = make_host("db1").programs
NEEDED = needed_capabilities(CONFIG, "db1", "db2", REQUEST.run_id, REQUEST.backup_id)
KEY_PATH = f"xbvault/data/transition-keys/{REQUEST.backup_id}"
HELD = LockState(
    run="20261121T200000Z-db2-aaaaaaaa",
    holder="ops1:1234abcd",
    fence=4,
    live=True,
    changed_by="",
    changed_fence=0,
)

BAD: dict[str, tuple[Survey, str, str, type[OrchestratorError], str]] = {
    "donor lacks ssh-keygen": (
        host("db1", programs=without(GOOD_PROGRAMS, "ssh-keygen")),
        "programs",
        "db1",
        PreconditionError,
        "missing: ssh-keygen",
    ),
    "recipient lacks mbstream and pv": (
        host("db2", programs=without(GOOD_PROGRAMS, "mbstream", "pv")),
        "programs",
        "db2",
        PreconditionError,
        "missing: mbstream, pv",
    ),
    "donor's sshd never asks": (
        host("db1", sshd={"clientaliveinterval": "0"}),
        "ssh-keepalive",
        "db1",
        PreconditionError,
        "ClientAliveInterval 0",
    ),
    "recipient does not reach the donor's server": (
        change(make_survey(), "connection", refusal="ERROR 2002 (HY000): Can't connect"),
        "source-reachable",
        "db2",
        PreconditionError,
        "does not connect to 192.0.2.1:3306: ERROR 2002",
    ),
    "recipient does not trust the donor's server": (
        change(make_survey(), "connection", distrust="ERROR 2026 (HY000): TLS/SSL error"),
        "source-certificate",
        "db2",
        PreconditionError,
        "with no server.replication_ca_file: ERROR 2026",
    ),
    "recipient's sshd does not say": (
        host("db2", sshd={}),
        "ssh-keepalive",
        "db2",
        PreconditionError,
        "ClientAliveInterval not shown",
    ),
    "donor's tool is older": (
        host("db1", tool_version="10.11.6"),
        "tool-version",
        "db1",
        PreconditionError,
        "server 10.11.19, mariadb-backup 10.11.6",
    ),
    "recipient's tool does not say": (
        host("db2", tool_version=""),
        "tool-version",
        "db2",
        PreconditionError,
        "mariadb-backup ?",
    ),
    "no keyring although it is required": (
        instance(encryption_plugins={}),
        "donor-keyring",
        "db1",
        PreconditionError,
        "no keyring",
    ),
    "keyring is disabled although it is required": (
        instance(encryption_plugins={"hashicorp_key_management": "DISABLED"}),
        "donor-keyring",
        "db1",
        PreconditionError,
        "hashicorp_key_management DISABLED",
    ),
    "no binlog": (
        instance(variables={"log_bin": "OFF"}),
        "donor-binlog",
        "db1",
        PreconditionError,
        "log_bin=OFF",
    ),
    "binlog with a name that SQL cannot carry": (
        instance(variables={"log_bin_basename": "/var/lib/mysql/b\\in"}),
        "donor-binlog",
        "db1",
        PreconditionError,
        "log_bin_basename='/var/lib/mysql/b\\\\in'",
    ),
    "no TLS": (
        instance(variables={"have_ssl": "DISABLED"}),
        "donor-tls",
        "db1",
        PreconditionError,
        "have_ssl=DISABLED",
    ),
    "names that the tool does not quote": (
        instance(unquoted_tables=("shop.a`b", "x`\n.y")),
        "donor-table-names",
        "db1",
        PreconditionError,
        "mariadb-backup fails at a backtick in shop.a`b, x`\\n.y",
    ),
    "binlogs go too early": (
        instance(variables={"binlog_expire_logs_seconds": "600"}),
        "binlog-retention",
        "db1",
        PreconditionError,
        "kept 600 s, wanted 3600 s",
    ),
    "binlogs go too early for the size": (
        instance(variables={"binlog_expire_logs_seconds": "10000"}, data_bytes=90 * 10**9),
        "binlog-retention",
        "db1",
        PreconditionError,
        "kept 10000 s, wanted 13500 s",
    ),
    "keys are cached for a minute": (
        instance(variables={f"{PREFIX}cache_timeout": "60000"}),
        "key-cache",
        "db1",
        PreconditionError,
        "cache_timeout=60000",
    ),
    "versions are cached for a minute": (
        instance(variables={f"{PREFIX}cache_version_timeout": "60000"}),
        "key-cache",
        "db1",
        PreconditionError,
        "cache_version_timeout=60000",
    ),
    "keys are not cached": (
        instance(variables={f"{PREFIX}caching_enabled": "OFF"}),
        "key-cache",
        "db1",
        PreconditionError,
        "caching_enabled=OFF",
    ),
    "the cache is not used when Vault is away": (
        instance(variables={f"{PREFIX}use_cache_on_timeout": "OFF"}),
        "key-cache",
        "db1",
        PreconditionError,
        "use_cache_on_timeout=OFF",
    ),
    "donor cannot resolve the recipient": (
        change(make_survey(), "donor", peer_address=""),
        "name-resolution",
        "db1",
        PreconditionError,
        "db2 is not resolved",
    ),
    "recipient has data": (
        host("db2", has_data=True),
        "recipient-datadir",
        "db2",
        PreconditionError,
        "/var/lib/mysql has data",
    ),
    "a filesystem is mounted inside the datadir": (
        host("db2", mounts_inside=("/var/lib/mysql/big",)),
        "datadir-layout",
        "db2",
        PreconditionError,
        "/var/lib/mysql/big is a mount path inside",
    ),
    "the root of the datadir's filesystem is not the server's": (
        host("db2", is_mount_path=True, datadir_owner="root:root"),
        "datadir-layout",
        "db2",
        PreconditionError,
        "belongs to root:root, not to mysql",
    ),
    "a directory outside is not there": (
        change(make_survey(), "recipient", places=Places(files=(make_files(real=""),))),
        "datadir-layout",
        "db2",
        PreconditionError,
        "redo log belong in /srv/redo, which is not there",
    ),
    "a directory outside is too small": (
        change(make_survey(), "recipient", places=Places(files=(make_files(free_bytes=100),))),
        "space",
        "",
        PreconditionError,
        "0.00 GB free in /srv/redo, 0.16 GB wanted",
    ),
    "AppArmor would deny": (
        change(
            make_survey(),
            "recipient",
            places=Places(
                files=(make_files(),),
                profiles=("mariadbd (enforce)",),
                profile_rules=("/var/lib/mysql/** rwk,",),
            ),
        ),
        "apparmor",
        "db2",
        PreconditionError,
        "the profile mariadbd denies /srv/redo",
    ),
    "recipient does not load the key plugin": (
        host(
            "db2",
            options=options(plugin_load_add=None, hashicorp_key_management_vault_url=None),
        ),
        "recipient-keyring",
        "db2",
        PreconditionError,
        "do not load",
    ),
    "recipient reads the donor's mount": (
        host(
            "db2",
            options=options(hashicorp_key_management_vault_url="https://v:8200/v1/keys/db1"),
        ),
        "recipient-keyring",
        "db2",
        PreconditionError,
        "/v1/keys/db1, mount keys/db2",
    ),
    "recipient does not log what it applies": (
        host("db2", options=options(log_slave_updates=None)),
        "recipient-options",
        "db2",
        PreconditionError,
        "log_slave_updates=off",
    ),
    "recipient has no binlog": (
        host("db2", options=options(log_bin=None)),
        "recipient-options",
        "db2",
        PreconditionError,
        "log_bin=off",
    ),
    "leftovers of this run": (
        host("db2", siblings=(f"/var/lib/mysql.xbvault-staging-{REQUEST.run_id}",)),
        "leftovers",
        "db2",
        PreconditionError,
        "xbvault-staging",
    ),
    "both are one machine": (
        host("db2", hostname="db1", datadir_inode=1000),
        "different-hosts",
        "",
        PreconditionError,
        "db1 and db2",
    ),
    "server ids are equal": (
        host("db2", options=options(server_id="1")),
        "server-ids",
        "",
        PreconditionError,
        "donor 1, recipient 1",
    ),
    "recipient has no server id": (
        host("db2", options=options(server_id=None)),
        "server-ids",
        "",
        PreconditionError,
        "donor 1, recipient 1",
    ),
    "not enough space": (
        host("db2", parent_free_bytes=5_699_999_999),
        "space",
        "",
        PreconditionError,
        "5.70 GB free beside /var/lib/mysql, 5.70 GB wanted",
    ),
    "recipient's clock is late": (
        host("db2", clock_offset_seconds=-60.0),
        "clocks",
        "",
        PreconditionError,
        "db2 -60.0 s",
    ),
    "donor's clock is early": (
        host("db1", clock_offset_seconds=5.06),
        "clocks",
        "",
        PreconditionError,
        "db1 +5.1 s",
    ),
    "no receiver": (
        host("db2", receiver_sha256="", receiver_owner=""),
        "receiver",
        "db2",
        PreconditionError,
        "not installed",
    ),
    "another receiver": (
        host("db2", receiver_sha256="0" * 64),
        "receiver",
        "db2",
        PreconditionError,
        "another version",
    ),
    "receiver that others may write": (
        host("db2", receiver_owner="root 775"),
        "receiver",
        "db2",
        PreconditionError,
        "root 775",
    ),
    "receiver that is not root's": (
        host("db2", receiver_owner="mysql 755"),
        "receiver",
        "db2",
        PreconditionError,
        "mysql 755",
    ),
    "sshd does not trust the CA": (
        host("db2", trusted_cas=("ssh-ed25519 AAAAother",)),
        "receiver",
        "db2",
        PreconditionError,
        "TrustedUserCAKeys",
    ),
    "no principal": (
        host("db2", principals=()),
        "receiver",
        "db2",
        PreconditionError,
        "xbvault-receive-db2",
    ),
    "principal without restrict": (
        host("db2", principals=('command="/usr/local/sbin/xbvault-receive" xbvault-receive-db2',)),
        "receiver",
        "db2",
        PreconditionError,
        "restrict",
    ),
    "principal of another host": (
        host("db2", principals=make_host("db1").principals),
        "receiver",
        "db2",
        PreconditionError,
        "xbvault-receive-db2",
    ),
    "another run holds the recipient": (
        change(make_survey(), "", lock=HELD),
        "recipient-lock",
        "db2",
        LockHeldError,
        f"run {HELD.run} of {HELD.holder} holds db2",
    ),
    "Vault is sealed": (
        vault(health=surveys.make_health(sealed=True), token=None),
        "vault-readable",
        "",
        SecretError,
        "https://vault.example:8200 is sealed",
    ),
    "token ends soon": (
        vault(token=make_token(renewable=False, ttl_seconds=3600)),
        "vault-token",
        "",
        SecretError,
        "3600 s left, not renewable",
    ),
    "token may not write the key": (
        vault(capabilities={**NEEDED, KEY_PATH: ("read",)}),
        "vault-capabilities",
        "",
        SecretError,
        "lacks update on xbvault/data/transition-keys/*",
    ),
    "no mount of our own": (
        vault(kv_versions={"xbvault": 0, "keys/db1": 2, "keys/db2": 2}),
        "vault-mounts",
        "",
        SecretError,
        "xbvault is not there",
    ),
    "recipient's mount is KV version 1": (
        vault(kv_versions={"xbvault": 2, "keys/db1": 2, "keys/db2": 1}),
        "vault-mounts",
        "",
        SecretError,
        "keys/db2 is KV version 1, not 2",
    ),
    "mount keeps ten versions": (
        vault(max_versions={"keys/db2": 0}),
        "vault-max-versions",
        "",
        SecretError,
        "keeps 10 versions",
    ),
    "recipient's token is nearly over": (
        vault(host_tokens={"db1": make_token(), "db2": make_token(ttl_seconds=1_382_399)}),
        "vault-host-token",
        "",
        SecretError,
        "db2: 1382399 s left of 2764800 s",
    ),
    "donor's token cannot be read": (
        change(
            vault(host_tokens={"db2": make_token()}),
            "donor",
            token=None,
            token_error=PreconditionError("no file /etc/mysql/vault.env", host="db1"),
        ),
        "vault-host-token",
        "",
        SecretError,
        "db1: no file /etc/mysql/vault.env",
    ),
    "donor's token reads nothing": (
        vault(reads_own={"db1": False, "db2": True}),
        "vault-host-reads-own",
        "",
        SecretError,
        "db1's token cannot read keys/db1",
    ),
    "recipient's token reads the donor's keys": (
        vault(recipient_reads_donor=True),
        "vault-recipient-separate",
        "",
        SecretError,
        "db2's token reads keys/db1",
    ),
    "donor's mount is empty": (
        vault(donor_key_ids=()),
        "vault-donor-keys",
        "",
        SecretError,
        "0 key ids in keys/db1",
    ),
}


def test_all_good() -> None:
    """With everything in order, every finding holds, none has a hint, and nothing is raised."""
    checks = judge(make_survey())
    assert bad(checks) == []
    assert {check.hint for check in checks} == {""}
    assert all(check.evidence for check in checks)
    preflight.raise_for(checks)


def test_one_name_stands_once_for_a_host() -> None:
    """Findings can be told apart by name and host, but for those that Vault's mounts repeat."""
    names = [(check.name, check.host) for check in judge(make_survey())]
    repeated = {name for name, _ in names if names.count((name, "")) > 1}
    each = {"vault-host-capabilities", "vault-host-reads-own", "vault-host-token"}
    assert repeated == {"vault-mounts", *each}
    assert len({n for n in names if n[1]}) == len([n for n in names if n[1]])


@pytest.mark.parametrize(("survey", "name", "where", "cls", "evidence"), BAD.values(), ids=BAD)
def test_one_bad_thing_is_one_bad_finding(
    survey: Survey, name: str, where: str, cls: type[OrchestratorError], evidence: str
) -> None:
    """Exactly that finding does not hold, says what was seen and what to do, and ends the run."""
    checks = judge(survey)
    assert bad(checks) == [(name, where)]
    found = next(check for check in checks if not check.ok)
    assert evidence in found.evidence
    assert found.hint
    with pytest.raises(cls) as caught:
        preflight.raise_for(checks)
    assert type(caught.value) is cls
    message = f"{found.name}: {found.evidence}"
    assert (caught.value.message, caught.value.host) == (message, where)
    assert caught.value.hint == found.hint
    assert caught.value.problems == ()


def test_every_finding_was_made_bad() -> None:
    """No finding is left out above, in the tests that follow, or those of privileges and stream."""
    elsewhere = {"host-readable", "donor-running", "versions-match", "recipient-server"}
    elsewhere |= {"compression"}
    elsewhere |= {"donor-privileges", "recipient-privileges", "vault-host-capabilities"}
    assert {check.name for check in judge(make_survey())} == {
        row[1] for row in BAD.values()
    } | elsewhere


def test_all_problems_at_once() -> None:
    """Several bad things on both hosts and in Vault are all listed, each with its hint."""
    survey = host("db1", tool_version="10.11.6")
    survey = change(survey, "recipient.host", parent_free_bytes=0, has_data=True)
    survey = change(survey, "vault", recipient_reads_donor=True)
    checks = judge(survey)
    assert bad(checks) == [
        ("tool-version", "db1"),
        ("recipient-datadir", "db2"),
        ("space", ""),
        ("vault-recipient-separate", ""),
    ]
    with pytest.raises(SecretError, match=r"^4 preconditions do not hold$") as caught:
        preflight.raise_for(checks)
    assert len(caught.value.problems) == 4
    assert caught.value.problems[0].startswith("db1: tool-version: server 10.11.19")
    assert all("(hint: " in problem for problem in caught.value.problems)


def test_several_problems_without_vault_are_a_precondition() -> None:
    """A held lock among other problems does not hide them behind its own class."""
    survey = change(host("db2", has_data=True), "", lock=HELD)
    with pytest.raises(PreconditionError, match="2 preconditions") as caught:
        preflight.raise_for(judge(survey))
    assert type(caught.value) is PreconditionError


def test_versions_must_match() -> None:
    """Another server version on the recipient is refused, even the next patch."""
    survey = host("db2", server_version="10.11.20", tool_version="10.11.20")
    assert bad(judge(survey)) == [("versions-match", "")]
    both = change(
        host("db1", server_version="", tool_version=""), "recipient.host", server_version=""
    )
    assert ("versions-match", "") in bad(judge(both))


@pytest.mark.parametrize(
    ("survey", "replace", "holds", "evidence"),
    [
        (running(), False, False, "a server runs in /var/lib/mysql"),
        (running(), True, False, "takes writes runs here (3 user schemas)"),
        (running(variables={"read_only": "ON"}), True, True, "stopped just before the swap"),
        (running(user_schemas=0), True, True, "stopped just before the swap"),
        (
            running(variables={"read_only": "ON"}, replicas=("192.0.2.7:4000",)),
            True,
            False,
            "is a source: 192.0.2.7:4000",
        ),
        (make_survey(), False, True, "no server runs"),
    ],
)
def test_server_on_the_recipient(
    survey: Survey,
    replace: bool,  # noqa: FBT001 - a column of the table
    holds: bool,  # noqa: FBT001 - a column of the table
    evidence: str,
) -> None:
    """A source is never set aside, one that takes writes neither, others with --replace only."""
    found = next(c for c in judge(survey, replace=replace) if c.name == "recipient-server")
    assert (found.ok, bool(found.hint)) == (holds, not holds)
    assert evidence in found.evidence


def test_replace_allows_data() -> None:
    """With --replace, data without a server is no obstacle."""
    assert bad(judge(host("db2", has_data=True), replace=True)) == []


@pytest.mark.parametrize("changes", [{"is_mount_path": True}, {"is_symlink": True}])
def test_datadirs_as_they_are_in_the_wild(changes: dict[str, Any]) -> None:
    """A datadir that is a mount path or a link, with logs elsewhere, is no obstacle."""
    survey = change(host("db2", **changes), "recipient", places=Places(files=(make_files(),)))
    assert bad(judge(survey)) == []
    found = next(check for check in judge(survey) if check.name == "datadir-layout")
    assert "redo log in /srv/redo" in found.evidence


def test_donor_without_a_server() -> None:
    """A donor that does not run is said so, with nothing made up about its server."""
    survey = change(make_survey(), "donor", instance=None, account=None)
    survey = change(survey, "donor.host", server_pids=())
    assert bad(judge(survey)) == [("donor-running", "db1")]
    names = {check.name for check in judge(survey)}
    assert not names & {"donor-keyring", "donor-binlog", "key-cache", "vault-donor-keys"}


def test_donor_without_a_keyring() -> None:
    """Where it is not required, a plain donor is fine, and the recipient needs no keys either."""
    survey = instance(encryption_plugins={})
    survey = change(
        survey,
        "recipient.host",
        options=options(plugin_load_add=None, hashicorp_key_management_vault_url=None),
    )
    survey = change(survey, "vault", donor_key_ids=())
    checks = judge(survey, require_encryption=False)
    assert bad(checks) == []
    assert not {"key-cache", "recipient-keyring", "vault-donor-keys"} & {c.name for c in checks}


def test_other_key_plugins_are_not_measured_by_this_ones_cache() -> None:
    """Without the plugin's variables there is no cache to judge."""
    plain = make_instance("1")
    plain = dataclasses.replace(
        plain,
        variables={k: v for k, v in plain.variables.items() if not k.startswith(PREFIX)},
    )
    assert bad(judge(change(make_survey(), "donor", instance=plain))) == []


@pytest.mark.parametrize("seconds", ["0", ""])
def test_binlogs_that_never_expire(seconds: str) -> None:
    """No limit is a limit that is long enough."""
    survey = instance(
        variables={"binlog_expire_logs_seconds": seconds, "expire_logs_days": "0.000000"}
    )
    found = next(check for check in judge(survey) if check.name == "binlog-retention")
    assert found.ok
    assert "for ever" in found.evidence


def test_skip_name_resolve_needs_no_name_service() -> None:
    """A donor that does not look names up may be without a name service."""
    survey = change(instance(variables={"skip_name_resolve": "ON"}), "donor", peer_address="")
    assert bad(judge(survey)) == []


@pytest.mark.parametrize(
    "state",
    [
        None,
        dataclasses.replace(HELD, live=False),
        dataclasses.replace(HELD, run=REQUEST.run_id),
    ],
)
def test_lock_that_is_free(state: LockState | None) -> None:
    """A lock whose lease has run out, or that is our own, is no obstacle."""
    assert bad(judge(change(make_survey(), "", lock=state))) == []


@pytest.mark.parametrize(
    "token",
    [
        make_token(renewable=False, ttl_seconds=86_401),
        make_token(renewable=False, ttl_seconds=0, expires=0),
        make_token(ttl_seconds=60),
    ],
)
def test_token_that_lasts(token: Any) -> None:
    """A renewable token, one that never ends, and one that lasts a day will do."""
    assert bad(judge(vault(token=token))) == []


def test_root_token_may_everything() -> None:
    """The capability root stands for all others."""
    assert bad(judge(vault(capabilities=dict.fromkeys(NEEDED, ("root",))))) == []


def test_every_capability_is_looked_at() -> None:
    """Each right on each path that is missing is named."""
    checks = judge(vault(capabilities={}))
    found = next(check for check in checks if check.name == "vault-capabilities")
    for path, wanted in clone_rights(CONFIG, "db1", "db2").items():
        for capability in wanted:
            assert f"{capability} on {path}" in found.evidence


def test_same_address_is_the_same_machine() -> None:
    """Two names of one address and port are one machine; two ports of it are not."""
    for ports, holds in (((22, 22), False), ((22, 2222), True)):
        document = CONFIG.model_dump()
        for name, port in zip(("db1", "db2"), ports, strict=True):
            document["hosts"][name] |= {"address": "192.0.2.1", "ssh_port": port}
        checks = judge(make_survey(), config_module.parse(document))
        assert (("different-hosts", "") not in bad(checks)) is holds


def test_clock_is_judged_with_the_error_of_its_measuring() -> None:
    """A slow answer does not make a good clock bad."""
    survey = host("db2", clock_offset_seconds=7.0, clock_error_seconds=2.5)
    assert bad(judge(survey)) == []


def test_old_datadirs_and_other_runs_leftovers_are_no_obstacle() -> None:
    """What other runs have set aside is named at most, never refused."""
    kept = "/var/lib/mysql.xbvault-old-20261101T000000Z-db2-00000000"
    staging = "/var/lib/mysql.xbvault-staging-20261101T000000Z-db2-00000000"
    checks = judge(host("db2", siblings=(kept, staging)))
    assert bad(checks) == []
    assert next(c for c in checks if c.name == "leftovers").evidence == staging


@pytest.mark.parametrize(
    "error",
    [
        HostUnreachableError("db2 port 22: nothing answers", host="db2", hint="is it up?"),
        HostKeyError("the host key is unknown: SHA256:abc", host="db2", hint="compare it"),
    ],
)
def test_host_that_cannot_be_read(error: OrchestratorError) -> None:
    """Its error's class is what the run ends with, and the other host's problems are listed too."""
    gone = HostSurvey(host=None, instance=None, token=None, peer_address="", errors=(error,))
    survey = change(host("db1", tool_version="10.11.6"), "", recipient=gone, lock=None)
    checks = judge(survey)
    assert bad(checks) == [("host-readable", "db2"), ("tool-version", "db1")]
    with pytest.raises(type(error)) as caught:
        preflight.raise_for(checks, survey.errors)
    assert type(caught.value) is type(error)
    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)
    assert len(caught.value.problems) == 2
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        SecretStoreUnavailableError("Vault at https://v does not answer", hint="is it up?"),
        SecretError("permission denied: list on keys/db1/metadata/", hint="see vault check"),
    ],
)
def test_vault_that_cannot_be_read(error: OrchestratorError) -> None:
    """What Vault said is the finding, and nothing is concluded from what it did not say."""
    survey = vault(errors=(error,), token=None)
    checks = judge(survey)
    assert bad(checks) == [("vault-readable", "")]
    with pytest.raises(type(error)) as caught:
        preflight.raise_for(checks, survey.errors)
    assert caught.value.message == error.message
    assert caught.value.exit_status == 5


def test_one_host_by_itself() -> None:
    """`hosts check` judges programs, tool, receiver, server and token of one host."""
    side = make_survey().donor
    checks = preflight.judge_host(
        "db1",
        side,
        surveys.CONFIG.host("db1"),
        OwnVault(ssh_ca=surveys.CA, token_ok=True, kv_version=2),
    )
    assert bad(checks) == []
    assert [check.name for check in checks] == [
        "host-readable",
        "programs",
        "tool-version",
        "ssh-keepalive",
        "receiver",
        "server",
        "vault-mounts",
        "vault-host-token",
    ]
    assert {check.host for check in checks} == {"db1"}
    checks = preflight.judge_host(
        "db1",
        side,
        surveys.CONFIG.host("db1"),
        OwnVault(ssh_ca="ssh-ed25519 AAAAother", token_ok=False),
    )
    assert bad(checks) == [("receiver", "db1"), ("vault-host-token", "db1")]
    untried = preflight.judge_host("db1", side, surveys.CONFIG.host("db1"), OwnVault())
    assert "vault-host-token" not in {check.name for check in untried}


def test_one_host_that_cannot_be_read() -> None:
    """A host that cannot be reached gives its one finding, with the reason and the hint."""
    error = HostUnreachableError("nothing answers", host="db1", hint="is it up?")
    gone = HostSurvey(host=None, instance=None, token=None, peer_address="", errors=(error,))
    checks = preflight.judge_host("db1", gone, surveys.CONFIG.host("db1"), OwnVault())
    assert [(c.name, c.ok, c.evidence, c.hint) for c in checks] == [
        ("host-readable", False, "nothing answers", "is it up?")
    ]


def test_finding_in_one_line() -> None:
    """A bad finding is told with its host, name, evidence and hint; what is empty is left out."""
    check = Check(name="space", ok=False, evidence="1 GB free", host="db2", hint="free some")
    assert preflight.describe(check) == "db2: space: 1 GB free (hint: free some)"
    bare = Check(name="space", ok=False, evidence="1 GB free")
    assert preflight.describe(bare) == "space: 1 GB free"


def test_needed_capabilities_name_only_what_a_clone_touches() -> None:
    """The donor's mount is only read, and every path belongs to the two hosts or to this run."""
    for path, capabilities in NEEDED.items():
        if path.startswith("keys/db1/"):
            assert set(capabilities) <= {"read", "list"}
        assert "*" not in path
        assert "sudo" not in capabilities
        assert "delete" not in capabilities or path.startswith(
            ("sys/mounts/xbvault-transition/db2/", "xbvault/metadata/replication/db1/db2/")
        )
    assert NEEDED[KEY_PATH] == ("read", "update")
    assert not [path for path in NEEDED if "policies" in path or "policy" in path]


def test_needed_capabilities_follow_the_configuration() -> None:
    """Other mounts in the configuration are other paths."""
    document = CONFIG.model_dump()
    document["vault"] |= {"mount": "own", "transition_mount": "tmp", "ssh_mount": "ca"}
    needed = needed_capabilities(config_module.parse(document), "db1", "db2", "r1", "b1")
    assert "own/data/transition-keys/b1" in needed
    assert "own/data/replication/db1/db2/r1" in needed
    assert "tmp/db2/r1/data/1" in needed
    assert "ca/sign/xbvault-receive-db2" in needed
    with pytest.raises(ConfigError, match="unknown host 'db9'"):
        needed_capabilities(CONFIG, "db9", "db2", "r1", "b1")
