"""`SshRemote` against a real OpenSSH server: the suite, and what only a network can do."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import socket
import subprocess
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paramiko
import pytest
import sshd
from remote_suite import RemoteSuite
from structlog.testing import capture_logs

from orchestrator.config import HostConfig
from orchestrator.errors import (
    CommandError,
    ConfigError,
    ConnectionLostError,
    HostKeyError,
    HostUnreachableError,
    LockHeldError,
    PreconditionError,
    RemoteError,
)
from orchestrator.models import Secret
from orchestrator.remote import SshRemote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Connect = Callable[..., SshRemote]

pytestmark = pytest.mark.skipif(not sshd.is_available(), reason="needs openssh-server")
DATA_MESSAGE, EOF_MESSAGE = 94, 96
"""``SSH_MSG_CHANNEL_DATA`` and ``SSH_MSG_CHANNEL_EOF``, RFC 4254."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="other logins need a server run by root")


@pytest.fixture(scope="module")
def server() -> Iterator[sshd.Sshd]:
    """A server for all tests that leave it as it is."""
    with sshd.running_sshd() as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[sshd.Sshd]:
    """A server for one test alone, with host keys of two kinds."""
    with sshd.running_sshd(host_key_types=("ed25519", "ecdsa")) as running:
        yield running


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open remotes; they are closed after the test."""
    opened: list[SshRemote] = []

    def make(
        running: sshd.Sshd, *, user: str = "", become: bool = False, name: str = "db1"
    ) -> SshRemote:
        host = running.host_config(user=user, become=become)
        opened.append(SshRemote(name, host, running.connection_config()))
        return opened[-1]

    yield make
    for remote in opened:
        remote.close()


def find_fingerprint(server: sshd.Sshd, kind: str) -> str:
    """Return what ssh-keygen says about a host key."""
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(server.host_keys[kind])], check=True, capture_output=True
    )
    return shown.stdout.decode().split()[1]


def is_running(pid: int) -> bool:
    """Tell whether a process still does something; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def has_ended(pid: int, *, seconds: float = 5.0) -> bool:
    """Wait for the end of a process that was killed; tell whether it came."""
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


class TestSshRemote(RemoteSuite):
    """The suite, on a login without sudo."""

    @pytest.fixture
    def remote(self, server: sshd.Sshd, connect: Connect) -> SshRemote:
        """The login that the tests run as."""
        return connect(server)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        """A folder of this test."""
        return str(tmp_path)


@as_root
class TestSshRemoteWithSudo(RemoteSuite):
    """The suite, on a login that becomes root."""

    @pytest.fixture
    def remote(self, server: sshd.Sshd, connect: Connect) -> SshRemote:
        """A login that may become root."""
        return connect(server, user=sshd.SUDOER, become=True)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> str:
        """A folder of this test, which only root may enter."""
        return str(tmp_path)


@as_root
def test_become_is_root(server: sshd.Sshd, connect: Connect, tmp_path: Path) -> None:
    """With become commands are root's, without they are the login's; files get their owner."""
    assert connect(server, user=sshd.SUDOER).run(["id", "-un"]).text == f"{sshd.SUDOER}\n"
    remote = connect(server, user=sshd.SUDOER, become=True)
    assert remote.run(["id", "-un"]).text == "root\n"
    remote.write_file(f"{tmp_path}/owned", "x", owner=f"{sshd.PLAIN}:{sshd.SUDOER}", mode=0o440)
    assert remote.run(["stat", "-c", "%U:%G %a", f"{tmp_path}/owned"]).text == (
        f"{sshd.PLAIN}:{sshd.SUDOER} 440\n"
    )


@as_root
@pytest.mark.parametrize("check", [True, False])
def test_sudo_that_asks_is_named(server: sshd.Sshd, connect: Connect, *, check: bool) -> None:
    """A login that sudo asks for a password is refused with a hint, whether checked or not."""
    # the word "password" itself is masked where another test has made it a secret
    with pytest.raises(
        PreconditionError, match=r"cannot become root on db1: .* required"
    ) as caught:
        connect(server, user=sshd.PLAIN, become=True).run(["true"], check=check)
    assert f"{sshd.PLAIN} ALL=(root) NOPASSWD: /usr/bin/timeout`" in caught.value.hint


