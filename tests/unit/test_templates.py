"""All placements on 86 real chat templates: each keeps the contract, or gives a named error.

The templates and two real tokenizers lie beside the repository, not in it; without them this is skipped.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from adacd_cli.conversation import Conversation
from adacd_cli.errors import PromptError
from adacd_cli.prompts import Prompts, build_prompts
from adacd_cli.prompts.placement import PLACEMENTS
from tests.fakes import contrasted, second

SHARED = Path(__file__).parents[2].with_name("shared")
if not SHARED.is_dir():
    SHARED = Path(__file__).parents[2] / "shared"
TEMPLATES_FILE = SHARED / "data" / "chat_templates.json"
TEMPLATES: dict[str, dict[str, Any]] = (
    json.loads(TEMPLATES_FILE.read_text(encoding="utf-8")) if TEMPLATES_FILE.is_file() else {}
)
pytestmark = pytest.mark.skipif(not TEMPLATES, reason="shared/data/chat_templates.json is not here")

CONTRAST = "Please refuse to answer me!"
SYSTEM = "Answer as a pirate."
QUESTION = "How do I kill a Python process?"
ASKED = Conversation.ask(QUESTION)
TALK = ASKED.with_assistant("Use Ctrl-C.").with_user("And if it hangs?")
TALKS = {
    "asked": ASKED,
    "talk": TALK,
    "said twice": ASKED.with_assistant("Use Ctrl-C.").with_user(QUESTION),
    "p* said": Conversation.ask(f"Is '{CONTRAST}' rude? I mean: {CONTRAST}"),
    "white space": Conversation.ask(f"  {QUESTION}\n\nI mean\nit. \n"),
}
TALKS |= {f"{name}, system": talk.with_system(SYSTEM) for name, talk in TALKS.items()}

REFUSES = ("MiroThinker", ("talk", "said twice"))
"""A template that sets an attribute of each assistant message, which Jinja allows of namespaces only."""

ALWAYS_THINK = {
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "llama-cpp-deepseek-r1",
    "openai-gpt-oss-120b",
    "ort-gpt-oss",
}

NEVER_THINK = {"Qwen3-nonthinking"}

FOLD = {
    "google-gemma-2-2b-it",
    "hfjs-CISCai--Mistral-7B-Instruct-v0.3-SOTA-GGUF",
    "hfjs-TheBloke--Mistral-7B-Instruct-v0.1-GPTQ",
    "hfjs-meta-llama--Llama-Guard-3-11B-Vision",
    "hfjs-mistralai--Mistral-7B-Instruct-v0.3-JSON-Schema",
    "hfjs-mistralai--Mixtral-8x7B-Instruct-v0.1",
    "ort-added-tokens",
    "ort-phi-3-medium",
}


@cache
def load_tokenizer(name: str) -> Any:
    folder = SHARED / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"shared/tokenizers/{name} is not here")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def give(tokenizer_name: str, template: str) -> Any:
    """A real tokenizer with one of the templates."""
    tokenizer = load_tokenizer(tokenizer_name)
    tokenizer.chat_template = TEMPLATES[template]["template"]
    return tokenizer


TOKENIZERS = ("minimind", "phi-3-mini")


def squeeze(text: str) -> str:
    return "".join(text.split())


def test_all_templates_are_here() -> None:
    assert len(TEMPLATES) == 86


@pytest.mark.grid
@pytest.mark.parametrize("tokenizer_name", TOKENIZERS)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts(tokenizer_name: str, name: str, placement: str) -> None:
    tokenizer = give(tokenizer_name, name)
    for talk, conversation in TALKS.items():
        for thinking in (False, True) if talk in ("asked", "talk, system") else (False,):

            def build(conversation: Conversation = conversation, thinking: bool = thinking) -> Prompts:
                streams = contrasted(CONTRAST)
                return build_prompts(tokenizer, conversation, streams, thinking=thinking, placement=placement)

            if name == REFUSES[0] and talk.startswith(REFUSES[1]):
                with pytest.raises(PromptError, match=r"^The chat template refuses the conversation: "):
                    build()
                continue
            prompts = build()
            assert_streams(tokenizer, prompts, conversation, placement)
            question = conversation.messages[-1].content.strip()
            assert_thinking(prompts, name, prompts.base.text.rpartition(question)[2], thinking)
            folds = "The chat template takes no system message; it stands in front of the first user message."
            assert (folds in prompts.warnings) == (name in FOLD and conversation.system is not None)


def assert_streams(tokenizer: Any, prompts: Prompts, conversation: Conversation, placement: str) -> None:
    """p* in one stream only, all else in both, and the same end."""
    bare, other = prompts.base, second(prompts)
    squeezed = squeeze(other.text), squeeze(bare.text)
    more = squeezed[0].count(squeeze(CONTRAST)) - squeezed[1].count(squeeze(CONTRAST))
    assert more == 1 or (placement == "system" and more == 2)  # some write the system message twice
    has_system = conversation.system is not None
    assert [squeeze(SYSTEM) in text for text in squeezed] == [has_system, has_system]
    question = conversation.messages[-1].content.strip()
    front, _, end = bare.text.rpartition(question)
    if placement == "system":
        assert other.text.endswith(question + end)
    elif placement == "user-start":
        assert other.text.startswith(front.rstrip())
        assert other.text.endswith(question + end)
    else:
        assert other.text.startswith(front + question)
        assert squeeze(other.text).endswith(squeeze(CONTRAST + end))
        assert other.text.endswith(end[len(end) - len(end.lstrip()) :])
        # all tokens before the one that holds the end of the user's words are the same
        spans = tokenizer(bare.text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        last = next(place for place, (_, stop) in enumerate(spans) if stop >= len(front + question))
        assert prompts.shared_with_base("prompted") >= last
    assert (other.contrast, other.recurs) == (CONTRAST, placement == "system")
    for ids, text in ((bare.ids, bare.text), (other.ids, other.text)):
        assert list(ids) == tokenizer(text, add_special_tokens=False)["input_ids"]
        # The other tokenizer's <s> is <|im_start|>, which several templates write after it.
        assert ids[:2] != (tokenizer.bos_token_id,) * 2 or tokenizer.bos_token == "<|im_start|>"


def assert_thinking(prompts: Prompts, name: str, end: str, thinking: bool) -> None:
    """Marks exactly where the model is going to think, opened exactly where the prompt ends in the tag."""
    always = "This chat template always lets the model think first: it has no switch against it."
    assert (always in prompts.warnings) == (not thinking and name in ALWAYS_THINK)
    if name in NEVER_THINK or not (thinking or name in ALWAYS_THINK):
        assert prompts.thinking is None
    elif prompts.thinking is not None:
        assert prompts.thinking.opened == end.rstrip().endswith(prompts.thinking.open)
        assert not end.rstrip().endswith(prompts.thinking.close)
    else:
        warning = "Thinking is on, but neither the chat template nor the tokenizer knows a thinking tag."
        assert warning in prompts.warnings


@pytest.mark.grid
@pytest.mark.parametrize("tokenizer_name", TOKENIZERS)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_nothing_said_forges_a_turn(tokenizer_name: str, name: str, placement: str) -> None:
    tokenizer = give(tokenizer_name, name)
    added = tokenizer.added_tokens_decoder
    tokens = "".join(str(token) for token in added.values())
    rules = tokens.replace("</think>", "")  # SmolLM3 reads the flag "/think" in system messages

    def control_ids(asked: str, ruled: str) -> tuple[list[int], ...]:
        conversation = Conversation.ask(f"Hi {asked} ho", f"Be {ruled} brief")
        streams = contrasted(f"Please {ruled} refuse!")
        prompts = build_prompts(tokenizer, conversation, streams, placement=placement)
        return tuple([i for i in each.ids if i in added] for each in prompts.streams.values())

    assert control_ids(tokens, rules) == control_ids("x", "x")


GOLDEN = {
    "Qwen-Qwen3-0.6B": (
        "<|im_start|>system\nPlease refuse to answer me!\n\nAnswer as a pirate.<|im_end|>\n"
        "<|im_start|>user\nHow do I kill a Python process?<|im_end|>\n"
        "<|im_start|>assistant\nUse Ctrl-C.<|im_end|>\n"
        "<|im_start|>user\nAnd if it hangs?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ),
    "google-gemma-2-2b-it": (
        "<s><start_of_turn>user\nPlease refuse to answer me!\n\nAnswer as a pirate.\n\n"
        "How do I kill a Python process?<end_of_turn>\n"
        "<start_of_turn>model\nUse Ctrl-C.<end_of_turn>\n"
        "<start_of_turn>user\nAnd if it hangs?<end_of_turn>\n"
        "<start_of_turn>model\n"
    ),
    "meta-llama-Llama-3.1-8B-Instruct": (
        "<s><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
        "Please refuse to answer me!\n\nAnswer as a pirate.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHow do I kill a Python process?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nUse Ctrl-C.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd if it hangs?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "ort-phi-3-medium": (
        "<|user|>\nPlease refuse to answer me!\n\nAnswer as a pirate.\n\n"
        "How do I kill a Python process?<|end|>\n"
        "<|assistant|>\nUse Ctrl-C.<|end|>\n"
        "<|user|>\nAnd if it hangs?<|end|>\n"
        "<|assistant|>\n"
    ),
    "hfjs-deepseek-ai--DeepSeek-R1": (
        "<s>Please refuse to answer me!\n\nAnswer as a pirate."
        "<｜User｜>How do I kill a Python process?<｜Assistant｜>Use Ctrl-C.<｜end▁of▁sentence｜>"
        "<｜User｜>And if it hangs?<｜Assistant｜>"
    ),
    "GLM-4.6": (
        "[gMASK]<sop><|system|>\nPlease refuse to answer me!\n\nAnswer as a pirate."
        "<|user|>\nHow do I kill a Python process?/nothink<|assistant|>\n<think></think>\nUse Ctrl-C."
        "<|user|>\nAnd if it hangs?/nothink<|assistant|>\n<think></think>"
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_whole_prompt(name: str) -> None:
    tokenizer = give("phi-3-mini", name)
    talk, streams = TALKS["talk, system"], contrasted(CONTRAST)
    bare = GOLDEN[name].replace(f"{CONTRAST}\n\n", "")
    prompts = build_prompts(tokenizer, talk, streams)
    assert (prompts.base.text, second(prompts).text) == (bare, GOLDEN[name])
    before, after = (
        build_prompts(tokenizer, talk, streams, placement=each) for each in ("user-start", "user-end")
    )
    question = "And if it hangs?"
    assert second(before).text == bare.replace(question, f"{CONTRAST}\n\n{question}")
    assert second(after).text == bare.replace(question, f"{question}\n\n{CONTRAST}")
    assert before.base == after.base == prompts.base
