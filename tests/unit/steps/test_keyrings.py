"""A keyring in Vault: whether the new key is there, and which keys nobody needs any more."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, cast

import pytest
from engine_lab import make_plan
from fake_remote import FakeRemote
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import config as config_module
from orchestrator.errors import SecretError, VerificationError
from orchestrator.flavors.mysql_keyrings import stored_name
from orchestrator.remote import Result
from orchestrator.steps import forget, key_names, keyrings, records, restore
from orchestrator.steps.key_names import KeyNames, find_new_key, unneeded_names
from orchestrator.steps.registry import Tools

if TYPE_CHECKING:
    from fake_remote import Call

    from orchestrator.models import Plan, Secret

UUID = "2e0b5a5e-3f3d-11ec-9bbd-0242ac130003"
RUNS = tuple(f"2026112{n}T210500Z-replica-1d4e77c{n}" for n in range(4))
CONF = "/etc/mysql/keyring_vault.conf"
TOKEN = "hvs.tokenOfTheRecipientInTests"


def key(number: int) -> str:
    """Return the name of a master key in Vault."""
    return stored_name(f"INNODBKey-{UUID}-{number}")


def keys(*numbers: int) -> frozenset[str]:
    """Return the names of master keys in Vault."""
    return frozenset(map(key, numbers))


@pytest.mark.parametrize(
    ("before", "there", "said", "reused", "found"),
    [
        ((), (1,), f"{UUID}-1", "", (1,)),
        ((1,), (1, 2), f"{UUID}-2", "", (2,)),
        ((1,), (1, 2), "", "", (2,)),
        ((1,), (1,), f"{UUID}-1", "", (1,)),  # made again by an old tool: it takes the one there
        ((1,), (1,), "", f"{UUID}-1", (1,)),
        ((1,), (1, 2), "", f"{UUID}-1", (2,)),
        ((1,), (1,), f"{UUID}-2", "", ()),
        ((), (), f"{UUID}-1", "", ()),
        ((), (), "", "", ()),
        ((1,), (1,), "", "", ()),
        ((1,), (1,), "", f"{UUID}-2", ()),
        ((1,), (1, 3), f"{UUID}-2", "", ()),  # another appeared, and not the one that was said
    ],
)
def test_the_new_key_is_found_by_what_was_there_before(
    before: tuple[int, ...], there: tuple[int, ...], said: str, reused: str, found: tuple[int, ...]
) -> None:
    """By the tool's own name for it, or as what has appeared."""
    new = find_new_key(keys(*before), keys(*there), said=said, reused=reused)
    assert new == keys(*found)


NUMBERS = st.frozensets(st.integers(0, 8)).map(lambda found: keys(*found))
NAMES = st.builds(KeyNames, before=NUMBERS, new=NUMBERS, earlier=NUMBERS)


@given(NAMES, NAMES, st.lists(NAMES, max_size=3))
def test_no_key_that_is_needed_is_removed(
    mine: KeyNames, in_place: KeyNames, others: list[KeyNames]
) -> None:
    """Only what the given-up datadir may have needed, and nobody else does."""
    found = set(unneeded_names(mine, in_place, others))
    assert found <= mine.earlier
    assert not found & in_place.new
    for other in others:
        assert not found & other.earlier


def test_a_key_of_an_application_is_never_removed() -> None:
    """It goes with the data to the server in place, whoever has put it there."""
    application = stored_name("customer-42", "app@%")
    mine = KeyNames(before=frozenset(), earlier=frozenset({application, "odd/"}) | keys(1))
    assert unneeded_names(mine, KeyNames(before=frozenset()), []) == (key(1),)


class Mount:
    """A mount of Vault, and who asks for it."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = set(names)
        self.kv_version = 1
        self.is_denied = False
        self.address = "https://vault.example:8200"
        self.tokens: list[str] = []

    def list_secrets(self, mount: str, *, kv_version: int) -> tuple[str, ...]:
        """Return the names, if they are asked for in the mount's own form."""
        assert mount == "mysql/replica"
        return tuple(sorted(self.names)) if kv_version == self.kv_version else ()

    def read_kv_version(self, mount: str) -> int:
        """Return the version of the mount."""
        assert mount == "mysql/replica"
        return self.kv_version

    def with_token(self, token: Secret) -> Mount:
        """Return the same, asked with another token."""
        self.tokens.append(token.reveal())
        return self

    def remove_secret(self, mount: str, path: str, *, kv_version: int) -> None:
        """Remove a name; only a host's own token may."""
        assert (mount, kv_version) == ("mysql/replica", self.kv_version)
        assert self.tokens
        if self.is_denied:
            raise SecretError("Vault denies it")
        self.names.discard(path)


