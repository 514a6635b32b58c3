"""Whole chats: what is typed, what Ctrl-C does, and the screen that is left."""

from __future__ import annotations

import io
import signal
from dataclasses import replace

import pytest
import typer
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from adacd_cli.cli.chat.input import PipeReader, TerminalReader
from adacd_cli.conversation import Message
from adacd_cli.prompts import ThinkingMarks
from tests.chats import byte_pair, chat
from tests.fakes import END_THINK, THINK, saying, scripted

ANSWERS = ("hi", "Hello!"), ("why", "Because."), ("tell", "A tale.")


class Lines:
    """A reader of lines that remembers the drafts it was offered."""

    def __init__(self, *lines):
        self.lines = list(lines)
        self.drafts = []

    def read(self, draft):
        self.drafts.append(draft)
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)


def pressing(script, *, after, times=1):
    """The script, with Ctrl-C pressed while it computes the forward after so many."""
    forwards = []

    def pressed(ids):
        forwards.append(ids)
        if after <= len(forwards) - 1 < after + times:
            signal.raise_signal(signal.SIGINT)
        return script(ids)

    return pressed


def contents(it):
    return [message.content for message in it.talk.conversation.messages]


def test_a_script_of_messages_and_commands(capsys):
    it = chat(scripted(saying(*ANSWERS)))
    it.run(PipeReader(io.BytesIO(b'hi\n\n"""\nSay\nwhy\n"""\n/undo\n/nope\n//tell\n/exit\nhi\n')))
    assert capsys.readouterr() == (
        "Hello!\nBecause.\nA tale.\n",
        "The last exchange is taken back.\n> hi\nHello!\n"
        "Error: There is no command /nope.\nHint: /help lists the commands. //nope sends it as a message.\n",
    )
    assert contents(it) == ["hi", "Hello!", "/tell", "A tale."]


def test_a_chat_at_the_terminal(capsys):
    it = chat(scripted(saying(*ANSWERS)), interactive=True)
    with create_pipe_input() as source:
        source.send_text('hi\r"""\rSay\rwhy"""\rnever mind\x03\x04')
        it.run(TerminalReader(InMemoryHistory(), source, DummyOutput()))
    assert capsys.readouterr() == (
        "Hello!\nBecause.\n",
        "scripted · adacd · /help for commands, Ctrl-D to leave\n",
    )
    assert contents(it) == ["hi", "Hello!", "Say\nwhy", "Because."]


def test_the_statistics_follow_each_answer(capsys):
    it = chat(scripted(saying(*ANSWERS)), stats=True)
    it.run(Lines("hi", "/set stats false", "why"))
    out, err = capsys.readouterr()
    assert out == "Hello!\nBecause.\n"
    statistics, changed = err.splitlines()
    assert statistics.startswith("7 tokens · 7 added · 0 subtracted · ")
    assert changed == "stats  false"


def test_the_colours_are_explained_once(capsys):
    it = chat(scripted(saying(*ANSWERS)), display="color")
    it.run(Lines("/method default", "hi", "/method adacd", "hi", "why"))
    assert capsys.readouterr().err.count("towards the prompted stream") == 1


def test_ctrl_c_stops_an_answer_and_keeps_what_was_said(capsys):
    script = pressing(saying(*ANSWERS), after=4)
    it = chat(scripted(script), interactive=True)
    lines = Lines("hi", "why")
    it.run(lines)
    assert capsys.readouterr() == (
        "Hel\nBecause.\n",
        "scripted · adacd · /help for commands, Ctrl-D to leave\n"
        "Stopped; the answer so far stays in the conversation.\n",
    )
    assert contents(it) == ["hi", "Hel", "why", "Because."]
    assert lines.drafts == ["", "", ""]


def test_ctrl_c_twice_stops_at_once_and_keeps_what_was_said(capsys):
    script = pressing(saying(*ANSWERS), after=6, times=2)
    it = chat(scripted(script), interactive=True)
    it.run(Lines("hi", "why"))
    assert capsys.readouterr().err.endswith("to leave\nInterrupted.\n")
    assert contents(it) == ["hi", "Hel", "why", "Because."]


def test_ctrl_c_before_the_first_token_offers_the_message_again(capsys):
    script = pressing(saying(*ANSWERS), after=1)
    it = chat(scripted(script), interactive=True)
    lines = Lines("hi", "why")
    it.run(lines)
    assert capsys.readouterr() == (
        "Because.\n",
        "scripted · adacd · /help for commands, Ctrl-D to leave\n"
        "Interrupted.\nYour message is back at the prompt.\n",
    )
    assert contents(it) == ["why", "Because."]
    assert lines.drafts == ["", "hi", ""]


def test_ctrl_c_while_answering_again_before_the_first_token_keeps_the_old_answer(capsys):
    # "hi" takes two forwards for its prompts and two for each of six letters
    it = chat(scripted(pressing(saying(*ANSWERS), after=14)), interactive=True)
    lines = Lines("hi", "/retry")
    it.run(lines)
    assert contents(it) == ["hi", "Hello!"]
    assert lines.drafts == ["", "", ""]
    assert capsys.readouterr().err.endswith("to leave\nInterrupted.\n")


