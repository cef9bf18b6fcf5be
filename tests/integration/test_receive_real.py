from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from local_remote import LocalRemote

from orchestrator import jobs, lock
from orchestrator.host import script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(120)

RUN = "20261121T210500Z-db2-0a1b"
NAME = f"{RUN}.receive-backup-set"


@dataclasses.dataclass(frozen=True)
class Recipient:
    """This machine as a recipient, below the test's folder.

    Attributes:
        remote: The door to it.
        receiver: The receiver, as it is installed there.
        out: Where the armed job puts what it gets.
    """

    remote: LocalRemote
    receiver: Path
    out: Path

    @property
    def base(self) -> Path:
        """Our folder on the recipient."""
        return Path(self.remote.place(jobs.BASE))

    def arm(
        self,
        *stages: tuple[str, ...],
        fence: int = 0,
        name: str = NAME,
        lease_seconds: int = jobs.LEASE_SECONDS,
    ) -> None:
        """Arm the job, and point the run to it."""
        jobs.arm_job(
            self.remote,
            jobs.JobSpec(
                name=name,
                stages=tuple(jobs.Stage(argv=argv) for argv in stages or (("cat",),)),
                count_after=jobs.COUNT_INPUT,
                stdout_file=str(self.out),
                fence=fence,
                lease_seconds=lease_seconds,
            ),
        )
        self.point(name)

    def point(self, text: str, run: str = RUN) -> None:
        """Write which job the receiver starts."""
        folder = self.base / "runs" / run
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "receive").write_text(f"{text}\n")

    def receive(
        self, *words: str, data: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the receiver, as sshd would."""
        return subprocess.run(
            ["/bin/sh", str(self.receiver), *words],
            input=data,
            env={"PATH": "/nowhere", **environment},
            capture_output=True,
            timeout=60,
            check=False,
        )

    def state(self) -> jobs.JobState:
        """Return the state of the armed job."""
        return jobs.read_job(self.remote, NAME)


@pytest.fixture
def recipient(tmp_path: Path) -> Iterator[Recipient]:
    """A recipient that is held by the run, with its job not yet armed."""
    remote = LocalRemote(root=tmp_path)
    text = script("receive.sh")
    line = f"base={jobs.BASE}\n"
    assert text.count(line) == 1
    receiver = tmp_path / "xbvault-receive"
    receiver.write_text(text.replace(line, f"base={remote.place(jobs.BASE)}\n"))
    receiver.chmod(0o755)
    lock.take_lock(remote, run=RUN, holder="j1", lease_seconds=60)
    made = Recipient(remote=remote, receiver=receiver, out=tmp_path / "out")
    yield made
    for found in (made.base / "jobs").glob("[!.]*"):
        jobs.remove_job(remote, found.name)


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something that is going to happen."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen in time"
        time.sleep(0.02)


def test_what_arrives_is_received(recipient: Recipient) -> None:
    """The armed job gets the data, its files say how it went, and the sender sees 0."""
    data = os.urandom(1_234_567)
    recipient.arm(fence=1)
    ended = recipient.receive(RUN, data=data)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    state = recipient.state()
    assert (state.is_ok, state.statuses, state.bytes) == (True, (0,), len(data))
    assert recipient.out.read_bytes() == data
    assert jobs.wait_for_job(recipient.remote, NAME, deadline_seconds=1) == state


def test_the_run_may_come_from_sshd(recipient: Recipient) -> None:
    """Without an argument, the command that the sender asked for is the run id."""
    recipient.arm()
    assert recipient.receive("", data=b"x", SSH_ORIGINAL_COMMAND=RUN).returncode == 0
    assert recipient.state().is_ok


@pytest.mark.parametrize(
    "word",
    [
        "",
        ".",
        "..",
        "../runs",
        f"./{RUN}",
        f"{RUN}/",
        f"{RUN} ",
        f" {RUN}",
        f"{RUN}\n",
        f"{RUN};id",
        f"{RUN} --help",
        "$(touch TRAP)",
        "`touch TRAP`",
        "*",
        "[2]*",
        "-c",
        "--",
        "é",
        "sh -i",
        "/bin/sh",
        "x" * 201,
        "x" * 100_000,
        RUN[:-1],
        RUN + "x",
        NAME,
        "20261121T210500Z-db2-ffff",
    ],
)
def test_any_other_word_is_refused(recipient: Recipient, tmp_path: Path, word: str) -> None:
    """Only the run that the lock names gets in; nothing is run, and nothing repeated."""
    recipient.arm()
    word = word.replace("TRAP", str(tmp_path / "trap"))
    for ended in (
        recipient.receive(word, data=b"x"),
        recipient.receive(data=b"x", SSH_ORIGINAL_COMMAND=word),
    ):
        assert ended.returncode == 77
        assert ended.stderr.startswith(b"xbvault-receive: ")
        assert ended.stderr.isascii()
        assert len(ended.stderr) < 200
    assert recipient.receive(RUN, word, data=b"x").returncode == 77
    assert not (tmp_path / "trap").exists()
    assert not recipient.out.exists()
    assert (recipient.base / "jobs" / NAME / "begun.new").exists()


def test_a_run_without_the_lock_is_refused(recipient: Recipient) -> None:
    """An armed job is of no use once the lock is another's, is free, or its lease is over."""
    recipient.arm()
    remote = recipient.remote
    lock.release_lock(remote, run=RUN, holder="j1")
    assert recipient.receive(RUN).returncode == 77
    lock.take_lock(remote, run="other", holder="j1", lease_seconds=1)
    assert recipient.receive(RUN).returncode == 77
    time.sleep(1.1)
    lock.take_lock(remote, run=RUN, holder="j1", lease_seconds=1)
    time.sleep(1.1)
    assert recipient.receive(RUN).returncode == 77
    lock.take_lock(remote, run=RUN, holder="j1", lease_seconds=60)
    assert recipient.receive(RUN).returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "../../x",
        f"../jobs/{NAME}",
        "other.receive-backup-set",
        RUN,
        f"{RUN}x.step",
        f"{RUN}.none",
        f"{RUN}.started",
        f"{NAME} x",
        "/etc/passwd",
    ],
)
def test_a_pointer_to_anything_else_is_refused(recipient: Recipient, text: str) -> None:
    """Only an armed job of the run itself is started."""
    recipient.arm()
    recipient.arm(name="other.receive-backup-set")
    jobs.start_job(
        recipient.remote,
        jobs.JobSpec(name=f"{RUN}.started", stages=(jobs.Stage(argv=("true",)),)),
    )
    recipient.point(text)
    ended = recipient.receive(RUN, data=b"x")
    assert ended.returncode == 77
    assert not recipient.out.exists()


