"""The only module that reaches a host: commands and files, over SSH.

`hops` says which SSH servers lead there; fabric and paramiko connect, and host keys are always
checked. Commands are argument lists and run on channels of one connection, from any number of
threads.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import functools
import logging
import os
import posixpath
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import fabric
import paramiko
import tenacity
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

from orchestrator import hops, known_hosts, log
from orchestrator.errors import (
    CommandError,
    ConfigError,
    HostKeyError,
    HostUnreachableError,
    OrchestratorError,
    PreconditionError,
    RemoteError,
)
from orchestrator.models import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from orchestrator.config import HostConfig, SshConfig
    from orchestrator.hops import Hop

KEEPALIVE_SECONDS = 15
DEAD_AFTER_SECONDS = 45
"""Unanswered data older than this ends a connection (TCP_USER_TIMEOUT)."""
CHANNEL_SECONDS = 30
LOGIN_SECONDS = 30
CONNECT_ATTEMPTS = 3
CONNECT_SECONDS = 5
"""No further attempt to connect begins after this."""
_KILL_AFTER_SECONDS = 3
"""Between SIGTERM and SIGKILL to a command whose time is up."""
_GRACE_SECONDS = 10
_TIMED_OUT = 124
"""Exit status of timeout(1) when the time was up."""
_KILLED = 137
_CHUNK_BYTES = 1 << 18
_TAIL_LINES = 40
_TAIL_CHARACTERS = 4000
_SHOWN_ARGUMENTS = 3
_SHOWN_CHARACTERS = 120
_NO_FILE = 66
"""EX_NOINPUT of sysexits.h."""

_READ_SCRIPT = f'[ -f "$1" ] || exit {_NO_FILE}; exec cat -- "$1"'

# The size is checked before the rename: a connection that breaks looks like the end of the input.
_WRITE_SCRIPT = """
set -eu
umask 077
path=$1 directory=$2 mode=$3 owner=$4 size=$5
temporary=$(mktemp -- "$directory/.xbvault.XXXXXXXXXX")
trap 'rm -f -- "$temporary"' EXIT
trap 'exit 1' HUP INT TERM PIPE
cat > "$temporary"
if [ "$(wc -c < "$temporary")" -ne "$size" ]; then
    echo "the content was cut off" >&2
    exit 65
fi
if [ -n "$owner" ]; then chown -- "$owner" "$temporary"; fi
chmod -- "$mode" "$temporary"
sync -- "$temporary"
mv -f -T -- "$temporary" "$path"
trap - EXIT
sync -- "$directory"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """How a command ended.

    Attributes:
        status: Its exit status.
        stdout: What it wrote, as bytes.
        stderr: What it complained about.
    """

    status: int
    stdout: bytes = b""
    stderr: str = ""

    @property
    def text(self) -> str:
        """The standard output as text; what is not UTF-8 is replaced."""
        return self.stdout.decode("utf-8", errors="replace")


class Remote(Protocol):
    """The door to one host.

    Attributes:
        name: The host's name in the configuration.
    """

    @property
    def name(self) -> str:
        """The host's name in the configuration."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | Secret = b"",
        check: bool = True,
        timeout_seconds: float = 60.0,
    ) -> Result:
        """Run a command and wait for its end.

        Args:
            argv: Program and arguments; each arrives as it is, whatever it holds. The builtins
                of a shell are no programs; one that is not there gives status 127.
            stdin: What the command reads; the place for secrets.
            check: Raise when the exit status is not 0.
            timeout_seconds: Longest time that it may take; then the host itself ends it.

        Raises:
            HostUnreachableError: The command did not start; trying again is safe.
            HostKeyError: The host's key is not the known one.
            RemoteError: The login was refused.
            PreconditionError: The login may not become root.
            CommandError: It failed and `check` is set; or, with status None, it was killed, took
                too long, or the connection broke, so that nobody knows what it has done.
        """

    def read_file(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            PreconditionError: There is no such file.
        """

    def read_secret(self, path: str, name: str = "") -> Secret:
        """Return a file's content, stripped, as a secret.

        Args:
            path: The file.
            name: Take only the value of this name; the file is a systemd EnvironmentFile.

        Raises:
            PreconditionError: There is no such file, or no such name in it.
        """

    def write_file(
        self, path: str, content: str | bytes | Secret, *, mode: int = 0o600, owner: str = ""
    ) -> None:
        """Write a file whole: another process sees the old content or the new one.

        A symbolic link is replaced by a file.

        Args:
            path: The file; its directory must be there.
            content: The new content; it travels by stdin.
            mode: Permissions.
            owner: ``user`` or ``user:group``; else the one who writes.

        Raises:
            CommandError: It was not written; the old content stands.
        """

    def host_key_lines(self, addresses: Sequence[str]) -> list[str]:
        """Return known_hosts lines of the addresses with the key that was verified here."""

    def close(self) -> None:
        """Close the connection; the next use opens another one."""


