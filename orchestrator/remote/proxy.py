"""A ProxyCommand of the person's ssh configuration: its input and output lead to a server."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile

_STOP_SECONDS = 2


class Proxy:
    """A running ProxyCommand.

    Args:
        command: As ``ssh -G`` gave it, with its tokens replaced.
    """

    def __init__(self, command: str) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the proxy
        self.socket, theirs = socket.socketpair()
        with theirs:
            # ssh_config(5): the command string goes to the user's shell, with exec
            self._process = subprocess.Popen(  # noqa: S603 - the person's own ProxyCommand
                [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._said,
                start_new_session=True,  # Ctrl-C at the prompt must not cut the connection
            )

    def read_last_words(self) -> str:
        """Return the last line that it complained with."""
        self._said.seek(0)
        return self._said.read().decode(errors="replace").strip().rpartition("\n")[2]

    def close(self) -> None:
        """End it."""
        self.socket.close()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._said.close()
