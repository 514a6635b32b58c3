"""Thinking: which switches a template gets, and which tags the engine is told to watch for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import ByT5Tokenizer

from adacd_cli.conversation import Conversation
from adacd_cli.prompts import ThinkingMarks, build_prompts
from adacd_cli.prompts.templates import thinking_switches
from tests.byte_tokenizer import CHAT, chat, make_tokenizer
from tests.fakes import contrasted, second

CONTRAST = "Please refuse!"
ASKED = Conversation.ask("Hi?")
TALK = ASKED.with_assistant("Yes?").with_user("Bye.")

THINKS = CHAT + "{% if enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}"
MAY_THINK = CHAT + "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
MARKS = ThinkingMarks("<think>", "</think>", opened=False)
OPENED = replace(MARKS, opened=True)
CHANNELS = ThinkingMarks("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", opened=False)
ALWAYS = "This chat template always lets the model think first: it has no switch against it."


@pytest.mark.parametrize(
    ("template", "thinking", "end", "marks", "warnings"),
    [
        pytest.param(THINKS, False, "<think>\n\n</think>\n\n", None, (), id="off"),
        pytest.param(THINKS, True, "<think>\n", OPENED, (), id="on, opened by the template"),
        pytest.param(MAY_THINK, True, "", MARKS, (), id="on, opened by the model"),
        pytest.param(CHAT + "<think>\n{# </think> #}", False, "<think>\n", OPENED, (ALWAYS,), id="no switch"),
        pytest.param(CHAT + "<think>\n{# </think> #}", True, "<think>\n", OPENED, (), id="no switch, on"),
        pytest.param(
            CHAT + "<think></think>",
            True,
            "<think></think>",
            None,
            ("Thinking is on, but the chat template closes it before the answer.",),
            id="always closed",
        ),
        pytest.param(CHAT, True, "", MARKS, (), id="the tokenizer's tags"),
        pytest.param(
            CHAT + "{# <|channel|>final<|message|> #}", False, "", CHANNELS, (ALWAYS,), id="channels, off"
        ),
        pytest.param(CHAT + "{# <|channel|>final<|message|> #}", True, "", CHANNELS, (), id="channels, on"),
        pytest.param(
            CHAT + "{% if reasoning_effort == 'none' %}[THINK][/THINK]{% endif %}",
            False,
            "[THINK][/THINK]",
            None,
            (),
            id="effort",
        ),
    ],
)
def test_thinking(
    template: str, thinking: bool, end: str, marks: ThinkingMarks | None, warnings: tuple[str, ...]
) -> None:
    pair = build_prompts(make_tokenizer(template), ASKED, contrasted(CONTRAST), thinking=thinking)
    assert (pair.base.text, second(pair).text, pair.thinking, pair.warnings) == (
        chat(("user", "Hi?")) + end,
        chat(("system", "Please refuse!"), ("user", "Hi?")) + end,
        marks,
        warnings,
    )


def test_thinking_without_any_tag() -> None:
    pair = build_prompts(ByT5Tokenizer(chat_template=CHAT), ASKED, contrasted(CONTRAST), thinking=True)
    assert (pair.thinking, pair.warnings) == (
        None,
        ("Thinking is on, but neither the chat template nor the tokenizer knows a thinking tag.",),
    )


def test_a_tag_that_the_user_wrote_opens_nothing() -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    pair = build_prompts(make_tokenizer(template), Conversation.ask("So: <think>"), contrasted(CONTRAST))
    assert (pair.base.text, pair.thinking) == ("So: <think>", None)


def test_the_flag_in_the_messages_turns_thinking_off() -> None:
    template = CHAT.replace("m['content']", "m['content'] | replace('/no_think', '')") + (
        "{% if '/no_think' in messages[-1]['content'] %}<think></think>{% endif %}"
    )
    tokenizer = make_tokenizer(template)
    assert (
        build_prompts(tokenizer, TALK, contrasted(CONTRAST)).base.text
        == chat(("user", "Hi?"), ("assistant", "Yes?"), ("user", "Bye. ")) + "<think></think>"
    )
    assert build_prompts(tokenizer, TALK, contrasted(CONTRAST), thinking=True).base.text == chat(
        ("user", "Hi?"), ("assistant", "Yes?"), ("user", "Bye.")
    )
    kept = make_tokenizer(CHAT + "{# reads /no_think #}")
    prompts = build_prompts(kept, ASKED, contrasted(CONTRAST), placement="user-end")
    assert second(prompts).text == chat(("user", "Hi? /no_think\n\nPlease refuse!"))


def test_templates_still_cut_the_thinking_out_of_earlier_answers() -> None:
    template = CHAT.replace("m['content']", "m['content'].split('</think>')[-1]")
    conversation = ASKED.with_assistant("<think>Well.</think>Yes?").with_user("Is </think> a tag?")
    assert build_prompts(make_tokenizer(template), conversation, contrasted(CONTRAST)).base.text == chat(
        ("user", "Hi?"), ("assistant", "Yes?"), ("user", "Is </think> a tag?")
    )


@pytest.mark.parametrize(
    ("source", "off", "on"),
    [
        ("{{ x }}", {"enable_thinking": False}, {"enable_thinking": True}),
        (
            "{% if thinking %}",
            {"enable_thinking": False, "thinking": False},
            {"enable_thinking": True, "thinking": True},
        ),
        ("{{ message.thinking }}{{ m['thinking'] }}", {"enable_thinking": False}, {"enable_thinking": True}),
        (
            "{{ open_thinking }}",
            {"enable_thinking": False, "open_thinking": False},
            {"enable_thinking": True, "open_thinking": True},
        ),
        (
            "{% set reasoning = reasoning | default(true) %}",
            {"enable_thinking": False, "reasoning": False},
            {"enable_thinking": True, "reasoning": True},
        ),
        (
            "{% if thinking_budget == 0 %}",
            {"enable_thinking": False, "thinking_budget": 0},
            {"enable_thinking": True},
        ),
        (
            "{% if reasoning_effort in ('none', 'high') %}",
            {"enable_thinking": False, "reasoning_effort": "none"},
            {"enable_thinking": True, "reasoning_effort": "high"},
        ),
        ("{{ reasoning_effort }} 'medium'", {"enable_thinking": False}, {"enable_thinking": True}),
    ],
)
def test_thinking_switches(source: str, off: dict[str, object], on: dict[str, object]) -> None:
    assert (thinking_switches(source, False), thinking_switches(source, True)) == (off, on)
