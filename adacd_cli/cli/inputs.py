"""Where a prompt comes from: the argument, stdin, or a file with one prompt a line.

Stdin is read to its end for `-` and `-f -`, when there is no argument and it is no terminal, and besides an
argument when it is a pipe or a file. A pipe that nobody closes is therefore waited for, and a
shell loop's file is read empty, as with `cat`; `< /dev/null` beside the argument says that there is no input.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path

from adacd_cli.errors import UsageError

_PATIENCE_S = 2.0
_STDIN = "Standard input"


def read_prompt(argument: str | None, *, command: str) -> str:
    """The prompt of a command: its argument, stdin, or stdin, a blank line and the argument.

    Args:
        argument: the positional argument; None or `-` where stdin is the prompt.
        command: the command's name, for the example in the hint.

    Raises:
        UsageError: there is no prompt, it is empty, or stdin is not UTF-8.
    """
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
    """The prompts of a file, or of stdin for `-`: one a line, blank lines skipped.

    Raises:
        UsageError: it cannot be read, is not UTF-8, or has no prompt in it.
    """
    name = _STDIN if file == "-" else f"The prompt file {file!r}"
    text = _read(file, name, "Name a text file with one prompt a line, or - for stdin.")
    prompts = [line for line in text.split("\n") if line.strip()]
    if not prompts:
        raise UsageError(f"{name} has no prompt in it.", "Write one prompt a line.")
    return prompts


def read_question(prompt: str | None, file: str | None, *, command: str) -> str:
    """The one question of a command; UsageError where there is none, or more than one."""
    if file is None:
        return read_prompt(prompt, command=command)
    if prompt is not None:
        raise UsageError("There is both a prompt and a --file.", "Leave one of them out.")
    questions = read_prompts(file)
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
