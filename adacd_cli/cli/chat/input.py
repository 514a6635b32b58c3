"""Where messages and commands come from, and what a line means: a prompt_toolkit prompt at a terminal, lines of a
pipe elsewhere. `\"\"\"` opens and closes text of several lines, taken as it stands; `//x` is the message `/x`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output, create_output

from adacd_cli.cli.chat.commands import COMMANDS
from adacd_cli.errors import UsageError

_PROMPT = "> "
_QUOTES = '"""'
_CALL = re.compile(r"/(\S+)\s*(.*)", re.DOTALL)
_OPENING = re.compile(rf"\s*(/[^/\s]\S*\s+)?{_QUOTES}")


class Call(NamedTuple):
    """A slash command: its name without the slash, and the rest of the line."""

    name: str
    argument: str


def is_open(text: str) -> bool:
    """Whether the text opens with `\"\"\"`, as a message or as a command's argument, and does not close."""
    opening = _OPENING.match(text)
    return opening is not None and not text[opening.end() :].rstrip().endswith(_QUOTES)


def parse(text: str) -> Call | str:
    """A slash command, or the message; "" where there is none."""
    stripped = text.strip()
    if stripped.startswith("//"):
        return stripped[1:]
    found = _CALL.fullmatch(stripped)
    return Call(found[1], _unquoted(found[2])) if found else _unquoted(stripped)


def _unquoted(text: str) -> str:
    if text.startswith(_QUOTES) and text.endswith(_QUOTES) and len(text) >= 2 * len(_QUOTES):
        return text[len(_QUOTES) : -len(_QUOTES)].strip("\n")
    return text


class PipeReader:
    """Reads messages and commands from a pipe or a file of UTF-8, one a line."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._line = 0

    def read(self, draft: str) -> str:
        """The next line, or all lines between two `\"\"\"`; EOFError where there is none, UsageError where it is
        not UTF-8, or `\"\"\"` is never closed."""
        text = ""
        while data := self._stream.readline():
            self._line += 1
            try:
                text += data.decode("utf-8-sig" if self._line == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                place = f"byte {error.start + 1} of line {self._line} is 0x{data[error.start]:02x}"
                hint = "Convert it first, e.g. with `iconv -t utf-8`."
                raise UsageError(f"Standard input is not UTF-8: {place}.", hint) from error
            if not is_open(text):
                return text
            text += "\n"
        if text:
            raise UsageError('The input ends inside a message that """ began.', 'End the message with """.')
        raise EOFError


class TerminalReader:
    """Asks at the terminal, with history and completion; SOURCE has the keys, and on SCREEN the prompt is drawn."""

    def __init__(self, history: History, source: Input | None = None, screen: Output | None = None) -> None:
        self._session: PromptSession[str] = PromptSession(
            [("", "\n"), ("bold", _PROMPT)],
            multiline=True,
            prompt_continuation=" " * len(_PROMPT),
            history=history,
            completer=CommandCompleter(),
            key_bindings=_key_bindings(),
            input=source,
            # the answers alone go to stdout when it is a pipe
            output=screen or create_output(always_prefer_tty=True),
            enable_suspend=True,
        )

    def read(self, draft: str) -> str:
        """What was typed, `draft` being there to begin with; EOFError at Ctrl-D on an empty line."""
        return self._session.prompt(default=draft)


def _key_bindings() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # takes the completion, not yet the line
        elif is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.reset()

    return keys


class CommandCompleter(Completer):
    """Completes slash commands, and what the table says can follow them."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or text.startswith("//") or "\n" in text:
            return
        *before, word = text[1:].split(" ")
        if not before:
            for name, row in COMMANDS.items():
                if name.startswith(word):
                    yield Completion(name, -len(word), display=f"/{name}", display_meta=row.help)
            return
        if (command := COMMANDS.get(before[0])) is None:
            return
        if command.argument == "FILE":
            file = Document(text.partition(" ")[2])
            yield from PathCompleter(expanduser=True).get_completions(file, complete_event)
        for candidate in command.words(before[1:]):
            if candidate.startswith(word):
                yield Completion(candidate, -len(word))


def open_history() -> History:
    """The history of earlier chats, in the user's state folder; in memory where that cannot be written."""
    try:
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "adacd"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder / "chat_history"
        # what one asks a model is nobody else's business
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600))
        file.chmod(0o600)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return InMemoryHistory()
    return _LenientHistory(str(file))


class _LenientHistory(FileHistory):
    def store_string(self, string: str) -> None:
        with suppress(OSError, UnicodeError):  # a full disk, or half a character pasted into the prompt
            super().store_string(string)
