from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from openbao import OpenBao, running_openbao

from orchestrator import config as configuration
from orchestrator import vault_setup
from orchestrator.errors import (
    ConfigError,
    PreconditionError,
    SecretError,
    SecretStoreUnavailableError,
)
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator.config import Config
    from orchestrator.vault import Vault

VALUE = "5e" * 32


def _config(**more: Any) -> Config:
    document: dict[str, Any] = {
        "hosts": {
            "master": {"vault_mount": "db/master"},
            "r1": {"vault_mount": "db/r1"},
            "R2": {"vault_mount": "db/r2"},
        },
        **more,
    }
    return configuration.parse(document)


CONFIG = _config()


@pytest.fixture
def bao() -> Iterator[OpenBao]:
    """A server with nothing set up."""
    with running_openbao() as server:
        yield server


@pytest.fixture(scope="module")
def ready() -> Iterator[OpenBao]:
    """A server that is set up; tests of rights share it."""
    with running_openbao() as server:
        root = server.vault()
        vault_setup.apply_setup(root, CONFIG)
        for mount in ("db/master", "db/r1", "db/r2"):
            root.write_secret(mount, "1", {"data": VALUE}, cas=0)
        yield server


@pytest.fixture(scope="module")
def orchestrator(ready: OpenBao) -> Vault:
    """A connection with the orchestrator's token, issued by its role."""
    return ready.vault(vault_setup.issue_orchestrator_token(ready.vault()))


def _kinds(changes: tuple[vault_setup.Change, ...]) -> list[tuple[str, str, str]]:
    return [(change.kind, change.action, change.path) for change in changes]


def _failed(vault: Vault, config: Config = CONFIG) -> dict[str, str]:
    return {c.name: c.evidence for c in vault_setup.check_setup(vault, config) if not c.ok}


def test_an_empty_vault_is_set_up_and_a_second_time_changes_nothing(bao: OpenBao) -> None:
    """The plan names everything and writes nothing; once it is applied, nothing is left."""
    root = bao.vault()
    before = root.list_mounts()
    plan = vault_setup.plan_setup(root, CONFIG)
    assert root.list_mounts() == before
    assert _kinds(plan) == [
        ("mount", "create", "xbvault"),
        ("mount", "create", "db/master"),
        ("mount", "create", "db/r1"),
        ("mount", "create", "db/r2"),
        ("mount", "create", "xbvault-ssh"),
        ("ssh-ca", "create", "xbvault-ssh/config/ca"),
        ("ssh-role", "create", "xbvault-ssh/roles/xbvault-receive-master"),
        ("ssh-role", "create", "xbvault-ssh/roles/xbvault-receive-r1"),
        ("ssh-role", "create", "xbvault-ssh/roles/xbvault-receive-R2"),
        ("policy", "create", "sys/policies/acl/xbvault-orchestrator"),
        ("policy", "create", "sys/policies/acl/xbvault-host-master"),
        ("policy", "create", "sys/policies/acl/xbvault-transition-master"),
        ("policy", "create", "sys/policies/acl/xbvault-host-r1"),
        ("policy", "create", "sys/policies/acl/xbvault-transition-r1"),
        ("policy", "create", "sys/policies/acl/xbvault-host-r2"),
        ("policy", "create", "sys/policies/acl/xbvault-transition-r2"),
        ("token-role", "create", "auth/token/roles/xbvault-orchestrator"),
        ("token-role", "create", "auth/token/roles/xbvault-host-master"),
        ("token-role", "create", "auth/token/roles/xbvault-transition-master"),
        ("token-role", "create", "auth/token/roles/xbvault-host-r1"),
        ("token-role", "create", "auth/token/roles/xbvault-transition-r1"),
        ("token-role", "create", "auth/token/roles/xbvault-host-R2"),
        ("token-role", "create", "auth/token/roles/xbvault-transition-R2"),
    ]
    assert vault_setup.apply_setup(root, CONFIG, shown=plan) == plan
    ca = root.read_ssh_ca("xbvault-ssh")
    assert vault_setup.plan_setup(root, CONFIG) == ()
    assert vault_setup.apply_setup(root, CONFIG) == ()
    assert root.read_ssh_ca("xbvault-ssh") == ca
    assert root.read_mount_config("db/r1") == 1000


