"""What a command reads and where it writes: prompts from the argument, stdin or a file of one a line, and output to
stdout or the file of `--output`.

Stdin is read to its end for `-` and `-f -`, when there is no argument and it is no terminal, and besides an
argument when it is a pipe or a file. A pipe that nobody closes is therefore waited for, and a
shell loop's file is read empty, as with `cat`; `< /dev/null` beside the argument says that there is no input.

A lost answer is an error, a lost note on stderr is not. A file is opened before anything slow happens. An existing
one is replaced only when the run has ended; until then the text stands in `FILE.partial`, which a run that fails
leaves behind.
"""

from __future__ import annotations

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

_PATIENCE_S = 2.0
_STDIN = "Standard input"


def read_prompt(argument: str | None, *, command: str) -> str:
    """The prompt of a command: its argument, stdin for None or `-`, or stdin, a blank line and the argument.
    UsageError where there is no prompt, it is empty, or stdin is not UTF-8."""
    parts = []
    if argument == "-" or _stdin_is_given(on_purpose=argument is not None):
        _say_when_waiting()
        parts.append(read_stdin())
    if argument is not None and argument != "-":
        parts.append(_decode(os.fsencode(argument), "The prompt"))
    prompt = "\n\n".join(part for part in (part.strip("\r\n") for part in parts) if part.strip())
    if not prompt:
        raise UsageError(
            "There is no prompt." if argument is None else "The prompt is empty.",
            f'Give one, e.g. `adacd {command} "How do I kill a Python process?"`, or pipe it in.',
        )
    return prompt


def read_prompts(file: str) -> list[str]:
    """The prompts of a file, or of stdin for `-`: one a line, blank lines skipped. UsageError where it cannot be
    read, is not UTF-8, or has no prompt in it."""
    name = _STDIN if file == "-" else f"The prompt file {file!r}"
    text = _read(file, name, "Name a text file with one prompt a line, or - for stdin.")
    prompts = [line for line in text.split("\n") if line.strip()]
    if not prompts:
        raise UsageError(f"{name} has no prompt in it.", "Write one prompt a line.")
    return prompts


def read_questions(prompt: str | None, file: str | None, *, command: str) -> list[str]:
    """The questions of a command; UsageError where there is none, or a prompt and a file."""
    if file is None:
        return [read_prompt(prompt, command=command)]
    if prompt is not None:
        raise UsageError("There is both a prompt and a --file.", "Leave one of them out.")
    return read_prompts(file)


def read_question(prompt: str | None, file: str | None, *, command: str) -> str:
    """The one question of a command; UsageError as `read_questions`, and where there are several."""
    questions = read_questions(prompt, file, command=command)
    if len(questions) > 1:
        raise UsageError(
            f"`adacd {command}` takes one prompt; the file has {len(questions)}, one a line.",
            "`adacd generate --file FILE --json` decodes them all.",
        )
    return questions[0]


def read_lines(file: str) -> list[str]:
    """The lines of a file of answers, or of stdin for `-`, blank ones too; UsageError as `read_prompts`."""
    return _read(file, f"The file {file!r}", "Name a file, or - for stdin.").split("\n")


def read_stdin() -> str:
    """All of stdin as text, line ends as `\\n`, without a byte order mark; UsageError where it is closed."""
    if sys.stdin is None:
        raise UsageError("There is no standard input to read.", "Give the prompt as an argument.")
    return _decode(sys.stdin.buffer.read(), _STDIN)


def _say_when_waiting() -> None:
    """A pipe that stays silent is waited for; whoever did not mean to give one should know."""
    try:
        ready = select.select([sys.stdin], [], [], _PATIENCE_S)[0]
    except (OSError, ValueError):  # no descriptor, or a system that cannot ask a pipe
        return
    if not ready:
        print("Reading the prompt from standard input; `< /dev/null` says there is none.", file=sys.stderr)


def _stdin_is_given(*, on_purpose: bool) -> bool:
    """Whether stdin is no terminal, and where it must be so ON PURPOSE neither a service's or a CI job's
    `/dev/null` nor its socket. Python has none when it was started with a closed one."""
    if sys.stdin is None or sys.stdin.isatty():
        return False
    if not on_purpose:
        return True
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):  # a stream without a descriptor, in place of stdin
        return True
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _read(file: str, name: str, hint: str) -> str:
    if file == "-":
        return read_stdin()
    try:
        data = Path(file).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(f"{name} could not be read: {error.strerror or error}.", hint) from error
    return _decode(data, name)


def _decode(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{name} is not UTF-8: byte {error.start + 1} is 0x{data[error.start]:02x}.",
            "Convert it first, e.g. with `iconv -t utf-8`.",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def open_output(file: str | None) -> Iterator[TextIO]:
    """The stream to write to: the FILE that `--output` names, where None and `-` are stdout; OutputError where it
    cannot be written, or stdout is closed."""
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
    """In place of a stdout that the process was started without."""

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
