"""The files of a tablespace in an incremental backup."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest
from simulators.delta import Meta, apply_delta, describe_space, make_delta, read_meta
from simulators.errors import Failure

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Meta(page_size=1024, zip_size=1024, space_id=7, space_flags=0x23)
"""Of a table with compressed pages of 1 KiB, of which a cluster has 255."""


def write_space(path: Path, pages: int, meta: Meta = SMALL) -> Path:
    """Write a tablespace of so many pages, the first with what it says of itself."""
    content = bytearray(os.urandom(pages * meta.page_size))
    struct.pack_into(">I", content, 34, meta.space_id)
    struct.pack_into(">I", content, 54, meta.space_flags)
    path.write_bytes(content)
    return path


def write_delta(path: Path) -> Path:
    """Write the delta of a tablespace beside it."""
    delta = path.with_name(f"{path.name}.delta")
    delta.write_bytes(b"".join(make_delta(path, describe_space(path))))
    return delta


@pytest.mark.parametrize(
    ("name", "meta"),
    [
        ("t.ibd", SMALL),
        ("t.ibd", Meta(page_size=16384, zip_size=0, space_id=4294967279, space_flags=0x6021)),
        ("ibdata2", Meta(page_size=16384, zip_size=0, space_id=0, space_flags=0)),
    ],
)
def test_a_space_is_described(name: str, meta: Meta, tmp_path: Path) -> None:
    """By its first page, but for the system's files; and the words are read back."""
    path = write_space(tmp_path / name, 2, meta)
    assert describe_space(path) == meta
    (tmp_path / "meta").write_text(meta.text)
    assert read_meta(tmp_path / "meta") == meta
    assert meta.text.splitlines() == [
        f"page_size = {meta.page_size}",
        f"zip_size = {meta.zip_size}",
        f"space_id = {meta.space_id}",
        f"space_flags = {meta.space_flags}",
    ]


@pytest.mark.parametrize("pages", [1, 254, 255, 256, 510, 600])
def test_a_delta_gives_the_file_back(pages: int, tmp_path: Path) -> None:
    """In one cluster or several, full ones and not; whatever stood there before goes."""
    path = write_space(tmp_path / "t.ibd", pages)
    goal = tmp_path / "goal" / "t.ibd"
    delta = write_delta(path)
    apply_delta(delta, SMALL, goal)
    assert goal.read_bytes() == path.read_bytes()
    goal.write_bytes(bytes(700 * 1024))
    apply_delta(delta, SMALL, goal)
    assert goal.read_bytes() == path.read_bytes()


def test_a_delta_has_the_real_layout(tmp_path: Path) -> None:
    """A magic, the numbers of the pages, an end mark where there is room; another magic at last."""
    content = write_delta(write_space(tmp_path / "t.ibd", 257)).read_bytes()
    first, second = content[:1024], content[256 * 1024 :]
    assert first[:4] == b"xtra"
    assert struct.unpack(">255I", first[4:]) == tuple(range(255))
    assert second[:4] == b"XTRA"
    assert struct.unpack(">3I", second[4:16]) == (255, 256, 0xFFFFFFFF)
    assert second[16:1024] == bytes(1008)
    assert len(second) == 3 * 1024


def test_what_is_no_delta_is_refused(tmp_path: Path) -> None:
    """Another magic, an end that is missing, and a page that is left out."""
    delta = write_delta(write_space(tmp_path / "t.ibd", 3))
    content = delta.read_bytes()
    for broken, said in (
        (b"none" + content[4:], "is not valid .delta file"),
        (content[:-1], "is cut"),
        (b"", "is cut"),
        (content[:8] + struct.pack(">I", 2) + content[12:], "lacks page 1"),
    ):
        delta.write_bytes(broken)
        with pytest.raises(Failure) as caught:
            apply_delta(delta, SMALL, tmp_path / "goal")
        assert said in caught.value.text


@pytest.mark.parametrize("text", ["", "page_size = 16384\n"])
def test_half_a_description_is_refused(text: str, tmp_path: Path) -> None:
    """As one that is not there is."""
    with pytest.raises(Failure, match="failed to read metadata"):
        read_meta(tmp_path / "none")
    (tmp_path / "meta").write_text(text)
    with pytest.raises(Failure, match="failed to read metadata"):
        read_meta(tmp_path / "meta")


def test_a_space_of_other_pages_is_refused(tmp_path: Path) -> None:
    """Pages of 4 KiB, half a page, and none."""
    path = tmp_path / "t.ibd"
    for pages, flags in ((16, 0xC0), (1, 0x21)):
        write_space(path, pages, Meta(page_size=1024, zip_size=0, space_id=7, space_flags=flags))
        with pytest.raises(Failure, match="simulator: "):
            describe_space(path)
    path.write_bytes(b"")
    with pytest.raises(Failure, match="has no page"):
        describe_space(path)