def test_what_was_changed_by_hand_is_found_and_mended(bao: OpenBao) -> None:
    """Each difference is one change that says what differs, and nothing else is written."""
    root = bao.vault()
    vault_setup.apply_setup(root, CONFIG)
    root.write_secret("db/r1", "1", {"data": VALUE}, cas=0)
    root.write_mount_config("db/r1", max_versions=10)
    root.write_policy("xbvault-host-r1", 'path "*" { capabilities = ["sudo", "read"] }')
    role = vault_setup.token_roles(CONFIG)["xbvault-transition-r1"]
    root.write_token_role("xbvault-transition-r1", {**role, "allowed_policies_glob": ["*"]})
    ssh = vault_setup.ssh_roles(CONFIG)["xbvault-receive-r1"]
    root.write_ssh_role("xbvault-ssh", "xbvault-receive-r1", {**ssh, "allowed_users": "*"})
    changes = vault_setup.apply_setup(root, CONFIG)
    assert _kinds(changes) == [
        ("mount-config", "update", "db/r1/config"),
        ("ssh-role", "update", "xbvault-ssh/roles/xbvault-receive-r1"),
        ("policy", "update", "sys/policies/acl/xbvault-host-r1"),
        ("token-role", "update", "auth/token/roles/xbvault-transition-r1"),
    ]
    assert changes[0].detail == "max_versions 10 -> 1000"
    assert changes[1].detail == "allowed_users '*' -> 'xbvault-receive-r1'"
    assert '-path "*" { capabilities = ["sudo", "read"] }' in changes[2].detail
    assert '+path "db/r1/data/*" {' in changes[2].detail
    assert changes[3].detail == "allowed_policies_glob ['*'] -> []"
    assert vault_setup.plan_setup(root, CONFIG) == ()
    assert root.read_secret("db/r1", "1") == {"data": Secret(VALUE)}


def test_mounts_that_were_there_are_kept(bao: OpenBao) -> None:
    """A host's own KV mount stays, and more kept versions than needed are not taken away."""
    root = bao.vault()
    root.create_kv_mount("db/r1", description="ours", max_versions=5000)
    root.write_secret("db/r1", "1", {"data": VALUE}, cas=0)
    vault_setup.apply_setup(root, CONFIG)
    assert root.read_secret("db/r1", "1") == {"data": Secret(VALUE)}
    assert root.read_mount_config("db/r1") == 5000
    assert root.list_mounts()["db/r1"].description == "ours"


def test_what_stands_in_the_way_is_listed_whole(bao: OpenBao) -> None:
    """Every wrong mount is told at once, and nothing is written."""
    root = bao.vault()
    root.create_kv_mount("xbvault-ssh")
    root.create_ssh_mount("db/r1")
    bao.request("POST", "sys/mounts/db/master", {"type": "kv", "options": {"version": "1"}})
    root.create_kv_mount("xbvault-transition")
    root.create_kv_mount("xbvault/inside")
    before = root.list_mounts()
    for work in (vault_setup.plan_setup, vault_setup.apply_setup):
        with pytest.raises(PreconditionError) as caught:
            work(root, CONFIG)
        assert sorted(caught.value.problems) == [
            "db/master: is kv version 1, not kv version 2",
            "db/r1: is ssh, not kv version 2",
            "xbvault-ssh: is kv version 2, not ssh",
            "xbvault-transition: is a mount, and must be a prefix only",
            "xbvault: the mount xbvault/inside lies inside it",
        ]
    assert root.list_mounts() == before
    assert root.read_policy(vault_setup.ORCHESTRATOR) is None


