"""What every way to reach a host offers: `Remote`, and the `Result` of a command."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from orchestrator.models import Secret


LOOPBACK = "127.0.0.1"


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


class Output(Protocol):
    """What a command writes, block by block, while it runs."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; none at the end, if the command succeeded.

        Raises:
            CommandError: It failed, was killed, took too long, or the connection broke.
        """


class Relay(Protocol):
    """A way from one host to another through this machine.

    It outlives this process as long as a connection goes through it.
    """

    @property
    def port(self) -> int:
        """Port of `LOOPBACK` on the host at which the way begins."""


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

    def open_output(
        self, argv: Sequence[str], *, timeout_seconds: float
    ) -> AbstractContextManager[Output]:
        """Run a command that writes more than memory holds; it has no input.

        Who leaves before the end ends the command.

        Args:
            argv: As for `run`.
            timeout_seconds: Longest time that it may take; then the host itself ends it.

        Raises:
            HostUnreachableError: The command did not start; see `run` for others.
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

    def find_address(self) -> tuple[str, int]:
        """Return the address and port of its SSH server, as this machine connects to it.

        Raises:
            PreconditionError: This machine reaches it through another one.
        """

    def open_relay(self, target: tuple[str, int]) -> AbstractContextManager[Relay]:
        """Open a way from the host to an address that this machine reaches.

        Args:
            target: Address and port.

        Raises:
            HostUnreachableError: The way could not be opened.
            PreconditionError: The host does not allow it.
        """

    def close(self) -> None:
        """Close the connection; the next use opens another one."""
