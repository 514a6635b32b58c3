"""Where no pair can be made: the error names what is in the way, and what to do."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from adacd_cli.config import Settings
from adacd_cli.conversation import Conversation, Message
from adacd_cli.errors import ModelError, PromptError
from adacd_cli.prompts import build_pair, pair_for
from tests.byte_tokenizer import CHAT, make_tokenizer

CONTRAST = "Please refuse!"
ASKED = Conversation.ask("Hi?")
TALK = ASKED.with_assistant("Yes?").with_user("Bye.")

OTHER_MODEL = "Use a model with another chat template, or mend the template in the tokenizer's folder."
NEW_TALK = (
    "Many templates want user and assistant in turn, the user first: start a new conversation; or use a "
    "model with another chat template."
)


@pytest.mark.parametrize(
    ("template", "conversation", "contrast", "message", "hint"),
    [
        (
            CHAT,
            ASKED,
            " \n",
            "The contrast prompt is empty, so both streams would be the same.",
            'Give a --contrast-prompt, such as "Please refuse to answer me!".',
        ),
        (
            CHAT,
            Conversation(),
            CONTRAST,
            "The conversation does not end in a user message, so there is nothing to answer.",
            "Add a user message at its end.",
        ),
        (
            CHAT,
            ASKED.with_assistant("Yes?"),
            CONTRAST,
            "The conversation does not end in a user message, so there is nothing to answer.",
            "Add a user message at its end.",
        ),
        (
            CHAT,
            Conversation.ask(" "),
            CONTRAST,
            "The prompt is empty.",
            "Give a prompt with some text in it.",
        ),
        (
            CHAT,
            Conversation.ask("a\ud83d"),
            CONTRAST,
            "The user message 1 holds half of a surrogate pair (U+D83D at character 2), which is not text.",
            "Give the text as valid UTF-8.",
        ),
        (
            "{{ raise_exception('Roles must alternate.') }}",
            ASKED,
            CONTRAST,
            "The chat template refuses the conversation: Roles must alternate.",
            NEW_TALK,
        ),
        (
            "{% if messages | length > 1 %}{{ raise_exception('One message only') }}{% endif %}" + CHAT,
            TALK,
            CONTRAST,
            "The chat template refuses the conversation: One message only.",
            NEW_TALK,
        ),
        (
            "{% if 'refuse' in messages[-1]['content'] or messages | length > 1 %}{{ {}[0] + 1 }}{% endif %}"
            + CHAT,
            ASKED,
            CONTRAST,
            "The chat template refuses the conversation: UndefinedError: dict object has no element 0.",
            NEW_TALK,
        ),
        (
            "Hello!",
            ASKED,
            CONTRAST,
            "The chat template leaves the user's message out of the prompt.",
            OTHER_MODEL,
        ),
        (
            "{{ messages[-1]['content'][-3:] }}",
            ASKED,
            CONTRAST,
            "The chat template gives the same prompt with and without the contrast prompt.",
            OTHER_MODEL,
        ),
        (
            "{{ messages[-1]['content'][-5:] }}",
            ASKED,
            CONTRAST,
            "The chat template leaves the contrast prompt out of the prompt.",
            OTHER_MODEL,
        ),
        (
            "{{ messages[-1]['content'] | replace('Be brief.', '') }}",
            ASKED.with_system("Be brief."),
            CONTRAST,
            "The chat template leaves the system message out of the prompt.",
            OTHER_MODEL,
        ),
        (
            "{{ messages[-1]['content'] }}{% if 'refuse' in messages[-1]['content'] %}!{% endif %}",
            ASKED,
            CONTRAST,
            "The chat template ends the two prompts in different generation prompts.",
            OTHER_MODEL,
        ),
        (
            None,
            Conversation(
                (Message("user", "".join(map(chr, (*range(0xE000, 0xF900), *range(0xF0000, 0x10FFFE))))),)
            ),
            CONTRAST,
            "The conversation holds so many private-use characters that none is left to protect it with.",
            "Take the characters of the private-use areas out of the text.",
        ),
    ],
)
def test_named_errors(
    template: str | None, conversation: Conversation, contrast: str, message: str, hint: str
) -> None:
    with pytest.raises(PromptError) as caught:
        build_pair(make_tokenizer(template), conversation, contrast)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        (
            {"method": "selfcd", "safety_prompt": " "},
            "The safety prompt is empty, so both streams would be the same.",
            "Leave safety_prompt out for its default, or give a text: --set safety_prompt=TEXT.",
        ),
        (
            {"method": "prompt", "helpful_prompt": "\n"},
            "The helpful prompt is empty, so both streams would be the same.",
            "Leave helpful_prompt out for its default, or give a text: --set helpful_prompt=TEXT.",
        ),
    ],
)
def test_a_text_is_named_by_its_own_setting(values: dict[str, str], message: str, hint: str) -> None:
    with pytest.raises(PromptError) as caught:
        pair_for(make_tokenizer(CHAT), ASKED, Settings.model_validate(values))
    assert (caught.value.message, caught.value.hint) == (message, hint)


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
    pair = pair_for(tokenizer, ASKED, settings)
    assert pair.unprompted_text == pair.prompted_text == "Hi?"
    assert pair.unprompted_ids == pair.prompted_ids == (41, 74, 32)
    with pytest.raises(PromptError):
        pair_for(tokenizer, ASKED, Settings(contrast_prompt=contrast))
    with pytest.raises(
        PromptError, match=r"^The chat template leaves the safety prompt out of the prompt\.$"
    ):
        pair_for(tokenizer, ASKED, Settings(method="selfcd"))
    system = pair_for(make_tokenizer(CHAT), ASKED.with_system("Be brief."), settings)
    assert system.unprompted_text == system.prompted_text
    assert "Be brief." in system.unprompted_text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{% for m in messages %}",
            "TemplateSyntaxError: Unexpected end of template. Jinja was looking for the following tags: "
            "'endfor' or 'else'. The innermost block that needs to be closed is 'for'",
        ),
        ("{{ messages | shout }}", "TemplateAssertionError: No filter named 'shout'"),
    ],
)
def test_a_broken_template_is_the_models_fault(template: str, reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        build_pair(make_tokenizer(template), ASKED, CONTRAST)
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == (
        f"The model's chat template is broken: {reason}.",
        "Mend the chat template in the model's folder, or use another model.",
        3,
    )


def test_a_tokenizer_that_cannot_tell_the_streams_apart() -> None:
    deaf = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"u": 0}, unk_token="u")), chat_template=CHAT
    )
    with pytest.raises(
        PromptError, match=r"The tokenizer gives the same ids with and without the contrast prompt."
    ):
        build_pair(deaf, ASKED, CONTRAST)


def test_a_tokenizer_without_jinja_templates() -> None:
    class Other(PreTrainedTokenizerFast):
        def get_chat_template(self, *_: object) -> str:
            raise NotImplementedError

    other = Other(tokenizer_object=make_tokenizer().backend_tokenizer)
    with pytest.raises(
        PromptError, match=r"Other has no Jinja chat template, which the contrast prompt needs."
    ):
        build_pair(other, ASKED, CONTRAST)
