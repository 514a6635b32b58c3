"""Seconds from the shell to the first token of the demo and back to the shell, and of `--help`; medians.

    python benchmarks/startup.py --trials 7
    python benchmarks/startup.py --trials 7 --against ../another-checkout

With `--against` the runs of both checkouts alternate. CPU seconds (user and system, of the whole process) say
more than the clock on a machine that does other things too. One round of warm-up fills the disk's cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent.parent
COMMANDS = {
    "first token": ["generate", "--model", "demo", "--max-new-tokens", "1", "--quiet", "Hi"],
    "--help": ["--help"],
    "generate --help": ["generate", "--help"],
}


class Start(NamedTuple):
    """Seconds of one run: until the first byte of the output, until its end, and of CPU time in all."""

    first: float
    end: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=7)
    parser.add_argument("--against", type=Path, help="another checkout of adacd")
    asked = parser.parse_args()
    checkouts = [HERE] if asked.against is None else [asked.against.resolve(), HERE]

    starts: dict[tuple[str, Path], list[Start]] = {}
    for trial in range(asked.trials + 1):
        for name, words in COMMANDS.items():
            for checkout in checkouts:
                start = run(words, checkout)
                if trial > 0:
                    starts.setdefault((name, checkout), []).append(start)

    print(f"{'':22}" + "".join(f"{title:24}" for title in ("  first byte, s", "  end, s", "  CPU, s")))
    for (name, checkout), runs in starts.items():
        label = name if checkout == HERE else f"{name}, other"
        print(f"{label:22}" + "".join(f"{told(list(column)):24}" for column in zip(*runs, strict=True)))


def run(words: list[str], checkout: Path) -> Start:
    """Starts adacd of the checkout once, with this Python."""
    command = [sys.executable, "-m", "adacd_cli", *words]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=checkout) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            sys.exit(f"adacd {' '.join(words)} printed nothing.")
        first = time.perf_counter() - began
        process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"adacd {' '.join(words)} ended with {process.returncode}.")
    return Start(first, time.perf_counter() - began, used.ru_utime + used.ru_stime)


def told(seconds: list[float]) -> str:
    median = statistics.median(seconds)
    return f"{median:8.2f} ({min(seconds):.2f} – {max(seconds):.2f})"


if __name__ == "__main__":
    main()
