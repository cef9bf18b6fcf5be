"""The ways, one module a kind; importing this registers them all, in the order of the table."""

from benchmark.ways import (  # noqa: I001 - the order of the table
    ours,
    bare,
    seeds,
    sst,
    clone_plugin,
    logical,
    several,
    stored,
    re_encryption,
    limits,
)

__all__ = [
    "bare",
    "clone_plugin",
    "limits",
    "logical",
    "ours",
    "re_encryption",
    "seeds",
    "several",
    "sst",
    "stored",
]