@as_root
@pytest.mark.parametrize("become", [False, True])
def test_unknown_program(server: sshd.Sshd, connect: Connect, *, become: bool) -> None:
    """A program that is not there gives status 127, through sudo as well."""
    remote = connect(server, user=sshd.SUDOER, become=become)
    assert remote.run(["no-such-program"], check=False).status == 127


def test_big_streams_do_not_block(server: sshd.Sshd, connect: Connect) -> None:
    """Input, output and errors beyond every buffer flow at once."""
    sent = os.urandom(1 << 20) * 12
    result = connect(server).run(["sh", "-c", "tee /dev/stderr"], stdin=sent)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(sent).digest()
    assert len(result.stderr) > 1 << 20


def test_input_that_nobody_reads(server: sshd.Sshd, connect: Connect) -> None:
    """A command that ends without reading its input is judged by its status alone."""
    assert connect(server).run(["true"], stdin=b"x" * (8 << 20)).status == 0


@pytest.mark.parametrize(("kind_of_message", "stdin"), [(EOF_MESSAGE, b""), (DATA_MESSAGE, b"x")])
def test_input_never_follows_the_end_of_the_command(
    own_server: sshd.Sshd,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    kind_of_message: int,
    stdin: bytes,
) -> None:
    """A server that gets it after the channel's close drops the connection, and all that is on it.

    Or it takes it for the end of another command's input, if that has got the channel's number.
    """
    kind: Any = paramiko.Transport
    send = kind._send_user_message

    def send_late(transport: paramiko.Transport, message: paramiko.Message) -> None:
        if message.asbytes()[0] == kind_of_message:
            time.sleep(0.1)
        send(transport, message)

    monkeypatch.setattr(paramiko.Transport, "_send_user_message", send_late)
    remote = connect(own_server)
    for _ in range(3):
        assert remote.run(["true"], stdin=stdin).status == 0
        time.sleep(0.3)
    assert own_server.log.count("Accepted publickey") == 1


def test_command_ends_at_its_time(server: sshd.Sshd, connect: Connect, tmp_path: Path) -> None:
    """A command that takes too long is ended on the host, with all that it started."""
    remote = connect(server)
    began = time.monotonic()
    script = f"echo half done >&2; sleep 61 & echo $! > {shlex.quote(str(tmp_path))}/pid; wait"
    with pytest.raises(CommandError, match=r"did not end within 0.5 s") as caught:
        remote.run(["sh", "-c", script], check=False, timeout_seconds=0.5)
    assert time.monotonic() - began < 5
    assert (caught.value.status, caught.value.stderr) == (None, "half done")
    assert has_ended(int((tmp_path / "pid").read_text()))
    assert remote.run(["printf", "%s", "fine"]).text == "fine"


def test_status_of_timeout_itself_is_a_status(server: sshd.Sshd, connect: Connect) -> None:
    """A command that ends with 124 or 137 in time has not been late."""
    for status in (124, 137):
        assert connect(server).run(["sh", "-c", f"exit {status}"], check=False).status == status


def test_lost_connection_while_it_runs(own_server: sshd.Sshd, connect: Connect) -> None:
    """A connection that breaks under a command leaves its outcome open; the next one reconnects."""
    remote = connect(own_server)
    remote.run(["true"])
    cutter = threading.Timer(0.5, own_server.drop_sessions)
    cutter.start()
    broke = r"sleep 30 on db1 was running when .* broke"
    with pytest.raises(ConnectionLostError, match=broke) as caught:
        remote.run(["sleep", "30"])
    cutter.join()
    assert caught.value.status is None
    assert remote.run(["printf", "%s", "back"]).text == "back"


def test_reconnects_after_a_restart(own_server: sshd.Sshd, connect: Connect) -> None:
    """A connection that was lost between two commands is opened again without a word."""
    remote = connect(own_server)
    remote.run(["true"])
    own_server.stop()
    own_server.start()
    assert remote.run(["printf", "%s", "back"]).text == "back"


