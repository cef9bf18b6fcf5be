"""The configuration: checked whole, every problem with its path, and no option for nothing."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

from orchestrator import config
from orchestrator.config import Config
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(config.__file__).parent
LEAST = {"hosts": {"db1": {"vault_mount": "keys/db1"}}}
HOLDERS = {
    "Config": {"config", "_config", "loaded", "self"},
    "VaultConfig": {"vault", "config"},
    "JournalConfig": {"journal"},
    "MetricsConfig": {"metrics"},
    "NoticesConfig": {"notices", "wanted"},
    "SshConfig": {"ssh"},
    "CloneConfig": {"clone"},
    "ServerConfig": {"server"},
    "ServiceConfig": {"service"},
    "ProgramsConfig": {"named"},
    "KeyringConfig": {"keyring"},
    "DoorConfig": {"host", "_host", "door", "recipient", "self"},
    "RetentionConfig": {"wanted"},
    "RepositoryConfig": {"repository", "self", "host", "_host", "door", "recipient"},
    "HostConfig": {
        "host",
        "_host",
        "config",
        "host_config",
        "donor_config",
        "donor",
        "recipient",
        "ours",
        "found",
    },
}
"""What each model is called where it is used; a call counts by the name of the function."""


def with_host(**more: Any) -> dict[str, Any]:
    """Return a configuration with one host that has something set."""
    return {"hosts": {"db1": {"vault_mount": "keys/db1", **more}}}


def with_repository(name: str = "store", **more: Any) -> dict[str, Any]:
    """Return a configuration with one repository that has something set."""
    return {**LEAST, "repositories": {name: {"path": "/srv/backups", **more}}}


def problems(document: dict[str, Any]) -> tuple[str, ...]:
    """Return what is wrong with a configuration."""
    with pytest.raises(ConfigError) as caught:
        config.parse(document, "xbvault.toml")
    assert caught.value.exit_status == 2
    assert caught.value.hint
    count = len(caught.value.problems)
    noun = "problem" if count == 1 else "problems"
    assert caught.value.message == f"{count} {noun} in xbvault.toml"
    return caught.value.problems


def models() -> Iterator[type[pydantic.BaseModel]]:
    """Yield every model of the configuration."""
    for value in vars(config).values():
        if (
            isinstance(value, type)
            and issubclass(value, pydantic.BaseModel)
            and value.model_fields
            and value.__module__ == config.__name__
        ):
            yield value


OPTIONS = [(model.__name__, name) for model in models() for name in model.model_fields]


def uses() -> dict[str, set[str]]:
    """Return every attribute that the package reads, with what it is read from."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Attribute):
                continue
            holder: ast.expr = node.value
            if isinstance(holder, ast.Call):
                holder = holder.func
            name = getattr(holder, "attr", getattr(holder, "id", ""))
            found.setdefault(node.attr, set()).add(name)
    return found


USES = uses()


@pytest.mark.parametrize(("model", "name"), OPTIONS)
def test_every_option_is_read(model: str, name: str) -> None:
    """No option that nothing reads."""
    assert USES.get(name, set()) & HOLDERS[model]


@pytest.mark.parametrize("model", list(models()))
def test_every_option_is_described(model: type[pydantic.BaseModel]) -> None:
    """The example and the reference page have a text for each value."""
    for name, field in model.model_fields.items():
        nested = model is Config or name in (
            "server",
            "service",
            "programs",
            "keyring",
            "retention",
        )
        assert nested or field.description, name


def test_least_configuration() -> None:
    """One host with its mount is enough; everything else has a default."""
    found = config.parse(LEAST)
    assert found.host("db1").vault_mount == "keys/db1"
    assert found.vault.mount == "xbvault"
    assert found.clone.coordinates == "auto"
    assert found.host("db1").server.port == 3306
    assert found.host("db1").service.start == ()


@pytest.mark.parametrize(
    ("donor", "recipient", "source"),
    [("maria", "my", None), ("my", "maria", None), ("maria", "maria2", "my")],
)
def test_hosts_of_two_flavors_do_not_go_together(
    donor: str, recipient: str, source: str | None
) -> None:
    """Neither as donor and recipient, nor as replica and source."""
    hosts = {
        "maria": {"vault_mount": "keys/a"},
        "maria2": {"vault_mount": "keys/b"},
        "my": {"flavor": "mysql"},
    }
    found = config.parse({"hosts": hosts})
    with pytest.raises(ConfigError, match=r"of flavor (?:mariadb|mysql), and"):
        found.check_roles(donor, recipient, source)
    found.check_roles("maria", "maria2", None)


def test_configuration_cannot_be_altered() -> None:
    """What was checked stays as it was checked."""
    found = config.parse(LEAST)
    with pytest.raises(pydantic.ValidationError):
        found.clone.parallel = 99  # type: ignore[misc]  # that is what must fail


