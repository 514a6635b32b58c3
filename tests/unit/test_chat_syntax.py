"""What a typed line means."""

from __future__ import annotations

import pytest

from adacd_cli.cli.chat.input import Call, is_open, parse

LINES = [
    ("Hello there", "Hello there"),
    ("  Hello  \n", "Hello"),
    ("", ""),
    (" \n ", ""),
    ("/help", Call("help", "")),
    ("/help  ", Call("help", "")),
    ("/set alpha 3", Call("set", "alpha 3")),
    ("/set   alpha 3 ", Call("set", "alpha 3")),
    ('/system ""', Call("system", '""')),
    ("/save a file.json", Call("save", "a file.json")),
    ("/save! talk.json", Call("save!", "talk.json")),
    ('/system """Be brief.\nBe kind."""', Call("system", "Be brief.\nBe kind.")),
    ('/system\n"""\nBe brief.\n"""', Call("system", "Be brief.")),
    ("/", "/"),
    ("/ help", "/ help"),
    ("//help", "/help"),
    ("//", "/"),
    ("// a comment?", "/ a comment?"),
    ("What does /help do?", "What does /help do?"),
    (" /help", Call("help", "")),
    (" //help", "/help"),
    ('"""one\ntwo"""', "one\ntwo"),
    ('"""\none\n\n  two\n"""', "one\n\n  two"),
    ('"""/help"""', "/help"),
    ('""""""', ""),
    ('"""', '"""'),
    ('He said """x""" to me', 'He said """x""" to me'),
    ('""', '""'),
]


@pytest.mark.parametrize(("line", "meaning"), LINES)
def test_a_line_is_a_command_or_a_message(line, meaning):
    assert parse(line) == meaning


OPENINGS = [
    ('"""', True),
    ('"""one', True),
    ('"""one\ntwo', True),
    ('"""one"""', False),
    ('"""one\ntwo"""', False),
    ('"""one\ntwo"""  ', False),
    ('"""a """quoted""" word', True),
    ('""""', True),
    ('""""""', False),
    ('/system """', True),
    ('/system """Be brief.', True),
    ('/system """Be brief."""', False),
    ("/help", False),
    ('//x """', False),
    ('Say """', False),
    ("", False),
]


@pytest.mark.parametrize(("text", "open_"), OPENINGS)
def test_three_quotes_open_a_message_until_three_quotes_end_a_line(text, open_):
    assert is_open(text) is open_
