"""Text made safe: what a terminal would obey becomes visible, what a table would break on fits its cell."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from adacd_cli.render.screen import BOLD, Screen, fit, label, printable, spoken
from tests.traces import Terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\tb [/INST] [bold]", "a\n\tb [/INST] [bold]"),
        ("\x1b]0;owned\x07", "␛]0;owned␇"),
        ("\r\x08\x00\x7f", "␍␈␀␡"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("終了 é 👍🏽", "終了 é 👍🏽"),
        ("a\u202e\u2066\u200fb\u202a\u2069\u200e", "a\\u202e\\u2066\\u200fb\\u202a\\u2069\\u200e"),
        ("\u200d\u202f\u2065\u206a", "\u200d\u202f\u2065\u206a"),
    ],
)
def test_printable_shows_controls(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_nothing_printable_moves_the_cursor(text):
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in printable(text))


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" Sure", "␣Sure"),
        ("\n\n", "⏎⏎"),
        ("\t", "⇥"),
        ("", "''"),
        ("\x1b[0m", "\\x1b[0m"),
        ("\u202e", "\\u202e"),
        ("\udc80", "\\udc80"),
        ("\u0301", "◌\u0301"),
        ("終了", "終了"),
    ],
)
def test_labels(token, shown):
    assert label(token) == shown


def test_a_token_in_a_sentence():
    assert [spoken(text) for text in (" Sure", " ", "\n")] == ["“Sure”", "“␣”", "“⏎”"]


@pytest.mark.parametrize(
    ("text", "width", "cell"),
    [("ab", 4, "ab  "), ("abcdef", 4, "abc…"), ("終了終", 4, "終 …"), ("終了", 4, "終了"), ("x", 0, "")],
)
def test_cells(text, width, cell):
    assert fit(text, width) == cell


@given(st.text(), st.integers(0, 30))
def test_every_token_fits_its_cell(text, width):
    assert cell_len(fit(label(text), width)) == width


@pytest.mark.parametrize(
    ("stream", "display", "environment", "written"),
    [
        (Terminal, "auto", {}, "\x1b[1mx␛\x1b[0m"),
        (Terminal, "auto", {"NO_COLOR": "1"}, "x␛"),
        (Terminal, "auto", {"TERM": "dumb"}, "x␛"),
        (Terminal, "plain", {}, "x␛"),
        (Terminal, "none", {}, "x␛"),
        (Terminal, "color", {"NO_COLOR": "1"}, "\x1b[1mx␛\x1b[0m"),
        (io.StringIO, "auto", {}, "x\x1b"),
        (io.StringIO, "auto", {"FORCE_COLOR": "1"}, "x\x1b"),
        (io.StringIO, "color", {}, "\x1b[1mx␛\x1b[0m"),
    ],
)
def test_styles_follow_terminal_display_and_no_color(stream, display, environment, written, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = stream()
    Screen(out, display).put("x\x1b", BOLD)
    assert out.getvalue() == written
