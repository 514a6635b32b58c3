"""Default and a method side by side: whole screens, on a terminal, in a pipe and where they do not part."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from adacd_cli.events import FinishReason
from adacd_cli.render.comparison import find_parting, pieces, write_comparison
from adacd_cli.render.reasons import collect
from adacd_cli.render.screen import View
from tests.traces import (
    ADD,
    Terminal,
    check_golden,
    contrasted,
    events,
    fitted,
    plain,
    refused,
    started,
    switched,
    turned,
)

VIEW = View("How do I kill a process?")


@pytest.fixture(autouse=True)
def _color_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLORTERM", raising=False)


def compare(default, method, view=VIEW, stream=io.StringIO):
    out, err = stream(), io.StringIO()
    traces = write_comparison(default, method, out, err, view)
    assert traces == (collect(default), collect(method))
    assert err.getvalue() == ""
    return out.getvalue()


def test_golden_pipe():
    check_golden("compare.txt", compare(refused(), turned()))


def test_golden_terminal():
    check_golden("compare-terminal.txt", compare(refused(), turned(), replace(VIEW, width=80), Terminal))


def test_a_narrow_terminal_stacks_the_answers():
    narrow = compare(refused(), turned(), replace(VIEW, width=79, display="plain"), Terminal)
    assert "default\n⟦I⟧ cannot help with that.\n\nadacd\n⟦Sure⟧, run\n kill" in narrow
    assert "│" not in narrow


def test_what_a_switch_decided_is_said_wherever_the_answers_part():
    first = switched(plain("I"), 2.0, -0.4, 1.2)
    why = "The first token's distribution looks like that of a harmful question (q = 2.0 ≥ τ_high = 1.2)"

    def said(*texts):
        screen = compare(refused(), events(fitted(), [first, *map(plain, texts)]))
        return " ".join(screen.split())

    assert f"Both answers are the same, token for token. {why}" in said(" cannot", " help", " with that.")
    assert f"up to step 2, where one of them ended. {why}" in said(" cannot")
    assert f"Plain decoding: only the plain stream was used. {why}" in said(" could", " help")


def test_equal_answers():
    method = events(
        started(), [contrasted("I", ADD, 0.9, 0.9), plain(" cannot"), plain(" help"), plain(" with that.")]
    )
    assert compare(refused(), method) == (
        "Prompt  How do I kill a process?\n"
        "Run     demo · adacd · α 4.5 · λ 0.9 · β 0.01 · k 10 · greedy\n\n"
        "default\nI cannot help with that.\n\n"
        "adacd\nI cannot help with that.\n\n"
        "Both answers are the same, token for token.\n\n"
        "default  4 tokens · 41.2 tokens/s · ended by itself\n"
        "adacd    4 tokens · 1 added · 0 subtracted · 41.2 tokens/s · ended by itself\n"
    )


def test_an_answer_that_was_cut_off_parts_where_it_ends():
    short = events(started(), [contrasted("I", ADD, 0.9, 0.9)], FinishReason.CANCELLED)
    text = compare(refused(), short)
    assert "I⟦cannot" not in text
    assert "default\nI ⟦cannot⟧ help with that.\n" in text
    assert "The answers are the same up to step 1, where one of them was stopped.\n" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" Sure", " ⟦Sure⟧"),
        ("\n", "⟦⏎⟧"),
        ("\n\nYes\n", "\n\n⟦Yes⟧\n"),
        ("", "⟦<|end|>⟧"),
    ],
)
def test_the_parting_token_is_marked_in_brackets(text, shown):
    trace = collect(events(started(), [plain(text, token=text or "<|end|>")]))
    assert "".join(piece for piece, _ in pieces(trace, 0)) == shown


def test_parting():
    one, other = collect(refused()), collect(turned())
    assert find_parting(one, other) == 0
    assert find_parting(one, one) is None


def test_a_terminal_counts_tokens_and_takes_the_line_away():
    err = Terminal()
    write_comparison(refused(), refused(), io.StringIO(), err, replace(VIEW, display="plain"))
    drawn = [line.rstrip() for line in err.getvalue().split("\r")]
    assert drawn[:6] == ["", *(f"default: token {number}" for number in (1, 2, 3, 4)), ""]
    assert drawn[-1] == ""


def test_statistics_can_be_left_out():
    shown = compare(refused(), turned())
    assert (
        compare(refused(), turned(), replace(VIEW, stats=False))
        == shown[: shown.index("\ndefault  4 tokens") + 1]
    )
