"""``python -m orchestrator``, and the entry point of the command ``xbvault``."""

from orchestrator.cli.main import app


def main() -> None:
    """Run the command line."""
    app(prog_name="xbvault")


if __name__ == "__main__":
    main()
