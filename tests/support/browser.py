"""A page in headless Chromium: how wide it becomes, and what it shows."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = "chromium"
"""Debian's package; ``make test`` installs it."""
DESKTOP, PHONE = 1280, 360
_HARNESS = """<!DOCTYPE html><meta charset="utf-8">
<iframe id="page" style="border:0;width:{width}px;height:9000px"></iframe><pre id="told"></pre>
<script>
const frame = document.getElementById("page");
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  const boxes = [...page.querySelectorAll("td, th, p, b, code, h1, h2, rect, svg text")];
  document.getElementById("told").textContent = JSON.stringify({{
    width: root.clientWidth,
    scroll_width: root.scrollWidth,
    outside: boxes.filter(e => e.getBoundingClientRect().right > root.clientWidth + 1)
      .map(e => e.textContent),
    text: root.innerText,
    bars: page.querySelectorAll("rect.bar").length,
    smallest: Math.min(...boxes.filter(e => e.textContent.trim())
      .map(e => parseFloat(frame.contentWindow.getComputedStyle(e).fontSize))),
    ran: page.documentElement.hasAttribute("data-ran"),
  }});
}};
frame.srcdoc = {page};
</script>
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What a reader would see of a page.

    Attributes:
        width: Of the window, in pixels.
        scroll_width: Of the page; more than that of the window where one has to scroll sideways.
        outside: Texts that begin or end beyond the window's right edge.
        text: All that is shown.
        bars: How many bars the pictures have.
        smallest: Size of the smallest letters, in pixels.
        ran: Whether anything in the page was executed that says so.
    """

    width: int
    scroll_width: int
    outside: list[str]
    text: str
    bars: int
    smallest: float
    ran: bool


def look(page: str, width: int, folder: Path) -> Seen:
    """Return what is seen of a page in a window of a width.

    Args:
        page: The page.
        width: In pixels.
        folder: Where the browser may write.
    """
    harness = folder / f"harness-{width}.html"
    inner = json.dumps(page).replace("</", "<\\/").replace("<!--", "<\\!--")
    harness.write_text(_HARNESS.format(width=width, page=inner), "utf-8")
    ended = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=5000",
            f"--window-size={width + 40},1000",
            "--dump-dom",
            harness.as_uri(),
        ],
        capture_output=True,
        check=True,
        timeout=60,
        text=True,
    )
    told = re.search(r'<pre id="told">(.*?)</pre>', ended.stdout, re.DOTALL)
    assert told, ended.stderr
    return Seen(**json.loads(html.unescape(told[1])))