def parse_environment_file(text: str) -> dict[str, str]:
    """Return the names and values of a systemd EnvironmentFile; quotes around a value go."""
    values = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith(("#", ";")):
            continue
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip()] = value
    return values


def find_secret(content: bytes, path: str, name: str, host: str) -> Secret:
    """Return a file's content as a secret, or the value of one name in it; see `Remote`.

    Raises:
        PreconditionError: The file is empty, or has no such name.
    """
    text = content.decode("utf-8", errors="replace")
    value = parse_environment_file(text).get(name, "") if name else text.strip()
    if not value:
        missing = f"no {name} in {path}" if name else f"{path} is empty"
        raise PreconditionError(missing, host=host)
    return Secret(value)


def as_bytes(content: str | bytes | Secret) -> bytes:
    """Return what is sent to a host, as bytes."""
    if isinstance(content, Secret):
        content = content.reveal()
    return content.encode() if isinstance(content, str) else content


def show_command(argv: Sequence[str]) -> str:
    """Return a command short enough for a message: the program and its first arguments."""
    words = []
    for argument in argv[:_SHOWN_ARGUMENTS]:
        first, _, rest = argument.strip().partition("\n")
        cut = rest or len(first) > _SHOWN_CHARACTERS
        words.append(shlex.quote(f"{first[:_SHOWN_CHARACTERS]}…" if cut else first))
    more = " …" if len(argv) > _SHOWN_ARGUMENTS else ""
    return log.redact_text(" ".join(words) + more)


def make_command_error(argv: Sequence[str], result: Result, host: str) -> CommandError:
    """Return the error for a command that ended with another exit status than 0."""
    tail = "\n".join(result.stderr.strip().splitlines()[-_TAIL_LINES:])[-_TAIL_CHARACTERS:]
    tail = log.redact_text(tail)
    last = tail.rpartition("\n")[2].strip()
    message = f"{show_command(argv)} on {host} ended with status {result.status}"
    return CommandError(
        f"{message}: {last}" if last else message, host=host, status=result.status, stderr=tail
    )


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


_UNREACHABLE = "check that the host is up, its address, and that its sshd answers on the port"
_LOGIN = "check the login and its authorized_keys on the host, and IdentityFile of `ssh -G HOST`"
_KEYS = "compare the key's fingerprint with the host's own before you change known_hosts"
_SETTINGS = "check the ssh configuration with `ssh -G HOST`"

