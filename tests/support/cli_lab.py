"""A command line whose rooms below are made of plain values: nothing is contacted."""

# ruff: noqa: D102 - the methods of the fake are described where `Backend` has them

from __future__ import annotations

import dataclasses
import json
import subprocess
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from orchestrator.cli.backend import Backend
from orchestrator.cli.call import Call
from orchestrator.cli.main import app
from orchestrator.durable import PartRecord, RunRecord, StepRecord
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.models import Check, Plan, RunPlan
from orchestrator.playbook import Playbook, PlaybookStep
from orchestrator.steps.registry import Repeat, StepInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator.config import Config
    from orchestrator.vault_setup import Change

RUN_ID = "20261121T210500Z-replica-1a2b"
TOML = """
[vault]
address = "https://vault.example:8200"
[hosts.master]
vault_mount = "keys/master"
[hosts.replica]
vault_mount = "keys/replica"
"""


def make_plan(**changes: Any) -> Plan:
    """Return the plan of a clone from master to replica."""
    plan = Plan(
        run_id=RUN_ID,
        backup_id="20261121T210500Z-master-9f8e",
        donor="master",
        recipient="replica",
        flavor="mariadb",
        server_version="10.11.19",
        datadir="/var/lib/mysql",
        staging_dir="/var/lib/mysql.staging",
        new_datadir="/var/lib/mysql.new",
        old_datadir="/var/lib/mysql.old",
        donor_mount="keys/master",
        own_mount="keys/replica",
        source_address="master",
        source_port=3306,
        parallel=2,
        replace=False,
        require_encryption=False,
        coordinates="auto",
        checksums="all",
        commands={"stream-backup": ("master: mariadb-backup --backup --stream=xbstream",)},
    )
    return dataclasses.replace(plan, **changes)


def make_record(**changes: Any) -> RunRecord:
    """Return the record of a clone that succeeded."""
    check = {"name": "bytes-equal", "ok": True, "evidence": "42 on both ends", "host": ""}
    steps = (
        StepRecord(
            index=0,
            name="stream-backup",
            status="succeeded",
            began_at="2026-11-21T21:05:00.000Z",
            ended_at="2026-11-21T21:05:04.200Z",
            seconds=4.2,
            result={"bytes": 42, "seconds": 4.1},
        ),
        StepRecord(
            index=1,
            name="verify-backup-set",
            status="succeeded",
            seconds=0.3,
            result={
                "coordinates": {"file": "binlog.000004", "position": 342, "gtid": "0-1-99"},
                "checks": [check],
            },
        ),
        StepRecord(
            index=2,
            name="verify-replication",
            status="succeeded",
            seconds=1.0,
            result={"replication": {"io_running": True, "seconds_behind": 0}},
        ),
    )
    record = RunRecord(
        run_id=RUN_ID,
        playbook="clone",
        status="succeeded",
        plan=make_plan(),
        playbook_text="name: clone\n",
        flow_version="flow-1",
        began_at="2026-11-21T21:05:00.000Z",
        ended_at="2026-11-21T21:05:08.500Z",
        steps=steps,
        parts=(
            PartRecord(
                name=f"cleanup:{RUN_ID}:success",
                kind="cleanup",
                status="succeeded",
                began_at="2026-11-21T21:05:06.000Z",
                ended_at="2026-11-21T21:05:08.500Z",
            ),
        ),
    )
    return dataclasses.replace(record, **changes)


@dataclasses.dataclass
class FakeVault:
    """Stands for a connection that the fake hands back to itself."""

    address: str = "https://vault.example:8200"


