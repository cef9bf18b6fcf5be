"""The nouns with few commands: config, playbook, hosts, vault."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from typing import TYPE_CHECKING

import click
import pytest

from orchestrator import config
from orchestrator.cli.backend import Backend
from orchestrator.errors import ConfigError, HostUnreachableError
from orchestrator.facts.hosts import receiver_sha256
from orchestrator.models import Check, Secret
from orchestrator.vault import write_token_file
from orchestrator.vault_setup import Change

if TYPE_CHECKING:
    from pathlib import Path

    import pydantic
    from cli_lab import CommandLine


def test_example_parses_and_loads(command_line: CommandLine) -> None:
    """What `config example` prints is a configuration without problems."""
    text = command_line.call("config", "example").stdout
    assert set(config.parse(tomllib.loads(text)).hosts) == {"master", "replica"}


def test_example_shows_every_key_with_its_default(command_line: CommandLine) -> None:
    """With the comment signs taken away it still loads, and nothing but hosts differs."""
    text = command_line.call("config", "example").stdout
    whole = config.parse(tomllib.loads(re.sub(r"(?m)^#(\w)", r"\1", text)))
    plain = config.parse(tomllib.loads(text))
    assert whole.clone == plain.clone
    assert whole.vault == plain.vault
    shown = set(re.findall(r"(?m)^#?(\w+) = ", text))
    models: list[type[pydantic.BaseModel]] = [config.VaultConfig, config.JournalConfig]
    models += [config.SshConfig, config.CloneConfig]
    models += [config.HostConfig, config.ServerConfig, config.ServiceConfig]
    models += [config.ProgramsConfig, config.KeyringConfig, config.RepositoryConfig]
    models += [config.RetentionConfig, config.MetricsConfig, config.NoticesConfig]
    names = {name for model in models for name in model.model_fields} - {
        "service",
        "programs",
        "keyring",
        "retention",
    }
    assert shown == names


def test_config_check_names_file_and_hosts(command_line: CommandLine) -> None:
    """A good configuration is one line, or a document."""
    result = command_line.call("config", "check")
    assert result.stdout == f"ok: {command_line.config}, 2 hosts\n"
    assert command_line.document("config", "check")["hosts"] == ["master", "replica"]


def test_config_check_lists_problems_as_json(command_line: CommandLine) -> None:
    """With --json the problems stand in the document as well."""
    command_line.config.write_text("[hosts.a]\nssh_port = 0\n")
    result = command_line.call("config", "check", "--json")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert document["status"] == "failed"
    assert len(document["error"]["problems"]) == 2


def test_a_missing_configuration_exits_2_with_a_hint(command_line: CommandLine) -> None:
    """The hint says how to write one."""
    command_line.config.unlink()
    result = command_line.call("runs", "list")
    assert result.exit_code == 2
    assert "xbvault config example" in result.stderr


def test_playbook_list_and_show(command_line: CommandLine) -> None:
    """Playbooks are listed with their summaries, and shown with what the registry says."""
    assert [item["name"] for item in command_line.document("playbook", "list")] == ["clone", "undo"]
    assert "a playbook of the test" in command_line.call("playbook", "list").stdout
    shown = command_line.call("playbook", "show", "clone").stdout
    assert "Do stream-backup." in shown
    assert "clean-up step" in shown
    document = command_line.document("playbook", "show", "clone")
    assert document["steps"][0]["repeat"] == "safe"


def test_playbook_check_takes_a_file_by_its_bare_name(command_line: CommandLine) -> None:
    """A word without a slash is a file here, not a shipped playbook."""
    assert command_line.call("playbook", "check", "mine.yaml").exit_code == 0
    assert command_line.backend.asked == ["load_playbook ./mine.yaml"]


def test_hosts_check_asks_all_or_those_named(command_line: CommandLine) -> None:
    """Without a name every host of the configuration is checked."""
    assert command_line.call("hosts", "check").exit_code == 0
    assert sorted(command_line.backend.asked) == ["check_host master", "check_host replica"]
    command_line.backend.asked.clear()
    assert command_line.document("hosts", "check", "replica")["ok"] is True
    assert command_line.backend.asked == ["check_host replica"]


def test_hosts_check_of_an_unknown_host_asks_nobody(command_line: CommandLine) -> None:
    """All names are checked before the first host is asked."""
    result = command_line.call("hosts", "check", "master", "nowhere")
    assert (result.exit_code, command_line.backend.asked) == (2, [])


def test_hosts_check_with_a_bad_finding_exits_3(command_line: CommandLine) -> None:
    """A finding that does not hold is a precondition."""
    command_line.backend.checks += (Check(name="sudo", ok=False, evidence="asks a password"),)
    result = command_line.call("hosts", "check")
    assert result.exit_code == 3
    assert "✗" in result.stdout


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (("programs",), 3),
        (("programs", "vault-host-token"), 5),
        (("vault-host-token", "host-readable"), 4),
    ],
)
def test_the_worst_finding_gives_the_exit_status(
    command_line: CommandLine, names: tuple[str, ...], status: int
) -> None:
    """A host that cannot be reached before Vault, Vault before the rest."""
    command_line.backend.checks = tuple(Check(name=n, ok=False, evidence="bad") for n in names)
    assert command_line.call("hosts", "check").exit_code == status


def test_hosts_check_shows_the_others_when_one_is_down(command_line: CommandLine) -> None:
    """One host that cannot be reached is a finding, and its class gives the exit status."""
    failure = HostUnreachableError("connection refused", host="master", hint="start sshd")
    command_line.backend.host_failures["master"] = failure
    result = command_line.call("hosts", "check", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 4
    assert [(c["host"], c["ok"]) for c in document["checks"]] == [
        ("master", False),
        ("replica", True),
    ]
    assert document["status"] == "failed"


def test_hosts_receiver_prints_the_script_that_preflight_wants(command_line: CommandLine) -> None:
    """Byte for byte, for its digest is compared; and without a configuration."""
    command_line.config.unlink()
    result = command_line.call("hosts", "receiver")
    assert result.exit_code == 0
    assert hashlib.sha256(result.stdout_bytes).hexdigest() == receiver_sha256()
    assert result.stdout.startswith("#!/bin/sh\n")


def test_vault_check_with_a_bad_finding_exits_5(command_line: CommandLine) -> None:
    """What Vault lacks has the exit status of the secret store."""
    assert command_line.call("vault", "check").exit_code == 0
    command_line.backend.checks = (Check(name="vault-kv", ok=False, evidence="xbvault: not there"),)
    assert command_line.call("vault", "check").exit_code == 5


MOUNT = Change(kind="mount", path="xbvault", action="create", detail="KV version 2")


def test_vault_init_shows_asks_writes_and_has_nothing_to_do_twice(
    command_line: CommandLine,
) -> None:
    """The changes are shown before the question; the second time nothing is asked or written."""
    command_line.backend.changes = (MOUNT,)
    command_line.answers = "y\n"
    result = command_line.call("vault", "init")
    assert result.exit_code == 0
    assert result.stdout.startswith("create mount xbvault\n    KV version 2\n")
    assert "apply 1" in command_line.backend.asked
    command_line.answers = None
    again = command_line.call("vault", "init")
    assert again.exit_code == 0
    assert again.stdout.startswith("nothing to change")
    assert command_line.backend.asked.count("apply 1") == 1


def test_vault_init_prints_the_renewal_timer(command_line: CommandLine) -> None:
    """The key plugin never renews its token, so the timer that does is printed for the hosts."""
    result = command_line.call("vault", "init", "--yes")
    assert "On master, replica:" in result.stdout
    assert "systemctl enable --now xbvault-renew-token.timer" in result.stdout
    assert "chmod 0755 /usr/local/sbin/xbvault-renew-token" in result.stdout


def test_vault_init_as_json_masks_nothing_of_the_timer(command_line: CommandLine) -> None:
    """The files can be taken from the document and written to the hosts."""
    document = command_line.document("vault", "init")
    assert [item["host"] for item in document["renewal"]] == ["master"] * 3 + ["replica"] * 3
    assert "***" not in json.dumps(document)


def test_vault_init_prints_all_that_clones_need(command_line: CommandLine) -> None:
    """Policies, grants and sudo rules, as text and as JSON; nothing is contacted."""
    more = '\nbecome = true\nssh_user = "dba"\n'
    command_line.config.write_text(command_line.config.read_text().rstrip() + more)
    document = command_line.document("vault", "init", "--print-policy")
    assert set(document["policies"]) > {"xbvault-orchestrator", "xbvault-host-master"}
    assert list(document["sudoers"]) == ["replica"]
    assert "dba ALL=(root) NOPASSWD: /usr/bin/timeout" in document["sudoers"]["replica"]
    text = command_line.call("vault", "init", "--print-policy").stdout
    parts = (*document["policies"].values(), document["grants"], document["sudoers"]["replica"])
    assert [part for part in parts if part not in text] == []
    assert command_line.backend.asked == []


def test_vault_init_plan_writes_nothing(command_line: CommandLine) -> None:
    """--plan needs no --yes, for it only shows; no token is issued either."""
    command_line.backend.changes = (MOUNT,)
    words = ("--plan", "--issue-token", "master", "--out", "token")
    document = command_line.document("vault", "init", *words)
    assert document["status"] == "planned"
    assert document["changes"] == [
        {"kind": "mount", "path": "xbvault", "action": "create", "detail": "KV version 2"}
    ]
    assert command_line.backend.asked == ["open_admin_vault"]


def test_vault_init_without_a_terminal_and_yes_writes_nothing(command_line: CommandLine) -> None:
    """What nobody agreed to is not written."""
    command_line.backend.changes = (MOUNT,)
    assert command_line.call("vault", "init").exit_code == 2
    assert "apply 1" not in command_line.backend.asked


def test_vault_init_issues_a_token_into_a_file(command_line: CommandLine) -> None:
    """The token goes to the file, never to the screen."""
    words = ("--issue-token", "replica", "--out", "replica.env", "--force")
    result = command_line.call("vault", "init", "--admin-token-file", "admin", *words)
    assert "new token of replica in replica.env" in result.stdout
    assert command_line.backend.asked == [
        "open_admin_vault admin",
        "issue_token replica replica.env True",
    ]


@pytest.mark.parametrize(
    "words", [("--issue-token", "replica"), ("--out", "x"), ("--issue-token", "no", "--out", "x")]
)
def test_vault_init_refuses_half_a_token(command_line: CommandLine, words: tuple[str, ...]) -> None:
    """Holder and file go together, and the holder must be known, before Vault is asked."""
    result = command_line.call("vault", "init", *words)
    assert (result.exit_code, command_line.backend.asked) == (2, [])


def test_the_orchestrators_own_token_is_not_taken_for_the_administrators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`vault init` takes VAULT_TOKEN, whatever vault.token_file holds."""
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / "own-token"
    own.write_text("s.own-token-of-the-orchestrator\n")
    document = {
        "vault": {"address": "https://vault.example:8200", "token_file": str(own)},
        "hosts": {"a": {"vault_mount": "keys/a"}},
    }
    with pytest.raises(ConfigError, match="no Vault token"):
        Backend().open_admin_vault(config.parse(document), "")