def test_waits_for_a_host_that_comes_up(own_server: sshd.Sshd, connect: Connect) -> None:
    """A refused connection is tried again for a moment."""
    remote = connect(own_server)
    own_server.stop()
    starter = threading.Timer(0.2, own_server.start)
    starter.start()
    try:
        assert remote.run(["printf", "%s", "up"]).text == "up"
    finally:
        starter.join()


def test_host_down(own_server: sshd.Sshd, connect: Connect) -> None:
    """A refused port is transient, named, and given up on within seconds."""
    own_server.stop()
    began = time.monotonic()
    with pytest.raises(HostUnreachableError) as caught:
        connect(own_server).run(["true"])
    assert time.monotonic() - began < 6
    assert caught.value.transient
    assert f"127.0.0.1 port {own_server.port}" in caught.value.message
    assert caught.value.__cause__ is not None


def test_silent_host(server: sshd.Sshd) -> None:
    """A port that accepts and says nothing is unreachable after the time to connect."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = HostConfig(
            address="127.0.0.1", ssh_port=silent.getsockname()[1], vault_mount="kv-here"
        )
        remote = SshRemote("db1", host, server.connection_config(seconds=1))
        with pytest.raises(HostUnreachableError, match=r"127\.0\.0\.1 port \d+: the connection"):
            remote.run(["true"])


def test_unknown_name(server: sshd.Sshd) -> None:
    """A name that cannot be resolved is unreachable, with the name in the message."""
    host = HostConfig(address="no-such-host.invalid", vault_mount="kv-here")
    with pytest.raises(HostUnreachableError, match=r"no-such-host\.invalid port 22"):
        SshRemote("db1", host, server.connection_config(seconds=2)).run(["true"])


def test_unknown_host_key(own_server: sshd.Sshd, connect: Connect) -> None:
    """A host whose key is not known is refused, with fingerprint, kind and a way to add it."""
    own_server.write_known_hosts("")
    with pytest.raises(HostKeyError, match="is unknown") as caught:
        connect(own_server).run(["true"])
    kind = "ecdsa" if "ecdsa-sha2-nistp256 key" in caught.value.message else "ed25519"
    assert find_fingerprint(own_server, kind) in caught.value.message
    assert f"ssh-keyscan -t {kind} -p {own_server.port} 127.0.0.1" in caught.value.hint
    assert not caught.value.transient
    assert "Accepted" not in own_server.log


def test_changed_host_key(own_server: sshd.Sshd, connect: Connect, tmp_path: Path) -> None:
    """A host that shows another key than the known one is refused, with both fingerprints."""
    sshd.make_key(tmp_path / "other")
    other = (tmp_path / "other.pub").read_text().split()[1]
    own_server.write_known_hosts(f"[127.0.0.1]:{own_server.port} ssh-ed25519 {other}")
    with pytest.raises(HostKeyError, match="has changed") as caught:
        connect(own_server).run(["true"])
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(tmp_path / "other")], check=True, capture_output=True
    )
    assert find_fingerprint(own_server, "ed25519") in caught.value.message
    assert shown.stdout.decode().split()[1] in caught.value.message
    assert "ssh-keygen -R" in caught.value.hint


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_asks_for_the_known_kind(own_server: sshd.Sshd, connect: Connect, kind: str) -> None:
    """The kind of key that known_hosts has is the one that the server is asked for."""
    own_server.write_known_hosts(own_server.known_line(kind))
    (line,) = connect(own_server).host_key_lines([f"[127.0.0.1]:{own_server.port}"])
    assert line == own_server.known_line(kind)


def test_hashed_and_wildcard_names(own_server: sshd.Sshd, connect: Connect) -> None:
    """Names that ssh-keygen has hashed, and patterns, are found."""
    subprocess.run(
        ["ssh-keygen", "-q", "-H", "-f", str(own_server.known_hosts)],
        check=True,
        capture_output=True,
    )
    assert "127.0.0.1" not in own_server.known_hosts.read_text()
    assert connect(own_server).run(["true"]).status == 0
    own_server.write_known_hosts(own_server.known_line("ed25519", "[127.0.0.*]:*"))
    assert connect(own_server).run(["true"]).status == 0


def test_revoked_host_key(own_server: sshd.Sshd, connect: Connect) -> None:
    """A revoked key is refused though another line knows it."""
    lines = [own_server.known_line("ed25519"), f"@revoked {own_server.known_line('ed25519', '*')}"]
    own_server.write_known_hosts("\n".join(lines))
    with pytest.raises(HostKeyError, match="known_hosts:2 revokes"):
        connect(own_server).run(["true"])


def test_certificate_authority_is_named(own_server: sshd.Sshd, connect: Connect) -> None:
    """A host that only a certificate authority vouches for is refused, and the hint says why."""
    authority = f"@cert-authority {own_server.known_line('ecdsa', '*')}"
    own_server.write_known_hosts(authority)
    with pytest.raises(HostKeyError, match="is unknown") as caught:
        connect(own_server).run(["true"])
    assert "@cert-authority line is not supported" in caught.value.hint
    own_server.write_known_hosts(f"{authority}\n{own_server.known_line('ed25519')}")
    assert connect(own_server).run(["true"]).status == 0


def test_host_key_alias(own_server: sshd.Sshd, connect: Connect) -> None:
    """A HostKeyAlias of the ssh configuration is the name that counts."""
    own_server.write_ssh_config("Host db1\n    HostKeyAlias the-alias")
    own_server.write_known_hosts(own_server.known_line("ed25519", "the-alias"))
    assert connect(own_server).run(["true"]).status == 0


def test_wrong_login_key(own_server: sshd.Sshd, connect: Connect, tmp_path: Path) -> None:
    """A login whose keys are all refused is an error that names login, address and keys."""
    sshd.make_key(tmp_path / "stranger")
    sshd.make_key(tmp_path / "locked", passphrase="long enough")
    own_server.authorized_keys.write_text((tmp_path / "locked.pub").read_text())
    own_server.write_ssh_config(f"IdentityFile {tmp_path}/stranger\nIdentityFile {tmp_path}/locked")
    with pytest.raises(RemoteError) as caught:
        connect(own_server).run(["true"])
    error = caught.value
    assert type(error) is RemoteError
    assert not error.transient
    assert f"{own_server.user}@127.0.0.1 port {own_server.port}" in error.message
    assert f"{tmp_path}/stranger SHA256:" in error.message
    assert f"{tmp_path}/locked (has a passphrase, load it with ssh-add)" in error.message
    assert "authentication failed" in error.message


def test_no_login_key(own_server: sshd.Sshd, connect: Connect) -> None:
    """Without any key the error says so."""
    own_server.login_key.unlink()
    with pytest.raises(RemoteError, match="no login key was taken; tried none"):
        connect(own_server).run(["true"])


@contextlib.contextmanager
def running_agent(folder: Path) -> Iterator[dict[str, str]]:
    """Run an SSH agent inside the block."""
    path = folder / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield {**os.environ, "SSH_AUTH_SOCK": str(path)}
    finally:
        agent.terminate()
        agent.wait()


@pytest.mark.parametrize("only", [False, True], ids=["all keys", "identities only"])
def test_key_of_an_agent(
    own_server: sshd.Sshd,
    connect: Connect,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    only: bool,
) -> None:
    """A key with a passphrase works through an agent; with IdentitiesOnly just the named one."""
    with running_agent(tmp_path) as environment:
        subprocess.run(
            ["ssh-add", "-q", str(own_server.login_key)], check=True, env=environment, timeout=10
        )
        monkeypatch.setenv("SSH_AUTH_SOCK", environment["SSH_AUTH_SOCK"])
        # the private key is gone, its public half says which of the agent's keys is meant
        own_server.login_key.unlink()
        if not only:
            own_server.write_ssh_config("Host db1\n    IdentitiesOnly no\n    IdentityFile none")
        assert connect(own_server).run(["true"]).status == 0
        if only:
            own_server.login_key.with_suffix(".pub").unlink()
            with pytest.raises(RemoteError, match="tried none"):
                connect(own_server).run(["true"])


def test_login_certificate(connect: Connect, tmp_path: Path) -> None:
    """A certificate beside the key opens a server that knows only the authority."""
    sshd.make_key(tmp_path / "authority")
    with sshd.running_sshd(extra=f"TrustedUserCAKeys {tmp_path}/authority.pub") as server:
        server.authorized_keys.write_text("")
        with pytest.raises(RemoteError):
            connect(server).run(["true"])
        public = server.login_key.with_suffix(".pub")
        subprocess.run(
            [
                "ssh-keygen",
                "-q",
                "-s",
                f"{tmp_path}/authority",
                "-I",
                "test",
                "-n",
                server.user,
                str(public),
            ],
            check=True,
        )
        assert connect(server).run(["true"]).status == 0
        # elsewhere, named by CertificateFile
        beside = server.folder / "login_key-cert.pub"
        beside.rename(tmp_path / "elsewhere-cert.pub")
        server.write_ssh_config(f"CertificateFile {tmp_path}/elsewhere-cert.pub")
        assert connect(server).run(["true"]).status == 0


def test_jumps(server: sshd.Sshd, own_server: sshd.Sshd, connect: Connect) -> None:
    """ProxyJump leads through each server with its own settings and checked keys."""
    own_server.write_known_hosts(
        f"{own_server.known_line('ed25519')}\n{server.known_line('ed25519')}"
    )
    jump = (
        f"Host jump\n    HostName 127.0.0.1\n    Port {server.port}\n"
        f"    IdentityFile {server.login_key}\n"
    )
    own_server.write_ssh_config(
        f"{jump}Host db1\n    ProxyJump jump,{own_server.user}@127.0.0.1:{server.port}\n"
        f"    IdentityFile {server.login_key}\nMatch host 127.0.0.1\n    IdentityFile {server.login_key}"
    )
    remote = connect(own_server)
    assert remote.run(["cat"], stdin=b"y" * (3 << 20)).stdout == b"y" * (3 << 20)
    # the server sees the jump host's side of the connection, and the jump key is checked as well
    own_server.write_known_hosts(own_server.known_line("ed25519"))
    with pytest.raises(HostKeyError, match=f"port {server.port} is unknown"):
        connect(own_server).run(["true"])


def test_jump_host_that_cannot_go_on(
    server: sshd.Sshd, own_server: sshd.Sshd, connect: Connect
) -> None:
    """A jump host that does not reach the host is a transient failure, named by the host."""
    own_server.write_known_hosts(
        f"{own_server.known_line('ed25519')}\n{server.known_line('ed25519')}"
    )
    own_server.write_ssh_config(
        f"Host db1\n    ProxyJump 127.0.0.1:{server.port}\nHost *\n    IdentityFile {server.login_key}"
    )
    own_server.stop()
    with pytest.raises(HostUnreachableError, match=f"port {own_server.port}: the server opened no"):
        connect(own_server).run(["true"])


def test_proxy_command(server: sshd.Sshd, own_server: sshd.Sshd, connect: Connect) -> None:
    """A ProxyCommand is run by a shell, with its tokens filled in; what it says is in the hint."""
    through = (
        f"ssh -F none -i {server.login_key} -o UserKnownHostsFile={server.known_hosts}"
        f" -o BatchMode=yes -p {server.port} -W %h:%p {server.user}@127.0.0.1 && true"
    )
    own_server.write_ssh_config(f"Host db1\n    ProxyCommand {through}")
    remote = connect(own_server)
    assert remote.run(["cat"], stdin=b"y" * (3 << 20)).stdout == b"y" * (3 << 20)
    remote.close()
    assert not [
        pid
        for pid in sshd.find_descendants(os.getpid())
        if b"UserKnownHostsFile" in read_command_line(pid)
    ]
    own_server.write_ssh_config("Host db1\n    ProxyCommand echo no way >&2; exit 1")
    with pytest.raises(HostUnreachableError) as caught:
        connect(own_server).run(["true"])
    assert caught.value.hint == "the ProxyCommand said: no way"


def read_command_line(pid: int) -> bytes:
    """Return the command line of a process; empty if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_login_refused_behind_a_proxy_command(
    server: sshd.Sshd, own_server: sshd.Sshd, connect: Connect
) -> None:
    """A refused login is no failure of the ProxyCommand, and its hint is about the login."""
    through = (
        f"sh -c 'echo chatter >&2; exec ssh -F none -i {server.login_key}"
        f" -o UserKnownHostsFile={server.known_hosts} -o BatchMode=yes -p {server.port}"
        f" -W %h:%p {server.user}@127.0.0.1'"
    )
    own_server.write_ssh_config(f"Host db1\n    ProxyCommand {through}")
    own_server.authorized_keys.write_text("")
    with pytest.raises(RemoteError, match="no login key was taken") as caught:
        connect(own_server).run(["true"])
    assert "authorized_keys" in caught.value.hint