def test_a_plan_that_is_out_of_date_is_not_applied(bao: OpenBao) -> None:
    """What a person agreed to is what is written, or nothing is."""
    root = bao.vault()
    plan = vault_setup.plan_setup(root, CONFIG)
    root.create_kv_mount("db/r1")
    with pytest.raises(PreconditionError, match="changed since the plan was shown"):
        vault_setup.apply_setup(root, CONFIG, shown=plan)
    assert not root.has_mount("xbvault")


def test_a_token_without_rights_cannot_set_up(ready: OpenBao, orchestrator: Vault) -> None:
    """The orchestrator's own token cannot even look."""
    with pytest.raises(SecretError, match='"read" on xbvault/config'):
        vault_setup.plan_setup(orchestrator, CONFIG)


def test_mounts_below_each_other_are_refused() -> None:
    """A host below the transition prefix would lie open to the orchestrator."""
    config = _config(
        vault={"mount": "db", "ssh_mount": "xbvault-transition"},
        hosts={
            "a": {"vault_mount": "db/a"},
            "b": {"vault_mount": "xbvault-transition/b"},
            "c": {"vault_mount": "dbx"},
            "C": {"vault_mount": "dby"},
        },
    )
    with pytest.raises(ConfigError) as caught:
        vault_setup.check_config(config)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "vault.ssh_mount",
        "hosts.a.vault_mount",
        "hosts.b.vault_mount",
        "hosts.b.vault_mount",
        "hosts.C",
    ]
    vault_setup.check_config(CONFIG)


def _run_a_clone(vault: Vault) -> None:
    """Do all that a clone from master to r1 does in Vault, and its clean-up and `forget`."""
    own = "transition-keys/b1"
    assert vault.read_metadata("xbvault", own) is None
    vault.write_custom_metadata("xbvault", own, {"run": "run1"})
    vault.write_secret("xbvault", own, {"key": Secret(VALUE)}, cas=0)
    vault.write_custom_metadata("xbvault", own, {"run": "run1", "state": "active"})
    assert vault.read_secret("xbvault", own) == {"key": Secret(VALUE)}
    assert vault.list_secrets("db/master") == ("1",)
    assert vault.read_metadata("db/master", "1") is not None
    assert vault.read_secret("db/master", "1", version=1) is not None
    assert vault.read_mount_config("db/r1") == 1000
    assert vault.read_kv_version("db/r1") == 2

    transition = "xbvault-transition/r1/run1"
    vault.create_kv_mount(transition, description="run1", max_versions=1000)
    assert vault.has_mount(transition)
    assert vault.read_kv_version(transition) == 2
    vault.write_secret(transition, "1", {"data": VALUE}, cas=0)
    assert vault.read_secret(transition, "1") is not None
    assert vault.read_metadata(transition, "1") is not None
    found = vault.read_metadata("db/r1", "1")
    assert found is not None
    vault.write_secret("db/r1", "1", {"data": VALUE}, cas=found.current_version)
    vault.write_secret("db/r1", f"new-{found.current_version}", {"data": VALUE}, cas=0)

    _token, accessor = vault.create_token(vault_setup.transition_role("r1"), meta={"run": "run1"})
    assert vault.lookup_accessor(accessor) is not None
    assert vault.renew_accessor(accessor) == 3600
    assert vault.renew_token() == vault_setup.TOKEN_PERIOD_SECONDS

    vault.revoke_accessor(accessor)
    assert vault.lookup_accessor(accessor) is None
    vault.remove_mount(transition)
    vault.destroy_versions("xbvault", own, [1])
    assert vault.read_secret("xbvault", own) is None
    vault.destroy_versions("db/r1", "1", [1])

    account = "replication/master/r1"
    vault.write_secret("xbvault", f"{account}/run1", {"password": Secret(VALUE)}, cas=0)
    assert vault.read_secret("xbvault", f"{account}/run1") is not None
    assert vault.list_secrets("xbvault", account) == ("run1",)
    vault.remove_secret("xbvault", f"{account}/run1")
    assert vault.list_secrets("xbvault", account) == ()


def test_the_orchestrator_can_do_all_that_a_clone_does(orchestrator: Vault) -> None:
    """From the transition key to the clean-up, with the token of its role."""
    _run_a_clone(orchestrator)


