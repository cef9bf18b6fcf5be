"""A sample of real files, taken by the script that runs on a donor."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from local_remote import LocalRemote

from orchestrator.facts import sample

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


@pytest.fixture(name="datadir", scope="module")
def fixture_datadir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a table of noise, one of rows, and what is no table."""
    folder = tmp_path_factory.mktemp("sample")
    (folder / "shop").mkdir()
    noise = random.Random(1)
    (folder / "shop" / "noise.ibd").write_bytes(noise.randbytes(10 * MIB))
    words = [noise.randbytes(4).hex() for _ in range(500)]
    rows = " ".join(noise.choices(words, k=10 * MIB // 9 + 1)).encode()[: 10 * MIB]
    (folder / "shop" / "it's @0020 a table.ibd").write_bytes(rows)
    (folder / "ib_logfile0").write_bytes(bytes(40 * MIB))
    return folder


def tree(folder: Path) -> list[tuple[str, int, float]]:
    """Return what is in a folder, with sizes and times of change."""
    found = [(path, path.stat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), stat.st_size, stat.st_mtime) for path, stat in found]


def test_pieces_are_taken_from_all_tables(datadir: Path) -> None:
    """Noise stays as it is, rows shrink, and what is no table is left alone; nothing is changed."""
    before, began = tree(datadir), time.monotonic()
    found = sample.read_wire(LocalRemote(), "127.0.0.1", datadir=str(datadir)).sample
    assert time.monotonic() - began < 5
    assert found
    assert found.bytes == 20 * MIB
    assert 10 * MIB < found.compressed_bytes < 17 * MIB
    assert 0.01 <= found.seconds < 2
    assert tree(datadir) == before


def test_the_way_to_an_address() -> None:
    """Its interface is told; one that has no speed, as this machine's own has none, has none."""
    found = sample.read_wire(LocalRemote(), "127.0.0.1", datadir="")
    assert (found.interface, found.megabits, found.sample) == ("lo", 0, None)
    nowhere = sample.read_wire(LocalRemote(), "no address; id", datadir="")
    assert (nowhere.interface, nowhere.megabits) == ("", 0)


@pytest.mark.parametrize("name", ["nothing", "odd $(touch here)\n;"])
def test_a_directory_without_tables(tmp_path: Path, name: str) -> None:
    """There is no sample, and no name is code."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "small.ibd").write_bytes(b"x" * 1000)
    assert sample.read_wire(LocalRemote(), "", datadir=str(folder)).sample is None
    assert list(tmp_path.iterdir()) == [folder]
