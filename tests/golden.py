"""Texts that people read, in one golden file a room: tests/golden/ROOM.yaml maps a name to its text.

    python -m tests.golden ROOM    writes the room's file anew, by running the tests that check it

A test compares codes, parameters and exit codes itself, and leaves the wording to `check`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

_FOLDER = Path(__file__).with_name("golden")
_WRITES = os.environ.get("ADACD_GOLDEN") == "write"  # read here: tests run without ADACD_* variables


class _Blocks(yaml.SafeDumper):
    """Writes a text of several lines as a block, which a reviewer can read."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        style = "|" if "\n" in text else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Blocks.add_representer(str, _Blocks.represent_str)


def check(room: str, name: str, text: str) -> None:
    """Compares a text with its entry; with ADACD_GOLDEN=write in the environment it writes the entry."""
    path = _FOLDER / f"{room}.yaml"
    texts = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    if _WRITES:
        texts[name] = text
        path.write_text(yaml.dump(texts, Dumper=_Blocks, allow_unicode=True, width=10_000), encoding="utf-8")
    assert text == texts.get(name), f"{name!r} of tests/golden/{room}.yaml"


def main(rooms: list[str]) -> int:
    """Rewrites the files of these rooms; gives pytest's exit code."""
    code = 0
    for room in rooms or sorted(path.stem for path in _FOLDER.glob("*.yaml")):
        uses = re.compile(rf'check\(\s*"{room}"')
        files = sorted(Path(__file__).parent.rglob("test_*.py"))
        tests = [str(path) for path in files if uses.search(path.read_text(encoding="utf-8"))]
        if not tests:
            sys.exit(f"No test checks the room {room!r}.")
        (_FOLDER / f"{room}.yaml").unlink(missing_ok=True)
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", *tests]
        code = subprocess.call(pytest, env={**os.environ, "ADACD_GOLDEN": "write"}) or code
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