def test_broken_ssh_config(own_server: sshd.Sshd, connect: Connect) -> None:
    """What the OpenSSH client does not understand is an error of the configuration."""
    own_server.write_ssh_config("NoSuchKeyword yes")
    with pytest.raises(ConfigError, match="`ssh -G db1` failed"):
        connect(own_server).run(["true"])


def test_only_stdin_carries_content(connect: Connect, tmp_path: Path) -> None:
    """No command line that reaches the host holds the content of a file or the input."""
    record = tmp_path / "commands"
    record.touch(mode=0o666)
    force = f"""ForceCommand printf '%%s\\n' "$SSH_ORIGINAL_COMMAND" >> {record}; eval "$SSH_ORIGINAL_COMMAND" """
    with sshd.running_sshd(extra=force.replace("%%", "%")) as server:
        remote = connect(server)
        secret = Secret("very-secret-content")
        remote.write_file(f"{tmp_path}/file", secret)
        assert remote.read_secret(f"{tmp_path}/file") == secret
        assert remote.run(["cat"], stdin=secret).text == "very-secret-content"
    assert record.read_text().count(str(tmp_path / "file")) == 2
    assert "very-secret" not in record.read_text()


def test_write_that_fails_changes_nothing(
    server: sshd.Sshd, connect: Connect, tmp_path: Path
) -> None:
    """A file that cannot be put in place leaves no trace."""
    remote = connect(server)
    (tmp_path / "taken").mkdir()
    for path in (tmp_path / "taken", tmp_path / "missing" / "file"):
        with pytest.raises(CommandError) as caught:
            remote.write_file(str(path), "content")
        assert caught.value.message.startswith(f"write {path} on db1 ended with status 1: ")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_unreadable_file_is_not_missing(
    server: sshd.Sshd, connect: Connect, tmp_path: Path
) -> None:
    """A folder is no file, and a file that may not be read is a failure."""
    with pytest.raises(PreconditionError, match="no file"):
        connect(server).read_file(str(tmp_path))
    if os.geteuid() == 0:
        closed = server.folder / "closed"
        closed.write_text("x")
        closed.chmod(0o600)
        with pytest.raises(CommandError, match=r"cat .*closed on db1 ended with status 1"):
            connect(server, user=sshd.PLAIN).read_file(str(closed))


