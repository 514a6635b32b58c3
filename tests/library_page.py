"""docs/library.md's examples: each ```python block is run, and prints the ```text block that follows it.

`python -m tests.library_page` writes what they print today into the page.
"""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "library.md"
EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n\n```text\n(?P<printed>.*?)```\n", re.DOTALL)


def run_examples(text: str) -> list[tuple[str, str, str]]:
    """(code, what the page says it prints, what it prints) of each block, run one after the other."""
    names: dict[str, Any] = {}
    found = []
    for match in EXAMPLE.finditer(text):
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(match["code"], str(PAGE), "exec"), names)
        found.append((match["code"], match["printed"], out.getvalue()))
    return found


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for code, printed, now in run_examples(text):
        text = text.replace(f"{code}```\n\n```text\n{printed}```", f"{code}```\n\n```text\n{now}```")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
