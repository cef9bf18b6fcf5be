"""What holds for every test."""

from __future__ import annotations

import os

import hypothesis

# The same examples each time, so that a push is judged by what it changes. To look for others:
# XBVAULT_EXAMPLES=random.
hypothesis.settings.register_profile(
    "xbvault", derandomize=os.environ.get("XBVAULT_EXAMPLES") != "random"
)
hypothesis.settings.load_profile("xbvault")
