"""Schedules: what is taken, what systemd and cron get, and that both mean the same."""

from __future__ import annotations

import datetime as dt
import re
import shlex
import subprocess

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import schedule
from orchestrator.errors import ConfigError
from orchestrator.schedule import Calendar, Job

JOB = Job(
    name="xbvault-backup-db1.example-to-store",
    description="Back up db1 to store",
    command=("/opt/xb vault/xbvault", "--config", '/etc/100%/a"b$c.toml', "backup", "db1"),
    user="backup",
    environment=(("XDG_STATE_HOME", "/var/lib/it's 1%"),),
)


@pytest.mark.parametrize(
    ("text", "systemd", "cron"),
    [
        ("*-*-* 02:00:00", "*-*-* 02:00:00", "0 2 * * *"),
        ("02:30", "*-*-* 02:30:00", "30 2 * * *"),
        ("daily", "*-*-* 00:00:00", "0 0 * * *"),
        ("Hourly", "*-*-* *:00:00", "0 * * * *"),
        ("weekly", "Mon *-*-* 00:00:00", "0 0 * * 1"),
        ("monthly", "*-*-01 00:00:00", "0 0 1 * *"),
        ("Mon..Fri 2:5", "Mon,Tue,Wed,Thu,Fri *-*-* 02:05:00", "5 2 * * 1,2,3,4,5"),
        ("Sun,sat *-*-* 02:00", "Sat,Sun *-*-* 02:00:00", "0 2 * * 0,6"),
        ("Monday 02:00", "Mon *-*-* 02:00:00", "0 2 * * 1"),
        ("Mon..Sun 02:00", "*-*-* 02:00:00", "0 2 * * *"),
        ("*-*-1,15 02:00", "*-*-01,15 02:00:00", "0 2 1,15 * *"),
        ("*-1/3-1 02:00", "*-01,04,07,10-01 02:00:00", "0 2 1 1,4,7,10 *"),
        ("*-*-* 0/6:00", "*-*-* 00,06,12,18:00:00", "0 0,6,12,18 * * *"),
        ("*-*-* */8:15", "*-*-* 00,08,16:15:00", "15 0,8,16 * * *"),
        ("*-*-* 8..18/5:0,30", "*-*-* 08,13,18:00,30:00", "0,30 8,13,18 * * *"),
    ],
)
def test_a_schedule_is_the_same_in_both_forms(text: str, systemd: str, cron: str) -> None:
    """What is written short comes out in full."""
    found = schedule.parse_calendar(text)
    assert (found.systemd, found.cron) == (systemd, cron)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no schedule"),
        ("at noon", "is no schedule"),
        ("*-*-* 02:00:00 UTC", "is no schedule"),
        ("*-*~1 02:00", "is no schedule"),
        ("yearly", "is no schedule"),
        ("*-*-* 02:00\nExecStart=x", "is no schedule"),
        ("2026-*-* 02:00", "the year '2026'"),
        ("*-*-* 02:00:30", "the second '30'"),
        ("*-*-* 24:00", "the hour '24', which is none of 0 to 23"),
        ("*-*-* 02:60", "the minute '60'"),
        ("*-13-* 02:00", "the month '13'"),
        ("*-*-0 02:00", "the day '0'"),
        ("*-*-* 5..2:00", "the hour '5..2'"),
        ("*-*-* 2/0:00", "the hour '2/0'"),
        ("*-*-* *..3:00", "the hour '*..3'"),
        ("*-*-* ²:00", "the hour '²'"),
        ("Fri..Mon 02:00", "day of the week 'Fri..Mon', which is none of Mon to Sun"),
        ("Mo 02:00", "day of the week 'Mo'"),
        ("*-02-30 02:00", "never comes"),
        ("*-2,4-31 02:00", "never comes"),
    ],
)
def test_what_is_no_schedule_of_ours_is_refused_with_its_reason(text: str, reason: str) -> None:
    """Rather than printed, for systemd to refuse or to read otherwise than cron."""
    with pytest.raises(ConfigError) as caught:
        schedule.parse_calendar(text)
    assert reason in caught.value.message
    assert caught.value.hint


def test_cron_cannot_say_weekdays_and_days_of_the_month_at_once() -> None:
    """It would run on either of them, as systemd would not."""
    found = schedule.parse_calendar("Sun *-*-1..7 02:00")
    assert found.systemd == "Sun *-*-01,02,03,04,05,06,07 02:00:00"
    with pytest.raises(ConfigError, match="on either of the days"):
        _ = found.cron


