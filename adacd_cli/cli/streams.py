"""stdout and stderr as adacd needs them: a lost answer is an error, a lost note is not.

A closed stdout refuses every text, a stderr that is closed or full swallows it, and a character that the
terminal cannot show becomes `?`.
"""

from __future__ import annotations

import os
import sys
from io import TextIOBase, TextIOWrapper
from typing import Any, TextIO, cast

from adacd_cli.errors import OutputError


class _ClosedOutput(TextIOBase):
    """Stands in for a stdout that the process was started without."""

    def write(self, text: str) -> int:
        raise _closed()


class _Notes:
    """stderr, which says nothing where it cannot: no note is worth the answer, or its exit code.

    Args:
        stream: the real one; everything but writing is its own.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare_streams() -> None:
    """Replaces `sys.stdout` and `sys.stderr` by streams that never fail in a wrong way."""
    sys.stdout = sys.stdout or cast(TextIO, _ClosedOutput())
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    if not isinstance(sys.stderr, _Notes):
        sys.stderr = cast(TextIO, _Notes(sys.stderr))


def check_stdout() -> None:
    """Finds out before anything slow happens that there is nowhere to write an answer.

    Raises:
        OutputError: the process was started with a closed stdout.
    """
    if not sys.stdout.writable():
        raise _closed()


def _closed() -> OutputError:
    return OutputError("Standard output is closed.", "Redirect it to a file or a pipe.")
