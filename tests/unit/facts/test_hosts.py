"""Facts about a host: what the script on the host wrote, taken apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import samples
from fake_remote import FakeRemote

from orchestrator import host
from orchestrator.config import HostConfig
from orchestrator.errors import HostUnreachableError, VerificationError
from orchestrator.facts import hosts
from orchestrator.flavors.mariadb import MariaDB

MASTER = samples.read("host/facts-master")
REPLICA = samples.read("host/facts-replica")


def parse(text: str, *, before: float = 1000.0, after: float = 1001.0) -> hosts.HostFacts:
    """Take an answer apart."""
    return hosts.parse_host("db1", text, MariaDB(), before=before, after=after)


def test_donor_of_the_laboratory() -> None:
    """A host with a running server is read whole."""
    facts = parse(MASTER)
    assert (facts.name, facts.hostname, facts.cpus) == ("db1", "master", 2)
    assert facts.server_version == facts.tool_version == "10.11.19"
    assert facts.programs["mariadb-backup"] == "/usr/bin/mariadb-backup"
    assert len(facts.programs) == 9
    assert facts.options["log_slave_updates"] == "ON"
    assert facts.options["hashicorp_key_management_vault_url"].endswith("/v1/mariadb-master")
    assert facts.datadir == "/var/lib/mysql"
    assert (facts.has_data, facts.is_mount_path, facts.is_symlink) == (True, False, False)
    assert (facts.datadir_owner, facts.datadir_mode) == ("mysql:mysql", "755")
    assert facts.datadir_bytes == 114_315_264
    assert facts.server_pids == (111,)
    assert facts.is_running
    assert facts.siblings == ()
    assert facts.receiver_owner == "root 755"
    assert len(facts.receiver_sha256) == 64
    assert facts.sshd["authorizedprincipalsfile"] == "/etc/ssh/principals/root"
    assert facts.trusted_cas[0].startswith("ssh-ed25519 AAAA")
    assert facts.principals[0].startswith('restrict,command="/usr/local/sbin/xbvault-receive')


def test_recipient_of_the_laboratory() -> None:
    """After a clone, the recipient's own options and its released drop-in are seen."""
    facts = parse(REPLICA)
    assert facts.hostname == "replica"
    assert facts.options["read_only"] == "ON"
    assert facts.options["server_id"] == "12"
    assert facts.is_running


LEAST = "epoch\t1000.5\nhostname\tdb1\nmemory_available_bytes\t1\ncpus\t1\ndatadir\t/data\n"


def test_bare_host() -> None:
    """A host with nothing installed and no datadir gives empty facts, not an error."""
    facts = parse(LEAST)
    assert (facts.server_version, facts.tool_version, facts.programs) == ("", "", {})
    assert (facts.datadir, facts.has_data, facts.datadir_inode) == ("/data", False, 0)
    assert (facts.datadir_owner, facts.parent_free_bytes, facts.is_running) == ("", 0, False)


def test_what_sudo_says_to_the_login_that_takes_the_stream() -> None:
    """Its words are kept; where it says nothing, or root receives, there are none."""
    assert (parse(LEAST).receive_user, parse(LEAST).receiver_refusal) == ("root", "")
    facts = parse(f"{LEAST}receive_user\tstream\nreceiver_refusal\tsudo: no\n")
    assert (facts.receive_user, facts.receiver_refusal) == ("stream", "sudo: no")


def test_a_processor_with_instructions_for_aes() -> None:
    """One that says nothing of it has none."""
    assert not parse(LEAST).has_aes
    assert parse(f"{LEAST}aes\t1\n").has_aes


def test_several_lines_of_one_key() -> None:
    """Servers, leftovers, CAs and principals can be several; tabs in a value stay."""
    facts = parse(
        f"{LEAST}server_pid\t4\nserver_pid\t5\nsibling\t/data.xbvault-old-a\n"
        "sibling\t/data.xbvault-new-b\nprincipal\ta\tb\n"
    )
    assert facts.server_pids == (4, 5)
    assert facts.siblings == ("/data.xbvault-old-a", "/data.xbvault-new-b")
    assert facts.principals == ("a\tb",)


@pytest.mark.parametrize(
    ("epoch", "offset"), [("1000.5", 0.0), ("1003.5", 3.0), ("940.25", -60.25)]
)
def test_clock_is_compared_with_the_middle_of_the_round_trip(epoch: str, offset: float) -> None:
    """Half of the round trip is allowed for, and told as the error."""
    facts = parse(LEAST.replace("1000.5", epoch))
    assert facts.clock_offset_seconds == pytest.approx(offset)
    assert facts.clock_error_seconds == pytest.approx(0.5)