def test_all_problems_at_once_with_their_paths() -> None:
    """One wrong value hides no other, and each is found by its path."""
    document = {
        "vault": {"adress": "https://v", "mount": "/xbvault"},
        "clone": {"parallel": 0, "checksums": "some", "stall_seconds": "long"},
        "hosts": {
            "db1": {"vault_mount": "keys/db1", "ssh_port": 70000, "server": {"port": 0}},
            "db2": {"vault_env_file": "vault.env", "flavor": "oracle"},
        },
        "extra": 1,
    }
    assert problems(document) == (
        "vault.mount: must be a path of letters, digits, '.', '_', '-' and inner '/', is '/xbvault'",
        "vault.adress: unknown key",
        "clone.parallel: input should be greater than or equal to 1, is 0",
        "clone.checksums: input should be 'all', 'sample' or 'none', is 'some'",
        "clone.stall_seconds: input should be a valid integer, unable to parse string as an "
        "integer, is 'long'",
        "hosts.db1.ssh_port: must be 1-65535, is 70000",
        "hosts.db1.server.port: must be 1-65535, is 0",
        "hosts.db2.flavor: input should be 'mariadb' or 'mysql', is 'oracle'",
        "hosts.db2.vault_mount: is required",
        "hosts.db2.vault_env_file: must be an absolute path on the host, is 'vault.env'",
        "extra: unknown key",
    )


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({}, "hosts: is required"),
        ({"hosts": {}}, "hosts: dictionary should have at least 1 item"),
        (
            with_host(service={"start": ["systemctl"]}),
            "hosts.db1.service: start and stop go together",
        ),
        (with_host(server={"account_host": "a'b"}), "hosts.db1.server.account_host: string should"),
        (with_host(server={"socket": "/a\nb"}), "hosts.db1.server.socket: must hold no control"),
        ({"hosts": {"db 1": {"vault_mount": "k"}}}, "hosts: 'db 1' is no host name"),
        ({"hosts": {"-x": {"vault_mount": "k"}}}, "hosts: '-x' is no host name"),
        ({"hosts": {"a/b": {"vault_mount": "k"}}}, "hosts: 'a/b' is no host name"),
        (
            {"hosts": {"db1": {"vault_mount": "k"}, "db2": {"vault_mount": "k"}}},
            "hosts: db2 and db1 share the vault_mount 'k'",
        ),
        (
            with_host(server={"socket": "/a\x1b[1m"}),
            "hosts.db1.server.socket: must hold no control",
        ),
        (with_host(address="-oProxyCommand=x"), "hosts.db1.address: must be a host name"),
        (with_host(address="a b"), "hosts.db1.address: must be a host name"),
        (with_host(ssh_user="-lroot"), "hosts.db1.ssh_user: must be a login"),
        (with_host(receive_user="root|;1e x #"), "hosts.db1.receive_user: must be the name of"),
        (with_host(server={"owner": "-R"}), "hosts.db1.server.owner: must be the name of"),
        (with_host(server={"replication_address": "a'b"}), "hosts.db1.server.replication_address:"),
        (
            with_host(server={"replication_ca_file": "/a\\b"}),
            "hosts.db1.server.replication_ca_file:",
        ),
        (with_host(service={"unit": "../x"}), "hosts.db1.service.unit: must be the name of"),
        (
            with_host(service={"environment_file": "/run/*"}),
            "hosts.db1.service.environment_file: must",
        ),
        (with_host(service={"start": [""], "stop": ["x"]}), "hosts.db1.service.start: must be a"),
        (with_host(vault_address="https://v\nplugin-load=x"), "hosts.db1.vault_address: must be"),
        ({**LEAST, "vault": {"address": "https://u:p@v"}}, "vault.address: must be an http"),
        ({**LEAST, "vault": {"namespace": "a b"}}, "vault.namespace: string should match"),
        ({**LEAST, "vault": {"token_file": "~no-such-user/t"}}, "vault.token_file: must be a path"),
        (
            {**LEAST, "clone": {"clock_skew_seconds": float("nan")}},
            "clone.clock_skew_seconds: input",
        ),
        (
            {**LEAST, "clone": {"throttle": "0M"}},
            "clone.throttle: must be bytes per second above 0",
        ),
        ({**LEAST, "clone": {"throttle": ""}}, "clone.throttle: must be bytes per second above 0"),
        (
            {**LEAST, "clone": {"compress": "zstd:20"}},
            "clone.compress: must be auto, none, zstd or",
        ),
        ({**LEAST, "clone": {"compress": "lz4"}}, "clone.compress: must be auto, none, zstd or"),
        (with_host(vault_mount="a/../b"), "hosts.db1.vault_mount: must be a path"),
        (with_host(vault_mount="a//b"), "hosts.db1.vault_mount: must be a path"),
        (with_host(vault_mount=""), "hosts.db1.vault_mount: is required"),
        ({"hosts": {"db1": {}}}, "hosts.db1.vault_mount: is required"),
        (
            with_host(
                vault_mount="",
                flavor="mysql",
                keyring={"kind": "keyring_vault", "config_file": "/etc/mysql/keyring_vault.conf"},
            ),
            "hosts.db1.vault_mount: is required",
        ),
        (
            with_host(flavor="mysql", keyring={"kind": "component_keyring_vault", "kv_version": 3}),
            "hosts.db1.keyring.kv_version: input should be less than or equal to 2, is 3",
        ),
        (
            with_host(flavor="mysql", keyring={"kv_version": 1}),
            "hosts.db1.keyring: kv_version is for a keyring in Vault",
        ),
        (
            {**LEAST, "clone": {"clock_skew_seconds": 0}},
            "clone.clock_skew_seconds: input should be",
        ),
        ({**LEAST, "repositories": {"store": {}}}, "repositories.store.path: is required"),
        (with_repository(name="db1"), "repositories: db1 is a host and a repository: give one"),
        (with_repository(name="a/b"), "repositories: 'a/b' is no name of a repository"),
        (with_repository(path="srv"), "repositories.store.path: must be an absolute path"),
        (with_repository(path=""), "repositories.store.path: must be a directory below /"),
        (with_repository(path="/"), "repositories.store.path: must be a directory below /"),
        (with_repository(path="//"), "repositories.store.path: must be a directory below /"),
        (with_repository(path="/srv/../etc"), "repositories.store.path: must be a directory below"),
        (with_repository(path="/a\nb"), "repositories.store.path: must hold no control character"),
        (with_repository(part_size="1023K"), "repositories.store.part_size: must be a size of 1M"),
        (with_repository(part_size="1"), "repositories.store.part_size: must be a size of 1M"),
        (with_repository(part_size="0"), "repositories.store.part_size: must be a size above 0"),
        (with_repository(part_size="4MB"), "repositories.store.part_size: must be a size above 0"),
        (with_repository(part_size="-4M"), "repositories.store.part_size: must be a size above 0"),
        (with_repository(part_size=4), "repositories.store.part_size: input should be a valid"),
        (with_repository(vault_mount="k"), "repositories.store.vault_mount: unknown key"),
    ],
)
def test_one_problem(document: dict[str, Any], problem: str) -> None:
    """What would end badly on a host is refused before anything is contacted."""
    (found,) = problems(document)
    assert found.startswith(problem)


