"""Playbooks are checked whole, against the registered steps, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import engine_lab
import pytest

from orchestrator import playbook
from orchestrator.errors import ConfigError
from orchestrator.steps.registry import REGISTRY

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "name: mine\nsummary: One line.\nversion: 1\n"


@pytest.fixture(autouse=True)
def dummy_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the dummy steps."""
    for name, info in engine_lab.DUMMIES.items():
        monkeypatch.setitem(REGISTRY, name, info)


def problems_of(text: str) -> tuple[str, ...]:
    """Return what is wrong with a playbook."""
    with pytest.raises(ConfigError) as caught:
        playbook.parse_playbook(text, "mine.yaml")
    assert caught.value.exit_status == 2
    return caught.value.problems


def with_steps(*steps: str) -> str:
    """Return a playbook with these steps."""
    return HEAD + "steps:\n" + "".join(f"  - {{{step}}}\n" for step in steps)


def test_good_playbook_is_read_whole() -> None:
    """Name, summary, steps in order, values and clean-up come out, and the text is kept."""
    found = playbook.parse_playbook(engine_lab.MAIN, "main")
    assert (found.name, found.text) == ("engine-main", engine_lab.MAIN)
    assert found.summary.startswith("Four steps")
    assert [step.use for step in found.steps] == list(engine_lab.STEPS)
    assert found.steps[0].values == {"text": "hello"}
    assert found.steps[1].on == "both"
    assert [step.use for step in found.cleanup] == ["engine-sweep"]


def test_cleanup_may_be_left_out() -> None:
    """A playbook without a clean-up list has none."""
    assert playbook.parse_playbook(engine_lab.UNDO, "undo").cleanup == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            with_steps("use: engine-tow, on: both"),
            "steps[0].use: unknown step 'engine-tow'; did you mean 'engine-two'?",
        ),
        (
            with_steps("use: engine-two, on: donor"),
            "steps[0].on: step 'engine-two' acts on 'both', not on 'donor'",
        ),
        (
            with_steps("use: engine-two, on: master"),
            "steps[0].on: must be one of donor, recipient, both, source, is 'master'",
        ),
        (
            with_steps("use: engine-two"),
            "steps[0].on: must be one of donor, recipient, both, source, is None",
        ),
        (
            with_steps("use: engine-one, on: donor, with: {texd: a}"),
            "steps[0].with.texd: unknown value; did you mean 'text'?",
        ),
        (
            with_steps("use: engine-one, on: donor, with: {text: 3}"),
            "steps[0].with.text: must be text, is 3",
        ),
        (
            with_steps("use: engine-one, on: donor, with: {number: true}"),
            "steps[0].with.number: must be a whole number, is True",
        ),
        (
            with_steps("use: engine-one, on: donor, with: [text]"),
            "steps[0].with: must be a mapping, is ['text']",
        ),
        (
            with_steps("use: engine-measured, on: recipient, with: {ratio: wide}"),
            "steps[0].with.ratio: must be a number, is 'wide'",
        ),
        (
            with_steps("use: engine-measured, on: recipient"),
            "steps[0].with.ratio: is required",
        ),
        (
            with_steps("use: engine-two, on: both", "use: engine-two, on: both"),
            "steps[1].use: step 'engine-two' stands twice",
        ),
        (
            with_steps("use: engine-two, on: both, when: later"),
            "steps[0].when: unknown key",
        ),
        (
            with_steps("use: engine-three, on: recipient", "use: engine-two, on: both"),
            (
                "steps[0].use: step 'engine-three' goes back to 'engine-two', "
                "which does not stand earlier"
            ),
        ),
        (with_steps("on: both"), "steps[0]: must be a mapping with use, on, with"),
        (HEAD + "steps: []\n", "steps: must be a list of steps"),
        (HEAD + "steps: engine-two\n", "steps: must be a list of steps"),
        (
            with_steps("use: engine-two, on: both") + "clenup: []\n",
            "clenup: unknown key; did you mean 'cleanup'?",
        ),
        (
            with_steps("use: engine-two, on: both") + "cleanup: [{use: nobody, on: both}]\n",
            "cleanup[0].use: unknown step 'nobody'",
        ),
    ],
)
def test_problem_is_named_with_its_path(text: str, problem: str) -> None:
    """Each kind of mistake is reported once, with its path and a suggestion where one is near."""
    assert problems_of(text) == (problem,)


def test_all_problems_are_listed_at_once() -> None:
    """A playbook with several mistakes gets all of them in one error."""
    text = (
        "name: My Playbook\nversion: 2\nsteps:\n"
        "  - {use: engine-one, on: both, with: {text: 1, more: 2}}\n"
        "  - {use: nothing, on: both}\n"
    )
    assert problems_of(text) == (
        "name: must be a word of a-z, 0-9 and '-', is 'My Playbook'",
        "summary: must be a line of text, is None",
        "version: must be 1, is 2",
        "steps[0].on: step 'engine-one' acts on 'donor', not on 'both'",
        "steps[0].with.text: must be text, is 1",
        "steps[0].with.more: unknown value",
        "steps[1].use: unknown step 'nothing'",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "is not YAML: line"),
        ("name: a\nname: b\n", "is not YAML: line 2: key 'name' stands twice"),
        ("- a\n", "must be a mapping"),
        ("name: !!python/object/apply:os.getpid []\n", "is not YAML"),
        ("{[a]: b}\n", "is not YAML"),
    ],
)
def test_text_that_is_no_playbook_is_refused(text: str, message: str) -> None:
    """Broken YAML, doubled keys and anything but plain values are configuration errors."""
    with pytest.raises(ConfigError, match=message):
        playbook.parse_playbook(text, "mine.yaml")


def test_words_like_on_and_yes_stay_words() -> None:
    """The key ``on`` is a key, and ``yes`` is text; only true and false are truth values."""
    text = with_steps(
        "use: engine-one, on: donor, with: {text: yes}",
        "use: engine-measured, on: recipient, with: {ratio: 1, on: true}",
    )
    found = playbook.parse_playbook(text, "mine.yaml")
    assert found.steps[0].values == {"text": "yes"}
    assert found.steps[1].values == {"ratio": 1, "on": True}


def test_own_playbook_is_read_by_its_path(tmp_path: Path) -> None:
    """A path names a file; what is wrong in it is reported with the file's name."""
    path = tmp_path / "mine.yaml"
    path.write_text(engine_lab.UNDO)
    assert playbook.load_playbook(str(path)).name == "engine-undo"
    path.write_text(HEAD)
    with pytest.raises(ConfigError, match=r"1 problem in playbook mine\.yaml"):
        playbook.load_playbook(str(path))


def test_missing_playbook_is_a_configuration_error(tmp_path: Path) -> None:
    """A name that is not shipped, and a file that is not there, are exit status 2."""
    with pytest.raises(ConfigError, match="no playbook 'clown'"):
        playbook.load_playbook("clown")
    with pytest.raises(ConfigError, match="cannot read playbook"):
        playbook.load_playbook(str(tmp_path / "none.yaml"))
