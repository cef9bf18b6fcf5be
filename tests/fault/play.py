"""Playing a nemesis: it strikes at its moments, one clone goes through, and the laws are judged."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from typing import TYPE_CHECKING

import kills
import laws
import pytest
import table
from nemesis import GOES_ON, NEMESES, Moment, Nemesis
from stand import Command, Gate, Stand, note, pause, wait_for
from table import Row
from ways import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stand import Ended

CLONE = ("clone", "master", "replica", "--replace", "--yes", "--json")
MOST_SAMPLED = 9
"""So many moments of a nemesis are enough where not all of them are asked for."""
_RUN_ID = re.compile(r"\d{8}T\d{6}Z-[a-z0-9]+-[0-9a-f]{8}")
_NAMES = (
    (_RUN_ID, "RUN"),
    (re.compile(r"https://10\.99\.\d+\.\d+"), "https://vault.example.net"),
    (re.compile(r"10\.99\.\d+\.\d+"), "ADDRESS"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.+]\d+)*(?:[+-]\d\d:\d\d)?"), "MOMENT"),
    (re.compile(r"\bxbvault_[0-9a-f]{8}\b"), "xbvault_ID"),
    (re.compile(r"\b0x[0-9a-f]+\b|(?<=read )0x[0-9a-f]+"), "0xN"),
    (re.compile(r"/[^ ':,]*/lab/"), "…/"),
    (re.compile(r"\b[0-9a-f]{8,}\b"), "ID"),
    (re.compile(r"\b\d{4,}\b"), "N"),
)


def make_test(room: str) -> Callable[..., None]:
    """Return the test of a room's nemeses; of those of the sample, unless all are asked for."""
    only = os.environ.get("XBVAULT_FAULT_NEMESIS", "")
    names = [
        name
        for name, found in NEMESES.items()
        if found.room == room
        and OURS.flavor in found.flavors
        and only in ("", name)
        and (kills.is_full() or found.sample)
        and choose_moments(found)
    ]

    @pytest.mark.skipif(os.geteuid() != 0, reason="the laboratory needs root")
    @pytest.mark.timeout(1800)
    @pytest.mark.parametrize("name", names)
    def test_nemesis(
        stand: Stand, name: str, record_property: Callable[[str, object], None]
    ) -> None:
        """Whatever breaks, what comes of it is said, it is mended, and the laws hold."""
        for row in play(stand, NEMESES[name]):
            record_property(table.PROPERTY, row.as_json())

    return test_nemesis


def play(stand: Stand, nemesis: Nemesis) -> list[Row]:
    """Let a nemesis strike at each of its moments; return a row for each.

    Raises:
        AssertionError: Something came of a strike that is not said of the nemesis, a moment was not
            reached, a law was broken, or the run cannot be resumed.
    """
    moments = choose_moments(nemesis)
    play = _Play(stand, nemesis, moments)
    try:
        rows = play.strike_all()
        judge_end(stand, nemesis, play.before, play.run_id)
        give_back(stand, nemesis, play.before, play.run_id)
    except BaseException:
        play.give_up()  # so that the next nemesis finds the lab as this one did
        raise
    finally:
        play.end()
    return rows


