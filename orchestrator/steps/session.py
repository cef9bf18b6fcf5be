"""What a process holds while it works on a run: doors, the recipient lock, and what must live on.

The recipient lock is taken before the first step that may change anything. From then on the
recipient itself looks at it before every command of ours, and each step begins with a renewal. Its
lease is renewed by a thread of its own, as are the orchestrator's token and the transition token;
one more thread for each host renews the leases of the run's remote jobs there. So a step that waits
for hours needs not think of them. When the lock is lost, the next look at the cancel flag ends the
step, and so does the next command on the recipient.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

from orchestrator import jobs, lock, log, numerals
from orchestrator.errors import (
    LockHeldError,
    OrchestratorError,
    PreconditionError,
    RemoteError,
    SecretError,
)
from orchestrator.remote import SshRemote
from orchestrator.steps import records, restore, servers
from orchestrator.steps.registry import StepInfo, Tools
from orchestrator.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.config import Config
    from orchestrator.models import Plan
    from orchestrator.remote import Remote

TOKEN_SECONDS = 60
"""How often tokens are looked at."""
JOB_SECONDS = 30.0
"""How often the leases of remote jobs are renewed, at the least."""
JOIN_SECONDS = 30.0
"""Longest wait for the threads, of which one may hang at a host that is gone."""


class Session:
    """The doors of one process to one run's hosts and Vault.

    Args:
        config: The configuration.
        plan: The run's plan.
    """

    def __init__(self, config: Config, plan: Plan) -> None:
        self._config = config
        self._plan = plan
        self._vault = Vault.from_config(config.vault)
        self._donor = SshRemote(plan.donor, config.host(plan.donor), config.ssh)
        self._recipient = SshRemote(plan.recipient, config.host(plan.recipient), config.ssh)
        self._upstream = (
            SshRemote(plan.source, config.host(plan.source), config.ssh)
            if plan.is_sibling
            else None
        )
        self._fence = 0
        self._lost: LockHeldError | None = None
        self._ended = threading.Event()
        self._keepers: tuple[threading.Thread, ...] = ()

    def tools(
        self,
        info: StepInfo,
        attempt: int,
        check_cancelled: Callable[[], None],
        seconds_left: Callable[[], float],
    ) -> Tools:
        """Return what a step works with; take the recipient lock if it needs it.

        Raises:
            LockHeldError: Another run holds the recipient, or another process has taken over.
            PreconditionError: Another run has changed the recipient since this one began, or this
                one has ended already.
            RemoteError: The recipient cannot be reached.
        """
        if self._lost is not None:
            raise self._lost
        if self._fence:
            # Not every step has something to do on the recipient, which would look at the lock.
            self._renew_lock()
        elif info.needs_lock:
            self._take_lock(after_others=info.after_others)

        def check() -> None:
            if self._lost is not None:
                raise self._lost
            check_cancelled()

        return Tools(
            config=self._config,
            vault=self._vault,
            donor=self._donor,
            recipient=self._recipient,
            upstream=self._upstream,
            attempt=attempt,
            fence=self._fence,
            check_cancelled=check,
            seconds_left=seconds_left,
        )

    def start_server(self, tools: Tools, plan: Plan) -> bool:
        """Start the recipient's new server again; return whether it did not run."""
        return servers.start_again(tools, plan)

    def need_unended(self) -> None:
        """Refuse to begin to cancel a run that has ended by another copy of its journal.

        A run that was cancelled there in part only can be cancelled here. What does not answer is no
        reason to wait: remote jobs have to end within seconds.

        Raises:
            PreconditionError: It has ended.
        """
        tools = Tools(
            config=self._config, vault=self._vault, donor=self._donor, recipient=self._recipient
        )
        try:
            self._check_not_ended()
        except SecretError:
            return
        except PreconditionError:
            remembers = self._recipient.run(["test", "-d", self._plan.run_dir], check=False)
            if remembers.status != 0 or restore.is_swapped(tools, self._plan):
                raise

    def end(self, status: str) -> None:
        """Release the recipient lock and close the doors.

        Args:
            status: How the flow ended; a detached one keeps the lock until its lease runs out.
        """
        self._ended.set()
        limit = time.monotonic() + JOIN_SECONDS
        for keeper in self._keepers:
            keeper.join(timeout=max(0.0, limit - time.monotonic()))
        # A run that was killed after its last step has none left to take the lock for, but the
        # killed process may have left it behind.
        may_hold = self._fence or status in ("succeeded", "cancelled")
        try:
            if may_hold and status != "detached" and self._lost is None:
                lock.release_lock(self._recipient, run=self._plan.run_id, holder=self._holder)
        except (RemoteError, LockHeldError) as error:
            # Another process has it, or its lease runs out; what the run ended with matters more.
            log.get().info("notice", message=f"the lock was not released: {error.message}")
        finally:
            for remote in (self._donor, self._recipient, self._upstream):
                if remote is not None:
                    remote.close()

    @property
    def _holder(self) -> str:
        directory = str(self._config.state_directory.absolute())
        digest = hashlib.sha256(directory.encode()).hexdigest()[:8]
        # The kernel takes any name, the lock only words.
        return f"{re.sub('[^A-Za-z0-9.-]', '-', socket.gethostname())[:100]}:{digest}"

    def _take_lock(self, *, after_others: bool) -> None:
        run = self._plan.run_id
        fence = lock.take_lock(
            self._recipient,
            run=run,
            holder=self._holder,
            lease_seconds=self._config.clone.lock_lease_seconds,
        )
        self._recipient.put_fence(lock.fence_command(run=run, fence=fence))
        try:
            if not after_others:
                self._check_not_ended()
            self._check_overtaken(fence, after_others=after_others)
        except OrchestratorError:
            with contextlib.suppress(RemoteError, LockHeldError):
                lock.release_lock(self._recipient, run=run, holder=self._holder)
            self._recipient.put_fence(())
            raise
        self._fence = fence
        # A host that is gone must not hold up what is kept on the other one.
        self._keepers = (
            threading.Thread(target=self._keep, name="keeper", daemon=True),
            *(
                threading.Thread(
                    target=self._keep_jobs, args=(remote,), name=f"keeper-{where}", daemon=True
                )
                for remote, where in ((self._donor, "donor"), (self._recipient, "recipient"))
            ),
        )
        for keeper in self._keepers:
            keeper.start()

    def _check_overtaken(self, fence: int, *, after_others: bool) -> None:
        """Refuse to go on where another run has swapped or written keys since we first came."""
        record = f"{self._plan.run_dir}/fence"
        if self._recipient.run(["test", "-s", record], check=False).status != 0:
            self._recipient.run(
                ["install", "-d", "-m", "0700", "/var/lib/xbvault/runs", self._plan.run_dir]
            )
            self._recipient.write_file(record, f"{fence}\n")
            return
        first = numerals.parse_whole(
            self._recipient.read_file(record).decode("ascii", "replace").strip() or "0"
        )
        state = lock.read_lock(self._recipient)
        overtaken = state.changed_by not in ("", self._plan.run_id)
        if overtaken and state.changed_fence > first and not after_others:
            raise PreconditionError(
                f"run {state.changed_by} has changed {self._plan.recipient} since",
                host=self._plan.recipient,
                hint=f"this run cannot go on: `xbvault runs cancel {self._plan.run_id}`",
            )

    def _check_not_ended(self) -> None:
        """Refuse to go on with a run that has come to its end by another copy of its journal."""
        metadata = self._vault.read_metadata(self._config.vault.mount, self._plan.record_path)
        if metadata is not None and metadata.custom.get("state") == records.DESTROYED:
            raise PreconditionError(
                f"run {self._plan.run_id} has ended elsewhere: its transition key was destroyed "
                f"at {metadata.custom.get('destroyed', '?')}",
                host=self._plan.recipient,
                hint="this journal is older than that end; use the one that the run ended with",
            )

    def _renew_lock(self) -> None:
        lock.renew_lock(
            self._recipient,
            run=self._plan.run_id,
            holder=self._holder,
            fence=self._fence,
            lease_seconds=self._config.clone.lock_lease_seconds,
        )

    def _keep(self) -> None:
        lease_seconds = self._config.clone.lock_lease_seconds
        tokens_at = time.monotonic() + TOKEN_SECONDS / 2
        while not self._ended.wait(lease_seconds / 3):
            try:
                self._renew_lock()
                if time.monotonic() >= tokens_at:
                    tokens_at = time.monotonic() + TOKEN_SECONDS
                    self._renew_tokens()
            except LockHeldError as error:
                self._lost = error
                return
            except OrchestratorError as error:
                # Hosts and Vault come back; while they are gone, the lease decides.
                log.get().info("notice", message=f"not renewed: {error.message}")

    def _keep_jobs(self, remote: Remote) -> None:
        """Renew the leases of the run's remote jobs on a host, at once and from then on."""
        pause = min(JOB_SECONDS, self._config.clone.job_lease_seconds / 5)
        while self._lost is None:
            try:
                jobs.renew_jobs(remote, self._plan.run_id, fence=self._fence)
                if self._plan.group and remote is self._donor:
                    jobs.renew_jobs(remote, self._plan.group)
            except OrchestratorError as error:
                # As long as their lease lasts, the jobs do not miss us.
                log.get().info("notice", message=f"jobs not renewed: {error.message}")
            if self._ended.wait(pause):
                return

    def _renew_tokens(self) -> None:
        """Renew the orchestrator's token and the run's transition tokens."""
        token = self._vault.lookup_token()
        if token.renewable and token.ttl_seconds:
            self._vault.renew_token()
            log.get().info("token.renewed", accessor_of="orchestrator")
        metadata = self._vault.read_metadata(self._config.vault.mount, self._plan.record_path)
        for name, accessor in (metadata.custom if metadata else {}).items():
            if name.endswith(".accessor") and self._vault.lookup_accessor(accessor):
                self._vault.renew_accessor(accessor)
                log.get().info("token.renewed", accessor_of=name)


def open_session(config: Config, plan: Plan) -> Session:
    """Open a session; connections are made when they are first used."""
    return Session(config, plan)
