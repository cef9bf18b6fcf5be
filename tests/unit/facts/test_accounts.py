"""Facts about accounts: who the client is, and what it may do everywhere."""

from __future__ import annotations

from fake_remote import Call, FakeRemote

from orchestrator.config import HostConfig, ServerConfig
from orchestrator.facts import accounts
from orchestrator.privileges.database import GRANT_OPTION
from orchestrator.remote import Result

SERVER = HostConfig(vault_mount="keys/db1", server=ServerConfig(defaults_file="/etc/mysql/x.cnf"))


def answer(*rows: str) -> Result:
    """Return what the client prints for rows."""
    return Result(status=0, stdout="".join(f"{row}\n" for row in rows).encode())


def make_remote(label: str, *privileges: str) -> FakeRemote:
    """Return a host whose client is logged in as an account with privileges."""

    def ask(call: Call) -> Result:
        statement = call.stdin.decode()
        if "USER_PRIVILEGES" in statement:
            return answer("name\tgrantable", *privileges)
        return answer("account", *([label.encode().hex()] if label else []))

    return FakeRemote(answers={("mariadb",): ask})


def test_an_account_has_what_it_was_granted_itself() -> None:
    """USAGE is nothing; the grant option holds for all of an account's privileges."""
    remote = make_remote("x@y@localhost", "SELECT\tNO", "SLAVE MONITOR\tNO")
    found = accounts.read_own_account(remote, SERVER)
    assert (found.user, found.host, found.label) == ("x@y", "localhost", "x@y@localhost")
    assert found.privileges == {"SELECT", "SLAVE MONITOR"}
    assert accounts.read_own_account(make_remote("a@%", "USAGE\tNO"), SERVER).privileges == set()
    granting = accounts.read_own_account(make_remote("a@%", "USAGE\tYES"), SERVER)
    assert granting.privileges == {GRANT_OPTION}


def test_an_account_that_is_not_there_has_no_host() -> None:
    """So that it can be told from one without privileges."""
    found = accounts.read_account(make_remote(""), SERVER, "nobody")
    assert (found.user, found.host, found.privileges) == ("nobody", "", frozenset())
    there = accounts.read_account(make_remote("nobody@%", "SELECT\tNO"), SERVER, "nobody")
    assert (there.host, there.privileges) == ("%", frozenset({"SELECT"}))


def test_names_reach_the_server_as_data() -> None:
    """Whatever is in them."""
    remote = make_remote("")
    accounts.read_account(remote, SERVER, "x'; DROP USER root; -- ")
    assert all(b"DROP" not in call.stdin for call in remote.calls)


def test_the_clients_user_is_asked_for_without_its_password() -> None:
    """The option file stays on the host; only the name comes back."""
    remote = FakeRemote(answers={("sh", "-c"): answer("xbvault_donor")})
    assert accounts.read_client_user(remote, SERVER) == "xbvault_donor"
    (call,) = remote.calls
    assert call.argv[5] == "/etc/mysql/x.cnf"
    assert "--user=" in call.argv[2]
