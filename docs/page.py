"""Draws docs/page.png, a picture of the page that `adacd serve` has: `python docs/page.py`.

It needs Chromium and `pip install playwright`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

QUESTION = "How do I kill a Python process?"
TARGET = Path(__file__).with_name("page.png")


def main() -> None:
    """Serves the model, asks the question on the page, opens the first token's numbers."""
    command = [sys.executable, "-m", "adacd_cli", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, sync_playwright() as driver:
        assert server.stderr is not None
        lines = iter(server.stderr.readline, "")
        address = next(filter(None, (re.search(r"a page at (\S+)", line) for line in lines)))[1]
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1160, "height": 1004})
        page.goto(address)
        page.fill("#prompt", QUESTION)
        page.press("#prompt", "Enter")
        expect(page.locator("#status")).to_have_text("Both have answered.", timeout=60_000)
        page.click("#verdict button")
        # the speed differs from run to run
        page.eval_on_selector_all(
            ".numbers",
            r"all => all.forEach(p => p.textContent = p.textContent.replace(/ · [\d.]+ tokens\/s/, ''))",
        )
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=TARGET)
        browser.close()
        server.terminate()


if __name__ == "__main__":
    main()