def make_recipient(**files: str) -> FakeRemote:
    """Return a recipient with its token; `test` looks at its files."""

    def test(call: Call) -> Result:
        content = remote.files.get(call.argv[2])
        is_so = content is not None and (call.argv[1] == "-e" or bool(content))
        return Result(status=0 if is_so else 1, stdout=b"", stderr="")

    def remove(call: Call) -> Result:
        for path in call.argv:
            remote.files.pop(path, None)
        return Result(status=0, stdout=b"", stderr="")

    remote = FakeRemote(
        "replica",
        files={"/etc/mysql/vault.env": f"VAULT_TOKEN={TOKEN}\n", **files},
        answers={("test",): test, ("rm",): remove},
    )
    for program in ("install", "chown", "chmod"):
        remote.answer(program)
    return remote


def make_tools(mount: Mount, remote: FakeRemote, keyring: dict[str, Any] | None = None) -> Tools:
    """Return the doors to a recipient with a keyring in Vault."""
    host = {
        "flavor": "mysql",
        "vault_mount": "mysql/replica",
        "vault_ca_file": "/etc/mysql/ca.pem",
        "keyring": keyring or {"kind": "keyring_vault", "config_file": CONF},
    }
    config = config_module.parse({"hosts": {"replica": host, "master": {"flavor": "mysql"}}})
    return Tools(
        config=config, vault=cast("Any", mount), donor=FakeRemote("master"), recipient=remote
    )


def make_run(run_id: str = RUNS[0], **changes: Any) -> Plan:
    """Return the plan of a clone to it."""
    fields = {
        "flavor": "mysql",
        "keyring": "keyring_vault",
        "server_version": "8.0.36",
        "tool_version": "8.0.35-34",
        "own_mount": "mysql/replica",
        "donor_mount": "",
        **changes,
    }
    return dataclasses.replace(make_plan(run_id), **fields)


def words(name: str) -> str:
    """Return what a tool says of a new key."""
    return f"xtrabackup: Generated new master key with ID '{name}'.\n"


def test_a_restore_ends_with_its_key_in_the_mount() -> None:
    """What was there before is written down, and the new name beside it."""
    mount, remote = Mount(keys(1)), make_recipient()
    tools, plan = make_tools(mount, remote), make_run()
    keyrings.prepare_target(tools, plan)
    target = keyrings.target_keyring(tools.config, plan)
    assert target.config == f"{plan.secret_dir}/keyring_vault.conf"
    assert remote.modes[target.config] == 0o600
    assert remote.files[target.config].decode() == (
        "vault_url = https://vault.example:8200\n"
        "secret_mount_point = mysql/replica\n"
        f"token = {TOKEN}\n"
        "vault_ca = /etc/mysql/ca.pem\n"
    )
    mount.names.add(key(2))
    key_names.need_new_key(tools, plan, words=words(f"{UUID}-2"), set_options={})
    assert key_names.read_names(tools, plan.run_id) == KeyNames(before=keys(1), new=keys(2))
    mount.names.add(key(3))  # of the earlier server, which runs still
    key_names.record_needed(tools, plan, has_data=True)
    assert key_names.need_names(tools, plan.run_id).earlier == keys(1, 3)
    key_names.record_needed(tools, plan, has_data=False)
    assert key_names.need_names(tools, plan.run_id).earlier == frozenset()
    stored = remote.files[f"{records.RUNS}/{plan.run_id}/{key_names.NAMES}"].decode()
    assert TOKEN not in stored
    assert json.loads(stored)["new"] == [key(2)]


