"""The least that each party needs, as texts: nothing that no clone uses, nothing that one lacks."""

from __future__ import annotations

import itertools
import re

import pytest

from orchestrator import config
from orchestrator.privileges import database, sudo, vault

HOSTS = {
    "a": {"vault_mount": "keys/a", "become": True, "ssh_user": "dba", "receive_user": "stream"},
    "b": {"vault_mount": "keys/b"},
    "c": {"vault_mount": "keys/c", "receive_user": "stream"},
}
REPOSITORIES = {
    "s": {"path": "/srv/a", "become": True, "ssh_user": "dba", "receive_user": "stream"},
    "t": {"path": "/srv/b"},
}
CONFIG = config.parse({"hosts": HOSTS, "repositories": REPOSITORIES})


def pairs(rights: vault.Rights) -> set[tuple[str, str]]:
    """Return rights as paths with one capability each."""
    return {(path, one) for path, capabilities in rights.items() for one in capabilities}


def test_the_orchestrator_may_what_runs_and_the_check_need_and_no_more() -> None:
    """Its policy is all that any clone and any backup of the hosts needs, put together."""
    needed = set()
    for donor, recipient in itertools.permutations(CONFIG.hosts, 2):
        needed |= pairs(vault.clone_rights(CONFIG, donor, recipient))
    for donor, repository in itertools.product(CONFIG.hosts, CONFIG.repositories):
        needed |= pairs(vault.backup_rights(CONFIG, donor, repository))
    for door in CONFIG.doors:
        needed |= pairs(vault.check_rights(CONFIG, door))
    assert pairs(vault.orchestrator_rights(CONFIG)) == needed


def test_paths_of_one_run_come_in_the_order_of_the_patterns() -> None:
    """Each is one that its pattern covers: preflight names the pattern of the path it asked for."""
    names = vault.Names(recipient="b", run_id="r1", transition_key="k1", account="x/y", key_id="1")
    patterns = vault.clone_rights(CONFIG, "a", "b")
    concrete = vault.clone_rights(CONFIG, "a", "b", names)
    for pattern, path in zip(patterns, concrete, strict=True):
        assert patterns[pattern] == concrete[path]
        form = re.escape(pattern).replace(r"\+", "[^/]+").replace(r"\*", ".*")
        assert re.fullmatch(form, path)
        assert "*" not in path
        assert "+" not in path


def test_nobody_may_delete_a_hosts_keys() -> None:
    """In a host's own mount the orchestrator adds versions, and can destroy single ones."""
    for path, capability in pairs(vault.orchestrator_rights(CONFIG)):
        if path.startswith("keys/"):
            assert capability != "delete"
    assert not [path for path in vault.orchestrator_rights(CONFIG) if "policies" in path]


def test_a_repository_needs_a_certificate_and_the_deployments_key() -> None:
    """The key can be made and read, never replaced; without repositories nothing of it is granted."""
    added = pairs(vault.orchestrator_rights(CONFIG)) - pairs(
        vault.orchestrator_rights(config.parse({"hosts": HOSTS}))
    )
    assert added == {
        ("xbvault/data/backups/deployment", "create"),
        ("xbvault/data/backups/deployment", "read"),
        *(
            (f"xbvault-ssh/{verb}/xbvault-receive-{name}", one)
            for name in "st"
            for verb, one in (("sign", "update"), ("roles", "read"))
        ),
    }
    assert len(vault.policies(CONFIG)) == len(vault.policies(config.parse({"hosts": HOSTS})))


MYSQL = config.parse(
    {
        "hosts": {
            "plugin": {
                "flavor": "mysql",
                "vault_mount": "keys/plugin",
                "keyring": {"kind": "keyring_vault", "config_file": "/etc/keyring_vault.conf"},
            },
            "component": {
                "flavor": "mysql",
                "vault_mount": "keys/component",
                "keyring": {"kind": "component_keyring_vault"},
            },
            "file": {
                "flavor": "mysql",
                "vault_mount": "keys/file",
                "keyring": {"kind": "component_keyring_file", "data_file": "/var/lib/k/keyring"},
            },
        }
    }
)