def test_a_token_file_is_private_and_never_overwritten_by_chance(tmp_path: Path) -> None:
    """Mode 0600; an existing file stays without --force; a failure leaves nothing behind."""
    path = tmp_path / "replica.env"
    write_token_file(path, lambda: Secret("s.first-token-of-the-test"), name="VAULT_TOKEN")
    assert path.read_text() == "VAULT_TOKEN=s.first-token-of-the-test\n"
    assert path.stat().st_mode & 0o777 == 0o600
    issued = []
    with pytest.raises(ConfigError, match="exists"):
        write_token_file(path, lambda: issued.append(1) or Secret("s.second"))  # type: ignore[func-returns-value]  # it is never called
    assert issued == []

    def refuse() -> Secret:
        raise ConfigError("refused")

    with pytest.raises(ConfigError, match="refused"):
        write_token_file(path, refuse, replace=True)
    assert [found.name for found in tmp_path.iterdir()] == ["replica.env"]
    write_token_file(path, lambda: Secret("s.third-token"), replace=True)
    assert path.read_text() == "s.third-token\n"


def test_wrong_usage_is_exit_2(command_line: CommandLine) -> None:
    """An option that click refuses has the exit status of wrong arguments."""
    result = command_line.call("clone", "master", "replica", "--parallel", "0")
    assert result.exit_code == click.UsageError.exit_code == 2
