"""The stand on which nemeses strike: a laboratory, an orchestrator that halts, tools with gates."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kills
import laws
from clone_lab import REPOSITORY, CloneLab
from lab import bao, hosts, model, product
from lab.commands import run, wait_until
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ENDS_SECONDS = 240
"""No process may take longer than this to its end, whatever is broken."""
COMES_SECONDS = 90
FILLER = "fills-the-disk"
_numbers = itertools.count(1)
_GATE = """\
#!/bin/bash
# The gate of {tool}: lets so many bytes of its {side} pass, says so, and waits until it is opened.
set -o pipefail
case " $* " in
    *{word}*) ;;
    *) exec {real} "$@" ;;
esac
hold() {{
    head -c {after_bytes}
    : > {reached}
    until [ -e {opened} ]; do sleep 0.05; done
    exec cat
}}
{pipe}
"""
_PIPES = {"output": '{real} "$@" | hold', "input": 'hold | {real} "$@"', "start": '{real} "$@"'}
GATES = {
    OURS.backup_gate: ("output", "--backup"),
    OURS.extract_gate: ("input", " -x "),
    OURS.prepare_gate: ("start", "--prepare"),
    OURS.restore_gate: ("start", OURS.restore_word),
}
"""What a gate holds: which side of the tool, and by which word of its command it is known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """A process of the command line that has ended.

    Attributes:
        status: Exit status; negative if it was killed.
        document: What it wrote to stdout, if that is JSON.
        talk: What it wrote to stderr.
    """

    status: int
    document: dict[str, Any]
    talk: str

    @property
    def error(self) -> dict[str, Any]:
        """The error in its document; empty if there is none."""
        found: dict[str, Any] = self.document.get("error") or {}
        return found


