"""Where output goes: stdout, or the file of `--output`; a lost answer is an error, a lost note on stderr is not.

A file is opened before anything slow happens. An existing one is replaced only when the run has ended; until
then the text stands in `FILE.partial`, which a run that fails leaves behind.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOBase, TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, cast

import typer

from adacd_cli.errors import INTERRUPTED, OutputError


@contextmanager
def open_output(file: str | None) -> Iterator[TextIO]:
    """The stream to write to: the FILE that `--output` names, where None and `-` are stdout.

    Raises:
        OutputError: the file cannot be written, or stdout is closed.
    """
    if file is None or file == "-":
        check_stdout()
        yield sys.stdout
        return
    if not file:
        raise OutputError("The output file has no name.", "Name a file, or leave --output out.")
    path = Path(file).expanduser()
    if path.exists() and not path.is_file():  # a device or a pipe is written as it is
        with _open(path, file) as stream:
            yield stream
        return
    final = path.resolve()  # a link stays a link
    partial = final.with_name(f"{final.name}.partial")
    with _open(partial, file) as stream:
        try:
            yield stream
        except BaseException as error:
            if isinstance(error, typer.Exit) and error.exit_code == INTERRUPTED:
                stream.flush()  # Ctrl-C while tokens came: the partial answer is the answer
                _put_in_place(partial, final)
            else:
                _keep_or_remove(stream, partial)
            raise
    _put_in_place(partial, final)


def _open(path: Path, file: str) -> TextIO:
    try:
        return path.open("w", encoding="utf-8", errors="replace")
    except OSError as error:
        raise OutputError(
            f"The output file {file!r} could not be written: {error.strerror or error}.",
            "Name a file in a folder that exists and that you may write to.",
        ) from error


def _put_in_place(partial: Path, final: Path) -> None:
    if final.exists():
        shutil.copymode(final, partial)
    partial.replace(final)


def _keep_or_remove(stream: TextIO, partial: Path) -> None:
    with suppress(OSError):  # the disk is full, which is the failure
        stream.flush()
    if partial.stat().st_size:
        print(f"What was written so far is in {partial}.", file=sys.stderr)
    else:
        partial.unlink()


class _ClosedOutput(TextIOBase):
    """Stands in for a stdout that the process was started without."""

    def write(self, text: str) -> int:
        raise _closed()


class _Notes:
    """stderr, which says nothing where it cannot: no note is worth the answer, or its exit code."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

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
    """Raises OutputError, before anything slow happens, where the process was started with a closed stdout."""
    if not sys.stdout.writable():
        raise _closed()


def _closed() -> OutputError:
    return OutputError("Standard output is closed.", "Redirect it to a file or a pipe.")