MEANINGS: dict[type[BaseException], Meaning] = {
    paramiko.SSHException: Meaning(
        cls=HostUnreachableError, fact="the connection failed", hint=_UNREACHABLE
    ),
    paramiko.AuthenticationException: Meaning(
        cls=RemoteError, fact="the login was refused", hint=_LOGIN
    ),
    auth_strategy.AuthFailure: Meaning(cls=RemoteError, fact="no login key was taken", hint=_LOGIN),
    UnableToAuthenticate: Meaning(cls=RemoteError, fact="the login was refused", hint=_LOGIN),
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
        cls=HostKeyError, fact="the host key is not the known one", hint=_KEYS
    ),
    hostkeys.InvalidHostKey: Meaning(
        cls=HostKeyError, fact="a known_hosts line cannot be read", hint=_KEYS
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
        cls=HostUnreachableError, fact="the ProxyCommand failed", hint=_SETTINGS
    ),
    NoValidConnectionsError: Meaning(
        cls=HostUnreachableError, fact="nothing answers", hint=_UNREACHABLE
    ),
    CouldNotCanonicalize: Meaning(
        cls=ConfigError, fact="the host name cannot be completed", hint=_SETTINGS
    ),
    paramiko.ConfigParseError: Meaning(
        cls=ConfigError, fact="the ssh configuration cannot be read", hint=_SETTINGS
    ),
    packet.NeedRekeyException: Meaning(
        cls=HostUnreachableError, fact="the key exchange did not end", hint=_UNREACHABLE
    ),
    buffered_pipe.PipeTimeout: Meaning(
        cls=HostUnreachableError, fact="the server fell silent", hint=_UNREACHABLE
    ),
    ber.BERException: Meaning(cls=RemoteError, fact="a key cannot be read", hint=_LOGIN),
    sftp.SFTPError: Meaning(cls=RemoteError, fact="a file could not be transferred"),
    EOFError: Meaning(
        cls=HostUnreachableError, fact="the server closed the connection", hint=_UNREACHABLE
    ),
    OSError: Meaning(cls=HostUnreachableError, fact="the connection failed", hint=_UNREACHABLE),
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
        shown, known = (
            known_hosts.make_fingerprint(key.asbytes()) for key in (error.key, error.expected_key)
        )
        detail = f"it shows {shown}, known is {known}"
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
            f"{login}: the connection ended during login", host=host, hint=_UNREACHABLE
        )
    return meaning.cls(
        f"{login}: {meaning.fact}; tried {tried or 'none, for there is none'}",
        host=host,
        hint=meaning.hint,
    )


class UnusableKeyError(paramiko.SSHException):
    """A login key that could not be offered; it stays inside this module."""


class _LoginKey(auth_strategy.AuthSource):
    """One key to log in with.

    Args:
        user: The login.
        shown: The key as messages name it.
        load: Returns the key.
    """

    def __init__(self, user: str, shown: str, load: Callable[[], paramiko.PKey]) -> None:
        super().__init__(user)
        self.shown = shown
        self._load = load

    def authenticate(self, transport: paramiko.Transport) -> list[str]:
        """Offer the key; a server that wants a further factor has not let us in."""
        key = self._load()
        self.shown += f" {known_hosts.make_fingerprint(key.asbytes())}"
        rest = transport.auth_publickey(self.username, key)
        if rest:
            raise PartialAuthentication(rest)
        return rest


class _LoginKeys(auth_strategy.AuthStrategy):
    """The keys to log in with: identity files with their certificates, then the agent's."""

    def __init__(self, hop: Hop) -> None:
        super().__init__(paramiko.SSHConfig())
        self._hop = hop
        self._agent: paramiko.Agent | None = None

    def authenticate(self, transport: paramiko.Transport) -> list[auth_strategy.SourceResult]:
        """Try one key after the other."""
        try:
            return super().authenticate(transport)
        finally:
            if self._agent is not None:
                self._agent.close()

    def get_sources(self) -> Iterator[auth_strategy.AuthSource]:
        """Yield the keys, a certificate before the bare key that it belongs to."""
        hop = self._hop
        for path in hop.identity_files:
            beside = f"{path}-cert.pub"
            certificates = [*hop.certificate_files, *([beside] if Path(beside).is_file() else [])]
            for certificate in dict.fromkeys(certificates):
                yield self._make_source(path, certificate)
            yield self._make_source(path, "")
        if not hop.has_agent:
            return
        self._agent = paramiko.Agent()
        wanted = {_read_public_blob(path) for path in (*hop.identity_files, *hop.missing_files)}
        for key in self._agent.get_keys():
            if not hop.identities_only or key.asbytes() in wanted:
                shown = f"agent key {key.comment}".strip()
                yield _LoginKey(hop.user, shown, functools.partial(_return_key, key))

    def _make_source(self, path: str, certificate: str) -> _LoginKey:
        shown = f"{path} with {certificate}" if certificate else path
        return _LoginKey(self._hop.user, shown, lambda: load_key(path, certificate))


