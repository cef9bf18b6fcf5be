"""The step that restores a set, into a keyring in a real Vault; the double plays the backup tool.

What can go wrong between the tool and Vault ends it with who must act, before any datadir is
touched, and the same step goes on when that is mended.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from engine_lab import make_plan
from local_remote import LocalRemote
from openbao import OpenBao, make_ca, running_openbao
from xtrabackup_double import DONOR_UUID, SIMULATORS, TRANSITION_KEY, write_set

from orchestrator import config as config_module
from orchestrator import remote as remote_module
from orchestrator import vault_setup
from orchestrator.errors import (
    CommandError,
    PreconditionError,
    SecretError,
    SecretStoreUnavailableError,
    VerificationError,
)
from orchestrator.steps import key_names, restore
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.models import Plan, Secret
    from orchestrator.remote import Result

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="files are given to another user"),
    pytest.mark.timeout(300),
]

MOUNT = "mysql/replica"
_MOVED = re.compile(rb"(?<![\w./-])/(?:var/lib|run)/xbvault(?=/)")


class MovedRemote(LocalRemote):
    """This machine, where what lies below `local_remote.MOVED` is moved in all texts as well."""

    def _move(self, content: str | bytes | Secret) -> bytes:
        return _MOVED.sub(
            lambda f: os.fsencode(self.root or "") + f[0], remote_module.as_bytes(content)
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | Secret = b"",
        check: bool = True,
        timeout_seconds: float = 60.0,
    ) -> Result:
        """Run a command; see `LocalRemote.run`."""
        return super().run(
            argv, stdin=self._move(stdin), check=check, timeout_seconds=timeout_seconds
        )

    def write_file(
        self, path: str, content: str | bytes | Secret, *, mode: int = 0o600, owner: str = ""
    ) -> None:
        """Write a file, which is root's; see `LocalRemote.write_file`."""
        assert owner in ("", "root", "root:root")
        super().write_file(path, self._move(content), mode=mode)


@dataclasses.dataclass
class Stage:
    """A recipient with a prepared set, and its mount in Vault.

    Attributes:
        bao: The server.
        tools: The doors, with the orchestrator's own token.
        plan: The clone.
        token_file: The host's own token.
        datadir: The earlier datadir, which nothing here may touch.
    """

    bao: OpenBao
    tools: Tools
    plan: Plan
    token_file: Path
    datadir: Path

    def restore(self) -> restore.MovedSet:
        """Run the step."""
        return restore.move_backup_set(self.tools, self.plan)

    def names(self) -> set[str]:
        """Return the ids of the keys in the mount."""
        listed = self.bao.vault().list_secrets(MOUNT, kv_version=1)
        return {base64.b64decode(name).decode() for name in listed}

    def remount(self, version: int) -> None:
        """Put another mount in the place of the host's."""
        root = self.bao.vault()
        root.remove_mount(MOUNT)
        root.create_kv_mount(MOUNT, version=version)

    def check_untouched(self) -> None:
        """See that the earlier datadir is as it was, and that no secret was left on tmpfs."""
        assert (self.datadir / "ibdata1").read_bytes() == b"earlier"
        assert not restore.is_swapped(self.tools, self.plan)
        left = self.tools.recipient.run(["ls", "-A", "/run/xbvault"], check=False).text
        assert self.plan.run_id not in left


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    """A server; each test sets it up for itself."""
    with running_openbao() as server:
        yield server


@pytest.fixture
def stage(bao: OpenBao, tmp_path: Path) -> Iterator[Stage]:
    """A recipient whose server has the plugin keyring_vault."""
    with make_stage(bao, tmp_path, version="8.0.35-34") as made:
        yield made


