"""What preflight finds about the stream: compression, throttle, priority."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from fake_remote import HOST_KEY, FakeRemote
from surveys import CONFIG, REQUEST, change, make_survey

from orchestrator.errors import PreconditionError
from orchestrator.facts import preflight
from orchestrator.facts.sample import WireFacts
from orchestrator.facts.ways import Way, read_way
from orchestrator.wire import Sample

if TYPE_CHECKING:
    from orchestrator.facts.survey import Survey
    from orchestrator.models import Check

SAMPLE = Sample(bytes=64_000_000, compressed_bytes=24_000_000, seconds=0.16)
FAST, SLOW = (WireFacts(interface="eth0", megabits=speed) for speed in (10_000, 1_000))


def survey(
    donor: WireFacts = FAST, recipient: WireFacts = FAST, *, sample: Sample | None = SAMPLE
) -> Survey:
    """Return a good survey with what the hosts said of the wire."""
    found = change(make_survey(), "donor", wire=dataclasses.replace(donor, sample=sample))
    return change(found, "recipient", wire=recipient)


def without(found: Survey, program: str, *sides: str) -> Survey:
    """Return a survey of hosts that lack a program."""
    for side in sides:
        programs = getattr(found, side).host.programs
        kept = {name: path for name, path in programs.items() if name != program}
        found = change(found, f"{side}.host", programs=kept)
    return found


def find(found: Survey, name: str, **request: Any) -> Check:
    """Return one finding."""
    checks = preflight.judge(found, CONFIG, dataclasses.replace(REQUEST, **request))
    (check,) = [check for check in checks if check.name == name]
    return check


@pytest.mark.parametrize(
    ("found", "request_", "evidence"),
    [
        (
            survey(SLOW),
            {},
            "zstd:1: a sample of 64 MB came to 38 % of its size, at 400 MB/s; eth0 of",
        ),
        (survey(recipient=SLOW), {}, "eth0 of db2 lets 125 MB/s through"),
        (survey(), {}, "none: it would not be faster"),
        (survey(), {"throttle": 10 << 20}, "zstd:1: a sample"),
        (survey(WireFacts(), WireFacts()), {}, "none: how fast the wire is could not be found out"),
        (without(survey(SLOW), "zstd", "recipient"), {}, "none: zstd is not installed on db2"),
        (without(survey(SLOW), "zstd", "donor", "recipient"), {}, "on db1 and db2"),
        (make_survey(), {}, "none: there is too little data"),
        (survey(SLOW), {"compress": "none"}, "none: not wanted"),
        (survey(), {"compress": "zstd:7"}, "zstd:7: wanted; a sample of 64 MB"),
        (make_survey(), {"compress": "zstd:7"}, "zstd:7: wanted"),
    ],
)
def test_compression_and_what_it_was_concluded_from(
    found: Survey, request_: dict[str, Any], evidence: str
) -> None:
    """Each choice is a good finding, with the figures that it came from."""
    check = find(found, "compression", **{"compress": "auto", **request_})
    assert check.ok
    assert evidence in check.evidence


@pytest.mark.parametrize(
    ("sides", "names"), [(("donor",), "db1"), (("donor", "recipient"), "db1 and db2")]
)
def test_a_compression_that_is_demanded_must_be_there(sides: tuple[str, ...], names: str) -> None:
    """The host that lacks it is named, and nothing is begun."""
    found = without(survey(), "zstd", *sides)
    check = find(found, "compression", compress="zstd:3")
    assert (check.ok, check.evidence) == (False, f"zstd is not installed on {names}")
    assert "--compress auto" in check.hint
    checks = preflight.judge(found, CONFIG, dataclasses.replace(REQUEST, compress="zstd:3"))
    with pytest.raises(PreconditionError, match=f"zstd is not installed on {names}"):
        preflight.raise_for(checks)


def test_the_choice_says_how_much_smaller_the_stream_gets() -> None:
    """For its progress; of a compression that was demanded too, where there is a sample."""
    for asked, found in (("auto", survey(SLOW)), ("zstd:9", survey())):
        request = dataclasses.replace(REQUEST, compress=asked)
        assert preflight.choose_compression(found, request).ratio == pytest.approx(8 / 3)
    for asked, found in (("auto", survey()), ("zstd:9", make_survey()), ("none", survey())):
        request = dataclasses.replace(REQUEST, compress=asked)
        assert preflight.choose_compression(found, request).ratio == 1


def test_a_throttle_leaves_time_for_the_stream() -> None:
    """One that needs longer than a stream may take is refused with both figures."""
    check = find(make_survey(), "throttle", throttle=50 << 20)
    assert (check.ok, check.evidence) == (
        True,
        "5.00 GB at 52428800 bytes a second take 95 s, of at most 86400",
    )
    check = find(make_survey(), "throttle", throttle=50 << 10)
    assert not check.ok
    assert "take 97656 s, of at most 86400" in check.evidence
    assert "clone.stream_seconds" in check.hint


def test_a_slow_stream_needs_binary_logs_for_longer() -> None:
    """Three times as long as the stream takes, or the replica asks for what is gone."""
    assert find(make_survey(), "binlog-retention").evidence == "kept 604800 s, wanted 3600 s"
    slow = find(make_survey(), "binlog-retention", throttle=1_000_000)
    assert slow.evidence == "kept 604800 s, wanted 15000 s"
    assert not find(make_survey(), "binlog-retention", throttle=20_000).ok


def test_a_low_priority_needs_its_programs() -> None:
    """Only where it was asked for."""
    check = find(make_survey(), "priority", nice=True)
    assert (check.host, check.ok) == ("db1", True)
    assert check.evidence == "nice -n 10 ionice -c 2 -n 7"
    check = find(without(make_survey(), "ionice", "donor"), "priority", nice=True)
    assert (check.ok, check.evidence) == (False, "missing: ionice")
    names = {check.name for check in preflight.judge(make_survey(), CONFIG, REQUEST)}
    assert not names & {"priority", "throttle"}


CUT = Way(address="192.0.2.2", port=22, problem="No route to host")
BEHIND = dataclasses.replace(CUT, no_relay="this machine reaches db2 through another")
HERE = "db1 does not reach db2 at 192.0.2.2:22: No route to host"


@pytest.mark.parametrize(
    ("way", "sshd", "asked", "expected"),
    [
        (Way(address="192.0.2.2", port=22), {}, False, (True, "goes there directly", False)),
        (Way(address="192.0.2.2", port=22), {}, True, (True, "goes there directly", False)),
        (Way(address="192.0.2.2", port=22, is_tried=False), {}, True, (True, "not tried", False)),
        (CUT, {}, False, (False, HERE, False)),
        (CUT, {}, True, (True, f"{HERE}; the stream goes through this machine", True)),
        (CUT, {"allowtcpforwarding": "remote"}, True, (True, "through this machine", True)),
        (CUT, {"allowtcpforwarding": "local"}, True, (False, "allowtcpforwarding local", True)),
        (CUT, {"disableforwarding": "yes"}, True, (False, "disableforwarding yes", True)),
        (CUT, {"permitlisten": "none"}, True, (False, "permitlisten none", True)),
        (BEHIND, {}, True, (False, "reaches db2 through another", True)),
    ],
)
def test_the_way_of_the_stream(
    way: Way, sshd: dict[str, str], asked: Any, expected: tuple[bool, str, bool]
) -> None:
    """Directly where that works, through this machine where that was asked for and can be done."""
    found = change(make_survey(), "", way=way)
    found = change(found, "donor.host", sshd={"clientaliveinterval": "5", **sshd})
    ok, evidence, relays = expected
    check = find(found, "stream-way", relay=asked)
    assert (check.ok, evidence in check.evidence) == (ok, True), check.evidence
    assert bool(check.hint) is not ok
    request = dataclasses.replace(REQUEST, relay=asked)
    assert preflight.needs_relay(found, request) is relays


@pytest.mark.parametrize(
    ("stdout", "stderr", "status", "way"),
    [
        (f"# 192.0.2.2:22 SSH-2.0\n192.0.2.2 {HOST_KEY}\n", "", 0, {}),
        (f"[192.0.2.2]:22 {HOST_KEY}\n", "# a banner\n", 0, {}),
        ("", "connect: No route to host\n", 1, {"problem": "connect: No route to host"}),
        ("", "# 192.0.2.2:22 SSH-2.0\n", 1, {"problem": "no answer"}),
        ("", "sh: not found\n", 127, {"is_tried": False}),
        (
            "192.0.2.2 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAnother\n",
            "",
            0,
            {"problem": "another host answers there, with a key that is not the recipient's"},
        ),
        (
            "nonsense\n\n",
            "",
            0,
            {"problem": "another host answers there, with a key that is not the recipient's"},
        ),
    ],
)
def test_what_the_donor_sees_at_the_recipients_address(
    stdout: str, stderr: str, status: int, way: dict[str, Any]
) -> None:
    """The key that answers there must be the one that was verified from here."""
    donor, recipient = FakeRemote("db1"), FakeRemote("db2")
    donor.answer("ssh-keyscan", stdout=stdout, stderr=stderr, status=status)
    found = read_way(donor, recipient, "192.0.2.2", 22)
    assert found == Way(**{"address": "192.0.2.2", "port": 22, **way})
    assert "-ted25519" in donor.calls[0].argv


def test_a_recipient_behind_another_host_cannot_be_relayed_to() -> None:
    """The way of this machine itself must lead there."""
    donor, recipient = FakeRemote("db1"), FakeRemote("db2")
    donor.answer("ssh-keyscan", status=1)
    recipient.is_behind_another = True
    found = read_way(donor, recipient, "192.0.2.2", 22)
    assert found.no_relay == "this machine reaches db2 through another"
