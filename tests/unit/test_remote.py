"""The pure parts of the door to hosts: messages, errors, and the scripts that it sends."""

from __future__ import annotations

import base64
import importlib
import inspect
import pkgutil
import subprocess
from typing import TYPE_CHECKING

import paramiko
import pytest
from paramiko import auth_strategy
from paramiko.ssh_exception import NoValidConnectionsError

from orchestrator import remote
from orchestrator.errors import (
    ConfigError,
    HostKeyError,
    HostUnreachableError,
    OrchestratorError,
    PreconditionError,
    RemoteError,
)
from orchestrator.hops import Hop
from orchestrator.known_hosts import parse_known_hosts
from orchestrator.models import Secret
from orchestrator.remote import Meaning, Result

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIPjNLI4Y+QCXr020kfTxF+KP1/JScAf2n2F03DGbn97V"
OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAICUEvp7lhGPWZjZPHA3otCCCA2Oclo7kccMwGTQgEaaJ"
LOGIN = "root@192.0.2.1 port 22"
HOP = Hop(name="db1", address="192.0.2.1", port=22, user="root", known_hosts_files=("/kh",))

ARGUMENTS: dict[str, tuple[object, ...]] = {
    "BadAuthenticationType": ("no keys", ["password"]),
    "PartialAuthentication": (["password"],),
    "ChannelException": (1, "administratively prohibited"),
    "BadHostKeyException": (
        "db1",
        paramiko.Ed25519Key(data=base64.b64decode(KEY)),
        paramiko.Ed25519Key(data=base64.b64decode(OTHER)),
    ),
    "ProxyCommandFailure": ("nc", "exit 1"),
    "NoValidConnectionsError": ({("192.0.2.1", 22): OSError("refused")},),
    "InvalidHostKey": ("line", "why"),
    "AuthFailure": ([],),
    "UnknownKeyType": ("ssh-dss", b""),
}


def list_library_errors() -> list[type[BaseException]]:
    """Return every exception class that the SSH library defines."""
    found: set[type[BaseException]] = set()
    for module in pkgutil.iter_modules(paramiko.__path__):
        # two modules are for Windows alone
        if module.name in ("_winapi", "win_pageant", "win_openssh"):
            continue
        members = vars(importlib.import_module(f"paramiko.{module.name}")).values()
        found |= {
            member
            for member in members
            if inspect.isclass(member)
            and issubclass(member, BaseException)
            and member.__module__.startswith("paramiko")
        }
    return sorted(found, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", list_library_errors(), ids=lambda cls: cls.__name__)
def test_every_error_of_the_library_is_mapped(cls: type[BaseException]) -> None:
    """Each class of paramiko has a meaning of its own, is caught, and says which login it was."""
    assert cls in remote.MEANINGS
    assert issubclass(cls, remote.FAILURES)
    make: Callable[..., BaseException] = cls
    error = translate(make(*ARGUMENTS.get(cls.__name__, ("what happened",))))
    assert type(error) is remote.MEANINGS[cls].cls
    assert isinstance(error, RemoteError | ConfigError)
    assert error.message.startswith(f"{LOGIN}: {remote.MEANINGS[cls].fact}")
    assert error.host == "db1"
    assert "\n" not in error.message


def translate(error: BaseException) -> OrchestratorError:
    """Translate with the names that all tests use."""
    return remote.translate(error, host="db1", login=LOGIN)


def test_only_unreachable_hosts_are_transient() -> None:
    """Nothing but a failed connection is worth another attempt."""
    assert all(issubclass(base, Exception) for base in remote.FAILURES)
    for cls, meaning in remote.MEANINGS.items():
        assert isinstance(meaning, Meaning)
        assert meaning.cls.transient == (meaning.cls is HostUnreachableError), cls


@pytest.mark.parametrize(
    ("error", "cls", "message"),
    [
        (ConnectionResetError(104, "reset"), HostUnreachableError, "the connection failed: [Errno"),
        (TimeoutError("timed out"), HostUnreachableError, "the connection failed: timed out"),
        (EOFError(), HostUnreachableError, "the server closed the connection"),
        (
            NoValidConnectionsError({("192.0.2.1", 22): OSError("refused")}),
            HostUnreachableError,
            "nothing answers: [Errno None] Unable to connect to port 22 on 192.0.2.1",
        ),
    ],
)
def test_errors_of_sockets(error: Exception, cls: type[RemoteError], message: str) -> None:
    """Errors of the operating system are connections that failed."""
    found = translate(error)
    assert type(found) is cls
    assert found.message.startswith(f"{LOGIN}: {message}")


def make_failure(*results: Exception) -> auth_strategy.AuthFailure:
    """Return a login that failed with one key for each result."""
    strategy = remote._LoginKeys(HOP)
    failure = auth_strategy.AuthResult(strategy)
    for number, result in enumerate(results):
        source = remote._LoginKey("root", f"key{number}", paramiko.Ed25519Key)
        failure.append(auth_strategy.SourceResult(source, result))
    return auth_strategy.AuthFailure(failure)


def test_refused_keys_are_listed() -> None:
    """A refused login names each key, and what became of it."""
    refused = paramiko.AuthenticationException("Authentication failed.")
    closed = paramiko.AuthenticationException(
        "Authentication failed: transport shut down or saw EOF"
    )
    error = translate(make_failure(remote.UnusableKeyError("has a passphrase"), refused, closed))
    assert type(error) is RemoteError
    assert "tried key0 (has a passphrase); key1 (authentication failed); key2 (" in error.message


def test_server_that_goes_away_during_login_is_unreachable() -> None:
    """A connection that ends before any key was refused is worth another attempt."""
    for said in (
        "Authentication failed: transport shut down or saw EOF",
        "Authentication timeout.",
    ):
        assert translate(make_failure(paramiko.AuthenticationException(said))).transient
    assert not translate(make_failure(remote.UnusableKeyError("broken"))).transient


def test_host_keys_by_verdict() -> None:
    """Known passes; unknown, changed and revoked are told apart, and never transient."""
    blob = base64.b64decode(KEY)

    def check(text: str) -> None:
        remote.check_host_key("db1", HOP, parse_known_hosts(text), "ssh-ed25519", blob)

    check(f"192.0.2.1 ssh-ed25519 {KEY}")
    for text, words in (
        ("", "is unknown: it shows the ssh-ed25519 key SHA256:"),
        (f"192.0.2.1 ssh-ed25519 {OTHER}", "has changed: it shows the ssh-ed25519 key SHA256:"),
        (f"@revoked * ssh-ed25519 {KEY}", "which known_hosts:1 revokes"),
    ):
        with pytest.raises(HostKeyError, match=words) as caught:
            check(text)
        assert not caught.value.transient
        assert caught.value.hint


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["id"], "id"),
        (["ls", "-l", "/a b"], "ls -l '/a b'"),
        (["a", "b", "c", "d", "e"], "a b c …"),
        (["sh", "-c", "\nset -eu\nsecond line"], "sh -c 'set -eu…'"),
        (["cat", "x" * 500], f"cat '{'x' * 120}…'"),
    ],
)
def test_commands_are_shown_short(argv: list[str], shown: str) -> None:
    """A message shows the program and the beginning of its first arguments."""
    assert remote.show_command(argv) == shown


