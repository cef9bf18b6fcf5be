"""``python -m benchmark``, with ``fixtures``, ``tests/support`` and this folder's parent on the path."""

from benchmark.cli import main

if __name__ == "__main__":
    main()