def test_a_key_that_was_stored_nowhere_is_found_out() -> None:
    """The tool's success is not believed, and the reason is looked for."""
    mount, remote = Mount(keys(1)), make_recipient()
    tools, plan = make_tools(mount, remote), make_run()
    keyrings.prepare_target(tools, plan)
    mount.kv_version = 2
    with pytest.raises(VerificationError) as caught:
        key_names.need_new_key(tools, plan, words=words(f"{UUID}-2"), set_options={})
    assert f"new master key {UUID}-2 is not in mysql/replica" in caught.value.message
    assert "mysql/replica is KV version 2, not 1" in caught.value.hint
    assert "stores the key nowhere" in caught.value.hint
    mount.kv_version = 1
    with pytest.raises(VerificationError) as caught:
        key_names.need_new_key(tools, plan, words="Generated new master key", set_options={})
    assert "without a name" in caught.value.message
    assert "uses this mount" in caught.value.hint
    assert key_names.need_names(tools, plan.run_id).new == frozenset()


def test_a_key_that_an_old_tool_takes_again_counts() -> None:
    """It is called after the donor and its next number, and need not be new."""
    mount, remote = Mount(keys(1, 5)), make_recipient()
    tools, plan = make_tools(mount, remote), make_run(tool_version="2.4.29")
    options = {"server_uuid": UUID, "master_key_id": "4"}
    keyrings.prepare_target(tools, plan)
    key_names.need_new_key(tools, plan, words="", set_options=options)
    assert key_names.need_names(tools, plan.run_id).new == keys(5)
    newer = make_run()
    with pytest.raises(VerificationError):
        key_names.need_new_key(tools, newer, words="", set_options=options)


def test_without_what_was_there_before_nothing_is_concluded() -> None:
    """A run that has not written it down, or has written what cannot be read, is told so."""
    mount, remote = Mount(keys(1)), make_recipient()
    tools, plan = make_tools(mount, remote), make_run()
    assert key_names.read_names(tools, plan.run_id) is None
    with pytest.raises(VerificationError, match="has not written down"):
        key_names.need_new_key(tools, plan, words=words(f"{UUID}-1"), set_options={})
    for content in ("", "{}", "[]", '{"before": 1, "new": [], "earlier": []}', "[" * 9999):
        with pytest.raises(VerificationError):
            key_names.parse_names(content.encode())


def test_the_servers_configuration_is_written_and_given_back() -> None:
    """The earlier one is kept once, the new one is the server's alone, and undo gives it back."""
    mount, remote = Mount(keys(1)), make_recipient(**{CONF: "token = earlier"})
    tools, plan = make_tools(mount, remote), make_run()
    for _ in range(2):
        keyrings.write_server_config(tools, plan)
        assert f"token = {TOKEN}\n" in remote.files[CONF].decode()
        assert (remote.modes[CONF], remote.owners[CONF]) == (0o600, "mysql")
        assert remote.files[keyrings.kept_config_path(plan)] == b"token = earlier"
        assert remote.modes[keyrings.kept_config_path(plan)] == 0o600
    keyrings.restore_server_config(tools, plan)
    assert remote.files[CONF] == b"token = earlier"
    assert mount.names == keys(1)


def test_where_there_was_no_configuration_undo_removes_it() -> None:
    """And a run that has not come so far changes nothing."""
    mount, remote = Mount(keys(1)), make_recipient()
    tools, plan = make_tools(mount, remote), make_run()
    keyrings.restore_server_config(tools, plan)
    assert not remote.ran("rm")
    keyrings.write_server_config(tools, plan)
    assert CONF in remote.files
    keyrings.restore_server_config(tools, plan)
    assert CONF not in remote.files


def test_a_component_says_the_version_of_its_mount() -> None:
    """It would find out by itself only with a right that it need not have."""
    mount, remote = Mount(frozenset()), make_recipient()
    mount.kv_version = 2
    keyring = {"kind": "component_keyring_vault"}
    tools = make_tools(mount, remote, keyring)
    plan = make_run(keyring="component_keyring_vault", server_version="8.4.2")
    keyrings.prepare_target(tools, plan)
    target = keyrings.target_keyring(tools.config, plan)
    assert json.loads(remote.files[target.config])["secret_mount_point_version"] == "2"
    keyrings.finish_keyring(tools, plan, owner="mysql:mysql")
    path = f"{plan.new_datadir}/component_keyring_vault.cnf"
    assert (remote.modes[path], remote.owners[path]) == (0o600, "mysql:mysql")
    assert json.loads(remote.files[path])["token"] == TOKEN
    assert json.loads(remote.files[f"{plan.new_datadir}/mysqld.my"]) == {
        "components": "file://component_keyring_vault"
    }


