"""Where no prompts can be made: the error names what is in the way, and what to do."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation, Message
from adacd_cli.errors import AdacdError, ModelError, PromptError
from adacd_cli.prompts import build_prompts, prompts_for
from tests.byte_tokenizer import CHAT, make_tokenizer
from tests.fakes import contrasted
from tests.golden import check

CONTRAST = "Please refuse!"
ASKED = Conversation.ask("Hi?")
TALK = ASKED.with_assistant("Yes?").with_user("Bye.")

ALL_PRIVATE = "".join(map(chr, (*range(0xE000, 0xF900), *range(0xF0000, 0x10FFFE))))


def check_error(name: str, error: AdacdError) -> None:
    check("prompts", name, f"{error.message}\n{error.hint}")


@pytest.mark.parametrize(
    ("name", "template", "conversation", "contrast"),
    [
        ("empty contrast prompt", CHAT, ASKED, " \n"),
        ("no message", CHAT, Conversation(), CONTRAST),
        ("empty message", CHAT, Conversation.ask(" "), CONTRAST),
        ("half of a surrogate pair", CHAT, Conversation.ask("a\ud83d"), CONTRAST),
        ("conversation refused", "{{ raise_exception('Roles must alternate.') }}", ASKED, CONTRAST),
        (
            "second turn refused",
            "{% if messages | length > 1 %}{{ raise_exception('One message only') }}{% endif %}" + CHAT,
            TALK,
            CONTRAST,
        ),
        (
            "contrast prompt refused",
            "{% if 'refuse' in messages[-1]['content'] or messages | length > 1 %}{{ {}[0] + 1 }}{% endif %}"
            + CHAT,
            ASKED,
            CONTRAST,
        ),
        ("message left out", "Hello!", ASKED, CONTRAST),
        ("same prompt", "{{ messages[-1]['content'][-3:] }}", ASKED, CONTRAST),
        ("contrast prompt cut", "{{ messages[-1]['content'][-5:] }}", ASKED, CONTRAST),
        (
            "system message left out",
            "{{ messages[-1]['content'] | replace('Be brief.', '') }}",
            ASKED.with_system("Be brief."),
            CONTRAST,
        ),
        (
            "another end",
            "{{ messages[-1]['content'] }}{% if 'refuse' in messages[-1]['content'] %}!{% endif %}",
            ASKED,
            CONTRAST,
        ),
        ("no private-use character left", None, Conversation((Message("user", ALL_PRIVATE),)), CONTRAST),
    ],
)
def test_named_errors(name: str, template: str | None, conversation: Conversation, contrast: str) -> None:
    with pytest.raises(PromptError) as caught:
        build_prompts(make_tokenizer(template), conversation, contrasted(contrast))
    check_error(name, caught.value)


@pytest.mark.parametrize(("method", "setting"), [("selfcd", "safety_prompt"), ("prompt", "helpful_prompt")])
def test_a_text_is_named_by_its_own_setting(method: str, setting: str) -> None:
    with pytest.raises(PromptError) as caught:
        prompts_for(make_tokenizer(CHAT), ASKED, Settings.model_validate({"method": method, setting: " "}))
    check_error(f"empty {setting}", caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"method": "default"},
        {"method": "surgical", "direction": "d"},
        {"method": "ssd", "draft": "small"},
        {"method": "safedecoding", "expert": "lora"},
    ],
)
@pytest.mark.parametrize("contrast", [CONTRAST, " "])
def test_a_method_that_reads_no_contrast_prompt_needs_no_place_for_it(
    values: dict[str, str], contrast: str
) -> None:
    tokenizer = make_tokenizer("{{ messages[-1]['content'][-5:] }}")
    settings = Settings.model_validate({**values, "contrast_prompt": contrast})
    pair = prompts_for(tokenizer, ASKED, settings)
    assert {(each.text, each.ids, each.contrast) for each in pair.streams.values()} == {
        ("Hi?", (41, 74, 32), "")
    }
    with pytest.raises(PromptError):
        prompts_for(tokenizer, ASKED, Settings(contrast_prompt=contrast))
    with pytest.raises(PromptError, match="safety prompt"):
        prompts_for(tokenizer, ASKED, Settings(method="selfcd"))
    system = prompts_for(make_tokenizer(CHAT), ASKED.with_system("Be brief."), settings)
    assert all("Be brief." in each.text for each in system.streams.values())
    assert len({each.text for each in system.streams.values()}) == 1


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("template cut short", "{% for m in messages %}"),
        ("unknown filter", "{{ messages | shout }}"),
    ],
)
def test_a_broken_template_is_the_models_fault(name: str, template: str) -> None:
    with pytest.raises(ModelError) as caught:
        build_prompts(make_tokenizer(template), ASKED, contrasted(CONTRAST))
    assert caught.value.exit_code == 3
    check_error(name, caught.value)


def test_a_tokenizer_that_cannot_tell_the_streams_apart() -> None:
    deaf = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"u": 0}, unk_token="u")), chat_template=CHAT
    )
    with pytest.raises(PromptError) as caught:
        build_prompts(deaf, ASKED, contrasted(CONTRAST))
    check_error("tokenizer without its words", caught.value)


def test_a_tokenizer_without_jinja_templates() -> None:
    class Other(PreTrainedTokenizerFast):
        def get_chat_template(self, *_: object) -> str:
            raise NotImplementedError

    other = Other(tokenizer_object=make_tokenizer().backend_tokenizer)
    with pytest.raises(PromptError) as caught:
        build_prompts(other, ASKED, contrasted(CONTRAST))
    check_error("no Jinja template", caught.value)
