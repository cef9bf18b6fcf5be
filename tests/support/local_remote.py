"""A `Remote` whose host is this machine: real processes, no SSH."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from fake_remote import Blocks

from orchestrator.errors import CommandError, PreconditionError
from orchestrator.remote import Result, as_bytes, find_secret, make_command_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from orchestrator.models import Secret
    from orchestrator.remote import Output, Relay

MOVED = ("/var/lib/xbvault", "/run/xbvault")


@dataclasses.dataclass
class LocalRemote:
    """Runs commands here.

    Attributes:
        root: Paths at or below `MOVED` are looked for below this folder instead, as whole
            arguments and in the file methods; what stands inside stdin is left alone.
        name: The host's name.
    """

    root: Path | None = None
    name: str = "local"

    def place(self, path: str) -> str:
        """Return where a path really is."""
        if self.root and any(path == base or path.startswith(f"{base}/") for base in MOVED):
            return f"{self.root}{path}"
        return path

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | Secret = b"",
        check: bool = True,
        timeout_seconds: float = 60.0,
    ) -> Result:
        """Run a command and wait for its end, and for all that holds its output open."""
        try:
            ended = subprocess.run(
                [self.place(word) for word in argv],
                input=as_bytes(stdin),
                capture_output=True,
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"{argv[0]} took too long", host=self.name) from error
        stderr = ended.stderr.decode("utf-8", errors="replace")
        result = Result(status=ended.returncode, stdout=ended.stdout, stderr=stderr)
        if check and result.status != 0:
            raise make_command_error(argv, result, self.name)
        return result

    @contextlib.contextmanager
    def open_output(self, argv: Sequence[str], *, timeout_seconds: float) -> Iterator[Output]:
        """Run a command whole, and give what it wrote in blocks."""
        yield Blocks(argv, self.run(argv, check=False, timeout_seconds=timeout_seconds), self.name)

    def read_file(self, path: str) -> bytes:
        """Return the content of a file."""
        try:
            return Path(self.place(path)).read_bytes()
        except FileNotFoundError as error:
            raise PreconditionError(f"no file {path}", host=self.name) from error

    def read_secret(self, path: str, name: str = "") -> Secret:
        """Return a file's content, or the value of a name in it, as a secret."""
        return find_secret(self.read_file(path), path, name, self.name)

    def write_file(
        self, path: str, content: str | bytes | Secret, *, mode: int = 0o600, owner: str = ""
    ) -> None:
        """Write a file whole."""
        if owner:
            raise NotImplementedError("owners are for real hosts")
        place = Path(self.place(path))
        temporary = place.with_name(f".{place.name}.new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, mode)
            stream.write(as_bytes(content))
        temporary.rename(place)

    def host_key_lines(self, addresses: Sequence[str]) -> list[str]:
        """Return nothing: no connection, no key."""
        del addresses
        return []

    def find_address(self) -> tuple[str, int]:
        """Refuse: there is no SSH server."""
        raise NotImplementedError("addresses are for real hosts")

    def open_relay(self, target: tuple[str, int]) -> AbstractContextManager[Relay]:
        """Refuse: there is no way to anywhere."""
        raise NotImplementedError("relays are for real hosts")

    def close(self) -> None:
        """Do nothing: there is no connection."""
