"""What commands call below the command line, imported when first called.

Importing click alone takes 0.04 s, the engine half a second: so every import of ours that costs
stands inside a method. It is also the seam of the tests, which hand in another `Backend`.
"""
# ruff: noqa: PLC0415 - late imports are what this module is for

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from orchestrator.archives import Archives
    from orchestrator.catalogue import Progress, StoredSet, Verdict
    from orchestrator.config import Config
    from orchestrator.disposal import Chosen, Fate, Removal, Revocation
    from orchestrator.durable import RunRecord
    from orchestrator.errors import OrchestratorError
    from orchestrator.facts.look import Look
    from orchestrator.key_uses import KeyUse, LastUse
    from orchestrator.metrics import Sample
    from orchestrator.models import (
        ArchivePlan,
        BackupPlan,
        Check,
        CloneDrillPlan,
        CopyPlan,
        DrillPlan,
        Plan,
        RestorePlan,
        RunPlan,
        Secret,
    )
    from orchestrator.notices import Notice, Sent
    from orchestrator.playbook import Playbook
    from orchestrator.remote import Doors
    from orchestrator.steps.registry import StepInfo
    from orchestrator.vault import Vault
    from orchestrator.vault_setup import Change

_SWITCH_SECONDS = 0.001
ORCHESTRATOR = "orchestrator"
"""Stands for the orchestrator's own token where a host's is named otherwise."""