def load_key(path: str, certificate: str = "") -> paramiko.PKey:
    """Read a private key, and the certificate that is to be shown with it.

    Raises:
        UnusableKeyError: It cannot be read, or has a passphrase.
    """
    try:
        key = paramiko.PKey.from_path(path)
        # from_path takes up a certificate beside the key by itself
        key.public_blob = None
        if certificate:
            key.load_certificate(certificate)
    # cryptography says with a TypeError or ValueError that a passphrase is missing
    except (*FAILURES, TypeError, ValueError) as error:
        needs = "password" in str(error).lower() or isinstance(error, TypeError)
        raise UnusableKeyError(
            "has a passphrase, load it with ssh-add" if needs else f"cannot be used: {error}"
        ) from error
    return key


def _return_key(key: paramiko.PKey) -> paramiko.PKey:
    return key


def _read_public_blob(path: str) -> bytes:
    with contextlib.suppress(OSError, IndexError, binascii.Error, UnicodeDecodeError):
        return base64.b64decode(Path(f"{path}.pub").read_text(encoding="utf-8").split()[1])
    return b""


class _KnownHostsPolicy(paramiko.MissingHostKeyPolicy):
    """Checks the host's key by our own reading of known_hosts.

    The client's own list is left empty, so that paramiko asks this policy about every key.

    Args:
        host: The host's name in the configuration.
        hop: The server whose key is checked.
        known: All lines of its known_hosts files.
    """

    def __init__(self, host: str, hop: Hop, known: Sequence[known_hosts.KnownKey]) -> None:
        self._host = host
        self._hop = hop
        self._known = known

    def missing_host_key(
        self, _client: paramiko.SSHClient, _hostname: str, key: paramiko.PKey
    ) -> None:
        """Return if the key is the known one."""
        check_host_key(self._host, self._hop, self._known, key.get_name(), key.asbytes())


def check_host_key(
    host: str, hop: Hop, known: Sequence[known_hosts.KnownKey], key_type: str, blob: bytes
) -> None:
    """Return if the key that a server showed is the known one.

    Raises:
        HostKeyError: It is unknown, changed or revoked.
    """
    judged = known_hosts.judge(known, hop.known_names, blob)
    if judged.verdict is known_hosts.Verdict.KNOWN:
        return
    shown = f"{key_type} key {known_hosts.make_fingerprint(blob)}"
    where = f"{hop.address} port {hop.port}"
    files = " and ".join(hop.known_hosts_files) or "no known_hosts file"
    if judged.verdict is known_hosts.Verdict.REVOKED:
        raise HostKeyError(
            f"{where} shows the {shown}, which {judged.lines[0].origin} revokes",
            host=host,
            hint="somebody may be in between: do not use this host before its key is replaced",
        )
    if judged.verdict is known_hosts.Verdict.CHANGED:
        expected = ", ".join(
            f"{line.key_type} key {line.fingerprint} ({line.origin})" for line in judged.lines
        )
        raise HostKeyError(
            f"the host key of {where} has changed: it shows the {shown}, known is {expected}",
            host=host,
            hint="somebody may be in between; if the host was really installed anew, remove the "
            f"old line with `ssh-keygen -R '{hop.known_names[0]}'` and add the new key",
        )
    name = hop.known_names[0]
    kind = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}.get(key_type, "ecdsa")
    authority = "; its @cert-authority line is not supported here" if judged.lines else ""
    raise HostKeyError(
        f"the host key of {where} is unknown: it shows the {shown}",
        host=host,
        hint=f"compare the fingerprint with `ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub` on "
        f"the host, then add the key as {name}: `ssh-keyscan -t {kind} -p {hop.port} {hop.address}"
        f" >> known_hosts` (read: {files}{authority})",
    )


