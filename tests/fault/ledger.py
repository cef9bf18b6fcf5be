"""What came of each test of the faults, kept from one run to the next.

The whole suite takes most of an hour. Where one test failed for a reason that lies in the suite, it
alone is played again, and the page is written from what is kept, as long as the product is the same.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Rows = list[dict[str, Any]]


def read_digest(folders: Iterable[Path]) -> str:
    """Return the digest of all that is in the product's folders, byte code left out."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


class Ledger:
    """The rows of every test that has passed with this product.

    Args:
        path: Where they are kept.
        product: The product's digest; what is kept of another is forgotten.
    """

    def __init__(self, path: Path, product: str) -> None:
        self._path = path
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        is_same = kept.get("product") == product
        self._product = product
        self._wanted: set[str] = set(kept["wanted"]) if is_same else set()
        self._rows: dict[str, Rows] = kept["rows"] if is_same else {}

    def note(self, passed: Mapping[str, Rows], failed: Iterable[str], *, is_whole: bool) -> None:
        """Write down how tests ended.

        Args:
            passed: The rows of each that passed.
            failed: Those that did not.
            is_whole: No test was left out, so that these are all that there are.
        """
        failed = set(failed)
        if is_whole:
            self._wanted = failed | set(passed)
        both = self._rows | dict(passed)
        self._rows = {name: rows for name, rows in both.items() if name not in failed}
        document = {"product": self._product, "wanted": sorted(self._wanted), "rows": self._rows}
        self._path.write_text(json.dumps(document), encoding="utf-8")

    @property
    def rows(self) -> Rows | None:
        """The rows of the whole suite; None while a test of it has not passed."""
        if not self._wanted or not self._wanted <= set(self._rows):
            return None
        return [row for name in sorted(self._wanted) for row in self._rows[name]]