def choose_moments(nemesis: Nemesis) -> list[Moment]:
    """Return the moments of a nemesis: all, those of the step that is asked for, or a sample."""
    moments = [moment for moment in nemesis.moments if kills.read_point() in ("", moment.step)]
    if kills.is_full() or len(moments) <= MOST_SAMPLED:
        return moments
    return moments[:: -(-len(moments) // MOST_SAMPLED)]


class _Play:
    def __init__(self, stand: Stand, nemesis: Nemesis, moments: Sequence[Moment]) -> None:
        self._stand = stand
        self._nemesis = nemesis
        self._left = list(moments)
        self._before = note(stand)
        self._earlier = stand.read_newest_run()
        self._command: Command | None = None
        self._gates = contextlib.ExitStack()
        self._open_gates: dict[str, Gate] = {}

    @property
    def before(self) -> laws.Before:
        """What was noted before the clone."""
        return self._before

    @property
    def run_id(self) -> str:
        """The clone."""
        newest = self._stand.read_newest_run()
        assert newest != self._earlier, "no run was begun"
        return newest

    def end(self) -> None:
        """Leave no process and no gate."""
        if self._command:
            self._command.end()
        self._gates.close()

    def give_up(self) -> None:
        """Take a run back that did not come to its end."""
        self.end()
        newest = self._stand.read_newest_run()
        if newest != self._earlier:
            for verb in ("cancel", "undo"):
                self._stand.start("runs", verb, newest, "--yes", "--json").wait()

    def strike_all(self) -> list[Row]:
        """Go through the clone, with a strike at each moment; return a row for each."""
        rows: list[Row] = []
        for moment in self._left:
            if moment.gate:
                gate = self._stand.gate(moment.gate, after_bytes=moment.after_bytes)
                self._open_gates[moment.gate] = self._gates.enter_context(gate)
        command = self._start()
        while self._left:
            moment = self._come_to_next(command)
            self._left.remove(moment)
            ended = self._strike(command, moment)
            rows.append(self._judge(moment, ended))
            if ended:
                command = self._start()
        ended = command.wait()
        self._gates.close()
        status = ended.document.get("status")
        assert status == self._nemesis.ends, f"{status} in the end: {ended.error}{ended.talk}"
        return rows

    def _start(self) -> Command:
        halts = ",".join(f"{m.step}:before" for m in self._left if not m.gate)
        newest = self._stand.read_newest_run()
        is_begun = newest != self._earlier
        arguments: Sequence[str] = CLONE
        if is_begun:
            arguments = ("runs", "resume", newest, "--json")
        if is_begun and self._nemesis.ends == "cancelled":  # what is broken stays so
            arguments = ("runs", "cancel", newest, "--yes", "--json")
        values = {"folder": self._stand.folder}
        environment = {key: text.format(**values) for key, text in self._nemesis.environment}
        environment["XBVAULT_HALT_AT"] = halts
        environment["XBVAULT_CONFIG"] = str(self._stand.write_config(self._nemesis.options))
        self._command = self._stand.start(*arguments, environment=environment)
        return self._command

    def _come_to_next(self, command: Command) -> Moment:
        """Wait until the orchestrator is halted, or a gate is reached; return the moment."""
        wait_for(lambda: self._is_there(command), self._left[0].phase)
        for moment in self._left:
            if moment.gate and self._open_gates[moment.gate].is_reached:
                return moment
        if command.is_halted:
            step = self._stand.read_step(self.run_id)
            for moment in self._left:
                if not moment.gate and moment.step == step:
                    return moment
        ended = command.wait()
        raise AssertionError(
            f"{self._left[0].phase} was not reached: exit {ended.status}, {ended.error}{ended.talk}"
        )

    def _is_there(self, command: Command) -> bool:
        waits = any(m.gate and self._open_gates[m.gate].is_reached for m in self._left)
        return waits or command.is_halted or command.has_ended

    def _strike(self, command: Command, moment: Moment) -> Ended | None:
        """Break, let the run go on, mend; return how the process ended, None if it went on."""
        nemesis = self._nemesis
        with nemesis.breaks(self._stand):
            self._let_go(command, moment)
            if nemesis.mends_after_seconds is not None:
                pause(nemesis.mends_after_seconds)
            else:
                self._wait_for_outcome(command)
        self._wait_for_outcome(command)
        if nemesis.harms_donor:
            server = laws.read_server(self._stand.lab, laws.DONOR)
            self._before = dataclasses.replace(self._before, donor_server=server)
        return command.wait() if command.has_ended else None

    def _let_go(self, command: Command, moment: Moment) -> None:
        if moment.gate:
            self._open_gates[moment.gate].open()
        else:
            command.go_on()

    def _wait_for_outcome(self, command: Command) -> None:
        wait_for(lambda: self._is_there(command), "the outcome of the strike", seconds=300)

    def _judge(self, moment: Moment, ended: Ended | None) -> Row:
        stand, nemesis = self._stand, self._nemesis
        breaches = laws.check_donor_runs(stand.lab, self._before)
        breaches += laws.check_earlier_data(stand.lab, self._before)
        failed = ended is not None and ended.status != 0
        error = ended.error if ended and failed else {}
        came = str(error.get("error", "")) if failed else GOES_ON
        if ended and failed and not error:
            breaches.append(f"exit {ended.status} without a document: {ended.talk}")
        if came not in nemesis.comes:
            breaches.append(f"what came was {came or 'nothing'}: {error}")
        said = " ".join(str(error.get(key, "")) for key in ("message", "hint", "problems"))
        if failed and nemesis.says and not any(word in said for word in nemesis.says):
            breaches.append(f"none of {nemesis.says} is said: {said}")
        assert not breaches, "\n".join(f"{moment.phase}: {breach}" for breach in breaches)
        return Row(
            nemesis=nemesis.name,
            phase=moment.phase,
            status=ended.status if ended and failed else None,
            error=came,
            message=blot(str(error.get("message", ""))),
            hint=blot(str(error.get("hint", ""))),
            after=f"{'resumed, ' if failed and nemesis.ends == 'succeeded' else ''}{nemesis.ends}",
        )


def judge_end(stand: Stand, nemesis: Nemesis, before: laws.Before, run_id: str) -> None:
    """Judge the laws over a run that has ended."""
    lab = stand.lab
    laws.check_ended(lab, run_id, nemesis.ends)
    succeeded = nemesis.ends == "succeeded"
    account = {f"xbvault_{run_id.rpartition('-')[2]}"} if succeeded else set()
    laws.check_donor_is_as_it_was(lab, before, accounts=account)
    breaches = laws.check_earlier_data(lab, before)
    assert not breaches, breaches
    laws.check_nothing_outlives(lab, run_id_to_backup(stand, run_id))
    laws.check_repeat_changes_nothing(lab, run_id)
    if succeeded:
        laws.check_recipient_equals_donor(lab)


def give_back(stand: Stand, nemesis: Nemesis, before: laws.Before, run_id: str) -> None:
    """Undo a clone that succeeded: the earlier data is one command away (law c)."""
    if nemesis.ends == "succeeded":
        ended = stand.start("runs", "undo", run_id, "--yes", "--json").wait()
        assert ended.status == 0, ended.error or ended.talk
    assert laws.check_earlier_data(stand.lab, before) == []
    laws.check_donor_is_as_it_was(stand.lab, before, accounts=set())


def run_id_to_backup(stand: Stand, run_id: str) -> str:
    """Return the backup id of a run."""
    shown = stand.start("runs", "show", run_id, "--json").wait().document
    return str(shown["backup_id"])


def blot(text: str) -> str:
    """Return a text without what is another one in each run."""
    for pattern, name in _NAMES:
        text = pattern.sub(name, text)
    return text