class FakeBackend(Backend):
    """The rooms below as plain values; `asked` tells what was called in which order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.plan = make_plan()
        self.checks: tuple[Check, ...] = (Check(name="vault-health", ok=True, evidence="unsealed"),)
        self.records = {RUN_ID: make_record()}
        self.events: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.result: RunRecord | None = None
        self.options: dict[str, Any] = {}
        self.said: dict[str, str] = {}
        self.logs: Path | None = None
        self.listeners: list[Callable[[Any], None]] = []
        self.changes: tuple[Change, ...] = ()
        self.host_failures: dict[str, OrchestratorError] = {}

    def subscribe(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def load_playbook(self, name_or_path: str) -> Playbook:
        self.asked.append(f"load_playbook {name_or_path}")
        return Playbook(
            name=name_or_path,
            summary="a playbook of the test",
            steps=tuple(PlaybookStep(use=step.name, on="both") for step in make_record().steps),
            cleanup=(PlaybookStep(use="remove-staging", on="recipient"),),
            text="name: clone\n",
        )

    def parse_playbook(self, text: str) -> Playbook:
        if "unreadable" in text:
            raise ConfigError("of another version")
        return self.load_playbook("clone")

    def list_playbooks(self) -> Sequence[Playbook]:
        return [self.load_playbook("clone"), self.load_playbook("undo")]

    def find_step(self, name: str) -> StepInfo:
        return StepInfo(
            name=name,
            function=make_plan,
            role="both",
            repeat=Repeat.SAFE,
            back_to=(),
            deadline_seconds=600,
            summary=f"Do {name}.",
            values={},
        )

    def make_plan(
        self, config: Config, donor: str, recipient: str, **options: Any
    ) -> tuple[Plan, Sequence[Check]]:
        self.asked.append(f"make_plan {donor} {recipient}")
        self.options = options
        return self.plan, self.checks

    def check_host(self, config: Config, name: str) -> Sequence[Check]:
        self.asked.append(f"check_host {name}")
        if name in self.host_failures:
            raise self.host_failures[name]
        return tuple(dataclasses.replace(check, host=name) for check in self.checks)

    def prepare_engine(self) -> None:
        """Load nothing."""

    def begin_run(self, config: Config, plan: RunPlan, playbook: Playbook) -> RunRecord:
        return self._do("begin_run", plan.run_id)

    def make_group(
        self, config: Config, donor: str, recipients: Sequence[str], **options: Any
    ) -> list[tuple[Plan, Sequence[Check]]]:
        self.asked.append(f"make_group {donor} {' '.join(recipients)}")
        self.options = options
        names = tuple(f"run-{recipient}" for recipient in recipients)
        return [
            (
                dataclasses.replace(self.plan, recipient=recipient, run_id=name, group_runs=names),
                self.checks,
            )
            for recipient, name in zip(recipients, names, strict=True)
        ]

    def record_runs(self, config: Config, plans: Sequence[Plan], playbook: Playbook) -> None:
        self.asked.append(f"record_runs {' '.join(plan.run_id for plan in plans)}")

    def start_run(self, config_path: Path, run_id: str) -> subprocess.Popen[bytes]:
        self.asked.append(f"start_run {run_id}")
        if self.logs is not None:
            event = {"event": "step.began", "step": "stream-backup", "run_id": run_id}
            (self.logs / f"{run_id}.jsonl").write_text(json.dumps(event) + "\n")
        return subprocess.Popen(["printf", "%s", self.said.get(run_id, "")], stdout=subprocess.PIPE)

    def resume_run(self, config: Config, run_id: str) -> RunRecord:
        return self._do("resume_run", run_id)

    def cancel_run(self, config: Config, run_id: str, playbook: Playbook) -> RunRecord:
        return self._do(f"cancel_run by {playbook.name}", run_id)

    def undo_run(self, config: Config, run_id: str, playbook: Playbook) -> RunRecord:
        return self._do(f"undo_run by {playbook.name}", run_id)

    def forget_run(self, config: Config, run_id: str, playbook: Playbook) -> RunRecord:
        return self._do(f"forget_run by {playbook.name}", run_id)

    def list_runs(self, config: Config, limit: int) -> Sequence[RunRecord]:
        return list(self.records.values())[:limit]

    def read_run(self, config: Config, run_id: str) -> RunRecord:
        for name, record in self.records.items():
            if name.startswith(run_id):
                return record
        raise ConfigError(f"unknown run {run_id!r}", hint="`xbvault runs list` shows them")

    def open_vault(self, config: Config) -> Any:
        return FakeVault()

    def open_admin_vault(self, config: Config, token_file: str) -> Any:
        self.asked.append(f"open_admin_vault {token_file}".strip())
        return FakeVault()

    def plan_vault_setup(self, vault: Any, config: Config) -> tuple[Change, ...]:
        return self.changes

    def apply_vault_setup(self, vault: Any, config: Config, shown: tuple[Change, ...]) -> None:
        self.asked.append(f"apply {len(shown)}")
        self.changes = ()

    def check_vault_setup(self, vault: Any, config: Config) -> Sequence[Check]:
        return self.checks

    def issue_token(self, vault: Any, holder: str, path: Path, *, replace: bool) -> None:
        self.asked.append(f"issue_token {holder} {path} {replace}")

    def _do(self, what: str, run_id: str) -> RunRecord:
        self.asked.append(f"{what} {run_id}" if " " not in what else what)
        for event in self.events:
            for listener in tuple(self.listeners):
                listener(event)
        if self.failure is not None:
            raise self.failure
        return self.result or self.records[run_id]


@dataclasses.dataclass
class CommandLine:
    """Calls the command line with the fake under it."""

    backend: FakeBackend
    config: Path
    answers: str | None = None

    def call(self, *arguments: str) -> Result:
        """Call it; with `answers` somebody sits at the terminal and types them."""
        call = Call(backend=self.backend, is_interactive=lambda: self.answers is not None)
        result = CliRunner().invoke(
            app, ["--config", str(self.config), *arguments], obj=call, input=self.answers
        )
        assert self.backend.listeners == []
        return result

    def document(self, *arguments: str) -> Any:
        """Call it with ``--json``, and return the one document on stdout."""
        return json.loads(self.call(*arguments, "--json").stdout)
