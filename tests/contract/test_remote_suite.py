"""The double of a host passes the suite of the real one (integration/test_remote_sshd.py)."""

from __future__ import annotations

import pytest
from fake_remote import Call, FakeRemote, UnexpectedCommandError
from remote_suite import FAIL, LEAK, RemoteSuite

from orchestrator.errors import CommandError, HostUnreachableError
from orchestrator.remote import Result


def make_host() -> FakeRemote:
    """Return a fake host with the commands that the suite runs."""
    host = FakeRemote("db1")

    def write_arguments(call: Call) -> Result:
        end = "\0" if call.argv[1].endswith(r"\0") else ""
        return Result(status=0, stdout="".join(a + end for a in call.argv[2:]).encode())

    def read_mode(call: Call) -> Result:
        return Result(status=0, stdout=f"{host.modes[call.argv[3]]:o}\n".encode())

    host.answers[("printf",)] = write_arguments
    host.answers[("cat",)] = lambda call: Result(status=0, stdout=call.stdin)
    host.answers[("stat", "-c", "%a")] = read_mode
    host.answer("sh", "-c", FAIL, status=3, stderr="first\ndisk is full\n")
    host.answers[("sh", "-c", LEAK)] = lambda call: Result(status=1, stderr=call.stdin.decode())
    return host


class TestFakeRemote(RemoteSuite):
    """The suite, on the double."""

    @pytest.fixture
    def remote(self) -> FakeRemote:
        """A fake host."""
        return make_host()

    @pytest.fixture
    def folder(self) -> str:
        """A folder on it."""
        return "/var/lib/test"


def test_unexpected_command_raises() -> None:
    """A command without an answer fails the test, even where errors of ours are caught."""
    host = FakeRemote("db1")
    host.answer("systemctl", "start")
    with pytest.raises(UnexpectedCommandError, match=r"no answer for .*'stop'"):
        host.run(["systemctl", "stop", "mariadb"], check=False)


def test_longest_beginning_answers() -> None:
    """The answer for the longest beginning wins; exceptions are raised."""
    host = FakeRemote("db1")
    host.answer("stat", stdout="any")
    host.answer("stat", "-c", "%a", stdout="600")
    host.answers[("cat",)] = CommandError("cut", host="db1")
    assert host.run(["stat", "/x"]).text == "any"
    assert host.run(["stat", "-c", "%a", "/x"]).text == "600"
    with pytest.raises(CommandError, match="cut"):
        host.run(["cat"], check=False)
    assert [call.argv for call in host.ran("stat")] == [("stat", "/x"), ("stat", "-c", "%a", "/x")]


def test_fake_host_can_be_down() -> None:
    """A fake host that is down is unreachable for every use."""
    host = FakeRemote("db1", files={"/a": "x"})
    host.is_unreachable = True
    for use in (
        lambda: host.run(["true"]),
        lambda: host.read_file("/a"),
        lambda: host.host_key_lines(["a"]),
    ):
        with pytest.raises(HostUnreachableError):
            use()
