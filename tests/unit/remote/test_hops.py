"""Resolving the way to a host by the OpenSSH client's own reading of its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.config import HostConfig, SshConfig
from orchestrator.errors import ConfigError, PreconditionError
from orchestrator.remote import hops

if TYPE_CHECKING:
    from collections.abc import Callable

    Resolve = Callable[..., list[hops.Hop]]


@pytest.fixture
def resolve(tmp_path: Path) -> Resolve:
    """Resolve a host with the given lines as ssh configuration."""

    def run(lines: str, **host: object) -> list[hops.Hop]:
        path = tmp_path / "ssh_config"
        path.write_text(lines)
        config = HostConfig.model_validate({"vault_mount": "kv-db1", **host})
        return hops.resolve_way("db1", config, SshConfig(config_file=str(path)))

    return run


def test_settings_of_the_client(resolve: Resolve, tmp_path: Path) -> None:
    """Every setting of the ssh configuration counts, those of included files too."""
    (tmp_path / "key db1").write_text("x")
    (tmp_path / "known hosts").write_text("x")
    (tmp_path / "included").write_text(
        "Host db1\n    HostName 192.0.2.7\n    Port 2200\n    User dba\n"
        f'    IdentityFile "{tmp_path}/key %n"\n'
        f"    IdentityFile {tmp_path}/absent-%h-%p-%r-%%\n"
        f"    CertificateFile {tmp_path}/certificate\n"
        f'    UserKnownHostsFile "{tmp_path}/known hosts"\n'
        "    GlobalKnownHostsFile /a /b\n"
        "    HostKeyAlias the-alias\n    IdentitiesOnly yes\n    IdentityAgent none\n"
        "    ConnectTimeout 33\n    ProxyCommand nc %h %p %%\n"
    )
    (hop,) = resolve(f"Include {tmp_path}/included\n")
    assert hop == hops.Hop(
        name="db1",
        address="192.0.2.7",
        port=2200,
        user="dba",
        key_alias="the-alias",
        identity_files=(f"{tmp_path}/key db1",),
        missing_files=(f"{tmp_path}/absent-192.0.2.7-2200-dba-%",),
        certificate_files=(f"{tmp_path}/certificate",),
        identities_only=True,
        has_agent=False,
        known_hosts_files=(f"{tmp_path}/known hosts", "/a", "/b"),
        proxy_command="nc 192.0.2.7 2200 %",
        connect_seconds=33,
    )
    assert hop.login == "dba@192.0.2.7 port 2200"
    assert hop.known_names == ("the-alias",)


def test_defaults_of_the_client(resolve: Resolve) -> None:
    """Without a word in the configuration the client's own defaults hold."""
    (hop,) = resolve("")
    assert (hop.address, hop.port, hop.connect_seconds) == ("db1", 22, 10)
    assert hop.has_agent
    assert not hop.identities_only
    assert str(Path("~/.ssh/id_ed25519").expanduser()) in hop.identity_files + hop.missing_files
    assert str(Path("~/.ssh/known_hosts").expanduser()) in hop.known_hosts_files
    assert (hop.proxy_command, hop.proxy_jump, hop.key_alias) == ("", "", "")


def test_our_configuration_wins(resolve: Resolve) -> None:
    """Address, port and login of xbvault.toml win, and Match blocks of the client see them."""
    lines = (
        "Host db1\n    HostName elsewhere\n    Port 1\n    User nobody\n"
        "Match host 192.0.2.9 user root\n    ConnectTimeout 3\n"
    )
    (hop,) = resolve(lines, address="192.0.2.9", ssh_port=2222, ssh_user="root")
    assert (hop.login, hop.connect_seconds) == ("root@192.0.2.9 port 2222", 3)


def test_jumps_in_order(resolve: Resolve) -> None:
    """The first jump host may have a way of its own; the others are reached through it."""
    way = resolve(
        "Host db1\n    ProxyJump b,dba@c:2222,[2001:db8::1]:2200\n"
        "Host b\n    ProxyJump a\n    HostName b.example\n"
        "Host a c\n    ProxyCommand nc %h %p\n"
    )
    assert [(hop.user == "dba", hop.address, hop.port) for hop in way] == [
        (False, "a", 22),
        (False, "b.example", 22),
        (True, "c", 2222),
        (False, "2001:db8::1", 2200),
        (False, "db1", 22),
    ]
    assert [hop.proxy_command for hop in way] == ["nc a 22", "", "", "", ""]


def test_circle_of_jumps(resolve: Resolve) -> None:
    """A circle of jump hosts is an error, not an endless loop."""
    with pytest.raises(ConfigError, match="more than 8 servers") as caught:
        resolve("Host db1 b\n    ProxyJump a\nHost a\n    ProxyJump b\n")
    assert "ProxyJump" in caught.value.hint
    # the client itself finds the smallest circle
    with pytest.raises(ConfigError, match="jumphost loop via gate"):
        resolve("Host *\n    ProxyJump gate\n")


def test_wrong_configuration(resolve: Resolve) -> None:
    """What the client refuses is an error of the configuration, with the client's words."""
    with pytest.raises(ConfigError, match=r"`ssh -G db1` failed: .*bad configuration option"):
        resolve("NoSuchThing yes\n")


def test_no_client(resolve: Resolve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without an OpenSSH client the error names the package."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreconditionError) as caught:
        resolve("")
    assert "openssh-client" in caught.value.hint
