"""What a command reads and where it writes. Stdin is read to its end for `-` and `-f -`, and when there is no
argument and it is no terminal. Beside an argument it is left alone, so that a shell loop can read its lines; where
a pipe is known to hold something, that is said.

A lost answer is an error, a lost note on stderr is not. A file is opened before anything slow happens. An existing
one is replaced only when the run has ended; until then the text stands in `FILE.partial`, which a run that fails
leaves behind."""

from __future__ import annotations

import codecs
import os
import select
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOBase, TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, cast

import typer

from adacd_cli.errors import INTERRUPTED, OutputError, UsageError
from adacd_cli.evaluation.datasets.files import TABLES, Columns, decode, prompt_text, read_rows, read_text

_PATIENCE_S = 2.0
_STDIN = "Standard input"
_CLOSED = OutputError("Standard output is closed.", "Redirect it to a file or a pipe.")


def read_questions(
    prompt: str | None, file: str | None, *, command: str, quiet: bool, column: str | None = None
) -> list[str]:
    """The questions of a command: its argument, every one of a file, or stdin for None or `-`. A file is read as a
    data set by the ending of its name; else, and stdin for `-`, one prompt a line. UsageError where there is no
    question, or a prompt and a file, or one cannot be read or is empty."""
    if file is None:
        return [_read_prompt(prompt, command, quiet)]
    if prompt is not None:
        raise UsageError("There is both a prompt and a --file.", "Leave one of them out.")
    path = Path(file).expanduser()
    if file != "-" and (path.suffix.lower() in TABLES or column is not None):
        rows = read_rows(path, Columns(column))
        prompts = [prompt_text(row.prompt, f"{file}, {row.place}") for row in rows]
    else:
        prompts = [line for line in read_file(file).split("\n") if line.strip()]
    if not prompts:
        name = _STDIN if file == "-" else file
        raise UsageError(f"{name} has no prompt in it.", "Write one prompt a line.")
    return prompts


def read_question(prompt: str | None, file: str | None, *, command: str, quiet: bool) -> str:
    """The one question of a command; UsageError as `read_questions`, and where there are several."""
    questions = read_questions(prompt, file, command=command, quiet=quiet)
    if len(questions) > 1:
        hint = "`adacd generate --file FILE --json` decodes them all."
        raise UsageError(f"`adacd {command}` takes one prompt; the file has {len(questions)}.", hint)
    return questions[0]


def _read_prompt(argument: str | None, command: str, quiet: bool) -> str:
    text = ""
    if argument not in (None, "-"):
        text = decode(os.fsencode(argument), "The prompt")
        if not quiet and _pipe_holds_something():
            print("Standard input is not read beside a prompt; `-` in its place reads it.", file=sys.stderr)
    elif argument == "-" or not (sys.stdin is None or sys.stdin.isatty()):
        with suppress(OSError, TypeError, ValueError):  # no descriptor, or a system that cannot ask a pipe
            # whoever did not mean to give one should know that it is waited for
            if not select.select([sys.stdin], [], [], _PATIENCE_S)[0]:
                line = "Reading the prompt from standard input; `< /dev/null` says there is none."
                print(line, file=sys.stderr)
        text = read_file("-")
    if not text.strip():
        hint = f'Give one, e.g. `adacd {command} "How do I kill a Python process?"`, or pipe it in.'
        raise UsageError("There is no prompt." if argument is None else "The prompt is empty.", hint)
    return text.strip("\r\n")


def read_file(file: str) -> str:
    """The text of a file, or of stdin for `-`; UsageError where it cannot be read, or is no text."""
    if file != "-":
        return read_text(Path(file).expanduser())
    if sys.stdin is None:
        raise UsageError("There is no standard input to read.", "Give the prompt as an argument.")
    return decode(sys.stdin.buffer.read(), _STDIN)


def _pipe_holds_something() -> bool:
    """Whether stdin is a pipe with bytes in it, as far as that is known without reading one."""
    # on Windows, without stdin, or without a descriptor behind it
    with suppress(ImportError, AttributeError, OSError, ValueError):
        import fcntl
        import termios

        descriptor = sys.stdin.fileno()
        waiting = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode) and any(waiting)
    return False


@contextmanager
def open_output(file: str | None) -> Iterator[TextIO]:
    """The stream to write to: a FILE, or stdout for None and `-`; OutputError where it cannot be written."""
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
            with suppress(OSError):  # the disk is full, which is the failure
                stream.flush()
            if isinstance(error, typer.Exit) and error.exit_code == INTERRUPTED:
                _put_in_place(partial, final)  # Ctrl-C while tokens came: the partial answer is the answer
            elif partial.stat().st_size:
                print(f"What was written so far is in {partial}.", file=sys.stderr)
            else:
                partial.unlink()
            raise
    _put_in_place(partial, final)


def _open(path: Path, file: str) -> TextIO:
    try:
        return path.open("w", encoding="utf-8", errors=_ESCAPED)
    except OSError as error:
        what = f"The output file {file!r} could not be written: {error.strerror or error}."
        raise OutputError(what, "Name a file in a folder that exists and that you may write to.") from error


def _put_in_place(partial: Path, final: Path) -> None:
    if final.exists():
        shutil.copymode(final, partial)
    partial.replace(final)


class _ClosedOutput(TextIOBase):
    """In place of a stdout that the process was started without."""

    def write(self, text: str) -> int:
        raise _CLOSED


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


_ESCAPED = "adacd-escaped"
escapes: list[int] = []
"""How many characters of the output could not be written as they are, each time."""


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """`\\xe9` for what the encoding cannot carry."""
    if isinstance(error, UnicodeEncodeError):
        escapes.append(error.end - error.start)
    return codecs.backslashreplace_errors(error)


def prepare_streams() -> None:
    """Replaces `sys.stdout` and `sys.stderr` by streams that never fail in a wrong way."""
    sys.stdout = sys.stdout or cast(TextIO, _ClosedOutput())
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    codecs.register_error(_ESCAPED, _escape)
    escapes.clear()
    if isinstance(sys.stdout, TextIOWrapper):
        # a file or pipe gets UTF-8 whatever the locale; a terminal knows its own encoding
        own = "PYTHONIOENCODING" in os.environ or sys.stdout.isatty()
        sys.stdout.reconfigure(encoding=None if own else "utf-8", errors=_ESCAPED)
    if not isinstance(sys.stderr, _Notes):
        sys.stderr = cast(TextIO, _Notes(sys.stderr))


def check_stdout() -> None:
    """Raises OutputError, before anything slow happens, where the process was started with a closed stdout."""
    if not sys.stdout.writable():
        raise _CLOSED
