"""The README's screens: each ```console block is a command and what it prints.

`python -m tests.readme` runs them again and writes what they print into README.md; `test_readme` compares.
The runs are 80 columns wide and see no ADACD_* variables. What differs from run to run or from CPU to CPU is
left out of the comparison: times, memory, and the last digits of numbers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"```console\n\$ (?P<command>[^\n]+)\n(?P<screen>.*?)```\n", re.DOTALL)
MEASURED = re.compile(
    r"[\d.]+ tokens/s|\"elapsed_s\": [\d.e-]+|\"tokens_per_s\": [\d.]+|\"peak_memory_bytes\": \d+"
)


def blocks(text: str) -> list[tuple[str, str]]:
    """(command, screen) of each block."""
    return [(match["command"], match["screen"]) for match in BLOCK.finditer(text)]


def run(command: str) -> str:
    """What the command prints, stdout and stderr together, in a shell that finds `adacd`."""
    scripts = Path(sys.executable).parent
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ADACD_")}
    environment |= {
        "PATH": f"{scripts}{os.pathsep}{environment['PATH']}",
        "COLUMNS": "80",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return done.stdout


def masked(screen: str) -> str:
    """The screen without what differs from run to run, long numbers cut to three digits."""
    return re.sub(r"(\d\.\d{3})\d+", r"\1", MEASURED.sub("…", screen))


def main() -> None:
    text = README.read_text(encoding="utf-8")
    fresh = BLOCK.sub(
        lambda match: f"```console\n$ {match['command']}\n{run(match['command'])}```\n",
        text,
    )
    README.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