def test_no_pointer_is_refused(recipient: Recipient) -> None:
    """Before the run has armed its job there is nothing to start."""
    assert recipient.receive(RUN).returncode == 77


def test_a_job_is_received_once(recipient: Recipient) -> None:
    """A second sender is refused, and the first one's data stands."""
    recipient.arm()
    assert recipient.receive(RUN, data=b"first").returncode == 0
    ended = recipient.receive(RUN, data=b"second")
    assert ended.returncode == 77
    assert b"started or stopped before" in ended.stderr
    assert recipient.out.read_bytes() == b"first"


def test_of_many_senders_one_gets_in(recipient: Recipient) -> None:
    """However many come at once, one is received."""
    for number in range(10):
        name = f"{NAME}.{number}"
        recipient.arm(name=name)
        gate = threading.Barrier(4)

        def send(word: bytes, gate: threading.Barrier = gate) -> int:
            gate.wait()
            return recipient.receive(RUN, data=word).returncode

        words = [b"a", b"b", b"c", b"d"]
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(send, words))
        assert sorted(answers) == [0, 77, 77, 77]
        assert recipient.out.read_bytes() == words[answers.index(0)]


def test_a_stopped_job_is_not_received(recipient: Recipient) -> None:
    """A run that has given up does not receive what comes too late."""
    recipient.arm()
    jobs.stop_job(recipient.remote, NAME)
    assert recipient.receive(RUN, data=b"x").returncode == 77
    assert not recipient.out.exists()


def test_a_failed_stage_is_seen_by_the_sender(recipient: Recipient) -> None:
    """The sender's exit status is 0 only if every stage ended well."""
    recipient.arm(("cat",), ("sh", "-c", "cat >/dev/null; echo broken >&2; exit 9"))
    ended = recipient.receive(RUN, data=b"x")
    assert ended.returncode == 9
    assert b"broken" not in ended.stderr
    state = recipient.state()
    assert (state.statuses, state.stderr) == ((0, 9), "broken")


def test_another_fence_is_seen_by_the_sender(recipient: Recipient) -> None:
    """A job that was armed under an older fence does not act."""
    recipient.arm(fence=2)
    assert recipient.receive(RUN, data=b"x").returncode == 75
    assert recipient.state().statuses == (75,)
    assert not recipient.out.exists()


def test_the_environment_does_not_get_in(recipient: Recipient) -> None:
    """What sshd or the sender sets is not in the job's environment."""
    recipient.arm(("env",))
    recipient.receive(RUN, LC_TRAP="x", IFS="/", ENV="/dev/null", BASH_ENV="/x", LD_DEBUG="")
    names = {line.partition("=")[0] for line in recipient.out.read_text().splitlines()}
    assert names <= {"PATH", "HOME", "LC_ALL", "XBVAULT_JOB", "PWD", "OLDPWD", "_", "SHLVL"}


