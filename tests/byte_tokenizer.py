"""A byte-level tokenizer, made in-process, with a handful of control tokens and a chat template."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TURN = "<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n"
START = "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
CHAT = "{% for m in messages %}" + TURN + "{% endfor %}" + START


def chat(*turns: tuple[str, str], end: str = "<|start|>assistant\n") -> str:
    """What the template CHAT renders."""
    return "".join(f"<|start|>{role}\n{text}<|end|>\n" for role, text in turns) + end


def make_tokenizer(
    template: str | None = CHAT, *more: AddedToken, normalizer: normalizers.Normalizer | None = None
) -> PreTrainedTokenizerFast:
    """A tokenizer, a token a byte, with six control tokens; it puts <s> in front of plain text."""
    vocabulary = {"<s>": 0, "</s>": 1}
    for character in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[character] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|end|>"]})
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>"), *more])
    tokenizer.chat_template = template
    return tokenizer
