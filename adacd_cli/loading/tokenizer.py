"""The tokenizer, whether it belongs to the model, and what the model's files say of ends and lengths."""

from __future__ import annotations

from typing import Any

from adacd_cli.errors import ModelError, first_line
from adacd_cli.loading.files import Source, ids_of

NO_LIMIT = 10**30
"""transformers' own number for a tokenizer that does not limit its input; the engine minds the context."""

_CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length")


def load_tokenizer(source: Source, name: str, *, trust_remote_code: bool) -> Any:
    """The tokenizer beside the weights, its ids as they are. ModelError where there is none that transformers can
    read."""
    from transformers import AutoTokenizer

    gguf = {} if source.gguf is None else {"gguf_file": source.gguf}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=trust_remote_code, **gguf)
    except Exception as error:  # JSON errors, missing packages, unknown classes: each tokenizer its own
        reason = first_line(error).rstrip(".")
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise ModelError(
                f"The tokenizer of {name} can only be loaded by Python code that comes with it.",
                "Read that code, and if you trust it add --trust-remote-code.",
            ) from error
        raise ModelError(
            f"The tokenizer of {name} cannot be loaded: {reason}.",
            "Put the model's tokenizer.json and tokenizer_config.json into its folder.",
        ) from error
    tokenizer.model_max_length = NO_LIMIT  # else each long prompt is warned of on stderr
    return tokenizer


def check_vocabulary(tokenizer: Any, rows: int, name: str) -> tuple[str, ...]:
    """Checks that every id of the tokenizer has an embedding.

    Args:
        rows: rows of the model's input embeddings.

    Returns:
        Warnings: a vocabulary far smaller than the model's.

    Raises:
        ModelError: the tokenizer has ids that the model has no embedding for.
    """
    ids = set(tokenizer.get_vocab().values())
    needed = ids - {tokenizer.pad_token_id}  # several Llamas were given a padding token that nothing feeds
    if not needed:
        raise ModelError(f"The tokenizer of {name} is empty.", "Download or save the model again.")
    if max(needed) >= rows:
        raise ModelError(
            f"The tokenizer of {name} belongs to another model: "
            f"it has ids up to {max(needed):,}, and the model has {rows:,} embeddings.",
            "Use the tokenizer files that came with the weights.",
        )
    if len(ids) < rows // 2:
        return (
            f"The tokenizer has {len(ids):,} tokens and the model {rows:,} embeddings: "
            "they may not belong together.",
        )
    return ()


def end_ids(tokenizer: Any, model: Any) -> frozenset[int]:
    """Every id that the tokenizer, the model's config or its generation config names as an end."""
    config = model.config
    text, generation = config.get_text_config(decoder=True), getattr(model, "generation_config", None)
    sources = (tokenizer, config, text, generation)
    return frozenset(end for each in sources for end in ids_of(getattr(each, "eos_token_id", None)))


def context_length(config: Any) -> int | None:
    """Positions the model was built for; None where its config names none."""
    text = config.get_text_config(decoder=True)
    lengths = (getattr(text, name, None) for name in _CONTEXT_NAMES)
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)
