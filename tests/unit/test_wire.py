from __future__ import annotations

import dataclasses

import pytest

from orchestrator import wire
from orchestrator.wire import Bound, Sample

SHRINKS = Sample(bytes=64_000_000, compressed_bytes=24_000_000, seconds=0.16)
ENCRYPTED = Sample(bytes=64_000_000, compressed_bytes=63_900_000, seconds=0.08)
GIGABIT = Bound(bytes_per_second=125e6, what="eth0 of db1")
TEN_GIGABIT = Bound(bytes_per_second=1250e6, what="eth0 of db2")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("none", 0),
        ("1", 1),
        ("500K", 512_000),
        ("50M", 52_428_800),
        ("50m", 52_428_800),
        ("2G", 2_147_483_648),
        ("007M", 7_340_032),
    ],
)
def test_a_rate_is_in_bytes_with_binary_units(text: str, rate: int) -> None:
    """As pv and its like take it."""
    assert wire.parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "0",
            "0M",
            "-5M",
            "+5M",
            "fast",
            "5T",
            "M",
            "1.5M",
            "5 M",
            "5MB",
            "5M\n",
            "1e6",
            "٣M",
        ),
        *("9" * 15 + "G", "9" * 400),
    ],
)
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    """Zero would be a stream that never ends, and a bound that no wire has would be a slip."""
    with pytest.raises(ValueError, match="must be bytes per second above 0"):
        wire.parse_rate(text)


@pytest.mark.parametrize(
    ("text", "compress"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("zstd", "zstd:1"),
        ("zstd:1", "zstd:1"),
        ("zstd:19", "zstd:19"),
        ("zstd:03", "zstd:3"),
    ],
)
def test_a_compression_is_told_with_its_level(text: str, compress: str) -> None:
    """One form for what was asked for, whoever has written it."""
    assert wire.parse_compression(text) == compress


@pytest.mark.parametrize(
    "text", ["", "zstd:0", "zstd:20", "zstd:-1", "zstd:", "zstd:x", "gzip", "ZSTD", "zstd:1 -o /x"]
)
def test_a_compression_that_is_none_is_refused(text: str) -> None:
    """Before it gets near a command."""
    with pytest.raises(ValueError, match="must be auto, none, zstd"):
        wire.parse_compression(text)


def test_commands_of_a_compression() -> None:
    """Level and one thread for the donor; nothing at all where nothing is compressed."""
    assert wire.compress_command("zstd:3") == ("zstd", "-3", "-T1", "-q", "-c")
    assert wire.decompress_command("zstd:3") == ("zstd", "-d", "-q", "-c")
    assert wire.compress_command("none") == wire.decompress_command("none") == ()
    with pytest.raises(ValueError, match="must be auto"):
        wire.compress_command("zstd:99")


@pytest.mark.parametrize(
    ("sample", "bounds", "compress", "reason"),
    [
        (SHRINKS, (GIGABIT,), "zstd:1", "came to 38 % of its size, at 400 MB/s; eth0 of db1"),
        (SHRINKS, (TEN_GIGABIT, GIGABIT), "zstd:1", "eth0 of db1 lets 125 MB/s through"),
        (SHRINKS, (TEN_GIGABIT,), "none", "it would not be faster"),
        (SHRINKS, (), "none", "how fast the wire is could not be found out"),
        (ENCRYPTED, (GIGABIT,), "none", "such data does not compress"),
        (ENCRYPTED, (), "none", "such data does not compress"),
        (None, (GIGABIT,), "none", "too little data"),
        (dataclasses.replace(SHRINKS, bytes=1 << 20), (GIGABIT,), "none", "too little data"),
        (dataclasses.replace(SHRINKS, seconds=0.5), (GIGABIT,), "none", "not be faster"),
        (dataclasses.replace(SHRINKS, compressed_bytes=0), (GIGABIT,), "zstd:1", "0 % of its size"),
    ],
)
def test_compression_is_chosen_where_it_pays(
    sample: Sample | None, bounds: tuple[Bound, ...], compress: str, reason: str
) -> None:
    """By what the data shrinks to, what zstd takes in, and the least that the wire may let through."""
    choice = wire.choose_compression(sample, bounds)
    assert choice.compress == compress
    assert reason in choice.reason
    assert (choice.ratio > 1) is (compress != "none")


def test_a_throttle_makes_a_wire_of_unknown_speed_slow() -> None:
    """Whatever the wire lets through, it is no more than that."""
    throttle = Bound(bytes_per_second=50 << 20, what="the throttle")
    assert wire.choose_compression(SHRINKS, (throttle,)).compress == "zstd:1"


def test_the_cipher_is_what_both_processors_have_instructions_for() -> None:
    """The other ones follow, for the two ends to agree on one in any case."""
    assert wire.choose_ciphers(has_aes=True).startswith("aes128-gcm@openssh.com,")
    assert wire.choose_ciphers(has_aes=False).startswith("chacha20-poly1305@openssh.com,")
    first, second = (wire.choose_ciphers(has_aes=has_aes) for has_aes in (True, False))
    assert sorted(first.split(",")) == sorted(second.split(","))
