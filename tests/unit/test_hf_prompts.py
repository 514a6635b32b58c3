"""What the prompted stream of adacd_cli.hf.adacd reads, whoever rendered `input_ids`."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessor

from adacd_cli import Conversation, Settings, generate, prompts_for
from adacd_cli.errors import PromptError
from adacd_cli.hf import adacd, inputs_for
from adacd_cli.hf.prompted import Given, prompted_rows
from tests.fakes import second
from tests.tiny import CHATML, tiny_model, tiny_tokenizer

EASY = CHATML
FOLDED = (
    "{{ '<|im_start|>' }}{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}assistant\n"
)
BRACKETS = (  # Llama-2's: a system message stands inside the first user message
    "{% if messages[0].role == 'system' %}"
    "{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if message.role == 'user' %}[INST] {{ system if loop.first else '' }}"
    "{{ message.content | trim }} [/INST]{% else %} {{ message.content | trim }}<|im_end|>{% endif %}"
    "{% endfor %}"
)
DEFAULT = (  # Qwen2.5's: a text of its own where there is no system message
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Tiny.<|im_end|>\n{% endif %}" + CHATML
)
LAST = (  # Mistral's: a system message stands before the last user message
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if message.role == 'user' %}[INST] {{ system if loop.last else '' }}"
    "{{ message.content }} [/INST]{% else %} {{ message.content }}<|im_end|>{% endif %}{% endfor %}"
)
THINKING = CHATML.replace(
    "<|im_start|>assistant\n",
    "<|im_start|>assistant\n{% if not enable_thinking %}<think>\n\n</think>{% endif %}",
)
OPENED = CHATML.replace(
    "<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n{% if false %}</think>{% endif %}"
)

QUESTIONS = ("How do I kill a Python process?", "7 ways?", "«Pardon»", "你好")
SPACED = (" - x", "\tx")
FORGED = "<|im_end|>"
DEFAULTS = Settings()
TURNS = Conversation.ask("Hi").with_assistant("Hello").with_user("How do I kill a process?")
OWN = Conversation.ask("Hi", "Be brief.")


def tokenizer_with(template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def read_off(tokenizer, conversations, settings=DEFAULTS, *, messages=None, known=False):
    """(prompted rows, thinking marks) of prompts that somebody else rendered under the settings."""
    prompts = [prompts_for(tokenizer, each, settings).base.ids for each in conversations]
    given = Given(None, messages, tokenizer, 1)
    return prompted_rows(prompts, given, settings, rendering_known=known)


@pytest.mark.parametrize("template", [EASY, FOLDED, BRACKETS, DEFAULT, THINKING, OPENED, None])
def test_the_beginning_is_replaced_as_the_template_would(template):
    tokenizer = tokenizer_with(template)
    questions = list(QUESTIONS)
    if template is not BRACKETS:  # there words after the beginning are cut into other tokens
        questions.append(FORGED)
    if template not in (FOLDED, BRACKETS):  # there the space is cut off the question alone
        questions += SPACED
    asked = [Conversation.ask(question) for question in questions]
    if template not in (None, OPENED):
        asked.append(TURNS)
    expected = [second(prompts_for(tokenizer, each, Settings())).ids for each in asked]
    assert read_off(tokenizer, asked)[0] == expected


@pytest.mark.parametrize("template", [EASY, FOLDED, BRACKETS, DEFAULT, LAST, THINKING, OPENED])
@pytest.mark.parametrize("thinking", [False, True])
def test_messages_give_what_our_own_prompts_are(template, thinking):
    tokenizer, settings = tokenizer_with(template), Settings(thinking=thinking)
    asked = [TURNS, OWN, Conversation.ask("Hi")]
    pairs = [prompts_for(tokenizer, each, settings) for each in asked]
    prompts = [pair.base.ids for pair in pairs]
    given = Given(None, [each.as_messages for each in asked], tokenizer, 1)
    prompted, marks = prompted_rows(prompts, given, Settings(), rendering_known=False)
    assert prompted == [second(pair).ids for pair in pairs]
    if thinking and template not in (THINKING, OPENED):  # nothing in the prompt asks the model to think
        assert marks == [None] * 3
    else:
        assert marks == [pair.thinking for pair in pairs]


ELSE = (
    "Give generate messages=, the list of messages that input_ids were made of, or make its inputs with "
    "adacd_cli.hf.inputs_for."
)


@pytest.mark.parametrize(
    ("template", "conversation", "why"),
    [
        (
            EASY,
            OWN,
            "it begins with '<|im_start|>system\\nBe brief.<|im_end|>\\n<|im_start|>user\\nHi<|im_end|>\\n"
            "<|im_start|>', not with '<|im_start|>user\\n'",
        ),
        (BRACKETS, OWN, "it begins with a system message of its own"),
        (BRACKETS, Conversation.ask(FORGED), "its text cannot be read off its ids"),
        (LAST, TURNS, "the chat template puts the contrast prompt elsewhere"),
    ],
)
def test_what_cannot_be_read_off_is_said(template, conversation, why):
    with pytest.raises(PromptError) as caught:
        read_off(tokenizer_with(template), [conversation])
    begin = "The prompted stream's prompt cannot be read off row 0 of input_ids: "
    assert caught.value.message.startswith(begin)
    if template is not EASY:
        assert caught.value.message == f"{begin}{why}."
    else:
        # which of the two beginnings is the longer one is the tokenizer's to say
        own = f"{begin}it begins with a system message of its own."
        assert caught.value.message.endswith("not with '<|im_start|>user\\n'.") or caught.value.message == own
    assert caught.value.hint == ELSE


@pytest.mark.parametrize("template", [EASY, FOLDED, BRACKETS, DEFAULT])
def test_a_system_message_of_the_settings_is_in_both(template):
    tokenizer, settings = tokenizer_with(template), Settings(system="Be brief.")
    expected = [second(prompts_for(tokenizer, OWN, Settings())).ids]
    assert read_off(tokenizer, [OWN], settings)[0] == expected


def test_messages_that_are_not_those_of_input_ids():
    tokenizer = tokenizer_with(EASY)
    with pytest.raises(PromptError) as caught:
        read_off(tokenizer, [Conversation.ask("Hi")], messages=Conversation.ask("Ho").as_messages)
    assert caught.value.message.startswith(
        "Row 0 of input_ids is not what the chat template makes of its messages: they part at token "
    )
    with pytest.raises(PromptError, match=r"^`messages` are for 1 prompts, and input_ids have 2 rows\.$"):
        read_off(tokenizer, [OWN, OWN], messages=OWN.as_messages)
    with pytest.raises(PromptError, match=r"^The messages are no conversation: message 0 has no text\.$"):
        read_off(tokenizer, [OWN], messages=[{"role": "user"}])


def test_whether_a_row_is_going_to_think_is_found_out():
    tokenizer = tokenizer_with(THINKING)
    on, off = Settings(thinking=True), Settings()
    said = [Conversation.ask("Hi")]
    assert read_off(tokenizer, said, off) == (read_off(tokenizer, said, off, known=True)[0], [None])
    assert read_off(tokenizer, said, on)[1] == [prompts_for(tokenizer, said[0], on).thinking]
    assert read_off(tokenizer, said, on)[1][0].opened is False
    opened = tokenizer_with(OPENED)
    assert read_off(opened, said)[1][0].opened is True
    assert read_off(tokenizer_with(EASY), said)[1] == [None]


class Says(LogitsProcessor):
    """Lets the model say these tokens and then what it likes."""

    def __init__(self, ids, prompt):
        self.ids, self.prompt = ids, prompt

    def __call__(self, input_ids, scores):
        said = input_ids.shape[1] - self.prompt
        if said >= len(self.ids):
            return scores
        only = torch.full_like(scores, -torch.inf)
        only[:, self.ids[said]] = 0.0
        return only


def test_the_contrast_begins_after_the_thinking():
    tiny = tiny_model("llama")
    tiny.tokenizer.chat_template = OPENED
    inputs = inputs_for(tiny.tokenizer, ["Hi", "How do I kill a Python process?"], thinking=True)
    thought = tiny.tokenizer("some thought</think>", add_special_tokens=False)["input_ids"]
    prompt = inputs["input_ids"].shape[1]
    processor = [Says(thought, prompt)]
    output = tiny.model.generate(
        **inputs, custom_generate=adacd, logits_processor=processor, max_new_tokens=len(thought) + 15
    )
    assert output[:, prompt : prompt + len(thought)].tolist() == [thought] * 2

    def with_thought(name):
        return torch.cat([inputs[name], torch.tensor([thought] * 2)], dim=1)

    def with_ones(name):
        return torch.cat([inputs[name], torch.ones((2, len(thought)), dtype=torch.int64)], dim=1)

    at_once = tiny.model.generate(
        with_thought("input_ids"),
        attention_mask=with_ones("attention_mask"),
        prompted_input_ids=with_thought("prompted_input_ids"),
        prompted_attention_mask=with_ones("prompted_attention_mask"),
        custom_generate=adacd,
        max_new_tokens=15,
    )
    assert torch.equal(at_once, output)
    plain = tiny.model.generate(
        with_thought("input_ids"),
        attention_mask=with_ones("attention_mask"),
        custom_generate=adacd,
        method="default",
        max_new_tokens=15,
    )
    assert not torch.equal(plain, output)


def test_a_model_that_thinks_by_itself_answers_as_in_our_own_decoding():
    tiny = tiny_model("llama")
    tiny.tokenizer.chat_template = THINKING
    answer = generate(tiny, "Hi", thinking=True, max_new_tokens=20)
    inputs = inputs_for(tiny.tokenizer, "Hi", thinking=True)
    output = tiny.model.generate(**inputs, custom_generate=adacd, max_new_tokens=20)
    assert output[0, inputs["input_ids"].shape[1] :].tolist() == [step.token_id for step in answer.steps]


def test_ready_prompts_must_fit_the_rows():
    tiny = tiny_model("llama")

    def message(**given):
        with pytest.raises(PromptError) as caught:
            tiny.model.generate(torch.tensor([[5, 6, 7]]), custom_generate=adacd, max_new_tokens=2, **given)
        return caught.value.message

    assert message() == "The prompted stream's prompt cannot be made without a tokenizer."
    assert message(prompted_input_ids=[[5, 6]]) == (
        "Row 0 of prompted_input_ids ends in another token (6) than input_ids (7)."
    )
    assert message(prompted_input_ids=[[5, 7], [7]]) == (
        "`prompted_input_ids` are for 2 prompts, and input_ids have 1 rows."
    )
    assert message(prompted_input_ids=[[]]) == "Row 0 of prompted_input_ids is empty: it has no token."
    pad = tiny.tokenizer.pad_token_id
    batch = torch.tensor([[5, 6, 7], [5, 6, 7]])
    with pytest.raises(PromptError) as caught:
        tiny.model.generate(
            batch,
            custom_generate=adacd,
            prompted_input_ids=torch.tensor([[pad, 5, 7], [8, 5, 7]]),
            max_new_tokens=2,
        )
    assert (caught.value.message, caught.value.hint) == (
        "Some rows of prompted_input_ids begin or end with the padding token, and no attention mask tells "
        "why.",
        "Give prompted_attention_mask as well.",
    )
    mask = torch.tensor([[1]])
    assert message(prompted_input_ids=[[5, 7]], prompted_attention_mask=mask) == (
        "The attention mask of prompted_input_ids has another shape than they have."
    )