def fields(low: int, high: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Return values of a field, in order; none for all of them."""
    some = st.sets(st.integers(low, high), max_size=4).map(lambda found: tuple(sorted(found)))
    return some.filter(lambda found: len(found) <= high - low)


@given(
    fields(0, 6),
    fields(1, 12),
    fields(0, 23),
    fields(0, 59),
    st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2030, 1, 1)),  # noqa: DTZ001 - a wall clock
)
def test_what_cron_gets_means_what_systemd_gets(
    weekdays: tuple[int, ...],
    months: tuple[int, ...],
    hours: tuple[int, ...],
    minutes: tuple[int, ...],
    moment: dt.datetime,
) -> None:
    """Judged by a library that reads lines of cron; and what systemd gets is taken again."""
    found = Calendar(weekdays=weekdays, months=months, hours=hours, minutes=minutes)
    clock = moment.replace(second=0, microsecond=0)
    wanted = all(
        not values or value in values
        for value, values in (
            (clock.weekday(), weekdays),
            (clock.month, months),
            (clock.hour, hours),
            (clock.minute, minutes),
        )
    )
    assert croniter.match(found.cron, clock) is wanted
    assert schedule.parse_calendar(found.systemd) == found


@pytest.mark.parametrize("text", ["2:00", "02:00", "23:59"])
def test_a_time_of_each_day_is_taken(text: str) -> None:
    """As hour and minute."""
    assert schedule.parse_daily(text).systemd == f"*-*-* {text.zfill(5)}:00"


@pytest.mark.parametrize("text", ["2", "24:00", "02:0", "*:00", "02:00:00", "Mon 02:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """`--daily` takes a time and nothing else."""
    with pytest.raises(ConfigError, match="no time of the day"):
        schedule.parse_daily(text)


def test_a_time_of_one_day_of_the_week_is_taken() -> None:
    """By its short or its long name."""
    assert schedule.parse_weekly("Sun 02:00").systemd == "Sun *-*-* 02:00:00"
    assert schedule.parse_weekly("sunday  2:00").systemd == "Sun *-*-* 02:00:00"
    for text in ("02:00", "Sun", "Mon..Fri 02:00", "Sun *:00", ""):
        with pytest.raises(ConfigError, match="no day of the week with a time"):
            schedule.parse_weekly(text)


def test_the_units_hold_what_systemd_reads_as_it_was_meant() -> None:
    """Specifiers, variables and quotes are told from what they look like."""
    service, timer = schedule.render_units(JOB, schedule.parse_daily("02:00"))
    assert service.path == "/etc/systemd/system/xbvault-backup-db1.example-to-store.service"
    assert timer.path == "/etc/systemd/system/xbvault-backup-db1.example-to-store.timer"
    lines = service.content.splitlines()
    assert (
        'ExecStart="/opt/xb vault/xbvault" --config "/etc/100%%/a\\"b$$c.toml" backup db1' in lines
    )
    assert 'Environment="XDG_STATE_HOME=/var/lib/it\'s 1%%"' in lines
    assert "User=backup" in lines
    for line in ("OnCalendar=*-*-* 02:00:00", "Persistent=true", "RandomizedDelaySec=10min"):
        assert line in timer.content.splitlines()
    for file in (service, timer):
        assert all(re.fullmatch(r"|\[\w+\]|\w+=.+", line) for line in file.content.splitlines()), (
            file.content
        )


def test_the_file_for_cron_is_one_that_cron_reads() -> None:
    """Its name has no dot, the command is one line, and stdout is not sent by mail."""
    file = schedule.render_cron(JOB, schedule.parse_daily("02:00"))
    assert file.path == "/etc/cron.d/xbvault-backup-db1_example-to-store"
    *_, last = file.content.splitlines()
    assert last.startswith("0 2 * * * backup '/opt/xb vault/xbvault' --config ")
    assert last.endswith(" backup db1 >/dev/null")
    assert 'XDG_STATE_HOME="/var/lib/it\'s 1%"' in file.content


@given(
    st.text(st.characters(exclude_characters="\\", exclude_categories=("C", "Z")) | st.just(" "))
)
def test_a_word_for_cron_comes_out_whether_or_not_cron_takes_the_backslash(word: str) -> None:
    """Crons differ in that; no percent sign of the line is bare, which would end it."""
    written = schedule.quote_cron(word)
    assert re.findall(r"(?<!\\)%", written) == []
    assert shlex.split(written) == [word]
    assert shlex.split(written.replace("\\%", "%")) == [word]


def test_the_shell_reads_a_word_for_cron_as_it_was_meant() -> None:
    """With the shell that cron starts."""
    word = "a b%'c\"$(id)%%`;#"
    for line in (schedule.quote_cron(word), schedule.quote_cron(word).replace("\\%", "%")):
        done = subprocess.run(
            ["/bin/sh", "-c", f"printf %s {line}"], capture_output=True, text=True, check=True
        )
        assert done.stdout == word


@given(st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1))
def test_a_word_for_systemd_comes_out_as_it_went_in(word: str) -> None:
    """Read back by the rules of systemd.syntax(7): quotes, escapes, doubled specifiers."""
    written = schedule.quote_systemd(word)
    text = written
    if written.startswith('"'):
        assert written.endswith('"')
        text = re.sub(r"\\(.)", r"\1", written[1:-1])
        assert re.findall(r'(?<!\\)(?:\\\\)*"', written[1:-1]) == []
    else:
        assert " " not in written
    assert re.sub("%%", "", text).count("%") == 0
    assert text.replace("%%", "%") == word


@pytest.mark.parametrize("word", ["a\nb", "a\x00b", "a\x1bb", "a\u2028b"])
def test_a_control_character_is_refused(word: str) -> None:
    """It would begin another line of the file."""
    with pytest.raises(ConfigError, match="control character"):
        schedule.quote_systemd(word)
    with pytest.raises(ConfigError, match="control character"):
        schedule.quote_cron(word)


def test_cron_is_given_no_backslash_and_no_odd_account() -> None:
    """What crons read differently is refused, with the way out."""
    when = schedule.parse_daily("02:00")
    with pytest.raises(ConfigError, match="backslash") as caught:
        schedule.quote_cron("a\\b")
    assert "--format systemd" in caught.value.hint
    both = Job(name="n", description="d", command=("/x",), user="u", environment=(("A", "'\""),))
    with pytest.raises(ConfigError, match="both kinds of quotes"):
        schedule.render_cron(both, when)
    for user in ("", "a b", "x\nroot"):
        odd = Job(name="n", description="d", command=("/x",), user=user)
        with pytest.raises(ConfigError, match="no account"):
            schedule.render_cron(odd, when)
        with pytest.raises(ConfigError, match="no account"):
            schedule.render_units(odd, when)
