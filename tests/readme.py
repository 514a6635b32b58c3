"""The blocks of README.md and docs/: every one is run, or says why it is not.

- A ```console block holds commands (`$ …`) and what each prints, 80 columns wide, without ADACD_* variables.
- The ```python blocks of a page run one after the other; a ```text block right after one is what it prints.
- `<!-- not run: needs … -->` on the line above a fence marks a block that is only shown.
- `<!-- generated: NAME -->` … `<!-- end -->` encloses a table that is made from the code (`TABLES`).

`python -m tests.readme` runs all of it again and writes what it prints into the pages; `test_readme`
compares. What differs from run to run or from CPU to CPU is left out of the comparison: times, memory and the
last digits of numbers.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from adacd_cli.cli.app import app
from adacd_cli.cli.options import help_text
from adacd_cli.config import SETTINGS
from adacd_cli.config.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

BLOCK = re.compile(
    r"^(?: *<!-- not run: (?P<reason>[^\n]+) -->\n)?^(?P<indent> *)```(?P<kind>\w*)\n(?P<body>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
PRINTED = re.compile(r"\n\n```text\n(?P<body>.*?)```", re.DOTALL)
TABLE = re.compile(r"(?P<mark><!-- generated: (?P<name>\w+) -->\n)(?P<body>.*?)(?=<!-- end -->)", re.DOTALL)
MEASURED = re.compile(
    r"[\d.]+ tokens/s|\"elapsed_s\": [\d.e-]+|\"tokens_per_s\": [\d.]+|\"peak_memory_bytes\": \d+"
)


@dataclass(frozen=True)
class Block:
    """A fenced block: page, first line, language, text, and why it is not run; "" if it is."""

    page: Path
    line: int
    kind: str
    body: str
    reason: str

    def __str__(self) -> str:
        first = self.reason or self.body.partition("\n")[0].removeprefix("$ ")
        return f"{self.page.name}:{self.line} {first}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, m.start()) + 1, m["kind"], m["body"], m["reason"] or "")
        for m in BLOCK.finditer(text)
    ]


def commands(body: str) -> Iterator[tuple[str, str]]:
    """(command, screen) of each `$ ` line of a console block; a backslash continues the command."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        match = re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n", part)
        assert match, part
        yield match[1], part[match.end() :]


def run_console(body: str) -> str:
    """The block as it is printed today; its commands share a folder that is empty at first."""
    with tempfile.TemporaryDirectory() as folder, working_in(folder):
        return "".join(f"$ {command}\n{run(command)}" for command, _ in commands(body))


def run(command: str) -> str:
    """What a terminal would show of a pipeline with one `adacd`, which runs in this process, for speed."""
    stages = command.replace("\\\n", " ").split(" | ")
    position, words = next(
        (number, words)
        for number, words in ((number, shlex.split(stage)) for number, stage in enumerate(stages))
        if "adacd" in words
    )
    start = words.index("adacd")
    own = dict(word.split("=", 1) for word in words[:start])
    given = shell(" | ".join(stages[:position]), b"")
    environment = {name: None for name in os.environ if name.startswith("ADACD_")}
    environment |= {"COLUMNS": "80", "HF_HUB_OFFLINE": "1", **own}
    environment["XDG_DATA_HOME"] = str(ROOT / "tests" / "data" / "no-profiles")  # none but the bundled ones
    done = CliRunner().invoke(app, words[start + 1 :], input=given, env=environment)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    if position + 1 == len(stages):
        return done.output
    return done.stderr + shell(" | ".join(stages[position + 1 :]), done.stdout_bytes).decode()


def shell(command: str, given: bytes) -> bytes:
    """What a shell's pipeline writes to stdout; nothing for no command."""
    if not command:
        return b""
    return subprocess.run(["sh", "-c", command], input=given, capture_output=True, check=True).stdout


@contextmanager
def working_in(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_python(page: Path) -> list[tuple[str, str | None, str]]:
    """(code, what the page says it prints, what it prints) of the page's Python blocks, in order."""
    text = page.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    found = []
    for match in BLOCK.finditer(text):
        if match["kind"] != "python" or match["reason"]:
            continue
        out = io.StringIO()
        with redirect_stdout(out):
            exec(compile(match["body"], str(page), "exec"), names)
        printed = PRINTED.match(text, match.end())
        found.append((match["body"], printed and printed["body"], out.getvalue()))
    return found


def masked(screen: str) -> str:
    """The screen without what differs from run to run, long numbers cut to three digits."""
    return re.sub(r"(\d\.\d{3})\d+", r"\1", MEASURED.sub("…", screen))


def settings_table() -> str:
    """Every setting with its flags and its help, under the headings of the help texts."""
    lines = []
    for panel in dict.fromkeys(setting.panel for setting in SETTINGS.values()):
        lines += ["", f"### {panel}", "", "| setting | flags | meaning |", "|---|---|---|"]
        for setting in (setting for setting in SETTINGS.values() if setting.panel == panel):
            flags = ", ".join(f"`{flag}`" for name in setting.flags for flag in name.split("/"))
            lines.append(f"| `{setting.name}` | {flags or '`--set` only'} | {help_text(setting)} |")
    return "\n".join([*lines[1:], "", ""])


def methods_table() -> str:
    """Every decoding method."""
    rows = ["| method | what it does | streams | settings |", "|---|---|---|---|"]
    for method in METHODS.values():
        streams = ", ".join(stream.name for stream in method.streams)
        settings = ", ".join(f"`{name}`" for name in dict.fromkeys(method.settings))
        rows.append(f"| `{method.name}` | {method.summary} | {streams} | {settings} |")
    return "\n".join([*rows, ""])


TABLES: dict[str, Callable[[], str]] = {"settings": settings_table, "methods": methods_table}


def refreshed(page: Path) -> str:
    """The page with the screens, outputs and tables of today."""
    text = page.read_text(encoding="utf-8")
    text = TABLE.sub(lambda match: match["mark"] + TABLES[match["name"]](), text)
    for block in blocks(page):
        if block.kind == "console" and not block.reason:
            body = run_console(block.body)
            if masked(body) != masked(block.body):  # else only what was measured differs
                text = text.replace(f"```console\n{block.body}```", f"```console\n{body}```")
    for code, says, prints in run_python(page):
        if says is not None:
            text = text.replace(f"{code}```\n\n```text\n{says}```", f"{code}```\n\n```text\n{prints}```")
    return text


def main() -> None:
    for page in PAGES:
        page.write_text(refreshed(page), encoding="utf-8")
    for block in (block for page in PAGES for block in blocks(page) if block.reason):
        sys.stdout.write(f"not run: {block}\n")


if __name__ == "__main__":
    main()
