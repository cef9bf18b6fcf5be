"""What a process holds while it works on a run: doors, the recipient lock, and what must live on.

The recipient lock is taken before the first step that may change anything. From then on the
recipient itself looks at it before every command of ours, and each step begins with such a look. Its
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

from orchestrator import jobs, key_uses, lock, log, numerals
from orchestrator.errors import (
    LockHeldError,
    OrchestratorError,
    PreconditionError,
    RemoteError,
    SecretError,
)
from orchestrator.models import Plan, StoringPlan
from orchestrator.remote import Doors
from orchestrator.repository import names
from orchestrator.steps import records, restore, servers
from orchestrator.steps.registry import StepInfo, Tools

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.config import Config
    from orchestrator.facts.look import Look
    from orchestrator.models import RunPlan
    from orchestrator.remote import Remote

TOKEN_SECONDS = 60
"""How often tokens are looked at."""
JOB_SECONDS = 30.0
"""How often the leases of remote jobs are renewed, at the least."""
RENEW_SECONDS = 2.0
"""A step that begins within this of a renewal of the lock does not renew it again, which costs a sync."""
FENCE_SECONDS = 0.5
"""So long after a command that the fence let through, it is not asked on its own again."""
_OLDER = "this journal is older than that end; use the one that the run ended with"
JOIN_SECONDS = 30.0
"""Longest wait for the threads, of which one may hang at a host that is gone."""


class Session:
    """The doors of one process to one run's hosts and Vault.

    Args:
        config: The configuration.
        plan: The run's plan.
        doors: The doors to the hosts.
        look: What this process has found out about them for this run.
    """

    def __init__(
        self, config: Config, plan: RunPlan, doors: Doors, look: Look | None = None
    ) -> None:
        self._config = config
        self._plan = plan
        self._look = look
        self._vault = key_uses.open_vault(config, plan.run_id)
        self._doors = doors
        self._donor = doors.open(plan.donor)
        self._recipient = doors.open(plan.recipient)
        is_third = plan.source_host not in ("", plan.donor, plan.recipient)
        self._upstream = doors.open(plan.source_host) if is_third else None
        self._fence = 0
        self._renewed_at = 0.0
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
            self._look_at_lock()
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
            look=self._look,
        )

    def start_server(self, tools: Tools, plan: RunPlan) -> bool:
        """Start the recipient's new server again; return whether it did not run."""
        return isinstance(plan, Plan) and servers.start_again(tools, plan)

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
        except (SecretError, RemoteError):
            return
        except PreconditionError:
            remembers = self._recipient.run(["test", "-d", self._plan.run_dir], check=False)
            has_swapped = isinstance(self._plan, Plan) and restore.is_swapped(tools, self._plan)
            if remembers.status != 0 or has_swapped:
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
                lock.release_lock(
                    self._recipient,
                    run=self._plan.run_id,
                    holder=self._holder,
                    base=self._plan.lock_dir,
                )
        except (RemoteError, LockHeldError) as error:
            # Another process has it, or its lease runs out; what the run ended with matters more.
            log.get().info("notice", message=f"the lock was not released: {error.message}")
        finally:
            self._doors.close()

    @property
    def _holder(self) -> str:
        directory = str(self._config.state_directory.absolute())
        digest = hashlib.sha256(directory.encode()).hexdigest()[:8]
        # The kernel takes any name, the lock only words.
        return f"{re.sub('[^A-Za-z0-9.-]', '-', socket.gethostname())[:100]}:{digest}"

    def _take_lock(self, *, after_others: bool) -> None:
        run, asked_at = self._plan.run_id, time.monotonic()
        fence = lock.take_lock(
            self._recipient,
            run=run,
            holder=self._holder,
            lease_seconds=self._config.clone.lock_lease_seconds,
            base=self._plan.lock_dir,
        )
        self._recipient.put_fence(
            lock.fence_command(run=run, fence=fence, base=self._plan.lock_dir)
        )
        try:
            if not after_others:
                self._check_not_ended()
            self._check_overtaken(fence, after_others=after_others)
        except OrchestratorError:
            with contextlib.suppress(RemoteError, LockHeldError):
                lock.release_lock(
                    self._recipient, run=run, holder=self._holder, base=self._plan.lock_dir
                )
            self._recipient.put_fence(())
            raise
        self._fence, self._renewed_at = fence, asked_at
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
        state = lock.read_lock(self._recipient, base=self._plan.lock_dir)
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
                hint=_OLDER,
            )
        if isinstance(self._plan, StoringPlan) and self._is_stored_and_cleaned(self._plan):
            raise PreconditionError(
                f"run {self._plan.run_id} has ended elsewhere: {self._plan.set_dir} has its manifest",
                host=self._plan.recipient,
                hint=_OLDER,
            )

    def _is_stored_and_cleaned(self, plan: StoringPlan) -> bool:
        """Say whether a backup has come to its end: what it remembered is removed last."""
        manifest = f"{plan.set_dir}/{names.MANIFEST}"
        return (
            self._recipient.run(["test", "-e", manifest], check=False).status == 0
            and self._recipient.run(["test", "-d", plan.run_dir], check=False).status != 0
        )

    def _look_at_lock(self) -> None:
        """Renew the lock, unless that was done just now: then see only that it is still ours.

        The fence before a command sees that, so after one that was let through just now, nothing is
        asked.

        Raises:
            LockHeldError: It is not.
        """
        if time.monotonic() - self._renewed_at > RENEW_SECONDS:
            self._renew_lock()
        elif time.monotonic() - self._recipient.let_through_at > FENCE_SECONDS:
            self._recipient.run(["true"])  # which the fence lets through, or does not

    def _renew_lock(self) -> None:
        asked_at = time.monotonic()
        lock.renew_lock(
            self._recipient,
            run=self._plan.run_id,
            holder=self._holder,
            fence=self._fence,
            lease_seconds=self._config.clone.lock_lease_seconds,
            base=self._plan.lock_dir,
        )
        self._renewed_at = asked_at

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


def open_session(
    config: Config, plan: RunPlan, *, doors: Doors | None = None, look: Look | None = None
) -> Session:
    """Open a session; connections are made when they are first used.

    Args:
        config: The configuration.
        plan: The run's plan.
        doors: Doors of this process to the hosts of the run that `look` is of.
        look: What this process has found out about these.
    """
    # A run that ended without letting go of the recipient gets a session as well.
    is_meant = look is not None and look.run_id == plan.run_id
    if doors is None or not is_meant:
        return Session(config, plan, Doors(config))
    return Session(config, plan, doors, look)
