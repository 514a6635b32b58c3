"""What the prompted stream of adacd_cli.hf.adacd reads, whoever rendered `input_ids`."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessor

from adacd_cli import Conversation, Settings, generate, prompts_for
from adacd_cli.errors import PromptError
from adacd_cli.hf import adacd, inputs_for
from adacd_cli.hf.prompts import prompts_of
from tests.golden import check
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


def second(prompts):
    """The ids of the second stream."""
    return [*prompts.streams.values()][-1].ids


def read_off(tokenizer, conversations, settings=DEFAULTS, *, messages=None, known=True):
    """The prompts of rows that somebody else rendered under the settings."""
    rows = [prompts_for(tokenizer, each, settings).base.ids for each in conversations]
    if known:
        settings = settings.model_copy(update={"thinking": settings.thinking})
    else:
        settings = Settings(**settings.model_dump(exclude={"thinking"}, exclude_unset=True))
    return prompts_of(rows, settings, tokenizer, messages, None)


@pytest.mark.parametrize("placement", ["system", "user-end"])
@pytest.mark.parametrize("template", [EASY, FOLDED, DEFAULT, THINKING, OPENED, None])
def test_the_contrast_prompt_is_put_in_as_the_template_would(template, placement):
    tokenizer, settings = tokenizer_with(template), Settings(contrast_placement=placement)
    questions = [*QUESTIONS, FORGED]
    if template is not FOLDED:  # there the space is cut off the question alone
        questions += SPACED
    asked = [Conversation.ask(question) for question in questions]
    if template not in (None, OPENED):
        asked.append(TURNS)
    if placement == "user-end":  # the ends of words are cut into other tokens
        asked = [each for each in asked if each.messages[-1].content in (*QUESTIONS[:2], *SPACED)]
    expected = [second(prompts_for(tokenizer, each, settings)) for each in asked]
    for known in (True, False):
        assert [second(each) for each in read_off(tokenizer, asked, settings, known=known)] == expected


@pytest.mark.parametrize("template", [EASY, FOLDED, BRACKETS, DEFAULT, LAST, THINKING, OPENED])
@pytest.mark.parametrize("thinking", [False, True])
def test_messages_give_what_our_own_prompts_are(template, thinking):
    tokenizer, settings = tokenizer_with(template), Settings(thinking=thinking)
    asked = [TURNS, OWN, Conversation.ask("Hi")]
    expected = [prompts_for(tokenizer, each, settings) for each in asked]
    messages = [each.as_messages for each in asked]
    found = read_off(tokenizer, asked, settings, messages=messages, known=False)
    assert [each.streams for each in found] == [each.streams for each in expected]
    if thinking and template not in (THINKING, OPENED):  # nothing in the prompt asks the model to think
        assert [each.thinking for each in found] == [None] * 3
    else:
        assert [each.thinking for each in found] == [each.thinking for each in expected]


@pytest.mark.parametrize(
    ("template", "conversation"),
    [(EASY, OWN), (DEFAULT, OWN), (BRACKETS, OWN), (BRACKETS, TURNS), (LAST, TURNS)],
)
def test_what_cannot_be_read_off_is_refused(template, conversation):
    with pytest.raises(PromptError) as caught:
        read_off(tokenizer_with(template), [conversation])
    check("hf", "cannot be read off", f"{caught.value.message}\n{caught.value.hint}")


@pytest.mark.parametrize("template", [EASY, FOLDED, DEFAULT])
def test_a_system_message_of_the_settings_is_in_both(template):
    tokenizer, settings = tokenizer_with(template), Settings(system="Be brief.")
    assert second(read_off(tokenizer, [OWN], settings)[0]) == second(prompts_for(tokenizer, OWN, Settings()))


def test_messages_that_are_not_those_of_input_ids():
    tokenizer = tokenizer_with(EASY)
    cases = {
        "other messages": ([Conversation.ask("Hi")], Conversation.ask("Ho").as_messages),
        "fewer messages": ([OWN, OWN], OWN.as_messages),
        "no conversation": ([OWN], [{"role": "user"}]),
    }
    for name, (asked, messages) in cases.items():
        with pytest.raises(PromptError) as caught:
            read_off(tokenizer, asked, messages=messages)
        check("hf", name, f"{caught.value.message}\n{caught.value.hint}")


def test_whether_a_row_is_going_to_think_is_found_out():
    tokenizer = tokenizer_with(THINKING)
    on, off = Settings(thinking=True), Settings()
    said = [Conversation.ask("Hi")]
    assert read_off(tokenizer, said, off) == read_off(tokenizer, said, off, known=False)
    assert read_off(tokenizer, said, off)[0].thinking is None
    for known in (True, False):
        thinking = read_off(tokenizer, said, on, known=known)[0].thinking
        assert thinking == prompts_for(tokenizer, said[0], on).thinking
        assert thinking.opened is False
    assert read_off(tokenizer_with(OPENED), said)[0].thinking.opened is True
    assert read_off(tokenizer_with(EASY), said)[0].thinking is None


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
    for name, asked in {
        "no tokenizer": {},
        "another end": {"prompted_input_ids": [[5, 6]]},
        "more rows": {"prompted_input_ids": [[5, 7], [7]]},
        "an empty row": {"prompted_input_ids": [[]]},
        "a mask too short": {"prompted_input_ids": [[5, 7]], "prompted_attention_mask": torch.tensor([[1]])},
        "padding on the right": {"prompted_input_ids": [[7, 0]], "prompted_attention_mask": [[1, 0]]},
    }.items():
        with pytest.raises(PromptError) as caught:
            tiny.model.generate(torch.tensor([[5, 6, 7]]), custom_generate=adacd, max_new_tokens=2, **asked)
        check("hf", name, f"{caught.value.message}\n{caught.value.hint}")