@contextlib.contextmanager
def make_stage(
    bao: OpenBao,
    tmp_path: Path,
    *,
    version: str,
    ca_file: str = "",
    keyring: dict[str, Any] | None = None,
) -> Iterator[Stage]:
    """Make a stage, and remove what it has put into Vault."""
    token_file = tmp_path / "vault.env"
    datadir = tmp_path / "mysql"
    host: dict[str, Any] = {
        "flavor": "mysql",
        "vault_mount": MOUNT,
        "vault_env_file": str(token_file),
        "vault_ca_file": ca_file or str(bao.ca_file),
        "server": {"owner": "root", "datadir": str(datadir)},
        "programs": {"backup": str(tmp_path / "xtrabackup")},
        "keyring": keyring or {"kind": "keyring_vault", "config_file": "/etc/keyring_vault.conf"},
    }
    hosts = {"replica": host, "master": {"flavor": "mysql"}}
    config = config_module.parse({"vault": {"address": bao.address}, "hosts": hosts})
    root = bao.vault()
    vault_setup.apply_setup(root, config)
    issue_token(bao, token_file)
    datadir.mkdir(mode=0o700)
    (datadir / "ibdata1").write_bytes(b"earlier")
    staging = write_set(tmp_path / "mysql.xbvault-staging-r1", state="full-prepared")
    (staging / "ibdata1").write_bytes(b"system")
    (staging / "xtrabackup_master_key_id").write_text("1\n")
    for folder in ("run/xbvault", "var/lib/xbvault/jobs", "var/lib/xbvault/runs/r1"):
        (tmp_path / folder).mkdir(parents=True)
    plan = dataclasses.replace(
        make_plan("r1"),
        flavor="mysql",
        server_version="8.0.36",
        tool_version=version,
        keyring=config.host("replica").keyring.kind,
        datadir=str(datadir),
        staging_dir=str(staging),
        new_datadir=f"{datadir}.xbvault-new-r1",
        old_datadir=f"{datadir}.xbvault-old-r1",
        donor_mount="",
        own_mount=MOUNT,
    )
    root.write_secret("xbvault", plan.key_path, {"key": TRANSITION_KEY}, cas=0)
    tool = tmp_path / "xtrabackup"  # a job has an environment of its own
    tool.write_text(
        f"#!/bin/sh\nexport XBSIM_VERSION={version} XBSIM_PLUGIN_TIMEOUT_SECONDS=3\n"
        f'exec {SIMULATORS}/xtrabackup "$@"\n'
    )
    tool.chmod(0o755)
    own = bao.vault(vault_setup.issue_orchestrator_token(root))
    remote = MovedRemote(root=tmp_path, name="replica")
    tools = Tools(config=config, vault=own, donor=LocalRemote(name="master"), recipient=remote)
    try:
        yield Stage(bao=bao, tools=tools, plan=plan, token_file=token_file, datadir=datadir)
    finally:
        root.remove_mount(MOUNT)
        root.remove_secret("xbvault", plan.key_path)


def issue_token(bao: OpenBao, path: Path) -> None:
    """Put a token of the host's own where it belongs."""
    token = vault_setup.issue_host_token(bao.vault(), "replica").reveal()
    path.write_text(f"VAULT_TOKEN={token}\n")


def test_the_new_key_is_in_the_recipients_mount(stage: Stage) -> None:
    """And is named in the run's folder; a second time changes nothing."""
    moved = stage.restore()
    assert moved.path == stage.plan.new_datadir
    (only,) = stage.names()
    assert re.fullmatch(r"[0-9]+_INNODBKey-[0-9a-f-]{36}-20_", only)
    names = key_names.need_names(stage.tools, "r1")
    assert (len(names.new), names.before) == (1, frozenset())
    stage.check_untouched()
    assert stage.restore() == moved
    assert len(stage.names()) == 1


@pytest.mark.parametrize("version", ["2.4.29", "8.0.35-34"])
def test_what_was_in_the_mount_stays(bao: OpenBao, tmp_path: Path, version: str) -> None:
    """An old tool takes the key that an earlier clone has made, and it counts."""
    reused = f"INNODBKey-{DONOR_UUID}-2"
    with make_stage(bao, tmp_path, version=version) as stage:
        own = bao.vault()
        kept = {}
        for name in (reused, "Application"):
            path = base64.b64encode(f"{len(name)}_{name}0_".encode()).decode()
            value = base64.b64encode(os.urandom(32)).decode()
            bao.request("POST", f"{MOUNT}/{path}", {"type": "AES", "value": value})
            kept[path] = value
        stage.restore()
        names = key_names.need_names(stage.tools, "r1")
        assert names.before == set(kept)
        assert bool(names.new & names.before) is version.startswith("2.4")
        assert set(kept) <= set(own.list_secrets(MOUNT, kv_version=1))
        for path, value in kept.items():
            assert bao.request("GET", f"{MOUNT}/{path}")["data"]["value"] == value


def test_a_version_2_mount_is_found_out_and_mended(stage: Stage) -> None:
    """The tool says that all is well; after mending, the same step makes the key again."""
    stage.remount(2)
    for _ in range(2):
        with pytest.raises(VerificationError) as caught:
            stage.restore()
        assert re.search(r"new master key \S+-2 is not in mysql/replica", caught.value.message)
        assert "mysql/replica is KV version 2, not 1" in caught.value.hint
        assert caught.value.exit_status == 6
        stage.check_untouched()
    stage.remount(1)
    stage.restore()
    assert len(stage.names()) == 1


