"""The placements of p* on small templates: whole prompts, what they share, and what is refused."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation
from adacd_cli.errors import PromptError
from adacd_cli.prompts import Contrast, Prompts, build_prompts, prompts_for
from adacd_cli.prompts.placement import PLACEMENTS
from tests.byte_tokenizer import CHAT, START, TURN, chat, make_tokenizer
from tests.fakes import contrasted, second
from tests.golden import check

CONTRAST = "Please refuse!"
ASKED = Conversation.ask("Hi?")
TALK = ASKED.with_assistant("Yes?").with_user("Bye.")
RAISES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}" + CHAT
DROPS = "{% for m in messages %}{% if m['role'] != 'system' %}" + TURN + "{% endif %}{% endfor %}" + START
EARLIER = ("user", "Hi?"), ("assistant", "Yes?")
FOLDED = ("user", "Be brief.\n\nHi?"), ("assistant", "Yes?")
START_TEXT, END_TEXT = "Please refuse!\n\nBye.", "Bye.\n\nPlease refuse!"


def build(template: str | None, conversation: Conversation, placement: str, text: str = CONTRAST) -> Prompts:
    return build_prompts(make_tokenizer(template), conversation, contrasted(text), placement=placement)


@pytest.mark.parametrize("placement", ["user-start", "user-end"])
@pytest.mark.parametrize(
    ("template", "conversation", "turns"),
    [
        pytest.param(CHAT, TALK, EARLIER, id="no system text"),
        pytest.param(CHAT, TALK.with_system("Be brief."), (("system", "Be brief."), *EARLIER), id="system"),
        pytest.param(RAISES, TALK, EARLIER, id="no system role"),
        pytest.param(RAISES, TALK.with_system("Be brief."), FOLDED, id="no system role, system"),
        pytest.param(DROPS, TALK.with_system("Be brief."), FOLDED, id="dropped silently, system"),
    ],
)
def test_in_the_last_user_message(
    template: str, conversation: Conversation, turns: tuple[tuple[str, str], ...], placement: str
) -> None:
    prompts = build(template, conversation, placement)
    last = END_TEXT if placement == "user-end" else START_TEXT
    assert prompts.base.text == chat(*turns, ("user", "Bye."))
    assert second(prompts).text == chat(*turns, ("user", last))
    assert (second(prompts).contrast, second(prompts).recurs, prompts.base.recurs) == (CONTRAST, False, True)
    shared = chat(*turns, ("user", "Bye."), end="").removesuffix("<|end|>\n")
    if placement == "user-start":
        shared = shared.removesuffix("Bye.")
    tokens = len(make_tokenizer()(shared, add_special_tokens=False)["input_ids"])
    assert prompts.shared_with_base("prompted") == tokens


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("conversation", "system"),
    [
        pytest.param(ASKED.with_assistant("Yes?").with_user("Hi?"), None, id="said twice"),
        pytest.param(Conversation.ask("Please refuse!"), None, id="p* is the user's words"),
        pytest.param(Conversation.ask("Hi? Please refuse!\n\nPlease refuse!"), None, id="p* said twice"),
        pytest.param(Conversation.ask("refuse"), None, id="the user's words are in p*"),
        pytest.param(Conversation.ask("assistant"), None, id="words of the template"),
        pytest.param(Conversation.ask("user\n"), "user", id="more of them"),
        pytest.param(Conversation.ask("t"), "t", id="a letter"),
        pytest.param(Conversation.ask("  Hi?\n\n"), " Be\nbrief. ", id="white space"),
        pytest.param(Conversation.ask("/no_think"), None, id="a thinking flag alone"),
        pytest.param(Conversation.ask("Hi? /no_think"), "/think", id="thinking flags"),
        pytest.param(Conversation.ask("STRASSE ß İ"), None, id="letter case"),
    ],
)
@pytest.mark.parametrize(
    "template",
    [
        CHAT,
        RAISES,
        CHAT.replace("m['content']", "m['content'] | trim"),
        CHAT.replace("m['content']", "m['content'] | upper"),
        CHAT.replace("m['content']", "m['content'] | replace('\n', ' ')"),
        CHAT.replace("m['content']", "m['content'] | replace('/no_think', '')"),
        CHAT.replace(
            "m['content']", "m['content'] + ('' if m['content'].endswith('/no_think') else '/no_think')"
        ),
    ],
    ids=["as it is", "no system role", "trims", "shouts", "joins lines", "cuts flags", "adds flags"],
)
def test_hard_words(template: str, conversation: Conversation, system: str | None, placement: str) -> None:
    prompts = build(template, conversation.with_system(system), placement, "Please refuse!")
    bare, other = (
        "".join(each.text.replace("/no_think", "").casefold().split()) for each in prompts.streams.values()
    )
    assert other.count("pleaserefuse!") == bare.count("pleaserefuse!") + 1
    assert len(other) >= len(bare) + len("pleaserefuse!")


@pytest.mark.parametrize(
    ("placement", "text"),
    [
        ("system", "Please refuse!\n\nBe brief.\n\nHi?\n\nYes?\n\nBye."),
        ("user-start", "Be brief.\n\nHi?\n\nYes?\n\nPlease refuse!\n\nBye."),
        ("user-end", "Be brief.\n\nHi?\n\nYes?\n\nBye.\n\nPlease refuse!"),
    ],
)
def test_without_a_chat_template(placement: str, text: str) -> None:
    prompts = build(None, TALK.with_system("Be brief."), placement)
    assert prompts.base.text == "Be brief.\n\nHi?\n\nYes?\n\nBye."
    assert second(prompts).text == text
    assert second(prompts).ids == tuple(make_tokenizer(None)(text)["input_ids"])


OPENS = "{% if messages[-1]['content'].startswith('Please') %}!{% endif %}"
ENDS = "{% if messages[-1]['content'].endswith('refuse!') %}!{% endif %}"
FIRST_WORD = (
    "{% for m in messages if m['content'].startswith('Please') %}{{ raise_exception('No.') }}{% endfor %}"
)
NO_SYSTEM = "{% if 'refuse' in messages[0]['content'] %}{{ raise_exception('No.') }}{% endif %}"


@pytest.mark.parametrize(
    ("name", "template", "possible"),
    [
        ("placement cut at its end", CHAT.replace("m['content']", "m['content'][:14]"), ["system"]),
        ("placement changes the generation prompt", CHAT + ENDS, ["system", "user-start"]),
        ("placement changes the beginning", ENDS + CHAT, ["system", "user-start"]),
        (
            "placement refused",
            ENDS.replace("!{", "{{ raise_exception('No.') }}{") + CHAT,
            ["system", "user-start"],
        ),
        ("placement at the end alone", FIRST_WORD + CHAT, ["user-end"]),
        (
            "placement moved",
            CHAT.replace("m['content']", "m['content'].split('\n\n')[::-1] | join(' ')"),
            ["system"],
        ),
        ("placement said twice", CHAT + "{{ messages[-1]['content'] }}", ["system"]),
        ("no user placement", OPENS + CHAT + ENDS, ["system"]),
        ("no system placement", NO_SYSTEM + CHAT, ["user-start", "user-end"]),
        ("no placement", "{{ messages[-1]['content'][:5] }}" + START, []),
    ],
)
def test_a_template_that_cannot_take_a_placement_names_those_that_it_can(
    name: str, template: str, possible: list[str]
) -> None:
    for placement in PLACEMENTS:
        try:
            build(template, TALK, placement)
        except PromptError as error:
            assert placement not in possible
            assert placement in error.message
            assert [each for each in PLACEMENTS if each in error.hint] == possible
            check("prompts", f"{name}, {placement}", f"{error.message}\n{error.hint}")
        else:
            assert placement in possible


def test_a_tokenizer_may_join_the_last_word_with_what_follows_it() -> None:
    """Token by token up to the last complete one: here "Bye." is one token, and "Bye.\n\n" is another."""
    words = ["<|start|>", "<|end|>", "u", "\n", "Hi", "there", "Bye.", "Bye.\n\n", "Please", "refuse!", " "]
    backend = Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, [], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    backend.add_special_tokens([AddedToken("<|start|>"), AddedToken("<|end|>")])
    template = "{% for m in messages %}<|start|>{{ m['content'] }}<|end|>{% endfor %}<|start|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template)
    prompts = build_prompts(
        tokenizer, Conversation.ask("Hi there Bye."), contrasted(" refuse!"), placement="user-end"
    )
    assert tokenizer.convert_ids_to_tokens(prompts.base.ids)[5:] == ["Bye.", "<|end|>", "<|start|>"]
    assert tokenizer.convert_ids_to_tokens(second(prompts).ids)[5:7] == ["Bye.\n\n", " "]
    assert prompts.shared_with_base("prompted") == 5


def test_a_tokenizer_that_reads_the_words_differently_before_p_is_refused() -> None:
    class Looking(PreTrainedTokenizerFast):
        def __call__(self, text, *args, **kwargs):  # type: ignore[no-untyped-def]
            found = super().__call__(text, *args, **kwargs)
            if "refuse" in text:
                found["input_ids"] = found["input_ids"][::-1]
            return found

    looking = Looking(tokenizer_object=make_tokenizer().backend_tokenizer, chat_template=CHAT)
    with pytest.raises(PromptError) as caught:
        build_prompts(looking, TALK, contrasted(CONTRAST), placement="user-end")
    check("prompts", "tokenizer that looks ahead", f"{caught.value.message}\n{caught.value.hint}")


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_three_streams_each_with_its_own_text(placement: str) -> None:
    streams = {
        "plain": None,
        "refusing": Contrast("Refuse!"),
        "safe": Contrast("Be safe.", "safety_prompt"),
    }
    prompts = build_prompts(make_tokenizer(), TALK, streams, placement=placement)
    assert [*prompts.streams] == ["plain", "refusing", "safe"]
    for name, each in streams.items():
        alone = {"plain": None} | {name: each}
        expected = build_prompts(make_tokenizer(), TALK, alone, placement=placement)
        assert prompts.streams[name] == expected.streams[name]
    with pytest.raises(PromptError, match="safety prompt"):
        build_prompts(make_tokenizer(), TALK, {**streams, "safe": Contrast(" ", "safety_prompt")})
    deaf = make_tokenizer(CHAT.replace("m['content']", "m['content'] | replace('Be safe.', '')"))
    with pytest.raises(PromptError, match="leaves the safety prompt out"):
        build_prompts(deaf, TALK, streams, placement=placement)


def test_the_setting_places_the_other_streams_and_never_the_base() -> None:
    tokenizer = make_tokenizer()
    settings = Settings(contrast_placement="user-end", contrast_prompt=CONTRAST)
    assert prompts_for(tokenizer, TALK, settings) == build(CHAT, TALK, "user-end")
    helpful = Settings(method="prompt", contrast_placement="user-end", helpful_prompt="Help.")
    turns = (*EARLIER, ("user", "Bye."))
    assert prompts_for(tokenizer, TALK, helpful).base.text == chat(("system", "Help."), *turns)
