"""One command on one channel of a connection, from its start to its end."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import paramiko
from paramiko.common import cMSG_CHANNEL_DATA

from orchestrator.remote.errors import FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable

_GRACE_SECONDS = 10
_TIMED_OUT = 124
"""Exit status of timeout(1) when the time was up."""
_KILLED = 137
_CHUNK_BYTES = 1 << 18
_PIECE_BYTES = 1 << 15
"""As much as one packet takes."""


class Conversation:
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
        self.stderr = ""

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
            self.stdout = b"".join(output)
            self.stderr = b"".join(errors).decode("utf-8", errors="replace")
        finally:
            self._seconds = time.monotonic() - began
            self._timer.cancel()
            self._channel.close()


class Flow(Conversation):
    """One command on one channel, whose output is taken block by block.

    Args:
        channel: A fresh session channel.
        timeout_seconds: When the host ends the command.
    """

    def __init__(self, channel: paramiko.Channel, timeout_seconds: float) -> None:
        super().__init__(channel, timeout_seconds)
        self._errors: list[bytes] = []
        self._drain = threading.Thread(
            target=_drain, args=(channel.recv_stderr, self._errors), daemon=True
        )
        self._began = 0.0

    def begin(self, command: str) -> None:
        """Start the command.

        Raises:
            paramiko.SSHException: The connection broke.
        """
        self._began = time.monotonic()
        self._timer.start()
        self._channel.exec_command(command.encode("utf-8", "surrogateescape"))
        self._drain.start()
        _end_input(self._channel)

    def read(self, size: int) -> bytes:
        """Return the next bytes; none when the command has ended, or the connection.

        Raises:
            OSError: The channel was closed, because the time was up.
        """
        data = self._channel.recv(size)
        if not data:
            self._drain.join()
            self._channel.status_event.wait()
            self._seconds = time.monotonic() - self._began
            self.stderr = b"".join(self._errors).decode("utf-8", errors="replace")
        return data

    def end(self) -> None:
        """Let go of the channel, which ends a command that still runs."""
        self._timer.cancel()
        self._channel.close()


def _drain(receive: Callable[[int], bytes], chunks: list[bytes]) -> None:
    with contextlib.suppress(*FAILURES):
        while chunk := receive(_CHUNK_BYTES):
            chunks.append(chunk)


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    # a command need not read all of its input; how it ended says whether that was right
    with contextlib.suppress(*FAILURES):
        start = 0
        while start < len(stdin):
            size = _send_data(channel, stdin[start : start + _PIECE_BYTES])
            if size == 0:
                return
            start += size
        _end_input(channel)


def _send_data(channel: Any, data: bytes) -> int:
    """Send as much as there is room for; return how much that was, none when the command has ended."""
    size = 0

    def make_message() -> paramiko.Message | None:
        nonlocal size
        # there is room, for nobody else sends on this channel; or none, because it is closed
        size = channel._wait_for_send_window(len(data))  # noqa: SLF001 - counts what was sent
        if size == 0:
            return None
        message = paramiko.Message()
        message.add_byte(cMSG_CHANNEL_DATA)
        message.add_int(channel.remote_chanid)
        message.add_string(data[:size])
        return message

    with channel.lock:
        while not (channel.out_window_size or channel.closed or channel.eof_sent):
            channel.out_buffer_cv.wait()
    _send_before_close(channel, make_message)
    return size


def _end_input(channel: Any) -> None:
    """Tell the command that there is no more input, unless it has ended."""
    _send_before_close(channel, channel._send_eof)  # noqa: SLF001 - it makes the message only


def _send_before_close(channel: Any, make_message: Callable[[], paramiko.Message | None]) -> None:
    """Send a message while nobody can close the channel; none is made when that has been done.

    paramiko's own `send` and `shutdown_write` let go of the channel before they send. When the command
    ends just then, sshd gets the message after the channel's close and drops the whole connection:
    "packet referred to nonexistent channel".
    """
    transport = channel.get_transport()
    while transport.is_active():
        transport.clear_to_send.wait(0.1)
        with channel.lock:
            # while keys are exchanged, the transport may need the channel to get on
            if transport.clear_to_send.is_set():
                message = make_message()
                if message is not None:
                    transport._send_user_message(message)  # noqa: SLF001 - see above
                return