def test_a_sealed_vault_stops_it_and_it_goes_on(stage: Stage) -> None:
    """The step's own question is refused first."""
    stage.bao.seal()
    try:
        with pytest.raises(SecretStoreUnavailableError) as caught:
            stage.restore()
    finally:
        stage.bao.unseal()
    assert caught.value.exit_status == 5
    stage.check_untouched()
    stage.restore()
    assert len(stage.names()) == 1


def test_a_vault_that_the_host_alone_does_not_reach(stage: Stage, tmp_path: Path) -> None:
    """The tool's own words are shown."""
    good = stage.tools.config
    host = good.host("replica").model_copy(update={"vault_address": "https://127.0.0.1:1"})
    bad = good.model_copy(update={"hosts": {**good.hosts, "replica": host}})
    stage.tools = dataclasses.replace(stage.tools, config=bad)
    with pytest.raises(SecretStoreUnavailableError) as caught:
        stage.restore()
    assert "keyring_vault: CURL returned this error code: 7" in caught.value.message
    assert "can be reached from the recipient" in caught.value.hint
    stage.check_untouched()
    stage.tools = dataclasses.replace(stage.tools, config=good)
    stage.restore()
    assert len(stage.names()) == 1


def test_a_disk_that_was_full_when_the_key_was_stored(stage: Stage, tmp_path: Path) -> None:
    """The same step makes another; the first is nobody's then, and stays in the mount."""
    tool = tmp_path / "xtrabackup"
    kept = tool.read_text()
    tool.write_text(kept.replace("export ", "export XBSIM_FAIL=copy-back-disk-full "))
    with pytest.raises(CommandError) as caught:
        stage.restore()
    assert "OS errno 28" in caught.value.message
    (lost,) = stage.names()
    stage.check_untouched()
    tool.write_text(kept)
    stage.restore()
    names = key_names.need_names(stage.tools, "r1")
    assert len(names.new) == 1
    assert stage.names() == {lost} | {base64.b64decode(name).decode() for name in names.new}
    stage.check_untouched()


def test_a_token_that_may_not_write(stage: Stage) -> None:
    """Vault's refusal is told with what the token must be able to do."""
    token = stage.bao.request("POST", "auth/token/create", {"policies": ["default"]})
    stage.token_file.write_text(f"VAULT_TOKEN={token['auth']['client_token']}\n")
    with pytest.raises(SecretError) as caught:
        stage.restore()
    assert "permission denied" in caught.value.message
    assert "list, read, create and update in its own mount" in caught.value.hint
    assert caught.value.exit_status == 5
    stage.check_untouched()
    issue_token(stage.bao, stage.token_file)
    stage.restore()
    assert len(stage.names()) == 1


def test_a_ca_that_has_not_signed_vaults_certificate(bao: OpenBao, tmp_path: Path) -> None:
    """The recipient's file is wrong, while the orchestrator's is right."""
    other = make_ca(tmp_path)
    with make_stage(bao, tmp_path, version="8.0.35-34", ca_file=str(other)) as stage:
        with pytest.raises(SecretError) as caught:
            stage.restore()
        assert "CURL returned this error code: 60" in caught.value.message
        assert "trust the CA of Vault's certificate" in caught.value.hint
        stage.check_untouched()
        other.write_bytes(bao.ca_file.read_bytes())
        stage.restore()
        assert len(stage.names()) == 1


def test_a_token_with_a_quote_never_gets_into_a_file(stage: Stage) -> None:
    """The step is refused before anything is written for the tool."""
    stage.token_file.write_text("VAULT_TOKEN=s.a#b\n")
    with pytest.raises(SecretError, match="cannot stand in the configuration"):
        stage.restore()
    stage.check_untouched()


@pytest.mark.parametrize("kv_version", [1, 2])
def test_a_component_uses_either_version(bao: OpenBao, tmp_path: Path, kv_version: int) -> None:
    """It is told which, and says so where the mount is another; nothing is stored then."""
    keyring = {
        "kind": "component_keyring_vault",
        "config_file": "/etc/component_keyring_vault.cnf",
        "kv_version": kv_version,
    }
    with make_stage(bao, tmp_path, version="8.4.0-5", keyring=keyring) as stage:
        if kv_version == 2:
            stage.remount(1)
            with pytest.raises(PreconditionError) as caught:
                stage.restore()
            assert "Auto-detected mount point version" in caught.value.message
            stage.check_untouched()
            stage.remount(2)
        stage.restore()
        listed = bao.vault().list_secrets(MOUNT, kv_version=kv_version)
        assert key_names.need_names(stage.tools, "r1").new == set(listed)
        assert len(listed) == 1
        stage.check_untouched()
