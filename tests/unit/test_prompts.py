"""The paper's placement on small templates: each row of its table, and plain text."""

from __future__ import annotations

import datetime

import pytest
from tokenizers import processors
from transformers.utils import chat_template_utils

from adacd_cli.conversation import Conversation
from adacd_cli.prompts import Prompt, Prompts, build_prompts
from tests.byte_tokenizer import CHAT, START, TURN, chat, make_tokenizer
from tests.fakes import contrasted, second

CONTRAST = "Please refuse!"
ASKED = Conversation.ask("Hi?")
TALK = ASKED.with_assistant("Yes?").with_user("Bye.")

RAISES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHAT
)
DROPS = "{% for m in messages %}{% if m['role'] != 'system' %}" + TURN + "{% endif %}{% endfor %}" + START
FOLDED = "The chat template takes no system message; it stands in front of the first user message."


def texts_of(pair: Prompts) -> tuple[str, str]:
    return pair.base.text, second(pair).text


@pytest.mark.parametrize(
    ("template", "conversation", "unprompted", "prompted", "warnings"),
    [
        pytest.param(
            CHAT,
            ASKED,
            chat(("user", "Hi?")),
            chat(("system", "Please refuse!"), ("user", "Hi?")),
            (),
            id="no system message",
        ),
        pytest.param(
            CHAT,
            TALK.with_system("Be brief."),
            chat(("system", "Be brief."), ("user", "Hi?"), ("assistant", "Yes?"), ("user", "Bye.")),
            chat(
                ("system", "Please refuse!\n\nBe brief."),
                ("user", "Hi?"),
                ("assistant", "Yes?"),
                ("user", "Bye."),
            ),
            (),
            id="the user's own",
        ),
        pytest.param(
            CHAT,
            ASKED.with_system(" \n"),
            chat(("user", "Hi?")),
            chat(("system", "Please refuse!"), ("user", "Hi?")),
            (),
            id="a blank one is none",
        ),
        pytest.param(
            "{% if messages[0]['role'] != 'system' %}<|start|>system\nI am Bot.<|end|>\n{% endif %}" + CHAT,
            ASKED,
            chat(("system", "I am Bot."), ("user", "Hi?")),
            chat(("system", "Please refuse!"), ("user", "Hi?")),
            (),
            id="built-in default, replaced",
        ),
        pytest.param(
            "{% if messages[0]['role'] != 'system' %}<|start|>system\nI am Bot.<|end|>\n{% endif %}" + CHAT,
            ASKED.with_system("I am Bot."),
            chat(("system", "I am Bot."), ("user", "Hi?")),
            chat(("system", "Please refuse!\n\nI am Bot."), ("user", "Hi?")),
            (),
            id="the user's own is the default",
        ),
        pytest.param(
            RAISES,
            ASKED,
            chat(("user", "Hi?")),
            chat(("user", "Please refuse!\n\nHi?")),
            (),
            id="no system role",
        ),
        pytest.param(
            RAISES,
            TALK.with_system("Be brief."),
            chat(("user", "Be brief.\n\nHi?"), ("assistant", "Yes?"), ("user", "Bye.")),
            chat(("user", "Please refuse!\n\nBe brief.\n\nHi?"), ("assistant", "Yes?"), ("user", "Bye.")),
            (FOLDED,),
            id="no system role, the user's own",
        ),
        pytest.param(
            "{% set order = {'user': 0, 'assistant': 1} %}{% for m in messages %}"
            "{{ '' * (order[m['role']] + 1) }}" + TURN + "{% endfor %}" + START,
            ASKED,
            chat(("user", "Hi?")),
            chat(("user", "Please refuse!\n\nHi?")),
            (),
            id="undefined role",
        ),
        pytest.param(
            "{% if messages[0]['role'] == 'system' %}{{ 1 // 0 }}{% endif %}" + CHAT,
            ASKED,
            chat(("user", "Hi?")),
            chat(("user", "Please refuse!\n\nHi?")),
            (),
            id="any other error",
        ),
        pytest.param(
            DROPS,
            ASKED,
            chat(("user", "Hi?")),
            chat(("user", "Please refuse!\n\nHi?")),
            (),
            id="dropped silently",
        ),
        pytest.param(
            DROPS,
            ASKED.with_system("Be brief."),
            chat(("user", "Be brief.\n\nHi?")),
            chat(("user", "Please refuse!\n\nBe brief.\n\nHi?")),
            (FOLDED,),
            id="dropped silently, the user's own",
        ),
        pytest.param(
            DROPS,
            Conversation.ask("Is 'Be brief.' rude? Please  refuse!", "Be brief."),
            chat(("user", "Be brief.\n\nIs 'Be brief.' rude? Please  refuse!")),
            chat(("user", "Please refuse!\n\nBe brief.\n\nIs 'Be brief.' rude? Please  refuse!")),
            (FOLDED,),
            id="dropped silently, though the question quotes it",
        ),
        pytest.param(
            "{% for m in messages %}{% if m['role'] == 'system' %}{{ '<s>' }}{% else %}"
            + TURN
            + "{% endif %}{% endfor %}"
            + START,
            ASKED,
            chat(("user", "Hi?")),
            chat(("user", "Please refuse!\n\nHi?")),
            (),
            id="a mark in place of the system text",
        ),
        pytest.param(
            CHAT.replace("m['content']", "m['content'] | trim | replace('\n', ' ')"),
            Conversation.ask("  Hi\n there?\n", "Be\nbrief. "),
            chat(("system", "Be brief."), ("user", "Hi  there?")),
            chat(("system", "Please refuse!  Be brief."), ("user", "Hi  there?")),
            (),
            id="white space altered",
        ),
        pytest.param(
            "{% for m in messages %}<|start|>{{ m['role'] }}\n{% for part in m['content'] %}"
            "{{ part['text'] }}{% endfor %}<|end|>\n{% endfor %}" + START,
            TALK.with_system("Be brief."),
            chat(("system", "Be brief."), ("user", "Hi?"), ("assistant", "Yes?"), ("user", "Bye.")),
            chat(
                ("system", "Please refuse!\n\nBe brief."),
                ("user", "Hi?"),
                ("assistant", "Yes?"),
                ("user", "Bye."),
            ),
            (),
            id="content as parts",
        ),
        pytest.param(
            "{% for tool in tools %}{{ tool }}{% endfor %}{{ (unk_token | default('')) + bos_token }}" + CHAT,
            ASKED,
            "<s>" + chat(("user", "Hi?")),
            "<s>" + chat(("system", "Please refuse!"), ("user", "Hi?")),
            (),
            id="made for tools",
        ),
        pytest.param(
            "{% set end = 'bot' if messages[0]['role'] == 'system' else 'assistant' %}"
            + CHAT.replace("<|start|>assistant", "<|start|>{{ end }}"),
            ASKED,
            chat(("user", "Hi?")),
            chat(("user", "Please refuse!\n\nHi?")),
            (),
            id="another generation prompt after a system message",
        ),
        pytest.param(
            CHAT,
            Conversation.ask("{{ 7 * 7 }}{% raw %}", "{# note #}"),
            chat(("system", "{# note #}"), ("user", "{{ 7 * 7 }}{% raw %}")),
            chat(("system", "Please refuse!\n\n{# note #}"), ("user", "{{ 7 * 7 }}{% raw %}")),
            (),
            id="template syntax said by the user",
        ),
    ],
)
def test_where_the_contrast_prompt_goes(
    template: str, conversation: Conversation, unprompted: str, prompted: str, warnings: tuple[str, ...]
) -> None:
    tokenizer = make_tokenizer(template)
    ids = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (unprompted, prompted)]
    assert build_prompts(tokenizer, conversation, contrasted(CONTRAST)) == Prompts(
        {
            "unprompted": Prompt(ids[0], unprompted),
            "prompted": Prompt(ids[1], prompted, CONTRAST, recurs=True),
        },
        thinking=None,
        warnings=warnings,
    )


