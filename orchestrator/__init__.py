"""xbvault: copy, back up and bring back encrypted MariaDB and MySQL servers."""


def version() -> str:
    """Return the installed version, such as ``0.1.0``."""
    from importlib import metadata  # noqa: PLC0415 - 30 ms that every other start would pay

    return metadata.version("xbvault")
