"""When something runs by itself, and the files that make it so: systemd's units, a line for cron. Pure.

A moment is written as systemd's ``OnCalendar`` has it, in the small part of that language which
``docs/reference/schedules.md`` describes. It is taken apart into plain numbers, and both texts are
made of these, so that systemd and cron mean the same.
"""

from __future__ import annotations

import calendar
import dataclasses
import re
import shlex
from typing import TYPE_CHECKING, Final

from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
SHORTHANDS: Final = {
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
}
RANDOM_DELAY: Final = "10min"
"""Schedules of one moment do not begin in the same second."""
SYSTEMD, CRON, BOTH = "systemd", "cron", "both"
FORMATS: Final = (SYSTEMD, CRON, BOTH)
UNIT_DIR: Final = "/etc/systemd/system"
CRON_DIR: Final = "/etc/cron.d"
_LEAP_YEAR: Final = 2028
_SHAPE: Final = re.compile(
    r"(?:(?P<weekdays>[A-Za-z.,]+) +)?"
    r"(?:(?P<year>[^-\s]+)-(?P<month>[^-\s]+)-(?P<day>[^-\s]+) +)?"
    r"(?P<hour>[^:\s]+):(?P<minute>[^:\s]+)(?::(?P<second>[^:\s]+))?"
)
_CLOCK: Final = re.compile(r"(?:[01]?\d|2[0-3]):[0-5]\d")
_HINT: Final = (
    "write [DAYS] [*-MONTH-DAY] HOUR:MINUTE, such as '*-*-* 02:00', 'Mon..Fri 02:30' or "
    "'*-*-01 04:00'; docs/reference/schedules.md has all of it"
)
_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
_ACCOUNT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?")

_SERVICE = """\
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User={user}
{environment}ExecStart={command}
"""

_TIMER = """\
[Unit]
Description={description}, on schedule

[Timer]
OnCalendar={calendar}
RandomizedDelaySec={delay}
Persistent=true

[Install]
WantedBy=timers.target
"""

_CRON = """\
# {description}, on schedule
SHELL=/bin/sh
{environment}{calendar} {user} {command} >/dev/null
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calendar:
    """When something runs, as numbers; an empty tuple means each.

    Attributes:
        weekdays: 0 is Monday.
        months: 1 to 12.
        days: Of the month, 1 to 31.
        hours: 0 to 23.
        minutes: 0 to 59.
    """

    weekdays: tuple[int, ...] = ()
    months: tuple[int, ...] = ()
    days: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()
    minutes: tuple[int, ...] = ()

    @property
    def systemd(self) -> str:
        """As the value of ``OnCalendar``."""
        weekdays = ",".join(WEEKDAYS[day] for day in self.weekdays)
        date = f"*-{_join(self.months)}-{_join(self.days)}"
        clock = f"{_join(self.hours)}:{_join(self.minutes)}:00"
        return " ".join(filter(None, (weekdays, date, clock)))

    @property
    def cron(self) -> str:
        """As the five fields of cron.

        Raises:
            ConfigError: It is of weekdays and days of the month at once, which cron takes for
                either of them.
        """
        if self.weekdays and self.days:
            raise ConfigError(
                f"cron cannot say {self.systemd!r}: it would run on either of the days",
                hint="take --format systemd; or name days of the week, or of the month, not both",
            )
        weekdays = ",".join(str(day) for day in sorted((day + 1) % 7 for day in self.weekdays))
        fields = (self.minutes, self.hours, self.days, self.months)
        return " ".join([*(_join(values, width=1) for values in fields), weekdays or "*"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What runs by itself.

    Attributes:
        name: Of the units, and of the file for cron.
        description: For a reader, one line.
        command: Program and arguments, each path absolute.
        user: Account that it runs as.
        environment: What it has besides.
        delay: Up to how long systemd may put it off.
    """

    name: str
    description: str
    command: tuple[str, ...]
    user: str
    environment: tuple[tuple[str, str], ...] = ()
    delay: str = RANDOM_DELAY


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """A file to be put in place by a person.

    Attributes:
        path: Where.
        content: What.
    """

    path: str
    content: str


