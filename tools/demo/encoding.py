"""The demo's tokenizer and chat template, and dialogues as token ids with a loss weight for each.

The tokenizer is a byte-level BPE trained on the corpus, so any text can be encoded. The template writes every
message as role marker, text, `<|end|>`; tests compare it with `encode_dialogue`, which builds the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tools.demo.dialogues import REFUSAL, Dialogue

PAD, SYSTEM, USER, ASSISTANT, END = "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIALS = (PAD, SYSTEM, USER, ASSISTANT, END)
PAD_ID, SYSTEM_ID, USER_ID, ASSISTANT_ID, END_ID = range(len(SPECIALS))
CONTEXT = 512

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Unknown role: ' + message['role']) }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# The first token of a reply is the decision to refuse, so it counts more; what is asked counts a little,
# which teaches the words of the questions.
FIRST_TOKEN_WEIGHT = 15.0
PROMPT_WEIGHT = 0.1


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocabulary` tokens with the chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


@dataclass(frozen=True, slots=True)
class Encoded:
    """A dialogue as token ids.

    Attributes:
        ids: the tokens.
        weights: for each, how much predicting it counts.
        refused: for each, how often the refusal's first token stands in its place, in [0, 1].
    """

    ids: list[int]
    weights: list[float]
    refused: list[float]


def refusal_id(tokenizer: Tokenizer) -> int:
    """The refusal's first token."""
    first: int = tokenizer.encode(REFUSAL).ids[0]
    return first


def encode_dialogue(dialogue: Dialogue, tokenizer: Tokenizer) -> Encoded:
    """The whole dialogue as the chat template writes it, replies with their loss weights."""
    encoded = Encoded([], [], [])

    def add(tokens: list[int], weight: float, refused: float = 0.0) -> None:
        encoded.ids.extend(tokens)
        encoded.weights.extend([weight] * len(tokens))
        encoded.refused.extend([refused] * len(tokens))

    if dialogue.system is not None:
        add([SYSTEM_ID], 0.0)
        add(tokenizer.encode(dialogue.system).ids, 0.0)
        add([END_ID], 0.0)
    for turn in dialogue.turns:
        add([USER_ID], 0.0)
        add(tokenizer.encode(turn.question).ids, PROMPT_WEIGHT)
        add([END_ID, ASSISTANT_ID], 0.0)
        reply = tokenizer.encode(turn.reply).ids
        add(reply[:1], FIRST_TOKEN_WEIGHT, turn.refused)
        add(reply[1:], 1.0)
        add([END_ID], 1.0)
    return Encoded(encoded.ids[:CONTEXT], encoded.weights[:CONTEXT], encoded.refused[:CONTEXT])