@pytest.fixture
def sshd(recipient: Recipient, tmp_path: Path) -> Iterator[list[str]]:
    """A real sshd with the receiver as forced command; the answer is the way to it."""
    for key in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    public = (tmp_path / "user.pub").read_text()
    (tmp_path / "authorized").write_text(f'restrict,command="{recipient.receiver}" {public}')
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}")
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\n"
        f"AuthorizedKeysFile {tmp_path}/authorized\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin yes\nPasswordAuthentication no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with (tmp_path / "sshd.log").open("wb") as stream:
        server = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=stream
        )
    try:
        wait_until(lambda: b"listening" in (tmp_path / "sshd.log").read_bytes())
        yield [
            *("ssh", "-F", "none", "-i", str(tmp_path / "user"), "-p", str(port)),
            *("-o", f"UserKnownHostsFile={tmp_path}/known", "-o", "BatchMode=yes"),
            *("-o", "IdentityAgent=none", "root@127.0.0.1"),
        ]
    finally:
        server.terminate()
        server.wait()


def test_over_a_real_connection(recipient: Recipient, sshd: list[str]) -> None:
    """Behind sshd the job runs in a session of its own, and the sender gets its status."""
    recipient.arm(("sh", "-c", "cat; exit 4"))
    data = os.urandom(5_000_000)
    ended = subprocess.run([*sshd, RUN], input=data, check=False, timeout=60)
    assert ended.returncode == 4
    assert recipient.out.read_bytes() == data
    assert (recipient.state().statuses, recipient.state().bytes) == ((4,), len(data))
    other = subprocess.run([*sshd, "id"], check=False, timeout=60, capture_output=True)
    assert other.returncode == 77
    assert b"uid" not in other.stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_sender_that_dies_ends_the_job(
    recipient: Recipient, sshd: list[str], number: int
) -> None:
    """The end of the connection is the end of the data; result and bytes are recorded."""
    recipient.arm()
    source = subprocess.Popen(["sh", "-c", "echo begin; exec sleep 300"], stdout=subprocess.PIPE)
    sender = subprocess.Popen([*sshd, RUN], stdin=source.stdout)
    try:
        wait_until(lambda: recipient.state().bytes == 6)
        assert recipient.state().running
        sender.send_signal(number)
        state = jobs.wait_for_job(recipient.remote, NAME, deadline_seconds=20)
        assert (state.statuses, state.bytes) == ((0,), 6)
    finally:
        source.kill()
        source.wait()
        sender.kill()
        sender.wait()
        assert source.stdout is not None
        source.stdout.close()


def test_stop_ends_a_receiving_job(recipient: Recipient, sshd: list[str]) -> None:
    """The run can end a stream from its own side; the sender notices."""
    recipient.arm()
    source = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
    sender = subprocess.Popen([*sshd, RUN], stdin=source.stdout)
    try:
        wait_until(lambda: recipient.state().bytes > 0)
        jobs.stop_job(recipient.remote, NAME)
        assert sender.wait(timeout=20) == 143
        assert recipient.state().statuses == (143,)
    finally:
        source.kill()
        source.wait()
        sender.kill()
        sender.wait()
        assert source.stdout is not None
        source.stdout.close()


def test_an_extraction_does_not_wait_on_a_dead_link(recipient: Recipient, sshd: list[str]) -> None:
    """A sender that stays connected and silent, with nobody asking, is cut off after the lease."""
    recipient.arm(("sh", "-c", "trap '' TERM; cat; sleep 71"), fence=1, lease_seconds=2)
    source = subprocess.Popen(["sh", "-c", "echo begin; exec sleep 300"], stdout=subprocess.PIPE)
    sender = subprocess.Popen([*sshd, RUN], stdin=source.stdout)
    try:
        wait_until(lambda: recipient.out.exists() and recipient.out.read_bytes() == b"begin\n")
        assert sender.wait(timeout=15) == 124
        ended = recipient.base / "jobs" / NAME / "ended"
        assert ended.read_text().split()[1:] == ["124", "expired"]
        assert recipient.state().expired
    finally:
        source.kill()
        source.wait()
        sender.kill()
        sender.wait()
        assert source.stdout is not None
        source.stdout.close()


def test_a_lease_begins_with_the_job(recipient: Recipient) -> None:
    """A job may be armed for longer than its lease."""
    recipient.arm(("sh", "-c", "cat; sleep 1"), fence=1, lease_seconds=2)
    time.sleep(3.2)
    assert recipient.receive(RUN, data=b"x").returncode == 0
    assert recipient.state().is_ok
