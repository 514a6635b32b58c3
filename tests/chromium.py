"""Drives a page in headless Chromium, where it is installed.

A copy of the page gets one more script, allowed by its hash, that presses keys and writes what it saw.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium, e.g. `apt-get install chromium`"
)


def drive(
    document: str, steps: Sequence[str], tmp_path: Path, fragment: str = "", window: str = "1280,900"
) -> list[Any]:
    """What each JavaScript expression gave, evaluated in order after the page was drawn.

    A promise is waited for. Besides the page's own names there are `press(key)` on the focused element, `$`
    and `wait(milliseconds)`.
    """
    seen = ",".join(f"() => {step}" for step in steps)
    script = (
        "(async () => {"
        "const press = (key) => document.activeElement.dispatchEvent("
        "new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));"
        "const $ = (selector) => document.querySelector(selector);"
        "const wait = (time) => new Promise((done) => setTimeout(done, time));"
        "const seen = [];"
        f"for (const look of [{seen}]) seen.push((await look()) ?? null);"
        "const result = document.createElement('pre'); result.id = 'seen';"
        "result.textContent = JSON.stringify(seen); document.body.append(result);"
        "})();"
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    document = document.replace("script-src '", f"script-src 'sha256-{digest}' '", 1)
    document = document.replace("</body>", f"<script>{script}</script></body>")
    file = tmp_path / "page.html"
    file.write_text(document, encoding="utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --virtual-time-budget=10000 --dump-dom"
    )
    command = [
        str(CHROMIUM),
        *flags.split(),
        f"--window-size={window}",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"{file.as_uri()}{fragment}",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert found is not None, ran.stdout[-2000:]
    values: list[Any] = json.loads(html.unescape(found[1]))
    return values
