"""What a host says of its way to another one, and of a sample of its data."""

from __future__ import annotations

import pytest
from fake_remote import FakeRemote

from orchestrator import host
from orchestrator.errors import CommandError, HostUnreachableError, VerificationError
from orchestrator.facts import sample
from orchestrator.facts.sample import WireFacts
from orchestrator.wire import Sample

DASH = "interface\teth0\nmegabits\t1000\nsample\t65914625 0m0.150000s 0m0.040000s 40666788\n"
BASH = "interface\tbond0\nmegabits\t25000\nsample\t65914625 1m0.249s 0m0.040s 40666788\n"


def test_all_that_can_be_told() -> None:
    """Speed, size before and after, and the processor's seconds of user and system."""
    found = sample.parse_wire(DASH)
    assert (found.interface, found.megabits) == ("eth0", 1000)
    assert found.sample == Sample(bytes=65914625, compressed_bytes=40666788, seconds=0.19)


def test_another_shell_tells_its_times_otherwise() -> None:
    """Minutes count."""
    found = sample.parse_wire(BASH).sample
    assert found
    assert found.seconds == pytest.approx(60.289)


@pytest.mark.parametrize("text", ["", "interface\teth0\nmegabits\t-1\n", "megabits\t\n"])
def test_a_speed_that_is_not_known(text: str) -> None:
    """As of a virtual machine, of a tunnel, or of no way at all."""
    found = sample.parse_wire(text)
    assert (found.megabits, found.sample) == (0, None)


@pytest.mark.parametrize("words", ["0  0", "", "65914625 0m0.1s 0m0.1s"])
def test_a_compressor_that_failed_leaves_no_sample(words: str) -> None:
    """Without its times there is nothing to conclude from."""
    assert sample.parse_wire(f"sample\t{words}\n").sample is None


def test_a_number_that_is_none() -> None:
    """It is an error, and not a zero."""
    with pytest.raises(VerificationError):
        sample.parse_wire("sample\tx 0m0.1s 0m0.1s 7\n")


def test_a_host_is_asked_with_one_command() -> None:
    """The script goes by stdin, with the other host's address, the directory and the bound."""
    remote = FakeRemote("db1")
    remote.answer("sh", "-s", stdout=DASH)
    found = sample.read_wire(remote, "192.0.2.2", datadir="/var/lib/mysql")
    assert found == sample.parse_wire(DASH)
    (call,) = remote.calls
    assert call.argv == ("sh", "-s", "--", "192.0.2.2", "/var/lib/mysql", "64")
    assert call.stdin == host.script("sample.sh").encode()


def test_what_cannot_be_told_is_left_open() -> None:
    """A choice hangs on it, and no clone."""
    remote = FakeRemote("db1")
    for answer in (CommandError("took too long", host="db1"), CommandError("lost", host="db1")):
        remote.answers[("sh", "-s")] = answer
        assert sample.read_wire(remote, "", datadir="/d") == WireFacts()
    remote.answer("sh", "-s", stdout="sample\tmany 0m0.1s 0m0.1s 7\n", status=1)
    assert sample.read_wire(remote, "", datadir="/d") == WireFacts()


def test_a_host_that_is_gone_is_no_fact() -> None:
    """That is for the survey to tell."""
    remote = FakeRemote("db1")
    remote.is_unreachable = True
    with pytest.raises(HostUnreachableError):
        sample.read_wire(remote, "192.0.2.2", datadir="/var/lib/mysql")
