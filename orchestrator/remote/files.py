"""Files of a host: the commands that read and write them, and secrets that stand in them."""

from __future__ import annotations

import posixpath

from orchestrator.errors import PreconditionError
from orchestrator.models import Secret

NO_FILE = 66
"""Exit status of the command that reads: there is no such file (EX_NOINPUT of sysexits.h)."""

_READ_SCRIPT = f'[ -f "$1" ] || exit {NO_FILE}; exec cat -- "$1"'

# The size is checked before the rename: a connection that breaks looks like the end of the input.
_WRITE_SCRIPT = """
set -eu
umask 077
path=$1 directory=$2 mode=$3 owner=$4 size=$5
temporary=$(mktemp -- "$directory/.xbvault.XXXXXXXXXX")
trap 'rm -f -- "$temporary"' EXIT
trap 'exit 1' HUP INT TERM PIPE
cat > "$temporary"
if [ "$(wc -c < "$temporary")" -ne "$size" ]; then
    echo "the content was cut off" >&2
    exit 65
fi
if [ -n "$owner" ]; then chown -- "$owner" "$temporary"; fi
chmod -- "$mode" "$temporary"
sync -- "$temporary"
mv -f -T -- "$temporary" "$path"
trap - EXIT
sync -- "$directory"
"""


def make_read_command(path: str) -> list[str]:
    """Return the command that writes a file to its output, or ends with `NO_FILE`."""
    return ["sh", "-c", _READ_SCRIPT, "sh", path]


def make_write_command(path: str, *, size_bytes: int, mode: int, owner: str) -> list[str]:
    """Return the command that writes its input to a file whole, or leaves the file as it was.

    Args:
        path: The file; its directory must be there.
        size_bytes: Length of the input.
        mode: Permissions.
        owner: ``user`` or ``user:group``; empty: the one who runs it.
    """
    directory = posixpath.dirname(path) or "."
    return ["sh", "-c", _WRITE_SCRIPT, "sh", path, directory, f"{mode:04o}", owner, str(size_bytes)]


def parse_environment_file(text: str) -> dict[str, str]:
    """Return the names and values of a systemd EnvironmentFile; quotes around a value go.

    A remote job reads such files by the same rules (`load_environment` in ``host/job.sh``).
    """
    values = {}
    for line in text.split("\n"):
        name, equals, value = line.strip(" \t").partition("=")
        if not equals or name.startswith(("#", ";")):
            continue
        value = value.strip(" \t")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip(" \t")] = value
    return values


def find_secret(content: bytes, path: str, name: str, host: str) -> Secret:
    """Return a file's content as a secret, or the value of one name in it; see `Remote`.

    Raises:
        PreconditionError: The file is empty, has no such name, or has a backslash in the value.
    """
    text = content.decode("utf-8", errors="replace")
    value = parse_environment_file(text).get(name, "") if name else text.strip()
    if not value:
        missing = f"no {name} in {path}" if name else f"{path} is empty"
        raise PreconditionError(missing, host=host)
    if name and "\\" in value:
        raise PreconditionError(
            f"a backslash in {name} of {path}",
            host=host,
            hint="systemd would take it for an escape; write the value without",
        )
    return Secret(value)
