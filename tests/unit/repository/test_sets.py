from __future__ import annotations

import dataclasses

import pytest
from hostile import MODEST, NAMES, TEXT
from hypothesis import given
from hypothesis import strategies as st
from stored_sets import BACKUP_ID, OTHER_ID, make_folder, make_manifest, make_set

from orchestrator.repository import names, sets
from orchestrator.repository.sets import Entry, Folder, State

WHOLE = make_folder(make_manifest())
ENTRIES = WHOLE.entries
PLANTED = Entry(name="x\x1b[31m\n", bytes=1)


def change(*entries: Entry) -> Folder:
    """Return the whole set with other entries."""
    return dataclasses.replace(WHOLE, entries=entries)


def replace_first(**changes: object) -> Folder:
    """Return the whole set with its first part listed in another way."""
    return change(dataclasses.replace(ENTRIES[0], **changes), *ENTRIES[1:])  # type: ignore[arg-type]  # by name


def rename_manifest(name: str) -> Folder:
    """Return the whole set with its manifest under another name, so that none was read."""
    return dataclasses.replace(change(*ENTRIES[:-1], Entry(name=name, bytes=9)), manifest=None)


FOLDERS: list[tuple[Folder, State, str]] = [
    (Folder(name="lost+found"), State.FOREIGN, "lost+found"),
    (Folder(name=PLANTED.name), State.FOREIGN, "x1b"),
    (rename_manifest(names.EXPIRED_MANIFEST), State.EXPIRED, "manifest.expired"),
    (rename_manifest(names.NEW_MANIFEST), State.NO_MANIFEST, "no manifest.json"),
    (Folder(name=BACKUP_ID), State.NO_MANIFEST, "no manifest.json"),
    (change(*ENTRIES[:-1]), State.NO_MANIFEST, "no manifest.json"),
    (dataclasses.replace(WHOLE, manifest=None), State.MANIFEST_REFUSED, "was not read"),
    (
        dataclasses.replace(WHOLE, manifest=None, refusal="its MAC"),
        State.MANIFEST_REFUSED,
        "its MAC",
    ),
    (dataclasses.replace(WHOLE, name=OTHER_ID), State.MANIFEST_REFUSED, BACKUP_ID),
    (change(*ENTRIES[1:]), State.FILE_MISSING, "part-000001.age is missing"),
    (change(*ENTRIES[:3], ENTRIES[-1]), State.FILE_MISSING, "key-bundle.json is missing"),
    (replace_first(is_file=False), State.FILE_MISSING, "is no file"),
    (replace_first(bytes=7), State.WRONG_SIZE, "part-000001.age has 7 bytes, not 1048576"),
    (replace_first(name="part-000009.age"), State.FILE_MISSING, "part-000001.age is missing"),
    (change(*ENTRIES, PLANTED), State.UNEXPECTED_FILE, "x1b"),
    (
        change(*ENTRIES, Entry(name=names.EXPIRED_MANIFEST, bytes=1)),
        State.UNEXPECTED_FILE,
        "manifest.expired",
    ),
    (WHOLE, State.COMPLETE, ""),
]


@pytest.mark.parametrize(("folder", "state", "problem"), FOLDERS)
def test_a_folder_is_worth_the_worst_that_was_found(
    folder: Folder, state: State, problem: str
) -> None:
    """Each state, from the listing that shows it."""
    report = sets.judge_folder(folder)
    assert report.state is state
    assert problem.replace("x1b", "\\x1b") in " ".join(report.problems)
    assert bool(report.problems) is (state is not State.COMPLETE)
    assert all(text.isprintable() for text in report.problems)


def test_every_state_is_met() -> None:
    """None is in the list for nothing."""
    assert {state for _, state, _ in FOLDERS} | {State.CHAIN_BROKEN} == set(State)


def test_all_that_was_found_is_told_up_to_a_bound() -> None:
    """A folder full of other files does not fill the screen."""
    many = [Entry(name=f"x{number}", bytes=1) for number in range(50)]
    report = sets.judge_folder(change(*ENTRIES[1:], *many))
    assert report.state is State.FILE_MISSING
    assert len(report.problems) == 21
    assert report.problems[-1] == "and 31 more"


@MODEST
@given(
    name=NAMES | st.just(BACKUP_ID),
    entries=st.lists(
        st.builds(
            Entry,
            name=NAMES | TEXT | st.sampled_from([entry.name for entry in ENTRIES]),
            bytes=st.integers(),
            is_file=st.booleans(),
        ),
        max_size=6,
    ),
)
def test_any_listing_is_judged(name: str, entries: list[Entry]) -> None:
    """Whatever was put there, there is an answer that can be printed; and it is not a good one."""
    folder = Folder(name=name, entries=tuple(entries), manifest=make_manifest())
    report = sets.judge_folder(folder)
    assert report.state in State
    assert all(text.isprintable() and len(text) < 500 for text in report.problems)
    assert not report.state.is_restorable or name == BACKUP_ID


def test_a_set_is_worth_no_more_than_what_it_builds_on() -> None:
    """A base that is not there or not sound breaks the chain of all that build on it."""
    full, other = make_set(1), make_set(5)
    first = make_set(2, base=full)
    second = make_set(3, base=first)
    folders = [make_folder(each) for each in (second, other, full, first)]

    def judge(*chosen: Folder) -> dict[str, State]:
        return {report.name: report.state for report in sets.judge_repository(chosen)}

    assert list(judge(*folders)) == sorted(each.name for each in folders)
    assert set(judge(*folders).values()) == {State.COMPLETE}
    cut = dataclasses.replace(folders[2], entries=folders[2].entries[1:])
    for chosen in ([*folders[:2], folders[3]], [*folders[:2], cut, folders[3]]):
        found = judge(*chosen)
        assert found[first.backup_id] is found[second.backup_id] is State.CHAIN_BROKEN
        assert found[other.backup_id] is State.COMPLETE
    assert judge(cut)[full.backup_id] is State.FILE_MISSING


def test_a_file_too_many_in_a_base_breaks_no_chain() -> None:
    """It can be restored; the report of the base says it."""
    full = make_set(1)
    odd = make_folder(full)
    odd = dataclasses.replace(odd, entries=(*odd.entries, PLANTED))
    first, second = sets.judge_repository([odd, make_folder(make_set(2, base=full))])
    assert first.state is State.UNEXPECTED_FILE
    assert second.state is State.COMPLETE
