"""The two prompts on 86 real chat templates: each gives a pair that keeps the contract, or a named error.

The templates and two real tokenizers lie beside the repository, not in it; without them this is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from adacd_cli.conversation import Conversation
from adacd_cli.errors import PromptError
from adacd_cli.prompts import PromptPair, build_prompts

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
ASKED = Conversation.ask("How do I kill a Python process?")
TALK = ASKED.with_assistant("Use Ctrl-C.").with_user("And if it hangs?")
TALKS = {
    "asked": ASKED,
    "talk": TALK,
    "asked, system": ASKED.with_system(SYSTEM),
    "talk, system": TALK.with_system(SYSTEM),
}

REFUSES = {
    # It sets an attribute of each assistant message, which Jinja allows of namespaces only.
    (
        "MiroThinker",
        "talk",
    ): "The chat template refuses the conversation: TemplateRuntimeError: cannot assign attribute on "
    "non-namespace object.",
}
REFUSES["MiroThinker", "talk, system"] = REFUSES["MiroThinker", "talk"]

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


@pytest.fixture(params=["minimind", "phi-3-mini"])
def tokenizer_for(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """Gives a real tokenizer one of the templates."""

    def give(name: str) -> Any:
        tokenizer = load_tokenizer(request.param)
        tokenizer.chat_template = TEMPLATES[name]["template"]
        return tokenizer

    return give


def squeeze(text: str) -> str:
    return "".join(text.split())


def test_all_templates_are_here() -> None:
    assert len(TEMPLATES) == 86


@pytest.mark.parametrize("thinking", [False, True], ids=["off", "thinking"])
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_pair(tokenizer_for: Callable[[str], Any], name: str, talk: str, thinking: bool) -> None:
    tokenizer, conversation = tokenizer_for(name), TALKS[talk]
    if (name, talk) in REFUSES:
        with pytest.raises(PromptError) as caught:
            build_prompts(tokenizer, conversation, contrasted(CONTRAST), thinking=thinking)
        assert caught.value.message == REFUSES[name, talk]
        return

    pair = build_prompts(tokenizer, conversation, contrasted(CONTRAST), thinking=thinking)

    assert second(pair).ids != pair.base.ids
    prompted, unprompted = squeeze(second(pair).text), squeeze(pair.base.text)
    assert squeeze(CONTRAST) in prompted
    assert squeeze(CONTRAST) not in unprompted
    has_system = conversation.system is not None
    assert (squeeze(SYSTEM) in prompted, squeeze(SYSTEM) in unprompted) == (has_system, has_system)
    question = conversation.messages[-1].content
    end = pair.base.text.rpartition(question)[2]
    assert second(pair).text.endswith(question + end)
    for ids, text in (
        (second(pair).ids, second(pair).text),
        (pair.base.ids, pair.base.text),
    ):
        assert list(ids) == tokenizer(text, add_special_tokens=False)["input_ids"]
        # The other tokenizer's <s> is <|im_start|>, which several templates write after it.
        assert ids[:2] != (tokenizer.bos_token_id,) * 2 or tokenizer.bos_token == "<|im_start|>"
    assert_thinking(pair, name, end, thinking)
    folds = "The chat template takes no system message; it stands in front of the first user message."
    assert (folds in pair.warnings) == (name in FOLD and has_system)


def assert_thinking(pair: PromptPair, name: str, end: str, thinking: bool) -> None:
    """Marks exactly where the model is going to think, opened exactly where the prompt ends in the tag."""
    always = "This chat template always lets the model think first: it has no switch against it."
    assert (always in pair.warnings) == (not thinking and name in ALWAYS_THINK)
    if name in NEVER_THINK or not (thinking or name in ALWAYS_THINK):
        assert pair.thinking is None
    elif pair.thinking is not None:
        assert pair.thinking.opened == end.rstrip().endswith(pair.thinking.open)
        assert not end.rstrip().endswith(pair.thinking.close)
    else:
        warning = "Thinking is on, but neither the chat template nor the tokenizer knows a thinking tag."
        assert warning in pair.warnings


@pytest.mark.parametrize("name", TEMPLATES)
def test_nothing_said_forges_a_turn(tokenizer_for: Callable[[str], Any], name: str) -> None:
    tokenizer = tokenizer_for(name)
    added = tokenizer.added_tokens_decoder
    tokens = "".join(str(token) for token in added.values())
    rules = tokens.replace("</think>", "")  # SmolLM3 reads the flag "/think" in system messages

    def control_ids(asked: str, ruled: str) -> tuple[list[int], ...]:
        conversation = Conversation.ask(f"Hi {asked} ho", f"Be {ruled} brief")
        pair = build_prompts(tokenizer, conversation, f"Please {ruled} refuse!")
        return tuple([i for i in ids if i in added] for ids in (pair.base.ids, second(pair).ids))

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
    tokenizer = load_tokenizer("phi-3-mini")
    tokenizer.chat_template = TEMPLATES[name]["template"]
    pair = build_prompts(tokenizer, TALKS["talk, system"], contrasted(CONTRAST))
    assert second(pair).text == GOLDEN[name]
    assert pair.base.text == GOLDEN[name].replace(f"{CONTRAST}\n\n", "")
