"""Drives a page in headless Chromium, where it is installed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium, e.g. `apt-get install chromium`"
)


def drive(
    browser: Any,
    document: str,
    steps: Sequence[str],
    folder: Path,
    fragment: str = "",
    window: tuple[int, int] = (1280, 900),
) -> list[Any]:
    """What each JavaScript expression gave, evaluated in order after the page was drawn.

    A promise is waited for. Besides the page's own names there are `press(key)` on the focused element, `$`
    and `wait(milliseconds)`.
    """
    file = folder / "page.html"
    file.write_text(document, encoding="utf-8")
    seen = ",".join(f"() => {step}" for step in steps)
    with browser.new_context(viewport=dict(zip(("width", "height"), window, strict=True))) as context:
        page = context.new_page()
        page.goto(f"{file.as_uri()}{fragment}")
        values: list[Any] = page.evaluate(
            "async () => {"
            "const press = (key) => document.activeElement.dispatchEvent("
            "new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));"
            "const $ = (selector) => document.querySelector(selector);"
            "const wait = (time) => new Promise((done) => setTimeout(done, time));"
            "const seen = [];"
            f"for (const look of [{seen}]) seen.push((await look()) ?? null);"
            "return seen;"
            "}"
        )
    return values