class Backend:
    """The rooms under the command line, each behind one method.

    What planning a clone has opened and found serves the run that this process begins of it.
    """

    _doors: Doors | None = None
    _look: Look | None = None

    def close(self) -> None:
        """Close what planning has opened."""
        if self._doors is not None:
            self._doors.close()

    def find_config(self, option: str | None) -> Path:
        """Return the configuration file that is meant."""
        from orchestrator import config

        return config.find_file(option)

    def load_config(self, path: Path) -> Config:
        """Read and check the configuration."""
        from orchestrator import config, log

        # unless it is set up, structlog prints to stdout whatever the rooms below log
        log.configure()
        return config.load(path)

    def subscribe(self, listener: Callable[[Any], None]) -> Callable[[], None]:
        """Hand every event of this process to a listener; the answer ends it."""
        from orchestrator import log

        log.configure()
        return log.subscribe(listener)

    def load_playbook(self, name_or_path: str) -> Playbook:
        """Read and check a playbook against the registered steps."""
        from orchestrator import playbook, steps

        steps.load()
        return playbook.load_playbook(name_or_path)

    def parse_playbook(self, text: str) -> Playbook:
        """Check the text of a playbook, as a run has stored it."""
        from orchestrator import playbook, steps

        steps.load()
        return playbook.parse_playbook(text)

    def list_playbooks(self) -> Sequence[Playbook]:
        """Return the shipped playbooks."""
        from orchestrator import playbook, steps

        steps.load()
        return playbook.list_playbooks()

    def find_step(self, name: str) -> StepInfo:
        """Return a registered step."""
        from orchestrator.steps import registry

        return registry.REGISTRY[name]

    def make_plan(
        self, config: Config, donor: str, recipient: str, **options: Any
    ) -> tuple[Plan, Sequence[Check]]:
        """Ask the hosts and Vault; return the plan of a clone, and what the preflight found."""
        from orchestrator import plan
        from orchestrator.remote import Doors

        self._doors = Doors(config)
        made = plan.make_plan(
            config, donor, recipient, options=plan.CloneOptions(**options), doors=self._doors
        )
        self._look = made.look
        return made.plan, made.checks

    def make_backup_plan(
        self, config: Config, donor: str, repository: str, **options: Any
    ) -> tuple[BackupPlan, Sequence[Check]]:
        """Ask the hosts and Vault; return the plan of a backup, and what the preflight found."""
        from orchestrator import plan

        made = plan.BackupOptions(**options)
        return plan.make_backup_plan(config, donor, repository, options=made)

    def make_archive_plan(
        self, config: Config, donor: str, repository: str, *, new_chain: bool, **options: Any
    ) -> tuple[ArchivePlan, Sequence[Check]]:
        """Ask the hosts and Vault; return the plan of an archive, and what the preflight found."""
        from orchestrator import archives, plan

        return archives.make_archive_plan(
            config, donor, repository, options=plan.StreamOptions(**options), new_chain=new_chain
        )

    def list_archives(
        self, config: Config, host: str, repository: str, failed: list[OrchestratorError]
    ) -> Sequence[Archives]:
        """Return the archives of binary logs, by repository and host."""
        from orchestrator import archives

        return archives.list_archives(config, host, repository, failed=failed)

    def make_restore_plan(
        self, config: Config, backup: str, recipient: str, repository: str, **options: Any
    ) -> tuple[RestorePlan, Sequence[Check]]:
        """Ask the hosts and Vault; return the plan of a restore, and what the preflight found."""
        from orchestrator import restores

        made = restores.RestoreOptions(**options)
        return restores.make_restore_plan(
            config, backup, recipient, repository=repository, options=made
        )

    def make_copy_plan(
        self, config: Config, backup: str, repository: str, source: str, throttle: str | None
    ) -> tuple[CopyPlan, Sequence[Check]]:
        """Ask the hosts and Vault; return the plan of a copy, and what the preflight found."""
        from orchestrator import restores

        return restores.make_copy_plan(config, backup, repository, source=source, throttle=throttle)

    def make_drill_plan(
        self, config: Config, backup: str, host: str, repository: str, **options: Any
    ) -> tuple[DrillPlan, Sequence[Check]]:
        """Ask the hosts and Vault; return the plan of a drill, and what the preflight found."""
        from orchestrator import restores

        made = restores.DrillOptions(**options)
        return restores.make_drill_plan(config, backup, host, repository=repository, options=made)

    def make_clone_drill_plan(
        self, config: Config, donor: str, host: str, **options: Any
    ) -> tuple[CloneDrillPlan, Sequence[Check]]:
        """Ask the hosts and Vault; return the plan of the drill of a clone, and what was found."""
        from orchestrator import restores

        made = restores.DrillOptions(**options)
        return restores.make_clone_drill_plan(config, donor, host, options=made)

    def write_drill_report(self, config: Config, run_id: str) -> RunRecord:
        """Write the report of a drill that has ended, well or not."""
        from orchestrator import drills, steps
        from orchestrator.steps import session

        steps.load()
        return drills.write_report(config, run_id, session.open_session)

    def make_group(
        self, config: Config, donor: str, recipients: Sequence[str], **options: Any
    ) -> Sequence[tuple[Plan, Sequence[Check]]]:
        """Plan clones of one donor that share one reading of it; see `make_plan`."""
        from orchestrator import plan

        made = plan.make_group(config, donor, recipients, options=plan.CloneOptions(**options))
        return [(one.plan, one.checks) for one in made]

    def raise_for(self, checks: Sequence[Check]) -> None:
        """Raise when a finding of the preflight is bad, with all bad ones listed."""
        from orchestrator.facts import preflight

        preflight.raise_for(tuple(checks))

    def check_host(self, config: Config, name: str) -> Sequence[Check]:
        """Return what is right and wrong with one host."""
        from orchestrator import plan

        return plan.check_host(config, name)

    def read_receiver(self) -> str:
        """Return the receiver script that belongs to this version."""
        from orchestrator import host

        return host.script("receive.sh")

    def prepare_engine(self) -> None:
        """Begin to load the workflow library, which takes as long as the hosts take to answer."""
        import sys
        import threading

        # Those that ask the hosts come first: two threads that import share one processor.
        from orchestrator import plan  # noqa: F401 - see above
        from orchestrator.durable import engine

        # An import lets others in after so long, each time that an answer has arrived for them.
        sys.setswitchinterval(_SWITCH_SECONDS)
        threading.Thread(target=engine.load_library, daemon=True).start()

    def begin_run(self, config: Config, plan: RunPlan, playbook: Playbook) -> RunRecord:
        """Do a run from its beginning to its end."""
        import functools

        from orchestrator import durable
        from orchestrator.steps import session

        open_session = functools.partial(session.open_session, doors=self._doors, look=self._look)
        return durable.begin_run(config, plan, playbook, open_session)

    def record_runs(self, config: Config, plans: Sequence[Plan], playbook: Playbook) -> None:
        """Write down runs that are to begin together, all of them or none."""
        from orchestrator import durable

        durable.record_runs(config, plans, playbook)

    def start_run(self, config_path: Path, run_id: str) -> subprocess.Popen[bytes]:
        """Start a process that goes on with a run, or begins a recorded one."""
        import json
        import subprocess
        import sys

        from orchestrator.durable import crash

        order = {"config": str(config_path.absolute()), "run_id": run_id}
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        stdin, process.stdin = process.stdin, None
        if stdin is not None:
            with stdin:
                stdin.write(json.dumps(order).encode())
        crash.die_at("group", "started")
        return process

    def resume_run(self, config: Config, run_id: str) -> RunRecord:
        """Go on with a run."""
        from orchestrator import durable, steps
        from orchestrator.steps import session

        steps.load()
        return durable.resume_run(config, run_id, session.open_session)

    def cancel_run(self, config: Config, run_id: str, playbook: Playbook) -> RunRecord:
        """Cancel a run for good, and take back what it changed."""
        from orchestrator import durable
        from orchestrator.steps import session

        return durable.cancel_run(config, run_id, session.open_session, playbook)

    def undo_run(self, config: Config, run_id: str, playbook: Playbook) -> RunRecord:
        """Undo a run that succeeded."""
        from orchestrator import durable
        from orchestrator.steps import session

        return durable.undo_run(config, run_id, session.open_session, playbook)

    def forget_run(self, config: Config, run_id: str, playbook: Playbook) -> RunRecord:
        """Remove what is kept so that a run could be undone."""
        from orchestrator import durable
        from orchestrator.steps import session

        return durable.forget_run(config, run_id, session.open_session, playbook)

    def list_runs(self, config: Config, limit: int) -> Sequence[RunRecord]:
        """Return the newest runs."""
        from orchestrator import durable

        return durable.list_runs(config, limit)

    def read_run(self, config: Config, run_id: str) -> RunRecord:
        """Return one run."""
        from orchestrator import durable

        return durable.read_run(config, run_id)

    def list_backups(
        self, config: Config, repository: str, host: str, failed: list[OrchestratorError]
    ) -> Sequence[StoredSet]:
        """Return the folders of the repositories, the newest set first, and those not read."""
        from orchestrator import catalogue

        return catalogue.list_sets(config, repository, host, failed=failed)

    def list_verifiable_backups(self, config: Config, repository: str) -> Sequence[StoredSet]:
        """Return every backup set that there is, without folders that are none."""
        from orchestrator import catalogue

        listed = catalogue.list_sets(config, repository)
        return [each for each in listed if each.report.state not in catalogue.NO_SETS]

    def find_backups(self, config: Config, wanted: str, repository: str) -> Sequence[StoredSet]:
        """Return the backup set that is meant, from each repository that has it."""
        from orchestrator import catalogue

        return catalogue.find_sets(config, wanted, repository)

    def find_chains(self, config: Config, wanted: str, repository: str) -> Sequence[StoredSet]:
        """Return the backup set that is meant, from each repository, behind all that it builds on."""
        from orchestrator import catalogue

        return catalogue.find_chains(config, wanted, repository)

    def verify_backups(
        self, config: Config, wanted: Sequence[StoredSet], say: Callable[[Progress], None]
    ) -> Iterable[Verdict]:
        """Verify backup sets one after the other."""
        from orchestrator import catalogue

        return catalogue.verify_sets(config, wanted, say)

    def plan_expiry(self, config: Config, repository: str, host: str) -> Sequence[Fate]:
        """Return what the retention says of each backup set."""
        from orchestrator import disposal

        return disposal.plan_expiry(config, repository, host)

    def expire_backups(self, config: Config, fates: Sequence[Fate]) -> Iterable[Removal]:
        """Remove the backup sets that no rule keeps, with their keys."""
        from orchestrator import disposal

        return disposal.expire(config, fates)

    def choose_revoked(
        self, config: Config, wanted: str, host: str, failed: list[OrchestratorError]
    ) -> Chosen:
        """Return the backup sets whose keys are to be destroyed, and repositories not read."""
        from orchestrator import disposal

        return disposal.choose_revoked(config, wanted, host, failed=failed)

    def revoke_keys(
        self, config: Config, chosen: Sequence[StoredSet], reason: str
    ) -> Iterable[Revocation]:
        """Destroy the keys of backup sets, and prove that nobody can read them any more."""
        from orchestrator import disposal

        return disposal.revoke(config, chosen, reason=reason)

    def read_last_uses(self, config: Config) -> dict[str, LastUse]:
        """Return when the keys of each backup were given out last, and to whom."""
        from orchestrator import key_uses
        from orchestrator.config import expand_path

        named = config.vault.audit_file
        return key_uses.read_last_uses(config, [expand_path(named)] if named else [])

    def read_key_uses(
        self,
        config: Config,
        files: Sequence[str],
        since: datetime | None,
        backup_id: str,
        host: str,
    ) -> Sequence[KeyUse]:
        """Return who has read keys, by Vault's audit log, and which of the reads are ours."""
        from orchestrator import key_uses
        from orchestrator.config import expand_path
        from orchestrator.repository.names import find_host

        found = key_uses.read_audit(config, [expand_path(file) for file in files], since)
        return [
            use
            for use in found
            if (not backup_id or use.backup_id == backup_id)
            and (not host or find_host(use.backup_id) == host)
        ]

    def write_metrics(self, config: Config) -> Path | None:
        """Write what the journal tells of backups and restores to the file for Prometheus."""
        from orchestrator import metrics

        return metrics.write_runs(config)

    def collect_metrics(
        self, config: Config
    ) -> tuple[Sequence[Sample], Sequence[Sample], Sequence[Exception]]:
        """Return what the journal tells, what the catalogue tells, and what could not be read."""
        from orchestrator import catalogue, metrics

        stored, errors = metrics.collect_sets(
            config, lambda name: catalogue.list_sets(config, name)
        )
        return metrics.read_runs(config), stored, errors

    def write_stored_metrics(self, config: Config, samples: Iterable[Sample]) -> Path | None:
        """Write what the catalogue tells to the file beside it."""
        from orchestrator import metrics

        return metrics.write_sets(config, samples)

    def format_metrics(self, samples: Iterable[Sample]) -> str:
        """Return samples in the text format of Prometheus."""
        from orchestrator import metrics

        return metrics.format_samples(samples)

    def send_notice(self, config: Config, notice: Notice) -> Sent:
        """Send a notice; it takes `notices.SECONDS` at most."""
        from orchestrator import notices

        return notices.send(config, notice)

    def warn(self, config: Config, run_id: str, about: str, error: OrchestratorError) -> None:
        """Tell of what went wrong beside a run, to its views and in its log."""
        import contextlib

        from orchestrator import log

        path = config.state_directory / "logs" / f"{run_id}.jsonl"
        with contextlib.ExitStack() as stack:
            if path.is_file():
                stack.enter_context(log.run_file(run_id, path))
            stack.enter_context(log.bound(run_id=run_id))
            log.get().warning("notice", about=about, **error.as_json())

    def open_vault(self, config: Config) -> Vault:
        """Return a connection to Vault with the orchestrator's own token."""
        from orchestrator import vault

        return vault.Vault.from_config(config.vault)

    def open_admin_vault(self, config: Config, token_file: str) -> Vault:
        """Return a connection with an administrator's token: from the file, else VAULT_TOKEN."""
        from orchestrator import vault

        # the orchestrator's own token file must not be taken for the administrator's
        settings = config.vault.model_copy(update={"token_file": token_file})
        return vault.Vault.from_config(settings)

    def list_privileges(self, config: Config) -> dict[str, Any]:
        """Return the texts that grant all that clones need; nothing is contacted.

        ``policies`` of Vault by their names, ``grants`` of the database, ``sudoers`` by host.
        """
        from orchestrator.privileges import database, sudo, vault

        sudoers = {host: sudo.sudoers_text(config, host) for host in config.doors}
        return {
            "policies": vault.policies(config),
            "grants": "\n".join(
                database.grants_text(flavor)
                for flavor in sorted({host.flavor for host in config.hosts.values()})
            ),
            "sudoers": {host: text for host, text in sudoers.items() if text},
        }

    def plan_vault_setup(self, vault: Vault, config: Config) -> tuple[Change, ...]:
        """Return what is missing or different in Vault."""
        from orchestrator import vault_setup

        return vault_setup.plan_setup(vault, config)

    def apply_vault_setup(self, vault: Vault, config: Config, shown: tuple[Change, ...]) -> None:
        """Write what was shown."""
        from orchestrator import vault_setup

        vault_setup.apply_setup(vault, config, shown=shown)

    def check_vault_setup(self, vault: Vault, config: Config) -> Sequence[Check]:
        """Return what the orchestrator's own token finds in Vault."""
        from orchestrator import vault_setup

        return vault_setup.check_setup(vault, config)

    def render_renewal(self, config: Config, host: str, address: str) -> dict[str, str]:
        """Return the files that renew a host's own token, by their paths there."""
        from orchestrator import vault_setup

        return vault_setup.render_renewal(config, host, vault_address=address)

    def issue_token(self, vault: Vault, holder: str, path: Path, *, replace: bool) -> None:
        """Write a new periodic token of a host, or of the orchestrator, to a file of mode 0600."""
        from orchestrator import vault as vaults
        from orchestrator import vault_setup

        def issue() -> Secret:
            if holder == ORCHESTRATOR:
                return vault_setup.issue_orchestrator_token(vault)
            return vault_setup.issue_host_token(vault, holder)

        name = "" if holder == ORCHESTRATOR else "VAULT_TOKEN"
        vaults.write_token_file(path, issue, name=name, replace=replace)
