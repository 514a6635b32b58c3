"""The streamed answer: exact bytes on both streams, for terminals and pipes."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from adacd_cli.events import FinishReason
from adacd_cli.render.screen import View
from adacd_cli.render.text import stream_answer
from tests.traces import ADD, SUBTRACT, Terminal, contrasted, events, plain, started, turned

ANSWER = "Sure, run\n kill [/INST] [bold] \x1b[31m 終了 </script>|`x`.\n"
STATISTICS = "13 tokens · 1 added · 3 subtracted · 41.2 tokens/s · ended by itself\n"
SHORT = [contrasted("No", ADD, 0.9, 0.9), contrasted(" way", SUBTRACT, 0.2, 0.9), plain("!")]


@pytest.fixture(autouse=True)
def _color_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLORTERM", raising=False)


def show(stream, run, display="auto", stats=True, quiet=False):
    out, err = stream(), stream()
    finished = stream_answer(run, out, err, View("", display=display, stats=stats, quiet=quiet))
    assert finished == run[-1]
    return out.getvalue(), err.getvalue()


def test_a_pipe_gets_the_bare_text_and_stderr_the_statistics():
    assert show(io.StringIO, turned()) == (ANSWER, STATISTICS)


def test_a_terminal_gets_colours_and_a_legend():
    out, err = show(Terminal, events(started(), SHORT))
    assert out == "\x1b[4;38;5;161mNo\x1b[0m\x1b[38;5;31m way\x1b[0m!\n"
    assert err == (
        "\x1b[4;38;5;161m+ added\x1b[0m\x1b[2m (towards the prompted stream)\x1b[0m  "
        "\x1b[38;5;31m− subtracted\x1b[0m\x1b[2m (away from it)  · plain\x1b[0m\n"
        "\x1b[2m3 tokens · 1 added · 1 subtracted · 41.2 tokens/s · ended by itself\x1b[0m\n"
    )


@pytest.mark.parametrize("display", ["plain", "none"])
def test_a_terminal_without_styles_obeys_no_escape_of_the_model(display):
    out, err = show(Terminal, turned(), display=display)
    assert out == ANSWER.replace("\x1b", "␛")
    assert err == (STATISTICS if display == "plain" else "")


def test_no_color_takes_styles_and_legend_away(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    statistics = "3 tokens · 1 added · 1 subtracted · 41.2 tokens/s · ended by itself\n"
    assert show(Terminal, events(started(), SHORT)) == ("No way!\n", statistics)


def test_quiet_and_no_stats_leave_stderr_empty():
    assert show(io.StringIO, turned(), quiet=True) == (ANSWER, "")
    assert show(io.StringIO, turned(), stats=False) == (ANSWER, "")


@pytest.mark.parametrize(
    ("texts", "out"),
    [([], "\n"), (["a", "\n", "\n"], "a\n"), (["\n", "a\n\n", "b"], "\na\n\nb\n"), ([" ", "\n"], " \n")],
)
def test_an_answer_ends_with_exactly_one_newline(texts, out):
    assert show(io.StringIO, events(started(), map(plain, texts)), quiet=True) == (out, "")


@pytest.mark.parametrize(
    ("reason", "context_full", "ending"),
    [
        (FinishReason.STOP, False, "ended by itself"),
        (FinishReason.LENGTH, False, "stopped at max_new_tokens"),
        (FinishReason.LENGTH, True, "stopped at the context's end"),
        (FinishReason.CANCELLED, False, "cancelled"),
    ],
)
def test_the_statistics_say_why_the_answer_ended(reason, context_full, ending):
    run = events(started(), [plain("a")], reason, context_full)
    assert show(io.StringIO, run) == ("a\n", f"1 token · 41.2 tokens/s · {ending}\n")


def test_the_contexts_end_is_said_without_statistics_too():
    run = events(started(), [plain("a")], FinishReason.LENGTH, context_full=True)
    assert show(io.StringIO, run, stats=False) == ("a\n", "The answer stopped at the context's end.\n")


def test_thinking_goes_dimmed_to_stderr():
    thoughts = [plain(text, thinking=True) for text in ("<think>", "hm \x1b", "</think>")]
    run = events(started(), [*thoughts, plain("Yes")])
    out, err = show(Terminal, run, stats=False)
    assert out == "Yes\n"
    assert err == "\x1b[2m<think>\x1b[0m\x1b[2mhm ␛\x1b[0m\x1b[2m</think>\x1b[0m\n"
    assert show(io.StringIO, run, stats=False) == ("Yes\n", "<think>hm \x1b</think>\n")
    assert show(io.StringIO, run, quiet=True) == ("Yes\n", "")


def test_each_token_is_flushed_as_it_comes():
    shown: list[str] = []

    class Flushed(io.StringIO):
        def flush(self):
            shown.append(self.getvalue())

    out = Flushed()

    def coming():
        for place, event in enumerate(run):
            assert (shown[-1] if shown else "") == ("", "", "a", "a b", "a b c")[place]
            yield event

    run = events(started(), map(plain, ("a", " b", " c")))
    stream_answer(coming(), out, io.StringIO(), View("", stats=False))
    assert out.getvalue() == "a b c\n"


def test_an_error_while_decoding_begins_on_a_line_of_its_own():
    def failing():
        yield from events(started(), [plain("half")])[:-1]
        raise ValueError("broken")

    out = Terminal()
    with pytest.raises(ValueError, match="broken"):
        stream_answer(failing(), out, io.StringIO(), View(""))
    assert out.getvalue() == "half\n"


def test_a_reader_that_left_is_not_written_to_again():
    class Closed(io.StringIO):
        writes = 0

        def write(self, text):
            self.writes += 1
            raise BrokenPipeError

    out = Closed()
    with pytest.raises(BrokenPipeError):
        stream_answer(turned(), out, io.StringIO(), View(""))
    assert out.writes == 1


def test_the_finished_event_comes_back_unchanged():
    run = [replace(event, request=3) for event in turned()]
    assert show(io.StringIO, run)[0] == ANSWER