def test_a_fence_stands_before_every_command(
    server: sshd.Sshd, connect: Connect, tmp_path: Path
) -> None:
    """While its fence lets nothing through, a host neither runs nor reads nor writes for us."""
    remote, gate, path = connect(server), tmp_path / "gate", tmp_path / "file"
    shut = f"test -e {gate} || {{ echo 'xbvault fence: shut' >&2; exit 75; }}; exec \"$@\""
    remote.put_fence(("sh", "-c", shut, "fence"))
    acts: list[Callable[[], object]] = [
        lambda: remote.run(["touch", str(path)], check=False),
        lambda: remote.write_file(str(path), "new"),
        lambda: remote.read_file(str(path)),
    ]
    for act in acts:
        with pytest.raises(LockHeldError, match="shut") as caught:
            act()
        assert caught.value.host == remote.name
    assert not path.exists()
    gate.touch()
    for act in acts:
        act()
    assert path.read_text() == "new"
    # a command's own 75 is its own
    assert remote.run(["sh", "-c", "echo busy >&2; exit 75"], check=False).status == 75
    gate.unlink()
    remote.put_fence(())
    assert remote.run(["true"]).status == 0


def test_failures_are_logged_once(server: sshd.Sshd, connect: Connect) -> None:
    """A failure that raises is logged; one that was expected, or a success, is not."""
    remote = connect(server)
    with capture_logs() as events:
        remote.run(["true"])
        remote.run(["false"], check=False)
        with pytest.raises(CommandError):
            remote.run(["false"])
    assert [(e["event"], e["command"], e["status"]) for e in events] == [
        ("command.failed", "false", 1)
    ]