def test_unknown_host_names_the_known_ones() -> None:
    """A typing error is an error of the configuration, with what is there."""
    document = {"hosts": {"db2": {"vault_mount": "b"}, "db1": {"vault_mount": "a"}}}
    with pytest.raises(ConfigError, match="^unknown host 'db3'$") as caught:  # noqa: RUF043 - as it is
        config.parse(document).host("db3")
    assert caught.value.hint.endswith("known: db1, db2")


def test_a_repository_has_a_path_and_parts() -> None:
    """All else is as for any machine reached over SSH; a slash at the end means nothing."""
    found = config.parse(with_repository(path="/srv/backups/", part_size="4M"))
    repository = found.repository("store")
    assert (repository.path, repository.part_bytes) == ("/srv/backups", 4 << 20)
    assert config.parse(with_repository()).repository("store").part_bytes == 1 << 30
    assert found.door("store") is repository
    assert found.door("db1") is found.host("db1")
    assert list(found.doors) == ["db1", "store"]


@pytest.mark.parametrize(("document", "known"), [(LEAST, "none"), (with_repository(), "store")])
def test_unknown_repository_names_the_known_ones(document: dict[str, Any], known: str) -> None:
    """The hint says what to add, and what is there."""
    found = config.parse(document)
    with pytest.raises(ConfigError, match="unknown repository 'db1'") as caught:
        found.repository("db1")
    assert str(caught.value.hint).endswith(f"known: {known}")
    with pytest.raises(ConfigError, match="unknown host 'nowhere'"):
        found.door("nowhere")