def parse_calendar(text: str) -> Calendar:
    """Return when a text in the form of ``OnCalendar`` means.

    Args:
        text: Such as ``*-*-* 02:00:00``, ``Mon..Fri 02:30`` or ``daily``.

    Raises:
        ConfigError: It is none, is of the rest of systemd's language, or never comes.
    """
    found = _SHAPE.fullmatch(SHORTHANDS.get(text.strip().lower(), text.strip()))
    if found is None:
        raise _refuse(text, "is no schedule")
    if (found["year"] or "*") != "*":
        raise _refuse(text, f"names the year {found['year']!r}, and must be of each year (*)")
    if (found["second"] or "00") not in ("0", "00"):
        raise _refuse(text, f"names the second {found['second']!r}, and must be at 00")

    def read(field: str, low: int, high: int) -> tuple[int, ...]:
        return _read_field(text, field, found[field] or "*", range(low, high + 1), _as_number)

    weekdays = found["weekdays"]
    parsed = Calendar(
        weekdays=_read_field(text, "day of the week", weekdays, range(7), _as_weekday)
        if weekdays
        else (),
        months=read("month", 1, 12),
        days=read("day", 1, 31),
        hours=read("hour", 0, 23),
        minutes=read("minute", 0, 59),
    )
    longest = max(
        calendar.monthrange(_LEAP_YEAR, month)[1] for month in parsed.months or range(1, 13)
    )
    if parsed.days and min(parsed.days) > longest:
        raise _refuse(text, f"never comes: no such month has {min(parsed.days)} days")
    return parsed


def parse_daily(text: str) -> Calendar:
    """Return the schedule of a time of each day.

    Args:
        text: Such as ``02:00``.

    Raises:
        ConfigError: It is no time.
    """
    if not _CLOCK.fullmatch(text.strip()):
        raise ConfigError(
            f"{text[:80]!r} is no time of the day", hint="write it as HOUR:MINUTE, such as 02:00"
        )
    return parse_calendar(text)


def parse_weekly(text: str) -> Calendar:
    """Return the schedule of a time of one day of the week.

    Args:
        text: Such as ``Sun 02:00``.

    Raises:
        ConfigError: It is none.
    """
    day, _, clock = text.strip().partition(" ")
    if _as_weekday(day) is None or not _CLOCK.fullmatch(clock.strip()):
        raise ConfigError(
            f"{text[:80]!r} is no day of the week with a time",
            hint="write it as DAY HOUR:MINUTE, such as 'Sun 02:00'",
        )
    return parse_calendar(text)


def render_units(job: Job, when: Calendar) -> tuple[File, File]:
    """Return the service that does something once, and the timer that starts it.

    Raises:
        ConfigError: A word of the command cannot stand in a unit.
    """
    values = {
        "description": quote_specifiers(job.description),
        "user": _need_account(job.user),
        "command": " ".join(quote_systemd(word).replace("$", "$$") for word in job.command),
        "environment": "".join(
            f"Environment={quote_systemd(f'{name}={value}')}\n" for name, value in job.environment
        ),
        "calendar": when.systemd,
        "delay": job.delay,
    }
    return (
        File(path=f"{UNIT_DIR}/{job.name}.service", content=_SERVICE.format(**values)),
        File(path=f"{UNIT_DIR}/{job.name}.timer", content=_TIMER.format(**values)),
    )


def render_cron(job: Job, when: Calendar) -> File:
    """Return the file with the line for cron that means the same.

    What goes wrong is said on stderr, which cron sends by mail; the document on stdout is not.

    Raises:
        ConfigError: Cron cannot say it.
    """
    content = _CRON.format(
        description=job.description,
        environment="".join(f"{_assign_cron(name, value)}\n" for name, value in job.environment),
        calendar=when.cron,
        user=_need_account(job.user),
        command=" ".join(quote_cron(word) for word in job.command),
    )
    # run-parts and cron pass over names with a dot
    return File(path=f"{CRON_DIR}/{job.name.replace('.', '_')}", content=content)


