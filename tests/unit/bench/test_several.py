"""What is told of several clones, at once and one after the other."""

from __future__ import annotations

from benchmark.ways import several

OUTSIDE = "step (between and after)"


def run(replicating: float, verified: float, outside: float) -> dict[str, float]:
    """Return the measures of a run, as `ours.read_values` gives them."""
    return {
        "replicating": replicating,
        "verified": verified,
        "transfer": replicating / 2,
        "cpu-seconds": 4.0,
        "cpu": 8.0,
        "bytes": 100.0,
        "step stream-backup": verified - outside,
        OUTSIDE: outside,
    }


def test_clones_at_once_end_with_the_last_of_them() -> None:
    """One command, whose time is each run's; the steps are those of the run that ended last."""
    found = several.combine_at_once(
        [run(9.0, 30.0, 8.0), run(12.0, 30.0, 1.0), run(7.0, 30.0, 5.0)]
    )
    assert found == {
        "replicating": 12.0,
        "verified": 30.0,
        "transfer": 6.0,
        "cpu-seconds": 4.0,
        "bytes": 300.0,
        "step stream-backup": 29.0,
        OUTSIDE: 1.0,
    }


def test_clones_one_after_the_other_add_up() -> None:
    """The last one replicates when those before it have ended, and it has come so far."""
    found = several.combine_in_turn(
        [run(9.0, 20.0, 1.0), run(8.0, 18.0, 2.0), run(10.0, 22.0, 3.0)]
    )
    assert found == {
        "replicating": 48.0,
        "verified": 60.0,
        "transfer": 13.5,
        "cpu-seconds": 12.0,
        "bytes": 300.0,
        "step stream-backup": 54.0,
        OUTSIDE: 6.0,
    }


def test_a_stage_that_serves_all_is_counted_once() -> None:
    """The donor is read and compressed once; sent and written three times."""
    stages = {"read": 2.0, "encrypt": 1.0, "write": 3.0}
    shown = [{"transfer": {"cpu_seconds": stages}} for _ in range(3)]
    assert several.add_stages(shown, ("read", "compress")) == {
        "stream-cpu-read": 2.0,
        "stream-cpu-encrypt": 3.0,
        "stream-cpu-write": 9.0,
    }
    assert several.add_stages(shown)["stream-cpu-read"] == 6.0


def test_a_run_that_tells_nothing_of_its_stages_adds_nothing() -> None:
    """As one whose stream was not looked at."""
    assert several.add_stages([{"transfer": None}, {"transfer": {"bytes": 1}}]) == {}