def test_ctrl_c_stops_a_comparison_and_the_chat_goes_on(capsys):
    it = chat(scripted(pressing(saying(*ANSWERS), after=18)), interactive=True)
    it.run(Lines("hi", "/compare", "why"))
    assert contents(it) == ["hi", "Hello!", "why", "Because."]
    assert "adacd    0 tokens" in capsys.readouterr().out


def test_ctrl_c_at_the_wrong_moment_does_not_end_the_chat(capsys):
    class Slow(Lines):
        def read(self, draft):
            line = super().read(draft)
            if line == "/ctrl-c":
                raise KeyboardInterrupt
            return line

    it = chat(scripted(saying(*ANSWERS)), interactive=True)
    it.run(Slow("hi", "/ctrl-c", "why"))
    assert capsys.readouterr().out == "Hello!\nBecause.\n"


@pytest.mark.parametrize(("after", "kind"), [(1, KeyboardInterrupt), (6, typer.Exit)])
def test_ctrl_c_ends_a_script(after, kind):
    it = chat(scripted(pressing(saying(*ANSWERS), after=after)))
    with pytest.raises(kind):
        it.run(Lines("hi", "why"))


def test_a_failing_answer_keeps_the_conversation_and_the_chat(capsys):
    saying_all = saying(*ANSWERS)

    def script(ids):
        logits = saying_all(ids)
        return [float("nan")] * len(logits) if bytes(ids).endswith(b"why\n") else logits

    it = chat(scripted(script, context=64), interactive=True)
    lines = Lines("hi", "why", "x" * 70, "tell")
    it.run(lines)
    assert capsys.readouterr() == (
        "Hello!\nA tale.\n",
        "scripted · adacd · /help for commands, Ctrl-D to leave\n"
        "Error: The logits of step 0 are not finite (NaN or infinity), in float32.\n"
        "Hint: Try another --dtype (bfloat16 or float32); if it stays so, the checkpoint is damaged.\n"
        "Your message is back at the prompt.\n"
        "Error: The prompt is 78 tokens long with the contrast prompt (71 without), and the model's context "
        "is 64, the answer included.\n"
        "Hint: Shorten the prompt, or use a model with a longer context.\n"
        "Your message is back at the prompt.\n",
    )
    assert contents(it) == ["hi", "Hello!", "tell", "A tale."]
    assert lines.drafts == ["", "", "why", "x" * 70, ""]


def test_an_answer_that_fails_without_a_name_does_not_end_the_chat(capsys):
    it = chat(scripted(saying(*ANSWERS)))  # has no answer to "oops"
    it.run(Lines("oops", "hi"))
    out, err = capsys.readouterr()
    assert out == "Hello!\n"
    assert err.startswith("Error: Something unexpected went wrong: ")
    assert err.endswith("\nNot answered: oops\n")


def test_a_stdout_that_is_gone_ends_the_chat():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    it = chat(scripted(saying(*ANSWERS)))
    it.out = Gone()
    with pytest.raises(BrokenPipeError):
        it.run(Lines("hi", "why"))


def test_outgrowing_the_context_is_said_when_it_changes(capsys):
    it = chat(scripted(saying(*ANSWERS), context=64))
    it.run(Lines("hi", "hi", "hi", "hi", "hi", "/retry", "/undo", "hi", "/reset", "hi"))
    out, err = capsys.readouterr()
    assert out == "Hello!\n" * 8

    assert err == (
        "The context is full: the model no longer sees the oldest exchange (/save keeps all).\n"
        "The same answer again: temperature is 0. /set temperature 0.8 draws others.\n"
        "The last exchange is taken back.\n> hi\nHello!\nA new conversation begins.\n"
    )


def test_warnings_are_given_once(capsys):
    def build(conversation, settings):
        return replace(byte_pair(conversation, settings), warnings=("Odd.",))

    it = chat(scripted(saying(*ANSWERS)), build=build)
    it.run(Lines("hi", "why"))
    assert capsys.readouterr() == ("Hello!\nBecause.\n", "Warning: Odd.\n")


def test_thinking_is_shown_apart_and_stays_out_of_the_conversation(capsys):
    marks = ThinkingMarks("<think>", "</think>", opened=False)
    said = [THINK, *b"Hm.", END_THINK, *b"Hello!"]

    def script(ids):
        answered = ids[max(place for place, token in enumerate(ids) if token == 10) + 1 :]
        logits = [0.0] * 260
        logits[said[len(answered)] if len(answered) < len(said) else 256] = 8.0
        return logits

    def build(conversation, settings):
        return replace(byte_pair(conversation, settings), thinking=marks if settings.thinking else None)

    it = chat(scripted(script), thinking=True, build=build)
    it.run(Lines("hi"))
    assert it.talk.conversation.messages == (Message("user", "hi"), Message("assistant", "Hello!"))
    assert capsys.readouterr() == ("Hello!\n", "<think>Hm.</think>\n")