def test_secrets_are_not_shown() -> None:
    """A secret that stood in an argument by mistake is masked in messages."""
    secret = Secret("by-mistake-here")
    assert remote.show_command(["mariadb", f"-p{secret.reveal()}"]) == "mariadb -p***"


def test_error_keeps_the_end_of_stderr() -> None:
    """The error carries the last lines of stderr, and its message the very last."""
    stderr = "".join(f"line {number}\n" for number in range(100))
    error = remote.make_command_error(["tool"], Result(status=2, stderr=stderr), "db1")
    assert error.message == "tool on db1 ended with status 2: line 99"
    assert error.stderr.splitlines() == [f"line {number}" for number in range(60, 100)]
    error = remote.make_command_error(["tool"], Result(status=2, stderr="x" * 9000), "db1")
    assert len(error.stderr) == 4000
    assert remote.make_command_error(["tool"], Result(status=2), "db1").message == (
        "tool on db1 ended with status 2"
    )


def test_environment_file() -> None:
    """Names and values are read as systemd does: comments, spaces and quotes around values."""
    text = "#A=1\n;B=2\n C = 3 \nD=\"a 'b' = c\"\nE='x\"'\nF=\nno equals\nG='\nH=\"a'\n"
    assert remote.parse_environment_file(text) == {
        "C": "3",
        "D": "a 'b' = c",
        "E": 'x"',
        "F": "",
        "G": "'",
        "H": "\"a'",
    }


def test_empty_value_is_no_secret() -> None:
    """A name without a value is as good as missing."""
    with pytest.raises(PreconditionError, match="no TOKEN in /env") as caught:
        remote.find_secret(b"TOKEN=\n", "/env", "TOKEN", "db1")
    assert caught.value.host == "db1"


def test_unusable_login_keys(tmp_path: Path) -> None:
    """A key that cannot be read, or has a passphrase, says so."""
    (tmp_path / "broken").write_text("not a key")
    with pytest.raises(remote.UnusableKeyError, match="cannot be used"):
        remote.load_key(str(tmp_path / "broken"))
    for kind, options in (("ed25519", []), ("rsa", ["-m", "PEM"])):
        path = tmp_path / kind
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, *options, "-N", "secret words", "-f", str(path)],
            check=True,
        )
        with pytest.raises(remote.UnusableKeyError, match="has a passphrase"):
            remote.load_key(str(path))


def write(path: Path, content: bytes, *, size: int) -> subprocess.CompletedProcess[bytes]:
    """Run the script that writes files, as a host would."""
    values = [str(path), str(path.parent), "0600", "", str(size)]
    return subprocess.run(
        ["sh", "-c", remote._WRITE_SCRIPT, "sh", *values],
        input=content,
        capture_output=True,
        check=False,
    )


def test_content_that_was_cut_off_is_not_put_in_place(tmp_path: Path) -> None:
    """A connection that breaks in the middle leaves the old content and no temporary file."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    ended = write(path, b"only a pa", size=20)
    assert (ended.returncode, ended.stderr) == (65, b"the content was cut off\n")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert write(path, b"new", size=3).returncode == 0
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_is_replaced(tmp_path: Path) -> None:
    """A symbolic link is replaced by the file; what it pointed to stays as it is."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    assert write(link, b"new", size=3).returncode == 0
    assert not link.is_symlink()
    assert (link.read_bytes(), target.read_bytes()) == (b"new", b"old")
