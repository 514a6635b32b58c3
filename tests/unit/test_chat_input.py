"""Where messages come from: keys at a prompt, and the lines of a pipe."""

from __future__ import annotations

import io
import stat

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from adacd_cli.cli.chat.input import CommandCompleter, PipeReader, TerminalReader, open_history
from adacd_cli.errors import UsageError

ENTER, ALT_ENTER, CTRL_C, CTRL_D, UP = "\r", "\x1b\r", "\x03", "\x04", "\x1b[A"


def typed(keys, *, draft="", history=None):
    """What the prompt gives for these keys, until the keys end or it does; EOFError as None."""
    found = []
    with create_pipe_input() as source:
        reader = TerminalReader(history or InMemoryHistory(), source, DummyOutput())
        for message in keys:
            source.send_text(message)
            try:
                found.append(reader.read(draft))
            except EOFError:
                found.append(None)
            draft = ""
    return found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("hi" + ENTER, "hi"),
        (ENTER, ""),
        ("one" + ALT_ENTER + "two" + ENTER, "one\ntwo"),
        ('"""' + ENTER + "one" + ENTER + ENTER + 'two"""' + ENTER, '"""\none\n\ntwo"""'),
        ('/system """' + ENTER + 'x"""' + ENTER, '/system """\nx"""'),
        ("never mind" + CTRL_C + "hi" + ENTER, "hi"),
        ('"""' + ENTER + "one" + CTRL_C + "hi" + ENTER, "hi"),
        (CTRL_C + "hi" + ENTER, "hi"),
        ("hi" + CTRL_D + ENTER, "hi"),
        (CTRL_D, None),
        ("\x1b[200~one\ntwo\x1b[201~" + ENTER, "one\ntwo"),  # a paste
    ],
)
def test_keys_make_a_message(keys, message):
    assert typed([keys]) == [message]


def test_a_draft_stands_at_the_prompt_again():
    assert typed([" there" + ENTER], draft="hi\nyou") == ["hi\nyou there"]


def test_an_earlier_message_comes_back_with_the_arrow_key():
    assert typed(["one" + ENTER, "two" + ENTER, UP + UP + ENTER]) == ["one", "two", "one"]


@pytest.mark.parametrize(
    ("before", "word", "completions"),
    [
        ("/", "", "help exit reset undo retry system set show method explain compare save save! load"),
        ("/", "s", "system set show save save!"),
        ("/", "set", "set"),
        ("/", "zz", ""),
        ("/", "/s", ""),
        ("hello ", "/s", ""),
        ('"""', "/s", ""),
        ("/set ", "te", "temperature"),
        ("/set ", "to", "top_p top_k"),
        ("/set ", "mod", ""),
        ("/set display ", "", "auto color plain none"),
        ("/set gate ", "t", "true"),
        ("/set alpha ", "", ""),
        ("/set display plain ", "", ""),
        ("/set zz ", "", ""),
        ("/method ", "", "default prompt selfcd safedecoding ssd surgical adacd adacd-gated fitted"),
        ("/method ", "d", "default"),
        ("/method default ", "", ""),
        ("/undo ", "", ""),
        ("/zz ", "", ""),
        ("/system ", "/s", ""),
        ("/set ", "te\n", ""),
    ],
)
def test_commands_settings_and_methods_complete(before, word, completions):
    text = before + word
    found = CommandCompleter().get_completions(Document(text), CompleteEvent())
    assert [text[: len(text) + completion.start_position] + completion.text for completion in found] == [
        before + completion for completion in completions.split()
    ]


@pytest.mark.parametrize("command", ["save", "save!", "load"])
def test_file_names_complete(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a talk.json").touch()
    (tmp_path / "other.json").touch()
    found = CommandCompleter().get_completions(Document(f"/{command} a t"), CompleteEvent())
    assert [completion.text for completion in found] == ["alk.json"]


def lines(data):
    reader = PipeReader(io.BytesIO(data))
    found = []
    while True:
        try:
            found.append(reader.read(""))
        except EOFError:
            return found


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (b"", []),
        (b"hi\n", ["hi"]),
        (b"hi", ["hi"]),
        (b"hi\r\n\r\nwhy\r\n", ["hi", "", "why"]),
        (b'"""\none\ntwo\n"""\nwhy\n', ['"""\none\ntwo\n"""', "why"]),
        (b'"""one"""\nwhy\n', ['"""one"""', "why"]),
        (b'/system """one\ntwo"""\n', ['/system """one\ntwo"""']),
        ("\ufeffähm\n".encode(), ["ähm"]),
    ],
)
def test_a_pipe_gives_a_line_at_a_time(data, messages):
    assert lines(data) == messages


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hi\na\xffb\n", "Standard input is not UTF-8: byte 2 of line 2 is 0xff."),
        (b'hi\n"""\none\n', 'The input ends inside a message that """ began.'),
    ],
)
def test_a_pipe_that_cannot_be_read_is_refused(data, message):
    with pytest.raises(UsageError) as error:
        lines(data)
    assert error.value.message == message
    assert error.value.hint


def test_history_lasts_and_is_for_the_user_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert typed(["one" + ENTER, 'two"""x' + ENTER], history=open_history()) == ["one", 'two"""x']
    file = tmp_path / "adacd" / "chat_history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert typed([UP + UP + ENTER], history=open_history()) == ["one"]


def test_history_stands_below_the_home_folder_without_a_state_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    typed(["one" + ENTER], history=open_history())
    assert "+one" in (tmp_path / ".local/state/adacd/chat_history").read_text()


def test_a_history_that_others_can_read_is_closed_to_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    file = tmp_path / "adacd" / "chat_history"
    file.parent.mkdir()
    file.touch(0o644)
    open_history()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_history_stays_in_memory_where_it_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    history = open_history()
    assert isinstance(history, InMemoryHistory)
    assert typed(["one" + ENTER, UP + ENTER], history=history) == ["one", "one"]


def test_a_history_that_breaks_off_does_not_end_the_chat(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = open_history()
    (tmp_path / "adacd" / "chat_history").unlink()
    (tmp_path / "adacd").rmdir()
    assert typed(["one" + ENTER, UP + ENTER], history=history) == ["one", "one"]
