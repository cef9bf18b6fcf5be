"""Every error of the SSH library becomes one of ours."""

from __future__ import annotations

import base64
import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING

import paramiko
import pytest
from paramiko import auth_strategy
from paramiko.ssh_exception import NoValidConnectionsError

from orchestrator.errors import (
    ConfigError,
    HostUnreachableError,
    OrchestratorError,
    RemoteError,
)
from orchestrator.remote import errors
from orchestrator.remote.errors import FAILURES, MEANINGS, Meaning, UnusableKeyError
from orchestrator.remote.hops import Hop
from orchestrator.remote.login import LoginKey, LoginKeys

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIPjNLI4Y+QCXr020kfTxF+KP1/JScAf2n2F03DGbn97V"
OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAICUEvp7lhGPWZjZPHA3otCCCA2Oclo7kccMwGTQgEaaJ"
LOGIN = "root@192.0.2.1 port 22"
HOP = Hop(name="db1", address="192.0.2.1", port=22, user="root")

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
    assert cls in MEANINGS
    assert issubclass(cls, FAILURES)
    make: Callable[..., BaseException] = cls
    error = translate(make(*ARGUMENTS.get(cls.__name__, ("what happened",))))
    assert type(error) is MEANINGS[cls].cls
    assert isinstance(error, RemoteError | ConfigError)
    assert error.message.startswith(f"{LOGIN}: {MEANINGS[cls].fact}")
    assert error.host == "db1"
    assert "\n" not in error.message


def translate(error: BaseException) -> OrchestratorError:
    """Translate with the names that all tests use."""
    return errors.translate(error, host="db1", login=LOGIN)


def test_only_unreachable_hosts_are_transient() -> None:
    """Nothing but a failed connection is worth another attempt."""
    assert all(issubclass(base, Exception) for base in FAILURES)
    for cls, meaning in MEANINGS.items():
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
            "nothing answers: refused",
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
    strategy = LoginKeys(HOP)
    failure = auth_strategy.AuthResult(strategy)
    for number, result in enumerate(results):
        source = LoginKey("root", f"key{number}", paramiko.Ed25519Key)
        failure.append(auth_strategy.SourceResult(source, result))
    return auth_strategy.AuthFailure(failure)


def test_refused_keys_are_listed() -> None:
    """A refused login names each key, and what became of it."""
    refused = paramiko.AuthenticationException("Authentication failed.")
    closed = paramiko.AuthenticationException(
        "Authentication failed: transport shut down or saw EOF"
    )
    error = translate(make_failure(UnusableKeyError("has a passphrase"), refused, closed))
    assert type(error) is RemoteError
    assert "tried key0 (has a passphrase); key1 (authentication failed); key2 (" in error.message


def test_server_that_goes_away_during_login_is_unreachable() -> None:
    """A connection that ends before any key was refused is worth another attempt."""
    for said in (
        "Authentication failed: transport shut down or saw EOF",
        "Authentication timeout.",
    ):
        assert translate(make_failure(paramiko.AuthenticationException(said))).transient
    assert not translate(make_failure(UnusableKeyError("broken"))).transient