def test_of_several_templates_the_default_is_taken() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = {"tool_use": "{{ nothing.at.all }}", "default": CHAT}
    assert build_prompts(tokenizer, ASKED, contrasted(CONTRAST)) == build_prompts(
        make_tokenizer(), ASKED, contrasted(CONTRAST)
    )
    tokenizer.chat_template = {"rag": CHAT, "tool_use": "{{ nothing.at.all }}"}
    assert build_prompts(tokenizer, ASKED, contrasted(CONTRAST)) == build_prompts(
        make_tokenizer(), ASKED, contrasted(CONTRAST)
    )


@pytest.mark.parametrize("template", [CHAT, "{{ bos_token }}" + CHAT])
def test_the_template_alone_decides_about_the_beginning_of_text(template: str) -> None:
    tokenizer = make_tokenizer(template)
    pair = build_prompts(tokenizer, ASKED, contrasted(CONTRAST))
    own = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi?"}], add_generation_prompt=True, return_dict=False
    )
    assert list(pair.base.ids) == own
    assert second(pair).ids.count(0) == pair.base.ids.count(0) == template.count("bos_token")


class TickingClock(datetime.datetime):
    """A clock on which a day goes by at each of the first looks."""

    looks = 0

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> TickingClock:
        cls.looks += 1
        return cls(2026, 1, min(cls.looks, 5))


def test_both_streams_are_of_one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TickingClock, "looks", 0)
    monkeypatch.setattr(chat_template_utils, "datetime", TickingClock)
    pair = build_prompts(make_tokenizer("{{ strftime_now('%d') }}" + CHAT), ASKED, contrasted(CONTRAST))
    assert texts_of(pair) == (
        "05" + chat(("user", "Hi?")),
        "05" + chat(("system", "Please refuse!"), ("user", "Hi?")),
    )


def test_a_clock_that_never_rests_ends_all_the_same() -> None:
    pair = build_prompts(make_tokenizer("{{ strftime_now('%f') }}" + CHAT), ASKED, contrasted(CONTRAST))
    assert pair.base.text[6:] == chat(("user", "Hi?"))


@pytest.mark.parametrize(
    ("conversation", "unprompted"),
    [(ASKED, "Hi?"), (TALK.with_system("Be brief."), "Be brief.\n\nHi?\n\nYes?\n\nBye.")],
)
def test_without_a_chat_template(conversation: Conversation, unprompted: str) -> None:
    tokenizer = make_tokenizer(None)
    prompted = "Please refuse!\n\n" + unprompted
    assert build_prompts(tokenizer, conversation, contrasted(CONTRAST)) == Prompts(
        {
            "unprompted": Prompt(tuple(tokenizer(unprompted)["input_ids"]), unprompted),
            "prompted": Prompt(tuple(tokenizer(prompted)["input_ids"]), prompted, CONTRAST),
        },
        warnings=("This model has no chat template; it gets the conversation as plain text.",),
    )


def test_plain_text_does_not_end_in_an_end_of_text() -> None:
    tokenizer = make_tokenizer(None)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    assert build_prompts(tokenizer, ASKED, contrasted(CONTRAST)).base.ids == (
        0,
        *tokenizer("Hi?", add_special_tokens=False)["input_ids"],
    )
