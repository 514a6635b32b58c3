"""What the tests of pages share: one Chromium for those of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium.CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def drive(browser: Any, tmp_path: Path) -> Callable[..., list[Any]]:
    """`chromium.drive` of a document and steps."""
    return partial(chromium.drive, browser, folder=tmp_path)
