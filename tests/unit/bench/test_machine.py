"""What is told of the machine."""

from __future__ import annotations

import pytest
from benchmark import machine

CPU = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t\t: fpu {} sse\n\n"


@pytest.mark.parametrize(("flag", "expected"), [("aes", "with AES"), ("vaes", "no AES")])
def test_the_processor_has_aes_or_not(flag: str, expected: str) -> None:
    """By its own flag; what decides about ciphers must be in the table."""
    text = CPU.format(flag)
    assert machine.parse_processor(text + text) == f"Some CPU @ 2.0GHz, {expected}"


def test_a_processor_without_a_model_is_unknown() -> None:
    """Some architectures tell none."""
    assert machine.parse_processor("Features : fp aes\n") == "unknown, with AES"


def test_memory_is_told_in_bytes() -> None:
    """From the kernel's kibibytes."""
    assert machine.parse_memory("MemTotal:       1000 kB\nMemFree: 1 kB\n") == 1_024_000
    assert machine.parse_memory("") == 0


def test_the_processors_are_busy_unless_they_wait() -> None:
    """Idle, and waiting for a disk, are not busy; what guests took is counted as user time already."""
    earlier = machine.parse_time("cpu  100 0 50 800 40 5 5 0 7 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    assert (earlier.busy, earlier.total) == (160, 1000)
    later = machine.parse_time("cpu  160 0 60 820 50 5 5 0 9 0\n")
    assert later.busy_share_since(earlier) == pytest.approx(0.7)
    assert earlier.busy_share_since(earlier) == 0


def test_lines_that_say_nothing_are_passed_over() -> None:
    """The first or the last that says something, or that there is none."""
    assert machine.first_line("\n  one \ntwo\n") == "one"
    assert machine.last_line("one\ntwo\n\n") == "two"
    assert machine.first_line("") == machine.last_line("\n") == "unknown"