def test_opens_one_connection(own_server: sshd.Sshd, connect: Connect) -> None:
    """Threads that come first at the same time share one connection, and a command is quick."""
    remote = connect(own_server)
    with futures.ThreadPoolExecutor(8) as threads:
        results = [threads.submit(remote.run, ["true"], check=False) for _ in range(8)]
    errors = [result.exception(30) for result in results]
    assert errors == [None] * 8, own_server.log
    assert own_server.log.count("Accepted publickey") == 1
    seconds = []
    for _ in range(15):
        began = time.monotonic()
        remote.run(["true"])
        seconds.append(time.monotonic() - began)
    assert sorted(seconds)[7] < 0.2


def test_a_server_with_few_sessions_is_waited_for(connect: Connect) -> None:
    """A command waits for its turn where the server allows one session at a time."""
    with sshd.running_sshd(extra="MaxSessions 1") as server:
        remote = connect(server)
        with futures.ThreadPoolExecutor(3) as threads:
            results = [threads.submit(remote.run, ["sleep", "0.3"]) for _ in range(3)]
        assert [result.exception(30) for result in results] == [None] * 3


def test_dead_peers_are_noticed(server: sshd.Sshd, connect: Connect) -> None:
    """Every connection sends keep-alives, and ends when nothing answers them for 45 s."""
    remote = connect(server)
    remote.run(["true"])
    assert remote._link is not None
    transport: Any = remote._link.transport
    assert transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 45_000
    assert transport.packetizer._Packetizer__keepalive_interval == 15