@pytest.mark.parametrize("key", ["epoch", "hostname", "memory_available_bytes", "cpus", "datadir"])
def test_missing_line(key: str) -> None:
    """An answer that was cut is an error that names the host and the line."""
    text = "".join(line for line in LEAST.splitlines(True) if not line.startswith(key))
    with pytest.raises(VerificationError, match=key) as caught:
        parse(text)
    assert caught.value.host == "db1"


@pytest.mark.parametrize("line", ["cpus\tmany", "epoch\tnow", "server_pid\tx", "datadir_inode\t"])
def test_line_without_its_number(line: str) -> None:
    """A word where a number belongs is an error, not a zero."""
    with pytest.raises(VerificationError, match="cannot read the facts of db1"):
        parse(f"{LEAST}{line}\n")


def test_size_that_took_too_long_to_measure() -> None:
    """A du that was ended leaves its line empty: the size is not known, which is no error."""
    assert parse(f"{LEAST}datadir_bytes\t\n").datadir_bytes == 0


def test_host_is_asked_with_one_command() -> None:
    """The script goes by stdin, with the datadir and the login of the configuration."""
    remote = FakeRemote("db1")
    remote.answer("sh", "-s", stdout=MASTER)
    config = HostConfig.model_validate(
        {"vault_mount": "k", "receive_user": "stream", "server": {"datadir": "/srv/mysql"}}
    )
    facts = hosts.read_host(remote, config)
    assert facts.hostname == "master"
    (call,) = remote.calls
    assert call.stdin == hosts.facts_script().encode()
    assert call.argv[:5] == ("sh", "-s", "--", "/srv/mysql", "stream")
    assert call.argv[5] == "mysqld server mariadb mariadbd"
    wanted = {"mariadb-backup", "mbstream", "pv", "ssh-keygen", "zstd", "nice", "ionice"}
    assert wanted <= set(call.argv[6:])


def test_unreachable_host_is_not_a_fact() -> None:
    """A host that does not answer raises."""
    remote = FakeRemote("db1")
    remote.is_unreachable = True
    with pytest.raises(HostUnreachableError):
        hosts.read_host(remote, HostConfig.model_validate({"vault_mount": "k"}))


def test_digest_of_the_receiver_is_that_of_the_shipped_script() -> None:
    """As sha256sum on the host gives it of an installed copy."""
    path = Path(host.__file__).with_name("receive.sh")
    assert hosts.receiver_sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("answer", "pids"), [("end\n", ()), ("4711\n12\nend\n", (4711, 12))])
def test_whether_a_server_runs(answer: str, pids: tuple[int, ...]) -> None:
    """Asked for alone, by the directory that it runs in."""
    remote = FakeRemote()
    remote.answer("sh", "-s", "--", "/var/lib/mysql", stdout=answer)
    assert hosts.is_server_running(remote, "/var/lib/mysql") is bool(pids)
    assert hosts.parse_pids(answer, "db1") == pids


@pytest.mark.parametrize("answer", ["", "4711\n", "4711\nend", "end\n4711\n", "x\nend\n"])
def test_an_answer_that_was_cut_is_no_answer(answer: str) -> None:
    """Silence is not taken for a server that does not run."""
    with pytest.raises(VerificationError):
        hosts.parse_pids(answer, "db1")


BRIEF = """\
memory_available_bytes\t8589934592
cpus\t4
server_pid\t4711
datadir_inode\t42
datadir_owner\tmysql:mysql
datadir_mode\t755
datadir_has_data\t1
end
"""


def test_brief_facts() -> None:
    """What can change from step to step is asked for by itself, about the data directory."""
    remote = FakeRemote()
    remote.answer("sh", "-s", "--", "/var/lib/mysql", stdout=BRIEF)
    facts = hosts.read_brief(remote, "/var/lib/mysql")
    assert facts.is_running
    assert facts.has_data
    assert (facts.memory_available_bytes, facts.cpus) == (8 << 30, 4)
    assert (facts.datadir_owner, facts.datadir_mode, facts.datadir_inode) == (
        "mysql:mysql",
        "755",
        42,
    )


def test_brief_facts_without_a_datadir() -> None:
    """A data directory that is not there has no owner, no data and no server."""
    facts = hosts.parse_brief("db1", "memory_available_bytes\t1\ncpus\t1\nend\n")
    assert not facts.is_running
    assert not facts.has_data
    assert (facts.datadir_owner, facts.datadir_mode, facts.datadir_inode) == ("", "", 0)


@pytest.mark.parametrize(
    "answer", ["", BRIEF[:-1], BRIEF.removesuffix("end\n"), BRIEF.replace("4711", "x"), "end\n"]
)
def test_brief_facts_that_were_cut(answer: str) -> None:
    """Silence is not taken for a server that does not run, nor a part for the whole."""
    with pytest.raises(VerificationError, match="cannot read the state of db1"):
        hosts.parse_brief("db1", answer)