def test_of_a_keyring_of_mysql_the_orchestrator_sees_names_only() -> None:
    """On a recipient's mount it lists, and on a donor's it may nothing."""
    assert vault.donor_rights(MYSQL, "plugin") == {}
    on_mounts = {
        path: one for path, one in vault.orchestrator_rights(MYSQL).items() if "keys/" in path
    }
    assert {path: one for path, one in on_mounts.items() if path.startswith("keys/")} == {
        "keys/plugin/": ("list",),
        "keys/component/metadata/": ("list",),
    }


def test_a_keyring_of_mysql_makes_and_removes_its_keys() -> None:
    """In the form of the mount's KV version; one in a file has rights on its token alone."""
    own = {
        host: {path: set(one) for path, one in vault.host_rights(MYSQL, host).items()}
        for host in MYSQL.hosts
    }
    on_self = {path: set(one) for path, one in vault.SELF_RIGHTS.items()}
    assert own["file"] == on_self
    assert own["plugin"] == {
        "keys/plugin/*": {"create", "read", "update", "delete", "list"},
        **on_self,
    }
    assert own["component"] == {
        "keys/component/data/*": {"create", "read", "update", "delete"},
        "keys/component/metadata/*": {"delete", "list"},
        "keys/component/config": {"read"},
        **on_self,
    }
    assert not [name for name in vault.policies(MYSQL) if "transition" in name]


@pytest.mark.parametrize(
    ("flavor", "version"),
    [("mariadb", "10.11.19"), ("mysql", "9.7.4"), ("mysql", "8.0.36"), ("mysql", "5.7.44")],
)
def test_grants_are_statements_for_both_accounts(flavor: str, version: str) -> None:
    """All privileges on one line, and the grant option where it is needed."""
    wanted = database.wanted_privileges(flavor, version)
    series = {"8.0": "8.0 and 8.1", "5.7": "5.7"}.get(version[:3], "8.2 and later")
    text = database.grants_text(flavor)
    if flavor == "mysql":
        (text,) = [part for part in text.split("\n\n") if f"(MySQL {series})" in part]
    assert len(re.findall("^CREATE USER '", text, re.MULTILINE)) == 2
    for user, privileges in (
        ("xbvault_donor", wanted.donor),
        ("xbvault_recipient", wanted.recipient),
    ):
        (line,) = re.findall(
            rf"^GRANT (.+) ON \*\.\* TO '{user}'@'localhost'(.*);$", text, re.MULTILINE
        )
        assert set(line[0].split(", ")) == set(privileges) - {database.GRANT_OPTION}
        assert line[1] == (" WITH GRANT OPTION" if database.GRANT_OPTION in privileges else "")


@pytest.mark.parametrize(
    ("host", "rules"),
    [
        (
            "a",
            (
                "dba ALL=(root) NOPASSWD: /usr/bin/timeout",
                "stream ALL=(root) NOPASSWD: /usr/local/sbin/xbvault-receive",
            ),
        ),
        ("b", ()),
        (
            "s",
            (
                "dba ALL=(root) NOPASSWD: /usr/bin/timeout",
                "stream ALL=(root) NOPASSWD: /usr/local/sbin/xbvault-receive",
            ),
        ),
        ("t", ()),
        ("c", ("stream ALL=(root) NOPASSWD: /usr/local/sbin/xbvault-receive",)),
    ],
)
def test_sudo_allows_a_login_one_program(host: str, rules: tuple[str, ...]) -> None:
    """The one that works, the program that starts commands; the one that receives, the receiver."""
    assert sudo.rules(CONFIG, host) == rules
    text = sudo.sudoers_text(CONFIG, host)
    assert [line for line in text.splitlines() if not line.startswith("#")] == list(rules)


def test_the_binary_log_is_shown_to_an_account_that_sums_tables_up() -> None:
    """MariaDB shows it to what every backup takes; MySQL wants one privilege more."""
    assert database.MARIADB.events == ()
    assert "BINLOG MONITOR" in database.MARIADB.backup
    for version in ("5.7.44", "8.0.40", "9.7.4"):
        wanted = database.wanted_privileges("mysql", version)
        assert wanted.events == ("REPLICATION SLAVE",)
        assert "REPLICATION SLAVE" not in wanted.backup