def test_the_orchestrator_signs_for_recipients_only(orchestrator: Vault, tmp_path: Path) -> None:
    """A certificate is for the one principal, without extensions, for five minutes at most."""
    key = tmp_path / "key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(command, check=True, timeout=30)
    public = key.with_suffix(".pub").read_text()
    role = vault_setup.receive_role("R2")
    signed = orchestrator.sign_ssh_key("xbvault-ssh", role, public, principal=role, ttl_seconds=300)
    (tmp_path / "cert.pub").write_text(signed)
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", str(tmp_path / "cert.pub")],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    assert re.search(r"Principals: \n\s+xbvault-receive-R2\n\s+Critical Options: \(none\)", shown)
    assert "Extensions: (none)" in shown
    assert orchestrator.read_ssh_ca("xbvault-ssh").startswith("ssh-ed25519 ")
    for principal in ("root", "xbvault-receive-r1", "xbvault-receive-R2,root"):
        with pytest.raises(SecretError, match="not a valid value"):
            orchestrator.sign_ssh_key(
                "xbvault-ssh", role, public, principal=principal, ttl_seconds=60
            )
    with pytest.raises(SecretError, match="ttl is larger than maximum"):
        orchestrator.sign_ssh_key("xbvault-ssh", role, public, principal=role, ttl_seconds=301)


FORBIDDEN: dict[str, Callable[[Vault], object]] = {
    "write a policy": lambda v: v.write_policy("xbvault-transition-r1", 'path "*" {}'),
    "write another policy": lambda v: v.write_policy("mine", 'path "*" {}'),
    "read a policy": lambda v: v.read_policy("xbvault-orchestrator"),
    "list policies": lambda v: v._call("list", "sys/policies/acl"),
    "write a token role": lambda v: v.write_token_role(
        "xbvault-transition-r1", {"allowed_policies": ["root"]}
    ),
    "write another token role": lambda v: v.write_token_role("mine", {}),
    "make a host's token": lambda v: v.create_token("xbvault-host-master"),
    "make a token of its own": lambda v: v.create_token("xbvault-orchestrator"),
    "make a child token": lambda v: v._call("post", "auth/token/create", body={}),
    "make an orphan": lambda v: v._call("post", "auth/token/create-orphan", body={}),
    "list accessors": lambda v: v._call("list", "auth/token/accessors"),
    "remove a host's key": lambda v: v.remove_secret("db/r1", "1"),
    "delete a host's key": lambda v: v._call("delete", "db/r1/data/1"),
    "delete a host's version": lambda v: v._call("post", "db/r1/delete/1", body={"versions": [1]}),
    "limit a host's key": lambda v: v._call("post", "db/r1/metadata/1", body={"max_versions": 1}),
    "limit a host's mount": lambda v: v.write_mount_config("db/r1", max_versions=1),
    "remove a host's mount": lambda v: v.remove_mount("db/r1"),
    "remove its own store": lambda v: v.remove_mount("xbvault"),
    "make a mount elsewhere": lambda v: v.create_kv_mount("db/r3"),
    "move a mount": lambda v: v._call(
        "post", "sys/remount", body={"from": "db/r1", "to": "xbvault-transition/x/y"}
    ),
    "tune a host's mount": lambda v: v._call("post", "sys/mounts/db/r1/tune", body={}),
    "change the CA": lambda v: v.configure_ssh_ca("xbvault-ssh"),
    "change an SSH role": lambda v: v.write_ssh_role("xbvault-ssh", "xbvault-receive-r1", {}),
    "sign by another role": lambda v: v.sign_ssh_key(
        "xbvault-ssh", "other", "ssh-ed25519 AAAA", principal="root", ttl_seconds=60
    ),
    "seal": lambda v: v._call("post", "sys/seal", body={}),
    "read the audit devices": lambda v: v._call("get", "sys/audit"),
}


