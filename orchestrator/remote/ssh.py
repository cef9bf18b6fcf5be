"""A host reached over SSH: connects when needed, runs commands, reads and writes files."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from typing import TYPE_CHECKING

import tenacity

from orchestrator import log
from orchestrator.errors import (
    CommandError,
    ConnectionLostError,
    HostUnreachableError,
    LockHeldError,
    PreconditionError,
)
from orchestrator.remote import files, hops, relay, sudo
from orchestrator.remote.channel import Conversation, Flow
from orchestrator.remote.commands import as_bytes, cut_tail, make_command_error, show_command
from orchestrator.remote.errors import FAILURES, UNREACHABLE_HINT, translate
from orchestrator.remote.interface import Result
from orchestrator.remote.link import CHANNEL_SECONDS, Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import paramiko

    from orchestrator.config import DoorConfig, SshConfig
    from orchestrator.models import Secret
    from orchestrator.remote.interface import Output

_CONNECT_ATTEMPTS = 3
_CONNECT_SECONDS = 5
"""No further attempt to connect, or to open a channel, begins after this."""
FENCED = 75
FENCE_WORDS = "xbvault fence: "
"""How a fence that refuses ends, and how its words begin."""


class SshRemote:
    """A host reached over SSH.

    It connects at the first use, and again when the connection was lost. Threads may share it.

    Args:
        name: The host's name in the configuration, and for ``ssh -G``.
        host: Its configuration.
        ssh: The configuration of connections.

    Attributes:
        let_through_at: When the newest command was sent that a fence then let through, in seconds of
            the monotonic clock; 0 before the first.
    """

    def __init__(self, name: str, host: DoorConfig, ssh: SshConfig) -> None:
        self.name = name
        self.let_through_at = 0.0
        self._host = host
        self._ssh = ssh
        self._guard = threading.Lock()
        self._link: Link | None = None
        self._login = name
        self._fence: tuple[str, ...] = ()

    def put_fence(self, command: Sequence[str]) -> None:
        """Let the host ask a command before each of ours; it refuses, or becomes the one after it.

        Args:
            command: It ends with status `FENCED` and `FENCE_WORDS` to refuse. Empty: no fence.
        """
        self._fence, self.let_through_at = tuple(command), 0.0

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes | Secret = b"",
        check: bool = True,
        timeout_seconds: float = 60.0,
    ) -> Result:
        """Run a command and wait for its end; see `Remote.run`."""
        command, is_fenced = self._frame(argv, timeout_seconds), bool(self._fence)
        conversation = Conversation(self._open_channel(), timeout_seconds)
        broken: BaseException | None = None
        sent_at = time.monotonic()
        try:
            conversation.hold(command, as_bytes(stdin))
        except FAILURES as error:
            broken = error
        result = self._judge(argv, conversation, timeout_seconds, broken=broken, check=check)
        if is_fenced:
            self.let_through_at = sent_at
        return result

    @contextlib.contextmanager
    def open_output(self, argv: Sequence[str], *, timeout_seconds: float) -> Iterator[Output]:
        """Run a command, and give what it writes block by block; see `Remote.open_output`."""
        command = self._frame(argv, timeout_seconds)
        flow = Flow(self._open_channel(), timeout_seconds)

        def judge(broken: BaseException | None) -> None:
            self._judge(argv, flow, timeout_seconds, broken=broken, check=True)

        try:
            try:
                flow.begin(command)
            except FAILURES as error:
                judge(error)
            yield _JudgedOutput(flow, judge)
        finally:
            flow.end()

    def _frame(self, argv: Sequence[str], timeout_seconds: float) -> str:
        """Return the command line with what stands before every command."""
        if not argv or any("\0" in argument for argument in argv):
            raise ValueError("a command needs a program, and no argument can hold a zero byte")
        # Ended by the host, a command does not outlive its time even if this process is gone.
        limit = f"{max(timeout_seconds, 0.001):.3f}"
        command = [*sudo.LIMIT, limit, *self._fence, *argv]
        return shlex.join([*sudo.BECOME, *command] if self._host.become else command)

    def _judge(
        self,
        argv: Sequence[str],
        conversation: Conversation,
        timeout_seconds: float,
        *,
        broken: BaseException | None,
        check: bool,
    ) -> Result:
        if broken is not None or conversation.status < 0 or conversation.is_late:
            raise self._explain_end(argv, conversation, timeout_seconds) from broken
        result = Result(
            status=conversation.status, stdout=conversation.stdout, stderr=conversation.stderr
        )
        if result.status == FENCED and self._fence and result.stderr.startswith(FENCE_WORDS):
            said = result.stderr.strip().removeprefix(FENCE_WORDS)
            raise LockHeldError(
                f"{show_command(argv)} was not begun on {self.name}: {said}",
                host=self.name,
                hint="another process has taken this run or the host over; look there",
            )
        if check and result.status:
            raise self._report(argv, make_command_error(argv, result, self.name))
        return result

    def read_file(self, path: str) -> bytes:
        """Return the content of a file; see `Remote.read_file`."""
        result = self.run(files.make_read_command(path), check=False)
        if result.status == files.NO_FILE:
            raise PreconditionError(f"no file {path}", host=self.name)
        if result.status:
            raise self._report(["cat", path], make_command_error(["cat", path], result, self.name))
        return result.stdout

    def read_secret(self, path: str, name: str = "") -> Secret:
        """Return a file's content, or one value in it, as a secret; see `Remote.read_secret`."""
        return files.find_secret(self.read_file(path), path, name, self.name)

    def write_file(
        self, path: str, content: str | bytes | Secret, *, mode: int = 0o600, owner: str = ""
    ) -> None:
        """Write a file whole; see `Remote.write_file`."""
        data = as_bytes(content)
        command = files.make_write_command(path, size_bytes=len(data), mode=mode, owner=owner)
        result = self.run(command, stdin=data, check=False)
        if result.status:
            argv = ["write", path]
            raise self._report(argv, make_command_error(argv, result, self.name))

    def host_key_lines(self, addresses: Sequence[str]) -> list[str]:
        """Return known_hosts lines with the verified key; see `Remote.host_key_lines`."""
        key = self._find_link().transport.get_remote_server_key()
        return [f"{address} {key.get_name()} {key.get_base64()}" for address in addresses]

    def find_address(self) -> tuple[str, int]:
        """Return its SSH server as this machine connects to it; see `Remote.find_address`."""
        hop = relay.find_direct_hop(self.name, self._host, self._ssh)
        return hop.address, hop.port

    def open_relay(self, target: tuple[str, int]) -> relay.Relay:
        """Open a way from the host through this machine; see `Remote.open_relay`."""
        command = relay.make_command(self.name, self._host, self._ssh, target=target)
        return relay.Relay(command, self.name)

    def close(self) -> None:
        """Close the connection; the next use opens another one."""
        with self._guard:
            self._close_link()

    def _close_link(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _find_link(self) -> Link:
        with self._guard:
            if self._link is None or not self._link.transport.is_active():
                self._close_link()
                self._link = self._open_link()
            return self._link

    def _open_link(self) -> Link:
        way = hops.resolve_way(self.name, self._host, self._ssh)
        self._login = way[-1].login
        link: Link = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: getattr(error, "transient", False)),
            stop=tenacity.stop_after_attempt(_CONNECT_ATTEMPTS)
            | tenacity.stop_after_delay(_CONNECT_SECONDS),
            wait=tenacity.wait_exponential(multiplier=0.3, max=2),
            reraise=True,
        )(Link.open, self.name, way)
        if self._host.become:
            try:
                self._check_sudo(link, way[-1].user)
            except BaseException:
                link.close()
                raise
        return link

    def _check_sudo(self, link: Link, user: str) -> None:
        """Ask once whether sudo lets this login do without a password what every command takes."""
        try:
            conversation = Conversation(
                link.transport.open_session(timeout=CHANNEL_SECONDS), CHANNEL_SECONDS
            )
            conversation.hold(shlex.join([*sudo.BECOME, *sudo.LIMIT, "5", "true"]), b"")
        except FAILURES as error:
            raise translate(error, host=self.name, login=self._login) from error
        if conversation.status < 0:
            raise HostUnreachableError(
                f"{self._login}: the connection ended before sudo answered",
                host=self.name,
                hint=UNREACHABLE_HINT,
            )
        if conversation.status:
            said = conversation.stderr.strip().rpartition("\n")[2]
            raise PreconditionError(
                f"{user} cannot become root on {self.name}: {log.redact_text(said)}",
                host=self.name,
                hint=f"install sudo there, with the line `{sudo.control_rule(user)}` in "
                "/etc/sudoers.d/xbvault, or log in as root and set become = false",
            )

    def _open_channel(self) -> paramiko.Channel:
        retrying = tenacity.Retrying(
            # sshd has a number of sessions (MaxSessions), and counts each a moment past its end
            retry=tenacity.retry_if_exception_type(FAILURES),
            stop=tenacity.stop_after_delay(_CONNECT_SECONDS),
            wait=tenacity.wait_exponential(multiplier=0.1, max=1),
            reraise=True,
        )
        try:
            return retrying(self._try_channel)
        except FAILURES as error:
            raise translate(error, host=self.name, login=self._login) from error

    def _try_channel(self) -> paramiko.Channel:
        link = self._find_link()
        began = time.monotonic()
        try:
            return link.transport.open_session(timeout=CHANNEL_SECONDS)
        except FAILURES:
            # The class tells nothing: paramiko keeps one exception for all threads, so that the
            # second one that is refused gets "Unable to open channel".
            is_silent = time.monotonic() - began >= CHANNEL_SECONDS
            if link.transport.is_active() and not is_silent:
                raise
        # the connection was lost since its last use; nothing has started, so a new one will do
        with self._guard:
            if self._link is link:
                self._close_link()
        return self._find_link().transport.open_session(timeout=CHANNEL_SECONDS)

    def _explain_end(
        self, argv: Sequence[str], conversation: Conversation, timeout_seconds: float
    ) -> CommandError:
        shown = show_command(argv)
        kind = CommandError
        if conversation.is_late:
            fact = f"did not end within {timeout_seconds:g} s"
            hint = (
                "it may wait there for a lock, or for space on a full filesystem; see, then "
                "`xbvault runs resume`"
            )
        elif conversation.is_killed:
            fact, hint = "was killed by a signal", "look into the host's kernel log"
        else:
            kind = ConnectionLostError
            fact = f"was running when the connection to {self._login} broke"
            hint = "see the way to the host, then `xbvault runs resume`, which looks before it acts"
        error = kind(
            f"{shown} on {self.name} {fact}",
            host=self.name,
            hint=hint,
            stderr=cut_tail(conversation.stderr),
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


class _JudgedOutput:
    """Output of a command whose end is judged when it is reached."""

    def __init__(self, flow: Flow, judge: Callable[[BaseException | None], None]) -> None:
        self._flow = flow
        self._judge = judge

    def read(self, size: int) -> bytes:
        """Return the next bytes; see `Output.read`."""
        broken: BaseException | None = None
        try:
            data = self._flow.read(size)
        except FAILURES as error:
            data, broken = b"", error
        if not data:
            self._judge(broken)
        return data
