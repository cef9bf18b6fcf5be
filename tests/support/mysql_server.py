"""Real MySQL 9.7 servers for tests: without a network, each in a directory of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
_UNAVAILABLE = 69
_START_SECONDS = 120
_LOCAL_KEYRING = '{"components": "file://component_keyring_file"}'
_CONFIG = """[mysqld]
{user}datadir={directory}/data
socket={directory}/sock
pid_file={directory}/pid
log_error={directory}/log
tmpdir={directory}/tmp
secure_file_priv={directory}/tmp
skip_networking=ON
mysqlx=OFF
server_id=1
log_bin={directory}/binlog/binlog
gtid_mode=ON
enforce_gtid_consistency=ON
innodb_buffer_pool_size=32M
innodb_redo_log_capacity=8M
plugin_load_add=mysql_clone.so
"""
_ENCRYPTED = """default_table_encryption=ON
innodb_redo_log_encrypt=ON
innodb_undo_log_encrypt=ON
binlog_encryption=ON
"""


def mysql_tree() -> Path:
    """Return the tree of MySQL, put there if need be; skips where it cannot be had."""
    done = subprocess.run(
        [ROOT / "fixtures" / "install-mysql.sh"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode == _UNAVAILABLE:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return ROOT / ".mysql"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MysqlServer:
    """A server's directory.

    Attributes:
        tree: Where MySQL lies.
        directory: Where its datadir, its keyring and its socket lie.
    """

    tree: Path
    directory: Path

    @property
    def datadir(self) -> Path:
        """Its datadir."""
        return self.directory / "data"

    @property
    def socket(self) -> Path:
        """Its socket."""
        return self.directory / "sock"

    @property
    def keyring(self) -> Path:
        """The file of its keyring component."""
        return self.directory / "keyring" / "keys"

    @property
    def keyring_config(self) -> Path:
        """The configuration of its keyring component, outside the datadir."""
        return self.directory / "component_keyring_file.cnf"

    def sql(self, statement: str) -> str:
        """Run a statement as root and return its rows."""
        done = subprocess.run(
            [
                *(self.tree / "bin" / "mysql", "--no-defaults", "-uroot", f"-S{self.socket}"),
                *("--batch", "--raw", "--skip-column-names", "-e", statement),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip("\n")

    def log(self) -> str:
        """Return what it has logged."""
        return (self.directory / "log.err").read_text("utf-8")

    def make(self, *, encrypted: bool = True) -> MysqlServer:
        """Make everything but the datadir."""
        for name in ("keyring", "tmp", "binlog"):
            (self.directory / name).mkdir(mode=0o700, parents=True)
        user = "user=root\n" if os.geteuid() == 0 else ""
        text = _CONFIG.format(directory=self.directory, user=user)
        (self.directory / "my.cnf").write_text(text + (_ENCRYPTED if encrypted else ""))
        self.keyring_config.write_text(json.dumps({"path": str(self.keyring), "read_only": False}))
        return self

    def initialise(self) -> None:
        """Make a new datadir; one that names a keyring already would be refused."""
        subprocess.run(
            [
                *(self.tree / "bin" / "mysqld", "--no-defaults", "--initialize-insecure"),
                *(f"--datadir={self.datadir}", f"--log-error={self.directory}/log"),
                *(["--user=root"] if os.geteuid() == 0 else []),
                *("--skip-log-bin", f"--secure-file-priv={self.directory}/tmp"),
            ],
            check=True,
            timeout=300,
        )

    def use_keyring(self) -> None:
        """Let the datadir name its keyring, as whoever restores one must."""
        (self.datadir / "mysqld.my").write_text(_LOCAL_KEYRING)
        (self.datadir / "mysqld.my").chmod(0o444)
        (self.datadir / self.keyring_config.name).write_text(self.keyring_config.read_text())

    @contextlib.contextmanager
    def running(self) -> Iterator[MysqlServer]:
        """Run it inside the block."""
        process = self._start()
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not self._answers():
                assert process.poll() is None, self.log()[-3000:]
                assert time.monotonic() < deadline, "the server did not answer"
                time.sleep(0.05)
            yield self
        finally:
            process.terminate()
            process.wait(120)

    def fails_to_start(self) -> bool:
        """Start it, and return whether it gives up by itself."""
        process = self._start()
        try:
            return process.wait(_START_SECONDS) != 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            process.kill()
            process.wait(60)

    def _start(self) -> subprocess.Popen[bytes]:
        # The server must not outlive a test process that was killed.
        return subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", self.tree / "bin" / "mysqld"),
                f"--defaults-file={self.directory}/my.cnf",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        return not subprocess.run(
            [
                *(self.tree / "bin" / "mysql", "--no-defaults", "-uroot", f"-S{self.socket}"),
                *("-e", "SELECT 1"),
            ],
            capture_output=True,
            check=False,
            timeout=60,
        ).returncode