@pytest.mark.parametrize("deed", FORBIDDEN)
def test_the_orchestrator_can_do_nothing_else(orchestrator: Vault, deed: str) -> None:
    """Each deed that would reach beyond a clone is denied, not merely failing."""
    with pytest.raises(SecretError, match="denies the token"):
        FORBIDDEN[deed](orchestrator)


def test_the_orchestrator_cannot_widen_a_transition_token(orchestrator: Vault) -> None:
    """Asking the role for another policy is refused."""
    for policy in ("root", "xbvault-host-master", "xbvault-orchestrator", "default"):
        with pytest.raises(SecretError, match="refuses the request"):
            orchestrator._call(
                "post", "auth/token/create/xbvault-transition-r1", body={"policies": [policy]}
            )


def test_a_transition_token_reads_its_recipients_transitions_only(
    ready: OpenBao, orchestrator: Vault
) -> None:
    """Neither another recipient's transition nor any permanent mount lies open to it."""
    for host in ("r1", "R2"):
        path = f"xbvault-transition/{host}/isolated"
        orchestrator.create_kv_mount(path)
        orchestrator.write_secret(path, "1", {"data": VALUE}, cas=0)
    token, accessor = orchestrator.create_token(vault_setup.transition_role("r1"))
    limited = ready.vault(token)
    assert limited.read_secret("xbvault-transition/r1/isolated", "1") == {"data": Secret(VALUE)}
    assert limited.can_read("sys/mounts/xbvault-transition/r1/isolated/tune")
    for denied in (
        "xbvault-transition/R2/isolated/data/1",
        "sys/mounts/xbvault-transition/R2/isolated/tune",
        "xbvault-transition/r1/isolated/metadata/1",
        "db/master/data/1",
        "db/r1/data/1",
        "xbvault/data/transition-keys/b1",
    ):
        with pytest.raises(SecretError, match=f'denies it "read" on {denied}'):
            limited.read_path(denied)
    with pytest.raises(SecretError, match='denies it "update" on'):
        limited.write_secret("xbvault-transition/r1/isolated", "1", {"data": "x"}, cas=1)
    for itself in (limited.renew_token, limited.lookup_token):
        with pytest.raises(SecretError, match="-self"):
            itself()
    assert orchestrator.renew_accessor(accessor) == CONFIG.clone.transition_token_seconds
    info = orchestrator.lookup_accessor(accessor)
    assert info is not None
    assert info.policies == ("xbvault-transition-r1",)
    assert (info.accessor, info.period_seconds) == (accessor, 3600)
    orchestrator.revoke_accessor(accessor)
    for host in ("r1", "R2"):
        orchestrator.remove_mount(f"xbvault-transition/{host}/isolated")


def test_a_host_token_reads_its_own_mount_only(ready: OpenBao) -> None:
    """What the key plugin needs is there, and nothing of any other host."""
    limited = ready.vault(vault_setup.issue_host_token(ready.vault(), "R2"))
    assert limited.read_secret("db/r2", "1") == {"data": Secret(VALUE)}
    assert limited.can_read("sys/mounts/db/r2/tune")
    for denied in ("db/master/data/1", "db/r1/data/1", "db/r2/metadata/1", "xbvault/data/x"):
        assert not limited.can_read(denied), denied
    with pytest.raises(SecretError, match='"update" on db/r2/data/1'):
        limited.write_secret("db/r2", "1", {"data": "x"}, cas=1)
    assert limited.renew_token() == vault_setup.TOKEN_PERIOD_SECONDS
    info = limited.lookup_token()
    assert info.policies == ("xbvault-host-r2",)
    assert info.ttl_seconds > info.period_seconds / 2 > 0


def test_the_check_passes_with_the_orchestrators_token(orchestrator: Vault) -> None:
    """Every finding holds, by name, and says what it was concluded from."""
    checks = vault_setup.check_setup(orchestrator, CONFIG)
    assert [c for c in checks if not c.ok] == []
    assert [c.name for c in checks] == [
        "vault-health",
        "vault-token",
        "vault-capabilities",
        *["vault-mount"] * 4,
        "vault-ssh-ca",
        *["vault-token-role", "vault-ssh-role"] * 3,
    ]
    assert all(c.evidence for c in checks)


