"""Starts a command and tells what it used: ``launcher.py DESCRIPTOR COMMAND…``.

The kernel counts to a process's peak memory what the process had from which it was started. So it
is started from this one, which is small, and imports next to nothing.
"""

import json
import os
import sys
import time


def main() -> int:
    """Run the command, write a line of JSON to the descriptor, and return the command's status."""
    descriptor, argv = int(sys.argv[1]), sys.argv[2:]
    began_at, began = time.time(), time.monotonic()
    closed = [(os.POSIX_SPAWN_CLOSE, descriptor)]
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=closed)
    _, status, usage = os.wait4(pid, 0)
    told = {
        "began_at": began_at,
        "seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    os.write(descriptor, json.dumps(told).encode())
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
