"""A laboratory for a test: brought up in a folder of its own, and taken down whatever happens."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import warm_process
from lab import hosts, model, product
from lab.errors import LabError

from orchestrator import summary

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_SETS = (
    *("stored-parts", "increments", "server-answers", "binlogs-whole", "binlogs-replayed"),
    *("server-isolated", "wrong-identity-refused", "wrong-key-refused"),
    "tables-summed",
)
"""Checks of stored backups, their restores and their drills alone."""
CLONE_CHECKS = [name for name in summary.CHECKS if name not in OF_SETS]
"""Those of a clone."""
MARIADB_CHECKS = [name for name in CLONE_CHECKS if name not in ("sealed-keys", "encrypted-files")]
"""Those of a clone of MariaDB, whose backup tool carries no keys."""
REPOSITORY = Path(__file__).resolve().parents[2]
Finished = subprocess.CompletedProcess[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloneLab:
    """A lab that stands, and the commands that a person would type.

    Attributes:
        directory: The lab's folder.
        client: The client of its servers, where that is not the one of its flavor's name.
        is_warm: Whether ``xbvault`` runs as a fork of a process that has imported everything; else
            as people start it.
    """

    directory: Path
    client: str = ""
    is_warm: bool = False

    @property
    def config_file(self) -> Path:
        """The configuration with root logins."""
        return self.directory / "xbvault.toml"

    @property
    def flavor(self) -> str:
        """The kind of its servers."""
        return model.load(self.directory).flavor

    def lab(self, *arguments: str, check: bool = True, timeout: float = 120) -> Finished:
        """Run a command of the laboratory, such as ``power-off replica``."""
        return _run(
            [sys.executable, "-m", "lab", "--dir", str(self.directory), *arguments],
            env={"PYTHONPATH": str(REPOSITORY / "fixtures")},
            check=check,
            timeout=timeout,
        )

    def on(self, host: str, command: str, *, check: bool = True) -> str:
        """Run a shell command as root on a host and return what it wrote."""
        return self._run_on(host, command, check=check)

    def _run_on(self, host: str, command: str, *, check: bool = True, stdin: str = "") -> str:
        """Do what ``lab exec`` does, without a process more."""
        loaded = model.load(self.directory)
        try:
            argv = hosts.command_in(loaded, loaded.host(host), ["bash", "-c", command])
        except LabError as error:
            if not check:
                return ""
            raise AssertionError(error.message) from error
        return _run(argv, env={}, check=check, timeout=120, stdin=stdin).stdout

    def sql(self, host: str, statement: str) -> list[list[str]]:
        """Run SQL on a host's server and return the rows."""
        client = f"{self.client or self.flavor} --batch --binary-mode --skip-column-names"
        output = self._run_on(host, client, stdin=statement)
        # A name may hold what splitlines() takes for an end of line.
        return [line.split("\t") for line in output.removesuffix("\n").split("\n") if output]

    def xbvault(
        self,
        *arguments: str,
        check: bool = True,
        timeout: float = 300,
        config: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> Finished:
        """Run the command line on this lab."""
        environment = {"XBVAULT_CONFIG": str(config or self.config_file), **(env or {})}
        command = [*product.command(), *arguments]
        if self.is_warm:
            warm = warm_process.get_process()
            with warm.reserve() as is_free:
                if is_free:
                    environment = {**os.environ, **environment}
                    ended = warm.call(arguments, env=environment, timeout=timeout)
                    return _finish(command, ended, check=check)
        return _run(command, env=environment, check=check, timeout=timeout)

    def clone(self, *options: str, check: bool = True, **keywords: Any) -> dict[str, Any]:
        """Clone master to replica and return the document."""
        return self.run("clone", "master", "replica", *options, check=check, **keywords)

    def backup(
        self, host: str, *options: str, check: bool = True, **keywords: Any
    ) -> dict[str, Any]:
        """Store a backup of a host and return the document."""
        return self.run("backup", host, *options, check=check, **keywords)

    def restore(
        self, name: str, host: str, *options: str, check: bool = True, **keywords: Any
    ) -> dict[str, Any]:
        """Bring a stored backup back on a host and return the document."""
        return self.run("restore", name, host, *options, check=check, **keywords)

    def drill(
        self, name: str, host: str, *options: str, check: bool = True, **keywords: Any
    ) -> dict[str, Any]:
        """Prove on a host that a stored backup comes back, and return the document."""
        return self.run("drill", name, host, *options, check=check, **keywords)

    def run(
        self, *arguments: str, check: bool = True, yes: bool = True, **keywords: Any
    ) -> dict[str, Any]:
        """Run a command that works for a while; return its document, with the status as ``exit``."""
        finished = self.xbvault(
            *arguments, "--json", *(["--yes"] if yes else []), check=False, **keywords
        )
        if check and finished.returncode != 0:
            raise AssertionError(f"exit {finished.returncode}: {finished.stdout}{finished.stderr}")
        document: dict[str, Any] = json.loads(finished.stdout)
        return {**document, "exit": finished.returncode}


@contextmanager
def running_lab(
    directory: Path,
    *options: str,
    size: float = 0.05,
    flavor: str = "mariadb",
    is_warm: bool = True,
) -> Iterator[CloneLab]:
    """Bring a lab up with a free id, and take it down.

    Args:
        directory: Where its folder goes.
        options: Further options of ``lab up``, such as ``--replicas 2``.
        size: Data in GB.
        flavor: Kind of its servers, which is also the name of their client.
        is_warm: Whether ``xbvault`` is a fork; not where its own process is looked at.
    """
    lab = CloneLab(directory=directory, is_warm=is_warm)
    lab.lab("up", "--flavor", flavor, "--size", str(size), *options, timeout=180)
    try:
        yield lab
    finally:
        lab.lab("down", timeout=120)


def _run(
    command: list[str],
    *,
    env: dict[str, str],
    check: bool,
    timeout: float,
    stdin: str = "",
) -> Finished:
    ended = subprocess.run(
        command,
        env={**os.environ, **env},
        input=stdin.encode(),
        capture_output=True,
        check=False,
        timeout=timeout,
        cwd=REPOSITORY,
    )
    # Not as text: that would make a newline of every carriage return.
    finished = Finished(command, ended.returncode, ended.stdout.decode(), ended.stderr.decode())
    return _finish(command, finished, check=check)


def _finish(command: list[str], finished: Finished, *, check: bool) -> Finished:
    """Return what came of a command, once it may be so."""
    if check and finished.returncode != 0:
        raise AssertionError(
            f"{' '.join(command)} ended with {finished.returncode}:\n"
            f"{finished.stdout}\n{finished.stderr}"
        )
    return finished
