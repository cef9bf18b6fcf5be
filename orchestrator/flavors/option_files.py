"""Option files as ``my_print_defaults`` reads them. Pure."""

from __future__ import annotations


def parse_print_defaults(text: str) -> dict[str, str]:
    """Return the options that ``my_print_defaults`` printed; a later one wins.

    Names are given with underscores and without prefixes such as ``loose-``; an option without a
    value is ``1``, and ``skip-x`` is ``x`` = ``0``.
    """
    options: dict[str, str] = {}
    for line in text.split("\n"):  # a value may hold what splitlines() takes for an end of line
        if not line.startswith("--"):
            continue
        name, has_value, value = line[2:].partition("=")
        name = name.replace("-", "_").lower()
        for prefix in ("loose_", "enable_"):
            name = name.removeprefix(prefix)
        if name in ("skip_slave_start", "skip_name_resolve", "skip_networking"):
            options[name] = value if has_value else "1"
        elif name.startswith(("skip_", "disable_")) and not has_value:
            options[name.partition("_")[2]] = "0"
        else:
            options[name] = value if has_value else "1"
    return options


def is_on(value: str) -> bool:
    """Return whether an option's or variable's text means on."""
    return value.strip().upper() in ("1", "ON", "YES", "TRUE", "FORCE", "FORCE_PLUS_PERMANENT")
