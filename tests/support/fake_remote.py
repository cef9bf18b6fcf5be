"""The one double of a host: a `Remote` made of dictionaries.

It passes the same suite as the real one (``remote_suite.py``). Files live in a dictionary, and a
command gets the answer that was put down for the longest beginning of its argument list. A
command without an answer raises, so that no test passes because of one that it did not expect.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from typing import TYPE_CHECKING

from orchestrator import log, remote
from orchestrator.errors import HostUnreachableError, PreconditionError
from orchestrator.remote import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from orchestrator.models import Secret
    from orchestrator.remote import Output, Relay

    Answer = Result | BaseException | Callable[["Call"], Result]

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDFha2V0aGVmYWtlaG9zdGtleW9mdGhlZmFrZWhv"


class UnexpectedCommandError(AssertionError):
    """A command that the test put no answer down for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A command that was run.

    Attributes:
        argv: Program and arguments.
        stdin: What it was given to read.
        check: Whether a failure was to raise.
        timeout_seconds: Longest time.
    """

    argv: tuple[str, ...]
    stdin: bytes
    check: bool
    timeout_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeRelay:
    """A way through this machine that leads nowhere."""

    port: int


class Blocks:
    """What a command wrote, given in blocks, and at its end whether it failed.

    Args:
        argv: The command.
        result: How it ended.
        name: The host's name.
    """

    def __init__(self, argv: Sequence[str], result: Result, name: str) -> None:
        self._argv = argv
        self._result = result
        self._name = name
        self._rest = io.BytesIO(result.stdout)

    def read(self, size: int) -> bytes:
        """Return the next bytes; see `Output.read`."""
        data = self._rest.read(size)
        if not data and self._result.status:
            raise remote.make_command_error(self._argv, self._result, self._name)
        return data


class FakeRemote:
    """A host made of dictionaries.

    Args:
        name: The host's name.
        files: Path to content.
        answers: Beginning of an argument list to an answer: a `Result`, an exception to raise, or
            a function of the `Call`.
    """

    def __init__(
        self,
        name: str = "db1",
        *,
        files: Mapping[str, str | bytes] | None = None,
        answers: Mapping[tuple[str, ...], Answer] | None = None,
    ) -> None:
        self.name = name
        self.files = {path: remote.as_bytes(content) for path, content in (files or {}).items()}
        self.modes = dict.fromkeys(self.files, 0o644)
        self.owners = dict.fromkeys(self.files, "root")
        self.answers = dict(answers or {})
        self.calls: list[Call] = []
        self.let_through_at = 0.0
        self.host_key = HOST_KEY
        self.is_unreachable = False
        self.is_behind_another = False
        self.relayed: list[tuple[str, int]] = []

    def answer(
        self, *argv: str, stdout: str | bytes = b"", stderr: str = "", status: int = 0
    ) -> None:
        """Put an answer down for every command that begins like this."""
        self.answers[argv] = Result(status=status, stdout=remote.as_bytes(stdout), stderr=stderr)

    def ran(self, *argv: str) -> list[Call]:
        """Return the commands that began like this, in order."""
        return [call for call in self.calls if call.argv[: len(argv)] == argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | Secret = b"",
        check: bool = True,
        timeout_seconds: float = 60.0,
    ) -> Result:
        """Give the answer that was put down; see `Remote.run`."""
        self._reach()
        if not argv or any("\0" in argument for argument in argv):
            raise ValueError("a command needs a program, and no argument can hold a zero byte")
        call = Call(
            argv=tuple(argv),
            stdin=remote.as_bytes(stdin),
            check=check,
            timeout_seconds=timeout_seconds,
        )
        self.calls.append(call)
        result = self._find_answer(call)
        if check and result.status:
            error = remote.make_command_error(argv, result, self.name)
            log.get().warning(
                "command.failed",
                host=self.name,
                command=remote.show_command(argv),
                status=error.status,
                stderr=error.stderr,
            )
            raise error
        return result

    @contextlib.contextmanager
    def open_output(self, argv: Sequence[str], *, timeout_seconds: float) -> Iterator[Output]:
        """Give the answer that was put down, in blocks; see `Remote.open_output`."""
        yield Blocks(argv, self.run(argv, check=False, timeout_seconds=timeout_seconds), self.name)

    def read_file(self, path: str) -> bytes:
        """Return the content of a file; see `Remote.read_file`."""
        self._reach()
        if path not in self.files:
            raise PreconditionError(f"no file {path}", host=self.name)
        return self.files[path]

    def read_secret(self, path: str, name: str = "") -> Secret:
        """Return a file's content, or one value in it, as a secret; see `Remote.read_secret`."""
        return remote.find_secret(self.read_file(path), path, name, self.name)

    def write_file(
        self, path: str, content: str | bytes | Secret, *, mode: int = 0o600, owner: str = ""
    ) -> None:
        """Write a file whole; see `Remote.write_file`."""
        self._reach()
        self.files[path] = remote.as_bytes(content)
        self.modes[path] = mode
        self.owners[path] = owner or "root"

    def host_key_lines(self, addresses: Sequence[str]) -> list[str]:
        """Return known_hosts lines with the host's key; see `Remote.host_key_lines`."""
        self._reach()
        return [f"{address} {self.host_key}" for address in addresses]

    def find_address(self) -> tuple[str, int]:
        """Return an address of its own; see `Remote.find_address`."""
        if self.is_behind_another:
            raise PreconditionError(f"this machine reaches {self.name} through another")
        return "192.0.2.1", 22

    @contextlib.contextmanager
    def open_relay(self, target: tuple[str, int]) -> Iterator[Relay]:
        """Give a port that leads nowhere; see `Remote.open_relay`."""
        self._reach()
        self.relayed.append(target)
        yield FakeRelay(port=40_000 + len(self.relayed))

    def close(self) -> None:
        """Close nothing; the next use works as before."""

    def _reach(self) -> None:
        if self.is_unreachable:
            raise HostUnreachableError(f"root@{self.name} port 22: nothing answers", host=self.name)

    def _find_answer(self, call: Call) -> Result:
        for length in range(len(call.argv), 0, -1):
            found = self.answers.get(call.argv[:length])
            if isinstance(found, Result):
                return found
            if isinstance(found, BaseException):
                raise found
            if found is not None:
                return found(call)
        raise UnexpectedCommandError(f"{self.name} has no answer for {list(call.argv)}")
