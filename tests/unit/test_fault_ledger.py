"""What is kept of the faults from one run to the next, and what of it is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger import Ledger, read_digest

if TYPE_CHECKING:
    from pathlib import Path

A, B = {"a": [{"nemesis": "one"}]}, {"b": [{"nemesis": "two"}]}


def open_ledger(path: Path, product: str = "1") -> Ledger:
    """Open the ledger as another run would."""
    return Ledger(path / "rows.json", product)


def test_a_whole_run_in_which_all_passed(tmp_path: Path) -> None:
    """All of its rows are there, at once and later."""
    ledger = open_ledger(tmp_path)
    assert ledger.rows is None
    ledger.note(A | B | {"rowless": []}, [], is_whole=True)
    assert ledger.rows == open_ledger(tmp_path).rows == [*A["a"], *B["b"]]


def test_what_failed_is_played_again(tmp_path: Path) -> None:
    """With that, the whole is complete; a test that fails later spoils it again."""
    open_ledger(tmp_path).note(A, ["b"], is_whole=True)
    assert open_ledger(tmp_path).rows is None
    open_ledger(tmp_path).note(B, [], is_whole=False)
    assert open_ledger(tmp_path).rows == [*A["a"], *B["b"]]
    open_ledger(tmp_path).note({}, ["a"], is_whole=False)
    assert open_ledger(tmp_path).rows is None


def test_a_part_is_no_whole(tmp_path: Path) -> None:
    """Without a run of everything nobody knows what everything is."""
    open_ledger(tmp_path).note(A | B, [], is_whole=False)
    assert open_ledger(tmp_path).rows is None


def test_another_product_begins_anew(tmp_path: Path) -> None:
    """What an earlier one survived says nothing of it."""
    open_ledger(tmp_path).note(A | B, [], is_whole=True)
    assert open_ledger(tmp_path, "2").rows is None


def test_a_product_is_known_by_all_its_files(tmp_path: Path) -> None:
    """Names and contents count, byte code does not."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.py").write_text("1")
    first = read_digest([tmp_path])
    (tmp_path / "sub/a.pyc").write_text("x")
    assert read_digest([tmp_path]) == first
    (tmp_path / "sub/a.py").write_text("2")
    second = read_digest([tmp_path])
    (tmp_path / "sub/a.py").rename(tmp_path / "sub/b.py")
    assert len({first, second, read_digest([tmp_path])}) == 3