def test_file_that_is_not_to_be_read(tmp_path: Path) -> None:
    """A file that is no TOML, no text or not there is named with the reason."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[hosts\n")
    with pytest.raises(ConfigError, match=r"wrong\.toml is not TOML: .*line 1"):
        config.load(wrong)
    wrong.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"cannot read .*wrong\.toml"):
        config.load(wrong)
    with pytest.raises(ConfigError, match=r"cannot read .*none\.toml"):
        config.load(tmp_path / "none.toml")


def test_file_is_named_with_its_problems(tmp_path: Path) -> None:
    """The path stands in the message."""
    path = tmp_path / "x.toml"
    path.write_text("[hosts.db1]\n")
    with pytest.raises(ConfigError, match=rf"1 problem in {path}"):
        config.load(path)


def test_option_goes_before_environment_goes_before_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--config, else XBVAULT_CONFIG, else ./xbvault.toml; an empty variable is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XBVAULT_CONFIG", raising=False)
    named, in_environment = tmp_path / "named.toml", tmp_path / "environment.toml"
    for path in (named, in_environment, tmp_path / "xbvault.toml"):
        path.touch()
    assert config.find_file(None) == Path("xbvault.toml")
    monkeypatch.setenv("XBVAULT_CONFIG", "")
    assert config.find_file(None) == Path("xbvault.toml")
    monkeypatch.setenv("XBVAULT_CONFIG", str(in_environment))
    assert config.find_file(None) == in_environment
    assert config.find_file(str(named)) == named


def test_named_file_that_is_missing_is_not_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for and is not there is an error, although ./xbvault.toml is there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "xbvault.toml").touch()
    monkeypatch.setenv("XBVAULT_CONFIG", "gone.toml")
    with pytest.raises(ConfigError, match=r"no configuration file gone\.toml"):
        config.find_file(None)
    with pytest.raises(ConfigError, match=r"no configuration file other\.toml"):
        config.find_file("other.toml")


def test_no_file_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint says how to get one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XBVAULT_CONFIG", raising=False)
    monkeypatch.setattr(config, "DEFAULT_FILES", ("xbvault.toml", str(tmp_path / "etc.toml")))
    with pytest.raises(ConfigError, match="no configuration file found") as caught:
        config.find_file(None)
    assert "xbvault config example" in caught.value.hint


def test_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """journal.directory, else XDG_STATE_HOME, else ~/.local/state; a tilde is the home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert config.parse(LEAST).state_directory == tmp_path / ".local/state/xbvault"
    monkeypatch.setenv("XDG_STATE_HOME", "/srv/state")
    assert config.parse(LEAST).state_directory == Path("/srv/state/xbvault")
    named = config.parse({**LEAST, "journal": {"directory": "~/runs"}})
    assert named.state_directory == tmp_path / "runs"


@pytest.mark.parametrize(
    ("host", "mount", "kv_version"),
    [
        ({"vault_mount": "k"}, "k", 2),
        ({"vault_mount": "k", "flavor": "mysql"}, "", 0),
        ({"flavor": "mysql"}, "", 0),
        (
            {
                "flavor": "mysql",
                "keyring": {"kind": "component_keyring_file", "data_file": "/var/lib/k/keyring"},
            },
            "",
            0,
        ),
        (
            {
                "vault_mount": "k",
                "flavor": "mysql",
                "keyring": {"kind": "keyring_vault", "config_file": "/etc/k.conf"},
            },
            "k",
            1,
        ),
        (
            {
                "vault_mount": "k",
                "flavor": "mysql",
                "keyring": {
                    "kind": "keyring_vault",
                    "config_file": "/etc/k.conf",
                    "kv_version": 2,
                },
            },
            "k",
            2,
        ),
        (
            {
                "vault_mount": "k",
                "flavor": "mysql",
                "keyring": {"kind": "component_keyring_vault"},
            },
            "k",
            2,
        ),
        (
            {
                "vault_mount": "k",
                "flavor": "mysql",
                "keyring": {"kind": "component_keyring_vault", "kv_version": 1},
            },
            "k",
            1,
        ),
    ],
)
def test_a_mount_is_for_keys_in_vault(host: dict[str, Any], mount: str, kv_version: int) -> None:
    """Its KV version is what the kind of keyring can use, where the configuration says no other."""
    found = config.parse({"hosts": {"db1": host, "db2": {"flavor": "mysql"}}}).host("db1")
    assert (found.key_mount, found.kv_version) == (mount, kv_version)


def test_the_file_for_metrics_is_one_that_node_exporter_reads() -> None:
    """It passes over every other name."""
    assert config.parse(LEAST | {"metrics": {"textfile": "/a/x.prom"}}).metrics.textfile
    with pytest.raises(ConfigError) as caught:
        config.parse(LEAST | {"metrics": {"textfile": "/a/x.txt"}})
    (problem,) = caught.value.problems
    assert problem.startswith("metrics.textfile: must end in .prom")


def test_notices_are_of_failures_unless_all_are_asked_for() -> None:
    """And the file of URLs is a path on this machine."""
    assert config.parse(LEAST).notices.on == "failure"
    document = {"urls_file": "~nobody-known/x", "on": "sometimes"}
    with pytest.raises(ConfigError) as caught:
        config.parse(LEAST | {"notices": document})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "notices.urls_file",
        "notices.on",
    ]