def test_server_leaves_nothing() -> None:
    """The helper of these tests takes its server, its sessions and its files away."""
    with sshd.running_sshd() as server:
        pid, folder = server.pid, server.folder
        remote = SshRemote("db1", server.host_config(), server.connection_config())
        remote.run(["true"])
        assert sshd.find_descendants(pid)
    assert not folder.exists()
    assert has_ended(pid)
    remote.close()


def scan(port: int) -> str:
    """Return the host keys that answer at a port of the loopback."""
    found = subprocess.run(
        ["ssh-keyscan", "-T", "5", "-p", str(port), "127.0.0.1"], capture_output=True, check=False
    )
    return found.stdout.decode()


def test_a_relay_leads_to_another_server_and_ends_with_its_last_connection(
    server: sshd.Sshd, own_server: sshd.Sshd, connect: Connect
) -> None:
    """What connects to its port comes out at the other server, also when it has been let go."""
    target = connect(own_server).find_address()
    assert target == ("127.0.0.1", own_server.port)
    with connect(server).open_relay(target) as relay:
        assert own_server.known_line("ecdsa").split()[2] in scan(relay.port)
        through = socket.create_connection(("127.0.0.1", relay.port), timeout=5)
    assert through.recv(4) == b"SSH-"
    through.close()
    end = time.monotonic() + 10
    while time.monotonic() < end and scan(relay.port):
        time.sleep(0.1)
    assert not scan(relay.port)


def test_a_host_that_lets_nobody_relay_says_so(connect: Connect) -> None:
    """Its setting is named, for it is the reason."""
    with (
        sshd.running_sshd(extra="AllowTcpForwarding no") as running,
        pytest.raises(PreconditionError, match="does not let this machine relay") as caught,
    ):
        connect(running).open_relay(("127.0.0.1", 22))
    assert "AllowTcpForwarding" in caught.value.hint


def test_a_relay_from_a_host_that_is_not_there(connect: Connect) -> None:
    """It says what OpenSSH said."""
    with sshd.running_sshd() as running:
        remote = connect(running)
        running.stop()
        with pytest.raises(HostUnreachableError, match="Connection refused"):
            remote.open_relay(("127.0.0.1", 22))


def test_a_host_behind_another_has_no_address_of_its_own(
    own_server: sshd.Sshd, connect: Connect
) -> None:
    """This machine would connect to the wrong one."""
    remote = connect(own_server)
    with own_server.ssh_config.open("a") as config:
        config.write("Host *\n  ProxyCommand nc %h %p\n")
    with pytest.raises(PreconditionError, match="through another"):
        remote.find_address()