def test_the_check_names_what_is_missing(bao: OpenBao) -> None:
    """Path and capability, mount, CA and role: each lack is told, all at once."""
    root = bao.vault()
    vault_setup.apply_setup(root, CONFIG)
    limited = bao.vault(vault_setup.issue_orchestrator_token(root))
    rights = vault_setup.orchestrator_rights(CONFIG)
    rights["xbvault/metadata/transition-keys/*"] = ("read",)
    del rights["xbvault-ssh/sign/xbvault-receive-r1"]
    root.write_policy(vault_setup.ORCHESTRATOR, vault_setup.policy_text(rights, "less"))
    assert _failed(limited) == {
        "vault-capabilities": "missing xbvault/metadata/transition-keys/*: create, update; "
        "xbvault-ssh/sign/xbvault-receive-r1: update"
    }
    root.write_policy(
        vault_setup.ORCHESTRATOR,
        vault_setup.policy_text(vault_setup.orchestrator_rights(CONFIG), "all"),
    )
    root.write_mount_config("db/r1", max_versions=10)
    root.write_token_role("xbvault-transition-r1", {"token_period": 60})
    assert _failed(limited) == {
        "vault-mount": "db/r1: kv version 2, max_versions 10, needs 1000",
        "vault-token-role": "auth/token/roles/xbvault-transition-r1: token_period 60 -> 3600",
    }
    root.remove_mount("db/r2")
    root.remove_mount("xbvault")
    root.create_ssh_mount("xbvault")
    root.remove_mount("xbvault-ssh")
    root.create_ssh_mount("xbvault-ssh")
    failed = [c for c in vault_setup.check_setup(limited, CONFIG) if not c.ok]
    evidence = [c.evidence for c in failed]
    assert evidence[:4] == [
        "xbvault: ssh, not kv version 2",
        "db/r1: kv version 2, max_versions 10, needs 1000",
        "db/r2: no mount",
        "xbvault-ssh: no CA key yet",
    ]
    assert "xbvault-ssh/roles/xbvault-receive-R2: not there" in evidence
    assert {c.host for c in failed if c.name == "vault-ssh-role"} == {"master", "r1", "R2"}
    root.remove_mount("xbvault-ssh")
    failed = [c for c in vault_setup.check_setup(limited, CONFIG) if not c.ok]
    assert all("no handler" in c.evidence for c in failed if c.name.startswith("vault-ssh"))


def test_the_check_with_a_token_of_no_rights_lists_everything(bao: OpenBao) -> None:
    """A token that may look itself up and no more gets findings, not an exception."""
    root = bao.vault()
    vault_setup.apply_setup(root, CONFIG)
    root.write_policy(
        vault_setup.ORCHESTRATOR, vault_setup.policy_text(vault_setup.SELF_RIGHTS, "nothing")
    )
    failed = _failed(bao.vault(vault_setup.issue_orchestrator_token(root)))
    assert "xbvault/data/transition-keys/*: read, update" in failed["vault-capabilities"]
    assert set(failed) == {
        "vault-capabilities",
        "vault-mount",
        "vault-ssh-ca",
        "vault-token-role",
        "vault-ssh-role",
    }


def test_the_check_raises_where_nothing_can_be_told(bao: OpenBao) -> None:
    """A wrong token and a sealed Vault end in exit status 5."""
    with pytest.raises(SecretError, match="does not know the token"):
        vault_setup.check_setup(bao.vault(Secret("s.nobody-has-this")), CONFIG)
    bao.seal()
    with pytest.raises(SecretStoreUnavailableError, match=f"Vault at {bao.address} is sealed"):
        vault_setup.check_setup(bao.vault(), CONFIG)