def quote_specifiers(text: str) -> str:
    """Return a text in which systemd sees no specifier.

    Raises:
        ConfigError: It holds a control character.
    """
    return _need_printable(text).replace("%", "%%")


def quote_systemd(word: str) -> str:
    """Return a word as it stands in a unit file.

    In ``ExecStart`` a dollar is doubled besides.

    Raises:
        ConfigError: It holds a control character.
    """
    text = quote_specifiers(word)
    if _PLAIN_WORD.fullmatch(word):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def quote_cron(word: str) -> str:
    r"""Return a word as it stands in a line of cron.

    A percent sign ends the command there unless a backslash is before it. Some crons take that
    backslash away, some leave it to the shell: outside of quotes, ``\%`` is right for both.

    Raises:
        ConfigError: It holds a control character, or a backslash, which crons read differently.
    """
    if "\\" in _need_printable(word):
        raise ConfigError(
            f"cron cannot carry the backslash in {word!r}",
            hint="take --format systemd, or another path",
        )
    return r"\%".join(shlex.quote(piece) if piece else "" for piece in word.split("%")) or "''"


def _assign_cron(name: str, value: str) -> str:
    """Return a variable of a file for cron, which reads the value as it stands in quotes."""
    quote = "'" if '"' in value else '"'
    if quote in _need_printable(value):
        raise ConfigError(
            f"cron cannot carry both kinds of quotes in {name}", hint="take --format systemd"
        )
    return f"{name}={quote}{value}{quote}"


def _join(values: Sequence[int], *, width: int = 2) -> str:
    return ",".join(f"{value:0{width}}" for value in values) or "*"


def _read_field(
    whole: str, name: str, text: str, bounds: range, parse: Callable[[str], int | None]
) -> tuple[int, ...]:
    """Return the values that a field names, in order; none where it names all of them."""
    low, high = bounds[0], bounds[-1]
    values: set[int] = set()
    for item in text.split(","):
        span, slash, step = item.partition("/")
        first, dots, last = span.partition("..")
        begin = low if first == "*" else parse(first)
        end = (parse(last) if dots else begin) if first != "*" else high
        if slash and not dots:
            end = high
        leap = parse(step) if slash else 1
        is_good = (
            begin is not None
            and end is not None
            and leap
            and low <= begin <= end <= high
            and not (dots and first == "*")
            and not (slash and parse is _as_weekday)
        )
        if not is_good or begin is None or end is None or not leap:
            raise _refuse(whole, f"has the {name} {item!r}, which is none of {_say(bounds, parse)}")
        values.update(range(begin, end + 1, leap))
    return () if len(values) == len(bounds) else tuple(sorted(values))


def _say(bounds: range, parse: Callable[[str], int | None]) -> str:
    if parse is _as_weekday:
        return "Mon to Sun, alone or as a range that counts up"
    return f"{bounds[0]} to {bounds[-1]}, alone, or as a range that counts up"


def _as_number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,2}", text) else None


def _as_weekday(text: str) -> int | None:
    short = text[:3].capitalize()
    names = (short, calendar.day_name[WEEKDAYS.index(short)]) if short in WEEKDAYS else ()
    return WEEKDAYS.index(short) if text.capitalize() in names else None


def _need_printable(text: str) -> str:
    if not text.isprintable():
        raise ConfigError(
            f"{text!r} holds a control character, which no schedule can carry",
            hint="take another path",
        )
    return text


def _need_account(user: str) -> str:
    if not _ACCOUNT.fullmatch(user):
        raise ConfigError(
            f"{user!r} is no account that a schedule can name", hint="name another with --user"
        )
    return user


def _refuse(text: str, reason: str) -> ConfigError:
    return ConfigError(f"{text[:80]!r} {reason}", hint=_HINT)
