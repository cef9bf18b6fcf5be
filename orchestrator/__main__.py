"""``python -m orchestrator``, and the entry point of the command ``xbvault``."""

from orchestrator.cli import process
from orchestrator.cli.main import app


def main() -> None:
    """Run the command line."""
    process.begin()
    try:
        app(prog_name="xbvault")
    finally:
        process.end()


if __name__ == "__main__":
    main()
