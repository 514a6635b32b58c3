"""Draws docs/trace.svg, the README's picture of a trace, from the bundled model: `python docs/picture.py`."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

WIDTH = 84
QUESTION = "How do I kill a Python process?"
TARGET = Path(__file__).with_name("trace.svg")


def main() -> None:
    """Runs `adacd explain`, colours kept, and writes what a terminal would show."""
    command = [sys.executable, "-m", "adacd_cli", "explain", QUESTION, "--quiet", "--display", "color"]
    shown = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    lines = shown.splitlines()[:-1]  # the last one tells the speed, which differs from run to run
    console = Console(record=True, width=WIDTH, file=io.StringIO(), legacy_windows=False)
    for line in lines:
        console.print(Text.from_ansi(line), highlight=False)
    # rich's own template fetches a font; whatever monospace font is there will do
    template = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    template = template.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")
    TARGET.write_text(
        console.export_svg(
            title=f'adacd explain "{QUESTION}"',
            theme=DEFAULT_TERMINAL_THEME,
            code_format=template,
            unique_id="trace",
        ),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
