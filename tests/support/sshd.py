"""A real OpenSSH server on a free loopback port, with keys, users and files of its own.

As root it runs in a mount namespace of its own, in which ``/run`` is empty and the files of users
and sudo are replaced by copies: so there is a non-root login with sudo, without a trace on the
machine. As another user it serves only that user.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config import HostConfig, SshConfig
from orchestrator.remote import sudo

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = "/usr/sbin/sshd"
SUDOER = "xbvault-sudoer"
"""Login that may become root without a password."""
PLAIN = "xbvault-plain"
"""Login that sudo asks for a password."""
START_SECONDS = 10

_NAMESPACE = """
set -eu
folder=$1 config=$2
for file in passwd shadow group; do mount --bind "$folder/etc/$file" "/etc/$file"; done
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -m 0755 /run/sshd
if [ -d /etc/sudoers.d ]; then mount --bind "$folder/etc/sudoers.d" /etc/sudoers.d; fi
exec /usr/sbin/sshd -D -e -f "$config"
"""


class Sshd:
    """A running server.

    Args:
        folder: Where its files lie; removed by who made it.
        host_key_types: Kinds of host keys, as ``ssh-keygen -t`` names them.
        extra: Further lines of its configuration.
    """

    def __init__(
        self, folder: Path, *, host_key_types: tuple[str, ...] = ("ed25519",), extra: str = ""
    ) -> None:
        self.folder = folder
        self.address = "127.0.0.1"
        self.port = 0
        self.user = getpass.getuser()
        self.login_key = folder / "login_key"
        self.known_hosts = folder / "known_hosts"
        self.ssh_config = folder / "ssh_config"
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None
        self.host_keys = {kind: folder / f"host_{kind}_key" for kind in host_key_types}
        for path, kind in [
            (self.login_key, "ed25519"),
            *((p, k) for k, p in self.host_keys.items()),
        ]:
            make_key(path, kind)
        self.authorized_keys = folder / "authorized_keys"
        self.authorized_keys.write_text(self.login_key.with_suffix(".pub").read_text())
        self.authorized_keys.chmod(0o644)

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server wrote."""
        return (self.folder / "sshd.log").read_text(errors="replace")

    def start(self) -> None:
        """Start the server and wait until it answers; a later start takes the same port."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.port = self.port or find_free_port()
            self._spawn()
            if self._wait_until_it_answers(deadline):
                break
            self.stop()
            if time.monotonic() > deadline:
                raise RuntimeError(f"sshd did not start: {self.log}")
            self.port = 0
        self.write_known_hosts()
        self.write_ssh_config()

    def stop(self) -> None:
        """Stop the server and every session of it."""
        if self._process is None:
            return
        # sessions of sshd have process groups of their own; they are its children
        for pid in [*find_descendants(self._process.pid), self._process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def drop_sessions(self) -> None:
        """Cut every connection; the server goes on."""
        for pid in find_descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def write_known_hosts(self, text: str | None = None) -> None:
        """Write the known_hosts file: the server's own keys, or another text."""
        lines = [self.known_line(kind) for kind in self.host_keys] if text is None else [text]
        self.known_hosts.write_text("\n".join(lines) + "\n")

    def known_line(self, kind: str, name: str = "") -> str:
        """Return a known_hosts line for one of the host keys."""
        key = self.host_keys[kind].with_suffix(".pub").read_text().split()
        return f"{name or f'[{self.address}]:{self.port}'} {key[0]} {key[1]}"

    def write_ssh_config(self, text: str = "") -> None:
        """Write the client's configuration: our keys and known_hosts, after the given text."""
        self.ssh_config.write_text(
            f"{text}\n"
            "Host *\n"
            f"    IdentityFile {self.login_key}\n"
            "    IdentitiesOnly yes\n"
            f"    UserKnownHostsFile {self.known_hosts}\n"
            "    GlobalKnownHostsFile none\n"
        )

    def host_config(self, *, user: str = "", become: bool = False) -> HostConfig:
        """Return the configuration of a host that is this server."""
        return HostConfig(
            address=self.address,
            ssh_port=self.port,
            ssh_user=user or self.user,
            become=become,
            vault_mount="kv-here",
        )

    def connection_config(self, *, seconds: int = 5) -> SshConfig:
        """Return the configuration of connections to it."""
        return SshConfig(config_file=str(self.ssh_config), connect_timeout_seconds=seconds)

    def _spawn(self) -> None:
        config = self.folder / "sshd_config"
        config.write_text(
            f"{self._extra}\n"
            f"Port {self.port}\n"
            f"ListenAddress {self.address}\n"
            + "".join(f"HostKey {path}\n" for path in self.host_keys.values())
            + f"AuthorizedKeysFile {self.authorized_keys}\n"
            "PidFile none\n"
            "UsePAM no\n"
            "UseDNS no\n"
            "StrictModes no\n"
            "PermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            "MaxStartups 100\n"
        )
        command = [SSHD, "-D", "-e", "-f", str(config)]
        if os.geteuid() == 0:
            self._write_users()
            command = [
                *("unshare", "--mount", "--propagation", "private"),
                *("sh", "-c", _NAMESPACE, "sh", str(self.folder), str(config)),
            ]
        with (self.folder / "sshd.log").open("ab") as out:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def _write_users(self) -> None:
        etc = self.folder / "etc"
        sudoers = etc / "sudoers.d"
        sudoers.mkdir(parents=True, exist_ok=True)
        for name, mode in (("passwd", 0o644), ("group", 0o644), ("shadow", 0o600)):
            text = Path("/etc", name).read_text()
            if name == "passwd":
                # root too gets a bare shell and home: a slow or talkative .bashrc is not under test
                home = self.folder / "home"
                home.mkdir(mode=0o700, exist_ok=True)
                text = re.sub(r"(?m)^root:.*", f"root:x:0:0:root:{home}:/bin/sh", text)
            for user, number in ((SUDOER, 64001), (PLAIN, 64002)):
                text += {
                    "passwd": f"{user}:x:{number}:{number}::/tmp:/bin/sh\n",
                    "group": f"{user}:x:{number}:\n",
                    "shadow": f"{user}:*:19000:0:99999:7:::\n",
                }[name]
            (etc / name).write_text(text)
            (etc / name).chmod(mode)
        (sudoers / "xbvault").write_text(f"{sudo.control_rule(SUDOER)}\n{PLAIN} ALL=(root) ALL\n")
        (sudoers / "xbvault").chmod(0o440)

    def _wait_until_it_answers(self, deadline: float) -> bool:
        assert self._process is not None
        while time.monotonic() < deadline and self._process.poll() is None:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((self.address, self.port), 1),
            ):
                return True
            time.sleep(0.02)
        return False


def make_key(path: Path, kind: str = "ed25519", *, passphrase: str = "") -> None:
    """Make a key pair at the path, and ``.pub`` beside it."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "test", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )


def find_free_port() -> int:
    """Return a port of the loopback address that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_descendants(pid: int) -> list[int]:
    """Return the process ids of a process's children, and theirs."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, open_ones = [], [pid]
    while open_ones:
        children = parents.get(open_ones.pop(), [])
        found += children
        open_ones += children
    return found


def is_available() -> bool:
    """Tell whether this machine has what the server needs."""
    return Path(SSHD).exists() and all(map(shutil.which, ("ssh", "ssh-keygen", "unshare")))


@contextlib.contextmanager
def running_sshd(
    *, host_key_types: tuple[str, ...] = ("ed25519",), extra: str = ""
) -> Iterator[Sshd]:
    """Run a server inside the block; nothing of it is left behind."""
    with tempfile.TemporaryDirectory(prefix="xbvault-sshd-") as name:
        folder = Path(name)
        # the non-root logins read their authorized_keys here
        folder.chmod(0o711)
        server = Sshd(folder, host_key_types=host_key_types, extra=extra)
        try:
            server.start()
            yield server
        finally:
            server.stop()
