"""``python -m orchestrator``, and the entry point of the command ``xbvault``."""

import gc

from orchestrator.cli.main import app


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="xbvault")
    finally:
        # All memory goes back at once: nothing is won by a last look through a million objects, which
        # takes a third of a second.
        gc.freeze()


if __name__ == "__main__":
    main()