class _Link:
    """An open way to a host: connections to each SSH server on it, and a ProxyCommand.

    Args:
        host: The host's name in the configuration.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._connections: list[fabric.Connection] = []
        self._proxy: subprocess.Popen[bytes] | None = None
        self._proxy_said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the link

    @classmethod
    def open(cls, host: str, way: Sequence[Hop]) -> _Link:
        """Connect to each server of the way through the one before.

        Raises:
            HostUnreachableError: A server could not be reached.
            HostKeyError: A server's key is not the known one.
            RemoteError: A login was refused.
        """
        link = cls(host)
        try:
            for hop in way:
                link._open_hop(hop)
        except BaseException:
            link.close()
            raise
        return link

    @property
    def transport(self) -> paramiko.Transport:
        """The connection to the host itself."""
        transport: paramiko.Transport = self._connections[-1].transport
        return transport

    def close(self) -> None:
        """Close everything, the host's own connection first."""
        for connection in reversed(self._connections):
            # not connection.close(): that one leaves a client open that did not get through login
            connection.client.close()
        if self._proxy is not None:
            self._proxy.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._proxy.wait(2)
            if self._proxy.poll() is None:
                self._proxy.kill()
                self._proxy.wait()
        self._proxy_said.close()

    def _open_hop(self, hop: Hop) -> None:
        known = known_hosts.read_known_hosts(hop.known_hosts_files)
        known_types = known_hosts.list_key_types(known, hop.known_names)
        options: dict[str, Any] = {
            "auth_strategy": _LoginKeys(hop),
            "transport_factory": lambda sock, **more: _make_transport(sock, known_types, more),
            "banner_timeout": hop.connect_seconds,
            "auth_timeout": LOGIN_SECONDS,
            "channel_timeout": CHANNEL_SECONDS,
        }
        if hop.proxy_command:
            options["sock"] = self._start_proxy(hop.proxy_command)
        connection = fabric.Connection(
            hop.address,
            user=hop.user,
            port=hop.port,
            # no files of fabric and no parsing of ssh_config: `ssh -G` has resolved all
            config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),
            gateway=self._connections[-1] if self._connections else None,
            connect_timeout=hop.connect_seconds,
            connect_kwargs=options,
        )
        connection.client.set_missing_host_key_policy(_KnownHostsPolicy(self._host, hop, known))
        self._connections.append(connection)
        try:
            connection.open()
            connection.transport.set_keepalive(KEEPALIVE_SECONDS)
        except FAILURES as error:
            raise self._explain(error, hop) from error

    def _start_proxy(self, command: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            # ssh_config(5): the command string goes to the user's shell, with exec
            self._proxy = subprocess.Popen(  # noqa: S603 - the person's own ProxyCommand
                [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._proxy_said,
                start_new_session=True,  # Ctrl-C at the prompt must not cut the connection
            )
        return ours

    def _explain(self, error: BaseException, hop: Hop) -> OrchestratorError:
        found = translate(error, host=self._host, login=hop.login)
        if hop.proxy_command:
            self._proxy_said.seek(0)
            said = self._proxy_said.read().decode(errors="replace").strip()
            hint = f"the ProxyCommand said: {said.rpartition(chr(10))[2]}" if said else _SETTINGS
            found.hint = log.redact_text(hint)
        return found


def _make_transport(
    sock: socket.socket, known_types: Sequence[str], options: dict[str, Any]
) -> paramiko.Transport:
    transport = paramiko.Transport(sock, **options)
    security = transport.get_security_options()
    known = [
        name
        for known_type in known_types
        for name in (("rsa-sha2-512", "rsa-sha2-256") if known_type == "ssh-rsa" else (known_type,))
        if name in security.key_types
    ]
    # Known types first, so that the server shows the key that can be checked. The others stay:
    # without them a host with only other keys would be an "incompatible peer", not a changed one.
    security.key_types = tuple(dict.fromkeys([*known, *security.key_types]))
    if isinstance(sock, socket.socket) and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * DEAD_AFTER_SECONDS)
    return transport


class _Conversation:
    """One command on one channel, from its start to its end.

    Args:
        channel: A fresh session channel.
        timeout_seconds: When the host ends the command.
    """

    def __init__(self, channel: paramiko.Channel, timeout_seconds: float) -> None:
        self._channel = channel
        self._transport: Any = channel.get_transport()
        self._timeout_seconds = timeout_seconds
        # the host ends the command itself; this is for a host that has frozen
        self._timer = threading.Timer(timeout_seconds + _GRACE_SECONDS, channel.close)
        self._timer.daemon = True
        self._seconds = 0.0
        self.stdout = b""
        self.stderr = b""

    @property
    def status(self) -> int:
        """The exit status; negative if there is none."""
        return self._channel.exit_status

    @property
    def is_late(self) -> bool:
        """Whether it was ended because its time was up."""
        ended = self.status in (-1, _TIMED_OUT, _KILLED)
        return ended and self._seconds >= self._timeout_seconds

    @property
    def is_killed(self) -> bool:
        """Whether the host ended the command without a status, which means by a signal."""
        return bool(self._channel.eof_received and self._transport.is_active())

    def hold(self, command: str, stdin: bytes) -> None:
        """Run the command; input, output and errors flow at the same time.

        Raises:
            paramiko.SSHException: The connection broke, or the time was up before the start.
        """
        began = time.monotonic()
        self._timer.start()
        errors: list[bytes] = []
        drain = threading.Thread(
            target=_drain, args=(self._channel.recv_stderr, errors), daemon=True
        )
        feed = threading.Thread(target=_feed, args=(self._channel, stdin), daemon=True)
        try:
            self._channel.exec_command(command.encode("utf-8", "surrogateescape"))
            drain.start()
            feed.start()
            output: list[bytes] = []
            _drain(self._channel.recv, output)
            drain.join()
            self._channel.status_event.wait()
            self.stdout, self.stderr = b"".join(output), b"".join(errors)
        finally:
            self._seconds = time.monotonic() - began
            self._timer.cancel()
            self._channel.close()


def _drain(receive: Callable[[int], bytes], chunks: list[bytes]) -> None:
    with contextlib.suppress(*FAILURES):
        while chunk := receive(_CHUNK_BYTES):
            chunks.append(chunk)


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    # a command need not read all of its input; how it ended says whether that was right
    with contextlib.suppress(*FAILURES):
        # in pieces, because sendall copies what is left after each packet
        for start in range(0, len(stdin), _CHUNK_BYTES):
            channel.sendall(stdin[start : start + _CHUNK_BYTES])
        channel.shutdown_write()


class SshRemote:
    """A host reached over SSH.

    It connects at the first use, and again when the connection was lost. Threads may share it.

    Args:
        name: The host's name in the configuration, and for ``ssh -G``.
        host: Its configuration.
        ssh: The configuration of connections.
    """

    def __init__(self, name: str, host: HostConfig, ssh: SshConfig) -> None:
        self.name = name
        self._host = host
        self._ssh = ssh
        self._guard = threading.Lock()
        self._link: _Link | None = None
        self._login = name
        # its formatting of debug lines alone costs milliseconds a command
        logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | Secret = b"",
        check: bool = True,
        timeout_seconds: float = 60.0,
    ) -> Result:
        """Run a command and wait for its end; see `Remote.run`."""
        if not argv or any("\0" in argument for argument in argv):
            raise ValueError("a command needs a program, and no argument can hold a zero byte")
        # Ended by the host, a command does not outlive its time even if this process is gone.
        limit = f"{max(timeout_seconds, 0.001):.3f}"
        command = ["timeout", f"--kill-after={_KILL_AFTER_SECONDS}", limit, *argv]
        if self._host.become:
            command = ["sudo", "-n", "--", *command]
        conversation = _Conversation(self._open_channel(), timeout_seconds)
        broken: BaseException | None = None
        try:
            conversation.hold(shlex.join(command), as_bytes(stdin))
        except FAILURES as error:
            broken = error
        if broken is not None or conversation.status < 0 or conversation.is_late:
            raise self._explain_end(argv, conversation, timeout_seconds) from broken
        result = Result(
            status=conversation.status,
            stdout=conversation.stdout,
            stderr=conversation.stderr.decode("utf-8", errors="replace"),
        )
        if check and result.status:
            raise self._report(argv, make_command_error(argv, result, self.name))
        return result

    def read_file(self, path: str) -> bytes:
        """Return the content of a file; see `Remote.read_file`."""
        argv = ["sh", "-c", _READ_SCRIPT, "sh", path]
        result = self.run(argv, check=False)
        if result.status == _NO_FILE:
            raise PreconditionError(f"no file {path}", host=self.name)
        if result.status:
            raise self._report(["cat", path], make_command_error(["cat", path], result, self.name))
        return result.stdout

    def read_secret(self, path: str, name: str = "") -> Secret:
        """Return a file's content, or one value in it, as a secret; see `Remote.read_secret`."""
        return find_secret(self.read_file(path), path, name, self.name)

    def write_file(
        self, path: str, content: str | bytes | Secret, *, mode: int = 0o600, owner: str = ""
    ) -> None:
        """Write a file whole; see `Remote.write_file`."""
        data = as_bytes(content)
        directory = posixpath.dirname(path) or "."
        values = [path, directory, f"{mode:04o}", owner, str(len(data))]
        result = self.run(["sh", "-c", _WRITE_SCRIPT, "sh", *values], stdin=data, check=False)
        if result.status:
            argv = ["write", path]
            raise self._report(argv, make_command_error(argv, result, self.name))

    def host_key_lines(self, addresses: Sequence[str]) -> list[str]:
        """Return known_hosts lines with the verified key; see `Remote.host_key_lines`."""
        key = self._find_link().transport.get_remote_server_key()
        return [f"{address} {key.get_name()} {key.get_base64()}" for address in addresses]

    def close(self) -> None:
        """Close the connection; the next use opens another one."""
        with self._guard:
            self._close_link()

    def _close_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _find_link(self) -> _Link:
        with self._guard:
            if self._link is None or not self._link.transport.is_active():
                self._close_link()
                self._link = self._open_link()
            return self._link

    def _open_link(self) -> _Link:
        way = hops.resolve_way(self.name, self._host, self._ssh)
        self._login = way[-1].login
        link: _Link = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: getattr(error, "transient", False)),
            stop=tenacity.stop_after_attempt(CONNECT_ATTEMPTS)
            | tenacity.stop_after_delay(CONNECT_SECONDS),
            wait=tenacity.wait_exponential(multiplier=0.3, max=2),
            reraise=True,
        )(_Link.open, self.name, way)
        if self._host.become:
            try:
                self._check_sudo(link, way[-1].user)
            except BaseException:
                link.close()
                raise
        return link

    def _check_sudo(self, link: _Link, user: str) -> None:
        """Ask once whether sudo lets this login do everything without a password."""
        try:
            conversation = _Conversation(
                link.transport.open_session(timeout=CHANNEL_SECONDS), CHANNEL_SECONDS
            )
            conversation.hold("sudo -n -- true", b"")
        except FAILURES as error:
            raise translate(error, host=self.name, login=self._login) from error
        if conversation.status < 0:
            raise HostUnreachableError(
                f"{self._login}: the connection ended before sudo answered",
                host=self.name,
                hint=_UNREACHABLE,
            )
        if conversation.status:
            said = conversation.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise PreconditionError(
                f"{user} cannot become root on {self.name}: {log.redact_text(said)}",
                host=self.name,
                hint=f"install sudo there, with the line `{user} ALL=(root) NOPASSWD: ALL` in "
                "/etc/sudoers.d/xbvault, or log in as root and set become = false",
            )

    def _open_channel(self) -> paramiko.Channel:
        link = self._find_link()
        try:
            return link.transport.open_session(timeout=CHANNEL_SECONDS)
        except paramiko.ChannelException as error:
            raise translate(error, host=self.name, login=self._login) from error
        except FAILURES:
            # the connection was lost since its last use; nothing has started, so a new one will do
            with self._guard:
                if self._link is link:
                    self._close_link()
        try:
            return self._find_link().transport.open_session(timeout=CHANNEL_SECONDS)
        except FAILURES as error:
            raise translate(error, host=self.name, login=self._login) from error

    def _explain_end(
        self, argv: Sequence[str], conversation: _Conversation, timeout_seconds: float
    ) -> CommandError:
        shown = show_command(argv)
        if conversation.is_late:
            fact, hint = f"did not end within {timeout_seconds:g} s", ""
        elif conversation.is_killed:
            fact, hint = "was killed by a signal", "look into the host's kernel log"
        else:
            fact = f"was running when the connection to {self._login} broke"
            hint = "nobody knows whether it did its work; look at the host before you go on"
        tail = make_command_error(
            argv,
            Result(status=-1, stderr=conversation.stderr.decode(errors="replace")),
            self.name,
        ).stderr
        error = CommandError(
            f"{shown} on {self.name} {fact}", host=self.name, hint=hint, stderr=tail
        )
        return self._report(argv, error)

    def _report(self, argv: Sequence[str], error: CommandError) -> CommandError:
        log.get().warning(
            "command.failed",
            host=self.name,
            command=show_command(argv),
            status=error.status,
            stderr=error.stderr,
        )
        return error