def set_aside(remote: FakeRemote, plan: Plan, in_place: str, *others: str) -> None:
    """Let the datadir in place be of a run, and those of others be set aside."""
    remote.answer("ls", stdout="\n".join(RUNS))
    remote.answer("sh", "-c", restore.FIND_RUN, stdout=f"{in_place}\n")
    listed = "".join(f"{plan.datadir}.xbvault-old-{run_id}\n" for run_id in others)
    remote.answer("sh", stdout=listed)


def test_forget_removes_what_only_the_earlier_datadir_needed() -> None:
    """With the host's own token; the new key and what the server has made since stay."""
    mount, remote = Mount(keys(1, 2, 3, 4)), make_recipient()
    tools, plan = make_tools(mount, remote), make_run()
    names = KeyNames(before=keys(1), new=keys(3), earlier=keys(1, 2))
    key_names.write_names(tools, plan, names)
    set_aside(remote, plan, plan.run_id)
    done = forget.destroy_unused_key_versions(tools, plan)
    assert (done.names, done.kept_because) == ((key(1), key(2)), "")
    assert mount.names == keys(3, 4)
    assert mount.tokens == [TOKEN]
    assert forget.destroy_unused_key_versions(tools, plan).names == ()


def test_forget_in_either_order_leaves_what_is_needed() -> None:
    """Two runs, one after the other: what the first found goes with the last of both datadirs."""
    first, second = make_run(RUNS[0]), make_run(RUNS[1])
    for order in ((first, second), (second, first)):
        mount, remote = Mount(keys(1, 2, 3, 4)), make_recipient()
        tools = make_tools(mount, remote)
        kept = {
            first.run_id: KeyNames(before=keys(1), new=keys(2), earlier=keys(1)),
            # the server of the first has made the third meanwhile
            second.run_id: KeyNames(before=keys(1, 2, 3), new=keys(4), earlier=keys(1, 2, 3)),
        }
        key_names.write_names(tools, first, kept[first.run_id])
        key_names.write_names(tools, second, kept[second.run_id])
        set_aside(remote, first, second.run_id, order[1].run_id)
        forget.destroy_unused_key_versions(tools, order[0])
        assert kept[order[1].run_id].earlier | keys(4) <= mount.names
        set_aside(remote, first, second.run_id)
        forget.destroy_unused_key_versions(tools, order[1])
        assert mount.names == keys(4)


def test_forget_keeps_the_keys_where_it_cannot_tell() -> None:
    """And says why."""
    mount, remote = Mount(keys(1, 2)), make_recipient()
    tools, plan = make_tools(mount, remote), make_run(RUNS[1])
    names = KeyNames(before=keys(1), new=keys(2), earlier=keys(1))
    set_aside(remote, plan, plan.run_id)
    assert "has not written down" in forget.destroy_unused_key_versions(tools, plan).kept_because
    key_names.write_names(tools, plan, names)
    set_aside(remote, plan, "nobody")
    assert "not of a run" in forget.destroy_unused_key_versions(tools, plan).kept_because
    key_names.write_names(tools, make_run(RUNS[0]), names)
    set_aside(remote, plan, RUNS[0])  # somebody has put an older one back
    assert "not of a run" in forget.destroy_unused_key_versions(tools, plan).kept_because
    set_aside(remote, plan, plan.run_id, RUNS[3])
    assert "does not say" in forget.destroy_unused_key_versions(tools, plan).kept_because
    on_file = make_run(RUNS[1], keyring="component_keyring_file")
    assert "a file" in forget.destroy_unused_key_versions(tools, on_file).kept_because
    assert mount.names == keys(1, 2)
    assert mount.tokens == []


def test_a_refusal_of_vault_ends_forget() -> None:
    """The next attempt goes on."""
    mount, remote = Mount(keys(1, 2)), make_recipient()
    tools, plan = make_tools(mount, remote), make_run()
    names = KeyNames(before=keys(1), new=keys(2), earlier=keys(1))
    key_names.write_names(tools, plan, names)
    set_aside(remote, plan, plan.run_id)
    mount.is_denied = True
    with pytest.raises(SecretError):
        forget.destroy_unused_key_versions(tools, plan)
    mount.is_denied = False
    assert forget.destroy_unused_key_versions(tools, plan).names == (key(1),)