class Command:
    """A process of the command line in the background.

    Args:
        lab: The lab.
        arguments: After ``xbvault``.
        environment: What is set besides.
        folder: Where its output goes.
    """

    def __init__(
        self,
        lab: CloneLab,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
    ) -> None:
        number = next(_numbers)  # several may run at once
        self._out, self._err = folder / f"stdout.{number}", folder / f"stderr.{number}"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*product.command(), *arguments],
                env={**os.environ, "XBVAULT_CONFIG": str(lab.config_file), **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=REPOSITORY,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    @property
    def is_halted(self) -> bool:
        """Whether it was stopped by a signal."""
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8")
            return stat.rpartition(")")[2].split()[0] == "T"
        return False

    def go_on(self) -> None:
        """Let a halted process go on."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End it at once if it still runs."""
        self._process.kill()
        self._process.wait(timeout=10)

    def wait(self) -> Ended:
        """Wait for its end.

        Raises:
            AssertionError: It hangs.
        """
        try:
            status = self._process.wait(timeout=ENDS_SECONDS)
        except subprocess.TimeoutExpired as error:
            self.end()
            raise AssertionError(f"it hangs: {self._err.read_text()[-2000:]}") from error
        out = self._out.read_text(encoding="utf-8")
        document = json.loads(out) if out.startswith("{") else {}
        return Ended(status=status, document=document, talk=self._err.read_text(encoding="utf-8"))


class Stand:
    """A lab, and what nemeses do to it.

    Args:
        lab: A lab with one replica that has a server of its own.
        folder: For the commands' output.

    Attributes:
        lab: The lab.
        model: The same as the laboratory sees it.
        folder: For files of the test's own.
    """

    def __init__(self, lab: CloneLab, folder: Path) -> None:
        self.lab = lab
        self.model = model.load(lab.directory)
        self.folder = folder

    # The orchestrator.

    @property
    def state(self) -> Path:
        """The folder of the journal and the logs."""
        return self.lab.directory / "state"

    @property
    def journal(self) -> Path:
        """The journal."""
        return self.state / "journal.sqlite"

    def write_config(self, options: str) -> Path:
        """Write the lab's configuration with these lines in ``[clone]``; return the file.

        A host that does not answer is given up after a few seconds.
        """
        path = self.folder / "options.toml"
        text = self.lab.config_file.read_text(encoding="utf-8")
        text = text.replace("[ssh]\n", "[ssh]\nconnect_timeout_seconds = 3\n")
        path.write_text(f"{text}\n[clone]\n{options}\n", encoding="utf-8")
        return path

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Command:
        """Start a command in the background."""
        return Command(self.lab, arguments, environment or {}, self.folder)

    def read_newest_run(self) -> str:
        """Return the newest run; its name begins with its time."""
        logs = self.state / "logs"
        found = [path.stem for path in logs.iterdir()] if logs.is_dir() else []
        return max(found, default="")

    def read_events(self, run_id: str) -> list[dict[str, Any]]:
        """Return what a run has logged."""
        return kills.read_events(self.state, run_id)

    def read_step(self, run_id: str) -> str:
        """Return the step that a run began last."""
        began = [e["step"] for e in self.read_events(run_id) if e["event"] == "step.began"]
        return str(began[-1]) if began else ""

    # Hosts.

    def shrink(self, name: str, *, size: str) -> None:
        """Give a host a small filesystem of its own for /var/lib, with what was in there."""
        library = self.host(name).root / "var/lib"
        self.lab.lab("server", "stop", name)
        self.power_off(name)
        kept = library.rename(library.with_name("lib.kept"))
        library.mkdir(mode=0o755)
        run(["mount", "-t", "tmpfs", "-o", f"mode=755,size={size}", "tmpfs", str(library)])
        run(["cp", "-a", f"{kept}/.", str(library)])
        shutil.rmtree(kept)
        self.power_on(name)
        self.lab.lab("server", "start", name)

    def host(self, name: str) -> model.Host:
        """Return a host."""
        return self.model.host(name)

    def on(self, name: str, script: str, *, check: bool = True) -> str:
        """Run a shell script as root on a host, past SSH; return what it wrote."""
        done = hosts.run_on(
            self.model, self.host(name), "bash", "-c", script, check=check, timeout_seconds=60
        )
        return done.stdout

    def signal_on(self, name: str, pattern: str, signal_name: str) -> None:
        """Send a signal to every process on a host whose name matches.

        Raises:
            LabError: There is none.
        """
        # The name of a double's process is that of its interpreter.
        by_path = shlex.quote(f"(^|/){pattern}( |$)")
        self.on(
            name,
            f"pkill -{signal_name} -x -- {shlex.quote(pattern)} || "
            f"pkill -{signal_name} -f -- {by_path}",
        )

    def power_off(self, name: str) -> None:
        """Take the power from a host."""
        hosts.power_off(self.model, self.host(name))

    def power_on(self, name: str) -> None:
        """Give a host its power back; its server is not started."""
        if hosts.find_first_process(self.model, self.host(name)) is None:
            hosts.power_on(self.model, self.host(name))

    def fill(self, name: str, directory: str) -> None:
        """Fill the filesystem of a host's directory to its last byte."""
        self.on(name, f"cat /dev/zero > {directory}/{FILLER} 2>&1 | true")

    def make_room(self, name: str, directory: str) -> None:
        """Take away what filled it."""
        self.on(name, f"rm {directory}/{FILLER}")

    # The network.

    @contextlib.contextmanager
    def apart(self, *names: str) -> Iterator[None]:
        """These hosts cannot reach each other; this machine, with Vault, reaches each of them."""
        links = [self.host(name).link for name in names]
        for link in links:
            run(["ip", "link", "set", "dev", link, "type", "bridge_slave", "isolated", "on"])
        try:
            yield
        finally:
            for link in links:
                run(["ip", "link", "set", "dev", link, "type", "bridge_slave", "isolated", "off"])

    @contextlib.contextmanager
    def cut_off(self, *names: str) -> Iterator[None]:
        """These hosts cannot reach this machine, nor Vault on it; packets are lost in silence."""
        route = f"blackhole {self.model.gateway}/32"
        for name in names:
            self.on(name, f"ip route add {route}")
        try:
            yield
        finally:
            for name in names:
                self.on(name, f"ip route del {route}")

    # Vault.

    def vault(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        """Ask Vault with the root token."""
        return bao.request(self.model, method, path, document, token=bao.root_token(self.model))

    # Gates.

    @contextlib.contextmanager
    def gate(self, name: str, *, after_bytes: int) -> Iterator[Gate]:
        """Put a gate before a tool, see `GATES`."""
        host, _, command = name.partition(":")
        tool = command.split()[0]
        side, word = GATES[name]
        gate = Gate(self.host(host), tool)
        gate.folder.mkdir()
        hold = "(hold </dev/null >/dev/null)\n" if side == "start" else ""
        with self.in_place_of(host, tool) as (program, real):
            text = _GATE.format(
                tool=tool,
                side=side,
                word=shlex.quote(word),
                real=real,
                after_bytes=after_bytes,
                reached=gate.on_host / "reached",
                opened=gate.on_host / "opened",
                pipe=hold + _PIPES[side].format(real=real),
            )
            program.write_text(text, encoding="utf-8")
            program.chmod(0o755)
            try:
                yield gate
            finally:
                gate.open()
        shutil.rmtree(gate.folder)

    @contextlib.contextmanager
    def in_place_of(self, name: str, tool: str) -> Iterator[tuple[Path, str]]:
        """Give the path on a host at which another program stands before a tool, and the tool."""
        program = self.host(name).root / "usr/local/sbin" / tool
        link = str(program.readlink()) if program.is_symlink() else ""
        program.unlink(missing_ok=True)
        try:
            yield program, link or str(shutil.which(tool))
        finally:
            program.unlink(missing_ok=True)
            if link:
                program.symlink_to(link)


def make_stand(lab: CloneLab, folder: Path) -> Stand:
    """Return a stand on a lab that came up, with filesystems that can be filled."""
    stand = Stand(lab, folder)
    stand.shrink("replica", size="1500m")
    stand.state.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "mode=700,size=48m", "tmpfs", str(stand.state)])
    (folder / "clock").write_text("+0", encoding="utf-8")
    return stand


class Gate:
    """A tool's gate on a host, as this machine sees it."""

    def __init__(self, host: model.Host, tool: str) -> None:
        self.on_host = Path("/var/log") / f"gate-{tool}"
        self.folder = host.root / str(self.on_host).lstrip("/")

    @property
    def is_reached(self) -> bool:
        """Whether the tool waits there."""
        return (self.folder / "reached").exists()

    def open(self) -> None:
        """Let the tool pass, now and later."""
        (self.folder / "opened").touch()


def note(stand: Stand) -> laws.Before:
    """Start the writer and the recipient's server, and note what a run must not change."""
    stand.lab.lab("writer", "start", check=False)
    stand.lab.lab("server", "start", "replica")
    return laws.note(stand.lab)


def wait_for(condition: Any, what: str, *, seconds: float = COMES_SECONDS) -> None:
    """Wait until something holds."""
    wait_until(condition, what, timeout_seconds=seconds, pause_seconds=0.05)


def pause(seconds: float) -> None:
    """Wait for as long as something is to be broken."""
    time.sleep(seconds)