def test_policies_are_as_the_documents_print_them() -> None:
    """The texts come from the configuration alone."""
    texts = vault_setup.policies(CONFIG)
    assert texts["xbvault-transition-r1"] == (
        "# xbvault: r1 while it is being cloned\n"
        'path "xbvault-transition/r1/+/data/*" {\n  capabilities = ["read"]\n}\n'
        'path "sys/mounts/xbvault-transition/r1/+/tune" {\n  capabilities = ["read"]\n}\n'
    )
    for writing in ("sys/policies", "auth/token/roles/*", "sudo"):
        assert writing not in texts[vault_setup.ORCHESTRATOR]


def test_the_renewal_script_renews_and_shows_no_token(ready: OpenBao, tmp_path: Path) -> None:
    """Run as it stands, the token lives longer and stands in no command line."""
    root = ready.vault()
    root.write_policy("renewing", vault_setup.policy_text(vault_setup.SELF_RIGHTS, "a test"))
    root.write_token_role(
        "renewing", {"allowed_policies": ["renewing"], "token_period": 1800, "orphan": True}
    )
    token, accessor = root.create_token("renewing")
    root.write_token_role("renewing", {"token_period": 7200})
    env_file = tmp_path / "it's vault.env"
    config = _config(
        hosts={
            "r1": {
                "vault_mount": "db/r1",
                "vault_address": f"{ready.address}/",
                "vault_ca_file": str(ready.ca_file),
                "vault_env_file": str(env_file),
            }
        }
    )
    script = tmp_path / "renew"
    script.write_text(vault_setup.render_renewal(config, "r1")[vault_setup.RENEW_SCRIPT])
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-v", "-s", "4096", "-e", "trace=execve", "-o", str(trace)]
    command += ["sh", str(script)]

    for line in (f"VAULT_TOKEN={token.reveal()}", f'# x\nVAULT_TOKEN="{token.reveal()}"'):
        root.write_token_role("renewing", {"token_period": 7200})
        env_file.write_text(f"OTHER=1\n{line}\n")
        done = subprocess.run(
            command, check=True, capture_output=True, timeout=60, env={"PATH": os.environ["PATH"]}
        )
        assert (done.stdout, done.stderr) == (b"", b"")
        info = root.lookup_accessor(accessor)
        assert info is not None
        assert info.ttl_seconds > 7000
        calls = trace.read_text()
        assert "renew-self" in calls
        assert token.reveal() not in calls

    env_file.write_text("OTHER=1\n")
    failed = subprocess.run(["sh", str(script)], capture_output=True, timeout=60, check=False)
    assert failed.returncode == 1
    assert b"no VAULT_TOKEN in" in failed.stderr
    env_file.write_text("VAULT_TOKEN=s.nobody-has-this\n")
    failed = subprocess.run(["sh", str(script)], capture_output=True, timeout=60, check=False)
    assert failed.returncode == 22
    assert b"403" in failed.stderr


def test_the_renewal_units_are_right(tmp_path: Path) -> None:
    """The service runs the script, the timer runs the service, and systemd takes both."""
    config = _config(vault={"address": "https://vault.example:8200", "namespace": "team"})
    files = vault_setup.render_renewal(config, "r1")
    script = files[vault_setup.RENEW_SCRIPT]
    assert shlex.quote("X-Vault-Namespace: team") in script
    assert script.rstrip().endswith("https://vault.example:8200/v1/auth/token/renew-self")
    names = {path.rpartition("/")[2]: text for path, text in files.items()}
    assert set(names) == {
        "xbvault-renew-token",
        "xbvault-renew-token.service",
        "xbvault-renew-token.timer",
    }
    assert f"ExecStart={vault_setup.RENEW_SCRIPT}\n" in names["xbvault-renew-token.service"]
    verify = shutil.which("systemd-analyze")
    if verify is not None:
        for name, text in names.items():
            (tmp_path / name).write_text(text.replace(vault_setup.RENEW_SCRIPT, "/bin/true"))
        units = [str(tmp_path / name) for name in names if "." in name]
        done = subprocess.run(
            [verify, "verify", "--man=no", *units],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        )
        assert done.returncode == 0, done.stderr
    with pytest.raises(ConfigError, match="no Vault address"):
        vault_setup.render_renewal(CONFIG, "r1")
