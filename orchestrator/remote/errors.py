"""What the exceptions of the SSH library mean to us."""

from __future__ import annotations

import dataclasses

import paramiko
from paramiko import auth_strategy, ber, buffered_pipe, hostkeys, packet, sftp
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import (
    CouldNotCanonicalize,
    IncompatiblePeer,
    MessageOrderError,
    NoValidConnectionsError,
    PartialAuthentication,
    UnableToAuthenticate,
)

from orchestrator.errors import (
    ConfigError,
    HostKeyError,
    HostUnreachableError,
    OrchestratorError,
    RemoteError,
)
from orchestrator.remote.known_hosts import make_fingerprint


class UnusableKeyError(paramiko.SSHException):
    """A login key that could not be offered; it stays inside this package."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meaning:
    """What an exception of the SSH library means to us.

    Attributes:
        cls: The class that is raised instead.
        fact: The middle of the message.
        hint: What to do next.
    """

    cls: type[OrchestratorError]
    fact: str
    hint: str = ""


UNREACHABLE_HINT = "check that the host is up, its address, and that its sshd answers on the port"
_LOGIN_HINT = (
    "check the login and its authorized_keys on the host, and IdentityFile of `ssh -G HOST`"
)
_KEYS_HINT = "compare the key's fingerprint with the host's own before you change known_hosts"
SETTINGS_HINT = "check the ssh configuration with `ssh -G HOST`"

MEANINGS: dict[type[BaseException], Meaning] = {
    paramiko.SSHException: Meaning(
        cls=HostUnreachableError, fact="the connection failed", hint=UNREACHABLE_HINT
    ),
    paramiko.AuthenticationException: Meaning(
        cls=RemoteError, fact="the login was refused", hint=_LOGIN_HINT
    ),
    auth_strategy.AuthFailure: Meaning(
        cls=RemoteError, fact="no login key was taken", hint=_LOGIN_HINT
    ),
    UnableToAuthenticate: Meaning(cls=RemoteError, fact="the login was refused", hint=_LOGIN_HINT),
    paramiko.PasswordRequiredException: Meaning(
        cls=RemoteError,
        fact="a login key has a passphrase",
        hint="load the key into an SSH agent with `ssh-add`",
    ),
    paramiko.BadAuthenticationType: Meaning(
        cls=RemoteError,
        fact="the server takes no login by key",
        hint="set `PubkeyAuthentication yes` in the host's sshd_config",
    ),
    PartialAuthentication: Meaning(
        cls=RemoteError,
        fact="the server wants more than a key",
        hint="let this login in by key alone (AuthenticationMethods in the host's sshd_config)",
    ),
    paramiko.ChannelException: Meaning(
        cls=HostUnreachableError,
        fact="the server opened no channel",
        hint="check MaxSessions and AllowTcpForwarding in its sshd_config",
    ),
    paramiko.BadHostKeyException: Meaning(
        cls=HostKeyError, fact="the host key is not the known one", hint=_KEYS_HINT
    ),
    hostkeys.InvalidHostKey: Meaning(
        cls=HostKeyError, fact="a known_hosts line cannot be read", hint=_KEYS_HINT
    ),
    UnknownKeyType: Meaning(
        cls=RemoteError,
        fact="a key is of a type that is not supported",
        hint="use a key of type ed25519, ecdsa or rsa",
    ),
    IncompatiblePeer: Meaning(
        cls=RemoteError,
        fact="no algorithm is common to both sides",
        hint="check Ciphers, KexAlgorithms and HostKeyAlgorithms in the host's sshd_config",
    ),
    MessageOrderError: Meaning(
        cls=RemoteError,
        fact="messages came in a wrong order, somebody may be altering the connection",
        hint="find out what stands between this machine and the host",
    ),
    paramiko.ProxyCommandFailure: Meaning(
        cls=HostUnreachableError, fact="the ProxyCommand failed", hint=SETTINGS_HINT
    ),
    NoValidConnectionsError: Meaning(
        cls=HostUnreachableError, fact="nothing answers", hint=UNREACHABLE_HINT
    ),
    CouldNotCanonicalize: Meaning(
        cls=ConfigError, fact="the host name cannot be completed", hint=SETTINGS_HINT
    ),
    paramiko.ConfigParseError: Meaning(
        cls=ConfigError, fact="the ssh configuration cannot be read", hint=SETTINGS_HINT
    ),
    packet.NeedRekeyException: Meaning(
        cls=HostUnreachableError, fact="the key exchange did not end", hint=UNREACHABLE_HINT
    ),
    buffered_pipe.PipeTimeout: Meaning(
        cls=HostUnreachableError, fact="the server fell silent", hint=UNREACHABLE_HINT
    ),
    ber.BERException: Meaning(cls=RemoteError, fact="a key cannot be read", hint=_LOGIN_HINT),
    sftp.SFTPError: Meaning(cls=RemoteError, fact="a file could not be transferred"),
    EOFError: Meaning(
        cls=HostUnreachableError, fact="the server closed the connection", hint=UNREACHABLE_HINT
    ),
    OSError: Meaning(cls=HostUnreachableError, fact="the connection failed", hint=UNREACHABLE_HINT),
}
"""Every exception class of the library, one by one; a test looks for others."""

FAILURES = (
    paramiko.SSHException,
    hostkeys.InvalidHostKey,
    UnknownKeyType,
    packet.NeedRekeyException,
    ber.BERException,
    sftp.SFTPError,
    EOFError,
    OSError,
)
"""The base classes of all of them, for `except`."""


def translate(error: BaseException, *, host: str, login: str) -> OrchestratorError:
    """Return our error for one of the SSH library.

    Args:
        error: What the library raised.
        host: The host's name in the configuration.
        login: The SSH server that it is about, as `Hop.login` names it.
    """
    meaning = next(MEANINGS[cls] for cls in type(error).__mro__ if cls in MEANINGS)
    if isinstance(error, auth_strategy.AuthFailure):
        return _translate_login(error, meaning, host=host, login=login)
    if isinstance(error, paramiko.BadHostKeyException):
        shown, known = (make_fingerprint(key.asbytes()) for key in (error.key, error.expected_key))
        detail = f"it shows {shown}, known is {known}"
    elif isinstance(error, NoValidConnectionsError):
        # its own text begins with "[Errno None]", and names the address once more
        reasons = (str(getattr(e, "strerror", "") or e).lower() for e in error.errors.values())
        detail = ", ".join(sorted(set(reasons)))
    else:
        detail = str(error).strip().partition("\n")[0]
    fact = f"{login}: {meaning.fact}"
    return meaning.cls(f"{fact}: {detail}" if detail else fact, host=host, hint=meaning.hint)


def _translate_login(
    error: auth_strategy.AuthFailure, meaning: Meaning, *, host: str, login: str
) -> OrchestratorError:
    attempts = [(getattr(a.source, "shown", ""), a.result) for a in error.result]
    tried = "; ".join(
        f"{shown} ({str(result).partition(chr(10))[0].rstrip('.').lower()})"
        for shown, result in attempts
    )
    answers = [result for _, result in attempts if not isinstance(result, UnusableKeyError)]
    if answers and all("transport shut down" in str(a) or "timeout" in str(a) for a in answers):
        # not refused: the server went away, or was too slow, while the first key was looked at
        return HostUnreachableError(
            f"{login}: the connection ended during login", host=host, hint=UNREACHABLE_HINT
        )
    return meaning.cls(
        f"{login}: {meaning.fact}; tried {tried or 'none, for there is none'}",
        host=host,
        hint=meaning.hint,
    )
